// A store as suites need one: a drive on a small file, the real catalogue, TCP on a port of the kernel's choice.

import Foundation
import KVStore
import KVTransport
import Logging

/// A store in a folder of its own that can be stopped and started again.
final class StoreBench {
    let folder: URL
    var configuration = StoreConfiguration()
    var tenants = Tenants(byName: [
        "admin": Tenant(secret: Array(repeating: 7, count: 32), isOperator: true),
        "guest": Tenant(secret: Array(repeating: 9, count: 32), isOperator: false),
    ])
    private(set) var store: Store?
    private(set) var port: UInt16 = 0
    private let lanes: Int

    init(lanes: Int = 1, _ change: (inout StoreConfiguration) -> Void = { _ in }) throws {
        self.lanes = lanes
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hf-store-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        configuration.data = [folder.appendingPathComponent("a.flash").path]
        configuration.size = 32 << 20
        configuration.extent = 64 << 10
        configuration.payloadMax = 1 << 20
        configuration.dram = 8 << 20
        configuration.scrub = 0
        change(&configuration)
        try start()
    }

    deinit {
        store?.shutDown()
        try? FileManager.default.removeItem(at: folder)
    }

    func start() throws {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let store = try Store(configuration, tenants: tenants, logger: logger)
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: lanes, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: store)
        port = server.port
        store.serve(server, transport: 1)
        self.store = store
    }

    func stop() {
        store?.shutDown()
        store = nil
    }
}
