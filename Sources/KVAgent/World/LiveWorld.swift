// The world as it is: engines' messages, threads that copy, a drive, a store. The same decisions run over it as over the
// simulated one. It lives on the agent's thread, never waits for an effect, and bounds everything it has under way.

import KVFlash
import KVModel
import KVSystem
import KVTiering
import KVTransport
import Synchronization

/// Real bytes, real time.
struct LiveWorld: World, ~Copyable {
    /// A transfer under way.
    struct Flight {
        var order: TransferOrder
        var path: Path
        /// Tells transfers of one number apart.
        var serial: UInt32
        var isOpen = false
        var isCancelled = false
        /// The first move that has not begun.
        var next = 0
        /// Moves begun that have not ended.
        var outstanding = 0
        var lost: [LostMove] = []
    }

    /// Blocks that the store is asked for.
    struct Inquiry {
        enum Purpose { case question, offer(StoreOffer) }

        var purpose: Purpose
        /// Positions among what is asked, of the names sent.
        var sent: [Int32]
        var present: [UInt64]
        var count: Int
        var partsLeft: Int
        var isSilent = false
    }

    /// The time of the event in hand.
    private(set) var now = Instant.zero

    var desk: EngineDesk
    var slots: MemorySlots
    var flashSlots: FlashSlots?
    var counters = WorldCounters()
    var journal: JournalWriter?

    let settings: LiveSettings
    let inbox: AgentInbox
    var workers: CopyWorkers
    /// The device whose slots are the tier above node memory.
    var device: DeviceSlots?
    /// Whether the decisions have been told that it was lost.
    var deviceIsLost = false
    var drive: (any Drive)?
    var client: StoreClient?
    var flashIsReadOnly = false
    var namespace = NamespaceStanding()

    // What subscribers are to hear: names that came, and names whose slot got other bytes.
    var arrived: [ObjectName] = []
    var left: [ObjectName] = []

    // What is under way.
    var flights: [Flight] = []
    var openFlights = 0
    var queues = [PathQueue](repeating: PathQueue(), count: Path.allCases.count)
    /// Pieces under way, by path.
    var underWay = [Int](repeating: 0, count: Path.allCases.count)
    var meters: [LinkMeter]
    var inquiries: [UInt64: Inquiry] = [:]
    /// When the store answered last, or was asked after it had answered everything.
    var storeHeardAt = Instant.zero
    /// Moves that failed while the store's client or the drive still holds their slot.
    var returning: [UInt64: LostMove.Cause] = [:]
    var generation: UInt64 = 1

    // Events for the decisions: those of messages go first.
    var urgent = Queue<DueEvent>()
    var ordinary = Queue<DueEvent>()
    private var urgentRun = 0
    /// In lock step: effects begun and not yet told of, in the order in which they were begun, and ends that came early.
    private var begun = Queue<EffectName>()
    private(set) var early: [DueEvent] = []
    /// The request of the transfer whose end is in hand.
    private var requestInHand = (number: noRequest, touches: false)

    /// Whether an engine has spoken since the thread last slept or stayed awake, and whether its next word is waited for awake.
    var heardEngine = false
    var patience = AnswerPatience()

    /// The engines' door, once this thread attends to it.
    private(set) var door: EngineDoorLoop?
    private(set) var backlog = MessageBacklog()
    private var messageBatch: [PostedMessage] = []
    private var endBatch: [AgentInbox.End] = []
    private var streamBatch: [Notification] = []

    /// Messages taken before a completion is looked at, at most.
    private static let urgentRunMax = 16

    init(
        desk: EngineDesk, slots: MemorySlots, settings: LiveSettings, inbox: AgentInbox, workers: CopyWorkers,
        device: DeviceSlots? = nil, drive: (any Drive)?, flashSlots: FlashSlots?, client: StoreClient?,
        journal: JournalWriter?
    ) {
        self.desk = desk
        self.slots = slots
        self.settings = settings
        self.inbox = inbox
        self.workers = workers
        self.device = device
        self.drive = drive
        self.flashSlots = flashSlots
        self.client = client
        self.journal = journal
        let first = settings.links.first
        meters = Path.allCases.map { path in
            switch path {
            case .outOfEngine, .intoEngine: LinkMeter(first: first.dram, showsSilence: false)
            case .flashRead, .flashWrite: LinkMeter(first: first.nvme, showsSilence: settings.showsSilence)
            case .storeGet, .storePut: LinkMeter(first: first.flash, showsSilence: settings.showsSilence)
            }
        }
        if case .monotonic = settings.clock { now = MonotonicClock.now }
    }

    // MARK: What happens

    mutating func next(until deadline: Instant) -> Event { next(until: deadline, publishing: .distantFuture) }

