// The agent at work: one thread that owns the decisions, between engines, copies, a drive and a store. Each of them has
// threads of its own and speaks through mailboxes; nobody waits for anybody.

import CKernel
import KVFlash
import KVMemory
import KVModel
import KVSystem
import KVTiering
import KVTransport
import Logging
import Synchronization

/// An agent that runs in this process.
public final class Agent: Sendable {
    /// Where a reply goes. Called on the agent's thread: leave it in a mailbox and return.
    public typealias ReplySink = @Sendable (EngineReply) -> Void

    /// Node memory: the slots' own.
    public let memory: BlockMemory

    /// How old its published state may be while it is busy; making it takes as long as a look-up.
    private static let publishInterval = Duration(milliseconds: 100)

    private let logger: Logger
    private let inbox: AgentInbox
    private let workers: CopyWorkers
    private let drive: (any Drive)?
    /// The device whose slots are the agent's.
    package let device: (any DeviceMemory)?
    private let client: StoreClient?
    private let journal: JournalOutput?
    /// Which loans are in force, for engines that map the arena.
    let loanWords: LoanWords
    /// The longest loan.
    let loanLimit: Duration
    private let published = Mutex(AgentStatus())
    private let thread = Mutex<EngineThread?>(nil)
    private let populating = Mutex<EngineThread?>(nil)
    private let wasShutDown = Atomic<Bool>(false)

    /// Takes memory, formats the drive, starts to reach the store, and begins to decide.
    public init(_ settings: AgentSettings, logger: Logger) throws(OperatorError) {
        try Self.check(settings)
        self.logger = logger
        let limits = settings.limits
        var tiering = settings.tiering
        tiering.hasStore = settings.store != nil
        tiering.hashSeed = .random(in: .min ... .max)
        let access = settings.store?.withRoom(for: limits)
        let inbox = try making("the agent's memory") {
            try AgentInbox(limits, storeRequestsMax: access?.client.inFlightMax ?? 0)
        }
        self.inbox = inbox
        let memory = try making("the agent's memory") { try Self.memory(settings) }
        self.memory = memory
        loanWords = try making("the agent's memory") { try LoanWords(count: limits.loansMax) }
        loanLimit = limits.loanLimit
        device = try Self.device(settings, memory) { inbox.postEnd(.device($0)) }
        let local = try Self.open(settings.localFlash, &tiering, memory, limits) { inbox.postEnd(.drive($0)) }
        drive = local?.drive
        workers = try making("the agent's threads") {
            try CopyWorkers(
                memory: memory, count: max(1, limits.copyWorkers),
                ordersMax: limits.copyWorkers * limits.copyDepth + limits.flashReadsMax
            ) { inbox.postEnd(.copied($0)) }
        }
        client = try making("the agent's threads") {
            try access.map { access in try StoreClient(access.client, memory: memory) { inbox.take($0) } }
        }
        journal = try settings.journal.map { settings throws(OperatorError) in
            try JournalOutput(path: settings.path) { logger.warning("the journal ends here: \($0)") }
        }

        let core = core(settings, tiering, access, flashSlots: local?.slots)
        try making("the agent's thread") { try start(core, populating: settings.memory == nil, nice: limits.nice) }
    }

    /// World and decisions over the parts that were made.
    private func core(
        _ settings: AgentSettings, _ tiering: TieringConfiguration, _ access: StoreAccess?, flashSlots: FlashSlots?
    ) -> AgentCore {
        let (limits, blockBytes) = (settings.limits, tiering.blockBytes)
        var desk = EngineDesk(tiering, limits: limits, storeNamespace: access?.namespace)
        desk.loans.words = loanWords
        let world = LiveWorld(
            desk: desk,
            slots: MemorySlots(memory: memory, blockBytes: blockBytes, count: settings.slotCount),
            settings: LiveSettings(
                clock: settings.clock, links: settings.links, limits: limits, blockBytes: blockBytes,
                store: access, isSubscribed: tiering.directory.isSubscribed,
                showsSilence: tiering.planner.rule != .always),
            inbox: inbox, workers: workers, device: device.map { DeviceSlots($0) }, drive: drive,
            flashSlots: flashSlots, client: client,
            journal: journal.map {
                JournalWriter(
                    $0, bytesMax: settings.journal?.bytesMax ?? 0,
                    head: JournalHead(tiering, policy: settings.journal?.policy))
            })
        var manager = TieringManager(tiering)
        manager.remembersLoads = true
        return AgentCore(world: world, manager: manager, blockBytes: blockBytes)
    }

    /// Starts the agent's own thread, and the one that brings its memory in.
    private func start(_ core: AgentCore, populating: Bool, nice: Int) throws(SystemError) {
        let started = try EngineThread("hf-agent") { [self] in
            takePrecedence(nice)
            run(core)
        }
        thread.withLock { $0 = started }
        guard populating else { return }
        let (memory, inbox, logger) = (memory, inbox, logger)
        let second = try EngineThread("hf-populate") { Self.populate(memory, inbox, logger) }
        self.populating.withLock { $0 = second }
    }

    // MARK: For engines

    /// Says where the replies to an engine go, before its first message. The caller chooses the number, and never twice.
    public func connect(engine: EngineNumber, sink: @escaping ReplySink) {
        inbox.sinks.withLock { $0[engine] = sink }
    }

    /// Takes a message, from any thread.
    ///
    /// - Parameter time: Its time, in lock step and only there.
    public func post(_ message: EngineMessage, at time: Instant? = nil) -> Acceptance {
        inbox.post(PostedMessage(message, at: time))
    }

