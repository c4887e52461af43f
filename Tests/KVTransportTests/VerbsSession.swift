// A verbs server whose store does what the test says, and clients driven by the test's own thread.

import KVModel
import KVSystem
import KVTransport
import Synchronization

/// A store that answers nothing by itself: it notes what came, and the test answers.
final class ScriptedHost: SessionHost {
    let memory: BlockMemory
    private let events = Mutex<[SessionEvent]>([])
    private let isFull = Atomic<Bool>(false)

    init(bytes: Int) throws { memory = try BlockMemory(byteCount: bytes) }

    func secret(ofTenant tenant: String) -> [UInt8]? { tenant == "tenant" ? Array("key".utf8) : nil }

    func deliver(_ event: SessionEvent) -> Acceptance {
        if case .request = event, isFull.load(ordering: .relaxed) { return .full }
        events.withLock { $0.append(event) }
        return .accepted
    }

    func takeNoRequests(_ value: Bool) { isFull.store(value, ordering: .relaxed) }

    /// Everything so far.
    var all: [SessionEvent] { events.withLock { $0 } }

    var requests: [(id: RequestID, request: Request)] {
        all.compactMap { if case .request(let id, let request) = $0 { (id, request) } else { nil } }
    }

    func received(_ id: RequestID) -> PayloadOutcome? {
        for case .received(id, let outcome) in all { return outcome }
        return nil
    }

    func sent(_ id: RequestID) -> PayloadOutcome? {
        for case .sent(id, let outcome) in all { return outcome }
        return nil
    }

    /// The first request, once it is there; it looks for nothing else meanwhile.
    func firstRequest(within limit: Duration) -> RequestID? {
        let deadline = MonotonicClock.now + limit
        while requests.isEmpty, MonotonicClock.now < deadline {}
        return requests.first?.id
    }

    var openedCount: Int { all.count { if case .opened = $0 { true } else { false } } }
    var closedCount: Int { all.count { if case .closed = $0 { true } else { false } } }
}

/// A client that sends what the test says and checks nothing.
final class ScriptedClient {
    let memory: BlockMemory
    let port: VerbsClientPort
    var link: VerbsLink?
    var isOpen = false
    var endReason: String?
    var replies: [UInt32: Response] = [:]
    private var handshake = ClientHandshake(tenant: "", secret: [], nonce: [])
    private var hasSaidHello = false
    /// What it tells of its queue pair in place of the truth.
    var claimed: VerbsParameters?
    private let poller: Poller
    private var polled = PollBatch()

    init(bytes: Int = 4 << 20, settings: VerbsSettings = .lab) throws {
        memory = try BlockMemory(byteCount: bytes)
        port = try VerbsClientPort(VerbsPlace(device: VerbsDevice.names.first!), memory: memory, settings: settings)
        poller = try Poller()
    }

    func connect(to server: VerbsServer, key: String = "key") throws {
        try connect(host: server.devicePort.addressText, port: server.port, key: key)
    }

    func connect(host: String, port tcpPort: UInt16, key: String = "key") throws {
        isOpen = false
        endReason = nil
        replies = [:]
        hasSaidHello = false
        handshake = ClientHandshake(tenant: "tenant", secret: Array(key.utf8), nonce: HandshakeProof.nonce())
        let link = try VerbsLink(port, host: host, tcpPort: tcpPort)
        link.register(with: poller, tag: 1)
        self.link = link
    }

    /// Ends without a word, as a process does that is killed: the kernel takes its queue pair and its socket.
    func vanish() { link = nil }

    /// Gives up the queue pair, so that nothing can land in a slot any more.
    func close() {
        link?.close()
        link = nil
        endReason = "closed"
    }

    func turn() {
        guard let link else { return }
        poller.wait(until: .zero, from: .zero, into: &polled)
        for index in 0..<polled.count { link.polled(polled[index].events) }
        do {
            guard try link.connected() else { return }
            if !hasSaidHello { link.queue(FrameHeader(.hello), payload: nil) { $0.raw(handshake.helloBody) } }
            hasSaidHello = true
            if link.flush({ _ in }) != nil { return end("the link failed") }
            while self.link != nil, endReason == nil {
                switch try link.next(payloadBytesMax: 0) {
                case .frame(let header, let body): unsafe try take(header, body)
                case .ended(let how): return end("the link ended: \(how)")
                case .nothing, .payload, .turnIsOver:
                    if link.isReady { isOpen = true }
                    return
                }
            }
        } catch { end("\(error)") }
    }

