// A prompt with a gap: its front is computed while the KV of its middle is loaded.

import KVModel
import KVServing
import Testing

/// One replica with one prompt of 100 tokens whose tokens 40 ..< 90 are being loaded.
private struct Bench {
    var replica: Replica
    var space: CountingSpace
    var chunks: [PrefillChunk] = []
    var events: [ReplicaEvent] = []

    init(budget: Int, capacityTokens: Int = 4096) throws {
        space = CountingSpace(capacityTokens: capacityTokens, blockTokens: 16)
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        replica = Replica(
            model: model, batching: Batching(tokenBudget: budget, sequencesMax: 8, reservesWholePrompt: true))
        replica.enqueue(ReplicaRequest(number: 0, order: 0, inputTokens: 100, outputTokens: 1, gap: 40..<90))
    }

    /// One iteration, its gap closed in the middle of it at `end`; whether there was one.
    mutating func step(closingAt end: Int? = nil) -> Bool {
        let started = replica.startIteration(at: .zero, until: .distantFuture, space: &space)
        guard started != nil else { return false }
        chunks += replica.chunks
        if let end { replica.closeGap(0, end: end, space: &space) }
        // What it had to throw out, before what it brought.
        events += replica.events
        replica.finishIteration(space: &space)
        events += replica.events
        return true
    }
}

extension Bench {
    mutating func expectStep(closingAt end: Int? = nil) throws {
        let ran = step(closingAt: end)
        try #require(ran)
    }
}

@Suite struct ReplicaGapTests {
    private let front = PrefillChunk(request: 0, start: 0, count: 40)

    @Test func aPromptWaitsAtItsGap() throws {
        var bench = try Bench(budget: 64)
        #expect(bench.replica.queuedPrefillTokens == 50)
        try bench.expectStep()
        let waited = !bench.step()
        #expect(waited)
        #expect(bench.replica.hasWork)
        bench.replica.closeGap(0, end: 90, space: &bench.space)
        try bench.expectStep()
        #expect(bench.chunks == [front, PrefillChunk(request: 0, start: 90, count: 10)])
        #expect(bench.events == [.firstToken(0), .finished(0)])
        #expect(bench.replica.queuedPrefillTokens == 0)
        #expect(!bench.replica.hasWork)
        #expect(bench.space.usedBlocks == 0)
    }

    @Test func aGapThatClosesWhileItsFrontIsComputedIsPassedAtOnce() throws {
        var bench = try Bench(budget: 64)
        try bench.expectStep(closingAt: 90)
        try bench.expectStep()
        #expect(bench.chunks == [front, PrefillChunk(request: 0, start: 90, count: 10)])
        #expect(bench.events.count == 2)
    }

    @Test func aGapThatClosesBeforeAdmissionIsPassedAsWell() throws {
        var bench = try Bench(budget: 64)
        bench.replica.closeGap(0, end: 90, space: &bench.space)
        try bench.expectStep()
        try bench.expectStep()
        #expect(bench.chunks == [front, PrefillChunk(request: 0, start: 90, count: 10)])
    }

    @Test(arguments: [0, 40, 64]) func whatDidNotComeIsComputed(end: Int) throws {
        for closesEarly in [false, true] {
            var bench = try Bench(budget: 40)
            try bench.expectStep(closingAt: closesEarly ? end : nil)
            if !closesEarly { bench.replica.closeGap(0, end: end, space: &bench.space) }
            #expect(bench.replica.queuedPrefillTokens == 100 - max(40, end))
            while bench.step() {}
            #expect(bench.chunks.first == front)
            #expect(bench.chunks.dropFirst().first?.start == max(40, end))
            #expect(bench.chunks.reduce(0) { $0 + $1.count } == 40 + 100 - max(40, end))
            #expect(bench.events == [.firstToken(0), .finished(0)])
        }
    }

    @Test func othersRunWhileOneWaitsAtItsGap() throws {
        var bench = try Bench(budget: 64)
        try bench.expectStep()
        bench.replica.enqueue(ReplicaRequest(number: 1, order: 1, inputTokens: 10, outputTokens: 1))
        try bench.expectStep()
        #expect(bench.events == [.firstToken(1), .finished(1)])
        #expect(bench.replica.runningCount == 1)
    }

    /// Else it would pass over KV that was given away, and its tokens would count as waiting for ever: a replica with enough of
    /// those takes nobody in any more.
    @Test func whoIsThrownOutAfterItsGapComputesTheWholePrompt() throws {
        var bench = try Bench(budget: 128, capacityTokens: 160)
        bench.replica.enqueue(ReplicaRequest(number: 1, order: 1, inputTokens: 32, outputTokens: 100))
        bench.replica.enqueue(
            ReplicaRequest(number: 2, order: 2, inputTokens: 100, outputTokens: 20, gap: 40..<90))
        bench.replica.closeGap(0, end: 90, space: &bench.space)
        bench.replica.closeGap(2, end: 90, space: &bench.space)
        while bench.step() {}
        let produced = bench.events.compactMap { event in
            if case .preempted(2, let produced) = event { produced } else { nil }
        }
        try #require(!produced.isEmpty, "nobody was thrown out")
        let computed = bench.chunks.reduce(0) { $1.request == 2 ? $0 + $1.count : $0 }
        #expect(computed == 50 + produced.reduce(0) { $0 + 100 + $1 })
        #expect(bench.events.contains(.finished(2)))
        #expect(bench.replica.queuedPrefillTokens == 0 && bench.space.usedBlocks == 0)
    }
}
