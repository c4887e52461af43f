// The agent through its socket, as an engine meets it: how long a look-up takes, at rest and under completions; what a hit
// costs beside memcpy; how soon an engine that comes back is served; what an idle agent takes.

import Foundation
import KVAgent
import KVIdentity
import KVMemory
import KVModel
import KVSystem
import KVTiering
import Logging
import Synchronization

struct AgentBenchmark: Benchmark {
    let name = "agent"
    let purpose = "The agent through its socket: look-ups, hits, coming back, idling, against bounds and memcpy."

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        var rows: [BenchmarkRow] = []
        if setting.wants("look-up") { rows += try lookUps(setting) }
        if setting.wants("hit") { rows += try hits(setting) }
        if setting.wants("attach") { rows.append(try attach(setting)) }
        if setting.wants("hand-over") { rows += [try handOver(setting)] + (try handOvers(setting)) }
        if setting.wants("spill") { rows += try spill(setting) }
        if setting.wants("peers") { rows += try peers(setting) }
        if setting.wants("idle") { rows.append(try idle(setting)) }
        return rows
    }

    // MARK: Look-ups

    private static let chainBlocks = 1000

    private func lookUps(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let world = try AgentWorld(dram: 5 << 30, blockBytes: 4096)
        defer { world.shutDown() }
        let engine = try world.engine(bytes: 8 << 20)
        let chainCount = 1000
        for chain in 0..<chainCount {
            try engine.save(AgentWorld.names(chain: chain, Self.chainBlocks), rows: Self.chainBlocks)
        }
        func turn(_ random: inout RandomSource) throws -> Double {
            let names = AgentWorld.names(chain: random.below(chainCount), Self.chainBlocks)
            let (took, hits) = engine.lookUpSeconds(names)
            guard hits == Self.chainBlocks else { throw OperatorError("\(hits) blocks of a chain were found") }
            return took
        }
        var random = RandomSource(seed: 7)
        func figures() throws -> (p50: Double, p99: Double) {
            var all: [Double] = []
            for _ in 0..<1000 { all.append(try turn(&random) * 1e6) }
            all.sort()
            return (all[all.count / 2], all[all.count * 99 / 100])
        }
        _ = try figures()
        let runs = try (0..<setting.longRunCount).map { _ in try figures() }
        let held =
            "\(chainCount * Self.chainBlocks) blocks of 4 KiB held; 1,000 look-ups a run, a different chain each time"
        var rows = [
            boundRow(
                name: "agent: look-up of 1,000 blocks, p99", unit: "µs", measured: runs.map(\.p99), bound: 100,
                boundName: "100 µs",
                conditions: "engine to agent and back through the socket, in one process; \(held); p50 "
                    + "\(shortNumber(median(runs.map(\.p50)))) µs")
        ]
        // A second engine saves and loads meanwhile, as many blocks a second as the bound names.
        let other = try world.engine(bytes: 8 << 20)
        try other.waitForMemory()
        let busy = BusyEngine(other)
        let began = MonotonicClock.now
        let loaded = try (0..<setting.longRunCount).map { _ in try figures() }
        let blocks = busy.stop()
        let rate = Double(blocks) / (MonotonicClock.now - began).seconds
        rows.append(
            boundRow(
                name: "agent: the same under completions, p99", unit: "µs", measured: loaded.map(\.p99), bound: 100,
                boundName: "100 µs",
                conditions: "while another engine saves and loads \(Int(rate)) blocks a second; \(held); p50 "
                    + "\(shortNumber(median(loaded.map(\.p50)))) µs; threads share \(processorCount) processors"))
        return rows
    }

    private var processorCount: Int { ProcessInfo.processInfo.activeProcessorCount }

    // MARK: Hits

    private func hits(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        var rows: [BenchmarkRow] = []
        for blockBytes in [256 << 10, 2 << 20] {
            let count = (128 << 20) / blockBytes
            let world = try AgentWorld(dram: 512 << 20, blockBytes: blockBytes)
            defer { world.shutDown() }
            let engine = try world.engine(bytes: 2 * count * blockBytes)
            let names = AgentWorld.names(chain: 1, count)
            try engine.save(names, rows: count)
            let pairs = try PairedRuns(
                count: setting.pairCount,
                ours: {
                    try seconds {
                        guard engine.load(names, row: count) == count else {
                            throw OperatorError("not all blocks came")
                        }
                    }
                },
                reference: {
                    seconds { engine.copyRows(0, to: count, count) }
                })
            rows.append(
                pairs.row(
                    name: "agent: hit of 128 MiB, \(ByteSize.text(blockBytes))", unit: "s",
                    referenceName: "memcpy of as much (bound: 0.85)",
                    conditions: "engine-owned; look-up, load and answer through the socket, checksums compared; "
                        + "processor time of all threads"))
        }
        return rows
    }

    // MARK: Coming back, idling

    /// An engine that comes back to an agent of 1 GiB: hello, its region, a look-up, and a load of 64 blocks.
    private func attach(_ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let world = try AgentWorld(dram: 1 << 30, blockBytes: 64 << 10)
        defer { world.shutDown() }
        let names = AgentWorld.names(chain: 1, 64)
        let first = try world.engine(bytes: 64 * 64 << 10)
        try first.save(names, rows: 64)
        first.client.close()
        var measured: [Double] = []
        for _ in 0..<max(6, setting.longRunCount) {
            let began = MonotonicClock.now
            let engine = try world.engine(bytes: 64 * 64 << 10)
            guard engine.load(names, row: 0) == 64 else { throw OperatorError("not all blocks came") }
            measured.append((MonotonicClock.now - began).seconds)
            engine.client.close()
        }
        return boundRow(
            name: "agent: an engine comes back", unit: "s", measured: measured, bound: 1, boundName: "1 s",
            conditions: "from connecting to 64 blocks of 64 KiB loaded, its new region mapped; an arena of 1 GiB, warm")
    }

    /// One block from look-up to its place, all of it.
    private func handOver(_ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let world = try AgentWorld(dram: 64 << 20, blockBytes: 64 << 10)
        defer { world.shutDown() }
        let engine = try world.engine(bytes: 4 * 64 << 10)
        let names = AgentWorld.names(chain: 1, 1)
        try engine.save(names, rows: 1)
        func p50() throws -> Double {
            var all: [Double] = []
            for _ in 0..<500 {
                let began = MonotonicClock.now
                guard engine.load(names, row: 1) == 1 else { throw OperatorError("the block did not come") }
                all.append((MonotonicClock.now - began).seconds * 1e6)
            }
            return median(all)
        }
        _ = try p50()
        // The least that two threads need to ask and answer each other.
        let echo = try SocketEcho()
        defer { echo.shutDown() }
        let pairs = try PairedRuns(count: setting.pairCount, ours: p50, reference: { try echo.p50() })
        return pairs.row(
            name: "agent: one block of 64 KiB, p50", unit: "µs", referenceName: "two bare round trips of 64 bytes",
            conditions: "engine-owned: looked up, copied with its checksum by a worker, and told, wall time")
    }

    private func idle(_ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let world = try AgentWorld(dram: 64 << 20, blockBytes: 64 << 10)
        defer { world.shutDown() }
        let engine = try world.engine(bytes: 64 << 10)
        try engine.save(AgentWorld.names(chain: 1, 1), rows: 1)
        Thread.sleep(forTimeInterval: 0.5)
        let span = 2.0
        let measured = (0..<6).map { _ in
            100 * seconds { Thread.sleep(forTimeInterval: span) } / span
        }
        return boundRow(
            name: "agent: idle", unit: "% of a core", measured: measured, bound: 1, boundName: "1 %",
            conditions: "one engine attached; processor time of the whole process, the engine's client included, over "
                + "\(Int(span)) s")
    }
}

