// The `holdfast` policy beside LRU, S3-FIFO and ARC on our own synthetic traces: nowhere far below the best of the three,
// whatever the size of the tier. These always run. The bound on real traces is in `HoldfastResultsTests.swift`.

import Foundation
import KVModel
import KVSimulation
import KVTiering
import KVTrace
import Testing

@Suite struct HoldfastBoundTests {
    static let shares = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]

    /// Expects `holdfast` to hit no more than `bound` of all tokens less than the best of the three, at every size.
    private func expectNearTheBest(_ trace: Trace, bound: Double) throws {
        var replay = try CacheOnlyReplay(trace)
        for share in Self.shares {
            let capacity = max(1, Int(share * Double(trace.uniqueBlockCount)))
            let ours = replay.run(.holdfast, capacity: capacity).hitRatio
            let others = [PolicyName.lru, .s3fifo, .arc].map { replay.run($0, capacity: capacity).hitRatio }
            let best = try #require(others.max())
            #expect(ours >= best - bound, "\(trace.name) at \(share): \(ours) against \(others)")
        }
    }

    /// Requests fill in templates, each of them answered once.
    private func templates(skew: Double, templates: Double, perSecond: Double, seconds: Double, seed: UInt64) throws
        -> Trace
    {
        var workload = try #require(SyntheticWorkload(kind: "templates"))
        try workload.set("templates.skew", to: skew)
        try workload.set("templates.templates", to: templates)
        return try SyntheticTrace.make(
            SyntheticSpecification(
                seed: seed, durationSeconds: seconds, parts: [.init(workload, sessionsPerSecond: perSecond)]))
    }

    @Test(arguments: [0.5, 0.7, 0.8, 1.0, 1.1, 1.2, 1.4])
    func generatedTemplatesOfAnySkew(skew: Double) throws {
        let trace = try templates(skew: skew, templates: 200, perSecond: 5, seconds: 600, seed: 1)
        try expectNearTheBest(trace, bound: 0.003)
        let many = try templates(skew: skew, templates: 1000, perSecond: 3, seconds: 1200, seed: 2)
        try expectNearTheBest(many, bound: 0.003)
    }

    /// The committed traces, and what the policy is held to on each. On the shortest, of some hundred requests, a few
    /// long prompts are more than the bound.
    @Test(arguments: [
        ("templates", 0.003), ("mooncake", 0.003), ("agent", 0.003), ("rag", 0.003), ("chat", 0.008),
        ("default", 0.003),
    ])
    func committedTraces(name: String, bound: Double) throws {
        let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Traces").path
        try expectNearTheBest(try Trace.read(from: "\(folder)/\(name).jsonl.gz"), bound: bound)
    }
}
