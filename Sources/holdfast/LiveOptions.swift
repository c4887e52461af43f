// What `replay --lockstep` and `replay --live` can be asked for, checked before anything starts.

import ArgumentParser
import KVModel
import KVSimulation

struct LiveOptions: ParsableArguments {
    @Flag(
        name: .customLong("lockstep"),
        help: "One request at a time, everything at rest before the next: exact hit tokens by tier, no queueing.")
    var isLockStep = false

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Nodes; by default as many as the scenario has.", valueName: "count"))
    var agents: Int?

    @Option(
        help: ArgumentHelp(
            "How conversations find engines: \(LockStepRouter.allCases.map(\.rawValue).joined(separator: ", ")); sticky by default.",
            valueName: "rule"))
    var route: String?

    @Flag(
        name: .customLong("live"),
        help: """
            Real agents and a real store, processes of their own on this machine, in place of modelled ones; every byte of \
            every hit is compared. Without --lockstep requests come at the trace's times.
            """)
    var isLive = false

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Live, in time: run the trace so many times as fast as it was (default: what this machine should bear).",
            valueName: "factor"))
    var compress: Double?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Live, in time: let no further request come after so many seconds.", valueName: "seconds"))
    var timeLimit: Double?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Bytes of a block, 64KiB by default; tiers hold as many blocks as the scenario's.", valueName: "size"))
    var blockBytes: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            """
            With --lockstep or --live: HBM slots of each node that are the agents' to give (an emulated device), in bytes of the \
            model's blocks; engines then have no memory of their own.
            """, valueName: "size"))
    var hbm: String?

    @Option(
        help: ArgumentHelp(
            """
            Live: kill -9 this in the middle of the first load from the N-th request on: store@N, store@N-M (back before \
            the M-th), agent@N or engine@N (back at once, empty). May be repeated.
            """, valueName: "what@N"))
    var kill: [String] = []

    func validate() throws {
        if compress != nil || timeLimit != nil, !isLive || isLockStep {
            throw ValidationError("--compress and --time-limit are for --live without --lockstep.")
        }
        if let compress, !(0.001...100_000).contains(compress) {
            throw ValidationError("--compress \(compress): give 0.001 to 100000.")
        }
        if let timeLimit, !(0.1...1e6).contains(timeLimit) {
            throw ValidationError("--time-limit \(timeLimit): give 0.1 to 1000000 seconds.")
        }
        if hbm != nil, !isLockStep, !isLive { throw ValidationError("--hbm is for --lockstep or --live.") }
        if !isLive, !kill.isEmpty { throw ValidationError("--kill needs --live: modelled processes do not die.") }
        if let agents, !(1...1024).contains(agents) { throw ValidationError("--agents \(agents): give 1 to 1024.") }
    }

    private var routeName: String { route ?? LockStepRouter.sticky.rawValue }
    private var blockSize: String { blockBytes ?? "64KiB" }

    /// The rule by which conversations find engines.
    func router() throws(OperatorError) -> LockStepRouter {
        guard let router = LockStepRouter(rawValue: routeName) else {
            let known = LockStepRouter.allCases.map(\.rawValue).joined(separator: ", ")
            throw OperatorError("'\(routeName)' is not a rule", at: "--route", remedy: "give one of \(known)")
        }
        return router
    }

    /// The words of a command that asks for the same.
    var words: [String] {
        var words = isLockStep ? ["--lockstep"] : []
        words += ["--route", routeName]
        if let agents { words += ["--agents", "\(agents)"] }
        if let hbm { words += ["--hbm", hbm] }
        if isLive { words += ["--live", "--block-bytes", blockSize] }
        if let compress { words += ["--compress", "\(compress)"] }
        if let timeLimit { words += ["--time-limit", "\(timeLimit)"] }
        for killing in kill { words += ["--kill", killing] }
        return words
    }

    /// Bytes of a block.
    func size() throws(OperatorError) -> Int {
        let bytes = try ByteSize.read(blockSize, name: "--block-bytes", at: "--block-bytes")
        guard bytes >= 4096, bytes % 4096 == 0, bytes <= 16 << 20 else {
            throw OperatorError(
                "'\(blockSize)' is not a multiple of 4 KiB up to 16 MiB", at: "--block-bytes", remedy: "give 64KiB")
        }
        return bytes
    }

    /// HBM slots of each node. An engine must have room for the prompt that it computes.
    ///
    /// - Parameter engines: Of a node in time, with several requests each: every one of them must have room for the longest
    ///   request and its answer. Nil: in lock step, where the whole node has one request.
    func hbmBlocks(of replay: ModelledReplay, engines: Int? = nil) throws(OperatorError) -> Int {
        guard let hbm else { return 0 }
        let blocks = try ByteSize.read(hbm, name: "--hbm", at: "--hbm") / replay.blockBytes
        let longest = engines.map { _ in replay.pacedBlocksMax } ?? replay.pathBlocksMax
        let needed = max(16, (engines ?? 1) * longest)
        guard (needed...1 << 28).contains(blocks) else {
            let share = engines.map { $0 > 1 ? " for each of \($0) engines" : "" } ?? ""
            throw OperatorError(
                "'\(hbm)' has room for \(blocks) blocks of \(ByteSize.text(replay.blockBytes)), and the longest "
                    + "\(engines == nil ? "prompt" : "request") has \(longest)\(share)", at: "--hbm",
                remedy: "give it at least \(ByteSize.text(needed * replay.blockBytes))")
        }
        return blocks
    }

    func killings() throws(OperatorError) -> [LiveKilling] {
        var killings: [LiveKilling] = []
        for text in kill {
            let parts = text.split(separator: "@", omittingEmptySubsequences: false)
            let times = parts.last?.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) } ?? []
            guard parts.count == 2, let what = LiveKilling.Victim(rawValue: String(parts[0])),
                times.count == 1 || (times.count == 2 && what == .store), let request = times[0], request >= 0,
                times.count == 1 || (times[1] ?? -1) > request
            else {
                throw OperatorError(
                    "'\(text)' is not store@N, store@N-M, agent@N or engine@N", at: "--kill",
                    remedy: "give agent@100, or store@100-200")
            }
            killings.append(LiveKilling(what: what, request: request, back: times.count == 2 ? times[1] : nil))
        }
        return killings
    }

    /// A killing behind the end of the trace would never come, and the run would look like one that nothing could harm.
    func check(_ killings: [LiveKilling], requests: Int) throws(OperatorError) {
        for (killing, text) in zip(killings, kill) {
            guard max(killing.request, killing.back ?? 0) >= requests else { continue }
            throw OperatorError(
                "'\(text)' never comes: the trace has \(requests) requests, the first is 0", at: "--kill",
                remedy: "give at most \(killing.what.rawValue)@\(requests - 1)")
        }
    }
}
