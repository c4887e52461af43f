// The batching replica: equal to a plain one-step reference, nothing lost, room never exceeded, waiting as queueing theory says.

import KVModel
import KVServing
import Testing

/// Counted blocks with a prefix cache of made-up hits, so that admissions with cached tokens are exercised too.
private struct TestSpace: KVSpace {
    var counting: CountingSpace
    var hits: [Int]
    var computedTokens = 0

    init(blocks: Int, blockTokens: Int, hits: [Int]) {
        counting = CountingSpace(capacityTokens: blocks * blockTokens, blockTokens: blockTokens)
        self.hits = hits
    }

    mutating func admit(_ request: RequestNumber, tokens: Int, newTokens: Int) -> Int? {
        let hit = min(hits[Int(request)], tokens)
        let wanted = min(tokens, hit + newTokens)
        return counting.admit(request, tokens: wanted, newTokens: wanted) == nil ? nil : hit
    }

    mutating func grow(_ request: RequestNumber, tokens: Int) -> Int? { counting.grow(request, tokens: tokens) }

    mutating func computed(_ request: RequestNumber, tokens: Int) { computedTokens = max(computedTokens, tokens) }

    mutating func release(_ request: RequestNumber, tokens: Int, preempted: Bool) {
        counting.release(request, tokens: tokens, preempted: preempted)
        if preempted { hits[Int(request)] = 0 }
    }
}

/// A random little workload and settings that make its requests compete.
private struct Workload {
    var requests: [ReplicaRequest] = []
    var arrivals: [Instant] = []
    var hits: [Int] = []
    var batching: Batching
    var blocks: Int
    var blockTokens: Int

    init(seed: UInt64, runStepsMax: Int, preemption: Batching.Preemption = .recompute) {
        var random = RandomSource(seed: seed)
        let count = 5 + random.below(40)
        blockTokens = [1, 4, 16][random.below(3)]
        let longest = 60
        blocks = (2 * longest + random.below(600)) / blockTokens + 1
        var now = 0.0
        for index in 0..<count {
            let input = 1 + random.below(longest)
            let output = 1 + random.below(longest)
            now += random.exponential(mean: [0.001, 0.02, 0.2][random.below(3)])
            arrivals.append(Instant(seconds: now))
            hits.append(random.below(3) == 0 ? random.below(input + 1) : 0)
            requests.append(
                ReplicaRequest(number: RequestNumber(index), order: index, inputTokens: input, outputTokens: output))
        }
        let sequences = 1 + random.below(12)
        batching = Batching(
            tokenBudget: sequences + random.below(80), sequencesMax: sequences, preemption: preemption,
            runStepsMax: runStepsMax, reservesWholePrompt: random.below(2) == 0)
    }
}

/// When what happened to each request.
private struct Outcome: Equatable {
    var firstToken: [Instant?]
    var finished: [Instant?]
    var preemptions: [Int]
    var prefilled: [Int]

    init(count: Int) {
        firstToken = Array(repeating: nil, count: count)
        finished = firstToken
        preemptions = Array(repeating: 0, count: count)
        prefilled = preemptions
    }

    mutating func note(_ event: ReplicaEvent, at now: Instant) {
        switch event {
        case .firstToken(let number):
            #expect(firstToken[Int(number)] == nil)
            firstToken[Int(number)] = now
        case .finished(let number):
            #expect(finished[Int(number)] == nil)
            finished[Int(number)] = now
        case .preempted(let number, _): preemptions[Int(number)] += 1
        }
    }
}

/// Runs a workload on the replica. `shortens`: arrivals are not announced, but shorten the run they fall into.
private func outcome(_ model: ServingModel, _ workload: Workload, shortens: Bool = false) -> Outcome {
    var outcome = Outcome(count: workload.requests.count)
    var replica = Replica(model: model, batching: workload.batching)
    var space = TestSpace(blocks: workload.blocks, blockTokens: workload.blockTokens, hits: workload.hits)
    var now = Instant.zero
    var next = 0
    while true {
        while next < workload.requests.count, workload.arrivals[next] <= now {
            replica.enqueue(workload.requests[next])
            next += 1
        }
        let arrival = next < workload.requests.count ? workload.arrivals[next] : .distantFuture
        let iteration = replica.startIteration(at: now, until: shortens ? .distantFuture : arrival, space: &space)
        for event in replica.events {
            outcome.note(event, at: now)
            // A swapped request comes back at once, with everything in place.
            if workload.batching.preemption == .swap, case .preempted(let number, let produced) = event {
                var request = workload.requests[Int(number)]
                request.producedTokens = produced
                space.hits[Int(number)] = request.inputTokens + produced
                replica.enqueue(request)
            }
        }
        guard let iteration else {
            if arrival == .distantFuture { break }
            now = arrival
            continue
        }
        var end = now + iteration.duration
        if shortens, arrival < end { end = now + replica.shorten(at: arrival) }
        now = end
        for chunk in replica.chunks { outcome.prefilled[Int(chunk.request)] += chunk.count }
        replica.finishIteration(space: &space)
        for event in replica.events { outcome.note(event, at: now) }
        #expect(space.counting.usedBlocks <= space.counting.capacityBlocks)
        if !replica.hasWork, arrival == .distantFuture { break }
    }
    #expect(space.counting.usedBlocks == 0)
    #expect(replica.queuedPrefillTokens == 0)
    #expect(replica.contextTokens == 0)
    return outcome
}

