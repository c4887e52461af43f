// What the hot paths take from the heap, counted exactly: the allocator's entry points are interposed in this program.
// Counts, not times, so they decide: `--check` ends with an error when a bound is missed.

import CAllocationCount
import Foundation
import KVFlash
import KVModel
import KVServing
import KVSimulation
import KVStore
import KVSystem
import KVTiering
import KVTransport
import Logging

struct AllocationBenchmark: Benchmark {
    let name = "allocations"
    let purpose = "heap allocations of the hot paths, counted: none a block"

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "holdfast-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try indexRows() + [clusterRow(setting)]
            + flashRows(folder.appendingPathComponent("drive").path)
            + storeRows(folder.appendingPathComponent("store").path)
    }

    /// Allocations of all threads while something runs.
    private func allocations(_ body: () throws -> Void) rethrows -> Double {
        let before = hf_allocation_count()
        try body()
        return Double(hf_allocation_count() - before)
    }

    private func row(_ name: String, per operation: Double, bound: Double, _ conditions: String) -> BenchmarkRow {
        note("  \(name): \(shortNumber(operation))")
        // A count is exact: its interval is a point. None at all meets any bound.
        let ratio = bound / max(operation, bound / 1000)
        return BenchmarkRow(
            name: name, unit: "allocations", ours: operation, reference: bound, referenceName: "the bound",
            ratio: ratio, low: ratio, high: ratio, conditions: conditions)
    }

    // MARK: Decisions

    private func indexRows() -> [BenchmarkRow] {
        let count = 1_000_000
        var index = BlockIndex()
        let inserted = allocations { for number in 0..<count { _ = index.insert(key(number)) } }
        var found = 0
        let looked = allocations { for number in 0..<count where index.find(key(number)) != nil { found += 1 } }
        precondition(found == count, "the index lost keys")
        return [
            row("index look-up", per: looked / Double(count), bound: 0.001, "1 M keys, each found"),
            row(
                "index insert", per: inserted / Double(count), bound: 0.05,
                "1 M keys into an empty index: its segments and records as they grow"),
        ]
    }

    private func key(_ number: Int) -> BlockKey { BlockKey(traceBlock: UInt64(number)) }

    /// Everything a modelled cluster does for a block reference, the decisions of its nodes and its store included.
    private func clusterRow(_ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let trace = try setting.trace("mooncake_conversation")
        let scenario = try Scenario.read(
            yaml: nil, file: "default.yaml", overrides: [("replicas", "8"), ("tensorParallel", "8")])
        let replay = try ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
        let taken = allocations { keep(replay.completedRequests()) }
        return row(
            "cluster block reference", per: taken / Double(trace.blocks.count), bound: 1,
            "\(trace.name), \(trace.blocks.count) references in \(trace.requests.count) requests: decisions, engines and "
                + "links; per request \(shortNumber(taken / Double(trace.requests.count)))")
    }

    // MARK: Engines

    private func flashRows(_ path: String) throws -> [BenchmarkRow] {
        let load = try FlashLoad(path: path, byteCount: 256 << 20)
        defer { load.drive.shutDown() }
        let count = 2000
        let blockBytes = FlashLoad.extentBytes
        _ = try load.read(blockBytes, depth: 8, count: 200, verifies: false, seed: 1)
        _ = try load.write(blockBytes, depth: 8, count: 100, sums: false, seed: 1)
        let read = try allocations {
            _ = try load.read(blockBytes, depth: 8, count: count, verifies: false, seed: 2)
        }
        let written = try allocations {
            _ = try load.write(blockBytes, depth: 8, count: count / 4, sums: true, seed: 3)
        }
        let conditions = "2 MiB, 8 under way; the handful of the benchmark's own run included"
        return [
            row("flash read of a block", per: read / Double(count), bound: 0.05, conditions),
            row(
                "flash write of a block", per: written / Double(count / 4), bound: 0.2, conditions + "; restart-safe"),
        ]
    }

    /// A whole store and its client in this process, over TCP: what both take for an operation.
    private func storeRows(_ path: String) throws -> [BenchmarkRow] {
        let bench = try StoreForCounting(path: path)
        defer { bench.shutDown() }
        let blockBytes = 64 << 10
        try bench.put(0..<256, bytes: blockBytes)
        try bench.get(0..<256, bytes: blockBytes)
        let rounds = 8
        let put = try allocations { try bench.put(256..<1280, bytes: blockBytes) }
        let got = try allocations { for _ in 0..<rounds { try bench.get(0..<256, bytes: blockBytes) } }
        let looked = try allocations { for _ in 0..<64 { try bench.lookUp(0..<256) } }
        // The store publishes its state fifty times a second, which a slow machine does more often for each block.
        let conditions = "64 KiB over TCP from a file, 16 under way; client and store in one process, all threads"
        return [
            row("store get, both ends", per: got / Double(rounds * 256), bound: 0.5, conditions),
            row("store put, both ends", per: put / 1024, bound: 2, conditions),
            row("store look-up of a key, both ends", per: looked / Double(64 * 256), bound: 0.05, "256 keys a call"),
        ]
    }
}

