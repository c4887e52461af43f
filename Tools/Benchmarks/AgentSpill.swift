// Blocks all the way: out of an engine's memory, through an agent, into a store's flash; and back to an engine through an agent
// that does not have them. Beside each, the flash engine alone with as many bytes; and what each hop takes of the processors.

import Foundation
import KVAgent
import KVModel
import KVSystem
import KVTransport

extension AgentBenchmark {
    private static let blockBytes = 2 << 20
    /// Blocks of one run: half a GiB.
    private static let runBlocks = 256
    /// Blocks of one request that loads.
    private static let requestBlocks = 32

    func spill(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "holdfast-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let store = try StoreWorld(
            path: folder.appendingPathComponent("store").path, clientMemory: BlockMemory(byteCount: 16 << 20)
        ) { configuration in
            configuration.size = 3 << 30
            configuration.dram = 64 << 20
        }
        defer { store.shutDown() }
        // Every extent once, as the reference's drive is written once: a new file's first write to a place costs more.
        _ = try store.put(set: 90, blockBytes: 16 << 20, depth: 1, count: 160)
        try store.delete(set: 90, count: 160)
        let flash = try FlashLoad(path: folder.appendingPathComponent("drive").path, byteCount: 1 << 30)
        defer { flash.drive.shutDown() }
        try flash.learn(Self.blockBytes)
        return [try wayThere(store, flash, setting), try wayBack(store, flash, setting)]
    }

    private static let gigabytes = Double(runBlocks * blockBytes) * 1e-9

    private func world(of store: StoreWorld, dram: Int) throws -> (world: AgentWorld, engine: BenchEngine) {
        let world = try AgentWorld(dram: dram, blockBytes: Self.blockBytes, storeSecret: StoreWorld.secret) {
            $0.store = "127.0.0.1:\(store.port)"
            $0.tenant = "bench"
            $0.policy = .lru
            $0.ask = 1
        }
        let engine = try world.engine(bytes: Self.runBlocks * Self.blockBytes)
        let deadline = MonotonicClock.now + Duration(seconds: 20)
        while world.sidecar.agent?.status.store?.isUsable != true {
            guard MonotonicClock.now < deadline else { throw OperatorError("the agent does not reach the store") }
            Thread.sleep(forTimeInterval: 0.01)
        }
        return (world, engine)
    }

    /// Saved by an engine as fast as the agent takes it, until all of it is restart-safe in the store.
    private func wayThere(_ store: StoreWorld, _ flash: FlashLoad, _ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let (world, engine) = try world(of: store, dram: 2 << 30)
        defer { world.shutDown() }
        var chain = 0
        var hops = HopTimes()
        let pairs = try PairedRuns(
            count: setting.longRunCount,
            ours: {
                chain += 1
                let names = AgentWorld.names(chain: chain, Self.runBlocks)
                let before = HopTimes.now
                let wall = try wallSeconds {
                    try engine.save(names, rows: Self.runBlocks)
                    try world.rest()
                }
                hops.add(HopTimes.now, since: before)
                guard try store.holds(names) else { throw OperatorError("not all blocks reached the store") }
                try store.delete(names)
                return wall * 1000 / Self.gigabytes
            },
            reference: {
                let seed = UInt64(chain)
                return try flash.write(Self.blockBytes, depth: 8, count: Self.runBlocks, sums: false, seed: seed).wall
                    * 1000
            })
        return pairs.row(
            name: "agent: 512 MiB from an engine to the store's flash", unit: "ms/GB",
            referenceName: "flash engine, written at depth 8",
            conditions:
                "blocks of 2 MiB, copied once, checksum taken once and compared at the store, restart-safe; engine, "
                + "agent and store on this machine over TCP; processor time, ms/GB: \(hops.text(perGigabyteOf: Self.gigabytes))"
        )
    }

    /// Loaded by an engine whose agent's memory is too small for them, in turn, so that each comes from the store's flash.
    private func wayBack(_ store: StoreWorld, _ flash: FlashLoad, _ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let requests = 3 * Self.runBlocks / Self.requestBlocks
        let names = (0..<requests).map { AgentWorld.names(chain: 10_000 + $0, Self.requestBlocks) }
        do {
            let (world, engine) = try world(of: store, dram: 2 << 30)
            defer { world.shutDown() }
            for names in names { try engine.save(names, rows: Self.requestBlocks) }
            try world.rest()
        }
        let (world, engine) = try world(of: store, dram: 256 << 20)
        defer { world.shutDown() }
        var next = 0
        var hops = HopTimes()
        let pairs = try PairedRuns(
            count: setting.longRunCount,
            ours: {
                let before = HopTimes.now
                let wall = try wallSeconds {
                    for request in 0..<Self.runBlocks / Self.requestBlocks {
                        let came = engine.load(names[next % requests], row: request * Self.requestBlocks)
                        guard came == Self.requestBlocks else {
                            throw OperatorError("\(came) blocks of a request came")
                        }
                        next += 1
                    }
                }
                hops.add(HopTimes.now, since: before)
                return wall * 1000 / Self.gigabytes
            },
            reference: {
                let seed = UInt64(next)
                return try flash.read(
                    Self.blockBytes, depth: 8, count: Self.runBlocks, verifies: false, seed: seed
                ).wall * 1000
            })
        return pairs.row(
            name: "agent: 512 MiB from the store's flash to an engine", unit: "ms/GB",
            referenceName: "flash engine, read at depth 8",
            conditions:
                "requests of 64 MiB one after the other, blocks of 2 MiB, checksums compared at the store and at the "
                + "agent; engine, agent and store on this machine over TCP; processor time, ms/GB: "
                + hops.text(perGigabyteOf: Self.gigabytes))
    }
}

/// Processor time of this process's threads, by what they do for a block on its way.
private struct HopTimes {
    private static let hops: [(name: String, threads: [String])] = [
        ("decisions", ["hf-agent"]), ("copies", ["hf-copy"]), ("client's side of the wire", ["kv-client"]),
        ("store's side", ["kv-lane"]), ("store's decisions", ["hf-store", "hf-checksum"]),
        ("drive", ["flash-", "iou-"]),
    ]
    private var nanoseconds = [Int](repeating: 0, count: hops.count)
    private var runs = 0

    /// Of each thread that is there.
    static var now: [String: (hop: Int, nanoseconds: Int)] {
        let folder = "/proc/self/task"
        var times: [String: (hop: Int, nanoseconds: Int)] = [:]
        for thread in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] {
            guard let name = try? String(contentsOfFile: "\(folder)/\(thread)/comm", encoding: .utf8),
                let hop = hops.firstIndex(where: { $0.threads.contains { name.hasPrefix($0) } }),
                let text = try? String(contentsOfFile: "\(folder)/\(thread)/schedstat", encoding: .utf8),
                let time = text.split(separator: " ").first.flatMap({ Int($0) })
            else { continue }
            times[thread] = (hop, time)
        }
        return times
    }

    mutating func add(
        _ after: [String: (hop: Int, nanoseconds: Int)], since before: [String: (hop: Int, nanoseconds: Int)]
    ) {
        runs += 1
        for (thread, time) in after { nanoseconds[time.hop] += time.nanoseconds - (before[thread]?.nanoseconds ?? 0) }
    }

    func text(perGigabyteOf gigabytes: Double) -> String {
        zip(Self.hops, nanoseconds).map { hop, time in
            "\(hop.name) \(shortNumber(Double(time) * 1e-6 / gigabytes / Double(max(1, runs))))"
        }.joined(separator: ", ")
    }
}
