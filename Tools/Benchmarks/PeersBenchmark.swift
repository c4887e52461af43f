// The stores that people would use instead, beside ours: redis, memcached and Mooncake Store over TCP on this machine.
// Like with like: what keeps blocks in memory against our transport, what makes them survive against our store on a file.

import Foundation
import KVModel
import KVSystem

struct PeersBenchmark: Benchmark {
    let name = "peers"
    let purpose = "redis, memcached and Mooncake Store over TCP, beside ours: throughput and processor time"

    private static let bytesPerRun = 128 << 20
    private static let depth = 4
    private static let sizes = [2 << 20, 4 << 20, 16 << 20]

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "holdfast-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let pair = try TransportMemory(byteCount: 256 << 20)
        return try memoryRows(pair, folder.path, setting) + durableRows(pair, folder.path, setting)
    }

    private func redis(_ port: UInt16, _ more: [String]) -> [String] {
        ["redis-server", "--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--protected-mode", "no"] + more
    }

    // MARK: Memory

    private func memoryRows(
        _ pair: TransportMemory, _ folder: String, _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        var peers: [any PeerStore] = []
        defer { for peer in peers { peer.stop() } }
        peers.append(
            try TextPeer("redis", .redis, pair.client, folder: folder) { redis($0, ["--appendonly", "no"]) })
        peers.append(
            try TextPeer("memcached", .memcached, pair.client, folder: folder) {
                ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", "\($0)", "-m", "1024", "-I", "32m"]
            })
        if let python = setting.peersPython {
            let script = FileManager.default.currentDirectoryPath + "/Tools/Benchmarks/mooncake_peer.py"
            peers.append(try MooncakePeer(python: python, script: script, folder: folder))
        } else {
            note("peers: without Mooncake Store (--peers-python names a Python that has it)")
        }
        var rows: [BenchmarkRow] = []
        for blockBytes in Self.sizes {
            for isPut in [true, false] {
                // Its host knows the checksums of what lay there when it began: puts change that.
                let world = try TransportWorld(pair, blockBytes: blockBytes)
                defer { world.shutDown() }
                for peer in peers {
                    rows += try self.rows(peer, isPut: isPut, blockBytes, setting, "blocks in memory") { count in
                        try world.run(isPut: isPut, depth: Self.depth, count: count)
                    }
                }
            }
        }
        return rows
    }

    // MARK: What survives

    private func durableRows(
        _ pair: TransportMemory, _ folder: String, _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        let peer = try TextPeer("redis, appendfsync always", .redis, pair.client, folder: folder) {
            redis($0, ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"])
        }
        defer { peer.stop() }
        let store = try StoreWorld(path: folder + "/store", clientMemory: pair.client) { configuration in
            configuration.size = 1 << 30
            configuration.dram = 320 << 20
        }
        defer { store.shutDown() }
        var rows: [BenchmarkRow] = []
        var set = 0
        for blockBytes in Self.sizes {
            let total = Self.bytesPerRun / blockBytes
            rows += try self.rows(peer, isPut: true, blockBytes, setting, "safe on disk before the answer") { count in
                if set > 0 { try store.delete(set: set, count: max(count, Self.bytesPerRun / Self.sizes[0])) }
                set += 1
                return try store.put(set: set, blockBytes: blockBytes, depth: Self.depth, count: count)
            }
            rows += try self.rows(
                peer, isPut: false, blockBytes, setting, "redis from its memory, ours from memory where it has a copy"
            ) { count in
                try store.get(
                    set: set, of: total, blockBytes: blockBytes, depth: Self.depth, count: count, seed: 7)
            }
        }
        return rows
    }

    private func rows(
        _ peer: any PeerStore, isPut: Bool, _ blockBytes: Int, _ setting: BenchmarkSetting, _ conditions: String,
        ours: (Int) throws -> LoadRun
    ) throws -> [BenchmarkRow] {
        let name = "\(isPut ? "put" : "get") \(blockBytes >> 20) MiB beside \(peer.name)"
        guard setting.wants(name) || isPut else { return [] }
        let count = Self.bytesPerRun / blockBytes
        let gigabytes = Double(count * blockBytes) * 1e-9
        var our: [LoadRun] = []
        var theirs: [LoadRun] = []
        for turn in -1..<setting.longRunCount {
            if turn % 2 == 0 { our.append(try ours(count)) }
            let run = try peer.run(isPut: isPut, blockBytes: blockBytes, depth: Self.depth, count: count)
            if turn >= 0 { theirs.append(run) }
            if turn % 2 != 0 {
                let run = try ours(count)
                if turn >= 0 { our.append(run) }
            }
        }
        let text =
            "\(conditions), \(Self.depth) under way, one connection; ours with its checksum verified, the peer without; "
            + "\(count) blocks a run"
        return [
            PairedRuns(
                ours: our.map { $0.wall * 1000 / gigabytes }, references: theirs.map { $0.wall * 1000 / gigabytes }
            ).row(name: name, unit: "ms/GB", referenceName: peer.name, conditions: text),
            PairedRuns(
                ours: our.map { $0.processor * 1000 / gigabytes },
                references: theirs.map { $0.processor * 1000 / gigabytes }
            ).row(name: name + " CPU", unit: "ms/GB", referenceName: peer.name, conditions: text + "; both ends"),
        ]
    }
}
