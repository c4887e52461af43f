// The agent beside what people would use in its place on one machine: Mooncake Store, whose client asks a lender of memory.

import Foundation
import KVAgent
import KVModel
import KVSystem

extension AgentBenchmark {
    private static let blockBytes = 2 << 20
    private static let runBlocks = 64
    private static let chainBlocks = 1000

    func peers(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        guard let python = setting.peersPython else {
            note("agent: without Mooncake Store (--peers-python names a Python that has it)")
            return []
        }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "holdfast-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let script = FileManager.default.currentDirectoryPath + "/Tools/Benchmarks/mooncake_peer.py"
        let peer = try MooncakePeer(python: python, script: script, folder: folder.path)
        defer { peer.stop() }
        return [try lookUps(peer, setting)] + (try transfers(peer, setting))
    }

    private func lookUps(_ peer: MooncakePeer, _ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let world = try AgentWorld(dram: 64 << 20, blockBytes: 4096)
        defer { world.shutDown() }
        let engine = try world.engine(bytes: Self.chainBlocks * 4096)
        let names = AgentWorld.names(chain: 1, Self.chainBlocks)
        try engine.save(names, rows: Self.chainBlocks)
        let pairs = try PairedRuns(
            count: setting.longRunCount,
            ours: {
                median(
                    try (0..<200).map { _ in
                        let (took, hits) = engine.lookUpSeconds(names)
                        guard hits == Self.chainBlocks else { throw OperatorError("\(hits) blocks were found") }
                        return took * 1e6
                    })
            },
            reference: { try peer.lookUpSeconds(keys: Self.chainBlocks, calls: 200) * 1e6 })
        return pairs.row(
            name: "agent: look-up of 1,000 blocks, p50, beside \(peer.name)", unit: "µs",
            referenceName: "its batch_is_exist of 1,000 keys, from Python",
            conditions: "all are there; ours finds the longest run of a chain, through its socket; wall time")
    }

    private func transfers(_ peer: MooncakePeer, _ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let world = try AgentWorld(dram: 1 << 30, blockBytes: Self.blockBytes)
        defer { world.shutDown() }
        let engine = try world.engine(bytes: 2 * Self.runBlocks * Self.blockBytes)
        let gigabytes = Double(Self.runBlocks * Self.blockBytes) * 1e-9
        var chain = 0
        return try [true, false].map { isPut in
            let pairs = try PairedRuns(
                count: setting.longRunCount,
                ours: {
                    if isPut { chain += 1 }
                    let names = AgentWorld.names(chain: chain, Self.runBlocks)
                    return try wallSeconds {
                        if isPut { return try engine.save(names, rows: Self.runBlocks) }
                        guard engine.load(names, row: Self.runBlocks) == Self.runBlocks else {
                            throw OperatorError("not all blocks came")
                        }
                    } * 1000 / gigabytes
                },
                reference: {
                    let run = try peer.run(
                        isPut: isPut, blockBytes: Self.blockBytes, depth: Self.runBlocks, count: Self.runBlocks)
                    return run.wall * 1000 / gigabytes
                })
            return pairs.row(
                name: "agent: \(isPut ? "save" : "load") of 128 MiB, 2 MiB, beside \(peer.name)", unit: "ms/GB",
                referenceName: "its batch_\(isPut ? "put_from" : "get_into") over TCP",
                conditions: "engine-owned, ours with checksums and its look-up; one call each; wall time")
        }
    }
}