/// The same on the one-step reference.
private func referenceOutcome(_ model: ServingModel, _ workload: Workload) -> Outcome {
    var outcome = Outcome(count: workload.requests.count)
    var replica = ReplicaReference(model: model, batching: workload.batching)
    var space = TestSpace(blocks: workload.blocks, blockTokens: workload.blockTokens, hits: workload.hits)
    var now = Instant.zero
    var next = 0
    while outcome.finished.contains(nil) {
        while next < workload.requests.count, workload.arrivals[next] <= now {
            replica.enqueue(workload.requests[next])
            next += 1
        }
        var events: [ReplicaEvent] = []
        guard let step = replica.iterate(&space, &events) else {
            for event in events { outcome.note(event, at: now) }
            if next == workload.requests.count {
                Issue.record("the reference is stuck")
                break
            }
            now = workload.arrivals[next]
            continue
        }
        now = now + Duration(seconds: step.seconds)
        for chunk in step.chunks { outcome.prefilled[Int(chunk.request)] += chunk.count }
        for event in events { outcome.note(event, at: now) }
    }
    return outcome
}

@Suite struct ReplicaTests {
    @Test func singleStepsEqualTheReferenceToTheNanosecond() throws {
        for model in [try servingModel("Llama-3.1-8B", on: "H100", 1), try servingModel("gpt-oss-120b", on: "H200", 2)]
        {
            for seed in 1...300 as ClosedRange<UInt64> {
                let workload = Workload(seed: seed, runStepsMax: 1)
                let found = outcome(model, workload)
                let expected = referenceOutcome(model, workload)
                #expect(found == expected, "seed \(seed) on \(model.shape.name)")
                if found != expected { return }
            }
        }
    }

    @Test func runsOfManyStepsGiveTheSameBatchesAndTimesButForRounding() throws {
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        for seed in 1...300 as ClosedRange<UInt64> {
            var workload = Workload(seed: seed, runStepsMax: 64)
            // Where room runs out a run reserves ahead of single steps; here there is enough.
            workload.blocks = 20_000
            for shortens in [false, true] {
                let found = outcome(model, workload, shortens: shortens)
                let expected = referenceOutcome(model, workload)
                #expect(found.prefilled == expected.prefilled, "seed \(seed)")
                for index in workload.requests.indices {
                    for (time, other) in [
                        (found.firstToken[index], expected.firstToken[index]),
                        (found.finished[index], expected.finished[index]),
                    ] {
                        let difference = try #require(time).seconds - (try #require(other)).seconds
                        #expect(abs(difference) < 1e-5, "seed \(seed), request \(index), shortens \(shortens)")
                    }
                }
            }
        }
    }

