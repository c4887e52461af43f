// The adaptive replacement cache of Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache",
// FAST 2003, figure 4, with the names used there: T1 and T2 hold blocks, B1 and B2 remember evicted ones.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// Two LRU lists, of blocks seen once and of blocks seen again, whose shares move with the ghosts that are asked
/// for: a ghost of the first list makes that list larger, a ghost of the second makes it smaller.
public struct ARCPolicy: TierPolicy, LinkedPolicy {
    public let capacity: Int
    public var residentCount: Int { counts[.seenOnce] + counts[.seenAgain] }

    /// How many blocks T1 should hold; the paper's `p`, from 0 to `capacity`.
    private var target = 0.0
    private var counts = Counts()
    var links = [BlockLink](listCount: Self.listCount)
    var states: [State] = []
    var pins = PinCounts()
    var forgotten: ForgottenGhosts

    static let listCount = 4

    /// The list a block is in; the raw value of all but `none` is the head of the list.
    enum Place: UInt8 {
        /// T1: resident, seen once.
        case seenOnce
        /// T2: resident, seen at least twice.
        case seenAgain
        /// B1: evicted from T1.
        case ghostOfOnce
        /// B2: evicted from T2.
        case ghostOfAgain
        case none

        var head: Int { Int(rawValue) }
    }

    struct State: LinkedState {
        var place = Place.none
        var isParked = false

        @inline(__always) var head: Int { place.head }
    }

    /// How many blocks each list holds, the parked ones included.
    private struct Counts {
        private var values = (0, 0, 0, 0)

        subscript(place: Place) -> Int {
            get {
                switch place {
                case .seenOnce: values.0
                case .seenAgain: values.1
                case .ghostOfOnce: values.2
                case .ghostOfAgain: values.3
                case .none: 0
                }
            }
            set {
                switch place {
                case .seenOnce: values.0 = newValue
                case .seenAgain: values.1 = newValue
                case .ghostOfOnce: values.2 = newValue
                case .ghostOfAgain: values.3 = newValue
                case .none: break
                }
            }
        }
    }

    /// A policy for a tier of `capacity` blocks. With `reportsForgotten` the caller must empty `takeForgotten` from
    /// time to time; without it nothing is collected.
    public init(capacity: Int, reportsForgotten: Bool = false) {
        precondition(capacity >= 1, "a tier without room for one block")
        self.capacity = capacity
        forgotten = ForgottenGhosts(isAskedFor: reportsForgotten)
    }

