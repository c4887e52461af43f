// A formatted device that this process has to itself: the descriptor, the lock, and what its superblock says.

import CKernel
import Glibc
import KVModel
import KVSystem

/// An opened, locked and checked device or file. A `FlashDrive` works on it; `scan` reads its headers first.
public final class FlashDevice: Sendable {
    /// Where it was opened.
    public let path: String
    /// What it says of itself.
    public let superblock: Superblock
    /// Whether it is a raw block device, not a file.
    public let isBlockDevice: Bool
    /// Whether transfers go past the page cache. Only file systems in memory refuse that.
    public let isDirect: Bool
    /// Whether what was written must be flushed to be durable: false where the device reports a write-through cache.
    public let hasVolatileCache: Bool
    let file: DeviceFile

    /// Its layout.
    public var geometry: FlashGeometry { superblock.geometry }

    /// Opens a drive, takes it for this process alone, and checks that its superblock can be believed and that the
    /// device is as long as it says. A superblock of which one copy is damaged is repaired from the other.
    public init(path: String) throws(FlashError) {
        // On a busy machine the ring of a process that was killed outlives it by more than a second.
        let file = try DeviceFile(path: path, access: .exclusive, patience: Duration(seconds: 5))
        let found = try FlashDevice.readSuperblock(file)
        if found.isOneCopyBad {
            try file.writeSuperblocks(found.superblock)
            try system(file.flush())
        }
        self.path = path
        superblock = found.superblock
        isBlockDevice = file.isBlockDevice
        isDirect = file.isDirect
        hasVolatileCache = hf_has_volatile_cache(file.descriptor) != 0
        self.file = file
    }

    /// What a device says of itself, without taking it or changing anything.
    public static func inspect(path: String) throws(FlashError) -> Superblock {
        try readSuperblock(DeviceFile(path: path, access: .readOnly)).superblock
    }

    /// Reads both copies: one that can be believed is enough.
    private static func readSuperblock(
        _ file: DeviceFile
    ) throws(FlashError) -> (superblock: Superblock, isOneCopyBad: Bool) {
        var copies: [Superblock] = []
        var problem: FlashError?
        let page = try system(PageMemory(byteCount: FlashGeometry.headerBytes))
        for offset in FlashGeometry.superblockOffsets {
            let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: page.bytes[0..<FlashGeometry.headerBytes])
            guard unsafe (try? file.read(into: bytes, at: offset)) != nil else { continue }
            switch unsafe Superblock.decode(UnsafeRawBufferPointer(bytes)) {
            case .superblock(let copy): copies.append(copy)
            case .absent: break
            case .unknownVersion(let version): problem = .unknownVersion(path: file.path, version: version)
            case .damaged(let why): problem = problem ?? .damagedSuperblock(path: file.path, why: why)
            }
        }
        guard let superblock = copies.first else {
            if let problem { throw problem }
            throw .notADrive(path: file.path, found: try file.foreignContent() ?? "nothing")
        }
        guard copies.allSatisfy({ $0 == superblock }) else {
            throw .damagedSuperblock(path: file.path, why: "its two copies differ")
        }
        guard file.byteCount >= superblock.geometry.totalBytes else {
            throw .truncated(path: file.path, drive: superblock.geometry.totalBytes, device: file.byteCount)
        }
        return (superblock, copies.count < FlashGeometry.superblockOffsets.count)
    }

    /// What a scheduler needs to know.
    var schedulerDevice: DriveScheduler.Device {
        DriveScheduler.Device(
            geometry: geometry, drive: superblock.identity.drive, hasVolatileCache: hasVolatileCache,
            // A hole punched in a preallocated file would give away room that the drive was promised.
            canDiscard: isBlockDevice)
    }
}
