// Orders and bounds of a drive, request by request.

import KVFlash
import KVModel
import KVSystem
import Testing

@Suite struct DriveSchedulerTests {
    static let geometry = try! FlashGeometry(totalBytes: 64 << 20, extentBytes: 64 << 10)
    let memory: BlockMemory
    let configuration = FlashDriveConfiguration(
        commandCountMax: 64, transferCountMax: 8, writeTransferCountMax: 4, transferBytesMax: 128 << 10,
        readBytesMax: 512 << 10, readRunMax: 4, timeout: Duration(seconds: 10))

    init() throws { memory = try BlockMemory(byteCount: 8 << 20) }

    private func scheduler(
        _ geometry: FlashGeometry = Self.geometry, canDiscard: Bool = false, hasCache: Bool = true
    ) throws -> DriveScheduler {
        DriveScheduler(
            device: DriveScheduler.Device(
                geometry: geometry, drive: FlashUUID(1, 1), hasVolatileCache: hasCache, canDiscard: canDiscard),
            configuration: configuration, memory: try TransferMemory(memory, headerCount: 64))
    }

    private func write(_ tag: UInt64, _ extents: [UInt32], isVolatile: Bool = false) -> FlashCommand {
        let bytes = extents.count * 65536
        let object = testObject(tag, payloadBytes: bytes, extents: ExtentList(extents), generation: tag)
        return .write(tag: tag, object, from: MemorySlice(offset: 0, count: bytes), isVolatile: isVolatile)
    }

    private func read(_ tag: UInt64, _ extents: [UInt32]) -> FlashCommand {
        .read(tag: tag, ExtentList(extents), into: MemorySlice(offset: 0, count: extents.count * 65536))
    }

    private func requests(_ scheduler: inout DriveScheduler, at now: Instant = .zero) -> [DeviceRequest] {
        var requests: [DeviceRequest] = []
        while let request = scheduler.nextRequest(at: now) { requests.append(request) }
        return requests
    }

    private func complete(_ scheduler: inout DriveScheduler, _ request: DeviceRequest, _ result: Int32? = nil) {
        scheduler.complete(DeviceCompletion(ticket: request.ticket, result: result ?? Int32(request.byteCount)))
    }

    @Test func aWriteIsDataFlushHeaderFlush() throws {
        var drive = try scheduler()
        drive.accept(write(7, [3]), at: .zero)
        var kinds: [String] = []
        while let request = drive.nextRequest(at: .zero) {
            let area = request.offset < Self.geometry.extentsOffset ? "header" : "data"
            kinds.append(request.kind == .flush ? "flush" : area)
            #expect(drive.events.isEmpty)
            complete(&drive, request)
        }
        #expect(kinds == ["data", "flush", "header", "flush"])
        guard case .written(7, .done) = drive.events.first else { return fail("no answer") }
        #expect(drive.isIdle)
    }

    @Test func aWriteThroughDeviceIsNeverFlushed() throws {
        var drive = try scheduler(hasCache: false)
        drive.accept(write(1, [3]), at: .zero)
        drive.accept(.erase(tag: 2, firstExtent: 9, generation: 2), at: .zero)
        while let request = drive.nextRequest(at: .zero) { complete(&drive, request) }
        #expect(drive.events.count == 2)
        #expect(drive.counters.flushes == 0)
    }

