// The shared store's own decisions: which blocks it keeps, which offers it takes, what may be read. The same shape as
// a node's manager, and as pure. It is not the store: bytes, drives and the wire are elsewhere.

import KVModel

/// What the shared store is.
public struct StoreManagerConfiguration {
    /// Bytes of a block.
    public var blockBytes: Int
    /// Never exceeded, promised places included.
    public var bytes: Int
    /// Makes the policy for a number of blocks.
    public var makePolicy: (_ capacity: Int) -> any TierPolicy
    /// What may be written, or `nil` for no limit.
    public var writeBudget: WriteBudgetConfiguration?
    /// Blocks known by key, kept or remembered by the policy.
    public var knownBlocksMax: Int
    /// How many of them the table of keys has room for from the start.
    public var knownBlocksExpected = 0

    /// A store of given parts.
    public init(
        blockBytes: Int, bytes: Int, makePolicy: @escaping (_ capacity: Int) -> any TierPolicy,
        writeBudget: WriteBudgetConfiguration?, knownBlocksMax: Int
    ) {
        self.blockBytes = blockBytes
        self.bytes = bytes
        self.makePolicy = makePolicy
        self.writeBudget = writeBudget
        self.knownBlocksMax = knownBlocksMax
    }
}

/// What happened in the store, counted.
public struct StoreManagerCounters: Sendable, Equatable {
    /// Blocks offered that the store lacked.
    public internal(set) var offered = 0
    /// Of those: given a place.
    public internal(set) var accepted = 0
    /// Blocks written.
    public internal(set) var written = 0
    /// Blocks that left.
    public internal(set) var evicted = 0

    /// Nothing happened yet.
    public init() {}
}

/// The decisions of the shared store.
///
/// A place is promised to the first node that offers a block; the block can be found only when its bytes have come.
/// A block that is being read keeps its place until the read ends, whatever the policy decided.
public struct StoreManager: ~Copyable {
    /// What happened so far.
    public private(set) var counters = StoreManagerCounters()
    /// Blocks it can hold.
    public var capacity: Int { slots.count }
    /// Blocks that can be found.
    public private(set) var presentCount = 0
    /// Places in use: found, promised, or held by readers.
    public var usedCount: Int { slots.usedCount }

    /// Blocks known by key, and the bytes that knowing them takes.
    package var knownSize: (blocks: Int, bytes: Int) { (known.count, known.byteCount) }

    private var known: KnownBlocks
    private var slots: TierSlots
    private var policy: any TierPolicy
    private var budget: WriteBudget
    private var added: [BlockKey] = []
    private var removed: [BlockKey] = []
    private let tellsChanges: Bool
    private let blockBytes: Int
    // Reused, so that an offer allocates little.
    private var evicted: [BlockNumber] = []
    private var path: [BlockNumber] = []

    /// An empty store.
    ///
    /// - Parameter tellsChanges: Whether `takeChanges` will be called; without it nothing is collected.
    public init(_ configuration: StoreManagerConfiguration, tellsChanges: Bool = false) {
        precondition(configuration.blockBytes > 0, "blocks of no bytes")
        let count = configuration.bytes / configuration.blockBytes
        precondition(count >= 1, "a store of fewer bytes than a block")
        precondition(configuration.knownBlocksMax >= count, "a store that may know fewer blocks than it holds")
        known = KnownBlocks(
            countMax: configuration.knownBlocksMax, expectedCount: configuration.knownBlocksExpected)
        slots = TierSlots(count: count)
        policy = configuration.makePolicy(count)
        budget = WriteBudget(configuration.writeBudget)
        self.tellsChanges = tellsChanges
        blockBytes = configuration.blockBytes
    }

    /// Which of the keys, in a chain's order, can be found: bit i % 64 of word i / 64 for key i.
    public mutating func present(_ keys: [BlockKey], at now: Instant) -> [UInt64] {
        var words = [UInt64](repeating: 0, count: (keys.count + 63) / 64)
        let isTold = !policy.judgesPaths
        var found: [BlockNumber] = []
        known.findLeading(keys.span) { index, block in
            guard known[block].dram == .present else { return }
            words[index / 64] |= 1 << UInt64(index % 64)
            if isTold { found.append(block) }
        }
        for block in found { policy.asked(for: block, at: now) }
        return words
    }

