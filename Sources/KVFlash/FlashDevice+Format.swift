// Making a drive of a device or file, and saying what else is on it before anything is lost.

import CKernel
import Glibc
import KVModel
import KVSystem

extension FlashDevice {
    /// Writes the superblocks of a new, empty drive, and in a file zeros to the header area. On a block device nothing else
    /// is written: headers carry the drive's name, so what an earlier formatting left in the header area counts as blank.
    ///
    /// - Parameters:
    ///   - byteCount: The bytes the drive may use. Nil: the whole block device, or all of a file that is there. A file
    ///     is created where none is, and its room is taken at once.
    ///   - extentBytes: 64 KiB to 16 MiB in steps of 64 KiB; the size of most blocks wastes least.
    ///   - force: Whether data that is there may be lost.
    /// - Throws: `foreignData` without `force` when the device holds anything, and names it; `noRoom` when the file system has
    ///   not the bytes that a file would take. What was begun is taken back: no file is left that was not there, and none
    ///   longer than it was.
    @discardableResult
    public static func format(
        path: String, byteCount: Int?, extentBytes: Int, identity: DriveIdentity, force: Bool = false
    ) throws(FlashError) -> Superblock {
        precondition(identity.number >= 0 && identity.number < identity.count, "a drive beyond the count of its store")
        if let byteCount { _ = try FlashGeometry(totalBytes: byteCount, extentBytes: extentBytes) }
        let isThere = unsafe access(path, F_OK) == 0
        let file = try DeviceFile(path: path, access: byteCount == nil ? .exclusive : .creating)
        do throws(FlashError) {
            if !force, let found = try file.foreignContent() { throw .foreignData(path: path, found: found) }
            let geometry = try FlashGeometry(totalBytes: byteCount ?? file.byteCount, extentBytes: extentBytes)
            let superblock = Superblock(identity: identity, geometry: geometry)
            try file.takeRoom(geometry)
            // A crash on the way leaves no drive, one good copy, or two; never two that differ.
            try file.eraseSuperblocks()
            if !file.isBlockDevice { try file.eraseHeaders(geometry) }
            try file.writeSuperblocks(superblock)
            return superblock
        } catch {
            if isThere { file.giveRoomBack() } else { unsafe unlink(path) }
            throw error
        }
    }
}

extension DeviceFile {
    /// Takes the room of a drive in its file; a block device must have it.
    ///
    /// The file system is asked first: `fallocate` keeps what it took when it comes to the end, and a node whose last byte is
    /// gone loses more than its cache.
    func takeRoom(_ geometry: FlashGeometry) throws(FlashError) {
        let wanted = geometry.totalBytes
        guard !isBlockDevice else {
            guard wanted <= byteCount else { throw .geometry("\(path) has \(byteCount) bytes, \(wanted) are wanted") }
            return
        }
        let free = try system(freeBytes)
        guard wanted - min(wanted, allocatedBytes) <= free else {
            throw .noRoom(path: path, wanted: wanted, free: free)
        }
        let result = hf_allocate(descriptor, Int64(wanted))
        _ = try system(checked(result, "take \(wanted) bytes for \(path)"))
    }

    /// A file becomes as long as it was when it was opened.
    func giveRoomBack() {
        guard !isBlockDevice, hf_size(descriptor) > byteCount else { return }
        _ = ftruncate(descriptor, byteCount)
    }

    /// Bytes that its file system has for anybody.
    private var freeBytes: Int {
        get throws(SystemError) {
            var status = statvfs()
            guard unsafe fstatvfs(descriptor, &status) == 0 else {
                throw SystemError(number: errno, doing: "ask how much room there is for \(path)")
            }
            return Int(clamping: UInt64(status.f_bavail) * UInt64(status.f_frsize))
        }
    }

    /// Bytes that it has already, holes not counted.
    private var allocatedBytes: Int {
        var status = stat()
        return unsafe fstat(descriptor, &status) == 0 ? Int(status.st_blocks) * 512 : 0
    }

    /// Overwrites both superblocks by zeros and flushes.
    func eraseSuperblocks() throws(FlashError) {
        unsafe try eachSuperblock { _ in }
    }

