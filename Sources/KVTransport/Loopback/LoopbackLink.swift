// The client's end of a session inside one process, and the pipe that both ends share.

import KVModel
import KVSystem
import Synchronization

/// One frame as a message.
struct LoopbackMessage: Sendable {
    var header: FrameHeader
    var body: [UInt8]
}

/// What both ends of a loopback connection share.
///
/// The client's memory is touched by the server only while `isOpen`, under the lock that closing takes: after `close`
/// returned, no slot is written or read any more.
final class LoopbackPipe: Sendable {
    let number: UInt32
    let memory: BlockMemory
    /// To the client.
    let answers: Mailbox<LoopbackMessage>
    /// Answers that the client has taken so far.
    let takenCount = Atomic<Int>(0)
    let capacity: Int
    private let isOpen = Mutex(true)

    init(number: UInt32, memory: BlockMemory, clientSignal: WakeSignal, capacity: Int) {
        self.number = number
        self.memory = memory
        self.capacity = capacity
        answers = Mailbox(capacity: capacity, waking: clientSignal)
    }

    /// Does something with the client's slots, if the connection still stands.
    func whileOpen(_ body: () -> Void) -> Bool {
        isOpen.withLock { isOpen in
            if isOpen { body() }
            return isOpen
        }
    }

    func close() { isOpen.withLock { $0 = false } }
    var stands: Bool { isOpen.withLock { $0 } }
}

extension StoreRoute {
    /// To a store of the same process.
    public static func loopback(_ server: LoopbackServer) -> StoreRoute {
        let shared = server.shared
        return StoreRoute(carrier: .loopback, address: "loopback") { memory, signal throws(SystemError) in
            let refused = SystemError(number: KernelError.connectionRefused, doing: "connect to the loopback server")
            let number = shared.nextNumber.next()
            guard !shared.isStopping.load(ordering: .sequentiallyConsistent), number <= UInt32.max else {
                throw refused
            }
            let pipe = LoopbackPipe(
                number: UInt32(number), memory: memory, clientSignal: signal,
                capacity: 4 * shared.limits.credits + 64)
            guard shared.inputs.post(.connect(pipe)) == .accepted else { throw refused }
            return LoopbackLink(pipe, shared)
        }
    }
}

/// The client's end.
@safe
private final class LoopbackLink: ClientLink {
    private let pipe: LoopbackPipe
    private let server: LoopbackServer.Shared
    private var outgoing: [LoopbackMessage] = []
    private var incoming: [LoopbackMessage] = []
    private var nextIncoming = 0

    init(_ pipe: LoopbackPipe, _ server: LoopbackServer.Shared) {
        self.pipe = pipe
        self.server = server
    }

    var isOneSided: Bool { true }
    /// The region in the key, the offset in place of the address.
    func remoteSlot(_ slice: MemorySlice) -> RemoteSlot {
        RemoteSlot(
            address: UInt64(slice.offset), key: UInt32(slice.region), byteCount: UInt32(clamping: slice.count))
    }
    func register(with poller: Poller, tag: UInt64) {}
    func polled(_ events: PollEvents) {}
    func connected() throws(SystemError) -> Bool { true }
    var wantsTurn: Bool {
        nextIncoming < incoming.count || !pipe.answers.isEmpty || !outgoing.isEmpty || !pipe.stands
    }
    var hasOutput: Bool { !outgoing.isEmpty }

    func queue(_ header: FrameHeader, payload: MemorySlice?, body: (inout FrameWriter) -> Void) {
        var writer = FrameWriter()
        body(&writer)
        outgoing.append(LoopbackMessage(header: header, body: writer.bytes))
    }

    func flush(_ sent: (UInt32) -> Void) -> Int32? {
        while let message = outgoing.first {
            guard server.message(pipe.number, message) == .accepted else { return nil }
            outgoing.removeFirst()
        }
        return nil
    }

    func next(payloadBytesMax: Int) throws(FrameError) -> StreamArrival {
        if nextIncoming == incoming.count {
            pipe.answers.drain(into: &incoming)
            pipe.takenCount.add(incoming.count, ordering: .relaxed)
            nextIncoming = 0
        }
        guard nextIncoming < incoming.count else { return pipe.stands ? .nothing : .ended(.closed) }
        var message = incoming[nextIncoming]
        message.header.bodyBytes = UInt32(message.body.count)
        nextIncoming += 1
        held = message.body
        return unsafe .frame(message.header, body: held.withUnsafeBytes { unsafe copy($0) })
    }

    /// The body that was handed out last.
    private var held: [UInt8] = []
    private var space = UnsafeMutableRawBufferPointer.allocate(byteCount: WireLimit.bodyBytesMax, alignment: 16)
    private func copy(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        unsafe space.copyMemory(from: bytes)
        return unsafe UnsafeRawBufferPointer(rebasing: space[0..<bytes.count])
    }
    deinit { unsafe space.deallocate() }

    func receivePayload(into slice: MemorySlice, checksum: BlockChecksum) {
        preconditionFailure("a payload that follows its frame, over loopback")
    }
    func skipPayload() { preconditionFailure("a payload that follows its frame, over loopback") }

    func close() {
        pipe.close()
        server.closed(pipe.number)
    }
}