    private func end(_ reason: String) {
        link?.close()
        endReason = reason
    }

    private func take(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) throws {
        guard let link else { return }
        if isOpen || link.isReady {
            var reader = unsafe WireReader(body)
            replies[header.requestNumber] = try Response.read(header, &reader)
            return
        }
        switch unsafe try handshake.take(header, [UInt8](body)) {
        case .proof(let body): link.queue(FrameHeader(.proof), payload: nil) { $0.raw(body) }
        case .open:
            if let claimed {
                link.queue(FrameHeader(.attach), payload: nil) { claimed.write(to: &$0) }
            } else {
                try link.welcomed()
            }
        case .refused(let why): end("refused: \(why)")
        }
        _ = link.flush { _ in }
    }

    func submit(_ number: UInt32, _ request: Request, slot: MemorySlice? = nil) {
        submit(number, request, remote: slot.map { port.slot($0) } ?? .none)
    }

    func submit(_ number: UInt32, _ request: Request, remote: RemoteSlot) {
        let header = request.header(number: number, namespace: request.namespace, payloadIsInSlot: true)
        link?.queue(header, payload: nil) {
            request.writeBody(to: &$0, slot: remote)
        }
    }

    func put(_ number: UInt32, _ name: ObjectName, from slice: MemorySlice, checksum: UInt64? = nil) {
        let right = unsafe BlockChecksum.of(name, UnsafeRawBufferPointer(memory[slice]))
        submit(
            number, .put(1, name, ObjectMetadata(), payloadBytes: slice.count, checksum: checksum ?? right),
            slot: slice)
    }
}

/// A server with some clients.
final class VerbsSession {
    let host: ScriptedHost
    let server: VerbsServer
    var clients: [ScriptedClient] = []

    init(
        clients count: Int = 1, storeBytes: Int = 8 << 20, clientBytes: Int = 4 << 20, settings: VerbsSettings = .lab,
        clientSettings: VerbsSettings = .lab, limits: ServerLimits = .standard
    ) throws {
        host = try ScriptedHost(bytes: storeBytes)
        server = try VerbsServer(
            VerbsServerConfiguration(
                place: VerbsPlace(device: VerbsDevice.names.last!), address: "0.0.0.0", port: 0, settings: settings,
                limits: limits), transport: 4, host: host)
        for _ in 0..<count { clients.append(try ScriptedClient(bytes: clientBytes, settings: clientSettings)) }
    }

    var client: ScriptedClient { clients[0] }

    /// Connects all clients.
    func open() throws -> Bool {
        for client in clients { try client.connect(to: server) }
        return run { clients.allSatisfy(\.isOpen) }
    }

    /// Drives the clients until something holds. False: it did not within the time.
    func run(seconds: Double = 60, until isDone: () -> Bool) -> Bool {
        let deadline = MonotonicClock.now + Duration(seconds: seconds)
        while !isDone() {
            guard MonotonicClock.now < deadline else { return false }
            for client in clients { client.turn() }
        }
        return true
    }

    /// The n-th request that the store saw, once it is there.
    func request(_ index: Int = 0) -> (id: RequestID, request: Request)? {
        _ = run { host.requests.count > index || clients.allSatisfy { $0.endReason != nil } }
        return host.requests.count > index ? host.requests[index] : nil
    }

    func object(_ count: Int) -> Response {
        Response(.ok, .object(payloadBytes: count, checksum: 0, ObjectMetadata()))
    }

    /// Ends everything.
    func end() {
        for client in clients { client.close() }
        server.shutDown()
    }
}

func fill(_ memory: BlockMemory, _ slice: MemorySlice, with byte: UInt8) {
    unsafe memory[slice].initializeMemory(as: UInt8.self, repeating: byte)
}

func holds(_ memory: BlockMemory, _ slice: MemorySlice, only byte: UInt8) -> Bool {
    unsafe memory[slice].allSatisfy { $0 == byte }
}
