// What the `holdfast` policy reaches on real traces, as lower bounds: a change that costs hits shows here. They need
// the traces' folder in HOLDFAST_TRACES and skip aloud without it.

import Foundation
import KVModel
import KVSimulation
import KVTiering
import KVTrace
import Testing

private let folder = ProcessInfo.processInfo.environment["HOLDFAST_TRACES"]

@Suite(.enabled(if: folder != nil, "HOLDFAST_TRACES does not name the folder of the real traces"), .serialized)
struct HoldfastResultsTests {
    static let shares = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]

    @Test(arguments: [
        ("mooncake_conversation", [0.0861, 0.1180, 0.1621, 0.2348, 0.3034, 0.3559, 0.3706]),
        ("claudecode_a", [0.2331, 0.3963, 0.6234, 0.8838, 0.9430, 0.9584, 0.9613]),
        ("agent_miniswe_taubench", [0.0885, 0.1691, 0.3085, 0.5570, 0.7062, 0.8443, 0.9243]),
    ])
    func reachesWhatItReached(trace name: String, bounds: [Double]) throws {
        let trace = try Trace.read(from: try #require(folder) + "/" + name + ".jsonl.gz")
        var replay = try CacheOnlyReplay(trace)
        for (share, bound) in zip(Self.shares, bounds) {
            let capacity = max(1, Int(share * Double(trace.uniqueBlockCount)))
            let ours = replay.run(.holdfast, capacity: capacity).hitRatio
            #expect(ours >= bound, "\(name) at \(share): \(ours)")
            #expect(ours <= replay.run(.clairvoyant, capacity: capacity).hitRatio)
            let others = [PolicyName.lru, .s3fifo, .arc].map { replay.run($0, capacity: capacity).hitRatio }
            #expect(ours >= (others.max() ?? 0) - 0.003, "\(name) at \(share): \(ours) against \(others)")
        }
    }
}
