// The client's side of one connection: handshake, requests in flight, answers, payloads. It knows the protocol and
// nothing of sockets; a `ClientLink` moves bytes for it.

import KVModel
import KVSystem

/// One connection. Belongs to the client's thread.
final class ClientConnection {
    /// How far it has come.
    enum Phase {
        case connecting, handshake
        /// The store is known; the link sets up what payloads travel by.
        case settingUp
        case open
        /// It has ended, and why.
        case ended(String)
    }

    private struct Exchange {
        var errand: Errand
        var operation: Operation
        /// The owner was told already; only the slot is still out.
        var isReported = false
        /// The link still reads the slot.
        var isSending = false
        /// The answer, kept while the link still reads the slot or the payload still comes.
        var response: Response?
        var cancelDeadline: Instant?
        var wasCancelled = false
    }

    /// Credits that only the client's own requests may take: cancels must get through when all others are in use.
    private static let reservedCreditsMax = 4

    let routeIndex: Int
    private(set) var phase = Phase.connecting
    /// The session's handles by the client's.
    var handles: [NamespaceHandle: NamespaceHandle] = [:]
    /// The client's handles by the session's.
    var clientHandles: [NamespaceHandle: NamespaceHandle] = [:]
    /// Why the store did not open a namespace again, by the client's handle.
    var refusals: [NamespaceHandle: Response] = [:]
    /// Namespaces and subscriptions of an earlier connection that the store has not yet confirmed.
    var openingCount = 0
    /// Whether it did what a connection is for: answered a request of the owner, or everything that it began with.
    var isProven = false
    let link: any ClientLink
    private unowned let owner: any ClientConnectionOwner
    private let memory: BlockMemory
    private var handshake: ClientHandshake
    private(set) var grants: Grants?
    private var exchanges: [UInt32: Exchange] = [:]
    private var nextNumber: UInt32 = 1
    /// The client's own requests that wait for a credit, and requests whose cancel does.
    private var ownWaiting = Queue<Errand>()
    private var cancelsWaiting = Queue<UInt32>()
    private var incoming: UInt32?
    private let connectDeadline: Instant
    private let cancelLimit: Duration
    private var turnWasCut = false
    /// When something that was asked passes its deadline.
    private var dueAt: Instant
    private var silence: SilenceWatch

    init(
        _ link: any ClientLink, routeIndex: Int, configuration: StoreClientConfiguration, memory: BlockMemory,
        owner: any ClientConnectionOwner
    ) {
        self.link = link
        self.routeIndex = routeIndex
        self.owner = owner
        self.memory = memory
        cancelLimit = configuration.cancelLimit
        silence = SilenceWatch(limit: configuration.silenceLimit)
        connectDeadline = owner.now + configuration.connectLimit
        dueAt = connectDeadline
        handshake = ClientHandshake(
            tenant: configuration.tenant, secret: configuration.secret, nonce: HandshakeProof.nonce())
    }

    /// Whether a further request finds a credit.
    var hasCredit: Bool {
        guard case .open = phase, let grants else { return false }
        let credits = Int(grants.credits)
        return exchanges.count < credits - min(Self.reservedCreditsMax, credits / 4)
    }

    /// Whether nothing is under way.
    var isIdle: Bool { exchanges.isEmpty && ownWaiting.isEmpty && !link.hasOutput }

    /// When it must be looked at, whatever comes.
    var nextDeadline: Instant { min(dueAt, silenceDueAt) }

    /// Whether the store answers neither what it was asked nor whether it is there.
    var isSilent: Bool { silence.isSilent }

    /// Looks once more.
    func isStillSilent() -> Bool {
        if isSilent { lookForLife() }
        return isSilent
    }

    /// Whether it should get a turn without waiting for the poller.
    var wantsTurn: Bool {
        if case .ended = phase { return false }
        return turnWasCut || link.wantsTurn
    }

    // MARK: Asking

    /// Sends a request of the client itself, as soon as there is a credit for it.
    func sendOwn(_ errand: Errand) {
        ownWaiting.append(errand)
        sendOwnWaiting()
    }

    /// Cancels first: they free credits.
    private func sendOwnWaiting() {
        guard let grants else { return }
        while case .open = phase, exchanges.count < Int(grants.credits) {
            if let target = cancelsWaiting.removeFirst() {
                guard exchanges[target] != nil else { continue }
                let request = Request.cancel(requestNumber: target)
                send(Errand(request: request, owner: .client, slot: nil, deadline: .distantFuture))
            } else if let errand = ownWaiting.removeFirst() {
                send(errand)
            } else {
                return
            }
        }
    }

