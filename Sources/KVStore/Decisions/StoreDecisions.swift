// The decisions of the store: what it keeps, where, for whom, and in which order things become durable and visible. A
// pure value: events and the time go in, commands come out. It never waits, never draws at random, touches no file.

import KVFlash
import KVModel
import KVSystem
import KVTiering
import KVTransport

/// A request or a task of the store's own, from its acceptance to its end.
struct StoreOperation {
    enum Kind: UInt8 { case none, put, get, check, scrub }
    enum Stage: UInt8 {
        /// Waits for a buffer or for extents.
        case waiting
        /// Waits for the put of the same name that came first, or for the read that another began.
        case following
        /// The payload comes from the client.
        case receiving
        /// At a drive, or in the queue before it.
        case atDrive
        /// Its checksum is taken.
        case verifying
        /// The payload goes to the client.
        case sending
        /// Answered; a drive that is overdue still has buffer and extents.
        case overdue
    }

    var kind = Kind.none
    var stage = Stage.waiting
    var serial: UInt32 = 0
    /// The next that follows the same put or read, or the next free one.
    var next = ObjectRecord.none
    var object = ObjectRecord.none
    var buffer = ObjectRecord.none
    var namespace: UInt16 = 0
    var payloadBytes = 0
    var checksum: UInt64 = 0
    var deadline = Instant.zero
    var began = Instant.zero
    var request = RequestID(session: SessionID(transport: 0, number: 0), number: 0)
    var name = ObjectName(.none)
    var metadata = ObjectMetadata()
}

/// One drive as the decisions see it.
struct DriveState {
    /// The number of its first extent over all drives.
    let base: UInt32
    var extents: ExtentAllocator
    var isReadOnly = false
    var isFailed = false
    /// Commands it has not answered, and those that it answered as overdue and still holds: places it has none for.
    var unanswered = 0
    var overdue = 0
    /// Tags of commands that wait for a place.
    var queue = Queue<UInt64>()
    var failuresInRow = 0

    var isWritable: Bool { !isReadOnly && !isFailed }
}

/// A namespace that a session opened: the number may be another's by now.
struct OpenNamespace: Equatable {
    var number: UInt16
    var incarnation: UInt32
}

/// A session as the decisions see it.
struct SessionState {
    var peer: Peer
    /// Handle h is namespaces[h − 1]; 0 names none.
    var namespaces: [OpenNamespace] = []
    var subscriptions: Set<UInt16> = []
}

/// The store's decisions.
///
/// The promise of a put is kept in this order: extents and buffer reserved, payload received and verified, written,
/// durable, **visible**, acknowledged. Of a removal: invisible, tombstone durable, readers gone, extents free. Budgets
/// count every extent that is not free.
public struct StoreDecisions: ~Copyable {
    let settings: StoreSettings
    /// Tenants that may administer.
    var operators: Set<String>
    var objects: ObjectTable
    var drives: [DriveState] = []
    var buffers: BufferTable
    /// Counts since the start.
    public internal(set) var totals = StoreTotals()
    /// From a put's acceptance to its end; those that were answered at once are not in it.
    public internal(set) var putTimes = LatencyHistogram()
    /// From a get's acceptance to the end of its payload.
    public internal(set) var getTimes = LatencyHistogram()
    var checksums = ChecksumAlgebra()

    var namespaces: [StoreNamespace] = []
    var namespaceByName: [String: UInt16] = [:]
    var namespaceByDigest: [UInt64: UInt16] = [:]
    var scopes = ScopeTable()
    var nextIncarnation: UInt32 = 1
    /// Names whose settings are at the catalogue, and the changes of them that wait.
    var settingChanges: [String: [(RequestID, PolicyChange)]] = [:]
    var sessions: [SessionID: SessionState] = [:]
    var subscribers: [UInt16: Set<SessionID>] = [:]

    var operations: [StoreOperation]
    var freeOperation: UInt32 = 0
    /// Operations in flight.
    public internal(set) var operationCount = 0
    /// Operations that wait for a buffer or for extents, oldest first.
    var waiting: [UInt32] = []
    var roomCameFree = false
    /// Operations whose payload is on its way from or to a client.
    var transfers: [RequestID: UInt32] = [:]
    /// The put that writes an object, the read that brings one.
    var writers: [UInt32: UInt32] = [:]
    var readings: [UInt32: UInt32] = [:]

    /// Objects whose tombstones wait for a place at their drives.
    var erasures = Queue<UInt32>()
    var erasuresAtDrives = 0
    var leavingExtents = 0
    /// Requests to delete that wait for tombstones.
    var deletions: [UInt32: UInt64] = [:]
    var deletionBatches: [UInt64: DeletionBatch] = [:]
    /// The order to empty namespaces that is carried out, and those that wait for it.
    var clearing: Clearing?
    var clearingsWaiting: [Clearing] = []

