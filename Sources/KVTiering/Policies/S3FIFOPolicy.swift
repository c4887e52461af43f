// S3-FIFO: three FIFO queues, after Yang, Zhang, Qiu, Yue and Vigfusson, "FIFO queues are all you need for cache
// eviction", SOSP 2023. One-hit blocks leave through the small queue before they can displace anything.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// A small probationary queue (a tenth of the tier), a main queue and a queue of ghosts, each first in first out.
///
/// A hit only counts, to at most three. The oldest of the small queue moves to the main queue when it was hit more
/// than once, and leaves as a ghost otherwise; the oldest of the main queue goes round again for each hit counted.
/// A miss whose ghost is remembered enters the main queue.
public struct S3FIFOPolicy: TierPolicy, LinkedPolicy {
    public let capacity: Int
    public var residentCount: Int { smallCount + mainCount }

    /// What the small queue may hold before the next victim is taken from it: a tenth, as published.
    private let smallTarget: Int
    /// As many ghosts as blocks in the main queue.
    private let ghostCapacity: Int
    /// Blocks in the small queue and in the main queue, the parked ones included, and ghosts.
    private var smallCount = 0
    private var mainCount = 0
    private var ghostCount = 0
    var links = [BlockLink](listCount: Self.listCount)
    var states: [State] = []
    var pins = PinCounts()
    var forgotten: ForgottenGhosts

    static let listCount = 3
    /// A hit more than this moves a block from the small queue to the main one.
    private static let hitsToStay: UInt8 = 2
    /// Hits beyond this are not counted.
    private static let hitLimit: UInt8 = 3

    /// The queue a block is in; the raw value of all but `none` is the head of its list.
    enum Queue: UInt8 {
        case small, main, ghost, none

        var head: Int { Int(rawValue) }
    }

    struct State: LinkedState {
        var queue = Queue.none
        var hits: UInt8 = 0
        var isParked = false

        @inline(__always) var head: Int { queue.head }
    }

    /// A policy for a tier of `capacity` blocks. With `reportsForgotten` the caller must empty `takeForgotten` from
    /// time to time; without it nothing is collected.
    public init(capacity: Int, reportsForgotten: Bool = false) {
        precondition(capacity >= 1, "a tier without room for one block")
        self.capacity = capacity
        forgotten = ForgottenGhosts(isAskedFor: reportsForgotten)
        smallTarget = max(1, capacity / 10)
        ghostCapacity = capacity - smallTarget
    }

    public func isResident(_ block: BlockNumber) -> Bool {
        Int(block) < states.count && states[Int(block)].queue.rawValue < Queue.ghost.rawValue
    }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        grow(toHold: path)
        walk { policy, links, states in
            var position = path.count
            while position > 0 {
                position -= 1
                let block = Int(path[position])
                switch states[block].queue {
                case .small, .main:
                    if states[block].hits < Self.hitLimit { states[block].hits += 1 }
                case .ghost, .none:
                    policy.admit(block, &links, &states, evicted: &evicted)
                }
            }
        }
    }

    private mutating func admit(
        _ block: Int, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>,
        evicted: inout [BlockNumber]
    ) {
        if residentCount == capacity {
            guard let victim = takeVictim(&links, &states) else { return }
            evicted.append(BlockNumber(truncatingIfNeeded: victim))
        }
        // Asked only now, as published: the victim's own ghost may just have pushed this one out.
        let wasGhost = states[block].queue == .ghost
        if wasGhost { forgetGhost(block, &links, &states) }
        enter(block, wasGhost ? .main : .small, hits: 0, &links, &states)
    }

    /// Frees one place. `nil` when every resident block is pinned.
    private mutating func takeVictim(_ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>) -> Int?
    {
        if smallCount >= smallTarget, let victim = takeFromSmall(&links, &states) { return victim }
        if let victim = takeFromMain(&links, &states) { return victim }
        return takeFromSmall(&links, &states)
    }

    private mutating func takeFromSmall(
        _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) -> Int? {
        while let block = oldestUnpinned(of: Queue.small.head, &links, &states) {
            let hits = states[block].hits
            leave(block, &links, &states)
            if hits >= Self.hitsToStay {
                enter(block, .main, hits: 0, &links, &states)
            } else {
                remember(block, &links, &states)
                return block
            }
        }
        return nil
    }

    private mutating func takeFromMain(
        _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) -> Int? {
        while let block = oldestUnpinned(of: Queue.main.head, &links, &states) {
            let hits = states[block].hits
            leave(block, &links, &states)
            if hits == 0 { return block }
            enter(block, .main, hits: hits - 1, &links, &states)
        }
        return nil
    }

    // MARK: Queues

    @inline(__always)
    private mutating func enter(
        _ block: Int, _ queue: Queue, hits: UInt8, _ links: inout MutableSpan<BlockLink>,
        _ states: inout MutableSpan<State>
    ) {
        links.attachNewest(block + Self.listCount, to: queue.head)
        states[block] = State(queue: queue, hits: hits)
        if queue == .small { smallCount += 1 } else { mainCount += 1 }
    }

    /// Takes a resident block out of its queue.
    @inline(__always)
    private mutating func leave(
        _ block: Int, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) {
        if !states[block].isParked { links.detach(block + Self.listCount) }
        if states[block].queue == .small { smallCount -= 1 } else { mainCount -= 1 }
        states[block] = State()
    }

    /// Makes an evicted block the newest ghost; the oldest is forgotten when there are too many.
    private mutating func remember(
        _ block: Int, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) {
        if ghostCapacity == 0 { return }
        if ghostCount == ghostCapacity {
            let oldest = links.oldest(of: Queue.ghost.head) - Self.listCount
            forgetGhost(oldest, &links, &states)
            forgotten.add(oldest)
        }
        links.attachNewest(block + Self.listCount, to: Queue.ghost.head)
        states[block].queue = .ghost
        ghostCount += 1
    }

    @inline(__always)
    private mutating func forgetGhost(
        _ block: Int, _ links: inout MutableSpan<BlockLink>, _ states: inout MutableSpan<State>
    ) {
        links.detach(block + Self.listCount)
        states[block].queue = .none
        ghostCount -= 1
    }

    /// Drops the block, resident or ghost.
    mutating func forget(_ block: BlockNumber) {
        guard remembers(block) else { return }
        let isHeld = isResident(block)
        walk { policy, links, states in
            if isHeld {
                policy.leave(Int(block), &links, &states)
            } else {
                policy.forgetGhost(Int(block), &links, &states)
            }
        }
    }

    public mutating func remove(_ block: BlockNumber) {
        guard isResident(block) else { return }
        walk { policy, links, states in policy.leave(Int(block), &links, &states) }
    }
}
