// The pace of a live replay under virtual time: requests come when they came, engines compute as modelled, and what a slow
// machine adds is told apart.

import Foundation
import KVModel
import KVReport
import KVServing
import KVSimulation
import KVTrace
import Testing

/// A store that has what was ever saved and takes the same time for each answer.
private struct MadeUpNodes {
    var lookUpSeconds = 0.001
    var loadSeconds = 0.01
    let compression: Double
    var saved = Set<BlockNumber>()
    var asked: [(index: Int, at: Int64)] = []
    var ended = 0
    var loads = 0
    /// Answers on their way, by when they come.
    var coming: [(at: Int64, answer: PacedAnswer)] = []

    init(compression: Double) { self.compression = compression }

    mutating func perform(_ order: PacedOrder, at now: Int64) {
        func later(_ seconds: Double) -> Int64 { now + Int64(seconds * compression * 1e9) }
        switch order {
        case .lookUp(let paced):
            let request = paced.request
            asked.append((request.index, now))
            let run = request.path.prefix { saved.contains($0) }.count
            let blocks = max(request.engineBlocks, Int32(run))
            coming.append(
                (later(lookUpSeconds), .found(request: request.index, blocks: blocks, seconds: lookUpSeconds)))
        case .load(let paced, let end):
            loads += 1
            #expect(end > paced.request.engineBlocks)
            coming.append(
                (later(loadSeconds), .loaded(request: paced.request.index, end: end, seconds: loadSeconds)))
        case .save(let paced): saved.formUnion(paced.request.path)
        case .end: ended += 1
        }
    }

    /// Runs a replay to its end, looking at the clock at each moment that matters, or only every `step` nanoseconds.
    mutating func run(_ replay: PacedReplay, step: Int64? = nil, onTurn: (PacedReplay, Int64) -> Void = { _, _ in }) {
        var now: Int64 = 0
        while !replay.isOver {
            let next = min(replay.nextMoment ?? .max, coming.map(\.at).min() ?? .max)
            guard next < .max else {
                Issue.record("requests are left and nothing will ever happen")
                return
            }
            now = max(now, next)
            if let step { now = (now + step - 1) / step * step }
            let time = now
            replay.advance(to: time) { perform($0, at: time) }
            let due = coming.filter { $0.at <= time }.sorted { $0.at < $1.at }
            coming.removeAll { $0.at <= time }
            for entry in due { replay.take(entry.answer) { perform($0, at: time) } }
            onTurn(replay, time)
        }
    }
}

@Suite struct PacedReplayTests {
    @Test func agentsCountsBecomeABalanceOfBytesWithoutSeconds() {
        let balance = PrefetchBalance(
            counts: [
                "session_started": 10, "session_used": 6, "session_late": 1, "session_never_used": 2,
                "queue_started": 5,
                "queue_used": 5, "missed": 9, "displaced": 3,
            ], blockBytes: 100)
        #expect(balance.bytesUsed == 1_100)
        #expect(balance.bytesLate == 100)
        // One still waits to be used: nobody did.
        #expect(balance.bytesNeverUsed == 300)
        #expect(balance.precision == 1_100.0 / 1_500)
        #expect(balance.recall == 0.55)
        #expect(balance.hasTimes == false)
        #expect(balance.byReason.first { $0.reason == "queue" }?.bytesMoved == 500)
    }

    private let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Traces")

    private func replay() throws -> ModelledReplay {
        let trace = try Trace.read(from: folder.appendingPathComponent("chat.jsonl.gz").path)
        let scenario = try Scenario.read(yaml: nil, file: "default.yaml", overrides: [])
        return try ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
    }

    private func paced(_ replay: ModelledReplay, compression: Double = 1) -> PacedReplay {
        PacedReplay(replay, nodes: 2, router: .migrating, compression: compression)
    }

