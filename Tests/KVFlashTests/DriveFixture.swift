// A drive on a file in a folder of its own, for tests that want the real ring.

import Foundation
import KVFlash
import KVModel
import KVSystem
import Synchronization

/// A fresh folder, removed with its owner.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }
}

/// Takes events from a drive's thread and hands them to the test's.
final class EventBox: Sendable {
    private let events = Mutex<[FlashEvent]>([])
    private let arrived = DispatchSemaphore(value: 0)

    var sink: @Sendable (FlashEvent) -> Void {
        { [self] event in
            events.withLock { $0.append(event) }
            arrived.signal()
        }
    }

    /// The next event, in the order of arrival. A minute without one fails the test.
    func next() throws -> FlashEvent {
        guard arrived.wait(timeout: .now() + 60) == .success else { throw NoEvent() }
        return events.withLock { $0.removeFirst() }
    }

    struct NoEvent: Error {}
}

/// Bounds small enough for tests to reach.
let testConfiguration = FlashDriveConfiguration(
    commandCountMax: 32, transferCountMax: 8, writeTransferCountMax: 4, transferBytesMax: 128 << 10,
    readBytesMax: 512 << 10, readRunMax: 4, timeout: Duration(seconds: 50))

let testIdentity = DriveIdentity(drive: FlashUUID(1, 2), store: FlashUUID(3, 4))

/// An object whose name and bytes follow from a number.
func testObject(_ number: UInt64, payloadBytes: Int, extents: ExtentList, generation: UInt64) -> FlashObject {
    let name = ObjectName(FullKey(mixBits(number), number, 7, 9), group: 1, shard: 1, shardCount: 2)
    return FlashObject(
        name: name,
        metadata: ObjectMetadata(
            parent: FullKey(number, 1, 2, 3), indexInChain: UInt32(number), evictionClass: 1, session: number + 5),
        namespace: 77, payloadBytes: payloadBytes, checksum: 0, generation: generation, extents: extents)
}

/// Fills a slice with bytes that follow from a number, and returns the object's checksum over them.
func fill(_ memory: BlockMemory, _ slice: MemorySlice, _ name: ObjectName, seed: UInt64) -> UInt64 {
    let bytes = unsafe memory[slice]
    var source = RandomSource(seed: seed)
    for index in stride(from: 0, to: bytes.count, by: 8) {
        var word = source.next()
        unsafe withUnsafeBytes(of: &word) { word in
            for offset in 0..<min(8, bytes.count - index) { unsafe bytes[index + offset] = word[offset] }
        }
    }
    return unsafe BlockChecksum.of(name, UnsafeRawBufferPointer(bytes))
}

/// The checksum of an object as its bytes in memory give it.
func checksum(_ memory: BlockMemory, _ slice: MemorySlice, _ name: ObjectName) -> UInt64 {
    unsafe BlockChecksum.of(name, UnsafeRawBufferPointer(memory[slice]))
}
