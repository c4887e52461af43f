// What policies share that keep their blocks in lists of one array and a state of each block in another: both grow with the
// numbers that appear, and both are taken out of the policy while it walks a path. No order of worth is decided here.

import KVModel

/// What such a policy keeps of one block.
protocol LinkedState: BitwiseCopyable {
    /// Of a block that no list holds.
    init()
    /// Pinned and outside its list, though still counted there (see `PinCounts`).
    var isParked: Bool { get set }
}

/// A policy of lists, `listCount` of them: block `b` is the node `b + listCount`, and has the state `b`.
protocol LinkedPolicy {
    associatedtype State: LinkedState
    static var listCount: Int { get }
    var links: [BlockLink] { get set }
    var states: [State] { get set }
    var pins: PinCounts { get }
}

extension LinkedPolicy {
    /// Makes room for every block of a path.
    mutating func grow(toHold path: Span<BlockNumber>) {
        links.grow(toHold: path, listCount: Self.listCount)
        states.extend(to: links.count - Self.listCount, with: State())
    }

    /// Moves the arrays out of `self` for a walk: one check for all of it that nobody else has them.
    @inline(__always)
    mutating func walk(_ body: (inout Self, inout MutableSpan<BlockLink>, inout MutableSpan<State>) -> Void) {
        var nodes = links
        var known = states
        links = []
        states = []
        var links = nodes.mutableSpan
        var states = known.mutableSpan
        body(&self, &links, &states)
        self.links = nodes
        self.states = known
    }

    /// The oldest block of a list that is not pinned; pinned ones on the way are parked.
    @inline(__always)
    func oldestUnpinned(
        of head: Int, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) -> Int? {
        while true {
            let node = links.oldest(of: head)
            if node == head { return nil }
            let block = node - Self.listCount
            if !pins.isPinned(BlockNumber(truncatingIfNeeded: block)) { return block }
            links.detach(node)
            links[node].older = BlockLink.parked
            states[block].isParked = true
        }
    }
}
