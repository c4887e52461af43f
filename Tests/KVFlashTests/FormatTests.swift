// Superblocks and headers as bytes: what is written is read, and nothing else is believed.

import Foundation
import KVFlash
import KVModel
import KVSystem
import Testing

/// A page that a test may damage.
@safe
private struct Page {
    var bytes = [UInt8](repeating: 0, count: FlashGeometry.headerBytes)

    mutating func fill(_ body: (UnsafeMutableRawBufferPointer) -> Void) {
        unsafe bytes.withUnsafeMutableBytes { unsafe body($0) }
    }

    func header(_ extent: UInt32, drive: FlashUUID, _ geometry: FlashGeometry) -> HeaderContent {
        unsafe bytes.withUnsafeBytes {
            unsafe BlockHeader.decode($0, extent: extent, drive: drive, geometry: geometry)
        }
    }

    var superblock: Superblock.Content { unsafe bytes.withUnsafeBytes { unsafe Superblock.decode($0) } }

    /// Closes the page again after a change, as a program with a bug would.
    mutating func reseal() {
        let sum = unsafe bytes.withUnsafeBytes { bytes in
            unsafe headerChecksum(UnsafeRawBufferPointer(rebasing: bytes[0..<4092]))
        }
        for index in 0..<4 { bytes[4092 + index] = UInt8(truncatingIfNeeded: sum >> (8 * UInt32(index))) }
    }
}

/// Records an issue where a guard leaves a test.
func fail(_ what: Comment) { Issue.record(what) }

@Suite struct FormatTests {
    static let geometry = try! FlashGeometry(totalBytes: 64 << 20, extentBytes: 64 << 10)
    static let drive = FlashUUID(0x1122_3344_5566_7788, 0x99AA_BBCC_DDEE_FF00)

    private func headerPage() -> (page: Page, object: FlashObject) {
        var object = testObject(11, payloadBytes: 3 * 65536 - 5, extents: ExtentList([9, 300, 2]), generation: 42)
        object.checksum = 0x0123_4567_89AB_CDEF
        var page = Page()
        unsafe page.fill { unsafe BlockHeader.encode(object, drive: Self.drive, into: $0) }
        return (page, object)
    }

    @Test func aHeaderIsReadAsItWasWritten() {
        let (page, object) = headerPage()
        guard case .object(object) = page.header(9, drive: Self.drive, Self.geometry) else {
            return fail("another object")
        }
        var tombstone = Page()
        unsafe tombstone.fill {
            unsafe BlockHeader.encodeTombstone(extent: 9, drive: Self.drive, generation: 7, into: $0)
        }
        guard case .tombstone(7) = tombstone.header(9, drive: Self.drive, Self.geometry) else {
            return fail("no tombstone")
        }
    }

    @Test func noSingleBitOfAHeaderCanFlipUnseen() {
        let (page, _) = headerPage()
        for bit in 0..<(page.bytes.count * 8) {
            var damaged = page
            damaged.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            guard case .damaged = damaged.header(9, drive: Self.drive, Self.geometry) else {
                return fail("bit \(bit) flipped unseen")
            }
        }
    }

    @Test func aHeaderElsewhereOrOfAnotherDriveIsNoObject() {
        let (page, _) = headerPage()
        guard case .damaged = page.header(10, drive: Self.drive, Self.geometry) else {
            return fail("a misdirected header was believed")
        }
        guard case .blank = page.header(9, drive: FlashUUID(1, 1), Self.geometry) else {
            return fail("a header of an earlier formatting was believed")
        }
    }

    /// Fields that make no sense are refused even under a right checksum.
    @Test(
        arguments: [
            (116, [0, 0, 0, 0]), (116, [65, 0, 0, 0]), (116, [2, 0, 0, 0]), (136, [0, 0, 0]),
            (136, [0xFF, 0xFF, 0xFF]),
            (143, [0xFF]), (152, [8]), (156, [9, 0]), (156, [0xFF, 0xFF]), (74, [2]), (8, [3]),
        ] as [(Int, [UInt8])])
    func aSealedHeaderThatMakesNoSenseIsDamaged(offset: Int, bytes: [UInt8]) {
        var (page, _) = headerPage()
        page.bytes.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        page.reseal()
        guard case .damaged = page.header(9, drive: Self.drive, Self.geometry) else {
            return fail("believed")
        }
    }

    /// What counts on from a generation must not overflow, nor be the highest for ever.
    @Test(arguments: [.max, .max - 1, 1 << 63] as [UInt64])
    func aGenerationThatNoStoreReachesIsDamage(_ generation: UInt64) {
        var (page, _) = headerPage()
        for index in 0..<8 { page.bytes[32 + index] = UInt8(truncatingIfNeeded: generation >> UInt64(8 * index)) }
        page.reseal()
        guard case .damaged = page.header(9, drive: Self.drive, Self.geometry) else { return fail("believed") }
        unsafe page.fill {
            unsafe BlockHeader.encodeTombstone(extent: 9, drive: Self.drive, generation: generation, into: $0)
        }
        guard case .damaged = page.header(9, drive: Self.drive, Self.geometry) else { return fail("believed") }
    }

