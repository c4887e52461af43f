// A replica that takes one step at a time and keeps everything in the plainest form: what the real one must equal.

import KVModel
import KVServing

/// Continuous batching by the book: no runs, no relative counters, the waiting list sorted anew each time.
struct ReplicaReference {
    struct Running {
        var request: ReplicaRequest
        var computed: Int
        var target: Int
        var room: Int
        var produced: Int
        var isDecoding: Bool { computed == target - 1 && produced > request.producedTokens }
    }

    /// What one iteration held, and what became of it.
    struct Step: Equatable {
        var seconds: Double
        var chunks: [PrefillChunk]
        var sequences: Int
    }

    let model: ServingModel
    let batching: Batching
    var waiting: [(rank: Int, request: ReplicaRequest)] = []
    var running: [Running] = []
    var headRank = -1

    mutating func enqueue(_ request: ReplicaRequest) { waiting.append((request.order, request)) }

    /// One iteration; nil where nothing can run. Events are those of its start and its end.
    mutating func iterate<Space: KVSpace>(_ space: inout Space, _ events: inout [ReplicaEvent]) -> Step? {
        var preempted = false
        var decoding: [Int] = []
        // Room for the next token of every decode, oldest first.
        var index = 0
        while index < running.count {
            guard running[index].isDecoding else {
                index += 1
                continue
            }
            if running[index].room < running[index].target {
                if let room = space.grow(running[index].request.number, tokens: running[index].target) {
                    running[index].room = room
                } else {
                    preemptNewest(&space, &events)
                    preempted = true
                    continue
                }
            }
            index += 1
        }
        var budget = batching.tokenBudget - running.count { $0.isDecoding }
        var load = PrefillLoad()
        var chunks: [PrefillChunk] = []
        index = 0
        while index < running.count, budget > 0 {
            if running[index].isDecoding {
                index += 1
                continue
            }
            let count = min(running[index].target - running[index].computed, budget)
            let wanted = running[index].computed + count
            if wanted > running[index].room {
                guard let room = space.grow(running[index].request.number, tokens: wanted) else {
                    preemptNewest(&space, &events)
                    preempted = true
                    continue
                }
                running[index].room = room
            }
            add(running[index], count, &chunks, &load)
            budget -= count
            index += 1
        }
        if !preempted { admit(&budget, &chunks, &load, &space) }
        decoding = running.indices.filter { running[$0].isDecoding }
        if chunks.isEmpty, decoding.isEmpty { return nil }
        let context = decoding.reduce(0) { $0 + running[$1].target }
        let seconds = model.iterationSeconds(prefill: load, sequences: decoding.count, context: Double(context)).total
        finish(decoding, chunks, &space, &events)
        return Step(seconds: seconds, chunks: chunks, sequences: decoding.count)
    }

    private func add(_ running: Running, _ count: Int, _ chunks: inout [PrefillChunk], _ load: inout PrefillLoad) {
        chunks.append(PrefillChunk(request: running.request.number, start: running.computed, count: count))
        load.add(tokens: count, after: running.computed, window: model.window)
    }

    private mutating func admit<Space: KVSpace>(
        _ budget: inout Int, _ chunks: inout [PrefillChunk], _ load: inout PrefillLoad, _ space: inout Space
    ) {
        while budget > 0, running.count < batching.sequencesMax {
            guard let first = waiting.indices.min(by: { waiting[$0].rank < waiting[$1].rank }) else { return }
            let request = waiting[first].request
            let target = request.inputTokens + request.producedTokens
            let most = batching.reservesWholePrompt ? target : min(target, budget)
            guard let cached = space.admit(request.number, tokens: target, newTokens: most) else { return }
            waiting.remove(at: first)
            let start = min(cached, target - 1)
            let entry = Running(
                request: request, computed: start, target: target, room: min(target, cached + most),
                produced: request.producedTokens)
            let count = min(target - start, budget)
            add(entry, count, &chunks, &load)
            budget -= count
            running.append(entry)
        }
    }

    private mutating func preemptNewest<Space: KVSpace>(_ space: inout Space, _ events: inout [ReplicaEvent]) {
        let last = running.removeLast()
        var request = last.request
        request.producedTokens = last.produced
        space.release(request.number, tokens: last.computed, preempted: true)
        events.append(.preempted(request.number, producedTokens: last.produced))
        if batching.preemption == .recompute {
            waiting.append((headRank, request))
            headRank -= 1
        }
    }

    private mutating func finish<Space: KVSpace>(
        _ decoding: [Int], _ chunks: [PrefillChunk], _ space: inout Space, _ events: inout [ReplicaEvent]
    ) {
        var done = Set<RequestNumber>()
        for index in decoding {
            running[index].computed += 1
            running[index].target += 1
            running[index].produced += 1
            if running[index].produced == running[index].request.outputTokens {
                let request = running[index].request
                space.release(request.number, tokens: running[index].computed, preempted: false)
                events.append(.finished(request.number))
                done.insert(request.number)
            }
        }
        for chunk in chunks {
            guard let index = running.firstIndex(where: { $0.request.number == chunk.request }) else { continue }
            running[index].computed += chunk.count
            space.computed(chunk.request, tokens: running[index].computed)
            guard running[index].computed == running[index].target else { continue }
            if running[index].produced == 0 { events.append(.firstToken(chunk.request)) }
            running[index].produced += 1
            running[index].target += 1
            if running[index].produced == running[index].request.outputTokens {
                space.release(chunk.request, tokens: running[index].computed, preempted: false)
                events.append(.finished(chunk.request))
                done.insert(chunk.request)
            }
        }
        running.removeAll { done.contains($0.request.number) }
    }
}
