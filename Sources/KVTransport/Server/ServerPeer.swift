// One connection as the store's side sees it, whatever carries it: first a handshake, then a session. It knows the
// protocol and nothing of sockets or queue pairs; those move bytes for it.

import KVModel
import KVSystem

/// What a session asks of whatever carries it. All calls come on the carrier's own thread.
package protocol ServerCarrier: AnyObject {
    /// Queues a frame.
    func transmit(_ header: FrameHeader, body: (inout FrameWriter) -> Void)
    /// Brings a payload to the client and then (or with it, in a stream) queues the frame; ends in `peer.pushed`.
    func push(
        _ header: FrameHeader, body: (inout FrameWriter) -> Void, from slice: MemorySlice, to slot: RemoteSlot,
        number: UInt32)
    /// Brings the payload of a put here, adding its bytes to `checksum`; ends in `peer.pulled`.
    func pull(into slice: MemorySlice, from slot: RemoteSlot, checksum: BlockChecksum, number: UInt32)
    /// Throws away the payload of a put that was refused.
    func skip(number: UInt32)
    /// Sends what is queued and closes the connection; within a limit.
    func finish()
    /// Bytes of frames that wait to be sent.
    var queuedBytes: Int { get }
    /// Whether payloads travel by slots, moved by the store.
    var isOneSided: Bool { get }
}

/// What the sessions of one thread have in common.
package final class ServerSetting {
    package let host: any SessionHost
    package let limits: ServerLimits
    /// Read and written on the owner's thread.
    package var counters = TransportCounters()
    /// The time at the start of the owner's turn.
    package var now = Instant.zero
    fileprivate let failedTries: FailedTries
    fileprivate let decoy = HandshakeProof.nonce()

    /// - Parameter failedTries: Those of the whole server.
    package init(host: any SessionHost, limits: ServerLimits, failedTries: FailedTries) {
        self.host = host
        self.limits = limits
        self.failedTries = failedTries
    }
}

