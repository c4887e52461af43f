// The swarm of simulated faults as a test: fixed seeds under every fault break no rule, the same seed gives the same run,
// and each planted bug is seen.

import KVSimulation
import Testing

@Suite struct SimulationTests {
    @Test func aSwarmOfSeedsBreaksNoRule() async {
        let result = await SimulationSwarm(firstSeed: 1, seeds: 400, seconds: 6).run(threads: 2)
        for failure in result.failures {
            Issue.record(
                """
                holdfast simulate --seconds 6 --seed \(failure.seed)
                \(failure.broken.prefix(3).joined(separator: "; ")) at \(failure.brokenAt) s
                """)
        }
        // A swarm in which nothing happens proves nothing.
        for fault in SimulationFault.allCases {
            #expect(result.seedsOfFault[fault, default: 0] > 0, "no seed meets \(fault)")
        }
        #expect(result.counts.servedTokens > 0)
        #expect(result.counts.loadsCut > 0)
        #expect(result.counts.blocksCorrupt > 0)
        #expect(result.counts.crashes > 0)
        #expect(result.counts.pins > 0)
        #expect(result.counts.blocksLent > 0)
        #expect(result.counts.slotsAdopted > 0)
        // A store that was gone, silent or emptied is used again.
        #expect(result.counts.flashTokensWhenCalm > 0)
    }

    /// Seeds that found something, with what it was.
    @Test(
        arguments: [
            (67, 6, "a pinned block of an exclusive lower tier moved up and could then be lost from both"),
            (756, 6, "a prediction held a block whose transfer had found no room, and never let go"),
            (1147, 20, "a load's deadline, met with the end of its last transfer, cancelled that transfer"),
            (132, 20, "a block of the store that one node found corrupt was taken from another that read it"),
            (10167, 20, "the same, in another order"),
        ] as [(UInt64, Double, String)])
    func whatASeedFoundStaysFixed(_ seed: UInt64, _ seconds: Double, _ what: String) {
        #expect(Simulation(seed: seed, seconds: seconds).run().broken == [], "\(what)")
    }

    @Test(arguments: SimulationFault.allCases)
    func noFaultKeepsARequestWaiting(under fault: SimulationFault) async {
        let result = await SimulationSwarm(firstSeed: 9000, seeds: 12, seconds: 4, faults: [fault]).run(threads: 2)
        #expect(result.failures.isEmpty)
        #expect(!result.waits.isEmpty)
        for wait in result.waits {
            #expect(wait.ratioP99 <= 1, "time to ready beyond 1.1 × min(load, recompute) + D under \(fault)")
        }
    }

    @Test func theSameSeedGivesTheSameRun() {
        for seed in [3, 14] as [UInt64] {
            let first = Simulation(seed: seed, seconds: 3).run()
            let second = Simulation(seed: seed, seconds: 3).run()
            #expect(first.digest == second.digest)
            #expect(first.counts == second.counts)
            #expect(first.digest != Simulation(seed: seed + 1, seconds: 3).run().digest)
        }
    }

    @Test(arguments: PlantedBug.allCases)
    func aPlantedBugIsSeen(_ bug: PlantedBug) {
        for seed in 1...60 as ClosedRange<UInt64> {
            let result = Simulation(seed: seed, seconds: 4, planted: bug).run()
            if !result.broken.isEmpty { return }
        }
        Issue.record("60 seeds do not show \(bug)")
    }
}
