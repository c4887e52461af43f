// One session over verbs as the store's side sees it: a control connection over TCP, on which the client proves who it
// is and both ends tell their queue pairs, and then the queue pair. The control connection stays: its end is the end.

import CKernel
import KVModel
import KVSystem

/// One client. Belongs to its lane's thread.
final class VerbsConnection: ServerCarrier, VerbsChannelUser {
    let stream: FrameStream
    private(set) var peer: ServerPeer!
    private(set) var channel: VerbsChannel?
    /// Whether the lane has it on its list.
    var isQueued = false
    /// Whether it is on the lane's list of those that the store had no room for.
    var isBlocked = false

    private let setting: ServerSetting
    private unowned let port: VerbsServerPort
    private var pulls: [UInt32: (MemorySlice, BlockChecksum)] = [:]
    private var attachDeadline: Instant
    private var finishDeadline: Instant?
    private var drainDeadline: Instant?
    private var isClosed = false
    /// The last time when the queue pair had nothing to do, or something of ours was done.
    private var lastProgress: Instant

    init(_ socket: AcceptedSocket, id: SessionID, setting: ServerSetting, port: VerbsServerPort) {
        stream = FrameStream(socket.descriptor, memory: setting.host.memory)
        self.setting = setting
        self.port = port
        lastProgress = setting.now
        attachDeadline = setting.now + setting.limits.helloLimit + setting.limits.helloLimit
        peer = ServerPeer(id, kind: .verbs, address: socket.address, setting: setting, carrier: self)
    }

    /// Whether it has not proved who it is.
    var isUnknown: Bool { !isClosed && peer.isUnknown }

    /// Whether there is something that it could do on its control connection now.
    var wantsTurn: Bool {
        !isClosed && (stream.isReadable || (stream.isWritable && stream.hasOutput) || hasFinished)
    }

    private var hasFinished: Bool { finishDeadline != nil && !stream.hasOutput && channel?.isIdle ?? true }

    // MARK: Turns

    /// Reads and writes the control connection, posts what the queue pair can take.
    func turn() {
        guard !isClosed else { return settleEnd() }
        peer.retry()
        channel?.resume()
        flush()
        readControl()
        flush()
        if let failure = channel?.failure { end(failure) }
        if hasFinished { end("the session was ended") }
    }

    /// Takes one completion of the queue pair; `turn` follows.
    func complete(_ completion: VerbsCompletion) {
        channel?.complete(completion)
        // A client that asks and takes no answers is not served: what comes from it is no progress.
        if !completion.isReceive { lastProgress = setting.now }
    }

    private func flush() {
        guard !isClosed else { return }
        if let channel {
            if channel.isIdle { lastProgress = setting.now }
            channel.flush()
        }
        if stream.hasOutput, stream.isWritable, stream.flush({ _ in }) != nil { breakOff() }
    }

    private func readControl() {
        while !isClosed {
            let limits = peer.incomingLimits
            do throws(FrameError) {
                switch try stream.next(bodyBytesMax: limits.bodyBytes, payloadBytesMax: 0) {
                case .frame(let header, let body): unsafe try takeControl(header, body)
                case .nothing: return
                case .payload, .turnIsOver: return
                case .ended: return end("the control connection has ended")
                }
            } catch {
                peer.count(error)
                end("\(error)")
            }
        }
    }

    private func takeControl(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        switch (header.operation, peer.phase) {
        case (.attach, .open) where channel == nil: unsafe try attach(body)
        case (.detach, .open): end("the client has left")
        case (_, .open): throw FrameError(.outOfPlace("a request beside the queue pair"), at: 5)
        default: unsafe try peer.take(header, body)
        }
    }

    /// Makes the queue pair of a client that has proved who it is.
    private func attach(_ body: UnsafeRawBufferPointer) throws(FrameError) {
        var reader = unsafe WireReader(body)
        let client = try VerbsParameters(&reader)
        var header = FrameHeader(.attached)
        do throws(SystemError) {
            let channel = try port.makeChannel(for: self, to: client)
            stream.queue(header) { channel.parameters.write(to: &$0) }
            self.channel = channel
            port.counters.pairsOpened += 1
            lastProgress = setting.now
        } catch {
            // The client falls back to TCP and tries again later.
            port.counters.pairsRefused += 1
            header.status = .busy
            stream.queue(header) { $0.raw("\(error)".utf8.prefix(WireLimit.textBytesMax)) }
            finish()
        }
    }

