// The store at work: one thread that owns the decisions, between transports, drives and the catalogue. Each of them has
// threads of its own and speaks through mailboxes; nobody waits for anybody.

import CKernel
import KVFlash
import KVModel
import KVSystem
import KVTransport
import Logging
import Synchronization

/// A store that runs in this process.
public final class Store: SessionHost {
    /// Payloads on their way, and hot objects.
    public let memory: BlockMemory
    /// What it was started with.
    public let configuration: StoreConfiguration
    /// The longest payload it takes: what is set, and no more than an object has extents.
    public let payloadBytesMax: Int

    private let tenants: Mutex<Tenants>
    private let logger: Logger
    private let signal: WakeSignal
    private let fromSessions: Mailbox<SessionEvent>
    private let fromOthers: Mailbox<StoreInput>
    private let drives = Mutex<[any Drive]>([])
    private let servers = Mutex<[UInt16: any SessionServer]>([:])
    private let catalogue: Catalogue
    private let worker = Mutex<ChecksumWorker?>(nil)
    private let thread = Mutex<EngineThread?>(nil)
    private let published: Mutex<StoreStatus>
    private let publishedTimes = Mutex<(put: LatencyHistogram, get: LatencyHistogram)>((.init(), .init()))
    private let wantsStop = Atomic<Bool>(false)
    private let wasShutDown = Atomic<Bool>(false)
    private let isQuiet = Atomic<Bool>(false)
    /// Notifications that a lane had no room for.
    private let lost = LostNotifications()

    /// Wraps each drive before it is used: campaigns put a faulty one around it.
    public typealias DriveMaker =
        @Sendable (FlashDevice, BlockMemory, FlashDriveConfiguration, @escaping @Sendable (FlashEvent) -> Void)
        throws(FlashError) -> any Drive

    /// Opens drives and catalogue, reads all headers, and starts to decide. It serves nobody before `serve`.
    ///
    /// - Parameter makeDrive: How a drive is made of a device.
    public init(
        _ configuration: StoreConfiguration, tenants: Tenants, logger: Logger,
        makeDrive: DriveMaker = { (device, memory, drive, sink) throws(FlashError) in
            try FlashDrive(device, memory: memory, configuration: drive, sink: sink)
        }
    ) throws(OperatorError) {
        try configuration.check()
        self.configuration = configuration
        self.tenants = Mutex(tenants)
        self.logger = logger
        var drives = try StoreDrives(configuration)
        let extentBytes = drives.devices[0].geometry.extentBytes
        // The drive's extents may be others than the settings say: it was formatted earlier.
        try configuration.checkMemory(extentBytes: extentBytes)
        payloadBytesMax = min(configuration.payloadMax, ExtentList.countMax * extentBytes)
        let operations = configuration.operationsMax
        let settings = StoreSettings(configuration, drives: drives, operators: tenants.operators)
        let decisions: DecisionsBox
        do {
            memory = try BlockMemory(byteCount: settings.memoryBytes)
            signal = try WakeSignal()
            decisions = DecisionsBox(try StoreDecisions(settings, at: MonotonicClock.now))
        } catch { throw OperatorError(error.description, at: "the store's memory") }
        published = Mutex(decisions.value.status())
        fromSessions = Mailbox(capacity: configuration.sessionEventsMax, waking: signal)
        fromOthers = Mailbox(
            capacity: 4 * operations + drives.devices.count * (2 * configuration.depth + 2) + 64, waking: signal)
        catalogue = try Catalogue(path: configuration.cataloguePath, ordersMax: operations + 64)

        let started = MonotonicClock.now
        let contents = try catalogue.contents()
        for (name, policy) in contents.namespaces { decisions.value.restoreNamespace(name, policy) }
        for note in drives.notes { logger.warning("\(note)") }
        try drives.scan { drive, event in decisions.value.recover(event, from: drive) }
        var commands: [StoreOutput] = []
        let recovered = decisions.value.endRecovery(
            generationMax: drives.generationMax, pins: contents.pins, at: MonotonicClock.now, into: &commands)
        let seconds = (MonotonicClock.now - started).seconds
        let damaged = drives.summaries.reduce(0) { $0 + $1.damagedCount }
        logger.info(
            "headers are read",
            metadata: [
                "objects": "\(recovered.objects)", "damaged": "\(damaged)",
                "seconds": "\((seconds * 1000).rounded() / 1000)",
            ])
        try start(decisions, drives, makeDrive, first: commands, extentBytes: extentBytes)
    }