/// An agent with its door, in this process.
final class AgentWorld {
    let sidecar: AgentSidecar
    private let folder: String
    private let blockBytes: Int

    init(
        dram: Int, blockBytes: Int, storeSecret: [UInt8] = [], change: (inout AgentConfiguration) -> Void = { _ in }
    ) throws {
        folder = NSTemporaryDirectory() + "hf-bench-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        self.blockBytes = blockBytes
        var configuration = AgentConfiguration()
        configuration.socket = folder + "/s"
        configuration.dram = dram
        configuration.http = ""
        configuration.planner = .always
        change(&configuration)
        var logger = Logger(label: "bench")
        logger.logLevel = .critical
        let path = LinkState(bandwidth: 5e9)
        var surroundings = AgentSurroundings(links: LinkView(dram: path, nvme: path, flash: path))
        surroundings.storeSecret = storeSecret
        sidecar = try AgentSidecar(configuration, in: surroundings, logger: logger)
    }

    /// An engine. The first comes back when node memory is ready: pages that are brought in and pinned meanwhile would be counted
    /// with what is measured.
    func engine(bytes: Int, arena: EngineArenaAccess = .none) throws -> BenchEngine {
        let engine = try BenchEngine(
            sidecar.configuration.socket, blockBytes: blockBytes, bytes: bytes, arena: arena)
        let deadline = MonotonicClock.now + Duration(seconds: 60)
        while sidecar.memory?.isComplete != true {
            guard MonotonicClock.now < deadline else { throw OperatorError("node memory does not get ready") }
            Thread.sleep(forTimeInterval: 0.01)
        }
        return engine
    }

