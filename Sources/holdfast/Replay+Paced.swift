// `replay --live`: the trace in its time, compressed as far as this machine bears it, over real agents and a real store.

import Foundation
import KVAgent
import KVModel
import KVReport
import KVSimulation
import KVSystem
import KVTiering

extension LiveOptions {
    /// Bytes of blocks a second that a processor is trusted to make, move, keep and compare.
    private static let bytesPerSecondAndCore = 25e6

    /// Replays the trace in its time.
    func runPaced(_ input: TraceInput, _ modelled: ModelledOptions, json: Bool, terminal: TerminalOptions) throws {
        let router = try router()
        let scenario = try modelled.scenario.read()
        let (killings, blockBytes) = (try killings(), try size())
        guard scenario.arrivals.mode == .open else {
            throw OperatorError(
                "a paced replay takes requests at their times", at: "arrivals.mode", remedy: "set it to open")
        }
        try modelled.checkOutput()
        let trace = try input.read()
        let replay = try ModelledReplay(
            trace: trace, scenario: scenario, catalogue: try modelled.scenario.readCatalogue())
        try check(killings, requests: replay.requestCount)
        let count = agents ?? scenario.nodes
        let hbmBlocks = try hbmBlocks(of: replay, engines: max(1, scenario.replicas / count))
        let settings = try LockStepSettings(replay, blockBytes: blockBytes, hbmBlocks: hbmBlocks, isPaced: true)
        let compression = compress ?? Self.bearable(replay, blockBytes: blockBytes)
        note(String(format: "the trace runs %.3g times as fast as it was", compression))
        let cluster = try LiveCluster(replay, settings, agents: count, killings: killings, isPaced: true)
        let run = PacedRun(
            PacedReplay(replay, nodes: count, router: router, compression: compression, hbmBlocks: hbmBlocks), cluster,
            compression)
        let bar = ProgressBar("replaying", forced: input.progress)
        let total = Double(replay.requestCount)
        try run.run(limit: timeLimit) { arrived, ended in
            bar.update(Double(arrived) / total, detail: "\(arrived) came, \(ended) ended")
        }
        bar.finish()
        let (ledger, unbooked) = try run.ledger()
        try run.printReport(of: replay.requestCount, unbooked: unbooked)
        let live = LiveRun(machine: cluster.machine, runs: 1)
        let overrides = Dictionary(try modelled.scenario.readOverrides().map { ($0.key, $0.value) }) { _, last in last }
        let record = replay.record(
            of: run.replay.result, ledger: ledger,
            prefetch: scenario.prefetch.use
                ? PrefetchBalance(counts: run.prefetch(), blockBytes: replay.blockBytes) : nil,
            route: router, compression: compression,
            version: Holdfast.configuration.version, command: modelled.command(input, of: trace.name, words),
            overrides: overrides,
            hbmBytes: hbmBlocks > 0 ? Double(hbmBlocks * replay.blockBytes * count) : nil, live: live)
        try modelled.finish(record, json: json, terminal: terminal)
    }

    /// How much faster than it was the trace may run here: its blocks are made, offered, kept and compared by these
    /// processors.
    private static func bearable(_ replay: ModelledReplay, blockBytes: Int) -> Double {
        let bytes = Double(replay.blockReferences * blockBytes)
        let bearable = bytesPerSecondAndCore * Double(ProcessInfo.processInfo.activeProcessorCount)
        let factor = min(1000, max(0.1, replay.spanSeconds * bearable / max(1, bytes)))
        return factor > 2 ? factor.rounded(.down) : factor
    }
}

/// The thread that drives a paced replay.
final class PacedRun {
    let replay: PacedReplay
    private let cluster: LiveCluster
    private let compression: Double
    private var engines: [ObjectIdentifier: PacedEngine] = [:]

    init(_ replay: PacedReplay, _ cluster: LiveCluster, _ compression: Double) {
        (self.replay, self.cluster, self.compression) = (replay, cluster, compression)
        for engine in cluster.pacedNodes.flatMap(\.engines) { engines[ObjectIdentifier(engine)] = engine }
    }

    /// Runs to the end; after `limit` seconds no further request comes.
    func run(limit: Double?, progress: (_ arrived: Int, _ ended: Int) -> Void) throws {
        let start = MonotonicClock.now
        while !replay.isOver {
            let passed = (MonotonicClock.now - start).seconds
            if let limit, passed > limit { replay.endArrivals() }
            try replay.advance(to: Int64(passed * compression * 1e9), perform)
            var wait = KVModel.Duration(milliseconds: 50)
            if let next = replay.nextMoment {
                let due = start + KVModel.Duration(seconds: Double(next) / 1e9 / compression)
                wait = min(wait, max(.zero, due - MonotonicClock.now))
            }
            let entries = cluster.inbox.take(within: wait)
            guard !entries.isEmpty else { continue }
            try replay.advance(to: Int64((MonotonicClock.now - start).seconds * compression * 1e9), perform)
            for entry in entries {
                guard let engine = engines[entry.engine], engine.life == entry.life else { continue }
                if let answer = engine.take(entry.event) { try replay.take(answer, perform) }
            }
            progress(replay.arrivedCount, replay.result.completed)
        }
        replay.accountGPUs()
        try drain()
    }

