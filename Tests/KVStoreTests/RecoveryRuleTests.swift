// The start of a store on drives that hold what no start has met.

import KVFlash
import KVModel
import KVStore
import KVSystem
import Testing

@Suite struct RecoveryRuleTests {
    private static let extentBytes = 64 << 10

    /// A store before its scan, with one namespace.
    private func store(extentCount: Int) throws -> StoreDecisions {
        let settings = StoreSettings(
            extentBytes: Self.extentBytes, drives: [StoreDrive(extentCount: extentCount)],
            memoryBytes: 16 * Self.extentBytes, payloadBytesMax: 3 * Self.extentBytes, operationCountMax: 64,
            driveCommandCountMax: 64, waitLimit: Duration(seconds: 1), sharedShare: 0.25, writeBytesPerDay: 0,
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