    @Test func requestsComeAtTheirTimesAndAllEnd() throws {
        let modelled = try replay()
        let paced = paced(modelled)
        var nodes = MadeUpNodes(compression: 1)
        nodes.run(paced)
        #expect(paced.result.completed == modelled.requestCount && paced.result.arrived == modelled.requestCount)
        #expect(nodes.asked.map(\.index) == Array(0..<modelled.requestCount))
        #expect(zip(nodes.asked, nodes.asked.dropFirst()).allSatisfy { $0.at <= $1.at })
        // The last one came at the end of the trace's span, to the nanosecond.
        #expect(abs(Double(nodes.asked.last?.at ?? 0) / 1e9 - modelled.spanSeconds) < 1e-6)
        #expect(nodes.ended == modelled.requestCount && nodes.loads > 0)
        #expect(paced.result.lateRequests == 0)
        paced.accountGPUs()
        let gpu = paced.result.gpu
        let sum = gpu.decode + gpu.prefillUseful + gpu.prefillRecomputed + gpu.stalledOnLoad + gpu.idle
        #expect(abs(sum - gpu.total) < 1e-6 * gpu.total && gpu.decode > 0 && gpu.prefillUseful > 0)
        #expect(paced.result.ceiling.total == paced.result.promptTokens)
    }

    @Test func theSameAnswersGiveTheSameTimes() throws {
        let modelled = try replay()
        let (first, second) = (paced(modelled), paced(modelled))
        var nodes = MadeUpNodes(compression: 1)
        nodes.run(first)
        nodes = MadeUpNodes(compression: 1)
        nodes.run(second)
        #expect(first.result.ttft == second.result.ttft && first.result.tpot == second.result.tpot)
    }

    @Test func whatTookRealSecondsCountsAsThoseHoweverFastTheTraceRuns() throws {
        let modelled = try replay()
        let (slow, fast) = (paced(modelled), paced(modelled, compression: 20))
        var nodes = MadeUpNodes(compression: 1)
        nodes.run(slow)
        nodes = MadeUpNodes(compression: 20)
        nodes.run(fast)
        #expect(fast.result.completed == modelled.requestCount)
        #expect(zip(fast.result.ttft, fast.result.readySeconds).allSatisfy { $0 >= $1 })
        func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
        // Loads of 10 ms do not become 200 ms of anybody's time to first token.
        #expect(median(fast.result.ttft) < median(slow.result.ttft) + 0.05)
    }

    @Test func aClockThatIsLookedAtTooLateIsCounted() throws {
        let modelled = try replay()
        let paced = paced(modelled, compression: 10)
        var nodes = MadeUpNodes(compression: 10)
        // Every two seconds of the machine.
        nodes.run(paced, step: 20_000_000_000)
        #expect(paced.result.completed == modelled.requestCount)
        #expect(paced.result.lateRequests > modelled.requestCount / 2)
        #expect(paced.result.lateSecondsMax > 1 && paced.result.lateSecondsMax <= 2)
    }

    @Test func requestsOfAnEngineThatDiedComeAgain() throws {
        let modelled = try replay()
        let paced = paced(modelled)
        var nodes = MadeUpNodes(compression: 1)
        var deaths = 0
        nodes.run(paced) { paced, _ in
            guard deaths < 3, paced.arrivedCount > 20 * (deaths + 1) else { return }
            deaths += 1
            paced.engineDied(node: 0, engine: 0)
        }
        #expect(deaths == 3)
        #expect(paced.result.completed == modelled.requestCount && paced.result.arrived == modelled.requestCount)
        #expect(nodes.asked.count >= modelled.requestCount)
    }

    @Test func nobodyComesAfterTheEnd() throws {
        let paced = paced(try replay())
        var nodes = MadeUpNodes(compression: 1)
        nodes.run(paced) { paced, _ in if paced.arrivedCount >= 30 { paced.endArrivals() } }
        #expect(paced.result.arrived == 30 && paced.result.completed == 30)
    }
}
