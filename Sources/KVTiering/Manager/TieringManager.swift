// The decisions of one node: what is kept, what moves, what is loaded and what is computed again. A pure value: an
// event and the time go in, commands come out. It reads no clock, draws no randomness, blocks on nothing and allocates
// nothing per block. It is not for two threads at once, and it never touches a byte of a block.

import KVModel

/// The tiering decisions of one node's agent.
///
/// Blocks are visible last: a look-up finds a block in a tier only after the transfer that brought it ended. A slot
/// that a transfer reads or writes is not given away before that transfer ended, whatever became of its request.
///
/// It is not copyable: a copy would be a second node, and copying by accident, a count or two for each of its tables, was
/// a fifth of a replay's time.
public struct TieringManager: ~Copyable {
    /// The configuration it was made with.
    public let configuration: TieringConfiguration

    /// Where the tokens of all computed prompts came from.
    public internal(set) var ledger = PromptLedger()
    /// The classes of the prompt that was computed last, root first: its blocks in runs.
    public internal(set) var lastBooked: [BookedRun] = []
    /// What happened, counted.
    public internal(set) var counters = TieringCounters()

    // Blocks and tiers.
    var known: KnownBlocks
    var dram: TierSlots
    var nvme: TierSlots
    var device: DeviceTier
    var dramPolicy: (any TierPolicy)?
    var nvmePolicy: (any TierPolicy)?
    var nvmeBudget: WriteBudget
    /// Whether a policy put something off: it has a turn of its own, when nothing that happened waits.
    private var policiesWantUpkeep = false
    /// Whether a block that node memory's policy keeps has all of its parents there.
    let dramKeepsPrefixesWhole: Bool
    let planner: Planner
    var directory: StoreDirectory
    /// Slots of node memory that no policy fills.
    let stagingCount: Int

    /// The last loads that were decided, for operators who ask.
    var notes = LoadNotes()

    // What is in flight.
    var requests: [Request] = []
    var freeRequests: [Int32] = []
    var requestSlots: [RequestNumber: Int32] = [:]
    /// Requests whose load is under way.
    var loading: [Int32] = []
    var transfers: [Transfer] = []
    var freeTransfers: [TransferNumber] = []
    var offers: [Offer] = []
    var freeOffers: [TransferNumber] = []
    var deadlines: DeadlineQueue<Matter>
    var pins: [Pin] = []
    var pinnedBytes: [Int]
    var predictions: Predictions
    var loans = LoanedSlots()

    /// Whether a load waits for a slot of node memory.
    var isStarved = false

    /// The time of the event in hand.
    var now = Instant.zero
    /// The transfer whose end is the event in hand: a deadline met at the same moment must not cancel it.
    var endInHand: TransferNumber?

    // Commands of the event in hand, and replies that the world had no room for.
    private var outbox: [Command] = []
    private var outboxNext = 0
    private var unsent: [Command] = []

    // Reused within one event, so that none of it allocates.
    var scratchRuns: [SourceRun] = []
    var scratchEvicted: [BlockNumber] = []
    var scratchForgotten: [BlockNumber] = []

    /// The decisions of a node that has just started: all tiers empty.
    public init(_ configuration: TieringConfiguration) {
        configuration.check()
        self.configuration = configuration
        let dramCount = configuration.slotCount(configuration.dram)
        let nvmeCount = configuration.slotCount(configuration.nvme)
        known = KnownBlocks(
            countMax: configuration.limits.knownBlocksMax, expectedCount: configuration.limits.knownBlocksExpected,
            hashSeed: configuration.hashSeed)
        dram = TierSlots(count: dramCount)
        nvme = TierSlots(count: nvmeCount)
        device = DeviceTier(count: configuration.deviceSlotCount)
        let kept = configuration.keptCount(configuration.dram)
        dramPolicy = configuration.dram.map { $0.makePolicy(kept) }
        dramKeepsPrefixesWhole = dramPolicy?.keepsPrefixesWhole == true
        // An exclusive lower tier ranks over both tiers together: the best blocks are above, the next best below.
        let below = configuration.keptCount(configuration.nvme)
        nvmePolicy = configuration.nvme.map {
            $0.makePolicy(configuration.inclusion == .exclusive ? kept + below : below)
        }
        nvmeBudget = WriteBudget(configuration.nvmeWriteBudget)
        planner = Planner(configuration.planner)
        directory = StoreDirectory(hasStore: configuration.hasStore, configuration.directory)
        stagingCount = dramCount - kept
        deadlines = DeadlineQueue(capacity: configuration.deadlinesMax)
        pinnedBytes = [Int](repeating: 0, count: configuration.pinBudgetBytes.count)
        predictions = Predictions(configuration.prefetch, stagingSlots: dramCount - kept)
        requestSlots.reserveCapacity(min(configuration.limits.requestsMax, 4096))
    }

