// SIEVE, after Zhang, Yang, Yue, Vigfusson and Rashmi, "SIEVE is simpler than LRU: an efficient turn-key eviction
// algorithm for web caches", NSDI 2024.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// One queue in order of admission and a hand that walks from its oldest to its newest end: it spares a block that
/// was hit since the hand last passed, once, and evicts the first that was not. A hit moves nothing.
public struct SIEVEPolicy: TierPolicy {
    public let capacity: Int
    public private(set) var residentCount = 0
    private var links = [BlockLink](listCount: 1)
    private var wasHit: [Bool] = []
    private var pins = PinCounts()
    /// The node the hand looks at next; the list's head stands for "from the oldest end".
    private var hand = head

    /// The head of the list; block `b` is node `b + 1`.
    private static let head = 0

    /// A policy for a tier of `capacity` blocks.
    public init(capacity: Int) {
        precondition(capacity >= 1, "a tier without room for one block")
        self.capacity = capacity
    }

    public func isResident(_ block: BlockNumber) -> Bool {
        let node = Int(block) + 1
        return node < links.count && links[node].older != BlockLink.absent
    }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        links.grow(toHold: path, listCount: 1)
        if wasHit.count < links.count {
            wasHit.append(contentsOf: repeatElement(false, count: links.count - wasHit.count))
        }
        var position = path.count
        while position > 0 {
            position -= 1
            let node = Int(path[position]) + 1
            if links[node].older != BlockLink.absent {
                wasHit[node] = true
                continue
            }
            if residentCount < capacity {
                residentCount += 1
            } else if let victim = takeVictim() {
                evicted.append(victim)
            } else {
                continue  // All blocks are pinned: the newcomer stays out.
            }
            wasHit[node] = false
            links.attachNewest(node, to: Self.head)
        }
    }

    /// Moves the hand to a block that is neither pinned nor hit since the last round, and takes it out. The first
    /// round clears the marks, so the second finds one unless every block is pinned, and then the list is empty.
    private mutating func takeVictim() -> BlockNumber? {
        while true {
            let node = hand == Self.head ? links.oldest(of: Self.head) : hand
            if node == Self.head { return nil }
            let block = BlockNumber(node - 1)
            hand = Int(links[node].newer)
            if pins.isPinned(block) {
                links.detach(node)
                links[node].older = BlockLink.parked
            } else if wasHit[node] {
                wasHit[node] = false
            } else {
                links.detach(node)
                links[node].older = BlockLink.absent
                return block
            }
        }
    }

    public mutating func pin(_ block: BlockNumber) {
        precondition(isResident(block), "a block is pinned that the tier does not hold")
        pins.pin(block)
    }

    /// The last unpin of a parked block puts it where the hand looks next.
    public mutating func unpin(_ block: BlockNumber) {
        let node = Int(block) + 1
        guard pins.unpin(block), node < links.count, links[node].older == BlockLink.parked else { return }
        if hand == Self.head {
            links.attachOldest(node, to: Self.head)
        } else {
            links.attach(node, olderThan: hand)
        }
        hand = node
    }

    public mutating func remove(_ block: BlockNumber) {
        guard isResident(block) else { return }
        let node = Int(block) + 1
        if hand == node { hand = Int(links[node].newer) }
        if links[node].isListed { links.detach(node) }
        links[node].older = BlockLink.absent
        residentCount -= 1
    }
}
