// The cache-only replay against libCacheSim's LRU, block reference by block reference, on the same stream.

import Foundation
import KVModel
import KVSimulation
import KVTiering
import KVTrace

struct ReplayBenchmark: Benchmark {
    let name = "replay"
    let purpose = "cache-only LRU against libCacheSim on the same trace; the modelled cluster against its bounds"

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        var rows = try clusterRows(setting)
        let names = setting.tracesFolder == nil ? ["generated"] : ["mooncake_conversation", "claudecode_a"]
        for name in names where setting.wants("replay \(name)") {
            let trace = try setting.trace(name)
            rows += try compare(trace, setting)
        }
        if let path = setting.realTrace("claudecode_a"), setting.wants("replay claudecode_a") {
            rows.append(try wholeRun(path, setting))
        }
        return rows
    }

    /// LRU at 5 % of the unique blocks: numbers on both sides, and then with our keys looked up too.
    private func compare(_ trace: Trace, _ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let replay = try CacheOnlyReplay(trace)
        let capacity = max(1, trace.uniqueBlockCount / 20)
        let references = Double(trace.blocks.count)
        let reference = try LibCacheSim(trace: trace, capacity: capacity, python: setting.python)

        var policy = LRUPolicy(capacity: capacity)
        let counted = replay.run(&policy)
        let misses = Double(counted.evictedBlocks + policy.residentCount) / references
        let theirs = try reference.run()
        guard abs(theirs.missRatio - misses) < 1e-9 else {
            throw OperatorError("ours misses \(misses) of the references, libCacheSim \(theirs.missRatio)")
        }

        let conditions =
            "\(trace.name), \(trace.blocks.count) references, \(capacity) blocks, both miss "
            + String(format: "%.4f", misses)
            + ", processor time of one core; libCacheSim reads an oracleGeneral file in its own C loop"
        let numbered = try PairedRuns(count: setting.pairCount) {
            seconds { keep(self.replayOnce(replay, capacity)) } / references * 1e9
        } reference: {
            try reference.run().seconds / references * 1e9
        }
        let keyed = try PairedRuns(count: setting.pairCount) {
            seconds { keep(self.keyedReplay(trace, capacity)) } / references * 1e9
        } reference: {
            try reference.run().seconds / references * 1e9
        }
        return [
            numbered.row(
                name: "replay lru \(trace.name)", unit: "ns/reference", referenceName: "libCacheSim LRU",
                conditions: "ours on dense numbers, hit runs included; \(conditions)"),
            keyed.row(
                name: "replay keyed \(trace.name)", unit: "ns/reference", referenceName: "libCacheSim LRU",
                conditions: "ours from 128-bit keys through the block index, hit runs included; \(conditions)"),
        ]
    }

    private func replayOnce(_ replay: CacheOnlyReplay, _ capacity: Int) -> Int {
        var policy = LRUPolicy(capacity: capacity)
        return replay.run(&policy).hitBlocks
    }

    /// The same replay as an agent would do it: each reference arrives as a key, and the index gives its number.
    private func keyedReplay(_ trace: Trace, _ capacity: Int) -> Int {
        var index = BlockIndex()
        var policy = LRUPolicy(capacity: capacity)
        var keys: [BlockKey] = []
        var path: [BlockNumber] = []
        var evicted: [BlockNumber] = []
        var hitBlocks = 0
        for (number, request) in trace.requests.enumerated() {
            keys.removeAll(keepingCapacity: true)
            for block in trace.path(of: request) { keys.append(BlockKey(traceBlock: UInt64(block))) }
            path.removeAll(keepingCapacity: true)
            let known = index.longestRun(keys.span, into: &path)
            index.insert(keys.span.extracting(droppingFirst: known), into: &path)
            hitBlocks += policy.hitRun(path.span)
            policy.access(
                path.span, RequestContext(request: UInt32(number), now: request.arrival), evicted: &evicted)
            evicted.removeAll(keepingCapacity: true)
        }
        return hitBlocks
    }

    /// The whole of `replay --cache-only --policy lru`: reading, unpacking and counting.
    private func wholeRun(_ path: String, _ setting: BenchmarkSetting) throws -> BenchmarkRow {
        var measured: [Double] = []
        var references = 0
        for _ in 0..<setting.longRunCount {
            measured.append(
                try wallSeconds {
                    let trace = try Trace.read(from: path)
                    references = trace.blocks.count
                    let replay = try CacheOnlyReplay(trace)
                    keep(replayOnce(replay, trace.uniqueBlockCount / 20))
                })
        }
        return boundRow(
            name: "replay claudecode_a, read and all", unit: "s", measured: measured, bound: 10,
            boundName: "the bound of 10 s",
            conditions: "reading the gzip file and one LRU replay of \(references) references; \(measured.count) runs")
    }
}
