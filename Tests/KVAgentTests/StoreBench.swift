// A store of the test's own process, over TCP or RDMA, that can be stopped and started again.

import KVAgent
import KVModel
import KVStore
import KVSystem
import KVTransport

/// A store of this process.
final class StoreBench {
    let folder: Folder
    var configuration = StoreConfiguration()
    /// Of both tenants.
    let secret = [UInt8](repeating: 9, count: 32)
    private let tenants: Tenants
    private(set) var store: Store?
    private(set) var port: UInt16 = 0
    /// Its server, when it serves over RDMA alone.
    private(set) var verbs: VerbsServer?
    private let isOverVerbs: Bool

    init(folder: Folder, bytes: Int = 64 << 20, isOverVerbs: Bool = false) throws {
        self.folder = folder
        self.isOverVerbs = isOverVerbs
        tenants = Tenants(
            byName: [
                "guest": Tenant(secret: secret, isOperator: false),
                "operator": Tenant(secret: secret, isOperator: true),
            ])
        configuration.data = [folder.path("store.flash")]
        configuration.size = bytes
        configuration.extent = 64 << 10
        configuration.payloadMax = 1 << 20
        configuration.dram = 8 << 20
        configuration.scrub = 0
        try start()
    }

    deinit { stop() }

    func start() throws {
        let store = try Store(configuration, tenants: tenants, logger: quietLogger())
        self.store = store
        if isOverVerbs {
            let server = try VerbsServer(
                VerbsServerConfiguration(
                    place: VerbsPlace(device: VerbsDevice.names.last!), address: "0.0.0.0", port: port,
                    settings: .standard, limits: .standard),
                transport: 3, host: store)
            port = server.port
            verbs = server
            return store.serve(server, transport: 3)
        }
        var limits = ServerLimits.standard
        limits.payloadBytesMax = store.payloadBytesMax
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: port, laneCount: 1, socketBufferBytes: 0, limits: limits),
            transport: 1, host: store)
        port = server.port
        store.serve(server, transport: 1)
    }

    func stop() {
        store?.shutDown()
        store = nil
        verbs = nil
    }

    /// Names this store in the settings of an agent, which waits for it longer than any machine is busy and fetches nothing ahead.
    func name(in configuration: inout AgentConfiguration) {
        configuration.store = "127.0.0.1:\(port)"
        configuration.tenant = "guest"
        configuration.keys = "-"
        configuration.ask = 5
        configuration.prefetch = false
    }

    /// Has an operator give an order, in JSON.
    func order(_ verb: String, _ arguments: String) async throws {
        let client = try StoreClient(client("operator"), memory: try BlockMemory(byteCount: 4096), sink: { _ in })
        defer { client.shutDown() }
        let answer = await client.call(.administer(verb: verb, arguments: Array(arguments.utf8)), within: waitLimit)
        guard answer.status == .ok else { throw OperatorError("\(verb): \(answer)") }
    }

    private var route: StoreRoute {
        guard let verbs else { return .tcp(host: "127.0.0.1", port: port) }
        let place = VerbsPlace(device: VerbsDevice.names.first!)
        return .verbs(host: verbs.devicePort.addressText, port: port, place: place)
    }

    var access: StoreAccess { StoreAccess(client: client("guest")) }

    func client(_ tenant: String) -> StoreClientConfiguration {
        var client = StoreClientConfiguration(routes: [route], tenant: tenant, secret: secret)
        client.backoffMax = Duration(milliseconds: 100)
        client.breaker.pause = Duration(milliseconds: 20)
        client.breaker.pauseMax = Duration(milliseconds: 50)
        return client
    }
}