    var pins: [UInt32: [StorePin]] = [:]
    var danglingPins: [PinnedName: [StorePin]] = [:]
    var pinRoom: SharedRoom
    var nextPinExpiry = Instant.distantFuture
    var catalogueWork: [UInt64: CatalogueWork] = [:]
    var nextTicket: UInt64 = 1

    var budget: WriteBudget
    /// What tenants who are no operators have left of their shares of it.
    var tenantBudgets: [String: WriteBudget] = [:]
    var doorkeeper = [UInt64](repeating: 0, count: 4096)
    /// Victims of the last sweep of the whole store, the least worth last, and the second of that sweep.
    var victims: [UInt32] = []
    var victimsBefore: UInt32 = 0
    var sweep: EvictionSweep?
    var sweepAgain = Instant.zero
    var ranking = StoreRanking()
    var sharedExtents = 0
    var expiryCursor = 0
    /// When the next slice is looked through for blocks past their retention.
    var expiresAt = Instant.zero
    var scrub: ScrubState

    var nextGeneration: UInt64 = 1
    /// While the drives are scanned: the generation of each object found, by its number, and what must be erased
    /// afterwards. Both are given back at the end.
    var generations: [UInt64] = []
    /// Objects of which an extent is claimed by an older header that came first: they come again when the scan has named the
    /// older ones void.
    var contested: [(object: FlashObject, drive: Int)] = []
    var oldestGeneration = UInt64.max
    var toErase: [UInt32] = []
    /// Extents whose headers cannot be believed.
    var damagedHeaders: [UInt32] = []
    /// Extents whose headers outlived their data.
    var outlived: Set<UInt32> = []
    /// Those of them that are in the middle of an object, which is kept from leaving until their headers are erased.
    var foreignHeaders: [UInt32: UInt32] = [:]
    var recovery = RecoverySummary()
    var startedAt = Instant.zero
    var now = Instant.zero
    /// Whether new puts are refused.
    public internal(set) var isDraining = false
    var output: [StoreOutput] = []
    var changes: [UInt16: NamespaceChanges] = [:]

    /// A store of empty drives; `recover` and `endRecovery` fill it.
    public init(_ settings: StoreSettings, at now: Instant) throws(SystemError) {
        var drives: [DriveState] = []
        var base = 0
        for drive in settings.drives {
            drives.append(DriveState(base: UInt32(base), extents: ExtentAllocator(count: drive.extentCount)))
            base += drive.extentCount
        }
        let objects = try ObjectTable(extentCount: base, hashSeed: settings.hashSeed)
        budget = WriteBudget(settings.writeBudget(share: 1))
        buffers = BufferTable(byteCount: settings.memoryBytes, frameBytes: settings.extentBytes)
        operations = Array(repeating: StoreOperation(), count: settings.operationCountMax)
        pinRoom = SharedRoom(places: settings.pinCountMax, namespaces: Self.namespacesMax)
        self.settings = settings
        operators = settings.operators
        self.now = now
        self.drives = drives
        scrub = ScrubState(drives)
        self.objects = objects
        startedAt = now
        transfers.reserveCapacity(settings.operationCountMax)
        for index in operations.indices {
            operations[index].next = index + 1 < operations.count ? UInt32(index + 1) : ObjectRecord.none
        }
    }

    // MARK: The hinge

    /// Takes an event and says what to do.
    public mutating func handle(_ event: StoreInput, at time: Instant, into commands: inout [StoreOutput]) {
        now = max(now, time)
        switch event {
        case .session(let event): take(event)
        case .drive(let drive, let event): take(event, from: drive)
        case .catalogued(let ticket, let succeeded): catalogued(ticket, succeeded)
        case .verified(let tag, let isWhole): verified(tag, isWhole)
        case .tick: passTime()
        case .tenants(let operators, let revoked):
            self.operators = operators
            for tenant in revoked { tenantBudgets[tenant] = nil }
            // In order: who leaves first is no matter, but it must be the same each time.
            let ended = sessions.filter { revoked.contains($0.value.peer.tenant) }.keys
            for session in ended.sorted(by: { ($0.transport, $0.number) < ($1.transport, $1.number) }) {
                output.append(.session(.disconnect(session, reason: "the tenant's key was revoked")))
            }
        case .drain:
            isDraining = true
            scrub.stopHurrying()
        }
        endQueuesOfFailedDrives()
        if roomCameFree { resumeWaiting() }
        commands.append(contentsOf: output)
        output.removeAll(keepingCapacity: true)
    }

    /// Work that no event asks for: freeing extents ahead, emptying namespaces, scrubbing, notifications. Called once a
    /// turn; a slice at a time.
    ///
    /// - Returns: Whether there is more to do at once.
    public mutating func work(at time: Instant, into commands: inout [StoreOutput]) -> Bool {
        now = max(now, time)
        var hasMore = evictAhead()
        if advanceClearing() { hasMore = true }
        if startScrub() { hasMore = true }
        endQueuesOfFailedDrives()
        if roomCameFree { resumeWaiting() }
        tellSubscribers()
        commands.append(contentsOf: output)
        output.removeAll(keepingCapacity: true)
        return hasMore
    }