    /// Blocks known by key, and the bytes that knowing them takes.
    package var knownSize: (blocks: Int, bytes: Int) { (known.count, known.byteCount) }

    /// When `handle` should next be called, with `.deadline`, if nothing happens before.
    public var nextDeadline: Instant { policiesWantUpkeep ? now : deadlines.first }

    // MARK: Events and commands

    /// Takes in one event. Its commands are then taken with `nextCommand`, all of them, before the next event.
    /// The time never runs back.
    public mutating func handle(_ event: Event, at time: Instant) {
        precondition(outboxNext == outbox.count, "an event comes while commands of the one before wait")
        precondition(time >= now, "the time of events runs back")
        now = time
        outbox.clear()
        outboxNext = 0
        swap(&outbox, &unsent)
        if case .transferEnded(let end) = event { endInHand = end.transfer } else { endInHand = nil }
        meetDeadlines()
        switch event {
        case .arrived(let arrival): arrived(arrival)
        case .load(let load): loadWanted(load)
        case .computed(let computed): self.computed(computed)
        case .ended(let number, let reason, let resumesAfter): ended(number, reason, resumesAfter)
        case .touched(let chain): touched(chain)
        case .cancelled(let number): cancelled(number)
        case .transferEnded(let end): transferEnded(end)
        case .storeAnswered(let answer): storeAnswered(answer)
        case .storeWants(let want): storeWants(want)
        case .storeChanged(let added, let removed): storeChanged(added: added, removed: removed)
        case .storeForgotten: directory.forget(at: milliseconds)
        case .pin(let request): pin(request)
        case .unpin(let pin): unpin(pin)
        case .reserve(let request): reserve(request)
        case .unreserve(let reservation): unreserve(reservation)
        case .released(let number): released(number)
        case .deadline: keepPoliciesUp()
        case .deviceLost: deviceLost()
        }
        if isStarved { feedStarved() }
        if predictions.isOn { followPredictions() }
    }

    /// Takes the next command of the event in hand.
    public mutating func nextCommand() -> Command? {
        guard outboxNext < outbox.count else { return nil }
        // Moved out, not copied: most commands have lists in them.
        var command = Self.noCommand
        swap(&command, &outbox[outboxNext])
        outboxNext += 1
        return command
    }

    /// The world had no room for a command. Effects are given up as if they had failed at once; replies are kept and
    /// come out again with the next event.
    public mutating func refused(_ command: Command) {
        counters.commandsRefused += 1
        switch command {
        case .transfer(let order):
            // The store waits for blocks that were never sent; a transfer that began and failed it knows of.
            if order.to == .flash { emit(.withdraw(keys: order.moves.map(\.key))) }
            if order.from == .flash { storeIsAway(order.transfer) }
            transferEnded(TransferEnd(transfer: order.transfer, outcome: .failed))
        case .askStore(let question):
            storeIsAway(question.question)
            storeSilent(question.question)
        case .offer(let offer):
            let end = Int32(truncatingIfNeeded: offer.chain.count)
            storeWants(StoreWant(offer: offer.offer, wanted: [], presentBlocks: 0, refusedFrom: end))
        case .answer, .loading, .ready, .pinned, .reserved, .withdraw, .cancel: unsent.append(command)
        }
    }

    mutating func emit(_ command: Command) { outbox.append(command) }

    /// What stands in the place of a command that was taken.
    private static var noCommand: Command { .cancel(transfer: 0) }

    // MARK: Upkeep

    /// Asks the policies, which may have put something off, after each call that may change their mind.
    mutating func noteUpkeep() {
        policiesWantUpkeep = false
        // Bound and not chained: a chain would copy the policy itself, all of it, to ask it.
        if let policy = dramPolicy, policy.wantsUpkeep { policiesWantUpkeep = true }
        if let policy = nvmePolicy, policy.wantsUpkeep { policiesWantUpkeep = true }
    }

    private mutating func keepPoliciesUp() {
        dramPolicy?.keepUp()
        nvmePolicy?.keepUp()
        noteUpkeep()
    }

    // MARK: Deadlines

