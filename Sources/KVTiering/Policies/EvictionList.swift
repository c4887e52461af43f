// Blocks of one tier in one order, the victim at its oldest end. LRU, FIFO and both tiers of the two-tier cache
// are this list; they differ in what renews a block.

import KVModel

/// A bounded set of blocks in the order in which they would be evicted: eight bytes a block, constant work.
struct EvictionList {
    let capacity: Int
    /// Blocks held, the parked ones included.
    private(set) var residentCount = 0
    private var links = [BlockLink](listCount: 1)
    private var pins = PinCounts()

    /// The head of the list; block `b` is node `b + 1`.
    private static let head = 0

    init(capacity: Int) {
        precondition(capacity >= 1, "a tier without room for one block")
        self.capacity = capacity
    }

    @inline(__always)
    func isResident(_ block: BlockNumber) -> Bool {
        let node = Int(block) + 1
        return node < links.count && links[node].older != BlockLink.absent
    }

    func hitRun(_ path: Span<BlockNumber>) -> Int {
        var length = 0
        while length < path.count, isResident(path[length]) { length += 1 }
        return length
    }

    /// Accesses a whole path, deepest block first. `hitsRenew` is what LRU has and FIFO has not.
    @inline(__always)
    mutating func access(_ path: Span<BlockNumber>, hitsRenew: Bool, evicted: inout [BlockNumber]) {
        links.grow(toHold: path, listCount: 1)
        // The array moves out of `self` for the walk: a span into it may then live beside the other members.
        var nodes = links
        links = []
        defer { self.links = nodes }
        var links = nodes.mutableSpan
        var position = path.count
        while position > 0 {
            position -= 1
            let node = Int(path[position]) + 1
            if links[node].older != BlockLink.absent {
                guard hitsRenew else { continue }
                if links[node].isListed { links.detach(node) }
            } else if residentCount < capacity {
                residentCount += 1
            } else if let victim = Self.takeVictim(from: &links, &pins) {
                evicted.append(victim)
            } else {
                continue  // All blocks are pinned: the newcomer stays out.
            }
            links.attachNewest(node, to: Self.head)
        }
    }

    /// Makes a block the newest. It must be resident.
    @inline(__always)
    mutating func renew(_ block: BlockNumber) {
        let node = Int(block) + 1
        if links[node].isListed { links.detach(node) }
        links.attachNewest(node, to: Self.head)
    }

    /// Admits an absent block as the newest, and tells who had to leave for it.
    @inline(__always)
    mutating func insert(_ block: BlockNumber) -> BlockNumber? {
        links.grow(toHold: block, listCount: 1)
        var victim: BlockNumber?
        if residentCount < capacity {
            residentCount += 1
        } else {
            var nodes = links
            links = []
            defer { links = nodes }
            var span = nodes.mutableSpan
            victim = Self.takeVictim(from: &span, &pins)
            if victim == nil { return nil }
        }
        links.attachNewest(Int(block) + 1, to: Self.head)
        return victim
    }

    /// Takes the oldest block that is not pinned out of the list; its place is for the caller to fill.
    @inline(__always)
    private static func takeVictim(from links: inout MutableSpan<BlockLink>, _ pins: inout PinCounts) -> BlockNumber? {
        while true {
            let node = links.oldest(of: head)
            if node == head { return nil }
            let block = BlockNumber(truncatingIfNeeded: node - 1)
            links.detach(node)
            if !pins.isPinned(block) {
                links[node].older = BlockLink.absent
                return block
            }
            links[node].older = BlockLink.parked
        }
    }

    mutating func pin(_ block: BlockNumber) {
        precondition(isResident(block), "a block is pinned that the tier does not hold")
        pins.pin(block)
    }

    mutating func unpin(_ block: BlockNumber) {
        let node = Int(block) + 1
        guard pins.unpin(block), node < links.count, links[node].older == BlockLink.parked else { return }
        links.attachOldest(node, to: Self.head)
    }

    mutating func remove(_ block: BlockNumber) {
        guard isResident(block) else { return }
        let node = Int(block) + 1
        if links[node].isListed { links.detach(node) }
        links[node].older = BlockLink.absent
        residentCount -= 1
    }
}