    @Test(arguments: Batching.Preemption.allCases)
    func everythingIsAnsweredOnceAndOnlyPreemptionsPrefillTwice(preemption: Batching.Preemption) throws {
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        var preemptions = 0
        for seed in 1...300 as ClosedRange<UInt64> {
            let workload = Workload(seed: seed, runStepsMax: 64, preemption: preemption)
            let found = outcome(model, workload)
            for (index, request) in workload.requests.enumerated() {
                #expect(found.firstToken[index] != nil)
                #expect(found.finished[index] != nil)
                preemptions += found.preemptions[index]
                let missing = max(1, request.inputTokens - workload.hits[index])
                if found.preemptions[index] == 0 { #expect(found.prefilled[index] == missing) }
            }
        }
        #expect(preemptions > 100)
    }

    @Test func aSwappedRequestComputesOneTokenWhenItReturns() throws {
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        var replica = Replica(model: model, batching: Batching(preemption: .swap))
        // Two prompts of 10 and 22 blocks of room: one must stop when both have produced two blocks' worth.
        var space = TestSpace(blocks: 22, blockTokens: 1, hits: [0, 0])
        for number in 0..<2 as Range<RequestNumber> {
            replica.enqueue(ReplicaRequest(number: number, order: Int(number), inputTokens: 10, outputTokens: 8))
        }
        var now = Instant.zero
        var stopped: (number: RequestNumber, produced: Int)?
        while stopped == nil {
            let iteration = try #require(replica.startIteration(at: now, until: .distantFuture, space: &space))
            for case .preempted(let number, let produced) in replica.events { stopped = (number, produced) }
            now = now + iteration.duration
            replica.finishIteration(space: &space)
        }
        // The newest stops, with the token of its prefill and one more produced.
        #expect(stopped?.number == 1)
        #expect(stopped?.produced == 2)
        while replica.hasWork {
            let iteration = try #require(replica.startIteration(at: now, until: .distantFuture, space: &space))
            now = now + iteration.duration
            replica.finishIteration(space: &space)
        }
        space.hits[1] = 12
        replica.enqueue(ReplicaRequest(number: 1, order: 1, inputTokens: 10, outputTokens: 8, producedTokens: 2))
        _ = try #require(replica.startIteration(at: now, until: .distantFuture, space: &space))
        #expect(replica.chunks == [PrefillChunk(request: 1, start: 11, count: 1)])
        replica.finishIteration(space: &space)
        #expect(replica.events.isEmpty)
    }

    @Test func aRequestThatWaitedForItsLoadGoesBeforeLaterArrivals() throws {
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        var replica = Replica(model: model, batching: Batching(tokenBudget: 10, sequencesMax: 10))
        var space = CountingSpace(capacityTokens: 1000, blockTokens: 1)
        for order in [5, 3, 9] {
            replica.enqueue(
                ReplicaRequest(number: RequestNumber(order), order: order, inputTokens: 10, outputTokens: 2))
        }
        _ = replica.startIteration(at: .zero, until: .distantFuture, space: &space)
        #expect(replica.chunks.map(\.request) == [3])
    }

    @Test func aFullHitComputesItsLastToken() throws {
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        var replica = Replica(model: model, batching: Batching())
        var space = TestSpace(blocks: 100, blockTokens: 16, hits: [64])
        replica.enqueue(ReplicaRequest(number: 0, order: 0, inputTokens: 64, outputTokens: 1))
        #expect(replica.queuedPrefillTokens == 64)
        _ = replica.startIteration(at: .zero, until: .distantFuture, space: &space)
        #expect(replica.chunks == [PrefillChunk(request: 0, start: 63, count: 1)])
        replica.finishIteration(space: &space)
        #expect(replica.events == [.firstToken(0), .finished(0)])
        #expect(replica.queuedPrefillTokens == 0)
    }

    @Test func aRunEndsWithTheFirstStepAtOrAfterTheNextEvent() throws {
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        var replica = Replica(model: model, batching: Batching())
        var space = CountingSpace(capacityTokens: 10_000, blockTokens: 16)
        replica.enqueue(ReplicaRequest(number: 0, order: 0, inputTokens: 100, outputTokens: 50))
        var now = Instant.zero + (try #require(replica.startIteration(at: .zero, until: .zero, space: &space))).duration
        replica.finishIteration(space: &space)
        let step = model.decodeSeconds(sequences: 1, context: 101)
        let planned = try #require(
            replica.startIteration(at: now, until: now + Duration(seconds: 4.5 * step), space: &space))
        #expect(planned.steps == 5)
        now = now + planned.duration
        replica.finishIteration(space: &space)
        let long = try #require(replica.startIteration(at: now, until: .distantFuture, space: &space))
        #expect(long.steps == 44)
        let shorter = replica.shorten(at: now + Duration(seconds: 2.5 * step))
        #expect(abs(shorter.seconds - 3 * step) < 0.01 * step)
        replica.finishIteration(space: &space)
        #expect(replica.contextTokens == 108)
    }

    /// One prompt at a time with Poisson arrivals is M/D/1: the mean wait is ρ·S/(2·(1 − ρ)).
    @Test(arguments: [0.5, 0.8]) func waitingIsThatOfMD1(load: Double) throws {
        let model = try servingModel("Llama-3.1-8B", on: "H100", 1)
        let requests = 1_000_000
        let service = model.prefillSeconds(tokens: 1000, after: 0)
        var random = RandomSource(seed: 11)
        var replica = Replica(model: model, batching: Batching(sequencesMax: 1))
        var space = CountingSpace(capacityTokens: 10_000, blockTokens: 16)
        var arrived: [Instant] = []
        arrived.reserveCapacity(requests)
        var now = 0.0
        for _ in 0..<requests {
            now += random.exponential(mean: service / load)
            arrived.append(Instant(seconds: now))
        }
        var time = Instant.zero
        var next = 0
        var waited = 0.0
        var answered = 0
        while answered < requests {
            while next < requests, arrived[next] <= time {
                replica.enqueue(
                    ReplicaRequest(number: RequestNumber(next), order: next, inputTokens: 1000, outputTokens: 1))
                next += 1
            }
            guard let iteration = replica.startIteration(at: time, until: .distantFuture, space: &space) else {
                time = arrived[next]
                continue
            }
            let number = Int(replica.chunks[0].request)
            waited += (time - arrived[number]).seconds
            time = time + iteration.duration
            replica.finishIteration(space: &space)
            answered += 1
        }
        let expected = load * service / (2 * (1 - load))
        #expect(abs(waited / Double(requests) / expected - 1) < 0.03)
    }
}
