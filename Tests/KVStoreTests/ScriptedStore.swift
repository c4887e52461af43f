// A world for the store's decisions in virtual time: clients, drives, catalogue and checksums as tables, with seeded
// delays, faults and crashes. It checks what no store may do. A payload is one number, which is its own checksum.

import Foundation
import KVFlash
import KVModel
import KVStore
import KVSystem
import KVTransport

/// What goes wrong, as shares.
struct StoreFaults {
    var badPayloads = 0.0
    var failedWrites = 0.0
    var failedReads = 0.0
    var failedErasures = 0.0
    var overdue = 0.0
    var overdueReads = 0.0
    var overdueErasures = 0.0
    var failedCatalogue = 0.0
    var damagedBlocks = 0.0
}

/// A drive's durable image: headers and the content of extents.
struct ScriptedDrive {
    var headers: [UInt32: FlashObject] = [:]
    var content: [UInt32: UInt64] = [:]
}

/// A store's decisions in their world.
struct ScriptedStore: ~Copyable {
    static let extentBytes = 64 << 10
    private(set) var session = SessionID(transport: 1, number: 1)
    let driveExtents: Int
    let driveCount: Int
    private let commandCountMax: Int
    var faults: StoreFaults
    var random: RandomSource
    var now = Instant.zero
    var store: StoreDecisions
    var drives: [ScriptedDrive]
    /// What the last start found.
    var recovered: RecoverySummary?
    var catalogueNamespaces: [String: NamespacePolicy] = [:]
    var cataloguePins: Set<PinRecord> = []
    var configure: (inout StoreSettings) -> Void

    private var events: [(time: Instant, order: Int, input: StoreInput, effect: Effect)] = []
    private var order = 0
    private var buffers: [Int: UInt64] = [:]
    /// Commands that a drive has a place for: until it answers, or lets go of what it was late with.
    private var places: [Int: Int] = [:]
    /// Extents that a drive reads now, by tag.
    private var reading: [UInt64: (drive: Int, extents: Set<UInt32>)] = [:]
    private var requestNumber: UInt32 = 0
    private var puts: [RequestID: (name: ObjectName, token: UInt64, isVolatile: Bool)] = [:]
    /// Answers, by request.
    var responses: [RequestID: Response] = [:]
    private(set) var received: [RequestID: UInt64] = [:]
    var algebra = ChecksumAlgebra()
    /// The first broken promise.
    var complaint: String?

    /// What happens in the world when an event's time comes.
    private enum Effect {
        case none
        case write(drive: Int, FlashObject, from: Int, isVolatile: Bool)
        case read(drive: Int, ExtentList, into: Int)
        case erase(drive: Int, extent: UInt32)
        case catalogue(CatalogueChange)
    }

    init(
        seed: UInt64, driveCount: Int = 1, driveExtents: Int = 64, faults: StoreFaults = StoreFaults(),
        configure: @escaping (inout StoreSettings) -> Void = { _ in }
    ) throws {
        self.driveExtents = driveExtents
        self.driveCount = driveCount
        self.faults = faults
        self.configure = configure
        random = RandomSource(seed: seed)
        drives = Array(repeating: ScriptedDrive(), count: driveCount)
        let settings = Self.settings(driveCount, driveExtents, configure)
        commandCountMax = settings.driveCommandCountMax
        store = try StoreDecisions(settings, at: .zero)
        start()
    }

    private static func settings(_ drives: Int, _ extents: Int, _ configure: (inout StoreSettings) -> Void)
        -> StoreSettings
    {
        var settings = StoreSettings(
            extentBytes: extentBytes, drives: Array(repeating: StoreDrive(extentCount: extents), count: drives),
            memoryBytes: 16 * extentBytes, payloadBytesMax: 3 * extentBytes, operationCountMax: 64,
            driveCommandCountMax: 16, waitLimit: Duration(seconds: 5), sharedShare: 0.25, writeBytesPerDay: 0,
            tenantShare: 1,
            scrubBytesPerSecond: 1 << 20, operators: ["operator"], opensUnknownNamespaces: true,
            defaultPolicy: NamespacePolicy(), pinCountMax: 64, wallSecondsAtOrigin: 1_000_000, hashSeed: 7)
        configure(&settings)
        return settings
    }

    private mutating func start() {
        var commands: [StoreOutput] = []
        for (name, policy) in catalogueNamespaces.sorted(by: { $0.key < $1.key }) {
            store.restoreNamespace(name, policy)
        }
        var generationMax: UInt64 = 0
        for drive in drives.indices {
            for (_, object) in drives[drive].headers.sorted(by: { $0.key < $1.key }) {
                store.recover(.object(object), from: drive)
                generationMax = max(generationMax, object.generation)
            }
        }
        let pins = cataloguePins.sorted { ($0.key, $0.owner) < ($1.key, $1.owner) }
        recovered = store.endRecovery(generationMax: generationMax, pins: pins, at: now, into: &commands)
        perform(commands)
        hand(.session(.opened(session, Peer(tenant: "operator", carrier: .loopback, address: "here"))))
    }

