// Which slot a block has, for a memory that holds few of very many blocks: two reads and no search.

import KVModel

/// Slots by block number, in pages of 64 numbers. A page is there while one of its blocks has a slot, so it takes memory for
/// the blocks that are held, and four bytes a page of all numbers ever asked for. What a request brings has numbers in a row,
/// and so its path lies in a page or two.
struct BlockPages {
    /// The page of each 64 block numbers, `absent` where none of them has a slot.
    private var pageOf: [Int32] = []
    /// Slots of all pages, 64 a page.
    private var slots: [Int32] = []
    /// How many blocks of each page have a slot.
    private var counts: [Int32] = []
    private var free: [Int32] = []

    static let absent: Int32 = -1
    private static let shift = 6
    private static let mask = 63

    /// The slot of a block, or `absent`.
    @inline(__always)
    func slot(of block: BlockNumber) -> Int32 {
        let index = Int(block) >> Self.shift
        guard index < pageOf.count else { return Self.absent }
        let page = pageOf[index]
        if page == Self.absent { return Self.absent }
        return slots[Int(page) << Self.shift | Int(block) & Self.mask]
    }

    /// Gives a block that has none a slot.
    @inline(__always)
    mutating func insert(_ block: BlockNumber, _ slot: Int32) {
        let index = Int(block) >> Self.shift
        if index >= pageOf.count { growPages(to: index + 1) }
        var page = pageOf[index]
        if page == Self.absent {
            page = takePage()
            pageOf[index] = page
        }
        slots[Int(page) << Self.shift | Int(block) & Self.mask] = slot
        counts[Int(page)] += 1
    }

    /// Takes a block's slot away.
    @inline(__always)
    mutating func remove(_ block: BlockNumber) {
        let index = Int(block) >> Self.shift
        let page = pageOf[index]
        slots[Int(page) << Self.shift | Int(block) & Self.mask] = Self.absent
        counts[Int(page)] -= 1
        guard counts[Int(page)] == 0 else { return }
        free.append(page)
        pageOf[index] = Self.absent
    }

    private mutating func growPages(to count: Int) {
        pageOf.append(contentsOf: repeatElement(Self.absent, count: max(count, 2 * pageOf.count) - pageOf.count))
    }

    /// An empty page: one that was given back, all absent, or a new one.
    private mutating func takePage() -> Int32 {
        if let page = free.popLast() { return page }
        slots.append(contentsOf: repeatElement(Self.absent, count: 1 << Self.shift))
        counts.append(0)
        return Int32(truncatingIfNeeded: counts.count - 1)
    }
}
