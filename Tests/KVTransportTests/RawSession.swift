// A connection driven frame by frame from the test's own thread, over any carrier: for what a client must never send.

import CKernel
import KVModel
import KVSystem
import KVTransport
import Testing

final class RawSession {
    let link: any ClientLink
    let memory: BlockMemory
    private let signal: WakeSignal
    private let poller: Poller
    private var polled = PollBatch()
    private var frames: [(header: FrameHeader, body: [UInt8])] = []
    private(set) var isEnded = false
    private(set) var isOpen = false
    /// Whether the connection stands, so that raw bytes can go.
    private(set) var isConnected = false

    init(_ route: StoreRoute, memory: BlockMemory) throws {
        self.memory = memory
        signal = try WakeSignal()
        poller = try Poller()
        link = try route.connect(memory, signal)
        poller.add(signal.descriptor, for: .readable, tag: 0)
        link.register(with: poller, tag: 1)
    }

    deinit { link.close() }

    /// One look at the connection: sends what can be sent, takes what has come.
    func turn(waiting limit: Duration = .zero) {
        guard !isEnded else { return }
        signal.prepareToSleep()
        let now = MonotonicClock.now
        poller.wait(until: link.wantsTurn ? now : now + limit, from: now, into: &polled)
        signal.awake()
        for index in 0..<polled.count where polled[index].tag == 1 { link.polled(polled[index].events) }
        isConnected = (try? link.connected()) ?? true
        guard isConnected else { return }
        if link.flush({ _ in }) != nil { isEnded = true }
        while !isEnded {
            do throws(FrameError) {
                switch try link.next(payloadBytesMax: 1 << 30) {
                case .frame(let header, let body):
                    frames.append((header, unsafe [UInt8](body)))
                    if header.inlinePayloadBytes > 0 { link.skipPayload() }
                case .payload, .turnIsOver: break
                case .nothing: return
                case .ended: isEnded = true
                }
            } catch { isEnded = true }
        }
    }

    /// Drives it until something holds; false when it does not within the time.
    func run(seconds: Double = 30, until isDone: () -> Bool) -> Bool {
        let deadline = MonotonicClock.now + Duration(seconds: seconds)
        while !isDone() {
            guard MonotonicClock.now < deadline else { return false }
            turn(waiting: Duration(milliseconds: 1))
        }
        return true
    }

    /// The next frame; nil when the connection ended first.
    func next() throws -> (header: FrameHeader, body: [UInt8])? {
        try #require(run { !frames.isEmpty || isEnded }, "neither a frame nor an end")
        return frames.isEmpty ? nil : frames.removeFirst()
    }

    func send(_ header: FrameHeader, payload: MemorySlice? = nil, _ body: [UInt8] = []) {
        link.queue(header, payload: payload) { $0.raw(body) }
        turn()
    }

    /// A request as the client would send it.
    func send(_ request: Request, number: UInt32, slot: MemorySlice? = nil) {
        queue(request, number: number, slot: slot)
        turn()
    }

    /// The same, to go with what is sent next.
    func queue(_ request: Request, number: UInt32, slot: MemorySlice? = nil) {
        let isPut = if case .put = request { true } else { false }
        let header = request.header(
            number: number, namespace: request.namespace, payloadIsInSlot: link.isOneSided && isPut)
        let remote = slot.map { link.remoteSlot($0) } ?? .none
        link.queue(header, payload: isPut ? slot : nil) { request.writeBody(to: &$0, slot: remote) }
    }

    /// Proves who it is and sets up what payloads travel by. The refusal's text when it is refused.
    func open(
        tenant: String = ConformanceStage.tenant, secret: [UInt8] = ConformanceStage.secret
    ) throws -> String? {
        var handshake = ClientHandshake(tenant: tenant, secret: secret, nonce: HandshakeProof.nonce())
        link.queue(FrameHeader(.hello), payload: nil) { $0.raw(handshake.helloBody) }
        while let (header, body) = try next() {
            switch try handshake.take(header, body) {
            case .proof(let proof): link.queue(FrameHeader(.proof), payload: nil) { $0.raw(proof) }
            case .refused(let why): return why
            case .open:
                try link.welcomed()
                try #require(run { link.isReady || isEnded })
                isOpen = !isEnded
                return nil
            }
        }
        return "ended"
    }

    /// Whether the store ends the connection.
    func ends(within seconds: Double = 30) -> Bool {
        run(seconds: seconds) {
            frames.removeAll()
            return isEnded
        }
    }

    /// The answer to a request, whatever else comes before.
    func reply(to number: UInt32) throws -> FrameHeader? {
        while let (header, _) = try next() { if header.isReply, header.requestNumber == number { return header } }
        return nil
    }

    /// Bytes as they are, past the framing: only a stream carries such.
    func sendRaw(_ bytes: [UInt8]) {
        guard let stream = link as? StreamLink else { preconditionFailure("raw bytes over what is no stream") }
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes[sent...].withUnsafeBytes { bytes in
                unsafe hf_send(stream.descriptor, bytes.baseAddress, bytes.count, 0)
            }
            if count < 0 { return }
            sent += Int(count)
        }
    }

    func close() {
        link.close()
        isEnded = true
    }
}

/// A frame's bytes.
func frameBytes(_ header: FrameHeader, _ body: [UInt8] = []) -> [UInt8] {
    var writer = FrameWriter()
    writer.frame(header) { $0.raw(body) }
    return writer.bytes
}