    /// Everything that is not durable is gone; a write under way is there or not.
    mutating func crash() throws {
        for (_, _, _, effect) in events {
            if case .write(let drive, let object, let from, false) = effect, random.uniform() < 0.5 {
                write(object, from, isVolatile: false, to: drive)
            }
            if case .catalogue(let change) = effect, random.uniform() < 0.5 { apply(change) }
            if case .erase(let drive, let extent) = effect, random.uniform() < 0.5 {
                drives[drive].headers[extent] = nil
            }
        }
        events = []
        reading = [:]
        places = [:]
        puts = [:]
        responses = [:]
        received = [:]
        store = try StoreDecisions(Self.settings(driveCount, driveExtents, configure), at: now)
        start()
    }

    // MARK: Clients

    mutating func request(_ request: Request, token: UInt64 = 0) -> RequestID {
        requestNumber += 1
        let id = RequestID(session: session, number: requestNumber)
        hand(.session(.request(id, request)))
        return id
    }

    /// From here on another tenant asks, in a session of its own.
    mutating func become(_ tenant: String) {
        session = SessionID(transport: 1, number: session.number + 1)
        hand(.session(.opened(session, Peer(tenant: tenant, carrier: .loopback, address: "here"))))
    }

    mutating func open(_ name: String) -> NamespaceHandle {
        let id = request(.openNamespace(name: name))
        guard case .namespace(let handle)? = responses[id]?.body else { return 999 }
        return handle
    }

    mutating func set(_ name: String, _ policy: NamespacePolicy) {
        let order = OrderArguments(namespace: name, policy: PolicyChange(policy))
        _ = request(.administer(verb: "namespace-set", arguments: Array(try! JSONEncoder().encode(order))))
        runUntilQuiet()
    }

    /// Puts a number as an object's payload.
    mutating func put(
        _ handle: NamespaceHandle, _ name: ObjectName, token: UInt64, extents: Int = 1,
        metadata: ObjectMetadata = ObjectMetadata(), isVolatile: Bool = false, bytes exact: Int? = nil
    ) -> RequestID {
        requestNumber += 1
        let id = RequestID(session: session, number: requestNumber)
        let bytes = exact ?? extents * Self.extentBytes - 100
        puts[id] = (name, token, isVolatile)
        let checksum = algebra.objectChecksum(of: name, payloadBytes: bytes, payloadChecksum: token)
        hand(.session(.request(id, .put(handle, name, metadata, payloadBytes: bytes, checksum: checksum))))
        return id
    }

    // MARK: Time

    var hasEvents: Bool { !events.isEmpty }

    /// The next thing happens.
    mutating func step() {
        let deadline = store.nextDeadline
        guard
            let next = events.indices.min(by: {
                (events[$0].time, events[$0].order) < (events[$1].time, events[$1].order)
            }),
            events[next].time <= deadline
        else {
            if deadline != .distantFuture {
                now = max(now + Duration(milliseconds: 1), deadline)
                hand(.tick)
            }
            return
        }
        let event = events.remove(at: next)
        now = max(now, event.time)
        hand(happen(event.effect, event.input))
    }

    mutating func runUntilQuiet() {
        var steps = 0
        while !(events.isEmpty && store.operationCount == 0) || !store.isQuiet {
            step()
            steps += 1
            if steps > 100_000 {
                complain("it does not come to rest")
                return
            }
        }
    }

    private mutating func hand(_ input: StoreInput) {
        if case .drive(let drive, let event) = input {
            switch event {
            case .becameReadOnly, .read(_, .overdue), .written(_, .overdue), .erased(_, .overdue): break
            case .read, .written, .erased, .released: places[drive, default: 0] -= 1
            }
        }
        var commands: [StoreOutput] = []
        store.handle(input, at: now, into: &commands)
        while store.work(at: now, into: &commands) {}
        perform(commands)
        if let broken = store.audit() { complain(broken) }
    }

    mutating func complain(_ text: String) { if complaint == nil { complaint = text } }

    private mutating func later(_ input: StoreInput, _ effect: Effect = .none, milliseconds: Int = 20) {
        order += 1
        let delay = Duration(nanoseconds: Int64(random.below(milliseconds * 1_000_000)))
        events.append((now + delay, order, input, effect))
    }

    // MARK: Commands

    private mutating func perform(_ commands: [StoreOutput]) {
        for command in commands {
            switch command {
            case .session(.receive(let id, let slice)):
                guard let put = puts[id] else { return complain("a payload is asked for that nobody offered") }
                buffers[slice.offset] = put.token
                let isBad = random.uniform() < faults.badPayloads
                later(.session(.received(id, isBad ? (random.below(2) == 0 ? .corrupt : .aborted) : .whole)))
            case .session(.reply(let id, let response)): answer(id, response)
            case .session(.send(let id, let response, let slice)):
                answer(id, response)
                received[id] = buffers[slice.offset] ?? 0
                later(.session(.sent(id, .whole)))
            case .session(.notify), .session(.disconnect), .log: break
            case .drive(let drive, let command): perform(command, drive)
            case .catalogue(let ticket, let change):
                if random.uniform() < faults.failedCatalogue {
                    later(.catalogued(ticket: ticket, succeeded: false))
                } else {
                    later(.catalogued(ticket: ticket, succeeded: true), .catalogue(change))
                }
            case .verify(let tag, let slice, let expected):
                later(.verified(tag: tag, isWhole: buffers[slice.offset] == expected))
            }
        }
    }

