// The default eviction and admission policy. It judges tails (what one request was the last to use) by their index:
// over the best period to go on keeping one, expected hits per block-second of space. It needs no training and no
// hints, though the ends of turns help. It promises prefixes without holes. It is not for blocks without parents.

import KVModel

/// The policy `holdfast`: keeps what is expected to give most hits for the space and time it takes, and refuses
/// newcomers that are worth less than what they would displace. The design is in `Sources/README.md`.
public struct HoldfastPolicy: TierPolicy {
    /// How many blocks the tier can hold.
    public let capacity: Int

    /// What the tier holds.
    var tier = HoldfastResidency()
    /// While the tier follows another expert: what the index alone would hold.
    var indexTier: HoldfastResidency?
    /// What the other experts would hold.
    var shadows: HoldfastShadows
    var guardian = HoldfastGuard()
    /// Per block number.
    var known: [KnownBlock] = []
    /// How many blocks have an owner.
    var knownCount = 0
    var tails: [Tail] = []
    var freeTails: [Int32] = []
    var records: [RequestRecord] = []
    var freeRecords: [Int32] = []
    /// The record of a caller's number, while it owns anything.
    var recordOfRequest: [UInt32: Int32] = [:]
    /// Tails that own blocks the tier does not hold, in the order in which they first lost one.
    var lost = LostTails()
    /// Tails by age; all of them in the first bin until the tier is full.
    var ages = HoldfastAges()
    /// The tails that have outgrown their bin: reused.
    var outgrown: [HoldfastAges.Outgrown] = []
    /// Whether it matters which block is worth least: in a large tier, from the first that had to leave.
    var isFull: Bool
    /// Until then: the blocks in the order of their first uses.
    var firstUses: [BlockNumber] = []
    var statistics = HoldfastStatistics()
    var traffic = HoldfastTraffic()
    /// Ends of turns whose time has not come.
    var endings: [TurnEnding] = []
    var firstEnding = 0
    var requestsUntilRebuild = 0
    /// The time of the latest access. Seconds.
    var clock = 0.0
    /// The runs of the request in progress: reused, so that a request allocates nothing.
    var segments: [Segment] = []
    var losers: [Int32] = []
    var dropped: [BlockNumber] = []
    var forgotten: [BlockNumber] = []
    let reportsForgotten: Bool

    /// Remembered blocks, as a multiple of the capacity.
    static let memory = 8
    /// Requests between two rebuilds of the tables, once much is known; while little is, every request counts.
    static let rebuildInterval = 64
    /// From so many blocks on nothing is ranked before the tier is full, unless its owner wants to be steady.
    package static let largeTier = 4096

    /// An empty tier of `capacity` blocks. With `reportsForgotten` the caller must empty `takeForgotten` from time to
    /// time; without it nothing is collected.
    ///
    /// - Parameter isSteady: Ranks from the start. What it keeps is the same; without it a large tier costs less until it is
    ///   full, and then one access pays for all blocks at once, some microseconds each, which nobody who serves can wait for.
    public init(capacity: Int, reportsForgotten: Bool = false, isSteady: Bool = false) {
        precondition(capacity >= 1, "a tier of no blocks")
        self.capacity = capacity
        self.reportsForgotten = reportsForgotten
        shadows = HoldfastShadows(capacity: capacity, reportsReleased: reportsForgotten)
        // A small tier is full before long: it ranks from the start.
        isFull = isSteady || capacity < Self.largeTier
        if isFull { tier.beginListing() }
    }

    /// How many blocks it holds.
    public var residentCount: Int { tier.count }

    /// No block outlives its parents here.
    public var keepsPrefixesWhole: Bool { true }

    /// Whether it holds the block.
    @inline(__always)
    public func isResident(_ block: BlockNumber) -> Bool { tier.holds(block) }

    /// The length of the longest leading run of `path` that is resident.
    public func hitRun(_ path: Span<BlockNumber>) -> Int { tier.run(of: path) }

    /// Whether the block belongs to a tail, resident or not, or a shadow knows it.
    public func remembers(_ block: BlockNumber) -> Bool {
        Int(block) < known.count && known[Int(block)].uses > 0
    }

    /// Appends the numbers forgotten since the last call; none unless `reportsForgotten`.
    public mutating func takeForgotten(into numbers: inout [BlockNumber]) {
        numbers.append(contentsOf: forgotten)
        forgotten.clear()
    }

    /// Keeps the block, and with it everything above, until it is unpinned.
    public mutating func pin(_ block: BlockNumber) {
        precondition(isResident(block), "pinning a block that is not here")
        tier.pin(block, known: known)
    }

    /// Takes one pin away.
    public mutating func unpin(_ block: BlockNumber) {
        guard isResident(block) else { return }
        tier.unpin(block, known: known, tails: tails, worths: statistics.index, shadows: shadows)
    }

    /// Queues the end of a turn until an access whose time has reached it.
    public mutating func turnEnded(request: UInt32, reason: StopReason, at time: Instant) {
        endings.append(TurnEnding(request: request, reason: reason, time: time.seconds))
    }

