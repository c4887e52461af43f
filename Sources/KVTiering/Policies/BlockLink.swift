// Circular doubly linked lists of blocks in one flat array: the shape of every list policy here. A list costs one
// head node, a block eight bytes, and moving a block touches three nodes. No order of worth is decided here.

import KVModel

/// A node of a circular list: the nodes before and after it, as indices into the same array.
///
/// The first nodes of the array are the heads of the lists; block `b` is the node `b + number of heads`. From a
/// head, `older` leads to the newest block of its list and `newer` to the oldest.
struct BlockLink {
    var newer: UInt32
    var older: UInt32

    /// In `older`: the block is in no list.
    static let absent = UInt32.max
    /// In `older`: the block is resident and pinned, and waits outside its list (see `PinCounts`).
    static let parked = UInt32.max - 1

    /// A block that no list holds.
    static let unlisted = BlockLink(newer: absent, older: absent)

    /// Whether a list holds the node.
    @inline(__always) var isListed: Bool { older < BlockLink.parked }
}

extension [BlockLink] {
    /// The array of `listCount` empty lists and no blocks.
    init(listCount: Int) {
        self = (0..<UInt32(listCount)).map { BlockLink(newer: $0, older: $0) }
    }

    // Each of these is one check that the array is not shared, and then the same step on its span. A loop over a
    // whole path takes the span once instead (see `EvictionList`).
    @inline(__always)
    mutating func detach(_ node: Int) {
        var span = mutableSpan
        span.detach(node)
    }
    @inline(__always)
    mutating func attachNewest(_ node: Int, to head: Int) {
        var span = mutableSpan
        span.attachNewest(node, to: head)
    }
    @inline(__always)
    mutating func attachOldest(_ node: Int, to head: Int) {
        var span = mutableSpan
        span.attachOldest(node, to: head)
    }
    @inline(__always)
    mutating func attach(_ node: Int, olderThan neighbour: Int) {
        var span = mutableSpan
        span.attach(node, olderThan: neighbour)
    }
    @inline(__always)
    func oldest(of head: Int) -> Int { Int(self[head].newer) }

    /// Makes room for every block of a path.
    mutating func grow(toHold path: Span<BlockNumber>, listCount: Int) {
        var largest: BlockNumber = 0
        for position in path.indices { largest = Swift.max(largest, path[position]) }
        grow(toHold: largest, listCount: listCount)
    }

    /// Makes room for blocks up to one number.
    mutating func grow(toHold block: BlockNumber, listCount: Int) {
        extend(to: Int(block) + listCount + 1, with: .unlisted)
    }
}

extension MutableSpan where Element == BlockLink {
    /// Takes a node out of its list. The caller says what it is next.
    @inline(__always)
    mutating func detach(_ node: Int) {
        let link = self[node]
        self[Int(link.newer)].older = link.older
        self[Int(link.older)].newer = link.newer
    }

    /// Puts a node at the newest end of the list with this head.
    @inline(__always)
    mutating func attachNewest(_ node: Int, to head: Int) { attach(node, olderThan: head) }

    /// Puts a node at the oldest end of the list with this head.
    @inline(__always)
    mutating func attachOldest(_ node: Int, to head: Int) { attach(node, olderThan: Int(self[head].newer)) }

    /// Puts a node right behind another, on its older side.
    @inline(__always)
    mutating func attach(_ node: Int, olderThan neighbour: Int) {
        let older = self[neighbour].older
        self[node] = BlockLink(newer: UInt32(truncatingIfNeeded: neighbour), older: older)
        self[neighbour].older = UInt32(truncatingIfNeeded: node)
        self[Int(older)].newer = UInt32(truncatingIfNeeded: node)
    }

    /// The oldest node of a list, or the head itself when the list is empty.
    @inline(__always)
    func oldest(of head: Int) -> Int { Int(self[head].newer) }
}
