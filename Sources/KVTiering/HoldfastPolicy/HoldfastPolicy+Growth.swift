// A path of the `holdfast` policy that grows while its turn runs: the answer's blocks, or a prompt that comes in pieces. It
// promises that a turn counts once, however many pieces it is told in: no further request, no gap, no use of what it had used.

import KVModel

extension HoldfastPolicy {
    /// Takes in what has been added to a request's path. The class of the turn stays what it was.
    public mutating func extend(
        _ path: Span<BlockNumber>, from shown: Int, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        clock = max(clock, context.now.seconds)
        endTurns()
        if isFull { age() }
        let length = consistentLength(of: path)
        guard length > shown else { return }
        let end = shown > 0 ? known[Int(path[shown - 1])].owner : none
        // What was forgotten meanwhile cannot grow.
        guard end != none else { return access(path, context, evicted: &evicted) }
        // Another request may have used it since, and gone on the same way: then it was counted there.
        var first = shown
        while first < length, known[Int(path[first])].owner == end { first += 1 }
        if first == length { return refill(path.extracting(first: length), of: end, evicted: &evicted) }
        grow(path.extracting(first: length), behind: end, from: first, context, evicted: &evicted)
    }

    private mutating func grow(
        _ path: Span<BlockNumber>, behind end: Int32, from shown: Int, _ context: RequestContext,
        evicted: inout [BlockNumber]
    ) {
        let hits = tier.run(of: path)
        if !isFull, tier.count + path.count - hits > capacity { becomeFull() }
        takeOver(path, from: shown)
        let owner = tails[Int(end)].request
        let isOwn = context.request == noRequest || records[Int(owner)].number == context.request
        let request = isOwn ? owner : recordOfRequest[context.request] ?? owner
        records[Int(request)].length = max(records[Int(request)].length, Int32(path.count))
        let growing = canGrow(end, of: request, from: shown)
        segments.removeAll(keepingCapacity: true)
        segments.append(Segment(low: shown, high: path.count, family: familyOfGrowth(behind: end)))
        if statistics.isStale { rebuildIfDue() }
        if isFull { shadows.access(path, from: shown, context) }
        // With a block behind it, or longer, its end is none that could go.
        let deepest = tier.suspend(end)
        let deepestByIndex = indexTier?.suspend(end)
        if growing {
            lengthen(end, path, from: shown)
        } else {
            segments[0].tail = newTail(segments[0], last: path[path.count - 1], request: request)
            give(path, shown..<path.count, to: segments[0].tail)
        }
        if isFull {
            markDropped()
            forgetReleased()
        } else {
            noteFirstUses(path.extracting(shown..<path.count))
        }
        // Behind a block that is gone nothing can be found.
        let held = hits < shown ? hits : admit(path, from: hits, evicted: &evicted)
        let runByIndex = indexTier?.run(of: path) ?? 0
        let heldByIndex = runByIndex < shown ? runByIndex : admitByIndex(path)
        if growing {
            settle(end, path, held: held, heldByIndex: heldByIndex)
        } else {
            enterCells(path, held: held, heldByIndex: heldByIndex)
            tier.resume(
                end, at: deepest, known: known, tails: tails, worths: statistics.index, shadows: shadows)
            indexTier?.resume(
                end, at: deepestByIndex ?? noBlock, known: known, tails: tails, worths: statistics.index,
                shadows: shadows)
        }
        forgetBeyondMemory()
    }

    /// Lets in what a tail owns of a path and the tier does not hold, where it holds the tail's beginning.
    private mutating func refill(_ path: Span<BlockNumber>, of tail: Int32, evicted: inout [BlockNumber]) {
        let (hits, low) = (tier.run(of: path), Int(tails[Int(tail)].low))
        guard hits < path.count, hits > low else { return }
        if !isFull, tier.count + path.count - hits > capacity { becomeFull() }
        _ = tier.suspend(tail)
        _ = indexTier?.suspend(tail)
        segments.removeAll(keepingCapacity: true)
        segments.append(Segment(low: hits, high: path.count, family: statistics.family(of: tails[Int(tail)].cell)))
        let held = admit(path, from: hits, evicted: &evicted)
        let runByIndex = indexTier?.run(of: path) ?? 0
        settle(tail, path, held: held, heldByIndex: runByIndex > low ? admitByIndex(path) : runByIndex)
        forgetBeyondMemory()
    }

    /// Whether a tail is the end of the request's path as it was, of blocks used once.
    ///
    /// A part of its caller: as a call that only reads, it would have the whole policy copied for it.
    @inline(__always)
    private func canGrow(_ tail: Int32, of request: Int32, from shown: Int) -> Bool {
        let (end, family) = (tails[Int(tail)], statistics.family(of: tails[Int(tail)].cell))
        return end.request == request && end.high == Int32(shown) && statistics.turnMatters(to: family)
            && statistics.families[Int(family)].level == 0
    }

    /// The class of what a turn adds: used once, in a conversation like that of the blocks before it.
    private mutating func familyOfGrowth(behind tail: Int32) -> Int32 {
        let number = statistics.family(of: tails[Int(tail)].cell)
        guard statistics.turnMatters(to: number) else {
            return statistics.family(level: 0, chain: RequestNature.template, rhythm: 0)
        }
        let family = statistics.families[Int(number)]
        return statistics.family(level: 0, chain: family.chain, rhythm: family.rhythm)
    }

    /// Gives new blocks to the tail in front of them, which stays as old as it is.
    private mutating func lengthen(_ tail: Int32, _ path: Span<BlockNumber>, from shown: Int) {
        let index = Int(tail)
        if !isFull { catchUp(tail, to: clock) }
        let old = tails[index]
        statistics.leave(cell: old.cell, tail: old, at: clock)
        tails[index].entered = clock
        tails[index].high = Int32(path.count)
        tails[index].last = path[path.count - 1]
        tails[index].weight = Tail.weight(length: Int(tails[index].owned))
        statistics.enter(cell: old.cell, tail: tails[index])
        statistics.tailGrew(from: old, to: tails[index])
        give(path, shown..<path.count, to: tail)
    }

    private mutating func settle(_ tail: Int32, _ path: Span<BlockNumber>, held: Int, heldByIndex: Int) {
        let grown = tails[Int(tail)]
        let segment = Segment(low: Int(grown.low), high: Int(grown.high), family: statistics.family(of: grown.cell))
        tier.settle(
            tail, segment, path, held: held, cell: grown.cell, worths: statistics.index, shadows: shadows)
        indexTier?.settle(
            tail, segment, path, held: heldByIndex, cell: grown.cell, worths: statistics.index, shadows: shadows)
        if held < path.count { markLost(tail) }
    }
}
