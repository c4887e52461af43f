// The prefill of an iteration: unfinished prompts first, then waiting requests, within the token budget.

import KVModel

extension Replica {
    /// Fills `chunks` with what the token budget leaves beside the decodes, and adds it up.
    @inlinable
    mutating func planPrefill<Space: KVSpace>(_ space: inout Space) -> PrefillLoad {
        var load = PrefillLoad()
        if partials.isEmpty, waiting.isEmpty { return load }
        var budget = batching.tokenBudget - decodes.count
        continuePartials(&budget, &load, &space)
        // Nobody starts where somebody just had to stop.
        if reportedEvents.isEmpty { admitWaiting(&budget, &load, &space) }
        return load
    }

    @inlinable
    mutating func continuePartials<Space: KVSpace>(
        _ budget: inout Int, _ load: inout PrefillLoad, _ space: inout Space
    ) {
        var index = 0
        while index < partials.count, budget > 0 {
            let count = min(
                partials[index].request.reach(from: partials[index].computed) - partials[index].computed, budget)
            let wanted = partials[index].computed + count
            if wanted > partials[index].room {
                guard let room = space.grow(partials[index].request.number, tokens: wanted) else {
                    // The newest makes room; it may be this one, which ends the loop.
                    preemptNewest(&space)
                    continue
                }
                partials[index].room = room
            }
            addChunk(partials[index].request.number, partials[index].computed, count, &load)
            budget -= count
            index += 1
        }
    }

    @inlinable
    mutating func admitWaiting<Space: KVSpace>(_ budget: inout Int, _ load: inout PrefillLoad, _ space: inout Space) {
        while budget > 0, runningCount < batching.sequencesMax, let request = waiting.first {
            let target = request.tokensToPrefill
            let most = batching.reservesWholePrompt ? target : min(target, budget)
            guard let cached = space.admit(request.number, tokens: target, newTokens: most) else { return }
            waiting.removeFirst()
            // The last token is always computed, so that there are scores to choose the next one from.
            let gap = request.gap
            let start = min(cached, gap.isEmpty ? target - 1 : gap.lowerBound - 1)
            let count = min(request.reach(from: start) - start, budget)
            uncomputedTokens -= start
            addChunk(request.number, start, count, &load)
            partials.append(
                Partial(request: request, computed: start, target: target, room: min(target, cached + most)))
            budget -= count
        }
    }

    @inlinable
    mutating func addChunk(_ request: RequestNumber, _ start: Int, _ count: Int, _ load: inout PrefillLoad) {
        plannedChunks.append(PrefillChunk(request: request, start: start, count: count))
        load.add(tokens: count, after: start, window: model.window)
    }

    /// Books the chunks of the iteration that ended. Chunk i belongs to partial i: both are in order of admission.
    @inlinable
    mutating func finishChunks<Space: KVSpace>(_ space: inout Space) {
        var kept = 0
        for index in 0..<partials.count {
            var partial = partials[index]
            if index < plannedChunks.count {
                partial.computed += plannedChunks[index].count
                uncomputedTokens -= plannedChunks[index].count
                if passGap(&partial) {
                    space.computed(partial.request.number, tokens: partial.request.gap.lowerBound)
                    parked.append(partial)
                    continue
                }
                space.computed(partial.request.number, tokens: partial.computed)
                if partial.computed == partial.target {
                    produceAfterPrefill(partial, &space)
                    continue
                }
            }
            partials[kept] = partial
            kept += 1
        }
        partials.removeSubrange(kept...)
    }

    /// Takes a prompt that was computed up to its gap past it; whether it must wait for the gap's KV instead.
    @inlinable
    func passGap(_ partial: inout Partial) -> Bool {
        let gap = partial.request.gap
        guard !gap.isEmpty, partial.computed == gap.lowerBound else { return false }
        if partial.request.isGapOpen { return true }
        partial.computed = gap.upperBound
        return false
    }

    /// The load of a request's gap ended: the KV of its tokens before `end` is there, the others are computed.
    public mutating func closeGap<Space: KVSpace>(_ number: RequestNumber, end: Int, space: inout Space) {
        if let index = parked.firstIndex(where: { $0.request.number == number }) {
            var partial = parked.remove(at: index)
            uncomputedTokens += partial.request.closeGap(at: end)
            _ = passGap(&partial)
            space.computed(number, tokens: partial.computed)
            // Behind the others, so that the chunks under way stay with their prompts.
            partials.append(partial)
        } else if let index = partials.firstIndex(where: { $0.request.number == number }) {
            uncomputedTokens += partials[index].request.closeGap(at: end)
        } else {
            uncomputedTokens += waiting.closeGap(of: number, at: end)
        }
    }

    /// A finished prefill gives a token: the first one, or after a preemption the next one.
    @inlinable
    mutating func produceAfterPrefill<Space: KVSpace>(_ partial: Partial, _ space: inout Space) {
        let request = partial.request
        let left = request.outputTokens - request.producedTokens - 1
        if request.producedTokens == 0 { reportedEvents.append(.firstToken(request.number)) }
        if left == 0 {
            space.release(request.number, tokens: partial.target, preempted: false)
            reportedEvents.append(.finished(request.number))
            return
        }
        let decode = Decode(
            request: request, base: partial.target - step, finishStep: step + left,
            roomStep: step + partial.room - partial.target)
        decodes.append(decode)
        baseSum += decode.base
        nextFinish = min(nextFinish, decode.finishStep)
        nextRoom = min(nextRoom, decode.roomStep)
    }
}
