// `flush` and the deletion of a namespace are promises about restarts: answered when nothing of it would come back.

import Foundation
import KVModel
import KVStore
import KVTransport
import Testing

@Suite struct ClearingRuleTests {
    private func name(_ number: Int) -> ObjectName { StoreModelTests.name(number) }

    private func order(_ world: inout ScriptedStore, _ verb: String, _ json: String) -> RequestID {
        world.request(.administer(verb: verb, arguments: Array(json.utf8)))
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6] as [UInt64])
    func whatWasFlushedStaysAwayAfterACrash(seed: UInt64) throws {
        var world = try ScriptedStore(seed: seed, driveCount: 2)
        let handle = world.open("n")
        for number in 0..<40 {
            _ = world.put(handle, name(number), token: UInt64(number))
            world.runUntilQuiet()
        }
        // Some are on their way out already when the order comes.
        _ = world.request(.delete(handle, [name(3), name(4)]))
        let flush = order(&world, "flush", "{}")
        #expect(world.responses[flush] == nil)
        while world.responses[flush] == nil { world.step() }
        #expect(world.drives.allSatisfy { $0.headers.isEmpty }, "answered before the tombstones are durable")
        guard case .text(let json)? = world.responses[flush]?.body else { return #expect(Bool(false)) }
        #expect(try JSONDecoder().decode(OrderResult.self, from: Data(json)).removed == 38)
        try world.crash()
        #expect(world.store.status().objects == 0)
        #expect(world.complaint == nil)
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6] as [UInt64])
    func aNamespaceLeavesTheCatalogueAfterItsBlocksAndAfterThePutsUnderWay(seed: UInt64) throws {
        var world = try ScriptedStore(seed: seed, faults: StoreFaults(failedWrites: 0.2))
        world.set("n", NamespacePolicy())
        let handle = world.open("n")
        for number in 0..<20 {
            _ = world.put(handle, name(number), token: UInt64(number))
            world.runUntilQuiet()
        }
        for number in 20..<26 { _ = world.put(handle, name(number), token: UInt64(number)) }
        let deleted = order(&world, "namespace-delete", #"{"namespace":"n","force":true}"#)
        let late = world.put(handle, name(30), token: 30)
        #expect(world.responses[late]?.status == .absent)
        let again = world.request(.openNamespace(name: "n"))
        #expect(world.responses[again]?.status == .busy)
        while world.responses[deleted] == nil {
            world.step()
            let isKnown = world.catalogueNamespaces["n"] != nil
            #expect(isKnown || world.drives[0].headers.isEmpty, "blocks without settings")
        }
        #expect(world.responses[deleted]?.status == .ok)
        #expect(world.catalogueNamespaces["n"] == nil && world.drives[0].headers.isEmpty)
        try world.crash()
        #expect(world.store.status().objects == 0 && world.store.status().namespaces.isEmpty)
        #expect(world.complaint == nil)
    }

    @Test func blocksThatCouldNotBeErasedAreSaidToBe() throws {
        var world = try ScriptedStore(seed: 7)
        world.set("n", NamespacePolicy())
        let handle = world.open("n")
        // Fewer than the failures in a row that end a drive.
        for number in 0..<5 {
            _ = world.put(handle, name(number), token: UInt64(number))
            world.runUntilQuiet()
        }
        world.faults.failedErasures = 1
        let deleted = order(&world, "namespace-delete", #"{"namespace":"n","force":true}"#)
        world.runUntilQuiet()
        #expect(world.responses[deleted]?.status == .failed)
        guard case .text(let why)? = world.responses[deleted]?.body else { return #expect(Bool(false)) }
        #expect(String(decoding: why, as: UTF8.self).contains("may come back at a restart; the namespace stays"))
        #expect(world.catalogueNamespaces["n"] != nil)
        world.faults.failedErasures = 0
        let put = world.put(handle, name(50), token: 50)
        world.runUntilQuiet()
        #expect(world.responses[put]?.status == .ok, "it can be used again")
        #expect(world.complaint == nil)
    }

    @Test func emptyingALargeStoreIsDoneInSlicesWhileOthersAreServed() throws {
        var world = try ScriptedStore(seed: 8, driveExtents: 40_000)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 1)
        world.runUntilQuiet()
        let session = world.session
        var commands: [StoreOutput] = []
        world.store.handle(
            .session(.request(RequestID(session: session, number: 900), .administer(verb: "flush", arguments: []))),
            at: world.now, into: &commands)
        // Three slices for 40,000 records: the first turn does not walk them all.
        #expect(world.store.work(at: world.now, into: &commands))
        world.store.handle(
            .session(.request(RequestID(session: session, number: 901), .lookUp(handle, [name(1)]))), at: world.now,
            into: &commands)
        let answered = commands.contains {
            if case .session(.reply(let request, _)) = $0 { request.number == 901 } else { false }
        }
        #expect(answered)
    }
}