    /// Whether readers hold the place of a block that proved corrupt and can be found no more.
    public func isSpoiled(_ key: BlockKey) -> Bool {
        guard let block = known.find(key) else { return false }
        return known[block].dram == .spoiled
    }

    /// A chain was used, and blocks of it are offered: the policy judges the whole path, and what it keeps and the
    /// store lacks is wanted, as far as the write budget goes.
    public mutating func offer(_ offer: StoreOffer, at now: Instant) -> StoreWant {
        var path: [BlockNumber] = []
        swap(&path, &self.path)
        defer { swap(&path, &self.path) }
        name(offer.chain, into: &path)
        let shown = policy.judgesPaths ? Int(offer.shownBlocks) : max(Int(offer.shownBlocks), Int(offer.firstOffered))
        if shown == 0 {
            policy.access(path.span, offer.context, evicted: &evicted)
        } else if shown < path.count {
            policy.extend(path.span, from: shown, offer.context, evicted: &evicted)
        }
        for block in evicted { known[block].flags.remove(.keptInDRAM) }
        for block in path where !known[block].flags.contains(.keptInDRAM) && policy.isResident(block) {
            known[block].flags.insert(.keptInDRAM)
        }
        for block in evicted { settle(block) }
        evicted.removeAll(keepingCapacity: true)
        policy.takeForgotten(into: &evicted)
        evicted.removeAll(keepingCapacity: true)

        var want = StoreWant(
            offer: offer.offer, wanted: [], presentBlocks: 0, refusedFrom: Int32(truncatingIfNeeded: offer.chain.count))
        var leading = 0
        while leading < path.count, known[path[leading]].dram == .present { leading += 1 }
        want.presentBlocks = Int32(truncatingIfNeeded: leading)
        for position in max(0, Int(offer.firstOffered))..<max(offer.chain.count, Int(offer.firstOffered)) {
            let isRefused = position >= path.count || !take(path[position], at: now, position, &want.wanted)
            if isRefused { want.refusedFrom = min(want.refusedFrom, Int32(truncatingIfNeeded: position)) }
        }
        for block in path { known[block].users -= 1 }
        return want
    }

    /// Gives an offered block a place if it lacks one and deserves it.
    ///
    /// - Returns: `false` when it was refused.
    private mutating func take(
        _ block: BlockNumber, at now: Instant, _ position: Int, _ wanted: inout [Range<Int32>]
    ) -> Bool {
        guard known[block].dram == .absent else { return true }
        counters.offered += 1
        guard known[block].flags.contains(.keptInDRAM) else { return false }
        // The budget is asked last: what finds no slot is not written.
        guard slots.freeCount > 0, budget.take(blockBytes, at: now), let slot = slots.take(for: block) else {
            return false
        }
        counters.accepted += 1
        known[block].dram = .filling
        known[block].dramSlot = slot
        let start = Int32(truncatingIfNeeded: position)
        if let last = wanted.last, last.upperBound == start {
            wanted[wanted.count - 1] = last.lowerBound..<start + 1
        } else {
            wanted.append(start..<start + 1)
        }
        return true
    }

    /// Numbers of a chain's keys, each kept from being recycled until the caller lets go. Cut where none is to be had.
    private mutating func name(_ chain: [BlockKey], into path: inout [BlockNumber]) {
        path.clear()
        path.reserveCapacity(chain.count)
        let policy = policy
        _ = known.name(chain.span, into: &path) { !policy.remembers($0) }
    }

    // MARK: Reads and writes

