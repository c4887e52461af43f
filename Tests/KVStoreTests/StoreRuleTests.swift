// The rules of the store's decisions, one by one.

import Foundation
import KVModel
import KVStore
import KVTransport
import Testing

@Suite struct StoreRuleTests {
    private func name(_ number: Int) -> ObjectName { StoreModelTests.name(number) }

    @Test func firstWriterWinsAlsoWhenTwoPutsOverlap() throws {
        var world = try ScriptedStore(seed: 1)
        let handle = world.open("n")
        let first = world.put(handle, name(1), token: 10)
        let second = world.put(handle, name(1), token: 20)
        world.runUntilQuiet()
        #expect(world.responses[first]?.status == .ok)
        #expect(world.responses[second]?.status == .alreadyPresent)
        let third = world.put(handle, name(1), token: 30)
        #expect(world.responses[third]?.status == .alreadyPresent, "answered at once, without I/O")
        let get = world.request(.get(handle, name(1)))
        world.runUntilQuiet()
        #expect(world.received[get] == 10)
        #expect(world.complaint == nil)
    }

    /// Sessions of revoked keys end in the order of their numbers, in each run the same; others go on.
    @Test func sessionsOfARevokedKeyEndInOrder() throws {
        var world = try ScriptedStore(seed: 1)
        var commands: [StoreOutput] = []
        let sessions = (2..<40).map { SessionID(transport: UInt16($0 % 3), number: UInt32($0)) }
        for session in sessions {
            let tenant = session.number.isMultiple(of: 2) ? "guest" : "other"
            let peer = Peer(tenant: tenant, carrier: .loopback, address: "here")
            world.store.handle(.session(.opened(session, peer)), at: .zero, into: &commands)
        }
        commands = []
        world.store.handle(.tenants(operators: ["local"], revoked: ["guest"]), at: .zero, into: &commands)
        let ended = commands.compactMap { command -> SessionID? in
            guard case .session(.disconnect(let session, reason: _)) = command else { return nil }
            return session
        }
        let guests = sessions.filter { $0.number.isMultiple(of: 2) }
        #expect(ended == guests.sorted { ($0.transport, $0.number) < ($1.transport, $1.number) })
    }

    @Test func theFollowerOfAFailedPutTakesItsPlace() throws {
        var world = try ScriptedStore(seed: 1, faults: StoreFaults(badPayloads: 1))
        let handle = world.open("n")
        let first = world.put(handle, name(1), token: 10)
        let second = world.put(handle, name(1), token: 20)
        while world.responses[first] == nil { world.step() }
        world.faults.badPayloads = 0
        world.runUntilQuiet()
        #expect(world.responses[first]?.status != .ok)
        // The second may have been asked for its payload while payloads were bad; then it was refused as well.
        let status = world.responses[second]?.status
        #expect(status == .ok || status == .corrupt || status == .cancelled)
        #expect(world.complaint == nil)
    }

    /// What waits before a drive takes the room of what waits, however long the drive has more to do than it takes at once.
    @Test func queuesBeforeADriveDoNotGrowWithWhatPassedThem() throws {
        var world = try ScriptedStore(seed: 5) { $0.driveCommandCountMax = 1 }
        let handle = world.open("n")
        var waiting: [RequestID] = []
        for number in 0..<600 {
            waiting.append(world.put(handle, name(number), token: UInt64(number) * 2))
            while waiting.count >= 10 {
                world.step()
                waiting.removeAll { world.responses[$0] != nil }
            }
        }
        #expect(world.store.totals.putsStored > 400)
        #expect(world.store.queueRoom <= 64)
        world.runUntilQuiet()
        #expect(world.complaint == nil)
    }

    @Test func scopesAreComparedExactly() throws {
        var world = try ScriptedStore(seed: 1)
        let mine = world.open("mine")
        let theirs = world.open("theirs")
        _ = world.put(mine, name(1), token: 10)
        world.runUntilQuiet()
        var others = [
            (theirs, name(1)), (mine, ObjectName(name(1).key, group: 1)),
            (mine, ObjectName(name(1).key, shardCount: 2)),
        ]
        others.append((mine, ObjectName(name(1).key, shard: 1, shardCount: 2)))
        for (handle, name) in others {
            let get = world.request(.get(handle, name))
            #expect(world.responses[get]?.status == .absent)
        }
    }