    private func start(
        _ decisions: DecisionsBox, _ opened: StoreDrives, _ makeDrive: DriveMaker, first: [StoreOutput],
        extentBytes: Int
    ) throws(OperatorError) {
        var driveConfiguration = FlashDriveConfiguration.standard
        driveConfiguration.commandCountMax = configuration.depth
        let others = fromOthers
        do {
            let worker = try ChecksumWorker(memory: memory, ordersMax: configuration.operationsMax) { tag, isWhole in
                postEnd(.verified(tag: tag, isWhole: isWhole), to: others)
            }
            self.worker.withLock { $0 = worker }
            var made: [any Drive] = []
            for (number, device) in opened.devices.enumerated() {
                made.append(
                    try makeDrive(device, memory, driveConfiguration) { postEnd(.drive(number, $0), to: others) })
            }
            let all = made
            drives.withLock { $0 = all }
            try catalogue.start { ticket, succeeded in
                postEnd(.catalogued(ticket: ticket, succeeded: succeeded), to: others)
            }
            let started = try EngineThread("hf-store") { [self] in run(decisions, first) }
            thread.withLock { $0 = started }
        } catch let error as FlashError {
            throw error.operatorError
        } catch { throw OperatorError("\(error)", at: "the store's threads") }
    }

    // MARK: For transports

    /// The key of a tenant, or nil.
    public func secret(ofTenant tenant: String) -> [UInt8]? { tenants.withLock { $0.byName[tenant]?.secret } }

    /// Takes an event of a session, from any thread.
    public func deliver(_ event: SessionEvent) -> Acceptance { fromSessions.post(event) }

    /// Adds a transport. Its number is that of its sessions.
    public func serve(_ server: any SessionServer, transport: UInt16) {
        servers.withLock { $0[transport] = server }
        logger.info("listening", metadata: ["address": "\(server.address)"])
    }

    /// Transports, by number.
    public var transports: [UInt16: any SessionServer] { servers.withLock { $0 } }

    // MARK: For operators

    /// How it is doing, some milliseconds ago at most while anything happens.
    public var status: StoreStatus { published.withLock { $0 } }

    /// How long puts and gets took, from their acceptance to their end: of a get, when its payload has gone.
    public var times: (put: LatencyHistogram, get: LatencyHistogram) { publishedTimes.withLock { $0 } }

    /// Takes these tenants from now on. Sessions of tenants that are gone or have another key end.
    public func setTenants(_ tenants: Tenants) {
        let before = self.tenants.withLock { current in
            defer { current = tenants }
            return current
        }
        let revoked = before.byName.filter { tenants.byName[$0.key]?.secret != $0.value.secret }.keys
        postEnd(.tenants(operators: tenants.operators, revoked: Set(revoked)), to: fromOthers)
    }

    /// Takes no new requests, waits until those under way have ended or the time is over, and stops.
    ///
    /// - Returns: Whether all had ended.
    @discardableResult
    public func drain(within limit: Duration) -> Bool {
        postEnd(.drain, to: fromOthers)
        let deadline = MonotonicClock.now + limit
        while !isQuiet.load(ordering: .acquiring), MonotonicClock.now < deadline { pause(milliseconds: 5) }
        let wasQuiet = isQuiet.load(ordering: .acquiring)
        shutDown()
        return wasQuiet
    }