    /// What was offered last still comes to rest.
    private func drain() throws {
        let deadline = MonotonicClock.now + LiveEngine.limit
        while !engines.values.allSatisfy(\.isQuiet) {
            guard MonotonicClock.now < deadline else { throw OperatorError("saves do not end", at: "live replay") }
            for entry in cluster.inbox.take(within: KVModel.Duration(milliseconds: 20)) {
                guard let engine = engines[entry.engine], engine.life == entry.life else { continue }
                _ = engine.take(entry.event)
            }
        }
        for engine in engines.values { try engine.waitUntilHeard() }
    }

    private func perform(_ order: PacedOrder) throws {
        switch order {
        case .lookUp(let paced):
            try cluster.begin(paced.request.index)
            engine(of: paced).lookUp(paced.request)
        case .load(let paced, let end):
            engine(of: paced).load(paced.request, end: end)
            if let killing = cluster.takeKilling() { try kill(killing.what, paced) }
        case .save(let paced): engine(of: paced).save(paced.request)
        case .end(let paced): engine(of: paced).end(paced.request)
        }
    }

    private func engine(of paced: PacedRequest) -> PacedEngine {
        cluster.pacedNodes[paced.node].engines[paced.request.engine]
    }

    private func kill(_ victim: LiveKilling.Victim, _ paced: PacedRequest) throws {
        switch victim {
        case .store: cluster.killStore()
        case .agent: try cluster.pacedNodes[paced.node].replaceAgent()
        case .engine:
            try engine(of: paced).die()
            replay.engineDied(node: paced.node, engine: paced.request.engine)
        }
    }

    /// Where all prompt tokens came from. What no agent booked, because it died or was not there, is told apart and counted
    /// as having had no tier.
    func ledger() throws -> (Ledger, unbooked: Int) {
        var sum = Ledger()
        for node in cluster.pacedNodes { sum.add(try node.ledger()) }
        // What an agent took for new though another had computed it is held elsewhere.
        let elsewhere = max(0, sum.firstSeen - replay.result.ceiling.firstSeen)
        sum.firstSeen -= elsewhere
        sum.heldElsewhere += elsewhere
        let unbooked = replay.result.promptTokens - sum.total
        sum.noTier += max(0, unbooked)
        return (sum, max(0, unbooked))
    }

    /// What all agents counted of blocks that they brought up early.
    func prefetch() -> [String: Int] {
        var sum: [String: Int] = [:]
        for node in cluster.pacedNodes { sum.merge(node.prefetch(), uniquingKeysWith: +) }
        return sum
    }

    /// Says what only real bytes and real time can tell, and fails where bytes were wrong.
    func printReport(of total: Int, unbooked: Int) throws {
        let counts = engines.values.map(\.counts)
        let compared = counts.reduce(0) { $0 + $1.bytesCompared }
        let wrong = counts.reduce(0) { $0 + $1.wrongBlocks }
        let result = replay.result
        note(
            "\(grouped(compared)) bytes of hits were compared, \(wrong == 0 ? "all right" : "\(wrong) blocks wrong"); "
                + "\(grouped(counts.reduce(0) { $0 + $1.bytesOffered })) bytes were offered")
        if result.arrived < total {
            note("\(total - result.arrived) of \(total) requests did not come: the time was over")
        }
        if result.lateRequests > 0 {
            note(
                "this machine was too slow for \(result.lateRequests) requests: they were taken up late, "
                    + String(format: "the worst by %.2f s; take a smaller --compress", result.lateSecondsMax))
        }
        let delayed = engines.values.reduce(0) { $0 + $1.delayed }
        if delayed > 0 { note("\(delayed) loads and saves waited for room in their engine's memory") }
        let unplaced = engines.values.reduce(0) { $0 + $1.unplaced }
        if unplaced > 0 { note("\(grouped(unplaced)) computed blocks found no slot of the device free") }
        if unbooked > 0 { note("\(grouped(unbooked)) prompt tokens came to an engine whose agent had died") }
        for killing in cluster.leftKillings {
            note("\(killing.what.rawValue)@\(killing.request) lived on: nothing was loaded from then on")
        }
        guard wrong == 0 else {
            throw OperatorError(
                "\(wrong) blocks came back with wrong bytes", at: "live replay",
                remedy: "this is a defect of Holdfast; keep the trace and report it")
        }
    }
}