    /// What happened next. When nothing did, and the state has not been published since something did, it comes back with
    /// `.deadline` to have it published.
    mutating func next(until deadline: Instant, publishing: Instant) -> Event {
        while true {
            collect()
            // Behind the ends, which make room: what waits for a path with nothing under way has nothing to wake it. Behind what
            // engines wait for, too: whom a begun copy wakes may take this processor.
            if urgent.isEmpty || urgentRun >= Self.urgentRunMax {
                for path in Path.allCases where queues[path.rawValue].count > 0 { advance(path) }
                workers.wake()
            }
            if let event = takeDue() { return hand(event) }
            // Nobody waits for the end of a request, nor for what it leaves behind: that has its turn when there is nothing else.
            guard !desk.names.isFarBehind else {
                desk.names.catchUp(by: Self.namesPerTurn)
                continue
            }
            if let end = backlog.takeEnd() {
                take(end)
                continue
            }
            if inbox.wantsStop.load(ordering: .acquiring) || inbox.hasInspections { return hand(.deadline) }
            switch settings.clock {
            case .monotonic:
                now = max(now, MonotonicClock.now)
                if desk.nextDeadline <= now {
                    desk.meetDeadlines(at: now)
                    takeCuts()
                    continue
                }
                if deadline <= now || wantsPublishing { return hand(.deadline) }
                if !isPublished, publishing <= now { return hand(.deadline) }
                let flushAt = journal?.flushAt ?? .distantFuture
                if flushAt <= now {
                    journal?.flush()
                    continue
                }
                let wake = min(min(deadline, desk.nextDeadline), flushAt)
                sleep(until: min(wake, isPublished ? .distantFuture : publishing))
            case .given:
                guard isAtRest, !isWaitingForStore else {
                    sleep(until: .distantFuture)
                    continue
                }
                guard let posted = backlog.first else {
                    if wantsPublishing { return hand(.deadline) }
                    sleep(until: .distantFuture)
                    continue
                }
                // What the decisions wanted to do before comes before, at its own time.
                if let time = posted.time, deadline <= time {
                    now = max(now, deadline)
                    return hand(.deadline)
                }
                _ = backlog.removeFirst()
                take(posted)
            }
        }
    }

    /// Gives an event out: it is in the journal, with its time, before anybody acts on it.
    private mutating func hand(_ event: Event) -> Event {
        if case .monotonic = settings.clock { now = max(now, MonotonicClock.now) }
        isPublished = false
        desk.time = now
        journal?.record(event, at: now)
        return event
    }

    /// The decisions have had the event in hand.
    ///
    /// - Parameter isKept: Whether a block is in some tier.
    mutating func settle(_ event: Event, isKept: (BlockKey) -> Bool) {
        desk.handled(event)
        if case .transferEnded = event { desk.flightEnded(requestInHand.number, touches: requestInHand.touches) }
        while !desk.endedSaves.isEmpty {
            let ended = desk.endedSaves
            desk.endedSaves.removeAll(keepingCapacity: true)
            for number in ended { desk.answerSave(number, isKept: isKept) }
        }
        tellChanges(isKept: isKept)
        takeEvents()
        guard !desk.replies.isEmpty else { return }
        tell()
        // Before anything else is done: somebody waits for it.
        door?.speak()
    }

    /// Hands replies out.
    private mutating func tell() {
        guard !desk.replies.isEmpty else { return }
        let sinks = inbox.sinks.withLock { $0 }
        for reply in desk.replies {
            sinks[reply.engine]?(reply)
            if case .forgotten(let engine) = reply { inbox.sinks.withLock { $0[engine] = nil } }
        }
        desk.replies.removeAll(keepingCapacity: true)
    }

    private mutating func takeDue() -> Event? {
        if case .given = settings.clock { return takeInOrder() }
        if !urgent.isEmpty, ordinary.isEmpty || urgentRun < Self.urgentRunMax {
            urgentRun += 1
            return urgent.removeFirst()?.event
        }
        urgentRun = 0
        guard let entry = ordinary.removeFirst() else { return nil }
        requestInHand = (entry.request, entry.touchesEngine)
        return entry.event
    }

    /// In lock step ends are told in the order of their beginnings, whatever devices and networks make of it: the order in
    /// which slots fall idle decides who is evicted.
    private mutating func takeInOrder() -> Event? {
        if let entry = urgent.removeFirst() { return entry.event }
        while let entry = ordinary.removeFirst() { early.append(entry) }
        let place = early.firstIndex {
            guard let name = EffectName($0.event) else { return true }
            return name == begun.first
        }
        guard let place else { return nil }
        let entry = early.remove(at: place)
        if EffectName(entry.event) != nil { _ = begun.removeFirst() }
        requestInHand = (entry.request, entry.touchesEngine)
        return entry.event
    }

