// A session over a stream socket: the payload of a put follows its frame, the payload of a get follows its answer.

import CKernel
import KVModel
import KVSystem

/// One connection of a lane. Belongs to the lane's thread.
final class StreamConnection: ServerCarrier {
    let stream: FrameStream
    /// Whether the lane has it on its list.
    var isQueued = false
    /// Whether it is on the lane's list of those that the store had no room for.
    var isBlocked = false
    private(set) var peer: ServerPeer!
    private let setting: ServerSetting
    private var pulling: UInt32?
    private var isClosed = false
    private var finishDeadline: Instant?
    private var turnWasCut = false
    private var counted = (received: UInt64(0), sent: UInt64(0), framesReceived: UInt64(0), framesSent: UInt64(0))
    /// The last time when bytes came, and when the payload that comes now began.
    private var lastReceived: Instant
    private var payloadBegan: Instant?
    /// The last time when bytes went, and when the oldest piece of output became the oldest.
    private var lastSent: Instant
    private var outputBegan: (number: UInt32, at: Instant)?
    /// Whether reading was held back by the store or by answers that wait; that is not the peer's fault.
    private var wasHeldBack = false

    init(_ socket: AcceptedSocket, id: SessionID, setting: ServerSetting) {
        stream = FrameStream(socket.descriptor, memory: setting.host.memory)
        self.setting = setting
        lastReceived = setting.now
        lastSent = setting.now
        peer = ServerPeer(id, kind: socket.carrier, address: socket.address, setting: setting, carrier: self)
    }

    /// Whether it has not proved who it is.
    var isUnknown: Bool { !isClosed && peer.isUnknown }

    /// Whether there is something that it could do now.
    var wantsTurn: Bool {
        if isClosed { return false }
        return turnWasCut || (stream.isWritable && stream.hasOutput) || (stream.isReadable && mayRead)
            || (finishDeadline != nil && !stream.hasOutput)
    }

    private var mayRead: Bool {
        // A put that waits for room must not keep the thread spinning over what it cannot read yet.
        if finishDeadline != nil || stream.awaitsOwner { return false }
        if case .refused = peer.phase { return true }
        return peer.takesFrames || stream.isInPayload
    }

    // MARK: One turn

    /// Sends and reads what can be sent and read now.
    func turn() {
        guard !isClosed else { return }
        turnWasCut = false
        peer.retry()
        flush()
        read()
        flush()
        if finishDeadline != nil, !stream.hasOutput { end() }
        count()
    }

    private func flush() {
        guard !isClosed, stream.hasOutput, stream.isWritable else { return }
        let before = stream.bytesSent
        let peer = self.peer!
        let now = setting.now
        let error = stream.flush { peer.pushed($0) }
        if stream.bytesSent != before { lastSent = now }
        if let number = stream.payloadThatGoes {
            if outputBegan?.number != number { outputBegan = (number, now) }
        } else {
            outputBegan = nil
        }
        if error != nil { breakOff() }
    }

    private func read() {
        if wasHeldBack, mayRead {
            wasHeldBack = false
            lastReceived = setting.now
        }
        defer { wasHeldBack = !mayRead }
        while !isClosed, mayRead {
            let limits = peer.incomingLimits
            let before = stream.bytesReceived
            do throws(FrameError) {
                let arrival = try stream.next(
                    bodyBytesMax: limits.bodyBytes, payloadBytesMax: limits.payloadBytes)
                if stream.bytesReceived != before { lastReceived = setting.now }
                switch arrival {
                case .frame(let header, let body): unsafe try peer.take(header, body)
                case .payload(let checksum): endPayload(checksum)
                case .nothing: return
                case .turnIsOver:
                    turnWasCut = true
                    return
                case .ended(let how):
                    if how == .closed { end() } else { breakOff() }
                    return
                }
            } catch {
                peer.count(error)
                end()
            }
        }
    }

    private func endPayload(_ checksum: UInt64) {
        guard let number = pulling else { preconditionFailure("a payload of no request") }
        pulling = nil
        payloadBegan = nil
        peer.pulled(number, checksum: checksum)
    }

    // MARK: What the session asks

    var queuedBytes: Int { stream.queuedBytes }
    var isOneSided: Bool { false }

    func transmit(_ header: FrameHeader, body: (inout FrameWriter) -> Void) {
        guard !isClosed else { return }
        if !stream.hasOutput { lastSent = setting.now }
        stream.queue(header, body: body)
    }

    func push(
        _ header: FrameHeader, body: (inout FrameWriter) -> Void, from slice: MemorySlice, to slot: RemoteSlot,
        number: UInt32
    ) {
        if !stream.hasOutput { lastSent = setting.now }
        stream.queue(header, payload: slice, body: body)
    }

    func pull(into slice: MemorySlice, from slot: RemoteSlot, checksum: BlockChecksum, number: UInt32) {
        pulling = number
        payloadBegan = setting.now
        lastReceived = setting.now
        stream.receivePayload(into: slice, checksum: checksum)
        turnWasCut = true
    }

    func skip(number: UInt32) {
        stream.skipPayload()
        lastReceived = setting.now
        turnWasCut = true
    }

    func finish() {
        guard finishDeadline == nil else { return }
        finishDeadline = setting.now + setting.limits.helloLimit
    }

    // MARK: Ends

    /// When something that lasts now has lasted too long.
    var deadline: Instant {
        if isClosed { return .distantFuture }
        var earliest = peer.tick()
        let limits = setting.limits
        if stream.isInTheMiddle, mayRead, !wasHeldBack { earliest = min(earliest, lastReceived + limits.stallLimit) }
        if let payloadBegan { earliest = min(earliest, payloadBegan + limits.transferLimit) }
        if stream.hasOutput { earliest = min(earliest, lastSent + limits.stallLimit) }
        if let outputBegan { earliest = min(earliest, outputBegan.at + limits.transferLimit) }
        if let finishDeadline { earliest = min(earliest, finishDeadline) }
        return earliest
    }

    /// Ends it if something has lasted too long.
    func tick() {
        guard !isClosed, deadline <= setting.now else { return }
        if stream.isInPayload {
            // The poller is silent while fewer bytes are there than the stream is to be woken for.
            stream.isReadable = true
            read()
            guard !isClosed, deadline <= setting.now else { return }
        }
        setting.counters.deadlinesPassed += 1
        end()
    }

    private func breakOff() {
        setting.counters.connectionsBroken += 1
        end()
    }

    /// Closes the connection now.
    func end() {
        guard !isClosed else { return }
        isClosed = true
        count()
        hf_shut_down(stream.descriptor)
        peer.connectionEnded()
    }

    private func count() {
        setting.counters.bytesReceived += stream.bytesReceived - counted.received
        setting.counters.bytesSent += stream.bytesSent - counted.sent
        setting.counters.framesReceived += stream.framesReceived - counted.framesReceived
        setting.counters.framesSent += stream.framesSent - counted.framesSent
        counted = (stream.bytesReceived, stream.bytesSent, stream.framesReceived, stream.framesSent)
    }
}
