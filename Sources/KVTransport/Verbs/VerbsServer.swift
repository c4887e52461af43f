// Sessions over RDMA verbs: the store reads payloads of puts from the client's slot and writes payloads of gets to it,
// from and to its own registered memory. No byte of a payload is copied on either side, and no peer can reach the
// store's memory: neither its registration nor its queue pairs allow it.

import CKernel
import KVModel
import KVSystem
import Synchronization

/// Where and how a verbs server listens.
public struct VerbsServerConfiguration: Sendable {
    /// The device and port that carry the bytes.
    public var place: VerbsPlace
    /// The address of the control connections (TCP), IPv4 or IPv6 as text.
    public var address: String
    /// Their port; 0 lets the kernel choose one.
    public var port: UInt16
    /// How queue pairs are set up.
    public var settings: VerbsSettings
    /// Its bounds.
    public var limits: ServerLimits

    /// A configuration of its parts.
    public init(place: VerbsPlace, address: String, port: UInt16, settings: VerbsSettings, limits: ServerLimits) {
        self.place = place
        self.address = address
        self.port = port
        self.settings = settings
        self.limits = limits
    }
}

/// A server of the frame protocol over queue pairs.
public final class VerbsServer: SessionServer {
    /// The port of its control connections.
    public let port: UInt16
    /// `verbs 0.0.0.0:9461 (mlx5_0, 10.0.0.1)`.
    public let address: String
    /// The port of the device it uses.
    public let devicePort: VerbsPort
    /// What its thread waits for.
    package let completions: VerbsCompletions
    private let border: VerbsBorder
    private let thread: Mutex<EngineThread?> = Mutex(nil)

    /// Listens, and serves until `shutDown`.
    ///
    /// - Parameter transport: Its number in `SessionID`s, unique among the transports of a store.
    /// - Throws: What is missing (a device, a port, permission to pin memory) and what to do about it.
    public init(
        _ configuration: VerbsServerConfiguration, transport: UInt16, host: any SessionHost
    ) throws(OperatorError) {
        let device = try VerbsDevice(configuration.place)
        do throws(SystemError) {
            let place = "\(configuration.address):\(configuration.port)"
            let listener = try checked(
                unsafe hf_tcp_listen(configuration.address, configuration.port, 1024), "listen on \(place)")
            port = UInt16(try checked(hf_socket_port(listener), "ask for the port of \(place)"))
            address = "verbs \(configuration.address):\(port) (\(device.port.device), \(device.port.addressText))"
            devicePort = device.port
            border = try VerbsBorder(limits: configuration.limits)
            let memory = try VerbsServerPort(device, host: host, configuration)
            completions = memory.completions
            let poller = try Poller()
            let start = VerbsLaneStart(
                transport: transport, host: host, port: memory, listener: listener, poller: poller, border: border)
            let started = try EngineThread("kv-verbs-\(transport)") { start.run() }
            thread.withLock { $0 = started }
        } catch {
            throw OperatorError(
                error.description, at: "verbs on \(device.port.device)",
                remedy: "raise the limit of locked memory (ulimit -l) if memory could not be registered")
        }
    }

    /// Takes a command of the store.
    public func post(_ command: SessionCommand) -> Acceptance { border.inbox.post(command) }

    /// What it counted so far.
    public var counters: TransportCounters { border.published.withLock { $0.transport } }

    /// What its queue pairs did so far.
    public var verbsCounters: VerbsCounters { border.published.withLock { $0.verbs } }

    /// Stops accepting, ends all sessions, joins its thread.
    public func shutDown() {
        border.isStopping.store(true, ordering: .sequentiallyConsistent)
        border.inbox.signal.wake()
        let running = thread.withLock { thread -> EngineThread? in
            defer { thread = nil }
            return thread
        }
        // When the store owes answers, the thread takes them and ends by itself after the last.
        running?.join(atMost: border.stopLimit)
    }
}

/// What the server's thread and others share.
final class VerbsBorder: Sendable {
    let inbox: SessionInbox
    let isStopping = Atomic<Bool>(false)
    let published = Mutex((transport: TransportCounters(), verbs: VerbsCounters()))

    /// Draining queue pairs takes up to five seconds.
    let stopLimit: Duration

    init(limits: ServerLimits) throws(SystemError) {
        stopLimit = limits.stallLimit + Duration(seconds: 5)
        inbox = try SessionInbox(limits: limits)
    }
}

/// What all queue pairs of one server share: domain, completion queue, the registration of the store's memory. Belongs
/// to the server's thread once that runs.
@safe
final class VerbsServerPort: @unchecked Sendable {
    let device: VerbsDevice
    let completions: VerbsCompletions
    var counters = VerbsCounters()
    /// The connection of each queue pair.
    var connections: [UInt32: VerbsConnection] = [:]
    private let domain: VerbsDomain
    private let regions: [VerbsRegion]
    private let memory: BlockMemory
    private let settings: VerbsSettings
    let limits: ServerLimits
    /// Queue pairs whose every completion finds room in the queue.
    private let pairsMax: Int

    init(_ device: VerbsDevice, host: any SessionHost, _ configuration: VerbsServerConfiguration) throws(SystemError) {
        self.device = device
        settings = configuration.settings
        limits = configuration.limits
        memory = host.memory
        let entriesEach = min(settings.sendDepth, device.port.sendDepthMax) + settings.receiveCount
        let capacity = min(device.port.completionsMax, limits.sessionsMax * entriesEach)
        pairsMax = capacity / entriesEach
        completions = try VerbsCompletions(device, capacity: capacity)
        domain = try VerbsDomain(device)
        var regions: [VerbsRegion] = []
        // READs land here, so the own adapter may write; the peer may nothing.
        for index in unsafe memory.regions.indices {
            regions.append(unsafe try VerbsRegion(domain, memory.regions[index], .local, keeping: memory))
        }
        self.regions = regions
    }

    /// A queue pair with a client, over which the peer may touch nothing.
    func makeChannel(
        for connection: VerbsConnection, to client: VerbsParameters
    ) throws(SystemError) -> VerbsChannel {
        guard connections.count < pairsMax else {
            throw SystemError(number: 12, doing: "make more than \(pairsMax) queue pairs")
        }
        var random: UInt32 = 0
        _ = unsafe hf_random(&random, 4)
        let channel = try VerbsChannel(
            domain: domain, completions: completions, settings: settings, payload: regions, peerAccess: [],
            packetNumber: random, user: connection)
        // A client that cannot be reached leaves no trace here.
        try channel.connect(to: client)
        connections[channel.pair.number] = connection
        return channel
    }

    /// Keeps what a channel counted, and forgets it.
    func forget(_ channel: VerbsChannel) {
        counters.add(channel.counters)
        connections[channel.pair.number] = nil
    }

    /// A part of the store's memory, as work requests name it.
    func buffer(_ slice: MemorySlice) -> VerbsBuffer {
        VerbsBuffer(
            address: UInt64(UInt(bitPattern: unsafe memory[slice].baseAddress)), count: slice.count,
            key: regions[Int(slice.region)].localKey)
    }

    /// What all queue pairs did, living ones included.
    var allCounters: VerbsCounters {
        var sum = counters
        for connection in connections.values { if let channel = connection.channel { sum.add(channel.counters) } }
        return sum
    }
}
