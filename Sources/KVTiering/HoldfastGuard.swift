// The guard of the `holdfast` policy: an exact LRU of the same size, simulated by tails at constant cost each, and the
// rule by which the tier follows it while it leads. It promises that traffic which the classes misjudge costs little.

import KVModel

/// A simulated LRU over the same requests, and who of the two is followed.
///
/// All accesses of a request touch its path deepest block first, so the root ends most recent. Tails in order of birth
/// (of one request the deepest first) are therefore exactly the LRU list, cut at tail borders, and what LRU holds of
/// the oldest tail it reaches is that tail's shallow end.
struct HoldfastGuard {
    /// The blocks the simulated LRU holds, and the oldest tail it holds any of.
    var recentCount = 0
    /// All hits of the simulated LRU so far, in blocks.
    var recentHitBlocks = 0
    var oldestRecent: Int32 = none
    /// Tails in order of birth.
    var byBirth = HoldfastResidency.List()
    /// No tail born before this one has a resident block; `none` when there is no tail.
    var oldestHeld: Int32 = none

    /// Whether the tier evicts by recency and admits everything.
    private(set) var followsRecency = false
    /// Blocks by which the rule not followed leads the one followed, less what the followed one won back.
    private(set) var lead = 0.0
    /// Doubles with every return to the index, so that traffic on which the two are even does not swing for ever.
    private(set) var caution = 1.0
    private var meanLength = 0.0
    private var requests = 0.0
    /// Blocks of all requests so far.
    private var asked = 0.0

    /// A lead of fewer blocks than this share of the tier is no reason to change: a change costs refetching.
    static let leadShare = 1.0 / 16
    /// Unless it is this share of all blocks ever asked for.
    static let leadOfAll = 1.0 / 1024
    /// Nor is one of fewer blocks than so many prompts: with tiny tiers chance decides that much.
    static let leadPrompts = 16.0
    /// Share of all blocks by which the other rule may lead for nothing.
    static let tolerance = 1.0 / 1024

    /// Counts one request of `length` blocks with its hits under the rule followed and under the other one, and says
    /// whether to change sides.
    mutating func shouldChange(length: Int, hits: Int, otherHits: Int, capacity: Int) -> Bool {
        requests = min(requests + 1, 1000)
        meanLength += (Double(length) - meanLength) / requests
        lead = max(0, lead + Double(otherHits - hits) - Double(length) * Self.tolerance)
        asked += Double(length)
        let worthwhile = min(Self.leadShare * Double(capacity), Self.leadOfAll * asked)
        let needed = max(worthwhile, Self.leadPrompts * meanLength) * caution
        return lead > needed
    }

    mutating func changeSides() {
        if followsRecency { caution = min(caution * 2, 64) }
        followsRecency.toggle()
        lead = 0
    }
}

extension HoldfastPolicy {
    // MARK: The simulated LRU

    /// The tail's shallow `length` blocks were asked for: they leave their old place. Returns how many LRU held.
    mutating func takeRecent(_ length: Int32, of tail: Int32) -> Int {
        let taken = min(length, tails[Int(tail)].recent)
        tails[Int(tail)].recent -= taken
        guardian.recentCount -= Int(taken)
        return Int(taken)
    }

    /// A tail is born: all its blocks are the most recent.
    mutating func linkBirth(_ tail: Int32) {
        let last = guardian.byBirth.last
        tails[Int(tail)].previousByBirth = last
        tails[Int(tail)].nextByBirth = none
        if last == none { guardian.byBirth.first = tail } else { tails[Int(last)].nextByBirth = tail }
        guardian.byBirth.last = tail
        if guardian.oldestRecent == none { guardian.oldestRecent = tail }
        if guardian.oldestHeld == none { guardian.oldestHeld = tail }
        tails[Int(tail)].recent = tails[Int(tail)].owned
        guardian.recentCount += Int(tails[Int(tail)].owned)
    }

    mutating func unlinkBirth(_ tail: Int32) {
        guardian.recentCount -= Int(tails[Int(tail)].recent)
        let previous = tails[Int(tail)].previousByBirth
        let next = tails[Int(tail)].nextByBirth
        if previous == none { guardian.byBirth.first = next } else { tails[Int(previous)].nextByBirth = next }
        if next == none { guardian.byBirth.last = previous } else { tails[Int(next)].previousByBirth = previous }
        if guardian.oldestRecent == tail { guardian.oldestRecent = next }
        if guardian.oldestHeld == tail { guardian.oldestHeld = next }
    }

    /// What is too much for the simulated LRU leaves it, oldest and deepest first.
    mutating func trimRecent() {
        while guardian.recentCount > capacity, guardian.oldestRecent != none {
            let tail = Int(guardian.oldestRecent)
            let surplus = min(Int32(guardian.recentCount - capacity), tails[tail].recent)
            tails[tail].recent -= surplus
            guardian.recentCount -= Int(surplus)
            if tails[tail].recent == 0 { guardian.oldestRecent = tails[tail].nextByBirth }
        }
    }

    /// All hits an LRU of the same size would have had, in blocks.
    package var recentHitBlocks: Int { guardian.recentHitBlocks }
    /// Whether the tier follows recency at present.
    package var followsRecency: Bool { guardian.followsRecency }
    /// How many blocks are remembered without being resident.
    package var rememberedCount: Int { knownCount - tier.count }

    // MARK: Following

    /// Compares the two rules on a request and changes sides where that is due. `recentHits` are the simulated LRU's.
    mutating func weighSides(length: Int, hits: Int, recentHits: Int, indexHits: Int) {
        guardian.recentHitBlocks += recentHits
        let other = guardian.followsRecency ? indexHits : recentHits
        guard guardian.shouldChange(length: length, hits: hits, otherHits: other, capacity: capacity) else { return }
        guardian.changeSides()
        if guardian.followsRecency {
            indexTier = tier.withoutPins(known: known, tails: tails, rank: statistics.rank)
            guardian.oldestHeld = guardian.byBirth.first
        } else {
            // What the tier holds cannot jump: it goes on from there by the index.
            indexTier = nil
        }
    }

    /// The oldest tail that can give up a block, or `none`.
    mutating func oldestEvictable() -> Int32 {
        while guardian.oldestHeld != none, tier.ends[Int(guardian.oldestHeld)].count == 0 {
            guardian.oldestHeld = tails[Int(guardian.oldestHeld)].nextByBirth
        }
        // Past the first, only tails that are pinned or hold up pinned ones are in the way.
        var tail = guardian.oldestHeld
        while tail != none, tier.ends[Int(tail)].cell == none { tail = tails[Int(tail)].nextByBirth }
        return tail
    }
}
