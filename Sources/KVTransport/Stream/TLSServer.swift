// Sessions over TLS 1.3, with certificates of clients if wanted. The tenant's key is proved inside as over TCP: the
// certificate says which machine, the key says which tenant.

import CKernel
import KVModel
import KVSystem
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

/// Where and how a TLS server listens.
public struct TLSServerConfiguration: Sendable {
    /// An IPv4 or IPv6 address as text.
    public var address: String
    /// The port; 0 lets the kernel choose one.
    public var port: UInt16
    /// A PEM file: the server's certificate and those between it and the authority.
    public var certificateChain: String
    /// A PEM file: the certificate's key.
    public var privateKey: String
    /// A PEM file: the authorities of clients' certificates; `nil` asks clients for none.
    public var clientAuthority: String?
    /// Threads that encrypt, and as many that serve.
    public var laneCount: Int
    /// Its bounds.
    public var limits: ServerLimits

    /// A configuration of its parts.
    public init(
        address: String, port: UInt16, certificateChain: String, privateKey: String, clientAuthority: String?,
        laneCount: Int, limits: ServerLimits
    ) {
        self.address = address
        self.port = port
        self.certificateChain = certificateChain
        self.privateKey = privateKey
        self.clientAuthority = clientAuthority
        self.laneCount = laneCount
        self.limits = limits
    }
}

/// A server of the frame protocol over TLS.
public final class TLSServer: SessionServer {
    /// The port it listens on.
    public let port: UInt16
    /// `tls 0.0.0.0:9461`.
    public let address: String
    private let lanes: StreamLanes
    private let group: MultiThreadedEventLoopGroup
    private let listener: any Channel
    private let wasShutDown = Atomic<Bool>(false)

    /// Listens, and serves until `shutDown`.
    public init(
        _ configuration: TLSServerConfiguration, transport: UInt16, host: any SessionHost
    ) throws(OperatorError) {
        var tls = TLSConfiguration.makeServerConfiguration(
            certificateChain: try TLSPump.certificates(configuration.certificateChain),
            privateKey: try TLSPump.privateKey(configuration.privateKey))
        tls.minimumTLSVersion = .tlsv13
        if let authority = configuration.clientAuthority {
            try TLSPump.checkCanRead(authority)
            tls.trustRoots = .file(authority)
            tls.certificateVerification = .noHostnameVerification
        }
        let context = try TLSPump.context(tls, place: configuration.certificateChain)
        let limits = configuration.limits
        let lanes: StreamLanes
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.laneCount)
        do {
            lanes = try StreamLanes(
                count: configuration.laneCount, transport: transport, host: host, limits: limits)
            let handshakes = ConnectionRoom(most: limits.unauthenticatedMax)
            let bootstrap = ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: 1024)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelInitializer { channel in
                    Self.accept(channel, context, lanes, handshakes, limits)
                }
            listener = try bootstrap.bind(host: configuration.address, port: Int(configuration.port)).wait()
            try lanes.start()
        } catch {
            try? group.syncShutdownGracefully()
            throw OperatorError(
                "cannot listen with TLS (\(error))", at: "\(configuration.address):\(configuration.port)",
                remedy: "choose a free address and port")
        }
        self.lanes = lanes
        self.group = group
        port = UInt16(listener.localAddress?.port ?? 0)
        address = "tls \(configuration.address):\(port)"
    }

    /// A TLS handshake has the time of a hello, and its own places; a connection counts from its end on.
    private static func accept(
        _ channel: any Channel, _ context: NIOSSLContext, _ lanes: StreamLanes, _ handshakes: ConnectionRoom,
        _ limits: ServerLimits
    ) -> EventLoopFuture<Void> {
        if handshakes.enter(channel) { lanes.brokenCount.increment() }
        let address = channel.remoteAddress.map { "\($0.ipAddress ?? "?"):\($0.port ?? 0)" } ?? "?"
        let limit = channel.eventLoop.scheduleTask(in: .nanoseconds(limits.helloLimit.nanoseconds)) {
            channel.close(promise: nil)
        }
        channel.closeFuture.whenComplete { _ in
            limit.cancel()
            if handshakes.leave(channel) { lanes.brokenCount.increment() }
        }
        return channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
            try channel.pipeline.syncOperations.addHandler(
                PumpHandler(
                    isEncrypted: true,
                    onReady: { side, context in
                        limit.cancel()
                        guard handshakes.leave(context.channel) else { return }
                        guard let inner = handOver(side, context, lanes, limits) else {
                            lanes.brokenCount.increment()
                            return context.close(promise: nil)
                        }
                        lanes.adopt(AcceptedSocket(descriptor: inner, carrier: .tls, address: address))
                    }))
        }
    }

    /// Counts a connection whose handshake is done and joins it with one end of a socket pair.
    ///
    /// - Returns: The other end; nil when there are too many connections, or no descriptors.
    private static func handOver(
        _ side: PumpHandler, _ context: ChannelHandlerContext, _ lanes: StreamLanes, _ limits: ServerLimits
    ) -> Int32? {
        guard lanes.connectionCount.increment(max: limits.sessionsMax + limits.unauthenticatedMax) else { return nil }
        var inner: Int32 = -1
        var outer: Int32 = -1
        guard unsafe hf_socket_pair(&inner, &outer) == 0 else {
            lanes.connectionCount.decrement()
            return nil
        }
        TLSPump.attach(side, context, descriptor: outer)
        return inner
    }

    /// Takes a command of the store.
    public func post(_ command: SessionCommand) -> Acceptance { lanes.post(command) }

    /// What it counted so far. Bytes are those inside TLS; connections whose handshake failed are among the broken.
    public var counters: TransportCounters { lanes.counters }

    /// Stops accepting, ends all sessions, joins its threads.
    public func shutDown() {
        guard !wasShutDown.exchange(true, ordering: .sequentiallyConsistent) else { return }
        try? listener.close().wait()
        lanes.stop()
        try? group.syncShutdownGracefully()
    }
}

