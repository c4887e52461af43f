// Stores for benchmarks: a real one on a file, and the decisions alone behind a real socket.

import Foundation
import KVFlash
import KVModel
import KVStore
import KVSystem
import KVTransport
import Logging
import Synchronization

/// A store on a file, its TCP server, and a client, in this process.
final class StoreWorld {
    static let secret = [UInt8](repeating: 1, count: 32)
    let store: Store
    let load: ClientLoad
    let clientMemory: BlockMemory
    /// Where its TCP server listens.
    let port: UInt16

    /// Formats a file that is not there, or starts on what there is.
    init(path: String, clientMemory: BlockMemory, change: (inout StoreConfiguration) -> Void) throws {
        var configuration = StoreConfiguration()
        configuration.data = [path]
        configuration.scrub = 0
        change(&configuration)
        var logger = Logger(label: "bench")
        logger.logLevel = .critical
        let tenants = Tenants(byName: ["bench": Tenant(secret: Self.secret, isOperator: true)])
        store = try Store(configuration, tenants: tenants, logger: logger)
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: store)
        store.serve(server, transport: 1)
        self.clientMemory = clientMemory
        port = server.port
        load = try ClientLoad(port: port, tenant: "bench", secret: Self.secret, memory: clientMemory)
    }

    func shutDown() {
        load.shutDown()
        store.shutDown()
    }

    static func name(_ set: Int, _ block: Int) -> ObjectName {
        ObjectName(FullKey(mixBits(UInt64(block) << 20 | UInt64(set)), UInt64(set), 2, 3))
    }

    /// Puts blocks of a set; all slots of the client hold the same bytes. Checksums are taken before the clock runs.
    func put(set: Int, blockBytes: Int, depth: Int, count: Int) throws -> LoadRun {
        let slotBytes = unsafe clientMemory.regions[0].count / depth / 4096 * 4096
        precondition(slotBytes >= blockBytes, "slots smaller than a block")
        let bytes = unsafe UnsafeRawBufferPointer(clientMemory[MemorySlice(offset: 0, count: blockBytes)])
        for slot in 1..<max(2, depth) where slot < depth {
            unsafe clientMemory[MemorySlice(offset: slot * blockBytes, count: blockBytes)].copyMemory(from: bytes)
        }
        let checksums = (0..<count).map { block in unsafe BlockChecksum.of(Self.name(set, block), bytes) }
        let handle = load.handle
        return try load.run(depth: depth, count: count) { block, slot in
            (
                .put(
                    handle, Self.name(set, block), ObjectMetadata(), payloadBytes: blockBytes,
                    checksum: checksums[block]), MemorySlice(offset: slot * blockBytes, count: blockBytes)
            )
        }
    }

    /// Gets blocks of a set in an order that follows from the seed.
    func get(set: Int, of total: Int, blockBytes: Int, depth: Int, count: Int, seed: UInt64) throws -> LoadRun {
        var source = RandomSource(seed: seed)
        let order = (0..<count).map { _ in source.below(total) }
        let handle = load.handle
        return try load.run(depth: depth, count: count) { position, slot in
            (
                .get(handle, Self.name(set, order[position])),
                MemorySlice(offset: slot * blockBytes, count: blockBytes)
            )
        }
    }

    /// Forgets blocks of a set.
    func delete(set: Int, count: Int) throws { try delete((0..<count).map { Self.name(set, $0) }) }

    /// Forgets these.
    func delete(_ names: [ObjectName]) throws {
        let handle = load.handle
        _ = try load.run(depth: 1, count: 1) { _, _ in (.delete(handle, names), nil) }
    }

    /// Whether it has all of these.
    func holds(_ names: [ObjectName]) throws -> Bool {
        let handle = load.handle
        let run = try load.run(depth: 1, count: 1) { _, _ in (.lookUp(handle, names), nil) }
        guard case .presence(let words)? = run.last?.body else { return false }
        return words.reduce(0) { $0 + $1.nonzeroBitCount } == names.count
    }
}

/// The decisions of a store that found many blocks on a drive nobody has, behind a socket: their thread, their mailbox,
/// their server, as in a store; but what they tell a drive is not asked.
final class DecisionsHost: SessionHost {
    let memory: BlockMemory
    private let events: Mailbox<SessionEvent>
    private let signal: WakeSignal
    private let server = Mutex<TCPServer?>(nil)
    private let thread = Mutex<EngineThread?>(nil)
    private let isStopping = Atomic<Bool>(false)
    private static let extentBytes = 64 << 10

    /// Takes the table over, and serves it.
    init(_ table: consuming StoreDecisions) throws {
        memory = try BlockMemory(byteCount: 1 << 20)
        signal = try WakeSignal()
        events = Mailbox(capacity: 4096, waking: signal)
        let made = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: self)
        server.withLock { $0 = made }
        let box = TableBox(table)
        let started = try EngineThread("bench-store") { [self] in run(box, made) }
        thread.withLock { $0 = started }
    }

    var port: UInt16 { server.withLock { $0!.port } }

    func shutDown() {
        server.withLock { $0.take() }?.shutDown()
        isStopping.store(true, ordering: .releasing)
        signal.wake()
        thread.withLock { $0.take() }?.join()
    }

    func secret(ofTenant tenant: String) -> [UInt8]? { StoreWorld.secret }
    func deliver(_ event: SessionEvent) -> Acceptance { events.post(event) }

    private func run(_ box: TableBox, _ server: TCPServer) {
        var batch: [SessionEvent] = []
        var commands: [StoreOutput] = []
        while !isStopping.load(ordering: .acquiring) {
            events.drain(into: &batch)
            for event in batch {
                box.store.handle(.session(event), at: MonotonicClock.now, into: &commands)
                for case .session(let command) in commands { _ = server.post(command) }
                commands.removeAll(keepingCapacity: true)
            }
            guard batch.isEmpty else { continue }
            signal.prepareToSleep()
            if events.isEmpty, !isStopping.load(ordering: .acquiring) { signal.wait(atMost: nil) }
            signal.awake()
        }
    }
}

/// The table, which only its thread touches once it runs.
private final class TableBox: @unchecked Sendable {
    var store: StoreDecisions
    init(_ store: consuming StoreDecisions) { self.store = store }
}
