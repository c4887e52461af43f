// Which blocks of a tier's known tails it holds, and which tails could give up a block. Two of these can run over the
// same tails and the same statistics: what the tier holds, and what it would hold under another rule.

import KVModel

/// No block: the parent of a root, the end of an empty tail.
let noBlock = BlockNumber.max
/// No tail, cell or link.
let none: Int32 = -1

/// What is known of a block, resident or not.
struct KnownBlock {
    /// The tail that owns it, or `none` when nothing is known of it.
    var owner: Int32
    /// The block before it in its prefix.
    var parent: BlockNumber
    /// How often it was asked for, up to 65,535.
    var uses: UInt16
    /// How often a request left the known tree here, up to 255: what followed was new.
    var branches: UInt8 = 0
    /// Running mean of the times between its uses, in seconds.
    var gap: Float = 0
}

/// The resident part of one tail: always its shallow end, because blocks leave from the deep end only.
struct ResidentEnd {
    /// How many of the tail's blocks are resident.
    var count: Int32 = 0
    /// The list of evictable tails in which it is, or `none`.
    var list: Int32 = none
    var previous: Int32 = none
    var next: Int32 = none
    /// The deepest resident block.
    var deepest: BlockNumber = noBlock
}

/// One set of resident blocks, closed towards the root.
struct HoldfastResidency {
    /// Blocks held.
    private(set) var count = 0
    /// Per block: 0 when absent, else 1 + resident children + pins. A block with exactly 1 can go.
    private(set) var held: [UInt32] = []
    /// Per tail.
    private(set) var ends: [ResidentEnd] = []
    private var evictable = HoldfastEvictable()
    /// Whether anybody will ask which tail could give up a block: not before the tier is full.
    private var isListing = false
    /// Whether the leader decides: what it would not hold goes first. Otherwise the index alone does.
    var obeysLeader = false

    mutating func growBlocks(to size: Int) {
        held.extend(to: size, with: 0)
    }

    mutating func growTails(to size: Int) {
        ends.extend(to: size, with: ResidentEnd())
    }

    /// The cells' worths have been made anew.
    mutating func worthsChanged(_ worths: [Double]) {
        evictable.grow(to: worths.count)
        evictable.worthsChanged(worths)
    }

    @inline(__always)
    func holds(_ block: BlockNumber) -> Bool { Int(block) < held.count && held[Int(block)] != 0 }

    /// How many leading blocks of the path are held.
    func run(of path: Span<BlockNumber>) -> Int {
        var length = 0
        while length < path.count, holds(path[length]) { length += 1 }
        return length
    }

    // MARK: Blocks come and go

    /// Takes in a block whose parent, if it has one, is held.
    @inline(__always)
    mutating func admit(_ block: BlockNumber, parent: BlockNumber) {
        held[Int(block)] = 1
        if parent != noBlock { held[Int(parent)] += 1 }
        count += 1
    }

    /// The tail's shallow `length` blocks now belong to another tail.
    @inline(__always)
    mutating func takeTop(_ length: Int32, of tail: Int32) {
        if ends[Int(tail)].count > length {
            ends[Int(tail)].count -= length
        } else {
            unlist(tail)
            ends[Int(tail)].count = 0
            ends[Int(tail)].deepest = noBlock
        }
    }

    /// A tail is born, and `held` leading blocks of its request's path are held.
    mutating func settle(
        _ tail: Int32, _ segment: Segment, _ path: Span<BlockNumber>, held leading: Int, cell: Int32, worths: [Double],
        shadows: HoldfastShadows
    ) {
        let length = min(leading, segment.high) - segment.low
        guard length > 0 else {
            ends[Int(tail)] = ResidentEnd()
            return
        }
        let deepest = path[segment.low + length - 1]
        ends[Int(tail)] = ResidentEnd(count: Int32(length), deepest: deepest)
        if held[Int(deepest)] == 1 { list(tail, in: cell, worths: worths, shadows: shadows) }
    }

    /// A tail from which a path goes on has no end, and so is no victim, until it is settled again or resumed.
    mutating func suspend(_ tail: Int32) -> BlockNumber {
        unlist(tail)
        defer { ends[Int(tail)].deepest = noBlock }
        return ends[Int(tail)].deepest
    }

    /// Gives a suspended tail its end back.
    mutating func resume(
        _ tail: Int32, at deepest: BlockNumber, known: [KnownBlock], tails: [Tail], worths: [Double],
        shadows: HoldfastShadows
    ) {
        ends[Int(tail)].deepest = deepest
        offerEnd(of: tail, known: known, tails: tails, worths: worths, shadows: shadows)
    }

    /// Takes in the path's blocks from depth `from` on, root first, until one is not worth what it would displace: by
    /// the index, or to the leader. With `trustsIndex` what the leader takes in must also be worth something by the
    /// index. Appends what it dropped and the tails that lost it; returns how much of the path is held.
    mutating func fill(
        _ path: Span<BlockNumber>, from: Int, segments: [Segment], capacity: Int, trustsIndex: Bool = true,
        statistics: HoldfastStatistics, known: [KnownBlock], tails: [Tail], shadows: HoldfastShadows,
        evicted: inout [BlockNumber], losers: inout [Int32]
    ) -> Int {
        var depth = from
        for segment in segments where segment.high > depth {
            let worth = statistics.index[Int(statistics.firstCell(of: segment.family, stage: .running))]
            while depth < segment.high {
                if count == capacity {
                    let victim = evictable.least()
                    if victim == none { return depth }
                    let lost = statistics.index[Int(tails[Int(victim)].cell)]
                    if obeysLeader {
                        guard shadows.leaderHolds(path[depth]), !trustsIndex || worth >= lost else { return depth }
                    } else if worth <= lost {
                        return depth
                    }
                    evicted.append(
                        dropEnd(of: victim, known: known, tails: tails, worths: statistics.index, shadows: shadows))
                    if losers.last != victim { losers.append(victim) }
                }
                admit(path[depth], parent: depth > 0 ? path[depth - 1] : noBlock)
                depth += 1
            }
        }
        return depth
    }

