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

    private var slots: [Slot] = []
    private var freeSlot: Int32 = -1
    /// The slot of each block.
    private var pages = BlockPages()
    private var idle = IdleList()
    /// The slots of the path in hand, reused.
    private var way: [Int32] = []

    fileprivate struct Slot {
        var block: BlockNumber
        var readers: Int32
        /// Neighbours among the idle blocks; `next` also links the free slots.
        var previous: Int32
        var next: Int32
        /// Whether the block's KV is there, or only its place.
        var filled: Bool
    }

    package init(capacity: Int) {
        precondition(capacity > 0, "a KV memory without blocks")
        self.capacity = capacity
    }

    /// Blocks of the table without a reader.
    package var idleCount: Int { idle.count }
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

    /// How many leading blocks of the path have a reader: taking them once more takes nothing away.
    package func readRun(_ path: Span<BlockNumber>) -> Int {
        Self.run(path.count) {
            let slot = find(path[$0])
            return slot >= 0 && slots[slot].readers > 0
        }
    }

    /// A reader takes the whole path: present blocks are counted, absent ones get a place, evicting idle blocks.
    /// The caller has checked that enough are available.
    package mutating func acquire(_ path: Span<BlockNumber>) {
        let present = Self.takePresent(path, pages, &slots, &idle)
        // Blocks held lead, so all others are absent. They get room together: victims lie anywhere in memory, which answers for
        // several at once.
        keepFree(path.count - present)
        for index in present..<path.count { insert(path[index]) }
    }

    /// Counts one reader more of the leading blocks that have a place, and says how many those are.
    private static func takePresent(
        _ path: Span<BlockNumber>, _ pages: BlockPages, _ slots: inout [Slot], _ idle: inout IdleList
    ) -> Int {
        var slots = slots.mutableSpan
        for index in path.indices {
            let slot = Int(pages.slot(of: path[index]))
            guard slot >= 0 else { return index }
            if slots[slot].readers == 0 { idle.remove(slot, from: &slots) }
            slots[slot].readers += 1
        }
        return path.count
    }

    /// The KV of these blocks of an acquired path is there now.
    package mutating func fill(_ path: Span<BlockNumber>, _ range: Range<Int>) {
        for index in range {
            let slot = Int(pages.slot(of: path[index]))
            precondition(slot >= 0, "filling a block that has no place")
            slots[slot].filled = true
        }
    }

    /// The KV of the first `count` blocks of an acquired path is there now. Filled blocks lead, so only those behind
    /// them are visited.
    package mutating func fillLeading(_ path: Span<BlockNumber>, _ count: Int) {
        var index = count - 1
        while index >= 0 {
            let slot = Int(pages.slot(of: path[index]))
            precondition(slot >= 0, "filling a block that has no place")
            if slots[slot].filled { return }
            slots[slot].filled = true
            index -= 1
        }
    }

    /// A reader lets go of its path. Blocks that never got their KV are dropped with their last reader.
    package mutating func release(_ path: Span<BlockNumber>) {
        way.removeAll(keepingCapacity: true)
        for index in path.indices {
            let slot = pages.slot(of: path[index])
            precondition(slot >= 0, "releasing a block that is not held")
            way.append(slot)
        }
        residentCount -= Self.letGo(way, &slots, &idle, &pages, &freeSlot)
    }

    /// Counts one reader less of each slot of a path, the deepest first, and says how many of them were dropped.
    private static func letGo(
        _ way: [Int32], _ slots: inout [Slot], _ idle: inout IdleList, _ pages: inout BlockPages,
        _ freeSlot: inout Int32
    ) -> Int {
        var slots = slots.mutableSpan
        var droppedCount = 0
        var depth = way.count
        while depth > 0 {
            depth -= 1
            let slot = Int(way[depth])
            precondition(slots[slot].readers > 0, "releasing a block that nobody reads")
            slots[slot].readers -= 1
            guard slots[slot].readers == 0 else { continue }
            if slots[slot].filled {
                idle.append(slot, to: &slots)
            } else {
                drop(slot, from: &slots, &pages, &freeSlot)
                droppedCount += 1
            }
        }
        return droppedCount
    }

    /// Takes or returns private blocks. Taking may evict idle ones; the caller has checked that enough are available.
    package mutating func changePrivate(by change: Int) {
        privateCount += change
        precondition(privateCount >= 0, "returning private blocks that were not taken")
        keepFree(0)
    }

    /// Gives a block that has none a place that was kept free.
    private mutating func insert(_ block: BlockNumber) {
        precondition(find(block) < 0, "a block gets a second place, so those held of its path were no leading run")
        let new = Slot(block: block, readers: 1, previous: -1, next: -1, filled: false)
        let slot = freeSlot
        if slot >= 0 {
            freeSlot = slots[Int(slot)].next
            slots[Int(slot)] = new
            pages.insert(block, slot)
        } else {
            pages.insert(block, Int32(truncatingIfNeeded: slots.count))
            slots.append(new)
        }
        residentCount += 1
    }

    /// Evicts the blocks that have been idle for longest until so many more would fit.
    private mutating func keepFree(_ count: Int) {
        let tooMany = privateCount + residentCount + count - capacity
        guard tooMany > 0 else { return }
        precondition(idle.count >= tooMany, "KV memory is full of blocks that are being read")
        Self.evictOldest(tooMany, &slots, &idle, &pages, &freeSlot)
        residentCount -= tooMany
    }

    private static func evictOldest(
        _ count: Int, _ slots: inout [Slot], _ idle: inout IdleList, _ pages: inout BlockPages,
        _ freeSlot: inout Int32
    ) {
        var slots = slots.mutableSpan
        for _ in 0..<count {
            let slot = Int(idle.oldest)
            idle.remove(slot, from: &slots)
            drop(slot, from: &slots, &pages, &freeSlot)
        }
    }

    /// Takes a block out of its slot; it is in no list.
    @inline(__always)
    private static func drop(
        _ slot: Int, from slots: inout MutableSpan<Slot>, _ pages: inout BlockPages, _ freeSlot: inout Int32
    ) {
        pages.remove(slots[slot].block)
        slots[slot].next = freeSlot
        freeSlot = Int32(truncatingIfNeeded: slot)
    }

    @inline(__always)
    private func find(_ block: BlockNumber) -> Int { Int(pages.slot(of: block)) }

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

/// Blocks without a reader, the one that was let go longest ago first.
private struct IdleList {
    private(set) var count = 0
    private(set) var oldest: Int32 = -1
    private var newest: Int32 = -1

    @inline(__always)
    mutating func append(_ slot: Int, to slots: inout MutableSpan<PrefixCache.Slot>) {
        let index = Int32(truncatingIfNeeded: slot)
        slots[slot].previous = newest
        slots[slot].next = -1
        if newest >= 0 { slots[Int(newest)].next = index } else { oldest = index }
        newest = index
        count += 1
    }

    @inline(__always)
    mutating func remove(_ slot: Int, from slots: inout MutableSpan<PrefixCache.Slot>) {
        let (previous, next) = (slots[slot].previous, slots[slot].next)
        if previous >= 0 { slots[Int(previous)].next = next } else { oldest = next }
        if next >= 0 { slots[Int(next)].previous = previous } else { newest = previous }
        count -= 1
    }
}
