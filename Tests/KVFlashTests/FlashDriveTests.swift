// The drive over a real ring and a real file.

import Foundation
import KVFlash
import KVModel
import KVSystem
import Synchronization
import Testing

@Suite struct FlashDriveTests {
    let folder: TemporaryFolder
    let path: String
    static let extentBytes = 64 << 10

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("drive")
        try FlashDevice.format(
            path: path, byteCount: 8 << 20, extentBytes: Self.extentBytes, identity: testIdentity)
    }

    @Test func whatWasAcknowledgedIsThereAfterARestart() throws {
        let memory = try BlockMemory(byteCount: 1 << 20)
        // Scattered extents, contiguous ones, and a payload that ends between two pages.
        let shapes: [(extents: [UInt32], bytes: Int)] = [
            ([5], 64 << 10), ([9, 7, 8], 3 * 65536 - 1000), ([20, 21, 22, 23], 4 << 16), ([0], 1),
        ]
        let objects = try written(shapes, memory)

        var found: [FlashObject] = []
        let device = try FlashDevice(path: path)
        let summary = try device.scan { event in if case .object(let object) = event { found.append(object) } }
        #expect(found == [objects[3], objects[1], objects[2]])
        #expect(summary.tombstoneCount == 1)
        #expect(summary.generationMax == 90)
        #expect(summary.damagedCount == 0)
        #expect(summary.blankCount == device.geometry.extentCount - 4)
        let box = EventBox()
        let reader = try FlashDrive(device, memory: memory, configuration: testConfiguration, sink: box.sink)
        for object in found {
            let slice = MemorySlice(offset: 512 << 10, count: object.payloadBytes)
            #expect(reader.post(.read(tag: 1, object.extents, into: slice)) == .accepted)
            guard case .read(1, .done) = try box.next() else {
                Issue.record("a read failed")
                return
            }
            #expect(checksum(memory, slice, object.name) == object.checksum)
        }
        reader.shutDown()
    }

    /// Writes an object of each shape and erases the first; the drive is closed when this returns.
    private func written(_ shapes: [(extents: [UInt32], bytes: Int)], _ memory: BlockMemory) throws -> [FlashObject] {
        var objects: [FlashObject] = []
        let box = EventBox()
        let drive = try FlashDrive(
            FlashDevice(path: path), memory: memory, configuration: testConfiguration, sink: box.sink)
        for (index, shape) in shapes.enumerated() {
            var object = testObject(
                UInt64(index), payloadBytes: shape.bytes, extents: ExtentList(shape.extents),
                generation: UInt64(index) + 10)
            let slice = MemorySlice(offset: 0, count: shape.bytes)
            object.checksum = fill(memory, slice, object.name, seed: UInt64(index))
            #expect(drive.post(.write(tag: UInt64(index), object, from: slice, isVolatile: false)) == .accepted)
            guard case .written(UInt64(index), .done) = try box.next() else {
                throw Unexpected(what: "write \(index) failed")
            }
            objects.append(object)
        }
        #expect(drive.post(.erase(tag: 90, firstExtent: 5, generation: 90)) == .accepted)
        guard case .erased(90, .done) = try box.next() else {
            throw Unexpected(what: "the erasure failed")
        }
        drive.shutDown()
        #expect(drive.counters.writes == 4)
        #expect(drive.counters.erasures == 1)
        return objects
    }

    @Test func theHeadersOfTwoDrivesAreReadAtTheSameTime() throws {
        let memory = try BlockMemory(byteCount: 1 << 20)
        let objects = try written([([5], 64 << 10), ([9], 100), ([20, 21], 128 << 10), ([0], 1)], memory)
        let other = folder.file("other")
        try FileManager.default.copyItem(atPath: path, toPath: other)
        // Neither scan goes on from its first word before the other has come to its own.
        let arrivals = [DispatchSemaphore(value: 0), DispatchSemaphore(value: 0)]
        let found = Mutex<[[FlashObject]]>([[], []])
        let summaries = try FlashDevice.scanAll([FlashDevice(path: path), FlashDevice(path: other)]) { drive, events in
            arrivals[1 - drive].signal()
            #expect(arrivals[drive].wait(timeout: .now() + 20) == .success)
            for case .object(let object) in events { found.withLock { $0[drive].append(object) } }
        }
        #expect(found.withLock { $0 } == Array(repeating: [objects[3], objects[1], objects[2]], count: 2))
        #expect(summaries.map(\.objectCount) == [3, 3])
        #expect(summaries.map(\.tombstoneCount) == [1, 1])
    }

    @Test func aDriveThatCannotBeReadLeavesTheOthersScanAlone() throws {
        let other = folder.file("other")
        try FileManager.default.copyItem(atPath: path, toPath: other)
        let devices = [try FlashDevice(path: path), try FlashDevice(path: other)]
        // What is no longer there cannot be read: its headers count as damaged, and the other drive's do not.
        try FileHandle(forWritingTo: URL(fileURLWithPath: other)).truncate(atOffset: 64 << 10)
        let summaries = try FlashDevice.scanAll(devices) { drive, events in
            for event in events {
                guard case .damaged = event, drive == 1 else {
                    Issue.record("drive \(drive) says \(event)")
                    return
                }
            }
        }
        #expect(summaries[0].blankCount == devices[0].geometry.extentCount)
        #expect(summaries[1].damagedCount == devices[1].geometry.extentCount)
    }

    /// A file that is formatted anew knows nothing of what it held.
    @Test func formattingAFileAnewErasesItsHeaders() throws {
        let memory = try BlockMemory(byteCount: 1 << 20)
        _ = try written([([5], 64 << 10), ([9], 100), ([20, 21], 128 << 10), ([0], 1)], memory)
        try FlashDevice.format(
            path: path, byteCount: 8 << 20, extentBytes: Self.extentBytes, identity: testIdentity, force: true)
        let device = try FlashDevice(path: path)
        #expect(try device.scan { _ in }.blankCount == device.geometry.extentCount)
    }

    private struct Unexpected: Error { let what: String }

    @Test func aFullDriveSaysSoAndAnswersEverything() throws {
        let memory = try BlockMemory(byteCount: 1 << 20)
        let box = EventBox()
        let drive = try FlashDrive(
            FlashDevice(path: path), memory: memory, configuration: testConfiguration, sink: box.sink)
        var accepted = 0
        for tag in 0..<1000 {
            let slice = MemorySlice(offset: tag % 16 * 65536, count: 65536)
            let object = testObject(
                UInt64(tag), payloadBytes: 65536, extents: ExtentList([UInt32(tag % 16)]), generation: 1)
            let command: FlashCommand =
                tag % 3 == 0
                ? .read(tag: UInt64(tag), object.extents, into: slice)
                : .write(tag: UInt64(tag), object, from: slice, isVolatile: tag % 3 == 1)
            if drive.post(command) == .accepted { accepted += 1 }
        }
        #expect(accepted >= testConfiguration.commandCountMax)
        for _ in 0..<accepted { _ = try box.next() }
        drive.shutDown()
        #expect(drive.post(.erase(tag: 0, firstExtent: 0, generation: 1)) == .full)
        #expect(drive.counters.reads + drive.counters.writes == accepted)
    }

    /// An owner that hears of ends on the drive's own thread frees blocks and sends commands before the drive takes any.
    @Test func hintsTakeNoCommandsRoom() throws {
        let memory = try BlockMemory(byteCount: 1 << 20)
        let box = EventBox()
        let commandCountMax = testConfiguration.commandCountMax
        let owner = Mutex<FlashDrive?>(nil)
        let accepted = Mutex((hints: 0, commands: 0))
        @Sendable func read(_ tag: Int) -> FlashCommand {
            .read(tag: UInt64(tag), ExtentList([1]), into: MemorySlice(offset: 0, count: 4096))
        }
        let drive = try FlashDrive(FlashDevice(path: path), memory: memory, configuration: testConfiguration) { event in
            if case .read(0, _) = event, let drive = owner.withLock({ $0 }) {
                for extent in 0..<UInt32(2 * commandCountMax) {
                    if drive.post(.discard(ExtentList([extent]))) == .accepted { accepted.withLock { $0.hints += 1 } }
                }
                for tag in 1...2 * commandCountMax where drive.post(read(tag)) == .accepted {
                    accepted.withLock { $0.commands += 1 }
                }
            }
            box.sink(event)
        }
        owner.withLock { $0 = drive }
        #expect(drive.post(read(0)) == .accepted)
        for _ in 0...commandCountMax { _ = try box.next() }
        #expect(accepted.withLock { $0 } == (commandCountMax, commandCountMax))
        owner.withLock { $0 = nil }
        drive.shutDown()
    }

    @Test func regionsBeyondTheFirstAreReached() throws {
        let first = try PageMemory(byteCount: 4096)
        let second = try PageMemory(byteCount: 65536)
        let holder = Holder(first, second)
        let memory = unsafe BlockMemory(regions: [holder.first.bytes, holder.second.bytes]) { _ = holder }
        let box = EventBox()
        let drive = try FlashDrive(
            FlashDevice(path: path), memory: memory, configuration: testConfiguration, sink: box.sink)
        let slice = MemorySlice(region: 1, offset: 0, count: 65536)
        let object = testObject(1, payloadBytes: 65536, extents: ExtentList([3]), generation: 1)
        let before = fill(memory, slice, object.name, seed: 3)
        _ = drive.post(.write(tag: 0, object, from: slice, isVolatile: true))
        _ = try box.next()
        _ = fill(memory, slice, object.name, seed: 4)
        _ = drive.post(.read(tag: 1, object.extents, into: slice))
        _ = try box.next()
        #expect(checksum(memory, slice, object.name) == before)
        drive.shutDown()
    }

    /// The kernel registers at most 1 GiB as one buffer; a transfer is cut where the next one begins.
    @Test func aTransferMayCrossTheRingsLargestBuffer() throws {
        let memory = try BlockMemory(byteCount: (1 << 30) + (1 << 20))
        let box = EventBox()
        let drive = try FlashDrive(
            FlashDevice(path: path), memory: memory, configuration: testConfiguration, sink: box.sink)
        let slice = MemorySlice(offset: (1 << 30) - 4096, count: 65536)
        let object = testObject(1, payloadBytes: 65536, extents: ExtentList([3]), generation: 1)
        let before = fill(memory, slice, object.name, seed: 3)
        _ = drive.post(.write(tag: 0, object, from: slice, isVolatile: true))
        guard case .written(0, .done) = try box.next() else { return fail("the write failed") }
        let elsewhere = MemorySlice(offset: 0, count: 65536)
        _ = drive.post(.read(tag: 1, object.extents, into: elsewhere))
        guard case .read(1, .done) = try box.next() else { return fail("the read failed") }
        #expect(checksum(memory, elsewhere, object.name) == before)
        drive.shutDown()
    }

    private final class Holder: Sendable {
        let first: PageMemory
        let second: PageMemory
        init(_ first: consuming PageMemory, _ second: consuming PageMemory) {
            self.first = first
            self.second = second
        }
    }
}