    @Test func oneFlushServesAllThatGathered() throws {
        var drive = try scheduler()
        for tag in 0..<40 { drive.accept(.erase(tag: UInt64(tag), firstExtent: UInt32(tag), generation: 1), at: .zero) }
        // While the first flush runs, all other tombstones are written.
        var flush: DeviceRequest?
        while let request = drive.nextRequest(at: .zero) {
            if request.kind == .flush { flush = request } else { complete(&drive, request) }
        }
        #expect(drive.events.isEmpty)
        complete(&drive, try #require(flush), 0)
        #expect(drive.events.count == 1)
        let second = drive.nextRequest(at: .zero)
        complete(&drive, try #require(second), 0)
        #expect(drive.events.count == 40)
        #expect(drive.counters.flushes == 2)
    }

    @Test func readsGoBeforeWritesAndDoNotStarveThem() throws {
        var drive = try scheduler()
        for tag in 0..<4 { drive.accept(write(UInt64(tag), [UInt32(tag)]), at: .zero) }
        for tag in 0..<20 { drive.accept(read(UInt64(100 + tag), [UInt32(100 + tag)]), at: .zero) }
        var order: [DeviceRequest.Kind] = []
        while order.count < 14, let request = drive.nextRequest(at: .zero) {
            if request.kind != .flush { order.append(request.kind) }
            complete(&drive, request)
        }
        let reads: [DeviceRequest.Kind] = [.read, .read, .read, .read]
        #expect(Array(order[0..<5]) == reads + [.write])
        #expect(Array(order[5..<10]) == reads + [.write])
    }

    @Test func readsFindRoomBesideAQueueOfWrites() throws {
        var drive = try scheduler()
        for tag in 0..<20 { drive.accept(write(UInt64(tag), [UInt32(tag)]), at: .zero) }
        #expect(requests(&drive).count == configuration.writeTransferCountMax)
        drive.accept(read(50, [50]), at: .zero)
        #expect(requests(&drive).map(\.kind) == [.read])
    }

    @Test func theDeviceGetsNoMoreReadsThanKeepItBusy() throws {
        var drive = try scheduler()
        // 128 KiB each: four are enough, though there is room for eight transfers.
        for tag in 0..<7 { drive.accept(read(UInt64(tag), [UInt32(2 * tag), UInt32(2 * tag + 1)]), at: .zero) }
        let first = requests(&drive)
        #expect(first.map(\.offset) == (0..<4).map { Self.geometry.offset(ofExtent: 2 * $0) })
        // Of one the rest is still to come, which is less: another goes, in turn.
        complete(&drive, first[0], 64 << 10)
        let next = requests(&drive)
        #expect(next.map(\.offset) == [first[0].offset + (64 << 10), Self.geometry.offset(ofExtent: 8)])
        for request in [first[1], first[2], first[3]] + next { complete(&drive, request) }
        #expect(requests(&drive).count == 2)
        // Writes have a bound of their own.
        drive.accept(write(50, [50]), at: .zero)
        #expect(requests(&drive).map(\.kind) == [.write])
    }

    @Test func transfersFollowExtentsThatLieSideBySide() throws {
        var drive = try scheduler()
        drive.accept(read(1, [4, 5, 6, 9, 2]), at: .zero)
        let sent = requests(&drive)
        let offset = { (extent: UInt32) in Self.geometry.offset(ofExtent: extent) }
        #expect(sent.map(\.offset) == [offset(4), offset(6), offset(9), offset(2)])
        #expect(sent.map(\.byteCount) == [128 << 10, 64 << 10, 64 << 10, 64 << 10])
        #expect(sent.map(\.memory.offset) == [0, 128 << 10, 192 << 10, 256 << 10])
    }

    @Test func aShortTransferGoesOnWhereItStopped() throws {
        var drive = try scheduler()
        drive.accept(read(1, [4, 5]), at: .zero)
        let first = requests(&drive)[0]
        complete(&drive, first, 4096)
        let rest = requests(&drive)[0]
        #expect(rest.offset == first.offset + 4096)
        #expect(rest.byteCount == first.byteCount - 4096)
        #expect(rest.memory.offset == first.memory.offset + 4096)
        complete(&drive, rest)
        guard case .read(1, .done) = drive.events.first else { return fail("no answer") }
    }

    @Test func aFailedTransferFailsItsCommandOnceAllHaveComeBack() throws {
        var drive = try scheduler()
        drive.accept(write(1, [1, 3, 5, 7, 9, 11]), at: .zero)
        let sent = requests(&drive)
        #expect(sent.count == 4)
        complete(&drive, sent[1], -5)
        #expect(requests(&drive).isEmpty)
        for request in [sent[0], sent[2]] { complete(&drive, request) }
        #expect(drive.events.isEmpty)
        complete(&drive, sent[3], 0)
        guard case .written(1, .failed(5)) = drive.events.first else { return fail("no answer") }
        #expect(drive.isIdle)
        #expect(drive.counters.flushes == 0)
    }

    @Test func aFailedFlushEndsWritingForGood() throws {
        var drive = try scheduler()
        drive.accept(write(1, [1]), at: .zero)
        complete(&drive, requests(&drive)[0])
        drive.accept(write(2, [2]), at: .zero)
        drive.accept(read(3, [3]), at: .zero)
        let sent = requests(&drive)
        let flush = try #require(sent.first { $0.kind == .flush })
        complete(&drive, flush, -5)
        for request in sent where request.kind != .flush { complete(&drive, request) }
        drive.accept(write(4, [4]), at: .zero)
        drive.accept(.erase(tag: 5, firstExtent: 5, generation: 5), at: .zero)
        #expect(requests(&drive).isEmpty)
        let texts = drive.events.map { "\($0)" }
        #expect(texts.filter { $0.contains("becameReadOnly") }.count == 1)
        for tag in [1, 2, 4, 5] { #expect(texts.contains { $0.contains("tag: \(tag)") && $0.contains("readOnly") }) }
        #expect(texts.contains { $0.contains("tag: 3") && $0.contains("done") })
        #expect(drive.isIdle)
    }

    @Test func whatTheDeviceNeverEndsIsGivenUpAndStaysQuarantined() throws {
        var drive = try scheduler()
        let late = Instant(seconds: 11)
        drive.accept(read(1, [1]), at: .zero)
        drive.accept(write(2, [2]), at: .zero)
        let sent = requests(&drive)
        drive.expire(at: Instant(seconds: 9))
        #expect(drive.events.isEmpty)
        drive.expire(at: late)
        let texts = drive.events.map { "\($0)" }
        #expect(texts.count == 2)
        #expect(texts.allSatisfy { $0.contains("overdue") })
        #expect(drive.hasOnlyOverdue)
        #expect(!drive.isIdle)
        drive.events.removeAll()
        for request in sent { complete(&drive, request) }
        // The late data is followed by neither flush nor header.
        #expect(requests(&drive).isEmpty)
        #expect(Set(drive.events.map { "\($0)" }) == ["released(tag: 1)", "released(tag: 2)"])
        #expect(drive.isIdle)
    }

    @Test func aFlushThatNeverEndsIsAFailedOne() throws {
        var drive = try scheduler()
        drive.accept(write(1, [1]), at: .zero)
        complete(&drive, requests(&drive)[0])
        #expect(requests(&drive).map(\.kind) == [.flush])
        drive.expire(at: Instant(seconds: 11))
        #expect(drive.isReadOnly)
        #expect(drive.events.count == 2)
        #expect(drive.hasOnlyOverdue)
    }

    @Test func extentsAreTrimmedInRunsWhenIdleAndNeverWhenUsedAgain() throws {
        var drive = try scheduler(canDiscard: true)
        drive.accept(.discard(ExtentList([4, 5, 6, 7, 90])), at: .zero)
        drive.accept(write(1, [6], isVolatile: true), at: .zero)
        for request in requests(&drive) {
            #expect(request.kind == .write)
            complete(&drive, request)
        }
        let first = requests(&drive)
        #expect(first.map(\.offset) == [Self.geometry.offset(ofExtent: 4)])
        #expect(first.map(\.byteCount) == [128 << 10])
        // A write to an extent that the device is just discarding waits.
        drive.accept(write(2, [5], isVolatile: true), at: .zero)
        #expect(requests(&drive).isEmpty)
        complete(&drive, first[0], 0)
        let next = requests(&drive)
        #expect(next.map(\.kind) == [.write])
        complete(&drive, next[0])
        var rest: [Int] = []
        while let request = drive.nextRequest(at: .zero) {
            rest.append(request.offset)
            complete(&drive, request, 0)
        }
        #expect(rest == [7, 90].map { Self.geometry.offset(ofExtent: $0) })
    }

    /// What was trimmed in vain is trimmed in another way, but for what holds a block by then.
    @Test func aTrimThatFailedIsNotRepeatedOnWhatWasWrittenSince() throws {
        var drive = try scheduler(canDiscard: true)
        drive.accept(.discard(ExtentList([4, 5, 6])), at: .zero)
        let trim = requests(&drive)[0]
        drive.accept(write(1, [5], isVolatile: true), at: .zero)
        complete(&drive, trim, -95)
        var trimmed: [Int] = []
        while let request = drive.nextRequest(at: .zero) {
            if request.kind == .discard { trimmed.append(request.offset) }
            complete(&drive, request, request.kind == .discard ? 0 : nil)
        }
        guard case .written(1, .done) = drive.events.first else { return fail("the block is not written") }
        #expect(trimmed == [4, 6].map { Self.geometry.offset(ofExtent: $0) })
        #expect(drive.isIdle)
    }

    /// A write waits for the trim of its extents, and must not wait for that of all that its neighbours were.
    @Test func aTrimIsAGibibyteAtMost() throws {
        let geometry = try FlashGeometry(totalBytes: 4 << 30, extentBytes: 16 << 20)
        var drive = try scheduler(geometry, canDiscard: true)
        for first in stride(from: UInt32(0), to: 192, by: 64) {
            drive.accept(.discard(ExtentList(first..<(first + 64))), at: .zero)
        }
        var trimmed: [Int] = []
        while let request = drive.nextRequest(at: .zero) {
            #expect(request.byteCount == 1 << 30)
            trimmed.append(request.offset)
            complete(&drive, request, 0)
        }
        #expect(trimmed == [0, 64, 128].map { geometry.offset(ofExtent: $0) })
    }

    /// A drive that is shut down waits for a trim as for any other request, and not for ever.
    @Test func aTrimThatNeverEndsIsGivenUp() throws {
        var drive = try scheduler(canDiscard: true)
        drive.accept(.discard(ExtentList([4, 9])), at: .zero)
        #expect(requests(&drive).map(\.kind) == [.discard])
        #expect(!drive.isIdle)
        #expect(!drive.hasOnlyOverdue)
        drive.expire(at: Instant(seconds: 11))
        #expect(drive.hasOnlyOverdue)
        #expect(requests(&drive).isEmpty)
    }

    @Test func aTrimThatNeverEndsHoldsUpItsOwnExtentsOnly() throws {
        var drive = try scheduler(canDiscard: true)
        drive.accept(.discard(ExtentList([4])), at: .zero)
        #expect(requests(&drive).map(\.kind) == [.discard])
        drive.accept(write(1, [4], isVolatile: true), at: .zero)
        // More than one transfer each: what overtakes goes on before the next begins.
        drive.accept(write(2, [20, 21, 22, 23], isVolatile: true), at: .zero)
        drive.accept(write(3, [30], isVolatile: true), at: .zero)
        for request in requests(&drive) { complete(&drive, request) }
        let written = drive.events.compactMap { if case .written(let tag, .done) = $0 { tag } else { nil } }
        #expect(written == [2, 3])
        drive.events = []
        drive.expire(at: Instant(seconds: 11))
        guard case .written(1, .failed) = drive.events.first else { return fail("the first write is not given up") }
        #expect(drive.hasOnlyOverdue)
    }

    @Test func aDeviceThatKnowsNoTrimIsAskedTwiceAndNeverAgain() throws {
        var drive = try scheduler(canDiscard: true)
        drive.accept(.discard(ExtentList([4])), at: .zero)
        for way in 0..<2 {
            let request = requests(&drive)[0]
            #expect(request.discardWay == Int32(way))
            complete(&drive, request, -95)
        }
        drive.accept(.discard(ExtentList([4])), at: .zero)
        #expect(requests(&drive).isEmpty)
    }
}