/// A store on a file, its TCP server, and a client that keeps sixteen requests under way.
private final class StoreForCounting {
    private let store: Store
    private let client: StoreClient
    private let memory: BlockMemory
    private let inbox: Mailbox<StoreEvent>
    private let signal: WakeSignal
    private var events: [StoreEvent] = []
    private var handle: NamespaceHandle = 0
    private static let depth = 16
    private static let slotBytes = 64 << 10

    init(path: String) throws {
        var configuration = StoreConfiguration()
        configuration.data = [path]
        configuration.size = 256 << 20
        configuration.extent = 64 << 10
        configuration.payloadMax = 1 << 20
        configuration.dram = 16 << 20
        configuration.scrub = 0
        let secret = [UInt8](repeating: 1, count: 32)
        var logger = Logger(label: "bench")
        logger.logLevel = .critical
        let tenants = Tenants(byName: ["bench": Tenant(secret: secret, isOperator: true)])
        store = try Store(configuration, tenants: tenants, logger: logger)
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: store)
        store.serve(server, transport: 1)
        memory = try BlockMemory(byteCount: Self.depth * Self.slotBytes)
        let signal = try WakeSignal()
        let inbox = Mailbox<StoreEvent>(capacity: 1024, waking: signal)
        self.signal = signal
        self.inbox = inbox
        client = try StoreClient(
            StoreClientConfiguration(
                routes: [.tcp(host: "127.0.0.1", port: server.port)], tenant: "bench", secret: secret),
            memory: memory, sink: { _ = inbox.post($0) })
        try run(0..<1) { _ in
            (.openNamespace(name: "n"), nil)
        } end: { response in
            if case .namespace(let handle) = response.body { self.handle = handle }
        }
    }

    func shutDown() {
        client.shutDown()
        store.shutDown()
    }

    private func name(_ number: Int) -> ObjectName { ObjectName(FullKey(mixBits(UInt64(number)), 1, 2, 3)) }

    private func slot(_ place: Int, _ bytes: Int) -> MemorySlice {
        MemorySlice(offset: place * Self.slotBytes, count: bytes)
    }

    func put(_ numbers: Range<Int>, bytes: Int) throws {
        try run(numbers) { number in
            let slice = slot(number % Self.depth, bytes)
            let checksum = unsafe BlockChecksum.of(name(number), UnsafeRawBufferPointer(memory[slice]))
            return (.put(handle, name(number), ObjectMetadata(), payloadBytes: bytes, checksum: checksum), slice)
        } end: { response in
            if response.status != .ok { throw BenchmarkFailure(what: "a put ends as \(response.status)") }
        }
    }

    func get(_ numbers: Range<Int>, bytes: Int) throws {
        try run(numbers) { number in
            (.get(handle, name(number)), slot(number % Self.depth, bytes))
        } end: { response in
            if response.status != .ok { throw BenchmarkFailure(what: "a get ends as \(response.status)") }
        }
    }

    func lookUp(_ numbers: Range<Int>) throws {
        let names = numbers.map { name($0) }
        try run(0..<1) { _ in
            (.lookUp(handle, names), nil)
        } end: { response in
            if response.status != .ok { throw BenchmarkFailure(what: "a look-up ends as \(response.status)") }
        }
    }

    /// Keeps `depth` requests under way; a place is used again when its request has ended.
    private func run(
        _ numbers: Range<Int>, begin: (Int) -> (Request, MemorySlice?), end: (Response) throws -> Void
    ) throws {
        var next = numbers.lowerBound
        var ended = 0
        func submit() throws {
            let (request, slice) = begin(next)
            let deadline = MonotonicClock.now + Duration(seconds: 10)
            guard client.submit(request, tag: UInt64(next), slot: slice, deadline: deadline) == .accepted else {
                throw BenchmarkFailure(what: "the client is full")
            }
            next += 1
        }
        while next < min(numbers.upperBound, numbers.lowerBound + Self.depth) { try submit() }
        while ended < numbers.count {
            inbox.drain(into: &events)
            for event in events {
                guard case .completed(_, let response, _) = event else { continue }
                try end(response)
                ended += 1
                // In order of numbers, places come free in order only if answers do: sixteen at a time keep it right.
                if ended % Self.depth == 0 || ended == numbers.count {
                    while next < min(numbers.upperBound, numbers.lowerBound + ended + Self.depth) { try submit() }
                }
            }
            guard events.isEmpty else { continue }
            signal.prepareToSleep()
            if inbox.isEmpty { signal.wait(atMost: Duration(seconds: 20)) }
            signal.awake()
        }
    }
}
