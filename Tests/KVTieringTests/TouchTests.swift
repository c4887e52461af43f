// Blocks that engines use out of their own memory: copies below are wanted, and nobody's request comes of it.

import KVModel
import KVTiering
import Testing

@Suite struct TouchTests {
    @Test func aTouchRenewsWhatIsThereAndIsNoRequest() {
        var manager = TieringManager(smallConfiguration(dramBlocks: 16))
        var world = ScriptedWorld(WorldScript())
        let chains = (1...4).map { chain(0..<4, of: UInt64($0)) }
        for number in 0..<3 { serve(chains[number], request: UInt32(number), &manager, &world) }
        let (counters, ledger) = (manager.counters, manager.ledger)
        // What nobody knows at its end brings nothing in.
        manager.handle(.touched(chain: (chains[0] + chain(0..<2, of: 9))[...]), in: &world)
        let isQuiet = world.isQuiet
        #expect(isQuiet)
        #expect(manager.counters == counters)
        #expect(manager.ledger == ledger)
        #expect(manager.story(of: chain(0..<1, of: 9)[0]) == nil)
        serve(chains[3], request: 7, &manager, &world)
        let kept = chains.map { manager.story(of: $0[3])?.isKeptInMemory }
        #expect(kept == [true, false, true, true])
        #expect(manager.audit() == [])
        #expect(manager.inFlight().users == 0)
    }

    @Test func whatIsIdleGoesInTheOrderOfItsLastUse() {
        var manager = TieringManager(smallConfiguration(dramBlocks: 16))
        var world = ScriptedWorld(WorldScript())
        let chains = (1...4).map { chain(0..<2, of: UInt64($0)) }
        for number in 0..<3 { serve(chains[number], request: UInt32(number), &manager, &world) }
        // Twelve blocks are kept, so the first two chains lie idle in the slots for staging.
        serve(chain(0..<10, of: 5), request: 7, &manager, &world)
        #expect(chains[..<3].map { manager.residentRun($0[...]) } == [2, 2, 2])
        manager.handle(.touched(chain: chains[0][...]), in: &world)
        serve(chains[3], request: 8, &manager, &world)
        #expect(chains.map { manager.residentRun($0[...]) } == [2, 0, 2, 2])
        #expect(manager.audit() == [])
    }

    /// What three requests of one size leave of a tier for two, after a touch between the second and the third.
    private func left(touching touched: [BlockNumber]) -> [Bool] {
        var policy = HoldfastPolicy(capacity: 8)
        var evicted: [BlockNumber] = []
        for (request, first) in [0, 4, 8].enumerated() {
            let path = (first..<first + 4).map { BlockNumber($0) }
            let now = Instant(nanoseconds: Int64(request == 2 ? 51 : request) * 1_000_000_000)
            if request == 2 { policy.touch(touched.span, at: Instant(nanoseconds: 50_000_000_000)) }
            policy.access(path.span, RequestContext(request: UInt32(request), now: now), evicted: &evicted)
        }
        return [3, 7, 11].map { policy.isResident($0) }
    }

    @Test func aTailUsedWholeWaitsAnewAndOneUsedInPartDoesNot() {
        let untouched = left(touching: [])
        #expect(untouched != left(touching: [0, 1, 2, 3]))
        #expect(left(touching: [0, 1, 2, 3])[0])
        #expect(left(touching: [0, 1]) == untouched)
        #expect(left(touching: [0, 1, 2, 3, 90]) == left(touching: [0, 1, 2, 3]), "what nobody knows is left out")
    }
}