/// The protocol's state of one connection. Its owner is the carrier's thread.
package final class ServerPeer {
    /// How far it has come.
    package enum Phase {
        /// Not known yet; ends at the deadline.
        case handshake(deadline: Instant)
        /// Known to be wrong; told so at this time.
        case refused(at: Instant)
        /// A session.
        case open
        /// The connection is gone or going; answers of the store are still awaited.
        case ending
        /// Nothing is left: the owner forgets it.
        case over
    }

    /// One request between its frame and its answer.
    struct Exchange {
        enum Stage { case waits, awaitsPayload, pulls, pushes, held }
        var operation: Operation
        var stage: Stage
        var name = ObjectName(.none)
        var payloadBytes = 0
        var checksum: UInt64 = 0
        var slot = RemoteSlot.none
        /// The request that this one cancels.
        var cancels: UInt32?
        /// The cancel that is acknowledged after this one ends.
        var acknowledge: UInt32?
        /// An acknowledgement that is held back until then.
        var heldResponse: Response?
    }

    package let id: SessionID
    package internal(set) var phase: Phase
    let setting: ServerSetting
    unowned let carrier: any ServerCarrier
    var exchanges: [UInt32: Exchange] = [:]
    /// Answers that are still being brought to the client; they hold no credit on a one-sided carrier.
    var pushingCount = 0
    var overflowed: Set<NamespaceHandle> = []
    private let kind: Carrier
    private let address: String
    private var handshake: ServerHandshake
    /// A request that the store had no room for.
    private var refusedByHost: SessionEvent?
    private var wasOpened = false

    package init(
        _ id: SessionID, kind: Carrier, address: String, setting: ServerSetting, carrier: any ServerCarrier
    ) {
        self.id = id
        self.kind = kind
        self.address = address
        self.setting = setting
        self.carrier = carrier
        phase = .handshake(deadline: setting.now + setting.limits.helloLimit)
        handshake = ServerHandshake(
            grants: Grants(
                credits: UInt16(clamping: setting.limits.credits), session: id.number,
                bodyBytesMax: UInt32(WireLimit.bodyBytesMax),
                payloadBytesMax: UInt32(clamping: setting.limits.payloadBytesMax)),
            nonce: HandshakeProof.nonce(), decoy: setting.decoy)
        exchanges.reserveCapacity(setting.limits.credits)
    }

    /// Whether it has not proved who it is.
    package var isUnknown: Bool {
        switch phase {
        case .handshake, .refused: true
        case .open, .ending, .over: false
        }
    }

    /// Whether nothing is left of it.
    package var isOver: Bool { if case .over = phase { true } else { false } }

    /// The longest body and payload that may come now.
    package var incomingLimits: (bodyBytes: Int, payloadBytes: Int) {
        if case .open = phase { return (WireLimit.bodyBytesMax, setting.limits.payloadBytesMax) }
        return (WireLimit.handshakeBodyBytesMax, 0)
    }

    /// Whether the next frame may be read: not while the store has no room, nor while answers pile up. On a one-sided
    /// carrier those on their way hold no credit, and are no more than the credits all the same.
    package var takesFrames: Bool {
        switch phase {
        case .handshake: return true
        case .open:
            guard refusedByHost == nil, carrier.queuedBytes <= setting.limits.outputBytesMax else { return false }
            return !carrier.isOneSided || pushingCount < setting.limits.credits
        case .refused, .ending, .over: return false
        }
    }

    /// Whether the store had no room for a request; `retry` offers it again.
    package var isRefusedByHost: Bool { refusedByHost != nil }

    /// Takes a frame. After an error the carrier closes the connection.
    package func take(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        switch phase {
        case .handshake: try unsafe takeHandshake(header, Array(body))
        case .open: try unsafe takeRequest(header, body)
        case .refused, .ending, .over: break
        }
    }

    /// Counts an error of `take` or of the stream.
    package func count(_ error: FrameError) {
        switch error.kind {
        case .version: setting.counters.versionMismatches += 1
        case .credits: setting.counters.creditViolations += 1
        default: setting.counters.framesMalformed += 1
        }
    }

    /// Offers the request again that the store had no room for.
    package func retry() {
        guard let event = refusedByHost else { return }
        if setting.host.deliver(event) == .accepted { refusedByHost = nil }
    }

    /// Whether the deadline of a handshake or the time of a refusal has come; the next such time.
    package func tick() -> Instant {
        switch phase {
        case .handshake(let deadline):
            if setting.now >= deadline {
                setting.counters.deadlinesPassed += 1
                phase = .ending
                carrier.finish()
                return .distantFuture
            }
            return deadline
        case .refused(let time):
            guard setting.now >= time else { return time }
            refuse(.forbidden, "unknown tenant or wrong key")
            return .distantFuture
        case .open, .ending, .over: return .distantFuture
        }
    }

    private func takeHandshake(_ header: FrameHeader, _ body: [UInt8]) throws(FrameError) {
        let host = setting.host
        var proven: [UInt8]?
        let step = try handshake.take(header, body) { tenant in
            proven = host.secret(ofTenant: tenant)
            return proven
        }
        switch step {
        case .challenge(let body): carrier.transmit(FrameHeader(.challenge)) { $0.raw(body) }
        case .welcome(let tenant, let body):
            let peer = Peer(tenant: tenant, carrier: kind, address: address)
            guard host.deliver(.opened(id, peer)) == .accepted else {
                setting.counters.connectionsRefused += 1
                return refuse(.busy, "the store has as many sessions as it takes, of all or of this tenant")
            }
            wasOpened = true
            setting.counters.sessionsOpened += 1
            // A key that was taken away before the host knew of this session ended the tenant's others only.
            guard host.secret(ofTenant: tenant) == proven else {
                return refuse(.forbidden, "the tenant's key was revoked")
            }
            carrier.transmit(FrameHeader(.welcome)) { $0.raw(body) }
            phase = .open
        case .refuseProof(let tenant):
            setting.counters.authenticationFailures += 1
            host.refused(tenant: tenant, at: address, by: kind)
            phase = .refused(at: setting.now + setting.failedTries.add(address, tenant: tenant, at: setting.now))
        case .refuseVersion(let why):
            setting.counters.versionMismatches += 1
            refuse(.invalid, why)
        }
    }

    private func refuse(_ status: Status, _ why: String) {
        var header = FrameHeader(.refused)
        header.status = status
        carrier.transmit(header) { $0.raw(why.utf8) }
        phase = .ending
        carrier.finish()
    }

    private func takeRequest(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        var reader = unsafe WireReader(body)
        let (request, slot) = try Request.read(header, &reader)
        let holding = exchanges.count - (carrier.isOneSided ? pushingCount : 0)
        guard holding < setting.limits.credits else { throw FrameError(.credits, at: 8) }
        let isInSlot = header.payloadBytes > 0 && carrier.isOneSided
        guard header.payloadIsInSlot == isInSlot else { throw FrameError(.value("payload's place", 0), at: 6) }
        guard !isInSlot || slot.byteCount >= header.payloadBytes else {
            throw FrameError(.value("slot length", UInt64(slot.byteCount)), at: 24)
        }
        let wraps = slot.address.addingReportingOverflow(UInt64(slot.byteCount)).overflow
        guard !wraps || !carrier.isOneSided else {
            throw FrameError(.value("slot address", slot.address), at: 24)
        }
        let number = header.requestNumber
        guard exchanges[number] == nil else { throw FrameError(.value("request number", UInt64(number)), at: 8) }
        var exchange = Exchange(operation: header.operation, stage: .waits, slot: slot)
        switch request {
        case .put(_, let name, _, let payloadBytes, let checksum):
            if payloadBytes > 0 { exchange.stage = .awaitsPayload }
            exchange.name = name
            exchange.payloadBytes = payloadBytes
            exchange.checksum = checksum
        case .get(_, let name): exchange.name = name
        case .cancel(let target): exchange.cancels = target
        default: break
        }
        exchanges[number] = exchange
        let event = SessionEvent.request(RequestID(session: id, number: number), request)
        if setting.host.deliver(event) == .full { refusedByHost = event }
    }

    // MARK: Ends

    /// The connection is gone, and the carrier touches no buffer any more.
    package func connectionEnded() {
        if case .over = phase { return }
        phase = .ending
        if refusedByHost != nil, case .request(let request, _) = refusedByHost {
            // The store never saw it.
            exchanges[request.number] = nil
            refusedByHost = nil
        }
        for (number, exchange) in exchanges.sorted(by: { $0.key < $1.key }) {
            let request = RequestID(session: id, number: number)
            switch exchange.stage {
            case .pulls:
                exchanges.change(number) { $0.stage = .waits }
                _ = setting.host.deliver(.received(request, .aborted))
            case .pushes:
                exchanges[number] = nil
                _ = setting.host.deliver(.sent(request, .aborted))
            case .held: exchanges[number] = nil
            case .waits, .awaitsPayload: break
            }
        }
        connectionIsGone = true
        endIfNothingWaits()
    }

    /// Set by `connectionEnded`; from then on nothing is asked of the carrier.
    var connectionIsGone = false

    /// Says `closed` once every request was answered.
    func endIfNothingWaits() {
        guard connectionIsGone, exchanges.isEmpty else { return }
        if case .over = phase { return }
        phase = .over
        guard wasOpened else { return }
        setting.counters.sessionsClosed += 1
        _ = setting.host.deliver(.closed(id))
    }
}
