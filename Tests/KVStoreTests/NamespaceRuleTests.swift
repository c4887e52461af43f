// Namespaces: settings change as a whole or not at all, one tenant cannot take all numbers, lists come in pages.

import Foundation
import KVModel
import KVStore
import KVTransport
import Testing

@Suite struct NamespaceRuleTests {
    private func name(_ number: Int) -> ObjectName { StoreModelTests.name(number) }

    private func order(_ world: inout ScriptedStore, _ verb: String, _ json: String) -> RequestID {
        world.request(.administer(verb: verb, arguments: Array(json.utf8)))
    }

    private func policy(_ world: borrowing ScriptedStore, _ name: String) -> NamespacePolicy? {
        world.store.status().namespaces.first { $0.name == name }?.policy
    }

    @Test func changesOfSettingsAreMergedAlsoWhenTheyCrossEachOther() throws {
        var world = try ScriptedStore(seed: 1)
        var first = NamespacePolicy()
        first.quotaBytes = 20 * ScriptedStore.extentBytes
        first.tenants = ["a"]
        world.set("n", first)
        _ = order(&world, "namespace-set", #"{"namespace":"n","policy":{"pinQuotaBytes":65536}}"#)
        _ = order(&world, "namespace-set", #"{"namespace":"n","policy":{"retentionSeconds":9,"tenants":["b"]}}"#)
        world.runUntilQuiet()
        var wanted = first
        wanted.pinQuotaBytes = 65536
        wanted.retentionSeconds = 9
        wanted.tenants = ["b"]
        #expect(policy(world, "n") == wanted)
        #expect(world.catalogueNamespaces["n"] == wanted, "the catalogue has what is in force")
    }

    @Test func aChangeThatTheCatalogueRefusesIsNotInForce() throws {
        var world = try ScriptedStore(seed: 2)
        world.set("n", NamespacePolicy())
        world.faults.failedCatalogue = 1
        let changed = order(&world, "namespace-set", #"{"namespace":"n","policy":{"quotaBytes":65536}}"#)
        let made = order(&world, "namespace-set", #"{"namespace":"new","policy":{"quotaBytes":65536}}"#)
        world.runUntilQuiet()
        #expect(world.responses[changed]?.status == .failed)
        #expect(world.responses[made]?.status == .failed)
        #expect(policy(world, "n") == NamespacePolicy())
        #expect(policy(world, "new") == nil)
    }

    @Test func aTenantMakesSoManyNamespacesAndIsToldWhy() throws {
        var world = try ScriptedStore(seed: 3)
        let guest = SessionID(transport: 1, number: 2)
        var commands: [StoreOutput] = []
        world.store.handle(
            .session(.opened(guest, Peer(tenant: "guest", carrier: .tcp, address: "x"))), at: world.now, into: &commands
        )
        var last: Response?
        for number in 0..<257 as Range<UInt32> {
            commands = []
            world.store.handle(
                .session(.request(RequestID(session: guest, number: number), .openNamespace(name: "g\(number)"))),
                at: world.now, into: &commands)
            for case .session(.reply(_, let response)) in commands { last = response }
            #expect((last?.status == .ok) == (number < 256))
        }
        #expect(last?.status == .overBudget)
        guard case .text(let why)? = last?.body else { return #expect(Bool(false)) }
        #expect(String(decoding: why, as: UTF8.self).contains("256 namespaces list it"))
        #expect(world.open("for-all") != 999, "others still make theirs")
    }

    @Test func aDeletedNamespaceGivesItsNumberBackAndItsHandlesLeadNowhere() throws {
        var world = try ScriptedStore(seed: 4)
        for number in 0..<4096 { world.catalogueNamespaces["n\(number)"] = NamespacePolicy() }
        try world.crash()
        let old = world.open("n0")
        _ = world.put(old, name(1), token: 2)
        world.runUntilQuiet()
        let refused = world.request(.openNamespace(name: "more"))
        #expect(world.responses[refused]?.status == .overBudget)
        let deleted = order(&world, "namespace-delete", #"{"namespace":"n0","force":true}"#)
        world.runUntilQuiet()
        #expect(world.responses[deleted]?.status == .ok)
        let made = world.request(.openNamespace(name: "more"))
        world.runUntilQuiet()
        #expect(policy(world, "more") != nil)
        #expect(world.responses[made]?.status == .ok)
        let get = world.request(.get(old, name(1)))
        #expect(world.responses[get]?.status == .absent)
        guard case .text(let why)? = world.responses[get]?.body else { return #expect(Bool(false)) }
        #expect(String(decoding: why, as: UTF8.self) == "the namespace was deleted")
        #expect(world.complaint == nil)
    }

    @Test func aNameThatSteersATerminalIsRefused() throws {
        var world = try ScriptedStore(seed: 6)
        let opened = world.request(.openNamespace(name: "a\nnamespace    b: 0 objects"))
        let set = order(&world, "namespace-set", #"{"namespace":"a\u001b[2J","policy":{}}"#)
        let handle = world.open("n")
        let pinned = world.request(.pin(handle, [name(1)], owner: "me\n", lifetimeSeconds: 0))
        world.runUntilQuiet()
        for asked in [opened, set, pinned] {
            #expect(world.responses[asked]?.status == .invalid)
            guard case .text(let why)? = world.responses[asked]?.body else { return #expect(Bool(false)) }
            #expect(String(decoding: why, as: UTF8.self).hasSuffix("name has no control characters"))
        }
        #expect(world.store.status().namespaces.map(\.name) == ["n"])
    }

    @Test func longListsComeInPages() throws {
        var world = try ScriptedStore(seed: 5, driveExtents: 700) { $0.pinCountMax = 1000 }
        // The longest names, of characters that JSON writes as six: a catalogue may hold such.
        for number in 1..<600 {
            let tail = String(repeating: "\u{1}", count: 190)
            world.catalogueNamespaces["n\(number)-" + tail] = NamespacePolicy()
        }
        try world.crash()
        var generous = NamespacePolicy()
        generous.pinQuotaBytes = 1 << 30
        world.set("n0", generous)
        let handle = world.open("n0")
        for number in 0..<300 {
            _ = world.put(handle, name(number), token: UInt64(2 * number))
            world.runUntilQuiet()
            _ = world.request(.pin(handle, [name(number)], owner: "me", lifetimeSeconds: 0))
            world.runUntilQuiet()
        }
        // Some lose their blocks.
        for extent in world.drives[0].content.keys where extent % 3 == 0 { world.drives[0].content[extent] = 1 }
        for number in 0..<300 {
            _ = world.request(.reportCorrupt(handle, name(number)))
            world.runUntilQuiet()
        }
        #expect(world.store.status().danglingPins > 50)
        var pins: [String] = []
        var namespaces: [String] = []
        for verb in ["pins", "namespaces"] {
            var cursor = 0
            var pages = 0
            repeat {
                let asked = order(&world, verb, "{\"cursor\":\(cursor)}")
                guard case .text(let json)? = world.responses[asked]?.body else { return #expect(Bool(false)) }
                #expect(json.count <= 1 << 20)
                let page = try JSONDecoder().decode(OrderResult.self, from: Data(json))
                pins += (page.pins ?? []).map(\.key)
                namespaces += (page.namespaces ?? []).map(\.name)
                cursor = page.next ?? 0
                pages += 1
            } while cursor != 0
            #expect(pages > 1, "\(verb)")
        }
        #expect(pins.count == 300 && Set(pins).count == 300)
        #expect(namespaces.count == 600 && Set(namespaces).count == 600)
        let stat = world.request(.stat)
        guard case .text(let json)? = world.responses[stat]?.body else { return #expect(Bool(false)) }
        let status = try JSONDecoder().decode(StoreStatus.self, from: Data(json))
        #expect(status.namespaceCount == 600 && status.namespaces.count < 600 && status.nextNamespace > 0)
        let named = order(&world, "namespaces", #"{"namespace":"n0"}"#)
        guard case .text(let one)? = world.responses[named]?.body else { return #expect(Bool(false)) }
        #expect(try JSONDecoder().decode(OrderResult.self, from: Data(one)).namespaces?.map(\.name) == ["n0"])
        #expect(world.complaint == nil)
    }
}
