// Frames and payloads over one connected stream socket, the same at both ends. Payloads are received straight into the
// block's slot and sent straight out of it; everything else passes through two small buffers.

import CKernel
import KVModel
import KVSystem

/// A connected socket that frames come from and go to. Belongs to one thread.
@safe
package final class FrameStream {
    private enum Incoming {
        /// Reading headers and bodies.
        case frames
        /// A payload of so many bytes is next; the owner says where to.
        case awaitsPayload(Int)
        /// Bytes of a payload go to a slice.
        case payload(into: MemorySlice, done: Int, BlockChecksum)
        /// Bytes of a payload are thrown away.
        case skipping(Int)
    }

    private struct Segment {
        /// Bytes of `outgoing` that go before the payload, counted from the end of the segment before.
        var frameBytes: Int
        var payload: MemorySlice?
        var payloadSent = 0
        var number: UInt32
    }

    /// One call of recv brings no more: what it brought is still in a near cache when the checksum reads it.
    private static let pieceBytes = 512 << 10
    /// One turn brings no more: other connections of the thread wait.
    private static let turnBytes = 8 << 20
    private static let bufferBytes = 64 << 10
    /// In a payload the thread is woken for a part of it, or for its rest. A switch of threads for every few packets costs
    /// a fifth of their copies; a whole payload at a time would leave this end idle while the other sends. What fits the
    /// sockets' buffers is sent without a wait for the reader, so the reader begins early, with a thirty-second, unless
    /// payload follows payload: then the other end has more to send, and for a half the thread is woken less. Of what does
    /// not fit, a MiB is best. Measured against raw sockets from 1 to 16 MiB.
    private func wakeBytes(ofPayload whole: Int) -> Int {
        whole >= 4 << 20 ? 1 << 20 : min(max(16 << 10, whole / (isInARow ? 2 : 32)), 1 << 20)
    }
    /// While puts come, little is read ahead: what is read ahead of a payload must be copied once more.
    private static let readAheadBytes = 1 << 10

    package let descriptor: Int32
    private let memory: BlockMemory
    private var incoming = Incoming.frames
    private var buffer: UnsafeMutableRawBufferPointer
    private var bufferStart = 0
    private var bufferEnd = 0
    private var expectsPayloads = false
    /// A payload ended, and since then this end has not waited for a frame.
    private var isInARow = false
    /// Bytes that must be there before the poller says so.
    private var wakesAt = 1
    /// The peer sends no more, or the socket failed: only the end of the bytes says that nothing is left.
    private var mayEnd = false
    private var outgoing = FrameWriter()
    private var outgoingStart = 0
    private var segments: [Segment] = []
    private var firstSegment = 0

    /// Set by the poller, cleared when the kernel has nothing more.
    package var isReadable = true
    /// Set by the poller, cleared when the kernel takes nothing more.
    package var isWritable = true
    /// Bytes that came so far.
    package private(set) var bytesReceived: UInt64 = 0
    /// Bytes that went so far.
    package private(set) var bytesSent: UInt64 = 0
    /// Frames that came so far.
    package private(set) var framesReceived: UInt64 = 0
    /// Frames that were queued so far.
    package private(set) var framesSent: UInt64 = 0

    /// A stream over a connected (or connecting) socket, which it closes at its end.
    package init(_ descriptor: Int32, memory: BlockMemory) {
        self.descriptor = descriptor
        self.memory = memory
        unsafe buffer = .allocate(byteCount: Self.bufferBytes, alignment: 16)
    }

    deinit {
        unsafe buffer.deallocate()
        hf_close(descriptor)
    }

    /// Takes what the poller said.
    package func polled(_ events: PollEvents) {
        if events.mayRead { isReadable = true }
        if events.mayWrite { isWritable = true }
        if events.mayEnd { mayEnd = true }
    }

    // MARK: Coming

    /// Whether the stream is in the middle of a frame or of a payload that it may read.
    package var isInTheMiddle: Bool {
        switch incoming {
        case .frames: bufferEnd > bufferStart
        case .awaitsPayload: false
        case .payload, .skipping: true
        }
    }

    /// Whether a payload is next and the owner has not said where to: until then nothing is read.
    package var awaitsOwner: Bool {
        if case .awaitsPayload = incoming { true } else { false }
    }

    /// Whether a payload is being read or thrown away.
    package var isInPayload: Bool {
        switch incoming {
        case .payload, .skipping: true
        case .frames, .awaitsPayload: false
        }
    }

    /// Says where the payload goes that comes next. `payload` is the next arrival, at once for an empty one.
    package func receivePayload(into slice: MemorySlice, checksum: BlockChecksum) {
        if case .awaitsPayload(let count) = incoming {
            precondition(slice.count == count, "a payload into a slice of another length")
        } else {
            precondition(slice.count == 0, "a payload where none comes")
        }
        incoming = .payload(into: slice, done: 0, checksum)
    }

    /// Throws away the payload that comes next.
    package func skipPayload() {
        if case .awaitsPayload(let count) = incoming { incoming = .skipping(count) }
    }

    /// The next thing that came. Bodies and payloads above the limits are errors.
    package func next(bodyBytesMax: Int, payloadBytesMax: Int) throws(FrameError) -> StreamArrival {
        let turnEnd = bytesReceived + UInt64(Self.turnBytes)
        while bytesReceived < turnEnd {
            switch incoming {
            case .awaitsPayload: return .nothing
            case .frames:
                if let frame = try parse(bodyBytesMax, payloadBytesMax) { return frame }
                if let end = fill() { return end }
            case .payload(let slice, let done, let checksum):
                if done == slice.count {
                    incoming = .frames
                    isInARow = true
                    return .payload(checksum: checksum.value)
                }
                if let end = receivePiece(slice, done, checksum) { return end }
            case .skipping(let left):
                if left == 0 { incoming = .frames } else if let end = skipPiece(left) { return end }
            }
        }
        return .turnIsOver
    }

    /// A whole frame from the buffer, if one is there.
    private func parse(_ bodyBytesMax: Int, _ payloadBytesMax: Int) throws(FrameError) -> StreamArrival? {
        let there = bufferEnd - bufferStart
        guard there >= WireLimit.headerBytes else { return nil }
        let bodyStart = bufferStart + WireLimit.headerBytes
        let header = unsafe try FrameHeader(
            reading: UnsafeRawBufferPointer(rebasing: buffer[bufferStart..<bodyStart]))
        guard header.bodyBytes <= bodyBytesMax else {
            throw FrameError(.tooLong("body", UInt64(header.bodyBytes)), at: 16)
        }
        guard header.payloadBytes <= payloadBytesMax else {
            throw FrameError(.tooLong("payload", UInt64(header.payloadBytes)), at: 24)
        }
        guard !header.payloadIsInSlot else { throw FrameError(.outOfPlace("a payload in a slot"), at: 6) }
        let frameBytes = WireLimit.headerBytes + Int(header.bodyBytes)
        guard there >= frameBytes else {
            makeRoom(for: frameBytes)
            return nil
        }
        let body = unsafe UnsafeRawBufferPointer(rebasing: buffer[bodyStart..<(bufferStart + frameBytes)])
        unsafe try header.verify(body)
        bufferStart += frameBytes
        framesReceived += 1
        expectsPayloads = header.payloadBytes > 0
        if expectsPayloads { incoming = .awaitsPayload(Int(header.payloadBytes)) }
        return unsafe .frame(header, body: body)
    }

    /// Room for a frame of this length from `bufferStart` on.
    private func makeRoom(for frameBytes: Int) {
        guard unsafe bufferStart + frameBytes > buffer.count else { return }
        let there = unsafe UnsafeRawBufferPointer(rebasing: buffer[bufferStart..<bufferEnd])
        if unsafe frameBytes <= buffer.count {
            unsafe buffer.copyMemory(from: there)
        } else {
            let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: frameBytes, alignment: 16)
            unsafe larger.copyMemory(from: there)
            unsafe buffer.deallocate()
            unsafe buffer = larger
        }
        bufferEnd -= bufferStart
        bufferStart = 0
    }

    /// Reads what is there for the next frame.
    private func fill() -> StreamArrival? {
        if bufferStart == bufferEnd {
            bufferStart = 0
            bufferEnd = 0
            if unsafe buffer.count > Self.bufferBytes {
                // One long batch must not keep its memory for the life of the connection.
                unsafe buffer.deallocate()
                unsafe buffer = .allocate(byteCount: Self.bufferBytes, alignment: 16)
            }
        } else if unsafe bufferEnd == buffer.count {
            makeRoom(for: unsafe buffer.count)
        }
        var room = unsafe buffer.count - bufferEnd
        if expectsPayloads, bufferStart == bufferEnd { room = min(room, Self.readAheadBytes) }
        let target = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[bufferEnd..<(bufferEnd + room)])
        switch unsafe receive(into: target, left: 1, of: 1) {
        case .success(let count):
            bufferEnd += count
            return nil
        case .failure(let stop): return stop.arrival(inTheMiddle: bufferEnd > bufferStart)
        }
    }

    private func receivePiece(_ slice: MemorySlice, _ done: Int, _ checksum: BlockChecksum) -> StreamArrival? {
        let left = slice.count - done
        var checksum = checksum
        let part = MemorySlice(region: slice.region, offset: slice.offset + done, count: min(left, Self.pieceBytes))
        let target = unsafe memory[part]
        let ahead = min(bufferEnd - bufferStart, target.count)
        if ahead > 0 {
            unsafe checksum.copy(
                UnsafeRawBufferPointer(rebasing: buffer[bufferStart..<(bufferStart + ahead)]),
                to: UnsafeMutableRawBufferPointer(rebasing: target[0..<ahead]))
            bufferStart += ahead
            incoming = .payload(into: slice, done: done + ahead, checksum)
            return nil
        }
        switch unsafe receive(into: target, left: left, of: slice.count) {
        case .success(let count):
            unsafe checksum.add(UnsafeRawBufferPointer(rebasing: target[0..<count]))
            incoming = .payload(into: slice, done: done + count, checksum)
            return nil
        case .failure(let stop): return stop.arrival(inTheMiddle: true)
        }
    }

    private func skipPiece(_ left: Int) -> StreamArrival? {
        let ahead = min(bufferEnd - bufferStart, left)
        if ahead > 0 {
            bufferStart += ahead
            incoming = .skipping(left - ahead)
            return nil
        }
        let target = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[0..<min(left, buffer.count)])
        switch unsafe receive(into: target, left: left, of: left) {
        case .success(let count):
            incoming = .skipping(left - count)
            return nil
        case .failure(let stop): return stop.arrival(inTheMiddle: true)
        }
    }

    private enum Stop: Error {
        case empty, end
        case error(Int32)

        func arrival(inTheMiddle: Bool) -> StreamArrival {
            switch self {
            case .empty: .nothing
            case .end: .ended(inTheMiddle ? .cutShort : .closed)
            case .error(let number): .ended(.failed(number))
            }
        }
    }

    /// Receives what is there. `left` of `whole` bytes are wanted by and by.
    private func receive(
        into target: UnsafeMutableRawBufferPointer, left: Int, of whole: Int
    ) -> Result<Int, Stop> {
        guard isReadable else { return .failure(.empty) }
        let count = unsafe Int(hf_receive(descriptor, target.baseAddress!, target.count))
        if count > 0 {
            bytesReceived += UInt64(count)
            if count < target.count, !mayEnd { isDrained(left: left - count, of: whole) }
            return .success(count)
        }
        if count == 0 { return .failure(.end) }
        guard -count == KernelError.wouldBlock else { return .failure(.error(Int32(-count))) }
        isDrained(left: left, of: whole)
        return .failure(.empty)
    }

    /// Nothing is there now. What comes later is an edge for the poller, at once if it came meanwhile. A call that
    /// brought less than it had room for saves the call that would bring nothing.
    private func isDrained(left: Int, of whole: Int) {
        isReadable = false
        if case .frames = incoming { isInARow = false }
        let wanted = max(1, min(left, wakeBytes(ofPayload: whole)))
        guard wanted != wakesAt else { return }
        wakesAt = wanted
        hf_wake_at_bytes(descriptor, UInt32(wanted))
    }

    // MARK: Going

    /// Bytes of frames that wait to be sent.
    package var queuedBytes: Int { outgoing.bytes.count - outgoingStart }
    /// Whether anything waits to be sent.
    package var hasOutput: Bool { firstSegment < segments.count }

    /// The request whose payload is the next to go, or goes now.
    package var payloadThatGoes: UInt32? {
        guard hasOutput, segments[firstSegment].payload != nil else { return nil }
        return segments[firstSegment].number
    }

    /// Queues a frame and, behind it, a payload whose slice stays untouched until `flush` has named its number.
    package func queue(
        _ header: FrameHeader, payload: MemorySlice? = nil, body: (inout FrameWriter) -> Void
    ) {
        let before = outgoing.bytes.count
        outgoing.frame(header, body: body)
        framesSent += 1
        let frameBytes = outgoing.bytes.count - before
        if payload == nil, let last = segments.indices.last, last >= firstSegment, segments[last].payload == nil {
            segments[last].frameBytes += frameBytes
        } else {
            segments.append(Segment(frameBytes: frameBytes, payload: payload, number: header.requestNumber))
        }
    }

    /// Sends what the kernel takes; calls `sent` for each payload that has gone whole. The error number, if the
    /// connection failed.
    package func flush(_ sent: (UInt32) -> Void) -> Int32? {
        while isWritable, firstSegment < segments.count {
            var segment = segments[firstSegment]
            let count = Int(sendPart(of: segment))
            if count < 0 {
                guard -count == KernelError.wouldBlock else { return Int32(-count) }
                isWritable = false
                break
            }
            bytesSent += UInt64(count)
            // What took a part takes no more now.
            if count < segment.frameBytes + (segment.payload?.count ?? 0) - segment.payloadSent { isWritable = false }
            let frameBytes = min(count, segment.frameBytes)
            outgoingStart += frameBytes
            segment.frameBytes -= frameBytes
            segment.payloadSent += count - frameBytes
            segments[firstSegment] = segment
            if segment.frameBytes == 0, segment.payloadSent == segment.payload?.count ?? 0 {
                firstSegment += 1
                if segment.payload != nil { sent(segment.number) }
            }
        }
        compact()
        return nil
    }

    private func sendPart(of segment: Segment) -> Int64 {
        unsafe outgoing.bytes.withUnsafeBytes { bytes in
            let frame = unsafe bytes.baseAddress.map { unsafe $0 + outgoingStart }
            guard let payload = segment.payload, payload.count > 0 else {
                return unsafe hf_send(descriptor, frame, segment.frameBytes, 0)
            }
            let rest = MemorySlice(
                region: payload.region, offset: payload.offset + segment.payloadSent,
                count: payload.count - segment.payloadSent)
            let from = unsafe memory[rest]
            if segment.frameBytes == 0 { return unsafe hf_send(descriptor, from.baseAddress, from.count, 0) }
            return unsafe hf_send_two(descriptor, frame, segment.frameBytes, from.baseAddress, from.count)
        }
    }

    /// Gives back the room of what has gone.
    private func compact() {
        if firstSegment == segments.count {
            segments.removeAll(keepingCapacity: true)
            firstSegment = 0
            outgoing.removeAll()
            outgoingStart = 0
        } else if firstSegment > 64 {
            segments.removeFirst(firstSegment)
            firstSegment = 0
        }
        if outgoingStart > 1 << 20 {
            outgoing.removeFirst(outgoingStart)
            outgoingStart = 0
        }
    }
}