@Suite struct FlashDeviceTests {
    let folder: TemporaryFolder
    init() throws { folder = try TemporaryFolder() }

    private func format(_ path: String, bytes: Int? = 4 << 20, force: Bool = false) throws {
        try FlashDevice.format(
            path: path, byteCount: bytes, extentBytes: 64 << 10, identity: testIdentity, force: force)
    }

    private func message(_ body: () throws -> Void) -> String {
        do { try body() } catch { return "\(error)" }
        return "no error"
    }

    @Test func formattingRefusesWhatItWouldDestroy() throws {
        let path = folder.file("drive")
        try format(path)
        #expect(message { try format(path) }.contains("a Holdfast drive"))
        try format(path, force: true)

        let text = folder.file("text")
        try (Data(repeating: 0, count: 3 << 20) + Data([1])).write(to: URL(fileURLWithPath: text))
        #expect(message { try format(text) }.contains("unknown data at byte 3145728"))
        var image = Data(repeating: 0, count: 2 << 20)
        image[0x438] = 0x53
        image[0x439] = 0xEF
        let disk = folder.file("disk")
        try image.write(to: URL(fileURLWithPath: disk))
        #expect(message { try format(disk) }.contains("ext4 file system"))
        #expect(try Data(contentsOf: URL(fileURLWithPath: disk)) == image)
    }

