// The rules of a node's decisions, one by one.

import KVModel
import KVTiering
import Testing

@Suite struct TieringManagerTests {
    @Test func secondRequestHitsWhatTheFirstSaved() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<6, of: 1)
        #expect(serve(keys, request: 1, known: 0, &manager, &world)?.end == 0)
        #expect(serve(keys, request: 2, known: 6, &manager, &world)?.end == 6)
        #expect(manager.ledger[.firstSeen] == 96)
        #expect(manager.ledger[.dram] == 95)
        #expect(manager.ledger[.alwaysComputed] == 1)
        #expect(manager.ledger.total == 192)
        #expect(world.broken == [])
        #expect(manager.audit() == [])
    }

    @Test func anotherNodesBlocksComeFromTheSharedStore() {
        var first = TieringManager(smallConfiguration(hasStore: true))
        var second = TieringManager(smallConfiguration(hasStore: true))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 64))
        let keys = chain(0..<10, of: 1)
        serve(keys, request: 1, known: 0, &first, &world)
        #expect(first.counters.flashWrites == 10)
        world.content = [.dram: [:], .nvme: [:]]
        #expect(serve(keys, request: 2, known: 10, &second, &world)?.end == 10)
        #expect(second.ledger[.flash] == 159)
        #expect(second.ledger[.alwaysComputed] == 1)
        #expect(world.broken == [])
    }
}