    @Test func evictionGoesLeafFirstWithinOneAccess() throws {
        var world = try ScriptedStore(seed: 3, driveExtents: 64)
        let handle = world.open("n")
        for depth in 0..<40 {
            _ = world.put(
                handle, name(depth), token: UInt64(depth) * 2, metadata: ObjectMetadata(indexInChain: UInt32(depth)))
            world.runUntilQuiet()
        }
        _ = world.request(.lookUp(handle, (0..<40).map(name)))
        for other in 0..<60 {
            _ = world.put(handle, name(1000 + other), token: UInt64(other) * 2)
            world.runUntilQuiet()
        }
        let look = world.request(.lookUp(handle, (0..<40).map(name)))
        guard case .presence(let words)? = world.responses[look]?.body else { return #expect(Bool(false)) }
        // What is left is a run from the root: no hole, and something did leave.
        let run = (~words[0]).trailingZeroBitCount
        #expect(words[0] >> UInt64(run) == 0 && run < 40, "present: \(String(words[0], radix: 2))")
        #expect(world.complaint == nil)
    }

    @Test func sharedPrefixesOutlivePerUserState() throws {
        var world = try ScriptedStore(seed: 4, driveExtents: 64)
        let handle = world.open("n")
        for number in 0..<10 {
            _ = world.put(handle, name(number), token: 2, metadata: ObjectMetadata(evictionClass: 1))
            world.runUntilQuiet()
        }
        for other in 0..<200 {
            _ = world.put(handle, name(1000 + other), token: UInt64(other) * 2)
            world.runUntilQuiet()
        }
        let look = world.request(.lookUp(handle, (0..<10).map(name)))
        guard case .presence(let words)? = world.responses[look]?.body else { return #expect(Bool(false)) }
        #expect(words[0] == (1 << 10) - 1)
    }

    @Test func aCursorBehindTheLastIsAnEmptyPage() throws {
        var world = try ScriptedStore(seed: 31)
        for verb in ["pins", "namespaces"] {
            for cursor in [Int.max, .max - 1, 1 << 40, -1, .min] {
                let id = world.request(
                    .administer(verb: verb, arguments: Array(#"{"cursor": \#(cursor)}"#.utf8)))
                #expect(world.responses[id]?.status == .ok, "\(verb) from \(cursor)")
            }
        }
    }

    @Test func aPinThatEndsInAnotherAgeIsAPin() throws {
        var world = try ScriptedStore(seed: 32)
        var policy = NamespacePolicy()
        policy.pinQuotaBytes = ScriptedStore.extentBytes
        world.set("n", policy)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 1)
        world.runUntilQuiet()
        for (owner, expires) in [("a", Int64.max), ("b", 1 << 60)] {
            _ = world.request(.pin(handle, [name(1)], owner: owner, lifetimeSeconds: 60))
            world.runUntilQuiet()
            var pin = try #require(world.cataloguePins.first { $0.owner == owner })
            world.cataloguePins.remove(pin)
            pin.expires = expires
            world.cataloguePins.insert(pin)
        }
        try world.crash()
        world.runUntilQuiet()
        #expect(world.store.status().pins == 2)
        #expect(world.complaint == nil)
    }

    /// A drive has a place for each of its commands until it lets go of it. One that holds them all for ever is given up,
    /// and what waited for a place is answered.
    @Test func aDriveThatHoldsEveryPlaceIsGivenUp() throws {
        var world = try ScriptedStore(seed: 33, faults: StoreFaults(overdue: 1)) { $0.driveCommandCountMax = 4 }
        let handle = world.open("n")
        let puts = (0..<12).map { world.put(handle, name($0), token: UInt64($0)) }
        world.runUntilQuiet()
        for put in puts { #expect(world.responses[put]?.status == .failed) }
        #expect(world.store.status().totals["drive_failures_total"] == 1)
        #expect(world.complaint == nil)
    }

    /// Buffers that a late drive keeps are nobody else's. Who waits for one longer than the limit is told so.
    @Test func whoWaitsTooLongForABufferIsToldThatTheStoreIsBusy() throws {
        var world = try ScriptedStore(seed: 34) { $0.waitLimit = Duration(milliseconds: 500) }
        let handle = world.open("n")
        // Of three extents each; there are buffers for five, a quarter of them for readers alone.
        func put(_ numbers: Range<Int>) -> [Status?] {
            let puts = numbers.map { world.put(handle, name($0), token: UInt64($0) * 2, extents: 3) }
            world.runUntilQuiet()
            return puts.map { world.responses[$0]?.status }
        }
        #expect(put(0..<4) == [.ok, .ok, .ok, .ok])
        #expect(put(4..<8) == [.ok, .ok, .ok, .ok])
        world.faults = StoreFaults(overdue: 1)
        #expect(put(10..<16) == [.failed, .failed, .failed, .failed, .busy, .busy])
        world.faults = StoreFaults()
        #expect(put(20..<21) == [.ok])
        world.faults = StoreFaults(overdueReads: 1)
        let gets = (0..<8).map { world.request(.get(handle, name($0))) }
        world.runUntilQuiet()
        let answers = gets.compactMap { world.responses[$0]?.status }
        #expect(answers.filter { $0 == .failed }.count >= 4 && answers.filter { $0 == .busy }.count >= 1, "\(answers)")
        world.faults = StoreFaults()
        #expect(put(30..<31) == [.ok])
        #expect(world.complaint == nil)
    }

    @Test func noPutWaitsWhileTheStoreTurnsOver() throws {
        var world = try ScriptedStore(seed: 5, driveExtents: 64)
        let handle = world.open("n")
        for number in 0..<500 {
            let id = world.put(handle, name(number), token: UInt64(number) * 2)
            world.runUntilQuiet()
            #expect(world.responses[id]?.status == .ok)
        }
        #expect(world.store.status().totals["puts_busy_total"] == 0)
        #expect(world.complaint == nil)
    }

    @Test func quotasBoundANamespaceAndPinsBoundEviction() throws {
        var world = try ScriptedStore(seed: 6)
        var policy = NamespacePolicy()
        policy.quotaBytes = 8 * ScriptedStore.extentBytes
        policy.pinQuotaBytes = 8 * ScriptedStore.extentBytes
        world.set("n", policy)
        let handle = world.open("n")
        for number in 0..<6 {
            _ = world.put(handle, name(number), token: UInt64(number))
            world.runUntilQuiet()
        }
        let pin = world.request(.pin(handle, (0..<6).map(name), owner: "me", lifetimeSeconds: 60))
        world.runUntilQuiet()
        guard case .statuses(let statuses)? = world.responses[pin]?.body else { return #expect(Bool(false)) }
        let kept = (0..<6).filter { statuses[$0] == .ok }
        #expect(kept.count >= 4)
        for number in 100..<130 {
            _ = world.put(handle, name(number), token: UInt64(number))
            world.runUntilQuiet()
        }
        for number in kept {
            let get = world.request(.get(handle, name(number)))
            world.runUntilQuiet()
            #expect(world.responses[get]?.status == .ok)
        }
        // Leases end by themselves.
        world.now = world.now + Duration(seconds: 61)
        world.step()
        world.runUntilQuiet()
        #expect(world.store.status().pins == 0)
        #expect(world.cataloguePins.isEmpty)
        #expect(world.complaint == nil)
    }

    @Test func aQuotaOfSmallBlocksTurnsOverBesideAPinAndBesidePutsUnderWay() throws {
        var world = try ScriptedStore(seed: 15)
        var policy = NamespacePolicy()
        policy.quotaBytes = 4 * ScriptedStore.extentBytes
        policy.pinQuotaBytes = ScriptedStore.extentBytes
        world.set("n", policy)
        let handle = world.open("n")
        _ = world.put(handle, name(0), token: 0, bytes: 8)
        world.runUntilQuiet()
        _ = world.request(.pin(handle, [name(0)], owner: "me", lifetimeSeconds: 0))
        world.runUntilQuiet()
        // More at once than the quota takes; then one behind the other.
        var puts = (1..<8).map { world.put(handle, name($0), token: UInt64($0), bytes: 8) }
        world.runUntilQuiet()
        for number in 8..<20 {
            puts.append(world.put(handle, name(number), token: UInt64(number), bytes: 8))
            world.runUntilQuiet()
        }
        #expect(puts.allSatisfy { world.responses[$0]?.status == .ok }, "\(puts.map { world.responses[$0]?.status })")
        #expect(world.complaint == nil)
    }

    @Test func pinsOfVolatileBlocksAndBeyondTheBudgetAreRefused() throws {
        var world = try ScriptedStore(seed: 7)
        var policy = NamespacePolicy()
        policy.durability = .volatile
        policy.pinQuotaBytes = 1 << 30
        world.set("v", policy)
        world.set("none", NamespacePolicy())
        for (space, refusal) in [("v", Status.invalid), ("none", .overBudget)] {
            let handle = world.open(space)
            _ = world.put(handle, name(1), token: 2, isVolatile: space == "v")
            world.runUntilQuiet()
            let pin = world.request(.pin(handle, [name(1)], owner: "me", lifetimeSeconds: 0))
            guard case .statuses(let statuses)? = world.responses[pin]?.body else { return #expect(Bool(false)) }
            #expect(statuses == [refusal])
        }
    }

    @Test func aPinWhoseBlockIsDamagedDanglesAndHoldsAgainWhenItIsStoredAgain() throws {
        var world = try ScriptedStore(seed: 8, faults: StoreFaults(damagedBlocks: 1))
        var policy = NamespacePolicy()
        policy.pinQuotaBytes = 1 << 30
        world.set("n", policy)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        _ = world.request(.pin(handle, [name(1)], owner: "me", lifetimeSeconds: 0))
        world.runUntilQuiet()
        let report = world.request(.reportCorrupt(handle, name(1)))
        world.runUntilQuiet()
        #expect(world.responses[report]?.status == .corrupt)
        #expect(world.store.status().danglingPins == 1)
        world.faults.damagedBlocks = 0
        _ = world.put(handle, name(1), token: 4)
        world.runUntilQuiet()
        #expect(world.store.status().danglingPins == 0)
        #expect(world.store.status().pins == 1)
        #expect(world.complaint == nil)
    }

    @Test func aLostCatalogueLosesNoBlock() throws {
        var world = try ScriptedStore(seed: 9)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        world.catalogueNamespaces = [:]
        #expect(world.recovered?.unnamedObjects == 0)
        try world.crash()
        #expect(world.store.status().objects == 1)
        #expect(world.recovered?.unnamedObjects == 1 && world.recovered?.unnamedNamespaces == 1)
        let again = world.open("n")
        let get = world.request(.get(again, name(1)))
        world.runUntilQuiet()
        #expect(world.responses[get]?.status == .ok)
        #expect(world.received[get] == 2)
    }

    @Test func theFirstReadAfterARestartIsVerified() throws {
        var world = try ScriptedStore(seed: 10)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        for extent in world.drives[0].content.keys { world.drives[0].content[extent] = 3 }
        try world.crash()
        let again = world.open("n")
        let get = world.request(.get(again, name(1)))
        world.runUntilQuiet()
        #expect(world.responses[get]?.status == .corrupt)
        let after = world.request(.get(again, name(1)))
        #expect(world.responses[after]?.status == .absent)
    }

    @Test func theScrubberFindsDamageBeforeAReaderDoes() throws {
        var world = try ScriptedStore(seed: 11, faults: StoreFaults(damagedBlocks: 1))
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        for _ in 0..<20 { world.step() }
        world.runUntilQuiet()
        let get = world.request(.get(handle, name(1)))
        #expect(world.responses[get]?.status == .absent)
        #expect(world.store.status().totals["damaged_found_total"] == 1)
    }

    @Test func retentionEndsWhatNobodyUses() throws {
        var world = try ScriptedStore(seed: 12)
        var policy = NamespacePolicy()
        policy.retentionSeconds = 10
        world.set("n", policy)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        world.now = world.now + Duration(seconds: 12)
        for _ in 0..<10 { world.step() }
        world.runUntilQuiet()
        #expect(world.store.status().objects == 0)
    }

    @Test func retentionHoldsWhileTheStoreIsBusy() throws {
        var world = try ScriptedStore(seed: 12)
        var policy = NamespacePolicy()
        policy.retentionSeconds = 10
        world.set("n", policy)
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        // Somebody asks for something else twice a second; nothing but the store's own deadlines makes it look.
        for _ in 0..<30 {
            world.now = world.now + Duration(milliseconds: 500)
            _ = world.request(.get(handle, name(7)))
            world.runUntilQuiet()
            if world.store.nextDeadline <= world.now { world.step() }
        }
        #expect(world.store.status().objects == 0)
    }

    /// A start guesses when a block was used last; retention does not believe that guess.
    @Test func retentionOfWhatAStartFoundBeginsWithTheStart() throws {
        var world = try ScriptedStore(seed: 12)
        var policy = NamespacePolicy()
        policy.retentionSeconds = 600
        world.set("n", policy)
        let handle = world.open("n")
        for number in 1...8 { _ = world.put(handle, name(number), token: UInt64(number)) }
        world.runUntilQuiet()
        world.now = world.now + Duration(seconds: 1)
        try world.crash()
        #expect(world.recovered?.objects == 8)
        world.now = world.now + Duration(seconds: 580)
        for _ in 0..<10 { world.step() }
        #expect(world.store.status().objects == 8, "written some 590 seconds ago")
        world.now = world.now + Duration(seconds: 40)
        for _ in 0..<10 { world.step() }
        world.runUntilQuiet()
        #expect(world.store.status().objects == 0)
        #expect(world.complaint == nil)
    }

    @Test func wearSteersAdmission() throws {
        var world = try ScriptedStore(seed: 13) { $0.writeBytesPerDay = 24 * 8 * ScriptedStore.extentBytes }
        let handle = world.open("n")
        var statuses: [Status] = []
        for number in 0..<12 {
            let id = world.put(handle, name(number), token: UInt64(number))
            world.runUntilQuiet()
            statuses.append(world.responses[id]?.status ?? .failed)
        }
        #expect(statuses.prefix(5).allSatisfy { $0 == .ok })
        #expect(statuses.contains(.notAdmitted), "with little left, a first offer is refused")
        let again = world.put(handle, name(11), token: 11)
        world.runUntilQuiet()
        #expect(world.responses[again]?.status == .ok || world.responses[again]?.status == .overBudget)
    }

    @Test func aSmallWearBudgetSavesUpForTheLargestPayload() throws {
        // A payload takes three extents; the budget is one an hour.
        var world = try ScriptedStore(seed: 13) { $0.writeBytesPerDay = 24 * ScriptedStore.extentBytes }
        let handle = world.open("n")
        func put(_ number: Int) -> Status? {
            let id = world.put(
                handle, name(number), token: UInt64(number), extents: 3)
            world.runUntilQuiet()
            return world.responses[id]?.status
        }
        #expect(put(1) == .ok)
        #expect(put(2) != .ok)
        world.now = world.now + Duration(seconds: 3 * 3600)
        #expect(put(3) == .ok)
    }

    @Test func onlyOperatorsMayAdministerAndTenantsSeeTheirOwn() throws {
        var world = try ScriptedStore(seed: 14)
        let stranger = SessionID(transport: 1, number: 2)
        var commands: [StoreOutput] = []
        let handle = world.open("n")
        _ = world.put(handle, name(1), token: 2)
        world.runUntilQuiet()
        world.store.handle(
            .session(.opened(stranger, Peer(tenant: "stranger", carrier: .tcp, address: "x"))), at: world.now,
            into: &commands)
        func ask(_ number: UInt32, _ request: Request) -> Status? {
            commands = []
            world.store.handle(
                .session(.request(RequestID(session: stranger, number: number), request)), at: world.now,
                into: &commands)
            for case .session(.reply(_, let response)) in commands { return response.status }
            return nil
        }
        #expect(ask(1, .openNamespace(name: "n")) == .forbidden)
        #expect(ask(2, .get(0, name(1))) == .invalid)
        #expect(ask(3, .administer(verb: "drain", arguments: [])) == .forbidden)
        #expect(ask(4, .openNamespace(name: "own")) == .ok)
        #expect(ask(5, .get(1, name(1))) == .absent)
        #expect(ask(6, .get(0, name(1))) == .invalid)
        #expect(ask(7, .get(2, name(1))) == .invalid)
    }
}