    /// Reads begin: each block that can be found keeps its place until `endRead`. The others are returned as lost.
    public mutating func beginRead(_ moves: [BlockMove], at now: Instant) -> [LostMove] {
        var lost: [LostMove] = []
        var parent = BlockRecord.noBlock
        for (index, move) in moves.enumerated() {
            if let block = known.find(move.key, after: parent), known[block].dram == .present {
                known[block].dramReaders += 1
                policy.read(block, at: now)
                parent = block
            } else {
                lost.append(LostMove(move: Int32(truncatingIfNeeded: index), cause: .absent))
            }
        }
        return lost
    }

    /// The reads of these moves ended, but for those that `beginRead` had called lost.
    public mutating func endRead(_ moves: [BlockMove], lost: [LostMove] = []) {
        forEach(moves, lost) { manager, block, wasLost in
            guard !wasLost, let block else { return }
            manager.known[block].dramReaders -= 1
            manager.settle(block)
        }
    }

    /// The writes of these moves ended. Promised blocks can be found from now on; those that are lost, or all if the
    /// transfer failed, give their places back.
    public mutating func endWrite(_ moves: [BlockMove], lost: [LostMove] = [], failed: Bool = false) {
        forEach(moves, lost) { manager, block, wasLost in
            guard let block, manager.known[block].dram == .filling else { return }
            if wasLost || failed {
                manager.release(block)
            } else {
                manager.known[block].dram = .present
                manager.presentCount += 1
                manager.counters.written += 1
                if manager.tellsChanges { manager.added.append(manager.known[block].key) }
                manager.settle(block)
            }
        }
    }

    /// Promised blocks that will not come give their places back.
    public mutating func withdraw(_ keys: [BlockKey]) {
        for key in keys {
            guard let block = known.find(key), known[block].dram == .filling else { continue }
            release(block)
        }
    }

    /// A block proved corrupt: it cannot be found any more, and its place goes when nobody reads it.
    public mutating func reportCorrupt(_ key: BlockKey) {
        guard let block = known.find(key), known[block].dram == .present else { return }
        var gone: [BlockNumber] = []
        policy.remove(block, evicted: &gone)
        for block in gone { known[block].flags.remove(.keptInDRAM) }
        vanish(block)
        known[block].dram = .spoiled
        settle(block)
        for block in gone { settle(block) }
    }

    /// A turn ended; the request's number is the one in the offer's context.
    public mutating func turnEnded(request: UInt32, reason: StopReason, at time: Instant) {
        policy.turnEnded(request: request, reason: reason, at: time)
    }

    /// What came and went since the last call, for nodes that subscribed.
    public mutating func takeChanges() -> (added: [BlockKey], removed: [BlockKey]) {
        defer {
            added.removeAll(keepingCapacity: true)
            removed.removeAll(keepingCapacity: true)
        }
        return (added, removed)
    }

    private mutating func forEach(
        _ moves: [BlockMove], _ lost: [LostMove], _ body: (inout StoreManager, BlockNumber?, Bool) -> Void
    ) {
        var next = lost.startIndex
        var parent = BlockRecord.noBlock
        for (index, move) in moves.enumerated() {
            let wasLost = next < lost.endIndex && Int(lost[next].move) == index
            if wasLost { next += 1 }
            let block = known.find(move.key, after: parent)
            body(&self, block, wasLost)
            parent = block ?? BlockRecord.noBlock
        }
    }

    /// A block's place goes when the policy keeps it no more and nobody reads it.
    private mutating func settle(_ block: BlockNumber) {
        let record = known[block]
        let isWanted = record.dram == .present && record.flags.contains(.keptInDRAM)
        guard record.dram == .present || record.dram == .spoiled, !isWanted, record.dramReaders == 0 else { return }
        if record.dram == .present { vanish(block) }
        release(block)
    }

    private mutating func vanish(_ block: BlockNumber) {
        presentCount -= 1
        counters.evicted += 1
        if tellsChanges { removed.append(known[block].key) }
    }

    private mutating func release(_ block: BlockNumber) {
        slots.release(known[block].dramSlot)
        known[block].dramSlot = BlockRecord.noSlot
        known[block].dram = .absent
    }
}
