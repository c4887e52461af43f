// The `holdfast` policy before a large tier was ever full. Until then every rule would hold the same blocks, so nothing
// is ranked, no shadow runs, and a tail grows older only when something happens to it. All of that begins when the first
// block has to leave. It promises that what was learned by then is the same as if it had begun at once.

import KVModel

extension HoldfastPolicy {
    /// The first block is about to leave: from now on it matters which.
    mutating func becomeFull() {
        isFull = true
        sortByAge()
        rebuild()
        shadows.start(recency: recency(), admissions: firstUses.filter { tier.holds($0) }) { known[Int($0)].uses }
        firstUses = []
        tier.beginListing()
        // Oldest first, so that every list is in order of age.
        forEachTailByAge { policy, tail in
            policy.tier.offerEnd(
                of: tail, known: policy.known, tails: policy.tails, worths: policy.statistics.index,
                shadows: policy.shadows)
        }
        if shadows.leader != .index { obey(shadows.leader) }
    }

    /// Notes which blocks of a path come for the first time: S3-FIFO's order, the deepest first.
    mutating func noteFirstUses(_ path: Span<BlockNumber>) {
        var depth = path.count
        while depth > 0 {
            depth -= 1
            if known[Int(path[depth])].uses > 1 { return }
            firstUses.append(path[depth])
        }
    }

    /// Brings every tail up to date and into the queue of its age.
    private mutating func sortByAge() {
        let entries = ages.entries(of: 0)
        ages = HoldfastAges()
        for entry in entries where tails[Int(entry.tail)].stamp == entry.stamp {
            catchUp(entry.tail, to: clock)
            ages.append(entry, to: tails[Int(entry.tail)].bin)
        }
    }

    /// What the tier holds in the order of its last uses, newest first; of one request root first.
    private func recency() -> [BlockNumber] {
        let owners = tails.indices.filter { tails[$0].owned > 0 }.sorted {
            let (left, right) = (tails[$0], tails[$1])
            guard left.request == right.request else {
                return records[Int(left.request)].order < records[Int(right.request)].order
            }
            return left.low > right.low
        }
        var blocks: [BlockNumber] = []
        blocks.reserveCapacity(tier.count)
        for owner in owners {
            var block = tails[owner].last
            for _ in 0..<tails[owner].owned {
                if tier.holds(block) { blocks.append(block) }
                block = known[Int(block)].parent
            }
        }
        blocks.reverse()
        return blocks
    }
}
