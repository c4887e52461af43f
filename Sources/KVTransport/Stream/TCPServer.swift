// Sessions over TCP: raw sockets on a few threads of their own, payloads straight from and to the store's memory.

import CKernel
import KVModel
import KVSystem

/// Where and how a TCP server listens.
public struct TCPServerConfiguration: Sendable {
    /// An IPv4 or IPv6 address as text; `0.0.0.0` and `::` mean all.
    public var address: String
    /// The port; 0 lets the kernel choose one.
    public var port: UInt16
    /// Threads that serve connections.
    public var laneCount: Int
    /// Bytes of each socket's kernel buffers; 0 leaves them to the kernel, which fits them to the connection.
    public var socketBufferBytes: Int
    /// Its bounds.
    public var limits: ServerLimits

    /// A configuration of its parts.
    public init(address: String, port: UInt16, laneCount: Int, socketBufferBytes: Int, limits: ServerLimits) {
        self.address = address
        self.port = port
        self.laneCount = laneCount
        self.socketBufferBytes = socketBufferBytes
        self.limits = limits
    }
}

/// A server of the frame protocol over TCP.
public final class TCPServer: SessionServer {
    /// The port it listens on.
    public let port: UInt16
    /// `tcp 0.0.0.0:9460`.
    public let address: String
    private let lanes: StreamLanes

    /// Listens, and serves until `shutDown`.
    ///
    /// - Parameter transport: Its number in `SessionID`s, unique among the transports of a store.
    public init(
        _ configuration: TCPServerConfiguration, transport: UInt16, host: any SessionHost
    ) throws(SystemError) {
        let place = "\(configuration.address):\(configuration.port)"
        let listener = unsafe try checked(
            hf_tcp_listen(configuration.address, configuration.port, 1024), "listen on \(place)")
        port = UInt16(try checked(hf_socket_port(listener), "ask for the port of \(place)"))
        address = "tcp \(configuration.address):\(port)"
        lanes = try StreamLanes(
            count: configuration.laneCount, transport: transport, host: host, limits: configuration.limits)
        let lanes = lanes
        let timeout = UInt32(clamping: configuration.limits.stallLimit.nanoseconds / 1_000_000)
        let bufferBytes = UInt32(clamping: configuration.socketBufferBytes)
        try lanes.start(listener: listener) { socket in
            hf_tcp_configure(socket.descriptor, timeout, bufferBytes)
            lanes.adopt(socket)
        }
    }

    /// Takes a command of the store.
    public func post(_ command: SessionCommand) -> Acceptance { lanes.post(command) }

    /// What it counted so far.
    public var counters: TransportCounters { lanes.counters }

    /// Stops accepting, ends all sessions, joins its threads.
    public func shutDown() { lanes.stop() }
}

/// The lanes of one server, and the way of a session to its lane.
package final class StreamLanes: Sendable {
    private let lanes: [StreamLane]
    private let turn = SharedCount()
    /// Connections of all lanes.
    package let connectionCount = SharedCount()
    /// Connections that broke before they came to a lane.
    package let brokenCount = SharedCount()

    /// Lanes that do not run yet.
    package init(
        count: Int, transport: UInt16, host: any SessionHost, limits: ServerLimits
    ) throws(SystemError) {
        precondition(count > 0, "a server without lanes")
        var lanes: [StreamLane] = []
        let failedTries = FailedTries(limits: limits)
        for index in 0..<count {
            lanes.append(
                try StreamLane(
                    index: index, of: count, transport: transport, host: host, limits: limits,
                    connectionCount: connectionCount, failedTries: failedTries))
        }
        self.lanes = lanes
    }

    /// Starts the threads; the first polls the listener, too.
    package func start(
        listener: Int32? = nil, distribute: @escaping @Sendable (AcceptedSocket) -> Void = { _ in }
    ) throws(SystemError) {
        for lane in lanes {
            try lane.start(listener: lane.index == 0 ? listener : nil, distribute: distribute)
        }
    }

    /// Gives a connected socket, counted in `connectionCount`, to the next lane in turn.
    package func adopt(_ socket: AcceptedSocket) {
        if lanes[turn.next() % lanes.count].sockets.post(socket) == .full {
            connectionCount.decrement()
            hf_close(socket.descriptor)
        }
    }

    /// Takes a command of the store to the lane of its session.
    package func post(_ command: SessionCommand) -> Acceptance {
        lanes[Int(command.session.number) % lanes.count].post(command)
    }

    /// What all lanes counted.
    package var counters: TransportCounters {
        var sum = TransportCounters()
        for lane in lanes { sum += lane.published.withLock { $0 } }
        sum.connectionsBroken += UInt64(brokenCount.value)
        return sum
    }

    /// Ends all connections and joins the threads.
    package func stop() { for lane in lanes { lane.stop() } }
}
