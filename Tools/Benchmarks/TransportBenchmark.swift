// The transport over TCP, from memory to memory, against raw sockets: throughput, processor time, latencies; and how
// many keys a second can be asked for.

import Foundation
import KVModel
import KVSystem
import KVTransport

struct TransportBenchmark: Benchmark {
    let name = "transport"
    let purpose = "transport over TCP from memory to memory, against raw sockets"

    private static let bytesPerRun = 256 << 20

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let pair = try TransportMemory(byteCount: 256 << 20)
        var rows: [BenchmarkRow] = []
        for mebibytes in [1, 2, 4, 8, 16] {
            let groups = [false, true].flatMap { isPut in [1, 4, 16].map { (isPut, $0) } }.filter {
                setting.wants(Self.group($0, $1, mebibytes << 20))
            }
            if groups.isEmpty { continue }
            let world = try TransportWorld(pair, blockBytes: mebibytes << 20)
            defer { world.shutDown() }
            for (isPut, depth) in groups { rows += try throughputRows(world, isPut, depth, setting) }
        }
        for isPut in [false, true] where setting.wants("16 MiB after 2 MiB") {
            rows.append(try sizesRow(pair, isPut: isPut, setting))
        }
        for kibibytes in [64, 256, 1024, 4096, 16384] where setting.wants("latency") {
            let world = try TransportWorld(pair, blockBytes: kibibytes << 10)
            defer { world.shutDown() }
            for depth in [1, 16] { rows += try latencyRows(world, depth, setting) }
        }
        if setting.wants("existence") { rows.append(try existenceRow(pair, setting)) }
        return rows
    }

    private static func group(_ isPut: Bool, _ depth: Int, _ blockBytes: Int) -> String {
        "\(isPut ? "put" : "get") \(blockBytes >> 20) MiB depth \(depth)"
    }

    private static let conditions =
        "127.0.0.1, one connection, one thread a side, \(bytesPerRun >> 20) MiB a run out of 256 MiB, verified"

    private func throughputRows(
        _ world: TransportWorld, _ isPut: Bool, _ depth: Int, _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        let count = max(depth, Self.bytesPerRun / world.blockBytes)
        let gigabytes = Double(count * world.blockBytes) * 1e-9
        var ours: [LoadRun] = []
        var raw: [LoadRun] = []
        var passes: [Double] = []
        for turn in -1..<setting.pairCount {
            let pass = world.checksumPass()
            var run = LoadRun()
            if turn % 2 == 0 { run = try world.run(isPut: isPut, depth: depth, count: count) }
            let reference = try world.raw.run(isPut: isPut, depth: depth, count: count)
            if turn % 2 != 0 { run = try world.run(isPut: isPut, depth: depth, count: count) }
            guard turn >= 0 else { continue }
            ours.append(run)
            raw.append(reference)
            passes.append(pass)
        }
        let name = Self.group(isPut, depth, world.blockBytes)
        return [
            PairedRuns(
                ours: ours.map { $0.wall * 1000 / gigabytes }, references: raw.map { $0.wall * 1000 / gigabytes }
            ).row(name: name, unit: "ms/GB", referenceName: "raw sockets", conditions: Self.conditions),
            PairedRuns(
                ours: zip(ours, passes).map { ($0.processor / gigabytes - $1) * 1000 },
                references: raw.map { $0.processor * 1000 / gigabytes }
            ).row(
                name: name + " CPU", unit: "ms/GB", referenceName: "raw sockets",
                conditions: "client and server, without one checksum pass, which alone takes "
                    + "\(shortNumber(median(passes) * 1000)) ms/GB; \(Self.conditions)"),
        ]
    }

    /// A block of 16 MiB against blocks of 2 MiB, both ours.
    private func sizesRow(
        _ pair: TransportMemory, isPut: Bool, _ setting: BenchmarkSetting
    ) throws -> BenchmarkRow {
        let large = try TransportWorld(pair, blockBytes: 16 << 20)
        let small = try TransportWorld(pair, blockBytes: 2 << 20)
        defer {
            large.shutDown()
            small.shutDown()
        }
        func figure(_ world: TransportWorld) throws -> Double {
            let count = Self.bytesPerRun / world.blockBytes
            return try world.run(isPut: isPut, depth: 8, count: count).wall * 1e12
                / Double(count * world.blockBytes)
        }
        let runs = try PairedRuns(count: setting.pairCount) {
            try figure(large)
        } reference: {
            try figure(small)
        }
        return runs.row(
            name: "\(isPut ? "put" : "get") 16 MiB after 2 MiB", unit: "ms/GB", referenceName: "ours at 2 MiB",
            conditions: "8 under way; \(Self.conditions)")
    }

    private func latencyRows(
        _ world: TransportWorld, _ depth: Int, _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        let count = min(4000, max(64, Self.bytesPerRun / world.blockBytes))
        var ours: [LoadRun] = []
        var raw: [LoadRun] = []
        for turn in 0..<setting.longRunCount {
            if turn % 2 == 0 { ours.append(try world.run(isPut: false, depth: depth, count: count)) }
            raw.append(try world.raw.run(isPut: false, depth: depth, count: count))
            if turn % 2 == 1 { ours.append(try world.run(isPut: false, depth: depth, count: count)) }
        }
        let size =
            world.blockBytes >= 1 << 20 ? "\(world.blockBytes >> 20) MiB" : "\(world.blockBytes >> 10) KiB"
        return [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")].map { part, label in
            PairedRuns(ours: ours.map { $0.percentile(part) }, references: raw.map { $0.percentile(part) }).row(
                name: "get \(size) depth \(depth) \(label)", unit: "µs", referenceName: "raw sockets",
                conditions: "\(count) gets a run; \(Self.conditions)")
        }
    }

    private func existenceRow(_ pair: TransportMemory, _ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let world = try TransportWorld(pair, blockBytes: 64 << 10)
        defer { world.shutDown() }
        let calls = 2000
        let figures = try (-1..<setting.pairCount).map { _ in
            try world.lookUp(keys: 256, depth: 8, count: calls).wall * 1e6 / Double(calls * 256)
        }
        return boundRow(
            name: "existence of 256 keys a call", unit: "µs/key", measured: Array(figures.dropFirst()),
            bound: 1 / 1.6, boundName: "1.6 M keys/s",
            conditions: "8 calls under way; the transport's share: the host looks at no table; "
                + "127.0.0.1, one connection, one thread a side")
    }
}

