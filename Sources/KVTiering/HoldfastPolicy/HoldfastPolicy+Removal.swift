// Blocks that leave the `holdfast` policy's tier by force: found corrupt, lost or deleted. Rare, so a removal in the
// middle of a prefix may look at every resident block; removals from the deep end cost as little as evictions.

import KVModel

extension HoldfastPolicy {
    /// Drops a block and everything under it without saying what that was.
    public mutating func remove(_ block: BlockNumber) {
        var dropped: [BlockNumber] = []
        remove(block, evicted: &dropped)
    }

    /// Drops a block and everything under it, and says what that was.
    public mutating func remove(_ block: BlockNumber, evicted: inout [BlockNumber]) {
        guard isResident(block) else { return }
        let earlier = evicted.count
        if tier.held[Int(block)] == 1 {
            let tail = known[Int(block)].owner
            evicted.append(
                tier.dropEnd(of: tail, known: known, tails: tails, worths: statistics.index, shadows: shadows))
            markLost(tail)
        } else {
            removeSubtree(under: block, evicted: &evicted)
        }
        for block in evicted[earlier...] { shadows.forget(block) }
        forgetBeyondMemory()
    }

    /// Drops a block and everything that can only be reached through it.
    private mutating func removeSubtree(under root: BlockNumber, evicted: inout [BlockNumber]) {
        // Whether a block hangs under the root; every block's answer is that of its parent.
        var hangs = [Bool?](repeating: nil, count: known.count)
        hangs[Int(root)] = true
        var way: [BlockNumber] = []
        for tail in tails.indices where tier.ends[tail].count > 0 {
            var block = tier.ends[tail].deepest
            while block != noBlock, hangs[Int(block)] == nil {
                way.append(block)
                block = known[Int(block)].parent
            }
            let answer = block == noBlock ? false : hangs[Int(block)] ?? false
            for passed in way { hangs[Int(passed)] = answer }
            way.removeAll(keepingCapacity: true)
        }
        for tail in tails.indices where tier.ends[tail].count > 0 {
            var isCut = false
            while tier.ends[tail].count > 0, hangs[Int(tier.ends[tail].deepest)] == true {
                evicted.append(tier.tearEnd(of: Int32(tail), known: known))
                isCut = true
            }
            if isCut { markLost(Int32(tail)) }
        }
        tier.offerAll(known: known, tails: tails, worths: statistics.index, shadows: shadows)
    }
}