    // MARK: A request

    /// Learns from a request and lets in what of its path is worth the space.
    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        clock = max(clock, context.now.seconds)
        endTurns()
        if isFull { age() }
        let length = consistentLength(of: path)
        guard length > 0 else { return }
        use(path.extracting(first: length), context, isWhole: length == path.count, evicted: &evicted)
    }

    private mutating func use(
        _ path: Span<BlockNumber>, _ context: RequestContext, isWhole: Bool, evicted: inout [BlockNumber]
    ) {
        let hits = tier.run(of: path)
        if !isFull, tier.count + path.count - hits > capacity { becomeFull() }
        let past = takeOver(path, from: 0)
        weighSides(path, hits: hits)
        let request = newRecord(context.request, length: path.count, past: past)
        let nature = traffic.classify(length: path.count, past: past, clock: clock)
        records[Int(request)].turn = nature.turn
        records[Int(request)].pace = nature.pace
        let lastIsPartial = isWhole && context.lastBlockIsPartial
        cutIntoSegments(path, sharedEnd: past.shared, nature: nature, lastIsPartial: lastIsPartial)
        rebuildIfDue()
        if isFull { shadows.access(path, context) }
        adopt(path, request: request)
        if isFull {
            markDropped()
            forgetReleased()
        }
        let held = admit(path, from: hits, evicted: &evicted)
        let heldByIndex = admitByIndex(path)
        enterCells(path, held: held, heldByIndex: heldByIndex)
        forgetBeyondMemory()
    }

    /// Takes the path's blocks from depth `first` on from the tails that own them, counts that they were asked for, and says
    /// what was known.
    @discardableResult
    mutating func takeOver(_ path: Span<BlockNumber>, from first: Int) -> Past {
        var past = Past()
        var depth = first
        var isLeading = first == 0
        while depth < path.count {
            let owner = known[Int(path[depth])].owner
            guard owner != none else {
                isLeading = false
                depth += 1
                continue
            }
            let gap = Float(clock - records[Int(tails[Int(owner)].request)].arrival)
            var end = depth
            var blocks = known.mutableSpan
            while end < path.count {
                var block = blocks[Int(path[end])]
                guard block.owner == owner else { break }
                block.gap += (gap - block.gap) / Float(min(block.uses, Popularity.window))
                if block.uses < UInt16.max { block.uses += 1 }
                blocks[Int(path[end])] = block
                end += 1
                if block.branches >= Popularity.branchesOfShared { past.shared = end }
            }
            if isLeading {
                past.seen = end
                let record = records[Int(tails[Int(owner)].request)]
                past.ownerLength = Int(record.length)
                past.ownerTurn = record.turn
                past.ownerArrival = record.arrival
                past.ownerPace = record.pace
            }
            takeTop(Int32(end - depth), of: owner)
            depth = end
        }
        if past.seen > 0, past.seen < path.count {
            let block = Int(path[past.seen - 1])
            if known[block].branches < 255 { known[block].branches += 1 }
        }
        return past
    }

    private mutating func takeTop(_ length: Int32, of tail: Int32) {
        let index = Int(tail)
        if !isFull { catchUp(tail, to: clock) }
        statistics.blocksAsked(cell: tails[index].cell, tail: tails[index], length: length, clock: clock)
        tails[index].entered = clock
        tails[index].low += length
        tier.takeTop(length, of: tail)
        indexTier?.takeTop(length, of: tail)
        if tails[index].owned == 0 { retire(tail) }
    }

    /// Cuts the path where the class of its blocks changes.
    private mutating func cutIntoSegments(
        _ path: Span<BlockNumber>, sharedEnd: Int, nature: RequestNature, lastIsPartial: Bool
    ) {
        segments.removeAll(keepingCapacity: true)
        let shared = lastIsPartial ? path.count - 1 : path.count
        var level = Popularity.levels
        var start = 0
        for depth in 0..<shared {
            let here = min(level, Popularity.level(of: known[Int(path[depth])], isShared: depth < sharedEnd))
            if here != level {
                if depth > start { append(start..<depth, level: level, nature: nature) }
                start = depth
                level = here
            }
        }
        if shared > start { append(start..<shared, level: level, nature: nature) }
        if lastIsPartial {
            segments.append(Segment(low: path.count - 1, high: path.count, family: HoldfastStatistics.partial))
        }
    }

    private mutating func append(_ range: Range<Int>, level: Int, nature: RequestNature) {
        let isOwn = level < Popularity.ownLevels
        let family = statistics.family(
            level: level, chain: isOwn ? nature.chain : RequestNature.template, rhythm: isOwn ? nature.rhythm : 0)
        segments.append(Segment(low: range.lowerBound, high: range.upperBound, family: family))
    }

    /// Whether the next request would begin with a rebuild.
    public var wantsUpkeep: Bool { isFull && (requestsUntilRebuild <= 1 || statistics.isStale) }

    /// Makes the tables anew, ahead of the next request.
    public mutating func keepUp() {
        guard wantsUpkeep else { return }
        requestsUntilRebuild = 0
        rebuildIfDue()
        // The request that need not begin with it counts, too.
        requestsUntilRebuild += 1
    }

    mutating func rebuildIfDue() {
        requestsUntilRebuild -= 1
        guard requestsUntilRebuild <= 0 || statistics.isStale else { return }
        requestsUntilRebuild = min(8 + traffic.requests / 256, Self.rebuildInterval)
        // Nothing is ranked before the tier is full.
        if isFull { rebuild() } else { statistics.isStale = false }
    }

    /// Makes the tables by which tails are ranked.
    mutating func rebuild() {
        statistics.rebuild(clock: clock, longGap: traffic.longGap)
        tier.worthsChanged(statistics.index)
        indexTier?.worthsChanged(statistics.index)
    }

    /// Gives the path's blocks to new tails.
    private mutating func adopt(_ path: Span<BlockNumber>, request: Int32) {
        for index in segments.indices {
            let segment = segments[index]
            let tail = newTail(segment, last: path[segment.high - 1], request: request)
            segments[index].tail = tail
            give(path, segment.low..<segment.high, to: tail)
        }
        if !isFull { noteFirstUses(path) }
    }

    /// Makes blocks of the path a tail's.
    mutating func give(_ path: Span<BlockNumber>, _ range: Range<Int>, to tail: Int32) {
        var newCount = 0
        var blocks = known.mutableSpan
        for depth in range {
            let block = Int(path[depth])
            if blocks[block].owner == none {
                newCount += 1
                blocks[block].uses = 1
            }
            blocks[block].owner = tail
        }
        knownCount += newCount
    }

    /// Lets in the path's blocks from depth `hits` on and says how many of its leading blocks are held now.
    mutating func admit(_ path: Span<BlockNumber>, from hits: Int, evicted: inout [BlockNumber]) -> Int {
        losers.clear()
        let depth = tier.fill(
            path, from: hits, segments: segments, capacity: capacity, trustsIndex: guardian.trustsIndex,
            statistics: statistics, known: known, tails: tails, shadows: shadows, evicted: &evicted, losers: &losers)
        for loser in losers { markLost(loser) }
        return depth
    }

    /// While the tier follows another expert: what the index alone would hold after this request.
    mutating func admitByIndex(_ path: Span<BlockNumber>) -> Int {
        guard let hits = indexTier?.run(of: path) else { return 0 }
        dropped.removeAll(keepingCapacity: true)
        losers.clear()
        return indexTier?.fill(
            path, from: hits, segments: segments, capacity: capacity, statistics: statistics, known: known,
            tails: tails, shadows: shadows, evicted: &dropped, losers: &losers) ?? 0
    }

    mutating func enterCells(_ path: Span<BlockNumber>, held: Int, heldByIndex: Int) {
        // The deepest first: of one request's tails the deepest counts as the oldest.
        for segment in segments.reversed() {
            let tail = segment.tail
            let cell = tails[Int(tail)].cell
            statistics.enter(cell: cell, tail: tails[Int(tail)])
            statistics.tailBorn(tails[Int(tail)])
            begin(tail)
            tier.settle(tail, segment, path, held: held, cell: cell, worths: statistics.index, shadows: shadows)
            indexTier?.settle(
                tail, segment, path, held: heldByIndex, cell: cell, worths: statistics.index, shadows: shadows)
            if held < segment.high { markLost(tail) }
        }
    }

    /// The length of the path up to the first block that cannot be where it is: known under another parent, or twice
    /// in the path. The rest is left out, for a number names a whole prefix. Sets the parents of unknown blocks.
    mutating func consistentLength(of path: Span<BlockNumber>) -> Int {
        var largest: BlockNumber = 0
        for depth in 0..<path.count { largest = max(largest, path[depth]) }
        let size = Int(largest) + 1
        if size > known.count {
            let unknown = KnownBlock(owner: none, parent: noBlock, uses: 0)
            known.extend(to: size, with: unknown)
            tier.growBlocks(to: size)
            indexTier?.growBlocks(to: size)
        }
        var parent = noBlock
        var blocks = known.mutableSpan
        for depth in 0..<path.count {
            let block = Int(path[depth])
            if blocks[block].parent != parent {
                // An unknown block has no parent; one that has is already in this path.
                guard blocks[block].owner == none, blocks[block].parent == noBlock, path[depth] != path[0] else {
                    return depth
                }
                blocks[block].parent = parent
            }
            parent = path[depth]
        }
        return path.count
    }
}

/// A run of the path in progress that has one class.
struct Segment {
    var low: Int
    var high: Int
    var family: Int32
    var tail: Int32 = none

    init(low: Int, high: Int, family: Int32) {
        self.low = low
        self.high = high
        self.family = family
    }
}

/// The end of a turn that somebody told.
struct TurnEnding {
    var request: UInt32
    var reason: StopReason
    var time: Double
}
