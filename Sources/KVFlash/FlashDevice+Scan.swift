// The restart: every header of a drive, in one sequential pass.

import KVModel
import KVSystem
import Synchronization

/// What the restart scan meets.
public enum ScanEvent: Sendable {
    /// A valid header. Its object's data is complete; it is verified when it is first read, and by the scrubber.
    case object(FlashObject)
    /// A valid header of which an extent is also claimed by a newer one, so that it outlived its data. If it was told of as
    /// an object before, it is none. It is to be erased.
    case void(firstExtent: UInt32)
    /// A header of this drive that cannot be believed or read. It is to be erased before its extent is used, or a later
    /// scan might read it after all.
    case damaged(extent: UInt32)
}

/// What the scan has counted. The five counts add up to the drive's extents.
public struct ScanSummary: Sendable, Equatable {
    /// Objects, without those that were void.
    public var objectCount = 0
    /// Objects whose extents a newer one claims.
    public var voidCount = 0
    /// Headers of objects that were erased.
    public var tombstoneCount = 0
    /// Headers that cannot be believed or read.
    public var damagedCount = 0
    /// Headers never written.
    public var blankCount = 0
    /// The highest generation of any object or tombstone, 0 without one. New objects get higher ones.
    public var generationMax: UInt64 = 0

    /// Nothing counted.
    public init() {}
}

extension FlashDevice {
    /// Bytes of one read of the scan, and how many are under way: enough to keep a fast device busy.
    private static let scanReadBytes = 1 << 20
    private static let scanDepth = 8
    /// How long none of the reads under way may end. The kernel gives a disk 30 s and tries again; then it is none.
    private static let scanSilenceMax = Duration(seconds: 120)
    /// Never released.
    private static let memoryOfSilentScans = Mutex<[TransferMemory]>([])

    /// Reads the whole header area at the device's sequential rate and calls `body` for each header that matters, on the
    /// calling thread. It is called before a drive is made of the device. Headers of `void` objects follow all others.
    ///
    /// It remembers twelve bytes an extent and gives them back at the end.
    public func scan(_ body: (ScanEvent) -> Void) throws(FlashError) -> ScanSummary {
        let bytes = Self.scanReadBytes * Self.scanDepth
        let memory = try system(TransferMemory(BlockMemory(byteCount: bytes), headerCount: 1))
        let ring = try Ring(entryCount: Self.scanDepth, descriptor: file.descriptor, memory: memory)
        ring.enable()
        var reader = HeaderAreaReader(areaBytes: geometry.extentCount * FlashGeometry.headerBytes)
        var census = HeaderCensus(superblock: superblock)
        var silentSince = MonotonicClock.now
        while !reader.isDone {
            while let request = reader.next(readBytes: Self.scanReadBytes, depth: Self.scanDepth) {
                ring.queue(request)
            }
            var heardCount = 0
            ring.submit(waits: true, limit: silentSince + Self.scanSilenceMax - MonotonicClock.now) { completion in
                heardCount += 1
                reader.complete(completion) { area, slice in
                    let first = UInt32(area / FlashGeometry.headerBytes)
                    guard let slice else { return census.unreadable(first, body) }
                    unsafe census.add(UnsafeRawBufferPointer(memory[slice]), from: first, body)
                }
            }
            let now = MonotonicClock.now
            if heardCount > 0 { silentSince = now }
            guard now - silentSince < Self.scanSilenceMax else {
                // The device may still write into it when it wakes up.
                Self.memoryOfSilentScans.withLock { $0.append(memory) }
                throw .silent(path: file.path, seconds: Int(Self.scanSilenceMax.nanoseconds / 1_000_000_000))
            }
        }
        return census.finish(body)
    }
}

/// Which parts of the header area are read when. A read that fails is done again page by page, so that one bad sector
/// costs one header.
package struct HeaderAreaReader {
    /// How often in a row reads may end without an answer, interrupted or put off, before they count as failed.
    private static let unansweredMax = 1000
    // Error numbers of the kernel.
    private static let interrupted: Int32 = 4
    private static let tryAgain: Int32 = 11

    private let areaBytes: Int
    private var next = 0
    private var requests: [DeviceRequest?]
    private var singles: [Int] = []
    /// Reads that told nothing of the device, to be sent again.
    private var again: [Range<Int>] = []
    private var unanswered = 0
    private var outCount = 0

    package init(areaBytes: Int) {
        self.areaBytes = areaBytes
        requests = []
    }

    package var isDone: Bool { next >= areaBytes && outCount == 0 && singles.isEmpty && again.isEmpty }

    package mutating func next(readBytes: Int, depth: Int) -> DeviceRequest? {
        if requests.isEmpty { requests = Array(repeating: nil, count: depth) }
        guard let ticket = requests.firstIndex(where: { $0 == nil }) else { return nil }
        let place: Int
        let count: Int
        if let range = again.popLast() {
            place = range.lowerBound
            count = range.count
        } else if let single = singles.popLast() {
            place = single
            count = FlashGeometry.headerBytes
        } else {
            guard next < areaBytes else { return nil }
            place = next
            count = min(readBytes, areaBytes - next)
            next += count
        }
        let request = DeviceRequest(
            kind: .read, ticket: UInt32(ticket), offset: FlashGeometry.headerAreaOffset + place, byteCount: count,
            memory: MemorySlice(offset: ticket * readBytes, count: count))
        requests[ticket] = request
        outCount += 1
        return request
    }

    /// Calls `body` with the place in the area and the bytes in memory, nil for a page that cannot be read.
    package mutating func complete(_ completion: DeviceCompletion, _ body: (Int, MemorySlice?) -> Void) {
        guard let request = requests[Int(completion.ticket)] else { preconditionFailure("the end of a read not begun") }
        requests[Int(completion.ticket)] = nil
        outCount -= 1
        let place = request.offset - FlashGeometry.headerAreaOffset
        if completion.result == -Self.interrupted || completion.result == -Self.tryAgain {
            unanswered += 1
            if unanswered <= Self.unansweredMax { return again.append(place..<(place + request.byteCount)) }
        } else {
            unanswered = 0
        }
        if Int(completion.result) == request.byteCount { return body(place, request.memory) }
        if request.byteCount == FlashGeometry.headerBytes { return body(place, nil) }
        singles += stride(from: place, to: place + request.byteCount, by: FlashGeometry.headerBytes)
    }
}