    /// Stops: transports first, then the drives, so that every buffer has its owner to the end.
    public func shutDown() {
        guard !wasShutDown.exchange(true, ordering: .acquiringAndReleasing) else { return }
        for server in transports.values { server.shutDown() }
        servers.withLock { $0 = [:] }
        wantsStop.store(true, ordering: .releasing)
        signal.wake()
        thread.withLock { $0.take() }?.join()
        for drive in drives.withLock({ $0 }) { drive.shutDown() }
        worker.withLock { $0.take() }?.shutDown()
        catalogue.shutDown()
    }

    // MARK: The loop

    private func run(_ decisions: DecisionsBox, _ first: [StoreOutput]) {
        var sessionEvents: [SessionEvent] = []
        var otherEvents: [StoreInput] = []
        var commands = first
        let drives = drives.withLock { $0 }
        var publishAt = Instant.zero
        var isPublished = false
        var hasMore = false
        while !wantsStop.load(ordering: .acquiring) {
            // Ends before beginnings: what ends gives room to what begins.
            fromOthers.drain(into: &otherEvents)
            for event in otherEvents { decisions.value.handle(event, at: MonotonicClock.now, into: &commands) }
            fromSessions.drain(into: &sessionEvents)
            for event in sessionEvents {
                decisions.value.handle(.session(event), at: MonotonicClock.now, into: &commands)
                if commands.count > 64 { obey(&commands, drives) }
            }
            let now = MonotonicClock.now
            if decisions.value.nextDeadline <= now { decisions.value.handle(.tick, at: now, into: &commands) }
            hasMore = decisions.value.work(at: now, into: &commands)
            obey(&commands, drives)
            lost.tell { post($0) }
            isQuiet.store(decisions.value.isDraining && decisions.value.isQuiet, ordering: .releasing)
            if !sessionEvents.isEmpty || !otherEvents.isEmpty { isPublished = false }
            if now >= publishAt, !isPublished {
                publish(decisions)
                isPublished = true
                publishAt = now + Duration(milliseconds: 20)
            }
            guard !hasMore, sessionEvents.isEmpty, otherEvents.isEmpty else { continue }
            signal.prepareToSleep()
            if fromSessions.isEmpty, fromOthers.isEmpty, !wantsStop.load(ordering: .acquiring) {
                // What is not published yet is, when its time comes; a store that is idle sleeps on.
                var until = min(decisions.value.nextDeadline, isPublished ? .distantFuture : publishAt)
                if !lost.isEmpty { until = min(until, now + Duration(milliseconds: 20)) }
                signal.wait(atMost: max(.zero, until - MonotonicClock.now))
            }
            signal.awake()
        }
    }

    private func publish(_ decisions: DecisionsBox) {
        let status = decisions.value.status()
        let times = (put: decisions.value.putTimes, get: decisions.value.getTimes)
        published.withLock { $0 = status }
        publishedTimes.withLock { $0 = times }
    }

    private func obey(_ commands: inout [StoreOutput], _ drives: [any Drive]) {
        for command in commands {
            switch command {
            case .session(let order): obey(order)
            case .drive(let number, let order):
                let acceptance = drives[number].post(order)
                if case .discard = order { continue }
                precondition(acceptance == .accepted, "more commands at a drive than it takes")
            case .catalogue(let ticket, let change):
                if catalogue.post(ticket: ticket, change) == .full {
                    postEnd(.catalogued(ticket: ticket, succeeded: false), to: fromOthers)
                }
            case .verify(let tag, let slice, let expected):
                let order = ChecksumWorker.Order(tag: tag, slice: slice, expected: expected)
                let acceptance = worker.withLock { $0?.post(order) ?? .full }
                precondition(acceptance == .accepted, "more checksums to take than operations")
            case .log(let note):
                logger.log(level: note.isWarning ? .warning : .info, "\(note.text)")
            }
        }
        commands.removeAll(keepingCapacity: true)
    }

    private func obey(_ order: SessionCommand) {
        if case .notify(let session, let notification) = order {
            guard !lost.withholds(notification, of: session) else { return }
            if post(order) == .full { lost.add(notification, of: session) }
            return
        }
        precondition(post(order) == .accepted, "more answers than requests")
    }