/// How a client knows the store, and the store the client's machine.
public struct TLSClientConfiguration: Sendable {
    /// A PEM file: the authorities of the store's certificate.
    public var authority: String
    /// The name that must stand in the store's certificate, unless the address connected to does; an address here means
    /// that address. `nil` accepts any certificate of the authority.
    public var serverName: String?
    /// A PEM file: the client's certificate and those between, where the store wants one.
    public var certificateChain: String?
    /// A PEM file: that certificate's key.
    public var privateKey: String?

    /// A configuration of its parts.
    public init(authority: String, serverName: String?, certificateChain: String?, privateKey: String?) {
        self.authority = authority
        self.serverName = serverName
        self.certificateChain = certificateChain
        self.privateKey = privateKey
    }
}

extension StoreRoute {
    /// Over TLS 1.3.
    public static func tls(
        host: String, port: UInt16, _ configuration: TLSClientConfiguration
    ) throws(OperatorError) -> StoreRoute {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv13
        try TLSPump.checkCanRead(configuration.authority)
        tls.trustRoots = .file(configuration.authority)
        if configuration.serverName == nil { tls.certificateVerification = .noHostnameVerification }
        if let chain = configuration.certificateChain, let key = configuration.privateKey {
            tls.certificateChain = try TLSPump.certificates(chain)
            tls.privateKey = try TLSPump.privateKey(key)
        }
        let context = try TLSPump.context(tls, place: configuration.authority)
        // An address is no name to ask for; it is compared with the addresses in the certificate all the same.
        let name = configuration.serverName.flatMap { (try? SocketAddress(ipAddress: $0, port: 0)) == nil ? $0 : nil }
        return StoreRoute(carrier: .tls, address: "tls \(host):\(port)") { memory, _ throws(SystemError) in
            var inner: Int32 = -1
            var outer: Int32 = -1
            _ = unsafe try checked(hf_socket_pair(&inner, &outer), "create a socket pair")
            let descriptor = outer
            let wasTaken = SharedCount()
            let fate = TLSFate()
            let connecting = ClientBootstrap(group: NIOSingletons.posixEventLoopGroup)
                .connectTimeout(.seconds(5))
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: context, serverHostname: name))
                        try channel.pipeline.syncOperations.addHandler(
                            PumpHandler(isEncrypted: true, onError: { fate.note($0) }) { side, context in
                                guard wasTaken.increment(max: 1) else { return context.close(promise: nil) }
                                TLSPump.attach(side, context, descriptor: descriptor)
                            })
                    }
                }
                .connect(host: host, port: Int(port))
            connecting.whenComplete { result in
                // Without a handshake nobody took the pair's other end; closing it tells the client.
                let release = { @Sendable in if wasTaken.increment(max: 1) { _ = hf_close(descriptor) } }
                switch result {
                case .success(let channel): channel.closeFuture.whenComplete { _ in release() }
                case .failure(let error):
                    fate.note(error)
                    release()
                }
            }
            return StreamLink(
                inner, memory: memory, isConnected: true, reason: { fate.reason },
                onClose: {
                    // Once TLS is up, the pump sees the end of the pair and sends what is still there before it closes.
                    guard wasTaken.increment(max: 1) else { return }
                    hf_close(descriptor)
                    connecting.whenSuccess { $0.close(promise: nil) }
                })
        }
    }
}

/// What went wrong with one TLS connection, from the thread that encrypts to the client's.
private final class TLSFate: Sendable {
    private let first = Mutex<String?>(nil)

    /// Why it ended, in words for a person.
    var reason: String? { first.withLock { $0.map { "TLS: \($0)" } } }

    func note(_ error: any Error) { first.withLock { if $0 == nil { $0 = TLSWords.of(error) } } }
}