    public func isResident(_ block: BlockNumber) -> Bool {
        Int(block) < states.count && states[Int(block)].place.rawValue <= Place.seenAgain.rawValue
    }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        grow(toHold: path)
        walk { policy, links, states in
            var position = path.count
            while position > 0 {
                let renewed = Self.renew(path, below: position, &links, &states)
                policy.counts[.seenOnce] -= renewed.movedUp
                policy.counts[.seenAgain] += renewed.movedUp
                position = renewed.position
                guard position > 0 else { break }
                position -= 1
                let block = Int(path[position])
                switch states[block].place {
                case .seenOnce, .seenAgain: preconditionFailure("a resident block was not renewed")
                case .ghostOfOnce, .ghostOfAgain: policy.readmit(block, &links, &states, evicted: &evicted)
                case .none: policy.admit(block, &links, &states, evicted: &evicted)
                }
            }
        }
    }

    /// Residents that are asked for again, case I: from one end of a path down to the first block that is not resident, each becomes
    /// the newest of T2. A loop of its own, since most blocks of most paths are hits.
    ///
    /// - Returns: Where it stopped: the blocks from there on have been renewed. How many of them came out of T1.
    @inline(__always)
    private static func renew(
        _ path: Span<BlockNumber>, below end: Int, _ links: inout MutableSpan<BlockLink>,
        _ states: inout MutableSpan<State>
    ) -> (position: Int, movedUp: Int) {
        var position = end
        var movedUp = 0
        while position > 0 {
            let block = Int(path[position - 1])
            let state = states[block]
            guard state.place == .seenOnce || state.place == .seenAgain else { break }
            let node = block + listCount
            if !state.isParked { links.detach(node) }
            if state.place == .seenOnce { movedUp += 1 }
            states[block] = State(place: .seenAgain)
            links.attachNewest(node, to: Place.seenAgain.head)
            position -= 1
        }
        return (position, movedUp)
    }

    /// A remembered block is asked for: cases II and III of the paper.
    private mutating func readmit(
        _ block: Int, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>,
        evicted: inout [BlockNumber]
    ) {
        let (once, again) = (Double(counts[.ghostOfOnce]), Double(counts[.ghostOfAgain]))
        let wasSeenAgain = states[block].place == .ghostOfAgain
        if wasSeenAgain {
            target = max(target - (again >= once ? 1 : once / again), 0)
        } else {
            target = min(target + (once >= again ? 1 : again / once), Double(capacity))
        }
        guard makeRoom(forGhostOfAgain: wasSeenAgain, &links, &states, evicted: &evicted) else { return }
        move(block, to: .seenAgain, &links, &states)
    }

    /// A block nobody remembers: case IV.
    private mutating func admit(
        _ block: Int, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>,
        evicted: inout [BlockNumber]
    ) {
        let firstTwo = counts[.seenOnce] + counts[.ghostOfOnce]
        if firstTwo >= capacity {
            if counts[.ghostOfOnce] > 0 {
                forgetOldest(of: .ghostOfOnce, &links, &states)
            } else if let victim = oldestUnpinned(of: Place.seenOnce.head, &links, &states) {
                // T1 fills the tier alone: its oldest leaves without a ghost.
                move(victim, to: .none, &links, &states)
                evicted.append(BlockNumber(truncatingIfNeeded: victim))
            }
        } else if firstTwo + counts[.seenAgain] + counts[.ghostOfAgain] >= 2 * capacity {
            forgetOldest(of: .ghostOfAgain, &links, &states)
        }
        guard makeRoom(forGhostOfAgain: false, &links, &states, evicted: &evicted) else { return }
        move(block, to: .seenOnce, &links, &states)
    }

    /// The paper's REPLACE, when the tier is full. False when every resident block is pinned.
    @inline(__always)
    private mutating func makeRoom(
        forGhostOfAgain: Bool, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>,
        evicted: inout [BlockNumber]
    ) -> Bool {
        if residentCount < capacity { return true }
        let once = Double(counts[.seenOnce])
        let takesOnce = once >= 1 && (once > target || (forGhostOfAgain && once == target))
        let (first, second): (Place, Place) = takesOnce ? (.seenOnce, .seenAgain) : (.seenAgain, .seenOnce)
        guard
            let victim = oldestUnpinned(of: first.head, &links, &states)
                ?? oldestUnpinned(of: second.head, &links, &states)
        else { return false }
        move(victim, to: states[victim].place == .seenOnce ? .ghostOfOnce : .ghostOfAgain, &links, &states)
        evicted.append(BlockNumber(truncatingIfNeeded: victim))
        return true
    }

    // MARK: Lists

    private mutating func forgetOldest(
        of place: Place, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) {
        let node = links.oldest(of: place.head)
        guard node != place.head else { return }
        move(node - Self.listCount, to: .none, &links, &states)
        forgotten.add(node - Self.listCount)
    }

    /// Makes a block the newest of another list, or of its own.
    @inline(__always)
    private mutating func move(
        _ block: Int, to place: Place, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) {
        let node = block + Self.listCount
        let state = states[block]
        if state.place != .none, !state.isParked { links.detach(node) }
        counts[state.place] -= 1
        counts[place] += 1
        states[block] = State(place: place)
        if place != .none { links.attachNewest(node, to: place.head) }
    }

    /// Drops the block, resident or ghost.
    mutating func forget(_ block: BlockNumber) {
        guard remembers(block) else { return }
        walk { policy, links, states in policy.move(Int(block), to: .none, &links, &states) }
    }

    public mutating func remove(_ block: BlockNumber) {
        guard isResident(block) else { return }
        walk { policy, links, states in policy.move(Int(block), to: .none, &links, &states) }
    }
}
