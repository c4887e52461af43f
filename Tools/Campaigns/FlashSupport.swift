// What the flash campaigns share: a drive used synchronously, and objects whose content follows from their generation.

import Foundation
import KVFlash
import KVModel
import KVSystem
import Synchronization

/// A folder that goes with its owner.
final class ScratchFolder {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Events of a drive, taken by the thread that posts commands.
final class EventQueue: Sendable {
    private let events = Mutex<[FlashEvent]>([])
    private let arrived = DispatchSemaphore(value: 0)

    func post(_ event: FlashEvent) {
        events.withLock { $0.append(event) }
        arrived.signal()
    }

    /// The next event; nil after a minute without one.
    func next() -> FlashEvent? {
        guard arrived.wait(timeout: .now() + 60) == .success else { return nil }
        return events.withLock { $0.removeFirst() }
    }
}

/// Objects whose name, size and bytes follow from their generation, so that whoever finds one knows what it should hold.
struct CampaignObjects {
    let extentBytes: Int
    static let payloadExtentsMax = 3

    func extentCount(_ generation: UInt64) -> Int { 1 + Int(mixBits(generation) % 3) }

    func payloadBytes(_ generation: UInt64) -> Int {
        extentCount(generation) * extentBytes - Int(mixBits(generation ^ 99) % UInt64(extentBytes / 2))
    }

    func name(_ generation: UInt64) -> ObjectName {
        ObjectName(FullKey(mixBits(generation), generation, mixBits(generation ^ 1), mixBits(generation ^ 2)))
    }

    func fill(_ bytes: UnsafeMutableRawBufferPointer, _ generation: UInt64) {
        var source = RandomSource(seed: generation)
        let words = unsafe bytes.bindMemory(to: UInt64.self)
        for index in words.indices { unsafe words[index] = source.next() }
    }

    /// The object in memory at `slice`, whose room is a multiple of eight bytes.
    func make(_ generation: UInt64, _ extents: ExtentList, _ bytes: UnsafeMutableRawBufferPointer) -> FlashObject {
        unsafe fill(bytes, generation)
        let count = payloadBytes(generation)
        let name = name(generation)
        return FlashObject(
            name: name, metadata: ObjectMetadata(indexInChain: UInt32(truncatingIfNeeded: generation)), namespace: 1,
            payloadBytes: count,
            checksum: unsafe BlockChecksum.of(
                name, UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[0..<count])),
            generation: generation, extents: extents)
    }
}

extension FlashDriveConfiguration {
    /// Small bounds, so that commands wait for each other and share flushes.
    static func campaign(_ trigger: FaultTrigger? = nil) -> FlashDriveConfiguration {
        FlashDriveConfiguration(
            commandCountMax: 64, transferCountMax: 16, writeTransferCountMax: 8, transferBytesMax: 128 << 10,
            readBytesMax: 1 << 20, readRunMax: 8, timeout: Duration(seconds: 30), faultTrigger: trigger)
    }
}
