// Frames and passed descriptors over one local socket, the same at both ends.

import CKernel
import Glibc
import KVModel
import KVSystem
import KVTransport

/// What came over a local socket.
@safe
package enum EngineArrival {
    /// A frame. The body is valid until the next call.
    case frame(EngineFrameHeader, body: UnsafeRawBufferPointer)
    /// Nothing more is there now.
    case nothing
    /// There may be more, but others should have their turn.
    case turnIsOver
    /// The other end closed; `cleanly` between two frames.
    case ended(cleanly: Bool)
}

/// A connected local socket that frames come from and go to.
///
/// Its two halves share nothing but the descriptor: what comes belongs to one thread at a time, what goes to one, and they may be
/// two. Whose they are the owner says: the door attends to both, the client's callers send under its lock.
@safe
package final class EngineStream: @unchecked Sendable {
    private static let bufferBytes = 64 << 10
    /// One turn brings no more: others of the thread wait.
    private static let turnBytes = 4 << 20
    /// Descriptors that may wait for their frames.
    private static let descriptorsMax = 4

    package let descriptor: Int32
    private var buffer: UnsafeMutableRawBufferPointer
    private var start = 0
    private var end = 0
    private var descriptors: [Int32] = []
    /// Where the kernel leaves descriptors.
    private var passed = [Int32](repeating: -1, count: EngineStream.descriptorsMax)
    private var outgoing = FrameWriter()
    private var outgoingStart = 0
    /// Descriptors that go with a byte of `outgoing`, by how many bytes go before it.
    private var passing: [(at: Int, descriptors: [Int32])] = []
    private var turnBytesLeft = 0

    /// Cleared when the kernel has nothing more.
    private var isReadable = true
    /// Whether the other end may have closed: then only the kernel says when everything has been read.
    private var isEnding = false
    /// Whether a call of `next` may bring something.
    package private(set) var wantsRead = true
    /// Cleared when the kernel takes nothing more.
    private var isWritable = true
    /// The longest body taken.
    package var bodyBytesMax = EngineProtocol.helloBytesMax

    /// A stream over a connected socket, which it closes at its end.
    package init(_ descriptor: Int32) {
        self.descriptor = descriptor
        unsafe buffer = .allocate(byteCount: Self.bufferBytes, alignment: 16)
    }

    deinit {
        for descriptor in descriptors { hf_close(descriptor) }
        for passed in passing { for descriptor in passed.descriptors { hf_close(descriptor) } }
        unsafe buffer.deallocate()
        hf_close(descriptor)
    }

    // MARK: Coming

    /// The poller says that something came, or that nothing will come after it.
    package func becameReadable(isEnding: Bool = false) {
        (isReadable, wantsRead) = (true, true)
        if isEnding { self.isEnding = true }
    }

    /// Begins a turn.
    package func beginTurn() { turnBytesLeft = Self.turnBytes }

    /// The next frame.
    package func next() throws(FrameError) -> EngineArrival {
        while true {
            if end - start >= EngineProtocol.headerBytes {
                let header = unsafe try EngineFrameHeader(
                    reading: UnsafeRawBufferPointer(
                        rebasing: buffer[start..<(start + EngineProtocol.headerBytes)]))
                guard header.bodyBytes <= bodyBytesMax else {
                    throw FrameError(.tooLong("body", UInt64(header.bodyBytes)), at: 0)
                }
                let whole = EngineProtocol.headerBytes + header.bodyBytes
                if end - start >= whole {
                    let bodyStart = start + EngineProtocol.headerBytes
                    start += whole
                    return unsafe .frame(
                        header, body: UnsafeRawBufferPointer(rebasing: buffer[bodyStart..<start]))
                }
                makeRoom(whole)
            } else {
                makeRoom(EngineProtocol.headerBytes)
            }
            if start == end, !descriptors.isEmpty {
                throw FrameError(.outOfPlace("a descriptor without its frame"), at: 0)
            }
            guard turnBytesLeft > 0 else { return .turnIsOver }
            guard isReadable else {
                wantsRead = false
                return .nothing
            }
            if let arrival = try receive() { return arrival }
        }
    }

    /// The descriptor that came with the last frame.
    package func takeDescriptor() -> Int32? { descriptors.isEmpty ? nil : descriptors.removeFirst() }

    /// Whether a part of a frame is there.
    package var isInTheMiddle: Bool { end > start }

    private func makeRoom(_ whole: Int) {
        if start == end, unsafe buffer.count > Self.bufferBytes, whole <= Self.bufferBytes {
            // One long frame must not keep its memory for ever.
            unsafe buffer.deallocate()
            unsafe buffer = .allocate(byteCount: Self.bufferBytes, alignment: 16)
            (start, end) = (0, 0)
        }
        guard unsafe buffer.count - start < max(whole, EngineProtocol.headerBytes + 4_096) else { return }
        let waiting = end - start
        if unsafe whole > buffer.count {
            let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: whole + 4_096, alignment: 16)
            unsafe larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[start..<end]))
            unsafe buffer.deallocate()
            unsafe buffer = larger
        } else if waiting > 0 {
            unsafe memmove(buffer.baseAddress!, buffer.baseAddress! + start, waiting)
        }
        (start, end) = (0, waiting)
    }

    private func receive() throws(FrameError) -> EngineArrival? {
        var passedCount = Int32(Self.descriptorsMax)
        let free = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[end...])
        let count = unsafe Int(
            hf_receive_descriptors(descriptor, free.baseAddress!, free.count, &passed, &passedCount))
        if passedCount > 0 { descriptors.append(contentsOf: passed.prefix(Int(passedCount))) }
        guard descriptors.count <= Self.descriptorsMax else {
            throw FrameError(.outOfPlace("more descriptors than frames for them"), at: 0)
        }
        if count > 0 {
            end += count
            turnBytesLeft -= count
            // Less than there was room for is all there was, unless descriptors cut it short: the poller tells of more.
            if count < free.count, passedCount == 0, !isEnding { isReadable = false }
            return nil
        }
        if -count == KernelError.wouldBlock {
            isReadable = false
            wantsRead = false
            return .nothing
        }
        return .ended(cleanly: count == 0 && start == end)
    }

    // MARK: Going

    /// Bytes that wait to be sent.
    package var queuedBytes: Int { outgoing.bytes.count - outgoingStart }

    /// Whether the poller is to tell when the kernel takes more.
    package var wantsRoom: Bool { !isWritable && queuedBytes > 0 }

    /// The poller says that the kernel takes more.
    package func becameWritable() { isWritable = true }

    /// Queues a frame.
    package func queue(_ frame: EngineFrame, at now: Instant) { frame.write(to: &outgoing, at: now) }

    /// Queues a frame with descriptors, of which it keeps copies until they have gone. False when there are none left.
    package func queue(_ frame: EngineFrame, passing descriptors: [Int32], at now: Instant) -> Bool {
        let copies = descriptors.map { hf_duplicate($0) }
        guard copies.allSatisfy({ $0 >= 0 }) else {
            for copy in copies where copy >= 0 { hf_close(copy) }
            return false
        }
        passing.append((outgoing.bytes.count, copies))
        queue(frame, at: now)
        return true
    }

    /// Sends what waits up to the next descriptors, or what these go with.
    private func sendSome() -> Int {
        let next = passing.first
        return unsafe outgoing.bytes.withUnsafeBytes { bytes in
            let start = unsafe bytes.baseAddress! + outgoingStart
            guard let next, next.at == outgoingStart else {
                return unsafe Int(hf_send(descriptor, start, (next?.at ?? bytes.count) - outgoingStart, 0))
            }
            // The first byte of their frame carries them; the rest may follow.
            let sent = unsafe Int(
                hf_send_descriptors(
                    descriptor, start, EngineProtocol.headerBytes, next.descriptors, Int32(next.descriptors.count)))
            if sent > 0 { for passed in passing.removeFirst().descriptors { hf_close(passed) } }
            return sent
        }
    }

    /// Sends what the kernel takes. False when the connection failed.
    package func flush() -> Bool {
        while isWritable, queuedBytes > 0 {
            let sent = sendSome()
            if -sent == KernelError.wouldBlock {
                isWritable = false
            } else if sent < 0 {
                return false
            } else {
                outgoingStart += sent
            }
        }
        if queuedBytes == 0 {
            outgoing.removeAll()
            outgoingStart = 0
        } else if outgoingStart > 1 << 20 {
            outgoing.removeFirst(outgoingStart)
            for index in passing.indices { passing[index].at -= outgoingStart }
            outgoingStart = 0
        }
        return true
    }
}
