// `replay --lockstep`: one request at a time, so that what is decided depends on nothing but the trace. Its record has
// the ordinary shape, and `report` shows it beside others.

import ArgumentParser
import KVModel
import KVReport
import KVSimulation

struct LockStepOptions: ParsableArguments {
    @Flag(
        name: .customLong("lockstep"),
        help: "One request at a time, everything at rest before the next: exact hit tokens by tier, no queueing.")
    var isAsked = false

    @Option(help: ArgumentHelp("Nodes; by default as many as the scenario has.", valueName: "count"))
    var agents: Int?

    @Option(
        help: ArgumentHelp(
            "How conversations find engines: \(LockStepRouter.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "rule"))
    var route: String = LockStepRouter.sticky.rawValue

    @Flag(
        help: """
            Real agents and a real store, processes of their own on this machine, in place of modelled ones; every byte of \
            every hit is compared.
            """)
    var live = false

    @Option(
        help: ArgumentHelp("Bytes of a block; tiers hold as many blocks as the scenario's.", valueName: "size"))
    var blockBytes = "64KiB"

    @Option(
        help: ArgumentHelp(
            """
            Live: kill -9 this in the middle of the first load from the N-th request on: store@N, store@N-M (back before \
            the M-th), agent@N or engine@N (back at once, empty). May be repeated.
            """, valueName: "what@N"))
    var kill: [String] = []

    func validate() throws {
        if live, !isAsked { throw ValidationError("--live runs in lock step: give --lockstep too.") }
        if !live, !kill.isEmpty { throw ValidationError("--kill needs --live: modelled processes do not die.") }
        if let agents, !(1...1024).contains(agents) { throw ValidationError("--agents \(agents): give 1 to 1024.") }
    }

    /// The rule by which conversations find engines.
    func router() throws(OperatorError) -> LockStepRouter {
        guard let router = LockStepRouter(rawValue: route) else {
            let known = LockStepRouter.allCases.map(\.rawValue).joined(separator: ", ")
            throw OperatorError("'\(route)' is not a rule", at: "--route", remedy: "give one of \(known)")
        }
        return router
    }

    /// The words of a command that asks for the same.
    var words: [String] {
        ["--lockstep", "--route", route] + (agents.map { ["--agents", "\($0)"] } ?? [])
            + (live ? ["--live", "--block-bytes", blockBytes] : []) + kill.flatMap { ["--kill", $0] }
    }

    /// Bytes of a block.
    private func size() throws(OperatorError) -> Int {
        let bytes = try ByteSize.read(blockBytes, name: "--block-bytes", at: "--block-bytes")
        guard bytes >= 4096, bytes % 4096 == 0, bytes <= 16 << 20 else {
            throw OperatorError(
                "'\(blockBytes)' is not a multiple of 4 KiB up to 16 MiB", at: "--block-bytes", remedy: "give 64KiB")
        }
        return bytes
    }

    private func killings() throws(OperatorError) -> [LiveKilling] {
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

    /// Replays the trace over modelled or live nodes.
    func run(_ input: TraceInput, _ modelled: ModelledOptions, json: Bool, terminal: TerminalOptions) throws {
        let router = try router()
        let scenario = try modelled.scenario.read()
        let (killings, blockBytes) = (try killings(), try size())
        try modelled.checkOutput()
        let replay = try ModelledReplay(
            trace: try input.read(), scenario: scenario, catalogue: try modelled.scenario.readCatalogue())
        let settings = try LockStepSettings(replay, blockBytes: blockBytes)
        let count = agents ?? scenario.nodes
        let cluster = live ? try LiveCluster(replay, settings, agents: count, killings: killings) : nil
        let nodes: [any LockStepNode] =
            try cluster?.nodes ?? replay.stillNodes(count, try settings.tiering(), links: settings.links)
        let bar = ProgressBar("replaying", forced: input.progress)
        let total = Double(replay.requestCount)
        let result = try replay.lockStep(over: nodes, router: router) { request in
            bar.update(Double(request) / total, detail: "\(request) requests")
            try cluster?.begin(request)
        }
        bar.finish()
        if let cluster { try LiveReport(cluster.counts, result, cluster.leftKillings).print() }
        let overrides = Dictionary(try modelled.scenario.readOverrides().map { ($0.key, $0.value) }) { _, last in last }
        let record = replay.record(
            of: result, version: Holdfast.configuration.version, command: modelled.command(input, words),
            overrides: overrides, live: cluster.map { LiveRun(machine: $0.machine, runs: 1) })
        try modelled.finish(record, json: json, terminal: terminal)
    }
}

/// What only real bytes can tell, beside the record.
struct LiveReport {
    let counts: LiveCounts
    let result: LockStepResult
    let leftKillings: [LiveKilling]

    init(_ counts: LiveCounts, _ result: LockStepResult, _ leftKillings: [LiveKilling]) {
        self.counts = counts
        self.result = result
        self.leftKillings = leftKillings
    }

    /// Says it, and fails where bytes were wrong.
    func print() throws(OperatorError) {
        note(
            "\(grouped(counts.bytesCompared)) bytes of hits were compared, all right; "
                + "\(grouped(counts.bytesOffered)) bytes were offered")
        if result.unbookedTokens > 0 {
            note("\(grouped(result.unbookedTokens)) prompt tokens came to an engine whose agent had died")
        }
        for killing in leftKillings {
            note("\(killing.what.rawValue)@\(killing.request) lived on: nothing was loaded from then on")
        }
        guard counts.wrongBlocks == 0 else {
            throw OperatorError(
                "\(counts.wrongBlocks) blocks came back with wrong bytes", at: "live replay",
                remedy: "this is a defect of Holdfast; keep the trace and report it")
        }
    }
}