    @Test func randomBytesAreNeverAnObject() {
        var source = RandomSource(seed: 8)
        let (whole, _) = headerPage()
        for round in 0..<4000 {
            var page = whole
            // All random; or the real header with a random stretch.
            let start = round % 2 == 0 ? 0 : source.below(4096)
            let end = round % 2 == 0 ? 4096 : start + 1 + source.below(4096 - start)
            for index in start..<end { page.bytes[index] = UInt8(truncatingIfNeeded: source.next() >> 20) }
            if page.bytes == whole.bytes { continue }
            switch page.header(9, drive: Self.drive, Self.geometry) {
            case .object, .tombstone: Issue.record("round \(round) was believed")
            case .blank, .damaged: break
            }
            if case .superblock = page.superblock { Issue.record("round \(round) was a superblock") }
        }
    }

    @Test func noSingleBitOfASuperblockCanFlipUnseen() throws {
        let superblock = Superblock(identity: testIdentity, geometry: Self.geometry)
        var page = Page()
        unsafe page.fill { unsafe superblock.encode(into: $0) }
        #expect(page.superblock == .superblock(superblock))
        for bit in 0..<(page.bytes.count * 8) {
            var damaged = page
            damaged.bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            if case .superblock = damaged.superblock { return fail("bit \(bit) flipped unseen") }
        }
        // Sealed, but from a later format, or with a layout that does not follow from its size.
        for (offset, words) in [
            (8, "version 2"), (60, "64 KiB"), (64, "layout"), (48, "drive"), (55, "16 million drives"), (91, "layout"),
        ] {
            var changed = page
            changed.bytes[offset] &+= 1
            changed.reseal()
            if case .superblock = changed.superblock { Issue.record("byte \(offset), \(words): believed") }
        }
    }

    /// The bytes of the first release, which every later one must read. A change here is a new format version.
    @Test func theLayoutIsTheOneThatWasReleased() {
        let (page, _) = headerPage()
        var superblock = Page()
        unsafe superblock.fill {
            unsafe Superblock(identity: testIdentity, geometry: Self.geometry).encode(into: $0)
        }
        let header = hexadecimal(page.bytes.prefix(164))
        let start = hexadecimal(superblock.bytes.prefix(96))
        #expect(start == expectedSuperblock)
        #expect(header == expectedHeader)
    }

    @Test func whatIsNeitherDeviceNorFileIsRefusedAndNotWaitedFor() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hf-pipe-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let pipe = folder.appendingPathComponent("pipe").path
        let made = unsafe mkfifo(pipe, 0o600)
        #expect(made == 0)
        for path in [pipe, "/dev/zero"] {
            let refused = FlashError.geometry("\(path) is neither a block device nor a regular file")
            #expect(throws: refused) { try FlashDevice.inspect(path: path) }
            #expect(throws: refused) { try DeviceFile(path: path, access: .unlocked) }
        }
        let identity = DriveIdentity(drive: Self.drive, store: Self.drive, number: 0, count: 1)
        #expect(throws: FlashError.geometry("\(pipe) is neither a block device nor a regular file")) {
            try FlashDevice.format(path: pipe, byteCount: 64 << 20, extentBytes: 64 << 10, identity: identity)
        }
    }

    @Test func theNewerOfTwoHeadersForOneExtentIsTheObject() throws {
        let superblock = Superblock(
            identity: DriveIdentity(drive: Self.drive, store: FlashUUID(0, 0)), geometry: Self.geometry)
        // 9 claims 10 as well; 10 is of a newer generation; 11 claims 10 too and is the oldest.
        let objects = [(9, [9, 10], 5), (10, [10, 12], 8), (11, [11, 10], 3), (13, [13], 4)]
        for order in [[0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 0, 3], [3, 2, 0, 1]] {
            var census = HeaderCensus(superblock: superblock)
            var live: Set<UInt32> = []
            func take(_ event: ScanEvent) {
                switch event {
                case .object(let object): live.insert(object.extents[0])
                case .void(let extent): live.remove(extent)
                case .damaged: Issue.record("damaged")
                }
            }
            for index in order {
                let (extent, extents, generation) = objects[index]
                let object = testObject(
                    UInt64(index), payloadBytes: extents.count * 65536, extents: ExtentList(extents.map(UInt32.init)),
                    generation: UInt64(generation))
                var page = Page()
                unsafe page.fill { unsafe BlockHeader.encode(object, drive: Self.drive, into: $0) }
                unsafe page.bytes.withUnsafeBytes { unsafe census.add($0, from: UInt32(extent), take) }
            }
            let summary = census.finish(take)
            #expect(live == [10, 13])
            #expect(summary.voidCount == 2)
            #expect(summary.objectCount == 2)
            #expect(summary.generationMax == 8)
        }
    }
}

private func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
}

private let expectedSuperblock =
    "484644524956453101000000000000000100000000000000020000000000000003000000000000000400000000000000"
    + "00000000010000000010000000000100c103000000000000000002000000000000003f00000000000000000400000000"

private let expectedHeader =
    "4846424c4f434b310100000009000000887766554433221100ffeeddccbbaa992a000000000000006dbb3af548d862340b0000000000000007"
    + "00000000000000090000000000000001000100020001000b000000000000000100000000000000020000000000000003000000000000000b"
    + "0000000300000010000000000000004d00000000000000fbff020000000000efcdab8967452301090000002c01000002000000"
