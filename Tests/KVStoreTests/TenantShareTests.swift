// One tenant among others: what it takes of sessions, of the day's writes and of the flash to pin leaves some to them.

import KVModel
import KVStore
import KVSystem
import KVTransport
import Testing

@Suite struct TenantShareTests {
    private func name(_ number: Int) -> ObjectName { StoreModelTests.name(number) }

    private func statuses(_ world: borrowing ScriptedStore, _ request: RequestID) -> [Status] {
        guard case .statuses(let statuses)? = world.responses[request]?.body else { return [] }
        return statuses
    }

    @Test func aTenantLeavesSessionsToOthersAndAnOperatorTakesWhatIsThere() {
        var places = SessionPlaces(8, tenantShare: 0.75)
        func take(_ tenant: String) -> Bool { places.take(for: tenant, isOperator: tenant == "operator") }
        for number in 0..<7 { #expect(take("greedy") == (number < 6)) }
        #expect(take("other"))
        #expect(take("operator"))
        #expect(!take("operator"), "all are taken")
        places.giveBack(of: "greedy")
        #expect(take("operator"))
        places.giveBack(of: "operator")
        places.giveBack(of: "operator")
        #expect(take("greedy"))
        #expect(!take("greedy"))
        places = SessionPlaces(1, tenantShare: 0.75)
        #expect(take("only"), "one place is everybody's")
    }

    @Test func aStoreRefusesTheSessionsThatOneTenantHasTooMany() throws {
        let bench = try StoreBench { $0.sessions = 4 }
        let store = try #require(bench.store)
        func open(_ number: UInt32, _ tenant: String) -> Acceptance {
            let peer = Peer(tenant: tenant, carrier: .verbs, address: "elsewhere")
            return store.deliver(.opened(SessionID(transport: 9, number: number), peer))
        }
        let greedy: [Acceptance] = (1...4).map { open($0, "greedy") }
        #expect(greedy == [.accepted, .accepted, .accepted, .full])
        #expect(open(5, "other") == .accepted)
        for number in [1, 2, 3, 5] as [UInt32] {
            #expect(store.deliver(.closed(SessionID(transport: 9, number: number))) == .accepted)
        }
    }

    @Test func aTenantLeavesBytesOfTheDayToOthersAndIsToldWhy() throws {
        // An hour's worth can be saved up: ten blocks, of which five are one tenant's.
        var world = try ScriptedStore(seed: 1) {
            $0.writeBytesPerDay = 24 * 10 * ScriptedStore.extentBytes
            $0.tenantShare = 0.5
        }
        world.become("greedy")
        let greedy = world.open("g")
        let puts = (0..<6).map { number in
            let put = world.put(greedy, name(number), token: 1)
            world.runUntilQuiet()
            return world.responses[put]
        }
        #expect(puts.prefix(5).allSatisfy { $0?.status == .ok })
        #expect(puts[5]?.status == .overBudget)
        guard case .text(let why)? = puts[5]?.body else { return #expect(Bool(false), "no reason") }
        #expect(String(decoding: why, as: UTF8.self).contains("the tenant has written its share"))
        for tenant in ["other", "operator"] {
            world.become(tenant)
            let put = world.put(world.open(tenant), name(7), token: 2)
            world.runUntilQuiet()
            #expect(world.responses[put]?.status == .ok, "\(tenant)")
        }
        #expect(world.complaint == nil)
    }

    @Test func aTenantThatMakesNamespacesToPinInLeavesFlashToOthers() throws {
        // Of 64 extents one tenant pins 16, however many namespaces it makes.
        var world = try ScriptedStore(seed: 1) {
            $0.tenantShare = 0.25
            $0.defaultPolicy.pinQuotaBytes = 1 << 30
        }
        var shared = NamespacePolicy()
        shared.pinQuotaBytes = 1 << 30
        shared.tenants = ["greedy", "other"]
        world.set("shared", shared)
        world.become("greedy")
        let handles = ["g0", "g1", "shared"].map { world.open($0) }
        for handle in handles {
            for number in 0..<10 { _ = world.put(handle, name(number), token: 1) }
            world.runUntilQuiet()
        }
        func pin(_ handle: NamespaceHandle, _ numbers: Range<Int>, _ owner: String = "me") -> [Status] {
            let pin = world.request(.pin(handle, numbers.map(name), owner: owner, lifetimeSeconds: 0))
            world.runUntilQuiet()
            return statuses(world, pin)
        }
        #expect(pin(handles[0], 0..<10) == Array(repeating: .ok, count: 10))
        #expect(
            pin(handles[1], 0..<10) == Array(repeating: .ok, count: 6) + Array(repeating: .overBudget, count: 4))
        #expect(pin(handles[1], 0..<2, "another") == [.ok, .ok], "they take no more flash")
        #expect(pin(handles[1], 20..<21) == [.absent])
        // What an operator gave to several is the operator's choice.
        #expect(pin(handles[2], 0..<4) == Array(repeating: .ok, count: 4))
        let unpin = world.request(.unpin(handles[0], [name(3)], owner: "me"))
        world.runUntilQuiet()
        #expect(statuses(world, unpin) == [.ok])
        #expect(pin(handles[1], 6..<8) == [.ok, .overBudget])
        world.become("operator")
        #expect(pin(world.open("g1"), 7..<9) == [.ok, .ok])
        #expect(world.complaint == nil)
    }
}
