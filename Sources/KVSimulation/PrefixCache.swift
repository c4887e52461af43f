// The blocks of one GPU replica's KV memory, as an engine with prefix caching keeps them (vLLM's block pool): blocks of
// running requests are counted, blocks without a reader stay as cache in LRU order and are the first to go.

import KVModel

/// A fixed number of KV blocks, found by block number.
///
/// Of one path the blocks held always form a leading run: a reader of a block reads its parents too, and readers let
/// go of the deepest block first, so the deepest is evicted first. The length of that run is therefore found by
/// bisection, in log n probes instead of n.
package struct PrefixCache {
    /// How many blocks fit.
    package let capacity: Int
    /// Blocks that hold tokens of no prefix (answers being generated); they are only counted.
    package private(set) var privateCount = 0
    /// Blocks of the table, readers or not.
    package private(set) var residentCount = 0
    /// Blocks of the table without a reader.
    package private(set) var idleCount = 0
    /// Blocks evicted so far.
    package private(set) var evictionCount = 0

    private var slots: [Slot]
    private var freeSlot: Int32 = -1
    /// Open addressing with linear probing, at most half full.
    private var table: [Entry]
    private let mask: Int
    private let shift: UInt64
    // The LRU list of idle blocks: oldest and newest.
    private var oldest: Int32 = -1
    private var newest: Int32 = -1

    private struct Slot {
        var block: BlockNumber
        var readers: Int32
        /// Neighbours in the LRU list; `next` also links the free slots.
        var previous: Int32
        var next: Int32
        /// Whether the block's KV is there, or only its place.
        var filled: Bool
        /// The slot of the block that followed it in the path that was taken last, if that block is still there.
        var child: Int32 = -1
    }
    /// A block beside its slot, or −1 for an empty place: a search reads the table alone.
    private struct Entry {
        var block: BlockNumber
        var slot: Int32

        static let empty = Entry(block: PrefixCache.noBlock, slot: -1)
    }
    /// The slots of the path in hand, reused.
    private var way: [Int32] = []
    /// The block of a free slot.
    private static let noBlock = BlockNumber.max

    package init(capacity: Int) {
        precondition(capacity > 0, "a KV memory without blocks")
        self.capacity = capacity
        slots = []
        var size = 16
        while size < 2 * capacity { size *= 2 }
        table = Array(repeating: .empty, count: size)
        mask = size - 1
        shift = UInt64(64 - (size / Self.neighbours).trailingZeroBitCount)
    }

    /// Blocks that could be had now: free, or cached without a reader.
    package var available: Int { capacity - privateCount - residentCount + idleCount }
    /// Blocks with a reader, or private.
    package var usedCount: Int { privateCount + residentCount - idleCount }

    /// Whether the block's KV is there.
    package func isFilled(_ block: BlockNumber) -> Bool {
        let slot = find(block)
        return slot >= 0 && slots[slot].filled
    }

    /// Whether the block has a place, filled or not.
    package func isPresent(_ block: BlockNumber) -> Bool { find(block) >= 0 }

    /// How many leading blocks of the path are filled.
    package func filledRun(_ path: Span<BlockNumber>) -> Int {
        Self.run(path.count) { isFilled(path[$0]) }
    }

    /// How many leading blocks of the path have a place.
    package func presentRun(_ path: Span<BlockNumber>) -> Int {
        Self.run(path.count) { isPresent(path[$0]) }
    }

    /// How many leading blocks of the path have a reader: taking them once more takes nothing away.
    package func readRun(_ path: Span<BlockNumber>) -> Int {
        Self.run(path.count) {
            let slot = find(path[$0])
            return slot >= 0 && slots[slot].readers > 0
        }
    }

    /// A reader takes the whole path: present blocks are counted, absent ones get a place, evicting idle blocks.
    /// The caller has checked that enough are available. Evicted blocks are appended to `evicted`.
    package mutating func acquire(_ path: Span<BlockNumber>, evicted: inout [BlockNumber]) {
        var parent = -1
        for index in path.indices {
            let block = path[index]
            var slot = find(block, after: parent)
            if slot >= 0 {
                if slots[slot].readers == 0 { unlink(slot) }
                slots[slot].readers += 1
            } else {
                slot = insert(block, evicted: &evicted)
            }
            if parent >= 0 { slots[parent].child = Int32(truncatingIfNeeded: slot) }
            parent = slot
        }
    }

    /// The KV of these blocks of an acquired path is there now.
    package mutating func fill(_ path: Span<BlockNumber>, _ range: Range<Int>) {
        for index in range {
            let slot = find(path[index])
            precondition(slot >= 0, "filling a block that has no place")
            slots[slot].filled = true
        }
    }

    /// The KV of the first `count` blocks of an acquired path is there now. Filled blocks lead, so only those behind
    /// them are visited.
    package mutating func fillLeading(_ path: Span<BlockNumber>, _ count: Int) {
        var index = count - 1
        while index >= 0 {
            let slot = find(path[index])
            precondition(slot >= 0, "filling a block that has no place")
            if slots[slot].filled { return }
            slots[slot].filled = true
            index -= 1
        }
    }

    /// A reader lets go of its path. Blocks that never got their KV are dropped with their last reader.
    package mutating func release(_ path: Span<BlockNumber>) {
        way.removeAll(keepingCapacity: true)
        var parent = -1
        for index in path.indices {
            parent = find(path[index], after: parent)
            precondition(parent >= 0, "releasing a block that is not held")
            way.append(Int32(truncatingIfNeeded: parent))
        }
        while let last = way.popLast() {
            let slot = Int(last)
            precondition(slots[slot].readers > 0, "releasing a block that nobody reads")
            slots[slot].readers -= 1
            if slots[slot].readers == 0 {
                if slots[slot].filled { link(slot) } else { drop(slot) }
            }
        }
    }

    /// Takes or returns private blocks. Taking may evict idle ones; the caller has checked that enough are available.
    package mutating func changePrivate(by change: Int, evicted: inout [BlockNumber]) {
        privateCount += change
        precondition(privateCount >= 0, "returning private blocks that were not taken")
        while privateCount + residentCount > capacity { evictOldest(&evicted) }
    }

    /// Drops every idle block: an engine without prefix caching keeps nothing.
    package mutating func dropIdle(evicted: inout [BlockNumber]) {
        while oldest >= 0 { evictOldest(&evicted) }
    }

    private mutating func insert(_ block: BlockNumber, evicted: inout [BlockNumber]) -> Int {
        while privateCount + residentCount >= capacity { evictOldest(&evicted) }
        let slot: Int
        if freeSlot >= 0 {
            slot = Int(freeSlot)
            freeSlot = slots[slot].next
            slots[slot] = Slot(block: block, readers: 1, previous: -1, next: -1, filled: false)
        } else {
            slot = slots.count
            slots.append(Slot(block: block, readers: 1, previous: -1, next: -1, filled: false))
        }
        residentCount += 1
        var place = home(block)
        while table[place].slot >= 0 { place = (place + 1) & mask }
        table[place] = Entry(block: block, slot: Int32(truncatingIfNeeded: slot))
        return slot
    }

    private mutating func evictOldest(_ evicted: inout [BlockNumber]) {
        precondition(oldest >= 0, "KV memory is full of blocks that are being read")
        let slot = Int(oldest)
        evicted.append(slots[slot].block)
        evictionCount += 1
        unlink(slot)
        drop(slot)
    }

    /// Takes a block out of the table; it is in no list.
    private mutating func drop(_ slot: Int) {
        var hole = home(slots[slot].block)
        while table[hole].slot != Int32(truncatingIfNeeded: slot) { hole = (hole + 1) & mask }
        // Backward shift: later entries of the probe run close the hole, so no tombstones slow the table down.
        var place = (hole + 1) & mask
        while table[place].slot >= 0 {
            let wanted = home(table[place].block)
            if (place &- wanted) & mask >= (place &- hole) & mask {
                table[hole] = table[place]
                hole = place
            }
            place = (place + 1) & mask
        }
        table[hole] = .empty
        slots[slot].block = Self.noBlock
        slots[slot].next = freeSlot
        freeSlot = Int32(truncatingIfNeeded: slot)
        residentCount -= 1
    }

    private mutating func link(_ slot: Int) {
        slots[slot].previous = newest
        slots[slot].next = -1
        if newest >= 0 { slots[Int(newest)].next = Int32(truncatingIfNeeded: slot) }
        newest = Int32(truncatingIfNeeded: slot)
        if oldest < 0 { oldest = newest }
        idleCount += 1
    }

    private mutating func unlink(_ slot: Int) {
        let (previous, next) = (slots[slot].previous, slots[slot].next)
        if previous >= 0 { slots[Int(previous)].next = next } else { oldest = next }
        if next >= 0 { slots[Int(next)].previous = previous } else { newest = previous }
        idleCount -= 1
    }

    /// Numbers that lie side by side in the table.
    private static let neighbours = 8

    /// Fibonacci hashing of eight neighbours together: what a request brings has numbers in a row, so its path is found in
    /// a few lines of memory.
    @inline(__always)
    private func home(_ block: BlockNumber) -> Int {
        let group = Int((UInt64(block / BlockNumber(Self.neighbours)) &* 0x9E37_79B9_7F4A_7C15) >> shift)
        return group * Self.neighbours + Int(block % BlockNumber(Self.neighbours))
    }

    /// The slot of a block, looked for first where the last path went on: paths are long, and mostly walked again.
    @inline(__always)
    private func find(_ block: BlockNumber, after parent: Int) -> Int {
        if parent >= 0 {
            let child = Int(slots[parent].child)
            if child >= 0, slots[child].block == block { return child }
        }
        return find(block)
    }

    private func find(_ block: BlockNumber) -> Int {
        var place = home(block)
        while true {
            let entry = table[place]
            if entry.block == block { return Int(entry.slot) }
            if entry.slot < 0 { return -1 }
            place = (place + 1) & mask
        }
    }

    /// The length of a leading run of which any shorter run holds too.
    @inline(__always)
    package static func run(_ count: Int, _ holds: (Int) -> Bool) -> Int {
        if count == 0 || !holds(0) { return 0 }
        if holds(count - 1) { return count }
        var low = 0
        var high = count - 1
        while high - low > 1 {
            let middle = (low + high) / 2
            if holds(middle) { low = middle } else { high = middle }
        }
        return high
    }
}
