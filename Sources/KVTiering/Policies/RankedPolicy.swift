// The deployed store's ranking as a policy, for the store of a replay: eight bytes a block, and no order kept. What a use is
// worth is decided in `StoreRanking.swift`, which the deployed store shares.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// Takes in every block that is offered, and ahead of need gives up those of least worth to the deployed store.
public struct RankedPolicy: TierPolicy {
    public let capacity: Int
    public private(set) var residentCount = 0

    private struct Record {
        /// The second of its last use.
        var touched: UInt32 = 0
        /// Its place in its chain, at most 65,535.
        var depth: UInt16 = 0
        var uses: UInt8 = 0
        var isResident = false
    }

    private var records: [Record] = []
    private var pins = PinCounts()
    private var ranking = StoreRanking()
    /// Places kept free.
    private let freeTarget: Int
    /// Victims of the last sweep, the least worth last, and the second of that sweep.
    private var victims: [BlockNumber] = []
    private var victimsBefore: UInt32 = 0
    /// Places of the path in hand whose blocks are absent: reused.
    private var wanted: [Int32] = []

    /// A policy for a store of `capacity` blocks.
    public init(capacity: Int) {
        precondition(capacity >= 1, "a tier without room for one block")
        self.capacity = capacity
        freeTarget = StoreRanking.freeTarget(of: capacity, largest: 1)
    }

    /// It is told of single blocks: a store sees no requests.
    public var judgesPaths: Bool { false }

    public func isResident(_ block: BlockNumber) -> Bool {
        Int(block) < records.count && records[Int(block)].isResident
    }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        extend(path, from: 0, context, evicted: &evicted)
    }

    /// What lies behind the leading `shown` blocks of the path is asked for, and what is absent of it put, one after another.
    public mutating func extend(
        _ path: Span<BlockNumber>, from shown: Int, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        let second = StoreRanking.second(of: context.now)
        wanted.removeAll(keepingCapacity: true)
        for depth in shown..<path.count {
            let block = Int(path[depth])
            records.extend(to: block + 1, with: Record())
            if records[block].isResident {
                records[block].touched = second
            } else {
                wanted.append(Int32(truncatingIfNeeded: depth))
            }
        }
        for place in wanted.indices {
            let depth = Int(wanted[place])
            // What is being put is no victim yet.
            while capacity - residentCount - 1 < freeTarget, evictOne(at: second, &evicted) {}
            if residentCount == capacity { return }
            records[Int(path[depth])] = Record(
                touched: second, depth: UInt16(min(depth, Int(UInt16.max))), uses: 1, isResident: true)
            residentCount += 1
        }
    }

    public mutating func asked(for block: BlockNumber, at time: Instant) {
        if isResident(block) { records[Int(block)].touched = StoreRanking.second(of: time) }
    }

    public mutating func read(_ block: BlockNumber, at time: Instant) {
        guard isResident(block) else { return }
        let second = StoreRanking.second(of: time)
        let record = records[Int(block)]
        records[Int(block)].uses = ranking.uses(record.uses, againAfter: second &- record.touched)
        records[Int(block)].touched = second
    }

    public mutating func pin(_ block: BlockNumber) {
        precondition(isResident(block), "a block is pinned that the tier does not hold")
        pins.pin(block)
    }

    public mutating func unpin(_ block: BlockNumber) { _ = pins.unpin(block) }

    public mutating func remove(_ block: BlockNumber) {
        guard isResident(block) else { return }
        records[Int(block)].isResident = false
        residentCount -= 1
    }

    /// Gives up the block of least worth; false when all are pinned.
    private mutating func evictOne(at second: UInt32, _ evicted: inout [BlockNumber]) -> Bool {
        var victim = takeVictim()
        if victim == nil {
            sweep(at: second)
            victim = takeVictim()
        }
        guard let victim else { return false }
        ranking.evicted(after: second &- records[Int(victim)].touched)
        remove(victim)
        evicted.append(victim)
        return true
    }

    /// The least worth of the last sweep that was neither used nor pinned since.
    private mutating func takeVictim() -> BlockNumber? {
        while let block = victims.popLast() {
            let record = records[Int(block)]
            if record.isResident, record.touched <= victimsBefore, !pins.isPinned(block) { return block }
        }
        return nil
    }

    private mutating func sweep(at second: UInt32) {
        var least = LeastWorth(countMax: StoreRanking.victims(of: capacity))
        for index in records.indices {
            let (block, record) = (BlockNumber(truncatingIfNeeded: index), records[index])
            guard record.isResident, !pins.isPinned(block) else { continue }
            least.offer(block, worth: ranking.worth(touched: record.touched, uses: record.uses, depth: record.depth))
        }
        victims = least.victims()
        victimsBefore = second
    }
}
