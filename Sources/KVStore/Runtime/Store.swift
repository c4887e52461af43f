// The store at work: the decisions between transports, drives and the catalogue. Each of them has threads of its own and
// speaks through mailboxes; nobody waits for anybody. Who decides when is in `Store+Turns`.

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
    private let refusedKeys = Mutex(RefusedKeys())
    let logger: Logger
    let signal: WakeSignal
    let fromSessions: Mailbox<SessionEvent>
    let fromOthers: Mailbox<StoreInput>
    let servers = Mutex<[UInt16: any SessionServer]>([:])
    let catalogue: StoreCatalogue
    let worker = Mutex<ChecksumWorker?>(nil)
    private let thread = Mutex<EngineThread?>(nil)
    let published: Mutex<StoreStatus>
    let publishedTimes = Mutex<(put: LatencyHistogram, get: LatencyHistogram)>((.init(), .init()))
    let wantsStop = Atomic<Bool>(false)
    private let wasShutDown = Atomic<Bool>(false)
    let isQuiet = Atomic<Bool>(false)
    /// Sessions of all transports.
    let sessionPlaces: Mutex<SessionPlaces>
    /// The decisions and what a turn needs, touched by whoever found `isDeciding` false and made it true.
    let desk: StoreDesk
    /// Taken until the store's thread runs, and again after it has ended.
    let isDeciding = Atomic<Bool>(true)
    /// When the store's thread wakes by itself, in nanoseconds of the monotonic clock.
    let alarm = Atomic<Int64>(.max)

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
        sessionPlaces = Mutex(SessionPlaces(configuration.sessions, tenantShare: configuration.tenantShare))
        self.logger = logger
        var drives = try StoreDrives(configuration)
        let operations = configuration.operationsMax
        // Drives that are formatted have a catalogue, whatever fails behind this.
        catalogue = try StoreCatalogue(path: configuration.cataloguePath, ordersMax: operations + 64)
        let extentBytes = drives.devices[0].geometry.extentBytes
        // The drive's extents may be others than the settings say: it was formatted earlier.
        try configuration.checkMemory(extentBytes: extentBytes)
        payloadBytesMax = min(configuration.payloadMax, ExtentList.countMax * extentBytes)
        let settings = StoreSettings(configuration, drives: drives, operators: tenants.operators)
        do {
            memory = try BlockMemory(byteCount: settings.memoryBytes)
            signal = try WakeSignal()
            desk = StoreDesk(try StoreDecisions(settings, at: MonotonicClock.now))
        } catch { throw OperatorError(error.description, at: "the store's memory") }
        published = Mutex(desk.decisions.status())
        fromSessions = Mailbox(capacity: configuration.sessionEventsMax, waking: signal)
        fromOthers = Mailbox(
            capacity: 4 * operations + drives.devices.count * (2 * configuration.depth + 2) + 64, waking: signal)

        let started = MonotonicClock.now
        let contents = try catalogue.contents()
        for (name, policy) in contents.namespaces { desk.decisions.restoreNamespace(name, policy) }
        for note in drives.notes { logger.warning("\(note)") }
        try drives.scan { [desk] drive, event in desk.decisions.recover(event, from: drive) }
        var commands: [StoreOutput] = []
        let recovered = desk.decisions.endRecovery(
            generationMax: drives.generationMax, pins: contents.pins, at: MonotonicClock.now, into: &commands)
        let seconds = (MonotonicClock.now - started).seconds
        let damaged = drives.summaries.reduce(0) { $0 + $1.damagedCount }
        logger.info(
            "headers are read",
            metadata: [
                "objects": "\(recovered.objects)", "damaged": "\(damaged)",
                "seconds": "\((seconds * 1000).rounded() / 1000)",
            ])
        if recovered.unnamedObjects > 0 {
            let words = "\(recovered.unnamedObjects) blocks of \(recovered.unnamedNamespaces) namespaces"
            logger.warning(
                "\(words) that the catalogue does not know: is it this store's?",
                metadata: ["catalogue": "\(configuration.cataloguePath)"])
        }
        desk.commands = commands
        try start(drives, makeDrive)
    }

    private func start(_ opened: StoreDrives, _ makeDrive: DriveMaker) throws(OperatorError) {
        var driveConfiguration = FlashDriveConfiguration.standard
        driveConfiguration.commandCountMax = configuration.depth
        do {
            let worker = try ChecksumWorker(memory: memory, ordersMax: configuration.operationsMax) {
                [weak self] tag, isWhole in self?.end(.verified(tag: tag, isWhole: isWhole))
            }
            self.worker.withLock { $0 = worker }
            for (number, device) in opened.devices.enumerated() {
                desk.drives.append(
                    try makeDrive(device, memory, driveConfiguration) { [weak self] in self?.end(.drive(number, $0)) })
            }
            try catalogue.start { [weak self] ticket, succeeded in
                self?.end(.catalogued(ticket: ticket, succeeded: succeeded))
            }
            let started = try EngineThread("hf-store") { [self] in run() }
            thread.withLock { $0 = started }
        } catch let error as FlashError {
            throw error.operatorError
        } catch { throw OperatorError("\(error)", at: "the store's threads") }
    }

    // MARK: For transports

    /// The key of a tenant, or nil.
    public func secret(ofTenant tenant: String) -> [UInt8]? { tenants.withLock { $0.byName[tenant]?.secret } }

    /// Says so in the log, at most once a second.
    public func refused(tenant: String, at address: String, by carrier: Carrier) {
        guard let count = refusedKeys.withLock({ $0.note(at: MonotonicClock.now) }) else { return }
        logger.warning(
            "a client could not prove its key",
            metadata: [
                "tenant": "\(tenant.prefix(200).plainLine)", "peer": "\(carrier.rawValue) \(address)",
                "sinceLastLine": "\(count)",
            ])
    }

    /// Takes an event of a session, from any thread. What follows from it has mostly been said when this returns.
    public func deliver(_ event: SessionEvent) -> Acceptance {
        if case .opened(_, let peer) = event, !takeSession(of: peer.tenant) { return .full }
        let acceptance = fromSessions.leave(event)
        guard acceptance == .accepted else {
            guard case .request = event else { preconditionFailure("more events than the sessions may give") }
            return .full
        }
        decide()
        return .accepted
    }

    /// A session counts from here until its end was decided on: the mailboxes have room for what so many may say.
    private func takeSession(of tenant: String) -> Bool {
        let isOperator = tenants.withLock { $0.byName[tenant]?.isOperator ?? false }
        return sessionPlaces.withLock { $0.take(for: tenant, isOperator: isOperator) }
    }

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
        end(.tenants(operators: tenants.operators, revoked: Set(revoked)))
    }

    /// Takes no new requests, waits until those under way have ended or the time is over, and stops.
    ///
    /// - Returns: Whether all had ended.
    @discardableResult
    public func drain(within limit: Duration) -> Bool {
        end(.drain)
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
        // Nobody decides any more, once a turn that is being taken has ended.
        while isDeciding.exchange(true, ordering: .sequentiallyConsistent) { pause(milliseconds: 1) }
        for drive in desk.drives { drive.shutDown() }
        worker.withLock { $0.take() }?.shutDown()
        catalogue.shutDown()
    }
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
            writeBytesPerDay: configuration.writePerDay, tenantShare: configuration.tenantShare,
            scrubBytesPerSecond: configuration.scrub,
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
