// What policies share that keep their blocks in lists of one array and a state of each block in another, and remember some that
// were evicted. Both arrays grow with the numbers that appear, and both are taken out of the policy while it walks a path. No
// order of worth is decided here.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// What such a policy keeps of one block.
protocol LinkedState: BitwiseCopyable {
    /// Of a block that no list holds.
    init()
    /// The head of the list that the block is in, or would be in were it not parked. Of a block in no list `listCount` or more.
    var head: Int { get }
    /// Pinned and outside its list, though still counted there (see `PinCounts`).
    var isParked: Bool { get set }
}

/// A policy of lists, `listCount` of them: block `b` is the node `b + listCount`, and has the state `b`.
protocol LinkedPolicy: TierPolicy {
    associatedtype State: LinkedState
    static var listCount: Int { get }
    var links: [BlockLink] { get set }
    var states: [State] { get set }
    var pins: PinCounts { get set }
    var forgotten: ForgottenGhosts { get set }
}

/// Ghosts that a policy remembers no more, for the owner that may give their numbers to other keys.
struct ForgottenGhosts {
    /// Whether the owner asks for them. Nothing is collected for one who does not.
    let isAskedFor: Bool
    /// Those that came since the owner last asked.
    private var numbers: [BlockNumber] = []

    init(isAskedFor: Bool) { self.isAskedFor = isAskedFor }

    @inline(__always)
    mutating func add(_ block: Int) {
        if isAskedFor { numbers.append(BlockNumber(truncatingIfNeeded: block)) }
    }

    mutating func take(into others: inout [BlockNumber]) {
        others.append(contentsOf: numbers)
        numbers.removeAll(keepingCapacity: true)
    }
}

extension LinkedPolicy {
    public func remembers(_ block: BlockNumber) -> Bool {
        Int(block) < states.count && states[Int(block)].head < Self.listCount
    }

    public mutating func takeForgotten(into numbers: inout [BlockNumber]) { forgotten.take(into: &numbers) }

    public mutating func pin(_ block: BlockNumber) {
        precondition(isResident(block), "a block is pinned that the tier does not hold")
        pins.pin(block)
    }

    public mutating func unpin(_ block: BlockNumber) {
        let index = Int(block)
        guard pins.unpin(block), isResident(block), states[index].isParked else { return }
        states[index].isParked = false
        links.attachOldest(index + Self.listCount, to: states[index].head)
    }
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
