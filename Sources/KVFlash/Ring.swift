// One io_uring over one device, as the drive's thread and the restart scan use it. It moves bytes; it decides nothing.

import CURing
import KVModel
import KVSystem

/// What a drive asks of its device.
package struct DeviceRequest: Sendable, Equatable {
    /// What to do.
    package enum Kind: Sendable { case read, write, flush, discard }

    package var kind: Kind
    /// Comes back with the completion.
    package var ticket: UInt32
    /// Where on the device, bytes.
    package var offset = 0
    /// How many bytes.
    package var byteCount = 0
    /// The bytes' place in memory, for reads and writes.
    package var memory = MemorySlice(offset: 0, count: 0)
    /// Which of the ways to discard.
    package var discardWay: Int32 = 0
}

/// How a request ended: bytes moved, or the negative error number.
package struct DeviceCompletion: Sendable {
    package var ticket: UInt32
    package var result: Int32

    package init(ticket: UInt32, result: Int32) {
        self.ticket = ticket
        self.result = result
    }
}

/// The memory that transfers may name: the regions of a `BlockMemory`, and behind them one region of header pages.
@safe
package struct TransferMemory: Sendable {
    /// Owned by whoever opened the drive.
    let blocks: BlockMemory
    private let pages: PageHolder
    /// The number of the region of header pages.
    package let headerRegion: Int32

    private final class PageHolder: Sendable {
        let pages: PageMemory
        init(_ pages: consuming PageMemory) { self.pages = pages }
    }

    /// The regions of `blocks` and one header page for each command that may be under way.
    package init(_ blocks: BlockMemory, headerCount: Int) throws(SystemError) {
        self.blocks = blocks
        pages = PageHolder(try PageMemory(byteCount: headerCount * FlashGeometry.headerBytes))
        headerRegion = unsafe Int32(blocks.regions.count)
    }

    /// The bytes of a region.
    func region(_ number: Int32) -> UnsafeMutableRawBufferPointer {
        unsafe number == headerRegion ? pages.pages.bytes : blocks.regions[Int(number)]
    }

    /// The bytes of a slice.
    package subscript(slice: MemorySlice) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            rebasing: region(slice.region)[slice.offset..<(slice.offset + slice.count)])
    }

    /// The slice of the header page of a command.
    func headerPage(_ number: UInt32) -> MemorySlice {
        MemorySlice(
            region: headerRegion, offset: Int(number) * FlashGeometry.headerBytes, count: FlashGeometry.headerBytes)
    }
}

/// A ring with its buffers and its file registered. It belongs to the thread that enabled it.
@safe
struct Ring: ~Copyable, @unchecked Sendable {
    /// The kernel takes no larger registered buffer.
    static let bufferBytesMax = 1 << 30
    /// The ticket of a wake-up.
    static let wakeTicket = UInt32.max

    private let ring: OpaquePointer
    private let memory: TransferMemory
    /// The number of the first registered buffer of each region; empty when buffers are not registered.
    private let firstBuffer: [Int32]

    /// A ring for at most `entryCount` requests a turn on `descriptor`, not yet enabled.
    ///
    /// Registered buffers spare the kernel a walk over the pages of each transfer. They count as locked memory: a
    /// process whose limit is too low goes on without them, and `hasRegisteredBuffers` tells.
    init(entryCount: Int, descriptor: Int32, memory: TransferMemory) throws(FlashError) {
        unsafe ring = try Ring.make(entryCount: entryCount, descriptor: descriptor)
        self.memory = memory
        firstBuffer = unsafe Ring.registerBuffers(ring, memory)
    }

    deinit { unsafe hf_ring_destroy(ring) }

    private static func make(entryCount: Int, descriptor: Int32) throws(FlashError) -> OpaquePointer {
        var made: OpaquePointer?
        let created = unsafe hf_ring_create(UInt32(entryCount), &made)
        guard created == 0, let made = unsafe made else {
            throw .noRing(SystemError(number: -created, doing: "set up a ring"))
        }
        let registered = unsafe hf_ring_register_file(made, descriptor)
        guard registered == 0 else {
            unsafe hf_ring_destroy(made)
            throw .noRing(SystemError(number: -registered, doing: "register a file with its ring"))
        }
        return unsafe made
    }

