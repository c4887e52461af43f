// Least recently used, and first in first out: one list, touched by a hit or not.
// A path is walked deepest block first, so the root ends most recent. Under LRU a parent is therefore never older
// than its children: the victim is a leaf of what is resident, unless a pin keeps a child behind.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// Evicts the block whose last access is longest ago.
public struct LRUPolicy: TierPolicy {
    private var list: EvictionList

    /// A policy for a tier of `capacity` blocks.
    public init(capacity: Int) { list = EvictionList(capacity: capacity) }

    public var capacity: Int { list.capacity }
    public var residentCount: Int { list.residentCount }
    public func isResident(_ block: BlockNumber) -> Bool { list.isResident(block) }
    public func hitRun(_ path: Span<BlockNumber>) -> Int { list.hitRun(path) }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        list.access(path, hitsRenew: true, evicted: &evicted)
    }

    /// Renews the whole path, for a parent is never older than its children.
    public mutating func extend(
        _ path: Span<BlockNumber>, from shown: Int, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        list.access(path, hitsRenew: true, evicted: &evicted)
    }

    public mutating func touch(_ path: Span<BlockNumber>, at time: Instant) {
        var evicted: [BlockNumber] = []
        list.access(path.extracting(first: list.hitRun(path)), hitsRenew: true, evicted: &evicted)
    }

    public mutating func pin(_ block: BlockNumber) { list.pin(block) }
    public mutating func unpin(_ block: BlockNumber) { list.unpin(block) }
    public mutating func remove(_ block: BlockNumber) { list.remove(block) }
}

/// Evicts the block that was admitted longest ago; a hit changes nothing.
public struct FIFOPolicy: TierPolicy {
    private var list: EvictionList

    /// A policy for a tier of `capacity` blocks.
    public init(capacity: Int) { list = EvictionList(capacity: capacity) }

    public var capacity: Int { list.capacity }
    public var residentCount: Int { list.residentCount }
    public func isResident(_ block: BlockNumber) -> Bool { list.isResident(block) }
    public func hitRun(_ path: Span<BlockNumber>) -> Int { list.hitRun(path) }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        list.access(path, hitsRenew: false, evicted: &evicted)
    }

    public mutating func pin(_ block: BlockNumber) { list.pin(block) }
    public mutating func unpin(_ block: BlockNumber) { list.unpin(block) }
    public mutating func remove(_ block: BlockNumber) { list.remove(block) }
}