    private func post(_ order: SessionCommand) -> Acceptance {
        let transport =
            switch order {
            case .receive(let request, _), .reply(let request, _), .send(let request, _, _): request.session.transport
            case .notify(let session, _), .disconnect(let session, _): session.transport
            }
        // A transport that is gone has no sessions to be told.
        return servers.withLock({ $0[transport] })?.post(order) ?? .accepted
    }
}

/// Subscribers that were not told something, until they are told so. Only the store's thread touches it.
private final class LostNotifications: @unchecked Sendable {
    private struct Stream: Hashable {
        let session: SessionID
        let namespace: NamespaceHandle
    }

    private var streams: Set<Stream> = []

    var isEmpty: Bool { streams.isEmpty }

    func add(_ notification: KVTransport.Notification, of session: SessionID) {
        streams.insert(Stream(session: session, namespace: notification.namespace))
    }

    /// Whether an `overflow` comes first, which makes everything before it worthless.
    func withholds(_ notification: KVTransport.Notification, of session: SessionID) -> Bool {
        !streams.isEmpty && streams.contains(Stream(session: session, namespace: notification.namespace))
    }

    /// Says `overflow` to those for whom there is room now.
    func tell(_ post: (SessionCommand) -> Acceptance) {
        for stream in streams where post(.notify(stream.session, .overflow(stream.namespace))) == .accepted {
            streams.remove(stream)
        }
    }
}

/// Posts what must never be refused.
private func postEnd(_ event: StoreInput, to mailbox: Mailbox<StoreInput>) {
    precondition(mailbox.post(event) == .accepted, "more ends than effects")
}

/// The decisions, which only the store's thread touches once it runs.
private final class DecisionsBox: @unchecked Sendable {
    var value: StoreDecisions
    init(_ value: consuming StoreDecisions) { self.value = value }
}

private func pause(milliseconds: Int64) {
    // A plain wait on nothing: shutting down has no event to wait for that is not polled.
    if let signal = try? WakeSignal() { signal.wait(atMost: Duration(milliseconds: milliseconds)) }
}

extension StoreConfiguration {
    /// Requests under way at once.
    var operationsMax: Int { min(sessions * credits, 16_384) + 64 }
    /// Events of sessions that may wait: each request gives at most three, each session two more.
    var sessionEventsMax: Int { sessions * (3 * credits + 2) }
}

extension StoreSettings {
    init(_ configuration: StoreConfiguration, drives: StoreDrives, operators: Set<String>) {
        let extentBytes = drives.devices[0].geometry.extentBytes
        self.init(
            extentBytes: extentBytes,
            drives: drives.devices.map { StoreDrive(extentCount: $0.geometry.extentCount) },
            memoryBytes: configuration.dram / extentBytes * extentBytes,
            payloadBytesMax: min(configuration.payloadMax, ExtentList.countMax * extentBytes),
            operationCountMax: configuration.operationsMax, driveCommandCountMax: configuration.depth,
            waitLimit: Duration(seconds: configuration.wait), sharedShare: 0.2,
            writeBytesPerDay: configuration.writePerDay, scrubBytesPerSecond: configuration.scrub,
            operators: operators, opensUnknownNamespaces: configuration.makesNamespaces,
            defaultPolicy: NamespacePolicy.unlimited, pinCountMax: 1 << 20,
            wallSecondsAtOrigin: (hf_realtime_ns() - hf_monotonic_ns()) / 1_000_000_000,
            hashSeed: UInt64.random(in: .min ... .max))
    }
}

extension NamespacePolicy {
    /// What a namespace gets that a tenant made by opening it: restart-safe, no quota of its own, a tenth of a tebibyte
    /// to pin.
    static var unlimited: NamespacePolicy {
        var policy = NamespacePolicy()
        policy.pinQuotaBytes = 100 << 30
        return policy
    }
}