    /// Lock step: lets time pass up to `time` once everything before has come to rest. What the decisions had to do until
    /// then they do on the way, each at its own time.
    public func advance(to time: Instant) -> Acceptance {
        inbox.post(PostedMessage(nil, at: time))
    }

    /// Has the agent's thread attend to a door from now on: what engines say there reaches the decisions, and what they are told
    /// the socket, without another thread between. The door must be stopped before the agent.
    func attend(to door: AttendedDoor) {
        inbox.offeredDoor.withLock { $0 = door }
        inbox.messages.wakeOwner()
    }

    // MARK: For operators

    /// How it is doing.
    public var status: AgentStatus { published.withLock { $0 } }

    /// Waits until nothing is under way and no message waits. `false`: the time was over first.
    public func waitUntilQuiet(within limit: Duration) -> Bool {
        let isQuiet = OneTimeFlag()
        inbox.quietWaiters.withLock { $0.append { isQuiet.set() } }
        inbox.quietAsked.store(true, ordering: .sequentiallyConsistent)
        inbox.messages.wakeOwner()
        return isQuiet.wait(within: limit)
    }

    /// Asks the decisions something, between two events. Nil: the agent has stopped.
    package func inspect<Value: Sendable>(
        _ body: @escaping @Sendable (borrowing TieringManager) -> Value
    ) -> Value? {
        inspectCore { body($0.manager) }
    }

    /// Asks world and decisions something, between two events. Nil: the agent has stopped.
    func inspectCore<Value: Sendable>(_ body: @escaping @Sendable (AgentCore) -> Value) -> Value? {
        let box = InspectionBox<Value>()
        inbox.inspections.withLock {
            $0.append { core in
                box.value.withLock { $0 = body(core) }
                box.flag.set()
            }
        }
        inbox.messages.wakeOwner()
        guard !wasShutDown.load(ordering: .sequentiallyConsistent), box.flag.wait(within: Duration(seconds: 10)) else {
            return nil
        }
        return box.value.withLock { $0 }
    }

    /// The journal, if it is kept in memory: complete after `shutDown`.
    public var journalBytes: [UInt8] { journal?.contents ?? [] }

    /// Takes no more, waits for the wire and the drive to let go of every slot, and ends all threads. Once.
    public func shutDown() {
        guard !wasShutDown.exchange(true, ordering: .sequentiallyConsistent) else { return }
        inbox.wantsStop.store(true, ordering: .releasing)
        inbox.signal.wake()
        thread.withLock { $0.take() }?.join()
        populating.withLock { $0.take() }?.join()
        client?.shutDown()
        drive?.shutDown()
        workers.shutDown()
        device?.shutDown()
        journal?.shutDown()
    }

    deinit { shutDown() }

    // MARK: The thread

    /// Turns of the decisions are short, and whoever waits for one has stopped: they go before threads that compute.
    private func takePrecedence(_ nice: Int) {
        guard nice != 0 else { return }
        let error = hf_set_thread_nice(Int32(nice))
        guard error != 0 else { return }
        logger.info(
            "the agent's thread goes before no other", metadata: ["nice": "\(nice)", "errno": "\(-error)"])
    }

    private func run(_ core: AgentCore) {
        var publishAt = Instant.zero
        let started = MonotonicClock.now
        while !inbox.wantsStop.load(ordering: .acquiring) {
            let event = core.world.next(until: core.manager.nextDeadline, publishing: publishAt)
            core.manager.handle(event, in: &core.world)
            for inspection in inbox.takeInspections() { inspection(core) }
            core.world.settle(event) { core.manager.isKept($0) }
            let now = MonotonicClock.now
            if now >= publishAt || core.world.wantsPublishing {
                publish(core, uptime: (now - started).seconds)
                core.world.isPublished = true
                publishAt = now + Self.publishInterval
            }
        }
        core.world.journal?.flush()
        publish(core, uptime: (MonotonicClock.now - started).seconds)
    }

    private func publish(_ core: AgentCore, uptime: Double) {
        var status = core.status()
        status.uptimeSeconds = uptime
        status.store?.reason = inbox.storeReason.withLock { $0 }
        let before = published.withLock { published in
            defer { published = status }
            return published.store
        }
        if let store = status.store { tell(store, before: before) }
    }

    /// Whoever operates it is told once when the store is used, and when it is not any more.
    private func tell(_ store: AgentStatus.Store, before: AgentStatus.Store?) {
        let namespace: Logger.Metadata = ["namespace": "\(store.namespace ?? "?")"]
        if store.isUsable, before?.isUsable != true { return logger.info("the store is used", metadata: namespace) }
        let isNews = before?.isUsable == true || before?.reason != store.reason
        guard !store.isUsable, isNews, store.reason != AgentInbox.notConnectedYet else { return }
        logger.warning("the store is not used: \(store.reason)", metadata: namespace)
    }
}

/// World and decisions, which only the agent's thread touches once it runs.
final class AgentCore: @unchecked Sendable {
    var world: LiveWorld
    var manager: TieringManager
    let blockBytes: Int

    init(world: consuming LiveWorld, manager: consuming TieringManager, blockBytes: Int) {
        self.world = world
        self.manager = manager
        self.blockBytes = blockBytes
    }
}

/// What an inspection found.
private final class InspectionBox<Value: Sendable>: Sendable {
    let value = Mutex<Value?>(nil)
    let flag = OneTimeFlag()
}
