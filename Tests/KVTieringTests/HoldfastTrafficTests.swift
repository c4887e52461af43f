// The `holdfast` policy beside LRU, S3-FIFO and ARC on generated traffic: nowhere more than 0.003 below the best of
// the three, whatever the size of the tier.

import KVModel
import KVTiering
import Testing

@Suite struct HoldfastTrafficTests {
    static let shares = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]

    /// Hit blocks over all blocks, by leading runs on the state before each request.
    private func hitRatio<Policy: TierPolicy>(_ traffic: HoldfastTraffic, _ policy: Policy) -> Double {
        var policy = policy
        var hits = 0
        var blocks = 0
        var evicted: [BlockNumber] = []
        for (index, path) in traffic.paths.enumerated() {
            hits += policy.hitRun(path.span)
            blocks += path.count
            let context = RequestContext(request: UInt32(index), now: traffic.times[index])
            policy.access(path.span, context, evicted: &evicted)
            evicted.removeAll(keepingCapacity: true)
        }
        return Double(hits) / Double(blocks)
    }

    private func isNearTheBest(_ traffic: HoldfastTraffic, _ name: String) {
        for share in Self.shares {
            let capacity = max(1, Int(share * Double(traffic.uniqueBlocks)))
            let best = max(
                hitRatio(traffic, LRUPolicy(capacity: capacity)), hitRatio(traffic, S3FIFOPolicy(capacity: capacity)),
                hitRatio(traffic, ARCPolicy(capacity: capacity)))
            let ours = hitRatio(traffic, HoldfastPolicy(capacity: capacity))
            #expect(ours >= best - 0.003, "\(name) at \(share): \(ours) against \(best)")
        }
    }

    @Test(arguments: [0.6, 0.8, 1.0, 1.2, 1.4])
    func templatesOfAnySkew(skew: Double) {
        isNearTheBest(.templates(1000, skew: skew, requests: 12_000, seed: 1), "templates of skew \(skew)")
    }

    @Test func templatesWhosePopularityDrifts() {
        isNearTheBest(.templates(3000, skew: 1, drift: 500, requests: 12_000, seed: 2), "drifting templates")
    }

    @Test func templatesUnderLongQuestions() {
        isNearTheBest(.templates(200, skew: 0.9, suffix: 30, requests: 8000, seed: 3), "long questions")
    }

    @Test func chatThatOnlyRecencyPredicts() {
        isNearTheBest(.chat(pause: 60, turns: 4, requests: 16_000, seed: 4), "chat")
    }

    @Test func loopsLongerThanTheTier() { isNearTheBest(.loop(prompts: 200, requests: 5000, seed: 5), "loop") }

    @Test func trafficThatChangesItsNature() { isNearTheBest(.phases(of: 2000, requests: 12_000, seed: 6), "phases") }

    @Test func aTurnThatAddsFarMoreThanTurnsDoIsKnownByIt() {
        // Without that, 0.42; least recently used, 0.35.
        let traffic = HoldfastTraffic.texts(requests: 12_000, seed: 8)
        #expect(hitRatio(traffic, HoldfastPolicy(capacity: 5000)) > 0.5)
    }

    @Test func aLoopLongerThanTheTierIsKeptInPart() {
        // Where everybody else keeps nothing, refusing newcomers keeps what fits.
        let traffic = HoldfastTraffic.loop(prompts: 200, requests: 5000, seed: 7)
        #expect(hitRatio(traffic, LRUPolicy(capacity: 2000)) == 0)
        #expect(hitRatio(traffic, HoldfastPolicy(capacity: 2000)) > 0.4)
    }
}
