// A namespace that demands encryption, over every carrier that the whole store serves: what travels in clear is refused.

import Foundation
import KVModel
import KVStore
import KVSystem
import KVTransport
import Logging
import Testing

@Suite(.serialized) struct EncryptionRuleTests {
    private static let secret = [UInt8](repeating: 7, count: 32)

    /// A store on a file of its own, with one namespace that demands encryption and one that does not.
    private func withStore(_ body: (Store) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hf-store-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        var configuration = StoreConfiguration()
        configuration.data = [folder.appendingPathComponent("a.flash").path]
        configuration.size = 32 << 20
        configuration.extent = 64 << 10
        configuration.payloadMax = 1 << 20
        configuration.dram = 8 << 20
        configuration.scrub = 0
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let tenants = Tenants(byName: ["admin": Tenant(secret: Self.secret, isOperator: true)])
        let store = try Store(configuration, tenants: tenants, logger: logger)
        defer { store.shutDown() }
        let loopback = try LoopbackServer(limits: .standard, transport: 5, host: store)
        store.serve(loopback, transport: 5)
        // In the store's own process nothing travels.
        try await over(.loopback(loopback)) { ask in
            var policy = NamespacePolicy()
            policy.requiresEncryption = true
            let order = try JSONEncoder().encode(OrderArguments(namespace: "secret", policy: PolicyChange(policy)))
            #expect(await ask(.administer(verb: "namespace-set", arguments: Array(order))).status == .ok)
            #expect(await ask(.openNamespace(name: "secret")).status == .ok)
        }
        try await body(store)
    }

    /// Asks over one way.
    private func over(
        _ route: StoreRoute, _ body: (_ ask: (Request) async -> Response) async throws -> Void
    ) async throws {
        let memory = try BlockMemory(byteCount: 1 << 20)
        let client = try StoreClient(
            StoreClientConfiguration(routes: [route], tenant: "admin", secret: Self.secret), memory: memory,
            sink: { _ in })
        defer { client.shutDown() }
        try await body { await client.call($0, within: KVModel.Duration(seconds: 30)) }
    }

    private func isRefused(_ ask: (Request) async -> Response) async {
        let response = await ask(.openNamespace(name: "secret"))
        #expect(response.status == .forbidden)
        guard case .text(let why) = response.body else {
            Issue.record("no reason is given")
            return
        }
        #expect(String(decoding: why, as: UTF8.self) == "the namespace demands encryption: use TLS")
        #expect(await ask(.openNamespace(name: "open")).status == .ok)
    }

    @Test func overTCPItIsRefused() async throws {
        try await withStore { store in
            let server = try TCPServer(
                TCPServerConfiguration(
                    address: "127.0.0.1", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
                transport: 1, host: store)
            store.serve(server, transport: 1)
            try await over(.tcp(host: "127.0.0.1", port: server.port)) { await isRefused($0) }
        }
    }

    /// RDMA payload is not encrypted, whatever the network below does.
    @Test(.enabled(if: !VerbsDevice.names.isEmpty, "no RDMA device here; Tools/test-verbs runs this in the lab"))
    func overVerbsItIsRefused() async throws {
        try await withStore { store in
            let place = VerbsPlace(device: VerbsDevice.names.last!)
            let server = try VerbsServer(
                VerbsServerConfiguration(
                    place: place, address: "0.0.0.0", port: 0, settings: .standard, limits: .standard),
                transport: 3, host: store)
            store.serve(server, transport: 3)
            let route = StoreRoute.verbs(
                host: server.devicePort.addressText, port: server.port,
                place: VerbsPlace(device: VerbsDevice.names.first!))
            try await over(route) { await isRefused($0) }
        }
    }
}