    /// Takes what others left.
    private mutating func collect() {
        attendDoor()
        inbox.quietAsked.store(false, ordering: .sequentiallyConsistent)
        // Beside the few among which a look-up is searched for, what waits here counts as waiting in the mailbox.
        if backlog.hasSight {
            inbox.messages.drain(into: &messageBatch)
            for posted in messageBatch { backlog.append(posted) }
        }
        if case .monotonic = settings.clock {
            if backlog.hasMessages { now = max(now, MonotonicClock.now) }
            // One at a time: what comes while it is done may overtake the next.
            while urgent.isEmpty, let posted = backlog.takeUrgent(desk) { take(posted) }
        }
        inbox.ends.drain(into: &endBatch)
        if !endBatch.isEmpty, case .monotonic = settings.clock { now = max(now, MonotonicClock.now) }
        for end in endBatch {
            switch end {
            case .copied(let order): copied(order)
            case .device(let copies): deviceCopied(copies)
            case .drive(let event): take(event)
            case .store(let event): take(event)
            }
        }
        inbox.stream.drain(into: &streamBatch)
        for notification in streamBatch { take(notification) }
        if inbox.streamBroke.exchange(false, ordering: .acquiringAndReleasing) { streamBroke() }
        lookAfterStore()
    }

    /// The door has its turn: what engines said since the last is in the mailbox then, and what they are to hear on its way.
    private mutating func attendDoor() {
        if let door {
            if !door.attend() { self.door = nil }
        } else if let offered = inbox.offeredDoor.withLock({ $0.take() }) {
            offered.loop.move(toOwnerOf: inbox.signal)
            door = offered.loop
        }
    }

    private mutating func take(_ posted: PostedMessage) {
        if let time = posted.time { now = max(now, time) }
        guard let message = posted.message else { return }
        inbox.heard(message)
        heardEngine = true
        desk.take(message, links: links, at: now)
        takeWritten()
        takeCuts()
        takeEvents()
        tell()
    }

    /// Takes over what the desk made of a message or a command.
    private mutating func takeEvents() {
        for event in desk.events { urgent.append(DueEvent(event: event, request: noRequest)) }
        desk.events.removeAll(keepingCapacity: true)
    }

    private mutating func takeCuts() {
        for number in desk.cutRequests {
            for transfer in flights.indices where flights[transfer].isOpen && flights[transfer].order.request == number
            {
                let kind = flights[transfer].order.kind
                if kind == .load || kind == .save { cancel(transfer) }
            }
        }
        desk.cutRequests.removeAll(keepingCapacity: true)
    }

    var wasConnected = false
    /// Whether nothing has happened since the state was published.
    var isPublished = false

    // MARK: What is wanted

    mutating func perform(_ command: Command) -> Submission {
        let submission = begin(command)
        if submission == .accepted, case .given = settings.clock, let name = EffectName(command) { begun.append(name) }
        journal?.record(command, submission)
        return submission
    }

    private mutating func begin(_ command: Command) -> Submission {
        switch command {
        case .ready(let ready):
            lendOnDevice(ready)
            desk.take(command)
            return .accepted
        case .answer, .loading, .pinned:
            desk.take(command)
            return .accepted
        case .reserved(let reserved):
            if device == nil { giveAway(reserved.slots) } else { giveAwayOnDevice(reserved.slots) }
            desk.take(command)
            return .accepted
        case .transfer(let order): return start(order)
        case .cancel(let transfer):
            if flights.indices.contains(Int(transfer)), flights[Int(transfer)].isOpen { cancel(Int(transfer)) }
            return .accepted
        case .askStore(let question): return ask(question)
        case .offer(let offer): return self.offer(offer)
        case .withdraw: return .accepted
        }
    }

    /// The paths up as they look now.
    var links: LinkView {
        switch settings.links {
        case .given(let view): view
        case .measured:
            LinkView(
                dram: meters[Path.intoEngine.rawValue].state(at: now),
                nvme: meters[Path.flashRead.rawValue].state(at: now),
                flash: meters[Path.storeGet.rawValue].state(at: now))
        }
    }
}

/// What of an agent's settings its world keeps.
struct LiveSettings: Sendable {
    var clock: AgentClock
    var links: AgentLinks
    var limits: AgentLimits
    var blockBytes: Int
    var store: StoreAccess?
    /// Whether the store is to tell what comes and goes.
    var isSubscribed: Bool
    /// Whether the planner sees paths on which bytes wait and none come: not one that loads at any price.
    var showsSilence: Bool
}

/// An event that waits for the decisions, with the request of the transfer that ended.
struct DueEvent {
    var event: Event
    var request = noRequest
    var touchesEngine = false
}