    @Test func aDriveTakesExactlyItsBytes() throws {
        for bytes in [8 << 20, (8 << 20) + 4095, 5_000_000] {
            let path = folder.file("drive\(bytes)")
            try format(path, bytes: bytes)
            let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
            #expect(size == bytes)
            let geometry = try FlashDevice.inspect(path: path).geometry
            #expect(geometry.totalBytes == bytes)
            #expect(geometry.extentsOffset + geometry.extentCount * geometry.extentBytes <= bytes)
            #expect(geometry.extentsOffset + (geometry.extentCount + 1) * (geometry.extentBytes + 4096) > bytes)
        }
    }

    /// Half a file would fill the node's disk for good.
    @Test func whatHasNoRoomLeavesNothingBehind() throws {
        let path = folder.file("drive")
        #expect(message { try format(path, bytes: 1 << 46) }.contains("has no room"))
        #expect(!FileManager.default.fileExists(atPath: path))
        // One that is there stays as long as it was, and what it held.
        try format(path)
        let held = try FlashDevice.inspect(path: path)
        #expect(message { try format(path, bytes: 1 << 46, force: true) }.contains("has no room"))
        #expect(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int == 4 << 20)
        #expect(try FlashDevice.inspect(path: path) == held)
    }

    @Test func aDriveHasOneUser() throws {
        let path = folder.file("drive")
        try format(path)
        let device = try FlashDevice(path: path)
        #expect(message { _ = try FlashDevice(path: path) }.contains("another process uses it"))
        #expect(message { try format(path, force: true) }.contains("another process uses it"))
        #expect(try FlashDevice.inspect(path: path) == device.superblock)
    }

