// Keys come from peers. Whatever keys a peer chooses, the store's index stays as fast as with random ones.

import KVFlash
import KVModel
import KVStore
import KVSystem
import Testing

struct ChosenKeyTests {
    private static let extentCount = 8192
    private static let blockCount = 4096

    /// The longest way to a name in an index that is half full of these keys.
    private func distance(_ key: (UInt64) -> FullKey) throws -> Int {
        let extentBytes = 64 << 10
        let settings = StoreSettings(
            extentBytes: extentBytes, drives: [StoreDrive(extentCount: Self.extentCount)],
            memoryBytes: 16 * extentBytes, payloadBytesMax: extentBytes, operationCountMax: 64,
            driveCommandCountMax: 64, waitLimit: Duration(seconds: 1), sharedShare: 0.25, writeBytesPerDay: 0,
            tenantShare: 1,
            scrubBytesPerSecond: 0, operators: [], opensUnknownNamespaces: true, defaultPolicy: NamespacePolicy(),
            pinCountMax: 1, wallSecondsAtOrigin: 0, hashSeed: 0x5EED)
        var store = try StoreDecisions(settings, at: .zero)
        store.restoreNamespace("n", NamespacePolicy())
        var commands: [StoreOutput] = []
        for block in 0..<Self.blockCount {
            var extents = ExtentList()
            extents.append(UInt32(block))
            let object = FlashObject(
                name: ObjectName(key(UInt64(block))), metadata: ObjectMetadata(),
                namespace: StoreDecisions.digest(ofNamespace: "n"), payloadBytes: extentBytes, checksum: 1,
                generation: 1, extents: extents)
            store.recover(.object(object), from: 0)
        }
        let recovered = store.endRecovery(generationMax: 1, pins: [], at: .zero, into: &commands)
        #expect(recovered.objects == Self.blockCount)
        return store.distanceMax
    }

    @Test func keysThatDifferInOneHalfOnlyFindPlacesOfTheirOwn() throws {
        // A way of 4096 is the worst: all have one home. Random keys at this load come to about twenty.
        #expect(try distance { FullKey(mixBits($0), mixBits($0 &+ 1 << 40), 0, 0) } < 64)
        #expect(try distance { FullKey($0, 0, 0, 0) } < 64)
        #expect(try distance { FullKey(0, $0, 0, 0) } < 64)
        #expect(try distance { FullKey($0 << 44, 1, 2, 3) } < 64)
        #expect(try distance { FullKey(1, $0 << 52, 2, 3) } < 64)
        #expect(try distance { FullKey($0, $0, $0, $0) } < 64)
    }
}
