// Least frequently used, with constant work: blocks of one count share a bucket, and buckets are chained by rising
// count (the structure of Shah, Mitra and Matani, "An O(1) algorithm for implementing the LFU cache eviction
// scheme", 2010). A count lives from admission to eviction; it is forgotten with the block.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// Evicts the block with the fewest accesses since it was admitted; among equals, the one that reached that count
/// longest ago.
public struct LFUPolicy: TierPolicy {
    public let capacity: Int
    public private(set) var residentCount = 0
    /// Nodes of the buckets' lists: node `b` is block `b`. Lists end with `BlockLink.absent`.
    private var nodes: [Node] = []
    private var buckets: [Bucket] = []
    private var freeBuckets: [UInt32] = []
    /// The bucket of the lowest count, or `none`.
    private var lowest = none
    private var pins = PinCounts()

    private static let none = UInt32.max

    private struct Node {
        var newer = none
        var older = none
        /// The bucket the block counts in; `none` when it is not resident.
        var bucket = none
        /// Pinned and outside its bucket's list, though still counted there (see `PinCounts`).
        var isParked = false
    }

    private struct Bucket {
        var count: Int
        var newest = none
        var oldest = none
        /// Blocks that count here, the parked ones included.
        var population = 0
        var lower: UInt32
        var higher: UInt32
    }

    /// A policy for a tier of `capacity` blocks.
    public init(capacity: Int) {
        precondition(capacity >= 1, "a tier without room for one block")
        self.capacity = capacity
    }

    public func isResident(_ block: BlockNumber) -> Bool {
        Int(block) < nodes.count && nodes[Int(block)].bucket != Self.none
    }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        var position = path.count
        while position > 0 {
            position -= 1
            let block = path[position]
            if Int(block) >= nodes.count {
                nodes.append(contentsOf: repeatElement(Node(), count: Int(block) + 1 - nodes.count))
            }
            if nodes[Int(block)].bucket != Self.none {
                raise(block)
            } else if residentCount < capacity {
                admit(block)
            } else if let victim = takeVictim() {
                evicted.append(victim)
                admit(block)
            }
        }
    }

    private mutating func admit(_ block: BlockNumber) {
        if lowest == Self.none || buckets[Int(lowest)].count != 1 {
            lowest = makeBucket(count: 1, between: Self.none, and: lowest)
        }
        append(block, to: lowest)
        residentCount += 1
    }

    /// Moves a block to the bucket of the next count.
    private mutating func raise(_ block: BlockNumber) {
        let bucket = nodes[Int(block)].bucket
        let count = buckets[Int(bucket)].count + 1
        var target = buckets[Int(bucket)].higher
        if target == Self.none || buckets[Int(target)].count != count {
            if buckets[Int(bucket)].population == 1 {
                // Alone in its bucket: the bucket itself rises.
                buckets[Int(bucket)].count = count
                return
            }
            target = makeBucket(count: count, between: bucket, and: target)
        }
        leave(block)
        append(block, to: target)
    }

    private mutating func takeVictim() -> BlockNumber? {
        var bucket = lowest
        while bucket != Self.none {
            let block = buckets[Int(bucket)].oldest
            if block == Self.none {
                bucket = buckets[Int(bucket)].higher  // Only parked blocks count here.
            } else if pins.isPinned(block) {
                unlink(block)
                nodes[Int(block)].isParked = true
            } else {
                leave(block)
                residentCount -= 1
                return block
            }
        }
        return nil
    }

    // MARK: Buckets

    private mutating func makeBucket(count: Int, between lower: UInt32, and higher: UInt32) -> UInt32 {
        let bucket = Bucket(count: count, lower: lower, higher: higher)
        let index: UInt32
        if let free = freeBuckets.popLast() {
            index = free
            buckets[Int(index)] = bucket
        } else {
            index = UInt32(buckets.count)
            buckets.append(bucket)
        }
        if lower != Self.none { buckets[Int(lower)].higher = index }
        if higher != Self.none { buckets[Int(higher)].lower = index }
        return index
    }

    /// Adds a block as the newest of its bucket.
    private mutating func append(_ block: BlockNumber, to bucket: UInt32) {
        let newest = buckets[Int(bucket)].newest
        nodes[Int(block)] = Node(newer: Self.none, older: newest, bucket: bucket)
        if newest == Self.none {
            buckets[Int(bucket)].oldest = block
        } else {
            nodes[Int(newest)].newer = block
        }
        buckets[Int(bucket)].newest = block
        buckets[Int(bucket)].population += 1
    }

    /// Takes a block out of its bucket, and drops the bucket when nothing counts there any more.
    private mutating func leave(_ block: BlockNumber) {
        let bucket = nodes[Int(block)].bucket
        unlink(block)
        nodes[Int(block)] = Node()
        buckets[Int(bucket)].population -= 1
        guard buckets[Int(bucket)].population == 0 else { return }
        let (lower, higher) = (buckets[Int(bucket)].lower, buckets[Int(bucket)].higher)
        if lower == Self.none { lowest = higher } else { buckets[Int(lower)].higher = higher }
        if higher != Self.none { buckets[Int(higher)].lower = lower }
        freeBuckets.append(bucket)
    }

    /// Takes a block out of its bucket's list; it still counts there.
    private mutating func unlink(_ block: BlockNumber) {
        let node = nodes[Int(block)]
        if node.isParked { return }
        let bucket = Int(node.bucket)
        if node.newer == Self.none {
            buckets[bucket].newest = node.older
        } else {
            nodes[Int(node.newer)].older = node.older
        }
        if node.older == Self.none {
            buckets[bucket].oldest = node.newer
        } else {
            nodes[Int(node.older)].newer = node.newer
        }
    }

    // MARK: Pins and removal

    public mutating func pin(_ block: BlockNumber) {
        precondition(isResident(block), "a block is pinned that the tier does not hold")
        pins.pin(block)
    }

    public mutating func unpin(_ block: BlockNumber) {
        guard pins.unpin(block), isResident(block), nodes[Int(block)].isParked else { return }
        let bucket = nodes[Int(block)].bucket
        let oldest = buckets[Int(bucket)].oldest
        nodes[Int(block)] = Node(newer: oldest, older: Self.none, bucket: bucket)
        if oldest == Self.none {
            buckets[Int(bucket)].newest = block
        } else {
            nodes[Int(oldest)].older = block
        }
        buckets[Int(bucket)].oldest = block
    }

    public mutating func remove(_ block: BlockNumber) {
        guard isResident(block) else { return }
        leave(block)
        residentCount -= 1
    }
}