    /// Waits until nothing is under way.
    func rest() throws {
        guard sidecar.agent?.waitUntilQuiet(within: Duration(seconds: 60)) == true else {
            throw OperatorError("the agent does not come to rest")
        }
    }

    func shutDown() {
        _ = sidecar.drain(within: Duration(seconds: 5))
        try? FileManager.default.removeItem(atPath: folder)
    }

    static func names(chain: Int, _ count: Int) -> [ObjectName] {
        (0..<count).map { ObjectName(FullKey(mixBits(UInt64(chain) << 32 | UInt64($0)), UInt64(chain), 2, 3)) }
    }
}

/// An engine with a region of rows. Every question waits for its answer, which the thread that asks reads itself.
final class BenchEngine: @unchecked Sendable {
    let client: EngineClient
    private let arena: MemoryArena
    private let region: Int32
    private let blockBytes: Int

    init(_ socket: String, blockBytes: Int, bytes: Int, arena access: EngineArenaAccess) throws {
        self.blockBytes = blockBytes
        var memory = ArenaConfiguration(slotBytes: blockBytes, slotCount: bytes / blockBytes)
        memory.wantsPinning = false
        arena = try MemoryArena(memory)
        var fields = Dictionary(uniqueKeysWithValues: NamespaceIdentity.required.map { ($0, "1") })
        fields["block_tokens"] = "16"
        var configuration = EngineClientConfiguration(
            path: socket,
            hello: EngineHello(
                kind: "replay", process: 0, ownership: access == .none ? .engine : .host, namespace: fields,
                storeNamespace: "bench",
                blockTokens: 16, blockBytes: blockBytes))
        configuration.lookUpLimit = Duration(seconds: 10)
        configuration.jobLimit = Duration(seconds: 10)
        configuration.arena = access
        client = try EngineClient(configuration)
        guard client.waitUntilOpen(within: Duration(seconds: 20)) else {
            throw OperatorError("the agent does not answer: \(client.refusal?.reason ?? "no word")")
        }
        region = client.addRegion(descriptor: arena.descriptor, byteCount: arena.byteCount)
        let deadline = MonotonicClock.now + Duration(seconds: 20)
        while access != .none, client.arena == nil {
            guard MonotonicClock.now < deadline else { throw OperatorError("the agent gives no arena") }
            Thread.sleep(forTimeInterval: 0.001)
        }
    }

    /// Waits until its pages are there: the thread that brings them in takes a processor for 0.3 ms at a time.
    func waitForMemory() throws {
        let deadline = MonotonicClock.now + Duration(seconds: 20)
        while !arena.status.isComplete {
            guard MonotonicClock.now < deadline else { throw OperatorError("an engine's memory does not get ready") }
            Thread.sleep(forTimeInterval: 0.001)
        }
    }

    /// Copies a row of this engine's memory.
    func copyRow(_ row: Int, to bytes: UnsafeMutableRawBufferPointer) {
        unsafe memcpy(
            bytes.baseAddress!, arena.memory[MemorySlice(offset: row * blockBytes, count: bytes.count)].baseAddress!,
            bytes.count)
    }

