// Frames and payloads over one queue pair. Both ends run it on one thread each; the store's end alone uses WRITE and
// READ. It promises that a message always meets a posted receive, that READs stay within what the peer serves, that
// messages stay within what both ports take, and that nothing is given back while the adapter may still touch it. It
// knows no request: `VerbsConnection` and `VerbsLink` do.

import CVerbs
import KVModel
import KVSystem

/// What a channel tells the one who runs it, on that one's thread.
package protocol VerbsChannelUser: AnyObject {
    /// Whether the next frame may come.
    var takesFrames: Bool { get }
    /// A frame came whole; the body is lent for the call.
    func take(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError)
    /// A payload was written to the peer and the reply behind it is through: its memory is free.
    func pushed(_ number: UInt32)
    /// A payload was read from the peer.
    func pulled(_ number: UInt32)
}

/// Local memory that a payload comes from or goes to.
package struct VerbsBuffer {
    package var address: UInt64
    package var count: Int
    /// The local key of the region it lies in.
    package var key: UInt32

    package init(address: UInt64, count: Int, key: UInt32) {
        self.address = address
        self.count = count
        self.key = key
    }
}

/// One queue pair with its messages. Belongs to one thread.
@safe
package final class VerbsChannel {
    /// What waits to be posted, in order. A reply stands behind the WRITE it answers for.
    enum Order {
        case write(VerbsBuffer, RemoteSlot)
        /// The next bytes of `outgoing`; `pushed` names the payload that was written before them.
        case frames(byteCount: Int, pushed: UInt32?)
    }

    /// A READ that waits to be posted.
    struct Pull {
        var buffer: VerbsBuffer
        var slot: RemoteSlot
        var number: UInt32
    }

    /// What one posted work request was for.
    enum Work {
        case message(buffer: Int, pushed: UInt32?)
        case write
        case read(number: UInt32, isLast: Bool)
    }

    package let pair: VerbsPair
    let settings: VerbsSettings
    let messages: VerbsMessageMemory
    unowned let user: any VerbsChannelUser

    /// What this end tells the other.
    package let parameters: VerbsParameters
    /// What went over it.
    package var counters = VerbsCounters()
    /// Why it ended, once it has.
    package private(set) var failure: String?

    // What was agreed with the peer.
    var credits = VerbsCredits(granted: 0, own: 1)
    package private(set) var isConnected = false
    package private(set) var messageBytesOut = 0
    package private(set) var payloadMessageBytesMax = 0
    package private(set) var readsOutstandingMax = 0

    // What waits to be posted, and how far the first of it has come.
    var orders = Queue<Order>()
    var orderProgress = 0
    var outgoing = FrameWriter()
    var outgoingStart = 0
    var pulls = Queue<Pull>()
    var pullProgress = 0

    // What is posted. `workStart` is the number of the first entry of `work`.
    var work = Queue<Work>()
    var workStart: UInt64 = 0
    var readsOutstanding = 0
    var unsignaled = 0
    package var receivesPosted = 0

    // What can be posted next.
    var freeMessages: [Int] = []
    var receivesToPost: [hf_rdma_receive] = []
    var batch: [hf_rdma_send] = []

    /// Bytes of frames that have not come whole, or that the user does not take now.
    var partial: [UInt8] = []

    /// A channel whose receives are posted and which cannot send before `connect`.
    ///
    /// - Parameters:
    ///   - payload: Regions that its WRITEs and READs, or the peer's, name.
    ///   - peerAccess: What the peer may do over this pair.
    package init(
        domain: VerbsDomain, completions: VerbsCompletions, settings: VerbsSettings, payload: [VerbsRegion],
        peerAccess: VerbsAccess, packetNumber: UInt32, user: any VerbsChannelUser
    ) throws(SystemError) {
        var settings = settings
        let port = domain.device.port
        settings.sendDepth = min(settings.sendDepth, port.sendDepthMax)
        self.settings = settings
        self.user = user
        let sendBuffers = max(4, min(settings.receiveCount, settings.sendDepth / 2))
        messages = try VerbsMessageMemory(
            domain, count: settings.receiveCount + sendBuffers, bytesEach: settings.receiveBytes)
        pair = try VerbsPair(
            domain, completions, sendDepth: settings.sendDepth, receiveCount: settings.receiveCount,
            peerAccess: peerAccess, keeping: payload + [messages.region])
        freeMessages = Array((settings.receiveCount..<(settings.receiveCount + sendBuffers)).reversed())
        batch.reserveCapacity(VerbsPair.batchMax)
        receivesToPost.reserveCapacity(settings.receiveCount)
        parameters = VerbsParameters(
            pair: pair.number, packetNumber: packetNumber & 0xFF_FFFF, address: port.address,
            localIdentifier: port.localIdentifier, mtuBytes: UInt32(port.mtuBytes),
            messageBytesMax: UInt32(min(port.messageBytesMax, settings.messageBytesMax)),
            readsAsInitiator: UInt16(min(port.readsAsInitiatorMax, settings.readsMax, 255)),
            readsAsResponder: UInt16(min(port.readsAsResponderMax, settings.readsMax, 255)),
            receiveCount: UInt16(settings.receiveCount), receiveBytes: UInt32(settings.receiveBytes))
        for index in 0..<settings.receiveCount { receivesToPost.append(receive(index)) }
        try postReceives()
    }

    /// Opens both ways. Each end has posted its receives before it tells its parameters.
    package func connect(to peer: VerbsParameters) throws(SystemError) {
        credits = VerbsCredits(granted: Int(peer.receiveCount), own: settings.receiveCount)
        messageBytesOut = min(settings.receiveBytes, Int(peer.receiveBytes))
        payloadMessageBytesMax = Int(min(parameters.messageBytesMax, peer.messageBytesMax))
        readsOutstandingMax = Int(min(parameters.readsAsInitiator, peer.readsAsResponder))
        try pair.connect(to: peer, from: parameters, readsAsInitiator: readsOutstandingMax, settings: settings)
        isConnected = true
    }

    /// Whether it has ended and nothing is posted any more, so that no adapter touches memory for it.
    package var isDrained: Bool { failure != nil && work.isEmpty && receivesPosted == 0 }

    /// Whether nothing waits for credits, for room, or for its completion.
    package var isIdle: Bool { orders.isEmpty && pulls.isEmpty && work.isEmpty }

    /// Bytes of frames that wait to be posted.
    package var queuedBytes: Int { outgoing.bytes.count - outgoingStart }

    /// Sends a frame, behind everything ordered before.
    package func send(_ header: FrameHeader, body: (inout FrameWriter) -> Void) {
        guard failure == nil else { return }
        order(header, body, pushed: nil)
    }

    /// Writes a payload to the peer's slot and sends the reply behind it. `pushed` follows, unless the channel ends:
    /// then the memory is free once it is drained.
    package func push(
        _ buffer: VerbsBuffer, to slot: RemoteSlot, number: UInt32, _ header: FrameHeader,
        body: (inout FrameWriter) -> Void
    ) {
        precondition(buffer.count <= slot.byteCount, "a WRITE longer than the slot it goes to")
        guard failure == nil else { return }
        if buffer.count > 0 { orders.append(.write(buffer, slot)) }
        order(header, body, pushed: number)
    }

    private func order(_ header: FrameHeader, _ body: (inout FrameWriter) -> Void, pushed: UInt32?) {
        let before = outgoing.bytes.count
        outgoing.frame(header, body: body)
        var byteCount = outgoing.bytes.count - before
        // Small frames that wait together travel together.
        if orders.count > 1, case .frames(let waiting, pushed: nil) = orders.last {
            byteCount += waiting
            orders.last = .frames(byteCount: byteCount, pushed: pushed)
        } else {
            orders.append(.frames(byteCount: byteCount, pushed: pushed))
        }
    }

    /// Reads a payload from the peer's slot. `pulled` follows, unless the channel ends, as with `push`.
    package func pull(into buffer: VerbsBuffer, from slot: RemoteSlot, number: UInt32) {
        precondition(buffer.count > 0 && buffer.count <= slot.byteCount, "a READ longer than the slot it comes from")
        guard failure == nil else { return }
        guard readsOutstandingMax > 0 else { return fail("the peer serves no READs") }
        pulls.append(Pull(buffer: buffer, slot: slot, number: number))
    }

    /// Ends it: the queue pair leaves RTS, and what is posted comes back flushed.
    package func fail(_ reason: String) {
        guard failure == nil else { return }
        failure = reason
        pair.fail()
        batch.removeAll()
        receivesToPost.removeAll()
        orders = Queue()
        pulls = Queue()
        partial = []
        outgoing.removeAll()
        outgoingStart = 0
    }
}

/// Memory of messages, registered for the own adapter alone. The region holds the pages, so they are unmapped last.
@safe
final class VerbsMessageMemory {
    private final class Pages {
        let memory: PageMemory
        init(_ memory: consuming PageMemory) { self.memory = memory }
    }

    let region: VerbsRegion
    private let pages: Pages
    private let bytesEach: Int

    init(_ domain: VerbsDomain, count: Int, bytesEach: Int) throws(SystemError) {
        self.bytesEach = bytesEach
        pages = Pages(try PageMemory(byteCount: count * bytesEach, wantsHugePages: false))
        region = unsafe try VerbsRegion(
            domain, UnsafeMutableRawBufferPointer(rebasing: pages.memory.bytes[0..<(count * bytesEach)]), .local,
            keeping: pages)
    }

    /// The bytes of one message.
    subscript(index: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            rebasing: pages.memory.bytes[(index * bytesEach)..<((index + 1) * bytesEach)])
    }

    /// Where it lies, as work requests name it.
    func address(_ index: Int) -> UInt64 { UInt64(UInt(bitPattern: unsafe self[index].baseAddress!)) }
}
