// "Never slower than no cache", for real: a real agent, a real store, an engine that asks without end, and everything that can
// happen to the way between the two. Each fault is put in, looked at, and taken away again; nothing but the store is ever
// started anew.

import Foundation
import KVAgent
import KVModel
import KVServing
import KVSimulation
import KVSystem
import KVTiering

/// What happens to the remote tier.
enum RemoteFault: String, CaseIterable {
    case none = "no fault"
    case blackHole = "black hole"
    case stalls = "10 s stalls"
    case halfOpen = "half-open TCP"
    case slowDisk = "slow disk"
    case resets = "reset storm"
    case onePercent = "1 % of the bandwidth"
    case killed = "kill -9 and return"
}

/// What a fault cost, and how it ended.
struct RemoteFaultFigures: Encodable {
    /// Time to ready: look-up and load as measured, and what was left to compute by the prefill curve.
    var p50Milliseconds = 0.0
    var p99Milliseconds = 0.0
    /// Of the median request: its load without a fault, its computing whole, and D.
    var loadMilliseconds = 0.0
    var recomputeMilliseconds = 0.0
    var deadlineMilliseconds = 0.0
    /// 1.1 × min(load, recompute) + D of the median request.
    var boundMilliseconds = 0.0
    /// Time to ready over its own bound, at the 99th percentile: 1 or less holds.
    var boundShareP99 = 0.0
    /// Requests that blocks of the store were loaded for while the fault was in force.
    var storeHits = 0
    /// Look-ups of prompts that nobody ever saw.
    var missMicrosecondsP50 = 0.0
    var missMicrosecondsP99 = 0.0
    /// Share of a 2,048-token prefill that the median one of those took.
    var missShare = 0.0
    /// From the end of the fault (half-open: from its begin) until blocks of the store were served again.
    var recoverySeconds: Double?
    /// Requests served from the store in the seconds after that.
    var storeHitsAfter = 0
    /// Requests left out of all this because the machine itself stood still under them.
    var leftOut = 0
    var holds = false
}

/// One agent, one store after the other, one engine, one fault after the other.
final class RemoteFaultsCampaign {
    private static let blockTokens = 128
    private static let blockBytes = 64 << 10
    /// The agent's deadlines, of which D is made: its `ask`, and a load's grace.
    private static let deadlines = AgentConfiguration()
    private static let recoveryLimit = 60.0
    private let quick: Bool
    private let seed: UInt64
    /// Requests of each fault that are told of one by one.
    private let explain: Int
    private let folder: ScratchFolder
    private let prefill: PrefillCost
    private let prompts = FaultPrompts(blockTokens: blockTokens)
    private var store: StoreUnderTest?
    private let wire: FaultyWire
    private let agent: AgentUnderTest
    private let engine: EngineUnderTest
    /// Without a fault: look-up and load of a block, seconds.
    private var secondsPerBlock = 0.0

    init(quick: Bool, seed: UInt64, explain: Int) throws {
        (self.quick, self.seed, self.explain) = (quick, seed, explain)
        folder = try ScratchFolder()
        let catalogue = Catalogue.builtIn
        let model = try ServingModel(
            catalogue.model(named: "Llama-3.1-70B"), gpu: catalogue.gpu(named: "H100"), tensorParallel: 2,
            weights: .fp8, kv: .fp8, engine: catalogue.engine(named: "vllm"))
        prefill = PrefillCost(of: model, chunk: 8192)
        let first = try StoreUnderTest(folder, size: quick ? "1GiB" : "4GiB", memory: "32MiB")
        store = first
        wire = try FaultyWire(target: first.port, seed: seed)
        agent = try AgentUnderTest(
            folder,
            settings: [
                "store: 127.0.0.1:\(wire.port)", "keys: \(first.keys)", "dram: 24MiB", "hugePages: false",
                "pinMemory: false", "ask: \(Self.deadlines.ask)",
                "loadGraceShare: \(Self.deadlines.loadGraceShare)", "loadGraceMin: \(Self.deadlines.loadGraceMin)",
                "loadGraceMax: \(Self.deadlines.loadGraceMax)", "layers: 80",
                "prefill: [\(prefill.base), \(prefill.linear), \(prefill.quadratic)]",
            ])
        engine = try EngineUnderTest(
            socket: agent.socket, blockTokens: Self.blockTokens, blockBytes: Self.blockBytes,
            rows: FaultTraffic.workers * FaultPrompts.blocksMax)
    }

