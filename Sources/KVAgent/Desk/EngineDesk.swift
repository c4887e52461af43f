// What engines say becomes events for the decisions, and what the decisions say becomes replies. It knows engines,
// their requests and their jobs, and where a job's blocks lie in its engine; it moves nothing and reads no clock, so that
// the simulated world can be asked the very same way.

import KVModel
import KVSystem
import KVTiering

/// The agent's side of the border to its engines.
package struct EngineDesk {
    let blockTokens: Int32
    let slotBytes: Int
    let ownership: Ownership
    /// Whether slots of a device are ours: engines read and write their blocks there.
    let ownsDevice: Bool
    /// Whether there is a store, which alone asks for full names of blocks that lie in no slot.
    let hasStore: Bool
    let limits: AgentLimits
    /// The store's namespace; that of the first engine unless it was given.
    package private(set) var storeNamespace: String?

    var engines: [EngineNumber: Engine] = [:]
    var records: [Record] = []
    private var freeRecords: [RequestNumber] = []
    private var numbers: [TicketName: RequestNumber] = [:]
    var sessions: SessionTable
    var names: BlockNames
    var pins = PinTable()
    var loans: LoanTable
    /// What was handed over without a copy.
    var handOver = HandOverCounters()
    /// The time of what is in hand.
    var time = Instant.zero
    /// Requests and jobs that are open.
    private(set) var openCount = 0
    private(set) var jobCount = 0
    /// Keys and places that they hold, and hints among them.
    package private(set) var openItems = 0
    private var hintCount = 0
    /// Loads whose engines wait until some time.
    private var openLoads: [(number: RequestNumber, deadline: Instant)] = []
    /// What was refused for want of room or sense.
    var counters = DeskCounters()

    // What came of the messages and commands in hand.
    /// Events for the decisions, in order.
    package var events: [Event] = []
    /// Replies to engines, in order.
    package var replies: [EngineReply] = []
    /// Saves that ended; the decisions are asked which blocks they keep, then `answerSave` tells the engine.
    package var endedSaves: [RequestNumber] = []
    /// Blocks that engines wrote into slots of the device and have named, for the world.
    var written: [(slot: SlotIndex, content: SlotContent)] = []
    /// Requests whose transfers are to be cancelled by the world.
    package var cutRequests: [RequestNumber] = []

    /// A desk without engines.
    package init(_ tiering: TieringConfiguration, limits: AgentLimits, storeNamespace: String? = nil) {
        blockTokens = Int32(truncatingIfNeeded: tiering.blockTokens)
        slotBytes = tiering.blockBytes
        ownership = tiering.ownership
        ownsDevice = tiering.hbmBytes > 0
        self.limits = limits
        self.storeNamespace = storeNamespace
        sessions = SessionTable(countMax: limits.sessionsMax)
        hasStore = tiering.hasStore
        names = BlockNames(countMax: tiering.hasStore ? limits.namesMax : 1)
        loans = LoanTable(countMax: limits.loansMax, perEngineMax: limits.loansPerEngineMax)
    }

    // MARK: Records

    /// A number for a request or a job; nil when its engine or the agent has too many, or too much in them.
    ///
    /// - Parameters:
    ///   - names: Keys that its record will hold.
    ///   - places: Slices that its job will hold.
    mutating func open(
        _ purpose: Record.Purpose, _ engine: EngineNumber, _ ticket: EngineTicket, names: Int, places: Int = 0
    ) -> RequestNumber? {
        guard let open = engines[engine]?.openCount, open < limits.openPerEngineMax, openCount < limits.openMax,
            hasRoom(for: names + places, of: engine), purpose != .hint || hintCount < limits.hintsMax
        else {
            counters.refused += 1
            return nil
        }
        let number: RequestNumber
        if let free = freeRecords.popLast() {
            number = free
        } else {
            number = RequestNumber(records.count)
            records.append(Record())
        }
        engines[engine]?.openCount += 1
        openCount += 1
        if purpose == .hint { hintCount += 1 }
        records[Int(number)].purpose = purpose
        records[Int(number)].engine = engine
        records[Int(number)].ticket = ticket
        hold(names, number)
        return number
    }

    /// Whether so many keys and places more may be held.
    func hasRoom(for items: Int, of engine: EngineNumber) -> Bool {
        let held = engines[engine]?.openItems ?? 0
        return openItems + items <= limits.openItemsMax && held + items <= limits.openItemsPerEngineMax
    }

    /// A record holds so many keys and places more, or less.
    private mutating func hold(_ items: Int, _ number: RequestNumber) {
        records[Int(number)].items += items
        engines[records[Int(number)].engine]?.openItems += items
        openItems += items
    }

    func find(_ engine: EngineNumber, _ ticket: EngineTicket) -> RequestNumber? {
        numbers[TicketName(engine: engine, ticket: ticket)]
    }

    /// The conversation of an open request; 0 of one that is unknown or has none.
    func session(of name: TicketName) -> UInt64 { numbers[name].map { records[Int($0)].session } ?? 0 }

    mutating func name(_ number: RequestNumber, _ ticket: EngineTicket) {
        numbers[TicketName(engine: records[Int(number)].engine, ticket: ticket)] = number
    }

    mutating func forget(_ engine: EngineNumber, _ ticket: EngineTicket) {
        numbers[TicketName(engine: engine, ticket: ticket)] = nil
    }

    /// Whether a number has nothing more to wait for; then it is free again.
    mutating func settle(_ number: RequestNumber) {
        let record = records[Int(number)]
        guard record.purpose != .unused, record.touching == 0 else { return }
        endJob(number)
        guard records[Int(number)].isEnded, records[Int(number)].job == nil else { return }
        // A cancelled request is over when all its jobs are: until then something reads or writes their places.
        guard !record.owesCancelled || record.children == 0 else { return }
        if !record.isClosed { close(number) }
        // Its number is free when nothing speaks of it any more, which a sick device may put off.
        guard record.flights == 0, record.children == 0 else { return }
        if record.purpose == .hint { hintCount -= 1 }
        hold(-records[Int(number)].items, number)
        records[Int(number)] = Record()
        freeRecords.append(number)
    }

    /// Tells an engine of a request's end.
    private mutating func close(_ number: RequestNumber) {
        let record = records[Int(number)]
        records[Int(number)].isClosed = true
        // Names outlive their requests, for what is fetched and written later.
        if hasStore { names.put(record.names) }
        if record.owesCancelled { replies.append(.cancelled(record.engine, record.ticket)) }
        if record.purpose == .request { forget(record.engine, record.ticket) }
        openCount -= 1
        engines[record.engine]?.openCount -= 1
        settleEngine(record.engine)
    }

    /// Tells a job's end when nothing touches its places any more.
    private mutating func endJob(_ number: RequestNumber) {
        let record = records[Int(number)]
        guard let job = record.job, record.touching == 0 else { return }
        switch job.kind {
        case .load:
            // A request that ended without being ready never will be.
            guard job.ready != nil || record.isEnded else { return }
            let first = job.first
            let ready = job.ready ?? Ready(request: number, first: first, end: first)
            if job.owesCancelled {
                replies.append(.cancelled(record.engine, job.ticket))
            } else {
                counters.blocksLoaded += Int(ready.end - ready.first)
                replies.append(.loaded(record.engine, job: job.ticket, first: ready.first, end: ready.end))
            }
            closeJob(number)
            if record.purpose == .load, !record.isEnding { end(number, .unknown) }
        case .take:
            guard job.ready != nil || record.isEnded else { return }
            endTake(number, job, job.ready ?? Ready(request: number, first: job.first, end: job.first))
            closeJob(number)
        case .save:
            guard record.isEnded else { return }
            if job.owesCancelled {
                replies.append(.cancelled(record.engine, job.ticket))
                closeJob(number)
            } else if !endedSaves.contains(number) {
                endedSaves.append(number)
            }
        }
    }

    /// Answers a save that ended: which offered blocks are kept somewhere.
    package mutating func answerSave(_ number: RequestNumber, isKept: (BlockKey) -> Bool) {
        guard let job = records[Int(number)].job else { return }
        let record = records[Int(number)]
        let offered = record.names[Int(job.first)...]
        var kept = [UInt64](repeating: 0, count: (offered.count + 63) / 64)
        for (index, name) in offered.enumerated() where isKept(name.blockKey) {
            kept[index / 64] |= 1 << UInt64(index % 64)
        }
        if ownsDevice, hasSubscribers {
            tellSubscribers(added: offered.filter { isKept($0.blockKey) }, removed: [])
        }
        replies.append(.saved(record.engine, job: job.ticket, kept: kept))
        closeJob(number)
        settle(number)
    }

    private mutating func closeJob(_ number: RequestNumber) {
        let record = records[Int(number)]
        guard let job = record.job else { return }
        forget(record.engine, job.ticket)
        records[Int(number)].job = nil
        hold(-job.places.slices.count, number)
        jobCount -= 1
        if job.kind != .save, !job.isCancelled { openLoads.removeAll { $0.number == number } }
        for region in job.regions {
            engines[record.engine]?.regionUses[region]? -= 1
            settleRegion(record.engine, region)
        }
        if let parent = job.parent {
            records[Int(parent)].children -= 1
            if job.kind != .save { records[Int(parent)].openPieces -= 1 }
            settle(parent)
        }
    }

    /// Gives a request's last event to the decisions.
    mutating func end(_ number: RequestNumber, _ reason: StopReason, resumesAfter: Duration = .zero) {
        precondition(!records[Int(number)].isEnding, "a request ends twice")
        records[Int(number)].isEnding = true
        endLoan(of: number)
        events.append(.ended(request: number, reason: reason, resumesAfter: resumesAfter))
    }

    mutating func abandon(_ number: RequestNumber) {
        guard !records[Int(number)].isEnding else { return }
        records[Int(number)].isEnding = true
        endLoan(of: number)
        events.append(.cancelled(request: number))
    }

    // MARK: What the world tells

    /// The decisions have had an event: what it ended is settled.
    package mutating func handled(_ event: Event) {
        switch event {
        case .ended(let number, _, _), .cancelled(let number):
            records[Int(number)].isEnded = true
            settle(number)
        default: break
        }
    }

    /// A transfer for a request began, and ended.
    ///
    /// - Parameter touches: Whether it goes out of or into the engine's memory.
    package mutating func flightBegan(_ number: RequestNumber, touches: Bool) {
        guard number != noRequest else { return }
        records[Int(number)].flights += 1
        if touches { records[Int(number)].touching += 1 }
    }

    /// See `flightBegan`.
    package mutating func flightEnded(_ number: RequestNumber, touches: Bool) {
        guard number != noRequest else { return }
        records[Int(number)].flights -= 1
        if touches { records[Int(number)].touching -= 1 }
        if records[Int(number)].purpose == .hint { endHint(number) }
        settle(number)
    }

    /// Takes a command that is meant for engines.
    package mutating func take(_ command: Command) {
        switch command {
        case .answer(let answer):
            let record = records[Int(answer.request)]
            records[Int(answer.request)].isAnswered = true
            if record.purpose == .request {
                replies.append(.found(record.engine, record.ticket, answer))
            } else if record.purpose == .hint {
                endHint(answer.request)
            }
        case .ready(let ready):
            records[Int(ready.request)].job?.ready = ready
            settle(ready.request)
        case .reserved(let answer): reserved(answer)
        case .pinned(let answer):
            if let (engine, ticket) = pins.answered(answer) { replies.append(.pinned(engine, ticket, answer)) }
        default: break
        }
    }

    /// A hint ends when what it set in motion has come to rest.
    private mutating func endHint(_ number: RequestNumber) {
        let record = records[Int(number)]
        if record.isAnswered, record.flights == 0, !record.isEnding { end(number, .unknown) }
    }

    /// Whether nothing is under way for any engine but open requests that wait for their engine.
    package var isQuiet: Bool {
        events.isEmpty && replies.isEmpty && endedSaves.isEmpty && jobCount == 0
    }

    /// When the next load's engine stops waiting.
    package var nextDeadline: Instant { openLoads.reduce(loans.nextExpiry) { min($0, $1.deadline) } }

    /// Cuts loads whose engines have stopped waiting, and takes back what was lent for too long.
    package mutating func meetDeadlines(at now: Instant) {
        for (number, deadline) in openLoads where deadline <= now {
            counters.loadsLate += 1
            cut(number)
        }
        time = now
        expireLoans(at: now)
    }

    /// A load gets no more blocks; it ends when those on their way have come to rest.
    mutating func cut(_ number: RequestNumber) {
        guard records[Int(number)].job?.isCancelled == false else { return }
        records[Int(number)].job?.isCancelled = true
        openLoads.removeAll { $0.number == number }
        cutRequests.append(number)
    }

    /// Gives a number a job.
    mutating func begin(_ job: Job, on number: RequestNumber) {
        records[Int(number)].job = job
        hold(job.places.slices.count, number)
        if let parent = job.parent {
            records[Int(parent)].children += 1
            if job.kind != .save {
                records[Int(parent)].hasPieces = true
                records[Int(parent)].openPieces += 1
            }
        }
        jobCount += 1
        name(number, job.ticket)
        for region in job.regions { engines[records[Int(number)].engine]?.regionUses[region, default: 0] += 1 }
        if job.kind != .save, job.deadline < .distantFuture { openLoads.append((number, job.deadline)) }
    }

    /// Adopts the first engine's store namespace.
    mutating func adopt(namespace: String) { storeNamespace = namespace }
}