    private static func registerBuffers(_ ring: OpaquePointer, _ memory: TransferMemory) -> [Int32] {
        var firsts: [Int32] = []
        var addresses: [UnsafeMutableRawPointer?] = unsafe []
        var lengths: [Int] = []
        for number in 0...memory.headerRegion {
            firsts.append(Int32(lengths.count))
            let region = unsafe memory.region(number)
            for start in stride(from: 0, to: region.count, by: bufferBytesMax) {
                unsafe addresses.append(region.baseAddress! + start)
                lengths.append(min(bufferBytesMax, region.count - start))
            }
        }
        let result = unsafe hf_ring_register_buffers(ring, &addresses, lengths, UInt32(lengths.count))
        return result == 0 ? firsts : []
    }

    /// Whether the buffers are registered; without it each transfer costs more processor time.
    var hasRegisteredBuffers: Bool { !firstBuffer.isEmpty }

    /// Makes the calling thread the ring's only submitter.
    func enable() {
        let result = unsafe hf_ring_enable(ring)
        precondition(result == 0, "a ring cannot be enabled: error \(-result)")
    }

    /// Queues a request. The ring has room for as many as its maker said.
    func queue(_ request: DeviceRequest) {
        let tag = UInt64(request.ticket)
        let result: Int32
        switch request.kind {
        case .flush: result = unsafe hf_ring_sync_data(ring, tag)
        case .discard:
            result = unsafe hf_ring_discard(
                ring, tag, Int64(request.offset), Int64(request.byteCount), request.discardWay)
        case .read, .write:
            let bytes = unsafe memory[request.memory]
            let buffer =
                firstBuffer.isEmpty
                ? -1 : firstBuffer[Int(request.memory.region)] + Int32(request.memory.offset / Self.bufferBytesMax)
            result =
                request.kind == .read
                ? unsafe hf_ring_read(
                    ring, tag, bytes.baseAddress, UInt32(bytes.count), Int64(request.offset), buffer)
                : unsafe hf_ring_write(
                    ring, tag, bytes.baseAddress, UInt32(bytes.count), Int64(request.offset), buffer)
        }
        precondition(result == 0, "more requests in a turn than the ring was made for")
    }

    /// Queues a wake-up: `wakeTicket` completes once when the descriptor becomes readable.
    func queueWake(_ descriptor: Int32) {
        let result = unsafe hf_ring_poll(ring, UInt64(Self.wakeTicket), descriptor)
        precondition(result == 0, "more requests in a turn than the ring was made for")
    }

    /// Sends what was queued, and calls `body` for each completion there is, at most 64. Waits for the first of them when
    /// `waits`, at most for `limit`.
    func submit(waits: Bool, limit: Duration?, _ body: (DeviceCompletion) -> Void) {
        var tags = InlineArray<64, UInt64>(repeating: 0)
        var results = InlineArray<64, Int32>(repeating: 0)
        let limit = limit.map { max(0, $0.nanoseconds) } ?? -1
        var tagSpan = tags.mutableSpan
        var resultSpan = results.mutableSpan
        let count = unsafe tagSpan.withUnsafeMutableBufferPointer { tags in
            unsafe resultSpan.withUnsafeMutableBufferPointer { results in
                unsafe hf_ring_wait(ring, waits ? 1 : 0, limit, tags.baseAddress, results.baseAddress, 64)
            }
        }
        // Only a bug of ours makes the kernel refuse to enter a ring that it gave us.
        precondition(count >= 0, "a ring cannot be entered: error \(-count)")
        for index in 0..<Int(count) {
            body(DeviceCompletion(ticket: UInt32(tags[index]), result: results[index]))
        }
    }
}
