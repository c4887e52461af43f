// The start of a store on drives that hold what no start has met.

import KVFlash
import KVModel
import KVStore
import KVSystem
import KVTransport
import Testing

@Suite struct RecoveryRuleTests {
    private static let extentBytes = 64 << 10

    /// A store before its scan, with one namespace.
    private func store(extentCount: Int) throws -> StoreDecisions {
        let settings = StoreSettings(
            extentBytes: Self.extentBytes, drives: [StoreDrive(extentCount: extentCount)],
            memoryBytes: 16 * Self.extentBytes, payloadBytesMax: 3 * Self.extentBytes, operationCountMax: 64,
            driveCommandCountMax: 64, waitLimit: Duration(seconds: 1), sharedShare: 0.25, writeBytesPerDay: 0,
            tenantShare: 1,
            scrubBytesPerSecond: 0, operators: [], opensUnknownNamespaces: true, defaultPolicy: NamespacePolicy(),
            pinCountMax: 1, wallSecondsAtOrigin: 0, hashSeed: 0x5EED)
        var store = try StoreDecisions(settings, at: .zero)
        store.restoreNamespace("n", NamespacePolicy())
        return store
    }

    private func object(_ name: ObjectName, _ extents: [UInt32], generation: UInt64) -> ScanEvent {
        .object(
            FlashObject(
                name: name, metadata: ObjectMetadata(), namespace: StoreDecisions.digest(ofNamespace: "n"),
                payloadBytes: extents.count * Self.extentBytes, checksum: 1, generation: generation,
                extents: ExtentList(extents)))
    }

    /// What is erased, and how much stays taken, once all tombstones are there.
    private func erased(
        _ store: inout StoreDecisions, generationMax: UInt64
    ) -> (objects: Int, extents: [UInt32], taken: Int) {
        var commands: [StoreOutput] = []
        let recovered = store.endRecovery(generationMax: generationMax, pins: [], at: .zero, into: &commands)
        var extents: [UInt32] = []
        for case .drive(let drive, .erase(let tag, let extent, _)) in commands {
            extents.append(extent)
            var more: [StoreOutput] = []
            store.handle(.drive(drive, .erased(tag: tag, .done)), at: .zero, into: &more)
        }
        let drive = store.status().drives[0]
        return (recovered.objects, extents.sorted(), drive.extents - drive.freeExtents)
    }

    /// A header that outlived its data, as a device leaves it that lost a tombstone, takes nothing from the object that was written
    /// over it, whichever of them the scan meets first.
    @Test(arguments: [false, true])
    func aVoidHeaderTakesNothingFromTheNewerObject(comesFirst: Bool) throws {
        var store = try store(extentCount: 16)
        let old = object(ObjectName(FullKey(1, 0, 0, 0)), [5, 6, 7], generation: 1)
        let new = object(ObjectName(FullKey(2, 0, 0, 0)), [6, 8], generation: 2)
        for event in comesFirst ? [old, new] : [new, old] { store.recover(event, from: 0) }
        store.recover(.void(firstExtent: 5), from: 0)
        let end = erased(&store, generationMax: 2)
        #expect(end.objects == 1)
        #expect(end.extents == [5])
        #expect(end.taken == 2)
    }

    /// A header that outlived its data may stand for an extent in the middle of the newer object. It is erased there, and the
    /// object, which stays whole, does not leave before: the page would be a header again when the next start finds it.
    @Test(arguments: [false, true])
    func aVoidHeaderInTheMiddleOfTheNewerObjectIsErased(comesFirst: Bool) throws {
        var store = try store(extentCount: 16)
        let old = object(ObjectName(FullKey(1, 0, 0, 0)), [5, 7], generation: 1)
        let new = object(ObjectName(FullKey(2, 0, 0, 0)), [6, 5], generation: 2)
        for event in comesFirst ? [old, new] : [new, old] { store.recover(event, from: 0) }
        store.recover(.void(firstExtent: 5), from: 0)
        var commands: [StoreOutput] = []
        let recovered = store.endRecovery(generationMax: 2, pins: [], at: .zero, into: &commands)
        #expect(recovered.objects == 1)
        #expect(store.audit() == nil)
        let first = erasures(commands)
        #expect(first.map(\.extent) == [5])
        // The object is deleted before the header is erased: its extents stay taken until that is done.
        let session = SessionID(transport: 1, number: 1)
        let peer = Peer(tenant: "local", carrier: .loopback, address: "here")
        commands = []
        store.handle(.tenants(operators: ["local"], revoked: []), at: .zero, into: &commands)
        store.handle(.session(.opened(session, peer)), at: .zero, into: &commands)
        let open = Request.openNamespace(name: "n")
        store.handle(.session(.request(RequestID(session: session, number: 1), open)), at: .zero, into: &commands)
        let delete = Request.delete(1, [ObjectName(FullKey(2, 0, 0, 0))])
        store.handle(.session(.request(RequestID(session: session, number: 2), delete)), at: .zero, into: &commands)
        let second = erasures(commands)
        #expect(second.map(\.extent) == [6])
        for erasure in second { store.handle(.drive(0, .erased(tag: erasure.tag, .done)), at: .zero, into: &commands) }
        #expect(store.status().drives[0].freeExtents == 14)
        for erasure in first { store.handle(.drive(0, .erased(tag: erasure.tag, .done)), at: .zero, into: &commands) }
        #expect(store.status().drives[0].freeExtents == 16)
        #expect(store.audit() == nil)
    }

