// One store in memory behind one carrier, and clients of it: what every case of the conformance suite plays on. Whatever
// a case does, at the end every session is closed, every slot free or taken by an object, every client's slot returned.

import KVModel
import KVSystem
import KVTransport
import Synchronization
import Testing

/// What a case runs over.
enum TestCarrier: String, CaseIterable, Sendable {
    case loopback, tcp, tls
    /// TLS whose clients must show a certificate, too.
    case mutualTLS
    case verbs

    /// Those that need nothing but this machine.
    static let ofHost: [TestCarrier] = [.loopback, .tcp, .tls, .mutualTLS]

    var carrier: Carrier {
        switch self {
        case .loopback: .loopback
        case .tcp: .tcp
        case .tls, .mutualTLS: .tls
        case .verbs: .verbs
        }
    }

    /// Whether it is a stream of bytes, in which anything can come.
    var isStream: Bool { self != .loopback && self != .verbs }

    /// Lengths of payloads that it is tried with. An emulated adapter is slow, and nothing is learned from more.
    var payloadSizes: [Int] {
        self == .verbs ? [64 << 10, 256 << 10, 1 << 20] : [64 << 10, 2 << 20, 16 << 20]
    }
}

/// A server that counts.
protocol CountingServer: SessionServer {
    var counters: TransportCounters { get }
}
extension TCPServer: CountingServer {}
extension TLSServer: CountingServer {}
extension LoopbackServer: CountingServer {}
extension VerbsServer: CountingServer {}

/// Waits until something holds; false when it does not within the time. The only place where these tests wait: they look
/// again and again because counters and other threads' mailboxes have no bell, and no result depends on how often.
func eventually(within seconds: Double = hasVerbs ? 60 : 15, _ holds: () -> Bool) async -> Bool {
    let deadline = MonotonicClock.now + Duration(seconds: seconds)
    while !holds() {
        guard MonotonicClock.now < deadline else { return false }
        try? await Task.sleep(for: .milliseconds(1))
    }
    return true
}

extension ServerLimits {
    /// Small numbers, so that a case can exhaust them, and time enough for a busy machine.
    static var test: ServerLimits {
        var limits = ServerLimits.standard
        limits.sessionsMax = 80
        limits.credits = 16
        limits.payloadBytesMax = 32 << 20
        limits.helloLimit = Duration(seconds: 20)
        limits.stallLimit = Duration(seconds: 20)
        limits.failureDelay = Duration(milliseconds: 1)
        limits.failureDelayMax = Duration(milliseconds: 4)
        return limits
    }
}

/// The place of one case.
final class ConformanceStage: Sendable {
    static let tenant = "tenant"
    static let secret = Array("a key that both ends know, 32 by".utf8)

    let carrier: TestCarrier
    let host: MemoryHost
    let limits: ServerLimits
    private let certificate: String
    private let running = Mutex<(server: (any CountingServer)?, port: UInt16)>((nil, 0))
    private let clients = Mutex<[TestClient]>([])

    init(
        _ carrier: TestCarrier, limits: ServerLimits = .test, slotBytes: Int = 64 << 10, slotCount: Int = 64,
        certificate: String = "store"
    ) throws {
        self.carrier = carrier
        self.certificate = certificate
        self.limits = limits
        host = try MemoryHost(
            slotBytes: slotBytes, slotCount: slotCount,
            secrets: [Self.tenant: Self.secret, "other": Array("the key of somebody else".utf8)])
        try startServer()
    }

    var server: (any CountingServer)? { running.withLock { $0.server } }
    var port: UInt16 { running.withLock { $0.port } }
    var counters: TransportCounters { server?.counters ?? TransportCounters() }

    /// Starts the server, on the port that it had before.
    func startServer() throws {
        let before = port
        let (server, port) = try makeServer(before)
        host.attach(server)
        running.withLock { $0 = (server, port) }
    }

    func stopServer() {
        server?.shutDown()
        host.detach()
        running.withLock { $0.server = nil }
    }