    /// Sends a request. The caller saw `hasCredit`.
    func send(_ errand: Errand) {
        let number = nextNumber
        nextNumber = nextNumber == .max ? 1 : nextNumber + 1
        var payload: MemorySlice?
        var slot = RemoteSlot.none
        if case .put(_, _, _, let payloadBytes, _) = errand.request {
            let slice = errand.slot?.prefix(payloadBytes) ?? MemorySlice(offset: 0, count: 0)
            payload = slice
            slot = link.remoteSlot(slice)
        } else if let slice = errand.slot {
            slot = link.remoteSlot(slice)
        }
        if case .put(_, _, _, let payloadBytes, _) = errand.request, payloadBytes > Int(grants?.payloadBytesMax ?? 0) {
            let response = Response.because(
                .invalid, "the store takes payloads of \(grants?.payloadBytesMax ?? 0) bytes at most")
            return owner.completed(errand, response, slotIsFree: true, over: self)
        }
        let client = errand.request.namespace
        guard client == 0 || handles[client] != nil else {
            let response = refusals[client] ?? .because(.invalid, "this namespace was not opened")
            return owner.completed(errand, response, slotIsFree: true, over: self)
        }
        var exchange = Exchange(errand: errand, operation: errand.request.operation)
        exchange.isSending = payload != nil && !link.isOneSided
        if exchanges.isEmpty { silence.begins(at: owner.now) }
        exchanges[number] = exchange
        dueAt = min(dueAt, errand.deadline)
        let header = errand.request.header(
            number: number, namespace: handles[client] ?? 0, payloadIsInSlot: link.isOneSided && payload != nil)
        link.queue(header, payload: payload) { errand.request.writeBody(to: &$0, slot: slot) }
    }

    /// Asks the store to forget the request with this tag; false when it is not under way here.
    func cancel(tag: UInt64) -> Bool {
        for (number, exchange) in exchanges {
            guard exchange.errand.tag == tag else { continue }
            cancel(number)
            return true
        }
        return false
    }

    private func cancel(_ number: UInt32) {
        guard exchanges[number]?.wasCancelled == false else { return }
        exchanges.change(number) { $0.wasCancelled = true }
        let limit = owner.now + cancelLimit
        exchanges.change(number) { $0.cancelDeadline = limit }
        dueAt = min(dueAt, limit)
        cancelsWaiting.append(number)
        sendOwnWaiting()
    }

    // MARK: Turns

    /// Sends and reads what can be sent and read now.
    func turn() {
        turnWasCut = false
        if case .connecting = phase {
            do throws(SystemError) {
                guard try link.connected() else { return }
            } catch { return end(error.description) }
            phase = .handshake
            link.queue(FrameHeader(.hello), payload: nil) { $0.raw(self.handshake.helloBody) }
        }
        flush()
        read()
        sendOwnWaiting()
        flush()
    }

    private func flush() {
        if case .ended = phase { return }
        let failure = link.flush { number in
            exchanges.change(number) { $0.isSending = false }
            if exchanges[number]?.response != nil { finish(number) }
        }
        guard let failure else { return }
        end(link.endReason ?? SystemError(number: failure, doing: "send to the store").description)
    }

    private func read() {
        let payloadBytesMax = Int(grants?.payloadBytesMax ?? 0)
        defer { if case .settingUp = phase, link.isReady { phase = .open } }
        while true {
            if case .ended = phase { return }
            do throws(FrameError) {
                switch try link.next(payloadBytesMax: payloadBytesMax) {
                case .frame(let header, let body): unsafe try take(header, body)
                case .payload(let checksum): takePayload(checksum)
                case .nothing: return
                case .turnIsOver:
                    turnWasCut = true
                    return
                case .ended(.failed(let number)):
                    return end(
                        link.endReason ?? SystemError(number: number, doing: "receive from the store").description)
                case .ended: return end(link.endReason ?? "the store closed the connection")
                }
            } catch { return end("the store broke the protocol: \(error)") }
        }
    }

    private func take(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        silence.heardAnswer(at: owner.now)
        if case .handshake = phase {
            switch unsafe try handshake.take(header, Array(body)) {
            case .proof(let body): link.queue(FrameHeader(.proof), payload: nil) { $0.raw(body) }
            case .refused(let why): end("the store refused: \(why)")
            case .open(let grants):
                self.grants = grants
                phase = .settingUp
                do throws(SystemError) { try link.welcomed() } catch { return end(error.description) }
            }
            return
        }
        switch header.operation {
        case .added, .removed, .overflow:
            var reader = unsafe WireReader(body)
            owner.notified(try Notification.read(header, &reader), over: self)
        case .goodbye: unsafe end("the store says: " + String(decoding: body, as: UTF8.self))
        default: unsafe try takeReply(header, body)
        }
    }