    func run(_ faults: [RemoteFault]) throws -> [CampaignResult] {
        defer {
            store?.kill()
            wire.end()
        }
        try fillStore()
        var reasons: (@Sendable (UInt64) -> String)?
        if explain > 0 { reasons = { [agent] session in agent.explain(session: session) } }
        let traffic = try FaultTraffic(engine, prompts, seed: seed, explain: reasons)
        var results: [CampaignResult] = []
        for fault in faults {
            let began = MonotonicClock.now
            var result = try measure(fault, traffic)
            result.seconds = (MonotonicClock.now - began).seconds
            if fault == faults.last {
                traffic.end()
                result.lostAcknowledged = lostBlocks()
                result.leaks = leaks()
            }
            results.append(result)
            if let figures = result.fault { note("\(fault.rawValue): \(figures.words)") }
        }
        engine.close()
        return results
    }

    // MARK: Before and after

    /// Every conversation once, until the store has all of its blocks.
    private func fillStore() throws {
        let deadline = MonotonicClock.now + Duration(seconds: 30)
        for conversation in 0..<FaultPrompts.conversations { _ = serve(conversation) }
        while true {
            let isBusy = agent.status().map { $0.transfers > 0 || $0.questions > 0 } ?? true
            let lost = isBusy ? -1 : lostBlocks(tries: 1)
            if lost == 0 { return }
            guard MonotonicClock.now < deadline else {
                let totals = agent.status()?.totals.sorted { $0.key < $1.key } ?? []
                throw OperatorError("the store lacks \(lost) blocks of what was saved: \(totals)")
            }
            usleep(100_000)
        }
    }

    private func serve(_ conversation: Int) -> EngineTurn {
        let names = prompts.names(conversation)
        return engine.serve(
            names, rows: 0..<FaultPrompts.blocksMax, session: UInt64(conversation) + 1,
            promptTokens: names.count * Self.blockTokens)
    }

    /// Blocks of conversations that were in the store and are found no more.
    private func lostBlocks(tries: Int = 40) -> Int {
        var lost = 0
        for conversation in 0..<FaultPrompts.conversations {
            var missing = 0
            for _ in 0..<tries {
                missing = prompts.blockCount(conversation) - serve(conversation).found
                if missing == 0 { break }
                usleep(50_000)
            }
            lost += missing
        }
        return lost
    }

    /// What is still open when nobody asks any more.
    private func leaks() -> Int {
        let deadline = MonotonicClock.now + Duration(seconds: 30)
        while MonotonicClock.now < deadline {
            if let status = agent.status(), status.openRequests + status.transfers + status.questions == 0 { return 0 }
            usleep(100_000)
        }
        return 1
    }

    // MARK: One fault

    private func measure(_ fault: RemoteFault, _ traffic: FaultTraffic) throws -> CampaignResult {
        var result = CampaignResult(name: "remote faults: \(fault.rawValue)")
        let begin = MonotonicClock.now
        try put(fault)
        let lifted = MonotonicClock.now
        var figures = RemoteFaultFigures()
        if fault != .none {
            figures.recoverySeconds = waitForHits(traffic, since: fault == .halfOpen ? begin : lifted)
            // Half-open connections are never well again: the fault lasts until they are given up.
            usleep(quick ? 1_000_000 : 3_000_000)
        }
        let recovered = figures.recoverySeconds.map { lifted + Duration(seconds: $0) } ?? lifted
        figures.storeHitsAfter = fault == .none ? 0 : traffic.samples(from: recovered).filter(\.isStoreHit).count
        let end = fault == .halfOpen ? recovered : lifted
        let met = traffic.samples(from: begin, to: end)
        let pauses = traffic.pauses
        let samples = met.filter { sample in
            let turnEnd = sample.turn.began + Duration(seconds: sample.turn.readySeconds)
            return !pauses.contains { $0.overlaps(sample.turn.began...turnEnd) }
        }
        figures.leftOut = met.count - samples.count
        guard samples.count >= 20 else { throw OperatorError("no requests during: \(fault.rawValue)") }
        if fault == .none { learn(samples) }
        judge(samples, &figures)
        figures.holds =
            figures.boundShareP99 <= 1 && (fault == .none ? figures.missShare < 0.02 : figures.storeHitsAfter > 0)
        result.trials = samples.count
        let all = traffic.samples(from: begin)
        result.wrongBytes = all.reduce(0) { $0 + $1.turn.wrongBlocks } * Self.blockBytes
        result.hangs = all.filter(\.turn.hung).count + (fault != .none && figures.recoverySeconds == nil ? 1 : 0)
        result.detected = samples.filter { !$0.isNew && $0.turn.came < $0.blocks }.count
        result.fault = figures
        return result
    }