    /// What a deadline is for. The generation tells whether its request is still the same.
    enum Matter {
        case question(request: Int32, generation: UInt32)
        case load(request: Int32, generation: UInt32)
        case pin(UInt32)
        case session(Int32, generation: UInt32)
        case hold(Int32, generation: UInt32)
    }

    /// Has something looked at when its time comes; false when there is no room.
    ///
    /// Who ends early leaves its deadline behind, and engines say how far away one is: stale ones are looked for, a few before each
    /// new one, whose own matter is not yet what it will be.
    mutating func setDeadline(_ matter: Matter, at time: Instant) -> Bool {
        for _ in 0..<DeadlineQueue<Matter>.examinedEach {
            guard let other = deadlines.nextToExamine else { break }
            deadlines.examined(isStale: isStale(other))
        }
        return deadlines.insert(matter, at: time)
    }

    /// Whether nobody waits for a deadline any more.
    private func isStale(_ matter: Matter) -> Bool {
        switch matter {
        case .question(let slot, let generation):
            requests[Int(slot)].generation != generation || requests[Int(slot)].question == nil
        case .load(let slot, let generation):
            requests[Int(slot)].generation != generation || requests[Int(slot)].state != .loading
        case .pin(let pin): !pins.contains { $0.number == pin }
        case .session(let session, let generation):
            predictions.sessions[Int(session)].generation != generation
                || predictions.sessions[Int(session)].state != .waiting
        case .hold(let hold, let generation):
            predictions.holds[Int(hold)].generation != generation || !predictions.holds[Int(hold)].isOpen
        }
    }

    private mutating func meetDeadlines() {
        while let matter = deadlines.pop(at: now) {
            switch matter {
            case .question(let slot, let generation):
                if requests[Int(slot)].generation == generation { storeIsLate(slot) }
            case .load(let slot, let generation):
                if requests[Int(slot)].generation == generation { loadIsLate(slot) }
            case .pin(let pin): pinExpired(pin)
            case .session(let session, let generation): sessionIsDue(session, generation)
            case .hold(let hold, let generation): holdExpired(hold, generation)
            }
        }
    }
}

/// What happened on a node, counted since its start.
public struct TieringCounters: Sendable, Equatable {
    /// Requests that arrived.
    public internal(set) var requests = 0
    /// Requests beyond the limit: answered with a miss, and in no ledger.
    public internal(set) var requestsRefused = 0
    /// Chains of which only the front could be named, because all numbers of blocks were in use.
    public internal(set) var chainsCut = 0
    /// Commands that the world had no room for.
    public internal(set) var commandsRefused = 0
    /// Transfers not started because the table of transfers was full.
    public internal(set) var transfersDropped = 0
    /// Blocks written to node memory, local flash and the shared store.
    public internal(set) var dramWrites = 0
    /// See `dramWrites`.
    public internal(set) var nvmeWrites = 0
    /// See `dramWrites`.
    public internal(set) var flashWrites = 0
    /// Blocks that came into the device's slots, from node memory or by an engine, and that left them.
    public internal(set) var hbmWrites = 0
    /// See `hbmWrites`.
    public internal(set) var hbmEvictions = 0
    /// Blocks read from local flash and the shared store.
    public internal(set) var nvmeReads = 0
    /// See `nvmeReads`.
    public internal(set) var flashReads = 0
    /// Blocks that left node memory, and local flash.
    public internal(set) var dramEvictions = 0
    /// See `dramEvictions`.
    public internal(set) var nvmeEvictions = 0
    /// Blocks not written to node memory because every slot was held.
    public internal(set) var savesDropped = 0
    /// Blocks not written to local flash: no slot, no budget, or no room among the transfers.
    public internal(set) var demotionsDropped = 0
    /// Wanted blocks that were not written to the shared store.
    public internal(set) var spillsDropped = 0
    /// Loads cut short for want of a slot or a transfer.
    public internal(set) var loadsCutShort = 0
    /// Loads that were not there in time.
    public internal(set) var loadsLate = 0
    /// Blocks whose bytes were wrong: dropped where they were found.
    public internal(set) var blocksCorrupt = 0
    /// Blocks that a transfer did not find at its source.
    public internal(set) var blocksLost = 0
    /// Questions to the shared store, and those whose answer came too late.
    public internal(set) var storeQuestions = 0
    /// See `storeQuestions`.
    public internal(set) var storeQuestionsLate = 0
    /// Slots that engines reserved, and of those adopted as blocks.
    public internal(set) var slotsReserved = 0
    /// See `slotsReserved`.
    public internal(set) var slotsAdopted = 0

    /// Nothing happened yet.
    public init() {}
}