/// The memory of both ends, the same for ours and the reference.
struct TransportMemory {
    let server: BlockMemory
    let client: BlockMemory

    /// Random bytes at the server.
    init(byteCount: Int) throws {
        server = try BlockMemory(byteCount: byteCount)
        client = try BlockMemory(byteCount: byteCount)
        var source = RandomSource(seed: 9)
        for memory in [server, client] {
            let words = unsafe memory.regions[0].bindMemory(to: UInt64.self)
            for index in 0..<words.count { unsafe words[index] = source.next() }
        }
    }
}

/// Both ends of ours and of the reference for blocks of one size.
final class TransportWorld {
    let blockBytes: Int
    let raw: RawSockets
    private let pair: TransportMemory
    private let host: MemoryHost
    private let load: ClientLoad
    private let blockCount: Int

    init(_ pair: TransportMemory, blockBytes: Int) throws {
        self.pair = pair
        self.blockBytes = blockBytes
        blockCount = unsafe pair.server.regions[0].count / blockBytes
        raw = try RawSockets(server: pair.server, client: pair.client, blockBytes: blockBytes)
        host = try MemoryHost(memory: pair.server, blockBytes: blockBytes)
        load = try ClientLoad(port: host.port, tenant: "bench", secret: MemoryHost.secret, memory: pair.client)
    }

    func shutDown() {
        load.shutDown()
        host.shutDown()
        raw.shutDown()
    }

    /// Gets (or puts) blocks in turn. What is put carries the checksum that its owner took when the block was made.
    func run(isPut: Bool, depth: Int, count: Int) throws -> LoadRun {
        let (blockBytes, blockCount, handle) = (blockBytes, blockCount, load.handle)
        let memory = pair.client
        guard isPut else {
            return try load.run(depth: depth, count: count) { position, slot in
                (
                    .get(handle, MemoryHost.name(position % blockCount)),
                    MemorySlice(offset: slot * blockBytes, count: blockBytes)
                )
            }
        }
        // The bytes of a slot are put under one name, so that their checksum can be taken before the clock runs.
        let checksums = (0..<depth).map { slot in
            unsafe BlockChecksum.of(
                MemoryHost.name(slot),
                UnsafeRawBufferPointer(memory[MemorySlice(offset: slot * blockBytes, count: blockBytes)]))
        }
        return try load.run(depth: depth, count: count) { _, slot in
            (
                .put(
                    handle, MemoryHost.name(slot), ObjectMetadata(), payloadBytes: blockBytes,
                    checksum: checksums[slot]), MemorySlice(offset: slot * blockBytes, count: blockBytes)
            )
        }
    }

    /// Asks for the presence of so many keys a call.
    func lookUp(keys: Int, depth: Int, count: Int) throws -> LoadRun {
        let names = (0..<keys).map(MemoryHost.name)
        let handle = load.handle
        return try load.run(depth: depth, count: count) { _, _ in (.lookUp(handle, names), nil) }
    }

    /// Seconds for the checksum of 10⁹ bytes in pieces as the transport takes them: received a moment ago.
    func checksumPass() -> Double {
        let bytes = unsafe UnsafeRawBufferPointer(pair.client[MemorySlice(offset: 0, count: 256 << 10)])
        let count = 512
        let taken = seconds {
            for block in 0..<count { unsafe keep(BlockChecksum.of(MemoryHost.name(block), bytes)) }
        }
        return taken / (Double(count * bytes.count) * 1e-9)
    }
}