    /// Drops the deepest held block of a tail that is evictable and returns it.
    mutating func dropEnd(
        of tail: Int32, known: [KnownBlock], tails: [Tail], worths: [Double], shadows: HoldfastShadows
    )
        -> BlockNumber
    {
        let block = ends[Int(tail)].deepest
        precondition(held[Int(block)] == 1, "evicting a block that is pinned or has a resident child")
        held[Int(block)] = 0
        count -= 1
        ends[Int(tail)].count -= 1
        let parent = known[Int(block)].parent
        let parentIsFree: Bool
        if parent == noBlock {
            parentIsFree = false
        } else {
            held[Int(parent)] -= 1
            parentIsFree = held[Int(parent)] == 1
        }
        if ends[Int(tail)].count > 0 {
            ends[Int(tail)].deepest = parent
            if !parentIsFree {
                unlist(tail)
            } else if obeysLeader, shadows.leaderHolds(parent) == (ends[Int(tail)].list & 1 == 0) {
                move(tail, to: tails[Int(tail)].cell, worths: worths, shadows: shadows)
            }
        } else {
            ends[Int(tail)].deepest = noBlock
            unlist(tail)
            if parentIsFree { offer(parent, known: known, tails: tails, worths: worths, shadows: shadows) }
        }
        return block
    }

    /// Lists the owner of a block that has become free to go, if the block is the end of what the owner holds.
    private mutating func offer(
        _ block: BlockNumber, known: [KnownBlock], tails: [Tail], worths: [Double], shadows: HoldfastShadows
    ) {
        let owner = known[Int(block)].owner
        // A tail of the request in progress has no end yet, and so is safe.
        guard owner != none, ends[Int(owner)].deepest == block, ends[Int(owner)].list == none else { return }
        list(owner, in: tails[Int(owner)].cell, worths: worths, shadows: shadows)
    }

    /// Drops the deepest held block of a tail whatever hangs on it. The caller drops that as well and then calls
    /// `offerAll`.
    mutating func tearEnd(of tail: Int32, known: [KnownBlock]) -> BlockNumber {
        let block = ends[Int(tail)].deepest
        let parent = known[Int(block)].parent
        unlist(tail)
        held[Int(block)] = 0
        count -= 1
        // A parent that is dropped first stays dropped.
        if parent != noBlock, held[Int(parent)] > 0 { held[Int(parent)] -= 1 }
        ends[Int(tail)].count -= 1
        ends[Int(tail)].deepest = ends[Int(tail)].count > 0 ? parent : noBlock
        return block
    }

    /// From now on evictable tails are listed. The caller offers those there are.
    mutating func beginListing() { isListing = true }

    /// Lists a tail if it is evictable and not listed.
    mutating func offerEnd(
        of tail: Int32, known: [KnownBlock], tails: [Tail], worths: [Double], shadows: HoldfastShadows
    ) {
        guard ends[Int(tail)].count > 0, held[Int(ends[Int(tail)].deepest)] == 1 else { return }
        offer(ends[Int(tail)].deepest, known: known, tails: tails, worths: worths, shadows: shadows)
    }

    /// Lists every tail that is evictable and not listed.
    mutating func offerAll(known: [KnownBlock], tails: [Tail], worths: [Double], shadows: HoldfastShadows) {
        for tail in tails.indices {
            offerEnd(of: Int32(tail), known: known, tails: tails, worths: worths, shadows: shadows)
        }
    }

    /// The same blocks, none of them pinned.
    func withoutPins(known: [KnownBlock], tails: [Tail], worths: [Double], shadows: HoldfastShadows)
        -> HoldfastResidency
    {
        var copy = self
        for block in held.indices where held[block] != 0 { copy.held[block] = 1 }
        for block in held.indices where held[block] != 0 && known[block].parent != noBlock {
            copy.held[Int(known[block].parent)] += 1
        }
        copy.offerAll(known: known, tails: tails, worths: worths, shadows: shadows)
        return copy
    }

    mutating func pin(_ block: BlockNumber, known: [KnownBlock]) {
        held[Int(block)] += 1
        let owner = known[Int(block)].owner
        if ends[Int(owner)].deepest == block { unlist(owner) }
    }

    mutating func unpin(
        _ block: BlockNumber, known: [KnownBlock], tails: [Tail], worths: [Double], shadows: HoldfastShadows
    ) {
        held[Int(block)] -= 1
        if held[Int(block)] == 1 { offer(block, known: known, tails: tails, worths: worths, shadows: shadows) }
    }

    // MARK: Evictable tails

    /// The tail has moved to another cell, or the leader may have changed its mind about the tail's end.
    @inline(__always)
    mutating func move(_ tail: Int32, to cell: Int32, worths: [Double], shadows: HoldfastShadows) {
        guard ends[Int(tail)].list != none else { return }
        unlist(tail)
        list(tail, in: cell, worths: worths, shadows: shadows)
    }

    @inline(__always)
    private mutating func list(_ tail: Int32, in cell: Int32, worths: [Double], shadows: HoldfastShadows) {
        guard isListing else { return }
        let isWanted = !obeysLeader || shadows.leaderHolds(ends[Int(tail)].deepest)
        evictable.append(tail, to: cell, isWanted: isWanted, worths: worths, &ends)
    }

    @inline(__always)
    private mutating func unlist(_ tail: Int32) {
        evictable.remove(tail, &ends)
    }
}
