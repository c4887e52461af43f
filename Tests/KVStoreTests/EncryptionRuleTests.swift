// A namespace that demands encryption, over every carrier that the whole store serves: what travels in clear is refused.

import Foundation
import KVModel
import KVStore
import KVSystem
import KVTransport
import Testing

@Suite(.serialized) struct EncryptionRuleTests {
    /// A store with one namespace that demands encryption and one that does not.
    private func withStore(_ body: (StoreBench) async throws -> Void) async throws {
        let bench = try StoreBench()
        let store = try #require(bench.store)
        let loopback = try LoopbackServer(limits: .standard, transport: 5, host: store)
        store.serve(loopback, transport: 5)
        // In the store's own process nothing travels.
        try await over(.loopback(loopback), bench) { ask in
            var policy = NamespacePolicy()
            policy.requiresEncryption = true
            let order = try JSONEncoder().encode(OrderArguments(namespace: "secret", policy: PolicyChange(policy)))
            #expect(await ask(.administer(verb: "namespace-set", arguments: Array(order))).status == .ok)
            #expect(await ask(.openNamespace(name: "secret")).status == .ok)
        }
        try await body(bench)
    }

    /// Asks over one way.
    private func over(
        _ route: StoreRoute, _ bench: StoreBench, _ body: (_ ask: (Request) async -> Response) async throws -> Void
    ) async throws {
        let memory = try BlockMemory(byteCount: 1 << 20)
        let secret = try #require(bench.tenants.byName["admin"]).secret
        let client = try StoreClient(
            StoreClientConfiguration(routes: [route], tenant: "admin", secret: secret), memory: memory,
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
        try await withStore { bench in
            try await over(.tcp(host: "127.0.0.1", port: bench.port), bench) { await isRefused($0) }
        }
    }

    /// RDMA payload is not encrypted, whatever the network below does.
    @Test(.enabled(if: !VerbsDevice.names.isEmpty, "no RDMA device here; Tools/test-verbs runs this in the lab"))
    func overVerbsItIsRefused() async throws {
        try await withStore { bench in
            let store = try #require(bench.store)
            let place = VerbsPlace(device: VerbsDevice.names.last!)
            let server = try VerbsServer(
                VerbsServerConfiguration(
                    place: place, address: "0.0.0.0", port: 0, settings: .standard, limits: .standard),
                transport: 3, host: store)
            store.serve(server, transport: 3)
            let route = StoreRoute.verbs(
                host: server.devicePort.addressText, port: server.port,
                place: VerbsPlace(device: VerbsDevice.names.first!))
            try await over(route, bench) { await isRefused($0) }
        }
    }
}
