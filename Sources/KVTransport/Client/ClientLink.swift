// What a client asks of whatever carries its connection, and the link over a stream socket.

import CKernel
import KVModel
import KVSystem

/// One connection on its way to a store, or there. Belongs to the client's thread.
package protocol ClientLink: AnyObject {
    /// Whether payloads travel by slots, moved by the store; otherwise they follow their frames.
    var isOneSided: Bool { get }
    /// A slot as the store must name it to reach it.
    func remoteSlot(_ slice: MemorySlice) -> RemoteSlot
    /// Puts its descriptors on the client's poller, all with this tag.
    func register(with poller: Poller, tag: UInt64)
    /// What the poller said about them.
    func polled(_ events: PollEvents)
    /// Whether the connection stands; `nil` = not yet. An error says why it never will.
    func connected() throws(SystemError) -> Bool
    /// The store has proved who it is: sets up what the payloads travel by, if that is something else.
    func welcomed() throws(SystemError)
    /// Whether requests may go, after `welcomed`.
    var isReady: Bool { get }
    /// Whether there is something that it could do now without the poller. Asked last before the thread sleeps.
    var wantsTurn: Bool { get }
    /// Queues a frame and the payload that belongs to it.
    func queue(_ header: FrameHeader, payload: MemorySlice?, body: (inout FrameWriter) -> Void)
    /// Sends what goes now; calls `sent` for each payload whose slice is no longer needed for sending.
    func flush(_ sent: (UInt32) -> Void) -> Int32?
    /// Whether frames wait to be sent.
    var hasOutput: Bool { get }
    /// The next thing that came.
    func next(payloadBytesMax: Int) throws(FrameError) -> StreamArrival
    /// Where the payload goes that comes next, in a stream.
    func receivePayload(into slice: MemorySlice, checksum: BlockChecksum)
    /// Throws the payload away that comes next, in a stream.
    func skipPayload()
    /// What shows that the peer is there. Nil: nothing is known. Makes the next turn read what waits in the kernel.
    func signsOfLife() -> LifeSigns?
    /// Why the peer's end closed, where the link knows more than that it did.
    var endReason: String? { get }
    /// Ends the connection: afterwards nobody touches a slot that was named over it.
    func close()
}

extension ClientLink {
    /// Nothing to set up: payloads travel by the connection itself.
    package func welcomed() {}
    package var isReady: Bool { true }
    package var endReason: String? { nil }
    package func signsOfLife() -> LifeSigns? { nil }
}

/// What a peer has done so far.
package struct LifeSigns: Equatable {
    /// Bytes that came from it.
    package var received: UInt64
    /// Bytes that its kernel has taken.
    package var taken: UInt64
    /// Whether bytes wait to be taken.
    package var isTaking: Bool

    /// Signs of their parts.
    package init(received: UInt64, taken: UInt64, isTaking: Bool) {
        self.received = received
        self.taken = taken
        self.isTaking = isTaking
    }

    /// Whether it did anything since an earlier look. That its kernel took what was sent after that look says nothing of it.
    package func differs(from earlier: LifeSigns) -> Bool {
        received != earlier.received || (earlier.isTaking && taken != earlier.taken)
    }
}

/// A link over a socket. TLS ends in such a socket, too.
package final class StreamLink: ClientLink {
    private let stream: FrameStream
    private var isConnected = false
    /// Whether its socket is TCP's own; between the others and the network stands somebody else.
    private let isDirect: Bool
    private var sawWritable: Bool
    private var isClosed = false
    private let reason: () -> String?
    private let onClose: () -> Void

    /// - Parameters:
    ///   - isConnected: A pair's end is; a TCP socket that just began to connect is not.
    ///   - reason: Why the other end closed, if something between knows.
    init(
        _ descriptor: Int32, memory: BlockMemory, isConnected: Bool, reason: @escaping () -> String? = { nil },
        onClose: @escaping () -> Void = {}
    ) {
        stream = FrameStream(descriptor, memory: memory)
        sawWritable = isConnected
        isDirect = !isConnected
        self.reason = reason
        self.onClose = onClose
        stream.isWritable = isConnected
        stream.isReadable = isConnected
    }

    /// Its socket.
    package var descriptor: Int32 { stream.descriptor }
    package var isOneSided: Bool { false }
    package func remoteSlot(_ slice: MemorySlice) -> RemoteSlot { RemoteSlot(byteCount: UInt32(clamping: slice.count)) }

    package func register(with poller: Poller, tag: UInt64) {
        poller.add(stream.descriptor, for: [.readable, .writable, .edgeTriggered], tag: tag)
    }

    package func polled(_ events: PollEvents) {
        stream.polled(events)
        if events.mayWrite { sawWritable = true }
    }

    package func connected() throws(SystemError) -> Bool {
        if isConnected { return true }
        guard sawWritable else { return false }
        _ = try checked(hf_socket_error(stream.descriptor), "connect to the store")
        isConnected = true
        return true
    }

    package var wantsTurn: Bool { !isClosed && (stream.isReadable || (stream.isWritable && stream.hasOutput)) }
    package var hasOutput: Bool { stream.hasOutput }

    package func queue(_ header: FrameHeader, payload: MemorySlice?, body: (inout FrameWriter) -> Void) {
        stream.queue(header, payload: payload, body: body)
    }

    package func flush(_ sent: (UInt32) -> Void) -> Int32? { stream.flush(sent) }

    package func next(payloadBytesMax: Int) throws(FrameError) -> StreamArrival {
        try stream.next(bodyBytesMax: WireLimit.bodyBytesMax, payloadBytesMax: payloadBytesMax)
    }

    package func receivePayload(into slice: MemorySlice, checksum: BlockChecksum) {
        stream.receivePayload(into: slice, checksum: checksum)
    }

    package func skipPayload() { stream.skipPayload() }

    package func signsOfLife() -> LifeSigns? {
        guard isDirect, !isClosed else { return nil }
        // The poller is silent while fewer bytes are there than the stream is to be woken for.
        stream.isReadable = true
        let unacknowledged = max(0, hf_tcp_unacknowledged(stream.descriptor))
        return LifeSigns(
            received: stream.bytesReceived, taken: stream.bytesSent &- UInt64(unacknowledged),
            isTaking: unacknowledged > 0 || stream.hasOutput)
    }

    package var endReason: String? { reason() }

    package func close() {
        guard !isClosed else { return }
        isClosed = true
        hf_shut_down(stream.descriptor)
        onClose()
    }
}
