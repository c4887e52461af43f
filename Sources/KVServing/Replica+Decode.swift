// The decodes of a replica: how many steps a run may take, room for its tokens, who finishes, who must stop.

import KVModel

extension Replica {
    /// Tokens that the decodes attend to in the next step: each its KV and the token just computed.
    @usableFromInline var nextContext: Double { Double(baseSum + decodes.count * (step + 1)) }

    /// Seconds of so many decode steps from now on. A step's time is linear in its context, so the step with the mean
    /// context stands for all.
    @usableFromInline
    func runSeconds(_ steps: Int) -> Double {
        let count = decodes.count
        let context = nextContext + Double(count * (steps - 1)) / 2
        return Double(steps) * model.decodeSeconds(sequences: count, context: context)
    }

    /// A run of so many decode steps.
    @usableFromInline
    func run(of steps: Int) -> Iteration {
        let count = decodes.count
        let duration = Duration(seconds: runSeconds(steps))
        let context = nextContext + Double(count * (steps - 1)) / 2
        let flops = Double(steps) * model.decodeFLOPs(sequences: count, context: context)
        return Iteration(
            duration: duration, decodeDuration: duration, steps: steps, sequences: count, decodeFLOPs: flops)
    }

    /// One iteration with prefill plannedChunks.
    @usableFromInline
    func mixed(_ prefill: PrefillLoad) -> Iteration {
        let count = decodes.count
        let seconds = model.iterationSeconds(prefill: prefill, sequences: count, context: nextContext)
        return Iteration(
            duration: Duration(seconds: seconds.total), decodeDuration: Duration(seconds: seconds.decodeOnly), steps: 1,
            sequences: count,
            decodeFLOPs: count == 0 ? 0 : model.decodeFLOPs(sequences: count, context: nextContext))
    }

    /// Decode steps until a sequence finishes, `next` is reached, or the longest run is.
    @usableFromInline
    mutating func stepsUntil(_ next: Instant, from now: Instant) -> Int {
        // Removals leave it too low; then it is found again.
        if nextFinish <= step { nextFinish = decodes.reduce(Int.max) { min($0, $1.finishStep) } }
        let limit = min(nextFinish - step, batching.runStepsMax)
        return next == .distantFuture ? limit : stepsReaching((next - now).seconds, limit: limit)
    }

    /// The fewest steps, at least one and at most `limit`, that take at least `seconds`.
    @usableFromInline
    func stepsReaching(_ seconds: Double, limit: Int) -> Int {
        if limit == 1 || runSeconds(limit) <= seconds { return limit }
        // Steps only get longer, so the first one's time gives too many.
        var steps = max(1, Int(min(Double(limit), (seconds / runSeconds(1)).rounded(.up))))
        while steps > 1, runSeconds(steps - 1) >= seconds { steps -= 1 }
        return steps
    }

    /// Reserves room for the next token of every decode; the newest request stops as long as there is none.
    @inlinable
    mutating func makeRoomForOneStep<Space: KVSpace>(_ space: inout Space) {
        var index = 0
        while index < decodes.count {
            if decodes[index].roomStep <= step, !growDecode(index, toStep: step + 1, &space) {
                preemptNewest(&space)
                continue
            }
            index += 1
        }
        nextRoom = decodes.reduce(Int.max) { min($0, $1.roomStep) }
    }

    /// Reserves room for a run of so many steps, and returns how many there is room for: at least one.
    @inlinable
    mutating func stepsWithRoom<Space: KVSpace>(_ steps: Int, _ space: inout Space) -> Int {
        if nextRoom >= step + steps { return steps }
        var steps = steps
        for index in 0..<decodes.count where decodes[index].roomStep < step + steps {
            if !growDecode(index, toStep: step + steps, &space) { steps = decodes[index].roomStep - step }
        }
        nextRoom = decodes.reduce(Int.max) { min($0, $1.roomStep) }
        return steps
    }

    @inlinable
    mutating func growDecode<Space: KVSpace>(_ index: Int, toStep: Int, _ space: inout Space) -> Bool {
        let base = decodes[index].base
        guard let room = space.grow(decodes[index].request.number, tokens: base + toStep) else { return false }
        decodes[index].roomStep = room - base
        return true
    }

    /// Stops the request that was admitted last.
    @inlinable
    mutating func preemptNewest<Space: KVSpace>(_ space: inout Space) {
        var request: ReplicaRequest
        if let partial = partials.popLast() {
            request = partial.request
            uncomputedTokens -= partial.left
            space.release(request.number, tokens: partial.computed, preempted: true)
        } else {
            guard let decode = decodes.popLast() else { preconditionFailure("nobody to preempt") }
            request = decode.request
            request.producedTokens = request.outputTokens - (decode.finishStep - step)
            baseSum -= decode.base
            if decode.finishStep == nextFinish { nextFinish = step }
            space.release(request.number, tokens: decode.base + step, preempted: true)
        }
        // What was loaded into its place, or still is, is lost to it.
        request.gap = 0..<0
        reportedEvents.append(.preempted(request.number, producedTokens: request.producedTokens))
        guard batching.preemption == .recompute else { return }
        uncomputedTokens += request.tokensToPrefill
        waiting.insertAtHead(request)
    }

    /// Removes the decodes whose last token is out.
    @inlinable
    mutating func finishDecodes<Space: KVSpace>(_ space: inout Space) {
        var kept = 0
        var finish = Int.max
        var room = Int.max
        for index in 0..<decodes.count {
            let decode = decodes[index]
            if decode.finishStep <= step {
                baseSum -= decode.base
                space.release(decode.request.number, tokens: decode.base + step, preempted: false)
                reportedEvents.append(.finished(decode.request.number))
                continue
            }
            finish = min(finish, decode.finishStep)
            room = min(room, decode.roomStep)
            if kept != index { decodes[kept] = decode }
            kept += 1
        }
        decodes.removeSubrange(kept...)
        nextFinish = finish
        nextRoom = room
    }
}
