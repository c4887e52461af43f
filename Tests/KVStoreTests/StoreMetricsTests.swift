// What a store tells Prometheus: every family with its help and type, drives and namespaces by name, times as histograms.

import Foundation
import KVModel
import KVStore
import KVTransport
import Logging
import Testing

@Suite struct StoreMetricsTests {
    /// A store of two drives in a folder of its own, which goes with it.
    private func withStore(_ body: (Store, Logger) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hf-store-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        var configuration = StoreConfiguration()
        configuration.data = ["a", "b"].map { folder.appendingPathComponent($0).path }
        configuration.size = 32 << 20
        configuration.extent = 64 << 10
        configuration.payloadMax = 1 << 20
        configuration.dram = 8 << 20
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let tenants = Tenants(byName: ["a": Tenant(secret: Array(repeating: 7, count: 32), isOperator: true)])
        let store = try Store(configuration, tenants: tenants, logger: logger)
        defer { store.shutDown() }
        try body(store, logger)
    }

    @Test func everyFamilySaysWhatItIsAndEverySeriesBelongsToOne() throws {
        try withStore { store, _ in try checkFamilies(of: store) }
    }

    /// Nobody proves who he is over HTTP: its connections are few, whoever opens them.
    @Test func onlySoManyConnectionsOfHTTPAreTaken() throws {
        try withStore { store, logger in
            let http = storeHTTP(store, host: "127.0.0.1", port: 0, logger: logger)
            var connections = try #require(http.configuration.availableConnectionsDelegate)
            for _ in 0..<64 {
                #expect(connections.isAcceptingNewConnections())
                connections.connectionOpened()
            }
            #expect(!connections.isAcceptingNewConnections())
            connections.connectionClosed()
            #expect(connections.isAcceptingNewConnections())
            #expect(store.configuration.openFilesWanted >= store.configuration.sessions + 64 + 64)
        }
    }

    private func checkFamilies(of store: Store) throws {
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: store)
        store.serve(server, transport: 1)
        let lines = StoreMetrics.text(store).split(separator: "\n").map(String.init)
        var helped: Set<String> = []
        var typed: Set<String> = []
        for line in lines {
            let words = line.split(separator: " ", maxSplits: 3).map(String.init)
            switch words[1] {
            case "HELP": #expect(helped.insert(words[2]).inserted && words.count == 4, "\(line)")
            case "TYPE":
                #expect((words[3] == "counter") == words[2].hasSuffix("_total"), "\(line)")
                #expect(typed.insert(words[2]).inserted && helped.contains(words[2]), "\(line)")
            default:
                let name = String(words[0].prefix { $0 != "{" })
                let ending = ["_bucket", "_sum", "_count"].first { name.hasSuffix($0) } ?? ""
                let family = String(name.dropLast(ending.count))
                #expect(typed.contains(name) || typed.contains(family), "\(line)")
            }
        }
        #expect(helped == typed)
        #expect(lines.contains(#"holdfast_store_drive_healthy{drive="1"} 1"#))
        #expect(lines.contains("holdfast_store_put_seconds_count 0"))
        let label = "{address=\"\(server.address)\"}"
        #expect(lines.contains("holdfast_store_transport_authentication_failures_total\(label) 0"))
        #expect(lines.contains("# TYPE holdfast_store_transport_connections_open gauge"))
    }

    @Test func timesFallIntoTheBucketThatTheirBoundSays() {
        var times = LatencyHistogram()
        let bounds = LatencyHistogram.bounds
        times.add(.zero)
        times.add(bounds[0])
        times.add(bounds[0] + Duration(nanoseconds: 1))
        times.add(bounds[17])
        times.add(bounds[17] + Duration(nanoseconds: 1))
        times.add(Duration(seconds: 1000))
        #expect(times.counts[0] == 2 && times.counts[1] == 1 && times.counts[17] == 1 && times.counts[18] == 2)
        #expect(times.counts.reduce(0, +) == 6)
    }
}