    /// Overwrites the header area by zeros. A file system notes for each place of a preallocated file whether it was ever
    /// written, and the flush behind the first write to a place must bring that note to the device: one write more for each
    /// block that is put where none was before. Headers are 0.2 % of a drive of 2 MiB extents, so they are written here; the
    /// data, which would take as long as filling the drive, is not.
    func eraseHeaders(_ geometry: FlashGeometry) throws(FlashError) {
        let pieceBytes = 1 << 20
        let zeros = try system(PageMemory(byteCount: pieceBytes))
        let end = geometry.headerOffset(ofExtent: UInt32(geometry.extentCount - 1)) + FlashGeometry.headerBytes
        for offset in stride(from: FlashGeometry.headerAreaOffset, to: end, by: pieceBytes) {
            let piece = unsafe UnsafeRawBufferPointer(rebasing: zeros.bytes[0..<min(pieceBytes, end - offset)])
            try system(unsafe write(piece, at: offset))
        }
        try system(flush())
    }

    /// Writes both superblocks, the second first, each flushed before the next.
    func writeSuperblocks(_ superblock: Superblock) throws(FlashError) {
        unsafe try eachSuperblock { bytes in unsafe superblock.encode(into: bytes) }
    }

    private func eachSuperblock(_ fill: (UnsafeMutableRawBufferPointer) -> Void) throws(FlashError) {
        let page = try system(PageMemory(byteCount: FlashGeometry.headerBytes, wantsHugePages: false))
        let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: page.bytes[0..<FlashGeometry.headerBytes])
        unsafe fill(bytes)
        for offset in FlashGeometry.superblockOffsets.reversed() {
            try system(unsafe write(UnsafeRawBufferPointer(bytes), at: offset))
            try system(flush())
        }
    }

    /// What is on the device, in words; nil when the probed places hold nothing but zeros. Probed are its first and its
    /// last MiB and sixteen places between them: file systems and volume managers keep something in each of the first two.
    package func foreignContent() throws(FlashError) -> String? {
        guard byteCount > 0 else { return nil }
        let probe = 1 << 20
        let page = try system(PageMemory(byteCount: probe))
        let last = (byteCount - 1) / 4096 * 4096
        var places = [0, max(0, last - probe + 4096)]
        for step in 1...16 { places.append(last / 17 * step / 4096 * 4096) }
        for (index, offset) in places.enumerated() {
            let wanted = unsafe UnsafeMutableRawBufferPointer(rebasing: page.bytes[0..<(index < 2 ? probe : 4096)])
            let count = try system(unsafe readToEnd(into: wanted, at: offset))
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: wanted[0..<count])
            if index == 0, let known = unsafe KnownContent.name(bytes) { return known }
            if let place = unsafe bytes.firstIndex(where: { $0 != 0 }) {
                return "unknown data at byte \(offset + place)"
            }
        }
        return nil
    }
}

/// What the first MiB of a device tells of its use. Places and marks are those that the kernel's and the tools' headers
/// give for each format.
private enum KnownContent {
    private static let marks: [(offset: Int, bytes: [UInt8], name: String)] = [
        (0, Array("HFDRIVE1".utf8), "a Holdfast drive"),
        (64 << 10, Array("HFDRIVE1".utf8), "a Holdfast drive"),
        (0x438, [0x53, 0xEF], "an ext2, ext3 or ext4 file system"),
        (0, Array("XFSB".utf8), "an XFS file system"),
        (0x10040, Array("_BHRfS_M".utf8), "a Btrfs file system"),
        (0x400, [0x10, 0x20, 0xF5, 0xF2], "an F2FS file system"),
        (0, [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE], "a LUKS volume"),
        (0x200, Array("LABELONE".utf8), "an LVM physical volume"),
        (0x1000, [0xFC, 0x4E, 0x2B, 0xA9], "a member of a Linux software RAID"),
        (0, Array("bluestore block device".utf8), "a Ceph BlueStore device"),
        (0xFF6, Array("SWAPSPACE2".utf8), "a swap area"),
        (3, Array("NTFS    ".utf8), "an NTFS file system"),
        (82, Array("FAT32".utf8), "a FAT file system"),
        (0x200, Array("EFI PART".utf8), "a GUID partition table"),
        (0x1000, Array("EFI PART".utf8), "a GUID partition table"),
        (0x1FE, [0x55, 0xAA], "a partition table"),
    ]

    static func name(_ start: UnsafeRawBufferPointer) -> String? {
        for mark in marks where mark.offset + mark.bytes.count <= start.count {
            if unsafe start[mark.offset..<(mark.offset + mark.bytes.count)].elementsEqual(mark.bytes) {
                return mark.name
            }
        }
        return nil
    }
}
