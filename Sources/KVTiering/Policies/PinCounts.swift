// How many times each block is pinned. A policy that looks for a victim and meets a pinned block *parks* it: takes
// it out of its list, so that no later search meets it again. The last unpin puts a parked block back at the
// victim's end of its list, where it was found. So a search for a victim costs one step per pin and eviction,
// however many blocks are pinned; walking past them each time would cost all of them for every eviction.

import KVModel

/// Pins held on blocks, by block number. It grows with the largest number that was ever pinned.
struct PinCounts {
    private var counts: [UInt32] = []
    /// Pins in force on all blocks.
    private(set) var total = 0

    /// Whether at least one pin is in force on the block.
    @inline(__always)
    func isPinned(_ block: BlockNumber) -> Bool {
        total > 0 && Int(block) < counts.count && counts[Int(block)] > 0
    }

    /// Adds one pin.
    mutating func pin(_ block: BlockNumber) {
        let index = Int(block)
        if index >= counts.count { counts.append(contentsOf: repeatElement(0, count: index + 1 - counts.count)) }
        counts[index] += 1
        total += 1
    }

    /// Takes one pin away, and tells whether it was the block's last.
    mutating func unpin(_ block: BlockNumber) -> Bool {
        precondition(isPinned(block), "a block is unpinned more often than it was pinned")
        counts[Int(block)] -= 1
        total -= 1
        return counts[Int(block)] == 0
    }
}