    private func makeServer(_ port: UInt16) throws -> (any CountingServer, UInt16) {
        switch carrier {
        case .loopback: return (try LoopbackServer(limits: limits, transport: 3, host: host), 0)
        case .tcp:
            let server = try TCPServer(
                TCPServerConfiguration(
                    address: "127.0.0.1", port: port, laneCount: 2, socketBufferBytes: 0, limits: limits),
                transport: 1, host: host)
            return (server, server.port)
        case .tls, .mutualTLS:
            let files = try TestCertificates.shared.get()
            let server = try TLSServer(
                TLSServerConfiguration(
                    address: "127.0.0.1", port: port, certificateChain: files.chain(certificate),
                    privateKey: files.key(certificate),
                    clientAuthority: carrier == .mutualTLS ? files.authority : nil, laneCount: 1, limits: limits),
                transport: 2, host: host)
            return (server, server.port)
        case .verbs:
            let server = try VerbsServer(
                VerbsServerConfiguration(
                    place: VerbsPlace(device: VerbsDevice.names.last!), address: "0.0.0.0", port: port, settings: .lab,
                    limits: limits), transport: 4, host: host)
            return (server, server.port)
        }
    }

    /// The way to whatever server runs when a connection begins.
    func route() throws -> StoreRoute {
        switch carrier {
        case .loopback:
            return StoreRoute(carrier: .loopback, address: "loopback") { [self] memory, signal throws(SystemError) in
                guard let server = server as? LoopbackServer else {
                    throw SystemError(number: KernelError.connectionRefused, doing: "connect")
                }
                return try StoreRoute.loopback(server).connect(memory, signal)
            }
        case .tcp: return .tcp(host: "127.0.0.1", port: port)
        case .tls, .mutualTLS:
            let files = try TestCertificates.shared.get()
            let isMutual = carrier == .mutualTLS
            return try .tls(
                host: "127.0.0.1", port: port,
                TLSClientConfiguration(
                    authority: files.authority, serverName: nil,
                    certificateChain: isMutual ? files.chain("client") : nil,
                    privateKey: isMutual ? files.key("client") : nil))
        case .verbs:
            let address = try VerbsDevice(VerbsPlace(device: VerbsDevice.names.last!)).port.addressText
            return .verbs(
                host: address, port: port, place: VerbsPlace(device: VerbsDevice.names.first!), settings: .lab)
        }
    }

    /// A client that has its own memory; `end` shuts it down.
    func client(
        slotBytes: Int? = nil, slotCount: Int = 8, tenant: String = ConformanceStage.tenant,
        secret: [UInt8] = ConformanceStage.secret, routes: [StoreRoute]? = nil,
        _ change: (inout StoreClientConfiguration) -> Void = { _ in }
    ) throws -> TestClient {
        var configuration = StoreClientConfiguration(
            routes: try routes ?? [route()], tenant: tenant, secret: secret, connectLimit: Duration(seconds: 20),
            cancelLimit: Duration(seconds: 20), silenceLimit: Duration(seconds: 600),
            backoff: Duration(milliseconds: 5),
            backoffMax: Duration(milliseconds: 50))
        change(&configuration)
        let client = try TestClient(configuration, slotBytes: slotBytes ?? host.slotBytes, slotCount: slotCount)
        clients.withLock { $0.append(client) }
        return client
    }

    /// A client to which wrong comes what the store says right.
    func client(
        tampering: @escaping @Sendable (FrameHeader, [UInt8]) -> Tampering,
        changing change: (inout StoreClientConfiguration) -> Void = { _ in }
    ) throws -> TestClient {
        let route = try route()
        let way = StoreRoute(carrier: route.carrier, address: route.address) { memory, signal throws(SystemError) in
            TamperingLink(try route.connect(memory, signal), tampering)
        }
        return try client(routes: [way], change)
    }

    /// A client whose namespace `n` is open as its first.
    func openClient(slotCount: Int = 8) async throws -> TestClient {
        let client = try client(slotCount: slotCount)
        try await client.open("n")
        return client
    }

    /// A connection that a case drives frame by frame.
    func raw() throws -> RawSession { try RawSession(try route(), memory: BlockMemory(byteCount: 1 << 20)) }

    /// Ends clients and server, and looks at what is left of them.
    func end() async {
        for client in clients.withLock({ $0 }) {
            client.client.shutDown()
            #expect(client.client.inFlightCount == 0, "a client keeps slots")
        }
        host.releaseHeld()
        let isClosed = await eventually { host.openedCount == host.closedCount && counters.connectionsOpen == 0 }
        #expect(isClosed, "\(host.openedCount) sessions opened, \(host.closedCount) closed: \(counters)")
        let counted = counters
        if server != nil { #expect(counted.sessionsOpened == counted.sessionsClosed) }
        #expect(await eventually { host.isAccounted }, "slots of the store are lost")
        stopServer()
    }
}