    /// When that page cannot be erased, the object's extents are not used again before the next start.
    @Test(arguments: [FlashOutcome.failed(5), .readOnly, .overdue])
    func aVoidHeaderThatCannotBeErasedKeepsItsExtentsOutOfUse(outcome: FlashOutcome) throws {
        var store = try store(extentCount: 16)
        store.recover(object(ObjectName(FullKey(2, 0, 0, 0)), [6, 5], generation: 2), from: 0)
        store.recover(.void(firstExtent: 5), from: 0)
        var commands: [StoreOutput] = []
        _ = store.endRecovery(generationMax: 2, pins: [], at: .zero, into: &commands)
        store.handle(.tenants(operators: ["local"], revoked: []), at: .zero, into: &commands)
        for erasure in erasures(commands) {
            var more: [StoreOutput] = []
            store.handle(.drive(0, .erased(tag: erasure.tag, outcome)), at: .zero, into: &more)
            if outcome == .overdue { store.handle(.drive(0, .released(tag: erasure.tag)), at: .zero, into: &more) }
        }
        let session = SessionID(transport: 1, number: 1)
        let peer = Peer(tenant: "local", carrier: .loopback, address: "here")
        store.handle(.session(.opened(session, peer)), at: .zero, into: &commands)
        let flush = Request.administer(verb: "flush", arguments: [])
        commands = []
        store.handle(.session(.request(RequestID(session: session, number: 1), flush)), at: .zero, into: &commands)
        while store.work(at: .zero, into: &commands) {}
        let tombstones = erasures(commands)
        #expect(tombstones.map(\.extent) == [6])
        for tombstone in tombstones {
            var more: [StoreOutput] = []
            store.handle(.drive(0, .erased(tag: tombstone.tag, .done)), at: .zero, into: &more)
        }
        #expect(store.status().objects == 0)
        #expect(store.status().drives[0].freeExtents == 14)
        #expect(store.status().totals["quarantined_extents"] == 2)
        #expect(store.audit() == nil)
    }

    private func erasures(_ commands: [StoreOutput]) -> [(tag: UInt64, extent: UInt32)] {
        commands.compactMap { command in
            if case .drive(_, .erase(let tag, let extent, _)) = command { (tag, extent) } else { nil }
        }
    }

    /// A page that cannot be believed, in the middle of an object, costs the object nothing, also when the scan meets the
    /// page first.
    @Test(arguments: [false, true])
    func aDamagedPageInTheMiddleOfAnObjectCostsNothing(comesFirst: Bool) throws {
        var store = try store(extentCount: 16)
        let whole = object(ObjectName(FullKey(1, 0, 0, 0)), [6, 5], generation: 1)
        let damaged = ScanEvent.damaged(extent: 5)
        for event in comesFirst ? [damaged, whole] : [whole, damaged] { store.recover(event, from: 0) }
        let end = erased(&store, generationMax: 1)
        #expect(end.objects == 1)
        #expect(end.extents == [])
        #expect(end.taken == 2)
    }

    /// Of three that claim each other's extents the newest stays.
    @Test func ofAChainOfVoidHeadersTheNewestStays() throws {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            var store = try store(extentCount: 16)
            let events = [
                object(ObjectName(FullKey(1, 0, 0, 0)), [1, 2], generation: 1),
                object(ObjectName(FullKey(2, 0, 0, 0)), [3, 2, 4], generation: 2),
                object(ObjectName(FullKey(3, 0, 0, 0)), [5, 4], generation: 3),
            ]
            for place in order { store.recover(events[place], from: 0) }
            store.recover(.void(firstExtent: 1), from: 0)
            store.recover(.void(firstExtent: 3), from: 0)
            let end = erased(&store, generationMax: 3)
            #expect(end.objects == 1, "\(order)")
            #expect(end.extents == [1, 3], "\(order)")
            #expect(end.taken == 2, "\(order)")
        }
    }

    /// Peers choose group, shard and count of shards of what they put. When their names have taken every number there is for such
    /// parts, a header that cannot be believed must find one still: it belongs to nobody.
    @Test func aDamagedHeaderFindsItsPlaceBesideAllNames() throws {
        let scopes = 1 << 20
        var store = try store(extentCount: scopes + 8)
        for block in 0..<scopes {
            let name = ObjectName(
                FullKey(mixBits(UInt64(block)), 0, 0, 0), group: UInt16(block >> 10), shard: UInt16(block & 1023),
                shardCount: 1024)
            store.recover(object(name, [UInt32(block)], generation: UInt64(block) + 1), from: 0)
        }
        store.recover(.damaged(extent: UInt32(scopes)), from: 0)
        let end = erased(&store, generationMax: UInt64(scopes))
        #expect(end.objects == scopes)
        #expect(end.extents == [UInt32(scopes)])
        #expect(end.taken == scopes)
    }
}