    /// What a copy costs that does nothing else.
    func copyRows(_ row: Int, to other: Int, _ count: Int) {
        let from = MemorySlice(offset: row * blockBytes, count: count * blockBytes)
        let to = MemorySlice(offset: other * blockBytes, count: count * blockBytes)
        unsafe memcpy(arena.memory[to].baseAddress!, arena.memory[from].baseAddress!, from.count)
    }

    private func places(_ row: Int, _ count: Int) -> EnginePlaces {
        EnginePlaces(
            slices: (row..<row + count).map {
                MemorySlice(region: region, offset: $0 * blockBytes, count: blockBytes)
            })
    }

    func save(_ names: [ObjectName], rows: Int) throws {
        let saved = client.answer { client.save(names, first: 0, places: places(0, rows), done: $0) }
        guard saved.keptCount == names.count else { throw OperatorError("not all blocks were kept") }
    }

    /// A whole request: looked up, loaded, finished. How many blocks came.
    func load(_ names: [ObjectName], row: Int) -> Int {
        var ticket: EngineTicket = 0
        let found = client.answer {
            ticket = client.lookUp(names, promptTokens: Int32(names.count * 16 + 1), done: $0)
        }
        guard found.hitBlocks > 0 else { return 0 }
        let loaded = client.answer {
            client.load(first: 0, places: places(row, names.count), request: ticket, done: $0)
        }
        client.finished(EngineRequestEnd(ticket: ticket))
        return Int(loaded.end)
    }

    func lookUpSeconds(_ names: [ObjectName]) -> (seconds: Double, hits: Int) {
        var ticket: EngineTicket = 0
        let began = MonotonicClock.now
        let found = client.answer {
            ticket = client.lookUp(names, promptTokens: Int32(names.count * 16 + 1), done: $0)
        }
        let took = (MonotonicClock.now - began).seconds
        client.finished(EngineRequestEnd(ticket: ticket))
        return (took, Int(found.hitBlocks))
    }
}

/// An engine that saves and loads 64 blocks at a time, on a thread of its own, so that `rate` of both end in a second.
private final class BusyEngine: Sendable {
    private static let rate = 50_000.0
    private let isStopping = Atomic<Bool>(false)
    private let blocks = Atomic<Int>(0)
    private let ended = DispatchSemaphore(value: 0)

    init(_ engine: BenchEngine) {
        Thread.detachNewThread { [self] in
            var chain = 1_000_000
            var due = MonotonicClock.now
            while !isStopping.load(ordering: .relaxed) {
                chain += 1
                Thread.sleep(forTimeInterval: max(0, (due - MonotonicClock.now).seconds))
                due = due + Duration(seconds: 128 / Self.rate)
                let names = AgentWorld.names(chain: chain, 64)
                try? engine.save(names, rows: 64)
                let loaded = engine.load(names, row: 64)
                blocks.wrappingAdd(64 + loaded, ordering: .relaxed)
            }
            ended.signal()
        }
    }

    /// How many blocks it moved.
    func stop() -> Int {
        isStopping.store(true, ordering: .relaxed)
        ended.wait()
        return blocks.load(ordering: .relaxed)
    }
}

/// Two threads that answer each other over a pair of sockets.
final class SocketEcho: Sendable {
    private let ours: Int32
    private let theirs: Int32

    init() throws {
        var pair: [Int32] = [0, 0]
        guard unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0 else {
            throw OperatorError("there is no pair of sockets")
        }
        (ours, theirs) = (pair[0], pair[1])
        let theirs = theirs
        Thread.detachNewThread {
            var bytes = [UInt8](repeating: 0, count: 64)
            while unsafe read(theirs, &bytes, 64) == 64 { _ = unsafe write(theirs, &bytes, 64) }
            close(theirs)
        }
    }

    func p50() throws -> Double {
        var bytes = [UInt8](repeating: 0, count: 64)
        var all: [Double] = []
        for _ in 0..<500 {
            let began = MonotonicClock.now
            for _ in 0..<2 {
                guard unsafe write(ours, &bytes, 64) == 64, unsafe read(ours, &bytes, 64) == 64 else {
                    throw OperatorError("an echo failed")
                }
            }
            all.append((MonotonicClock.now - began).seconds * 1e6)
        }
        return median(all)
    }

    func shutDown() { close(ours) }
}