    // MARK: What the queue pair brings

    var takesFrames: Bool { !isClosed && peer.takesFrames }

    func take(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        setting.counters.framesReceived += 1
        setting.counters.bytesReceived += UInt64(WireLimit.headerBytes + body.count)
        do throws(FrameError) {
            guard header.payloadBytes <= setting.limits.payloadBytesMax else {
                throw FrameError(.tooLong("payload", UInt64(header.payloadBytes)), at: 24)
            }
            unsafe try peer.take(header, body)
        } catch {
            peer.count(error)
            throw error
        }
    }

    func pushed(_ number: UInt32) { peer.pushed(number) }

    func pulled(_ number: UInt32) {
        guard let (slice, checksum) = pulls.removeValue(forKey: number) else {
            preconditionFailure("a payload of no request")
        }
        var whole = checksum
        unsafe whole.add(UnsafeRawBufferPointer(setting.host.memory[slice]))
        setting.counters.bytesReceived += UInt64(slice.count)
        peer.pulled(number, checksum: whole.value)
    }

    // MARK: What the session asks

    var queuedBytes: Int { channel?.queuedBytes ?? stream.queuedBytes }
    var isOneSided: Bool { true }

    func transmit(_ header: FrameHeader, body: (inout FrameWriter) -> Void) {
        guard !isClosed else { return }
        setting.counters.framesSent += 1
        if let channel { channel.send(header, body: body) } else { stream.queue(header, body: body) }
    }

    func push(
        _ header: FrameHeader, body: (inout FrameWriter) -> Void, from slice: MemorySlice, to slot: RemoteSlot,
        number: UInt32
    ) {
        guard let channel, !isClosed else { return }
        setting.counters.framesSent += 1
        setting.counters.bytesSent += UInt64(slice.count)
        channel.push(port.buffer(slice), to: slot, number: number, header, body: body)
    }

    func pull(into slice: MemorySlice, from slot: RemoteSlot, checksum: BlockChecksum, number: UInt32) {
        guard let channel, !isClosed else { return }
        pulls[number] = (slice, checksum)
        channel.pull(into: port.buffer(slice), from: slot, number: number)
    }

    /// The payload of a refused put stays where it is: in the client's slot.
    func skip(number: UInt32) {}

    func finish() {
        if finishDeadline == nil { finishDeadline = setting.now + setting.limits.helloLimit }
    }

    // MARK: Ends

    /// When something that lasts now has lasted too long.
    var deadline: Instant {
        if isClosed { return drainDeadline ?? .distantFuture }
        var earliest = peer.tick()
        if channel == nil { earliest = min(earliest, attachDeadline) }
        if let channel, !channel.isIdle { earliest = min(earliest, lastProgress + setting.limits.stallLimit) }
        if let finishDeadline { earliest = min(earliest, finishDeadline) }
        return earliest
    }

    /// Ends it if something has lasted too long.
    func tick() {
        guard deadline <= setting.now else { return }
        if isClosed { return settleEnd() }
        setting.counters.deadlinesPassed += 1
        end("it took too long")
    }

    /// The device says so before or after the completions do.
    func pairFailed() {
        guard let channel, channel.failure == nil else { return }
        port.counters.pairsFailed += 1
        end("the queue pair failed")
    }

    private func breakOff() {
        setting.counters.connectionsBroken += 1
        end("the control connection failed")
    }

    /// Closes it: the queue pair leaves RTS at once, and the session ends when all that was posted has come back.
    func end(_ reason: String) {
        guard !isClosed else { return }
        isClosed = true
        channel?.fail(reason)
        hf_shut_down(stream.descriptor)
        drainDeadline = setting.now + Duration(seconds: 5)
        settleEnd()
    }

    /// Ends the session once no adapter touches memory for it. A queue pair that does not drain is destroyed: after
    /// that, too, nothing moves.
    private func settleEnd() {
        guard let drainDeadline else { return }
        if let channel {
            let isLate = setting.now >= drainDeadline
            guard channel.isDrained || isLate else { return }
            if !channel.isDrained { port.counters.pairsUndrained += 1 }
            port.forget(channel)
            self.channel = nil
        }
        self.drainDeadline = nil
        pulls = [:]
        peer.connectionEnded()
    }
}
