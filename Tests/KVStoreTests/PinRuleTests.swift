// Pins of several askers: what one does takes nothing from another.

import KVModel
import KVStore
import KVTransport
import Testing

@Suite struct PinRuleTests {
    private func name(_ number: Int) -> ObjectName { StoreModelTests.name(number) }

    private func statuses(_ world: borrowing ScriptedStore, _ request: RequestID) -> [Status] {
        guard case .statuses(let statuses)? = world.responses[request]?.body else { return [] }
        return statuses
    }

    private var policy: NamespacePolicy {
        var policy = NamespacePolicy()
        policy.pinQuotaBytes = 1 << 30
        return policy
    }

    /// Two who call themselves the same: one takes the pin away while the other renews it. The renewal came later and holds,
    /// whichever of the two the catalogue has first.
    @Test(arguments: 0..<8) func aPinThatIsRenewedWhileItIsTakenAwayHolds(seed: UInt64) throws {
        var world = try ScriptedStore(seed: seed)
        world.set("n", policy)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        _ = world.request(.pin(handle, [name(1)], owner: "me", lifetimeSeconds: 0))
        world.runUntilQuiet()
        let unpin = world.request(.unpin(handle, [name(1)], owner: "me"))
        let renewal = world.request(.pin(handle, [name(1)], owner: "me", lifetimeSeconds: 0))
        world.runUntilQuiet()
        #expect(statuses(world, unpin) == [.ok] && statuses(world, renewal) == [.ok])
        #expect(world.store.status().pins == 1)
        let delete = world.request(.delete(handle, [name(1)]))
        #expect(statuses(world, delete) == [.forbidden], "it is pinned")
        #expect(world.complaint == nil)
    }

    /// A lease that ends while the store is away is no more when it comes back, in the catalogue neither.
    @Test func aLeaseThatEndedWhileTheStoreWasAwayLeavesTheCatalogue() throws {
        var world = try ScriptedStore(seed: 1)
        world.set("n", policy)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        for (owner, seconds) in [("short", 60), ("long", 600)] as [(String, UInt32)] {
            _ = world.request(.pin(handle, [name(1)], owner: owner, lifetimeSeconds: seconds))
        }
        world.runUntilQuiet()
        world.now = world.now + Duration(seconds: 100)
        try world.crash()
        world.runUntilQuiet()
        #expect(world.store.status().pins == 1)
        #expect(world.cataloguePins.map(\.owner) == ["long"])
        #expect(world.complaint == nil)
    }

    /// A store takes so many pins. A namespace that takes all that are in nobody's share leaves the others theirs.
    @Test func oneNamespaceCannotTakeAllPins() throws {
        // Of 8,192 pins half are in nobody's share, and each of 4,096 namespaces has a share of one.
        var world = try ScriptedStore(seed: 1) { $0.pinCountMax = 8192 }
        world.set("greedy", policy)
        world.set("other", policy)
        let greedy = world.open("greedy")
        let other = world.open("other")
        let blocks = (0..<17).map(name)
        for (handle, count) in [(greedy, 17), (other, 2)] {
            for number in 0..<count { _ = world.put(handle, name(number), token: UInt64(number)) }
            world.runUntilQuiet()
        }
        var answers: [Status] = []
        for owner in 0..<256 {
            let pin = world.request(.pin(greedy, blocks, owner: "\(owner)", lifetimeSeconds: 0))
            world.runUntilQuiet()
            answers += statuses(world, pin)
        }
        #expect(answers.count { $0 == .ok } == 4097)
        #expect(answers.count { $0 == .overBudget } == 255)
        let pin = world.request(.pin(other, [name(0), name(1)], owner: "me", lifetimeSeconds: 0))
        world.runUntilQuiet()
        #expect(statuses(world, pin) == [.ok, .overBudget])
        let unpin = world.request(.unpin(greedy, [name(0)], owner: "7"))
        world.runUntilQuiet()
        #expect(statuses(world, unpin) == [.ok])
        let again = world.request(.pin(other, [name(1)], owner: "me", lifetimeSeconds: 0))
        world.runUntilQuiet()
        #expect(statuses(world, again) == [.ok])
        #expect(world.complaint == nil)
    }
}