    /// Puts a fault in, waits, and takes it away.
    private func put(_ fault: RemoteFault) throws {
        let phase: UInt32 = quick ? 3_000_000 : 30_000_000
        switch fault {
        case .none: usleep(phase)
        case .blackHole:
            store?.pause()
            usleep(phase)
            store?.resume()
        case .stalls:
            for _ in 0..<(quick ? 1 : 3) {
                store?.pause()
                usleep(10_000_000)
                store?.resume()
                if !quick { usleep(3_000_000) }
            }
        case .halfOpen: wire.set(.halfOpen)
        case .slowDisk:
            try restart(slowMicroseconds: 30_000)
            usleep(phase)
            try restart(slowMicroseconds: 0)
        case .resets:
            wire.set(.resets(mean: Duration(milliseconds: 150)))
            usleep(phase)
            wire.set(.none)
        case .onePercent:
            wire.set(.rate(bytesPerSecond: Double(Self.blockBytes) / secondsPerBlock / 100))
            usleep(phase)
            wire.set(.none)
        case .killed:
            store?.kill()
            usleep(phase)
            try restart(slowMicroseconds: 0)
        }
    }

    /// Another store on the same drive, found at the same place.
    private func restart(slowMicroseconds: Int) throws {
        store?.kill()
        let next = try StoreUnderTest(
            folder, size: quick ? "1GiB" : "4GiB", memory: "32MiB", slowMicroseconds: slowMicroseconds)
        wire.lead(to: next.port)
        store = next
    }

    /// Seconds until a request that began after an instant was served from the store. Nil: none was. The agent must have had
    /// blocks from the store before that request: what a look-up found there another request may have brought meanwhile.
    private func waitForHits(_ traffic: FaultTraffic, since instant: Instant) -> Double? {
        let deadline = MonotonicClock.now + Duration(seconds: Self.recoveryLimit)
        let before = storeBlocks
        var answeredAt: Instant?
        while MonotonicClock.now < deadline {
            if answeredAt == nil, storeBlocks > before { answeredAt = MonotonicClock.now }
            let hit = answeredAt.flatMap { traffic.samples(from: $0).first(where: \.isStoreHit) }
            if let hit { return (hit.turn.began - instant).seconds + hit.turn.readySeconds }
            usleep(10_000)
        }
        return nil
    }

    /// Blocks that came from the store so far, by the agent's count.
    private var storeBlocks: Int { agent.status()?.totals["blocks_store_get"] ?? 0 }

    // MARK: Time to ready and its bound

    private func learn(_ samples: [FaultSample]) {
        let hits = samples.filter(\.isStoreHit).map { $0.turn.readySeconds / Double($0.turn.came) }
        secondsPerBlock = Self.rank(hits, 0.5)
    }