    private mutating func answer(_ id: RequestID, _ response: Response) {
        if responses[id] != nil { complain("request \(id.number) is answered twice") }
        responses[id] = response
        guard response.status == .ok, let put = puts[id], !put.isVolatile else { return }
        let isDurable = drives.contains { $0.headers.values.contains { $0.name == put.name } }
        if !isDurable { complain("a put is acknowledged that is not durable") }
    }

    private mutating func perform(_ command: FlashCommand, _ drive: Int) {
        if case .discard = command { return }
        places[drive, default: 0] += 1
        if places[drive, default: 0] > commandCountMax { complain("more commands at a drive than it takes") }
        switch command {
        case .write(let tag, let object, let slice, let isVolatile):
            for place in 0..<object.extents.count {
                let extent = object.extents[place]
                if reading.values.contains(where: { $0.drive == drive && $0.extents.contains(extent) }) {
                    complain("extent \(extent) is written while it is read")
                }
                for (first, header) in drives[drive].headers where contains(header.extents, extent) {
                    complain("extent \(extent) is written while the header at \(first) has it")
                }
            }
            if random.uniform() < faults.failedWrites {
                later(.drive(drive, .written(tag: tag, .failed(5))))
            } else if random.uniform() < faults.overdue {
                overdue(.written(tag: tag, .overdue), drive, tag, .none)
            } else {
                later(
                    .drive(drive, .written(tag: tag, .done)),
                    .write(drive: drive, object, from: slice.offset, isVolatile: isVolatile))
            }
        case .read(let tag, let extents, let slice):
            reading[tag] = (drive, Set((0..<extents.count).map { extents[$0] }))
            let effect = Effect.read(drive: drive, extents, into: slice.offset)
            if random.uniform() < faults.overdueReads {
                overdue(.read(tag: tag, .overdue), drive, tag, effect)
            } else {
                let fails = random.uniform() < faults.failedReads
                later(.drive(drive, .read(tag: tag, fails ? .failed(5) : .done)), effect)
            }
        case .erase(let tag, let first, _):
            let effect = Effect.erase(drive: drive, extent: first)
            if random.uniform() < faults.overdueErasures {
                overdue(.erased(tag: tag, .overdue), drive, tag, effect)
            } else {
                let fails = random.uniform() < faults.failedErasures
                later(.drive(drive, .erased(tag: tag, fails ? .failed(5) : .done)), fails ? .none : effect)
            }
        case .discard: break
        }
    }

    /// The drive says that it is late, does what it was told all the same, and lets go.
    private mutating func overdue(_ event: FlashEvent, _ drive: Int, _ tag: UInt64, _ effect: Effect) {
        later(.drive(drive, event))
        later(.drive(drive, .released(tag: tag)), effect, milliseconds: 4000)
        events[events.count - 1].time = events[events.count - 1].time + Duration(milliseconds: 30)
    }

    private func contains(_ list: ExtentList, _ extent: UInt32) -> Bool {
        (0..<list.count).contains { list[$0] == extent }
    }

    private mutating func happen(_ effect: Effect, _ input: StoreInput) -> StoreInput {
        switch effect {
        case .none: break
        case .write(let drive, let object, let from, let isVolatile):
            write(object, from, isVolatile: isVolatile, to: drive)
        case .read(let drive, let extents, let into):
            switch input {
            case .drive(_, .read(let tag, _)), .drive(_, .released(let tag)): reading[tag] = nil
            default: break
            }
            buffers[into] = drives[drive].content[extents[0]] ?? 0
        case .erase(let drive, let extent): drives[drive].headers[extent] = nil
        case .catalogue(let change): apply(change)
        }
        return input
    }

    private mutating func write(_ object: FlashObject, _ from: Int, isVolatile: Bool, to drive: Int) {
        let token = buffers[from] ?? 0
        let isDamaged = random.uniform() < faults.damagedBlocks
        for place in 0..<object.extents.count {
            drives[drive].content[object.extents[place]] = isDamaged ? token ^ 1 : token
        }
        if !isVolatile { drives[drive].headers[object.extents[0]] = object }
    }

    private mutating func apply(_ change: CatalogueChange) {
        switch change {
        case .setNamespace(let name, let policy): catalogueNamespaces[name] = policy
        case .removeNamespace(let name): catalogueNamespaces[name] = nil
        case .addPins(let pins):
            for pin in pins {
                cataloguePins = cataloguePins.filter { $0.key != pin.key || $0.owner != pin.owner }
                cataloguePins.insert(pin)
            }
        case .removePins(let pins):
            for pin in pins { cataloguePins = cataloguePins.filter { $0.key != pin.key || $0.owner != pin.owner } }
        }
    }
}