    @Test func aTruncatedDriveIsRefused() throws {
        let path = folder.file("drive")
        try format(path)
        try FileHandle(forWritingTo: URL(fileURLWithPath: path)).truncate(atOffset: 3 << 20)
        #expect(
            message { _ = try FlashDevice(path: path) }.contains("formatted with 4194304 bytes and now has 3145728"))
    }

    /// Else the flush behind each first header would write the file system's note on it, too.
    @Test func noHeaderPageOfANewFileIsLeftUnwritten() throws {
        let path = folder.file("drive")
        try format(path)
        let descriptor = unsafe open(path, O_RDONLY)
        defer { close(descriptor) }
        let seekHole: Int32 = 4  // SEEK_HOLE, which Swift does not see.
        let geometry = try FlashGeometry(totalBytes: 4 << 20, extentBytes: 64 << 10)
        let last = geometry.headerOffset(ofExtent: UInt32(geometry.extentCount - 1))
        #expect(lseek(descriptor, FlashGeometry.headerAreaOffset, seekHole) >= last + FlashGeometry.headerBytes)
    }

    @Test func oneGoodSuperblockIsEnoughAndMendsTheOther() throws {
        let path = folder.file("drive")
        try format(path)
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        for offset in FlashGeometry.superblockOffsets {
            let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
            try handle.seek(toOffset: UInt64(offset + 100))
            try handle.write(contentsOf: Data([0xFF, 0xFE]))
            try handle.close()
            #expect(try FlashDevice.inspect(path: path).identity == testIdentity)
            _ = try FlashDevice(path: path)
            #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == whole)
        }
        try whole.subdata(in: (128 << 10)..<whole.count).write(to: URL(fileURLWithPath: path))
        #expect(message { _ = try FlashDevice(path: path) }.contains("not a Holdfast drive"))
        #expect(message { _ = try FlashDevice(path: folder.file("none")) }.contains("No such file"))
    }

    @Test func drivesOfOneStoreAreToldFromOthers() throws {
        let geometry = try FlashGeometry(totalBytes: 4 << 20, extentBytes: 64 << 10)
        func drive(_ number: Int, of count: Int = 3, store: UInt64 = 1) -> (String, Superblock) {
            let identity = DriveIdentity(
                drive: FlashUUID(9, UInt64(number)), store: FlashUUID(store, 0), number: number, count: count)
            return ("/dev/\(number)", Superblock(identity: identity, geometry: geometry))
        }
        #expect(message { try Superblock.check([drive(2), drive(0), drive(1)]) } == "no error")
        #expect(message { try Superblock.check([drive(2), drive(0)]) }.contains("drive 1 of the store's 3 is missing"))
        #expect(message { try Superblock.check([drive(0), drive(1), drive(1)]) }.contains("both are drive 1"))
        #expect(message { try Superblock.check([drive(0), drive(1, store: 2)]) }.contains("belongs to store"))
        #expect(message { try Superblock.check([drive(0), drive(1, of: 2)]) }.contains("is of 2 drives"))
    }
}