    /// When `tick` is wanted, if nothing happens before.
    public var nextDeadline: Instant {
        var deadline = min(nextPinExpiry, scrub.deadline)
        if let first = waiting.first {
            deadline = min(deadline, operations[Int(first)].deadline, now + Duration(milliseconds: 20))
        }
        if hasRetention { deadline = min(deadline, expiresAt) }
        return deadline
    }

    /// Whether a drained store has nothing in flight any more.
    public var isQuiet: Bool {
        operationCount == 0 && erasures.isEmpty && erasuresAtDrives == 0 && catalogueWork.isEmpty
            && clearing == nil
    }

    // MARK: Time

    /// The second of an event, with room before the start for blocks that are older.
    var second: UInt32 { StoreRanking.second(of: now) }
    /// The wall clock's second.
    var wallSecond: Int64 { settings.wallSecondsAtOrigin + now.nanoseconds / 1_000_000_000 }

    private mutating func passTime() {
        expirePins()
        expireSlice()
        roomCameFree = !waiting.isEmpty
        // One limit for all, so the oldest waits at the front.
        var ended = 0
        while ended < waiting.count, operations[Int(waiting[ended])].deadline <= now { ended += 1 }
        guard ended > 0 else { return }
        let late = waiting.prefix(ended)
        waiting.removeFirst(ended)
        for index in late { giveUp(index) }
    }

    // MARK: Operations

    mutating func newOperation(_ kind: StoreOperation.Kind) -> UInt32? {
        guard freeOperation != ObjectRecord.none else { return nil }
        let index = freeOperation
        freeOperation = operations[Int(index)].next
        let serial = operations[Int(index)].serial &+ 1
        operations[Int(index)] = StoreOperation()
        operations[Int(index)].kind = kind
        operations[Int(index)].serial = serial
        operations[Int(index)].began = now
        operationCount += 1
        return index
    }

    mutating func endOperation(_ index: UInt32) {
        precondition(operations[Int(index)].kind != .none, "an operation ends twice")
        switch operations[Int(index)].kind {
        case .put: putTimes.add(now - operations[Int(index)].began)
        case .get: getTimes.add(now - operations[Int(index)].began)
        case .none, .check, .scrub: break
        }
        operations[Int(index)].kind = .none
        operations[Int(index)].next = freeOperation
        freeOperation = index
        operationCount -= 1
    }

    /// The name of an operation's effect. The top bit is that of erasures, which are named by their object.
    func tag(of index: UInt32) -> UInt64 { UInt64(operations[Int(index)].serial & 0x7FFF_FFFF) << 32 | UInt64(index) }

    func operation(of tag: UInt64) -> UInt32 {
        let index = UInt32(truncatingIfNeeded: tag)
        precondition(tag == self.tag(of: index), "an effect ends that no operation waits for")
        return index
    }

    mutating func reply(_ request: RequestID, _ status: Status, _ body: ResponseBody = .none) {
        output.append(.session(.reply(request, Response(status, body))))
    }

    mutating func reply(_ request: RequestID, _ status: Status, why: String) {
        reply(request, status, .text(Array(why.utf8)))
    }

    mutating func note(_ text: String, isWarning: Bool = true) {
        output.append(.log(StoreNote(isWarning: isWarning, text: text)))
    }

    // MARK: Extents

    /// The drive that has this extent.
    func drive(of number: UInt32) -> Int {
        var drive = drives.count - 1
        while drives[drive].base > number { drive -= 1 }
        return drive
    }

    func extentCount(_ payloadBytes: Int) -> Int { (payloadBytes + settings.extentBytes - 1) / settings.extentBytes }

    /// The extents of an object, as its drive numbers them.
    func extents(of number: UInt32) -> ExtentList {
        let base = drives[drive(of: number)].base
        var list = ExtentList()
        var extent = number
        while extent != ObjectRecord.none {
            list.append(extent - base)
            extent = objects[extent].next
        }
        return list
    }

    /// Bytes that the table of objects and the allocators take: what the store pays for its extents.
    public var tableBytes: Int { objects.byteCount + drives.reduce(0) { $0 + $1.extents.byteCount } }

    /// Places that the queues before the drives have taken from memory.
    package var queueRoom: Int { drives.reduce(erasures.room) { $0 + $1.queue.room } }

    /// Extents that are free on drives that take writes.
    var freeExtents: Int { drives.reduce(0) { $0 + ($1.isWritable ? $1.extents.freeCount : 0) } }

    /// Whether a reader may be given the object.
    @inline(__always)
    func isPresent(_ number: UInt32) -> Bool {
        objects[number].state == .present && (drives.count == 1 || !drives[drive(of: number)].isFailed)
    }
}