    private func judge(_ samples: [FaultSample], _ figures: inout RemoteFaultFigures) {
        let judged = samples.map(judge)
        figures.p50Milliseconds = Self.rank(judged.map(\.ready), 0.5) * 1e3
        figures.p99Milliseconds = Self.rank(judged.map(\.ready), 0.99) * 1e3
        figures.loadMilliseconds = Self.rank(judged.map(\.load), 0.5) * 1e3
        figures.recomputeMilliseconds = Self.rank(judged.map(\.recompute), 0.5) * 1e3
        figures.deadlineMilliseconds = Self.rank(judged.map(\.deadline), 0.5) * 1e3
        figures.boundMilliseconds = Self.rank(judged.map(\.bound), 0.5) * 1e3
        figures.boundShareP99 = Self.rank(judged.map { $0.ready / $0.bound }, 0.99)
        figures.storeHits = samples.filter(\.isStoreHit).count
        tellWorst(samples, judged.map { $0.ready / $0.bound })
        let misses = samples.filter(\.isNew).map(\.turn.lookUpSeconds)
        figures.missMicrosecondsP50 = Self.rank(misses, 0.5) * 1e6
        figures.missMicrosecondsP99 = Self.rank(misses, 0.99) * 1e6
        let prompt = prefill.seconds(count: Double(FaultPrompts.newTokens), after: 0)
        figures.missShare = Self.rank(misses, 0.5) / prompt
    }

    /// Says how the requests went that came nearest to their bound, or over it.
    private func tellWorst(_ samples: [FaultSample], _ shares: [Double]) {
        guard explain > 0 else { return }
        for index in samples.indices.sorted(by: { shares[$0] > shares[$1] }).prefix(explain) {
            let (sample, turn) = (samples[index], samples[index].turn)
            let waits = String(
                format: "%.2f of its bound: look-up %.1f ms, ready after %.1f ms", shares[index],
                turn.lookUpSeconds * 1e3,
                turn.readySeconds * 1e3)
            note("  \(waits); \(turn.came) of \(turn.found) found came, of \(sample.blocks); \(sample.reason)")
        }
        let over = shares.filter { $0 > 1 }.count
        note("  \(over) of \(samples.count) requests over their bound")
    }

    /// Time to ready of a request and what it is held against, seconds. A load that came whole counts as long as it takes
    /// without a fault; one that did not come would never have ended. D: the look-up's wait for the store, and the load's
    /// deadline, a quarter of the computing it was to save.
    private func judge(
        _ sample: FaultSample
    ) -> (ready: Double, load: Double, recompute: Double, deadline: Double, bound: Double) {
        let tokens = sample.blocks * Self.blockTokens
        func rest(_ blocks: Int) -> Double {
            let start = min(blocks * Self.blockTokens, tokens - 1)
            return prefill.seconds(count: Double(tokens - start), after: Double(start))
        }
        let turn = sample.turn
        let recompute = rest(0)
        let load = Double(sample.blocks) * secondsPerBlock + rest(sample.blocks)
        let came = turn.found > 0 && turn.came == turn.found
        let least = came ? min(recompute, Double(turn.came) * secondsPerBlock + rest(turn.came)) : recompute
        let saved = prefill.seconds(count: Double(turn.found * Self.blockTokens), after: 0)
        let given = Self.deadlines
        let grace = min(max(saved * given.loadGraceShare, given.loadGraceMin), given.loadGraceMax)
        let deadline = given.ask + (turn.found > 0 ? grace : 0)
        return (turn.readySeconds + rest(turn.came), load, recompute, deadline, 1.1 * least + deadline)
    }

    private static func rank(_ values: [Double], _ share: Double) -> Double {
        guard !values.isEmpty else { return 0 }
        return values.sorted()[min(values.count - 1, Int(Double(values.count) * share))]
    }
}

extension RemoteFaultFigures {
    /// The same in a line.
    var words: String {
        func ms(_ value: Double) -> String { String(format: "%.1f", value) }
        var words =
            "ready p50 \(ms(p50Milliseconds)) p99 \(ms(p99Milliseconds)) ms; load \(ms(loadMilliseconds)), "
            + "recompute \(ms(recomputeMilliseconds)), D \(ms(deadlineMilliseconds)), bound \(ms(boundMilliseconds)) ms; "
            + String(format: "p99 at %.2f of its bound", boundShareP99)
            + "; \(storeHits) hits; a miss takes \(ms(missMicrosecondsP50)) µs (p99 \(ms(missMicrosecondsP99)))"
        words += String(format: ", %.2f %% of its prefill", missShare * 100)
        if let recoverySeconds {
            words += String(format: "; hits again after %.2f s", recoverySeconds) + ", then \(storeHitsAfter)"
        }
        if leftOut > 0 { words += "; \(leftOut) left out, as the machine stood still" }
        return words + (holds ? "" : " DOES NOT HOLD")
    }
}