    private func takeReply(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws(FrameError) {
        var reader = unsafe WireReader(body)
        let number = header.requestNumber
        guard let exchange = exchanges[number], exchange.operation == header.operation, exchange.response == nil
        else { throw FrameError(.value("request number", UInt64(number)), at: 8) }
        let response = try Response.read(header, &reader)
        guard response.answers(exchange.errand.request) else {
            throw FrameError(.value("body kind", UInt64(header.bodyKind)), at: 7)
        }
        guard header.payloadBytes == 0 || header.payloadIsInSlot == link.isOneSided else {
            throw FrameError(.value("payload's place", header.payloadIsInSlot ? 1 : 0), at: 6)
        }
        exchanges.change(number) { $0.response = response }
        guard header.operation == .get, response.status == .ok,
            case .get(_, let name) = exchange.errand.request,
            case .object(let payloadBytes, let checksum, _) = response.body
        else { return finish(number) }
        guard let slot = exchange.errand.slot, payloadBytes <= slot.count else {
            throw FrameError(.tooLong("payload", UInt64(payloadBytes)), at: 24)
        }
        guard header.payloadBytes == payloadBytes else {
            throw FrameError(.value("payload length", UInt64(header.payloadBytes)), at: 24)
        }
        if link.isOneSided {
            let bytes = unsafe UnsafeRawBufferPointer(memory[slot.prefix(payloadBytes)])
            finishGet(number, isRight: unsafe BlockChecksum.of(name, bytes) == checksum)
        } else if exchange.isReported {
            link.skipPayload()
            finish(number)
        } else {
            incoming = number
            link.receivePayload(
                into: slot.prefix(payloadBytes), checksum: .begin(name, payloadBytes: payloadBytes))
        }
    }

    private func takePayload(_ checksum: UInt64) {
        guard let number = incoming, case .object(_, let expected, _) = exchanges[number]?.response?.body else {
            preconditionFailure("a payload of no request")
        }
        incoming = nil
        finishGet(number, isRight: checksum == expected)
    }

    /// A block that fails its checksum is a miss, and the store hears of it.
    private func finishGet(_ number: UInt32, isRight: Bool) {
        if !isRight, let request = exchanges[number]?.errand.request {
            exchanges.change(number) { $0.response = .because(.corrupt, "the payload came with a wrong checksum") }
            owner.sawCorrupt(request)
        }
        finish(number)
    }

    /// Reports an errand that was answered, once nobody needs its slot.
    private func finish(_ number: UInt32) {
        guard let exchange = exchanges[number], let response = exchange.response, !exchange.isSending else { return }
        exchanges[number] = nil
        if exchange.isReported {
            owner.slotReturned(exchange.errand)
        } else {
            owner.completed(exchange.errand, response, slotIsFree: true, over: self)
        }
    }

    // MARK: Time and ends

    /// Reports what passed its deadline, and gives up a store that acknowledges nothing.
    func tick() {
        let now = owner.now
        if now >= silenceDueAt { lookForLife() }
        guard now >= dueAt else { return }
        switch phase {
        case .connecting, .handshake, .settingUp:
            if now >= connectDeadline { return end("no welcome within the limit") }
            dueAt = connectDeadline
            return
        case .open: break
        case .ended: return
        }
        for (number, exchange) in exchanges where now >= exchange.errand.deadline && !exchange.isReported {
            if case .client = exchange.errand.owner {
                if exchange.errand.request.isReopening {
                    return end("a namespace was not opened again within the limit")
                }
                exchanges.change(number) { $0.isReported = true }
                continue
            }
            let hasSlot = exchange.errand.slot != nil
            exchanges.change(number) { $0.isReported = true }
            owner.completed(exchange.errand, Response(.deadlinePassed), slotIsFree: !hasSlot, over: self)
            cancel(number)
        }
        if exchanges.values.contains(where: { $0.cancelDeadline.map { now >= $0 } ?? false }) {
            return end("a cancelled request was not acknowledged within the limit")
        }
        dueAt = .distantFuture
        for exchange in exchanges.values {
            if !exchange.isReported { dueAt = min(dueAt, exchange.errand.deadline) }
            if let limit = exchange.cancelDeadline { dueAt = min(dueAt, limit) }
        }
    }

    /// When to look whether the store shows any sign of life.
    private var silenceDueAt: Instant {
        guard case .open = phase, !exchanges.isEmpty else { return .distantFuture }
        return silence.dueAt
    }

    /// Slow drives hold up answers, but not the answer to a probe: a cancel of nothing, which is always acknowledged.
    private func lookForLife() {
        guard link.signsOfLife() != nil else { return silence.heard(at: owner.now) }
        read()
        guard case .open = phase, let signs = link.signsOfLife() else { return }
        guard silence.look(at: signs, owner.now) else { return }
        sendOwn(Errand(request: .cancel(requestNumber: 0), owner: .client, slot: nil, deadline: .distantFuture))
    }

    /// Closes the connection: every slot comes back, every request that had no answer fails.
    func end(_ reason: String) {
        if case .ended = phase { return }
        phase = .ended(reason)
        link.close()
        let left = exchanges
        exchanges = [:]
        for (_, exchange) in left.sorted(by: { $0.key < $1.key }) {
            if exchange.isReported {
                owner.slotReturned(exchange.errand)
            } else {
                owner.completed(exchange.errand, .because(.disconnected, reason), slotIsFree: true, over: self)
            }
        }
    }
}

extension Request {
    /// Whether it brings back what an earlier connection had.
    fileprivate var isReopening: Bool {
        switch self {
        case .openNamespace, .subscribe: true
        default: false
        }
    }
}