/// A device that may be overwritten, named by HOLDFAST_FLASH_DEVICE (a loop device does); without it the test is skipped.
private let scratchDevice = ProcessInfo.processInfo.environment["HOLDFAST_FLASH_DEVICE"]

@Suite struct BlockDeviceTests {
    @Test(.enabled(if: scratchDevice != nil, "HOLDFAST_FLASH_DEVICE names no device that may be overwritten"))
    func aRawBlockDeviceIsADriveAndIsTrimmed() throws {
        let path = try #require(scratchDevice)
        try FlashDevice.format(
            path: path, byteCount: nil, extentBytes: 2 << 20, identity: testIdentity, force: true)
        #expect(throws: FlashError.foreignData(path: path, found: "a Holdfast drive")) {
            try FlashDevice.format(path: path, byteCount: nil, extentBytes: 2 << 20, identity: testIdentity)
        }
        let device = try FlashDevice(path: path)
        #expect(device.isBlockDevice)
        let memory = try BlockMemory(byteCount: 8 << 20)
        let box = EventBox()
        let drive = try FlashDrive(device, memory: memory, configuration: testConfiguration, sink: box.sink)
        let slice = MemorySlice(offset: 0, count: 4 << 20)
        var object = testObject(1, payloadBytes: 4 << 20, extents: ExtentList([3, 1]), generation: 1)
        object.checksum = fill(memory, slice, object.name, seed: 3)
        for step in 0..<2 {
            _ = drive.post(.write(tag: 0, object, from: slice, isVolatile: false))
            guard case .written(0, .done) = try box.next() else { return fail("the write failed") }
            let other = MemorySlice(offset: 4 << 20, count: 4 << 20)
            _ = drive.post(.read(tag: 1, object.extents, into: other))
            guard case .read(1, .done) = try box.next() else { return fail("the read failed") }
            #expect(checksum(memory, other, object.name) == object.checksum)
            _ = drive.post(.erase(tag: 2, firstExtent: 3, generation: 2))
            guard case .erased(2, .done) = try box.next() else { return fail("the erasure failed") }
            // The first hint is overtaken by the next write, or comes before it; the second goes out, in two runs.
            _ = drive.post(.discard(object.extents))
            if step == 1 { drive.shutDown() }
        }
        #expect(drive.counters.discards >= 2)
        #expect(drive.counters.failures == 0)
        #expect(try device.scan { _ in }.tombstoneCount == 1)
    }
}
