// What a store tells Prometheus and probes.

import Hummingbird
import KVModel
import KVSystem
import KVTransport
import Logging

/// The text of `/metrics`.
public enum StoreMetrics {
    /// Every counter and gauge of a store and its transports, in Prometheus' text format, all with the prefix
    /// `holdfast_store_`.
    public static func text(_ store: Store) -> String {
        var text = ""
        func add(_ name: String, _ type: String, _ value: String, _ labels: String = "") {
            text += "# TYPE holdfast_store_\(name) \(type)\nholdfast_store_\(name)\(labels) \(value)\n"
        }
        let status = store.status
        for field in StoreTotals.fields {
            let isCounter = field.name.hasSuffix("_total")
            add(field.name, isCounter ? "counter" : "gauge", "\(status.totals[field.name] ?? 0)")
        }
        for gauge in status.gauges { add(gauge.name, "gauge", "\(gauge.value)") }
        add("uptime_seconds", "gauge", "\(status.uptimeSeconds)")
        let transports = store.transports.sorted { $0.key < $1.key }.compactMap { entry in
            (entry.value as? any CountingTransport).map { (entry.value.address, $0.counters) }
        }
        for field in TransportCounters.fields where !transports.isEmpty {
            let name = "transport_" + field.name
            text += "# TYPE holdfast_store_\(name) counter\n"
            for (address, counters) in transports {
                text += "holdfast_store_\(name){address=\"\(address)\"} \(counters[keyPath: field.path])\n"
            }
        }
        return text
    }
}

/// A transport that counts.
public protocol CountingTransport {
    /// What it counted since its start.
    var counters: TransportCounters { get }
}

extension TCPServer: CountingTransport {}
extension TLSServer: CountingTransport {}
extension LoopbackServer: CountingTransport {}
extension VerbsServer: CountingTransport {}

/// The HTTP side of a store: `/metrics`, `/healthz` (it runs), `/readyz` (it serves).
public func storeHTTP(_ store: Store, host: String, port: Int, logger: Logger) -> some ApplicationProtocol {
    let router = Router()
    router.get("metrics") { _, _ in
        Response(
            status: .ok, headers: [.contentType: "text/plain; version=0.0.4"],
            body: .init(byteBuffer: ByteBuffer(string: StoreMetrics.text(store))))
    }
    router.get("healthz") { _, _ in "ok\n" }
    router.get("readyz") { _, _ in
        let isReady = store.status.isReady
        return Response(
            status: isReady ? .ok : .serviceUnavailable,
            body: .init(byteBuffer: ByteBuffer(string: isReady ? "ready\n" : "not ready\n")))
    }
    return Application(
        router: router, configuration: ApplicationConfiguration(address: .hostname(host, port: port)), logger: logger)
}

extension StoreStatus {
    /// Numbers that go up and down, in the metrics' spelling.
    var gauges: [(name: String, value: Int)] {
        [
            ("objects", objects), ("capacity_bytes", capacityBytes), ("free_bytes", freeBytes),
            ("extent_bytes", extentBytes), ("drives", drives.count),
            ("drives_healthy", drives.count { $0.state == "healthy" }), ("memory_bytes", memoryBytes),
            ("memory_lent_bytes", memoryLentBytes), ("memory_copies", memoryCopies),
            ("requests_in_flight", requestsInFlight), ("requests_waiting", requestsWaiting), ("sessions", sessions),
            ("pins", pins), ("pins_dangling", danglingPins), ("scrub_passes", scrubPasses),
        ]
    }

    /// Whether it can serve: some drive takes writes, and nobody shuts it down.
    public var isReady: Bool { state != "draining" && drives.contains { $0.state == "healthy" } }
}
