// What a store tells Prometheus and probes.

import Hummingbird
import KVHTTP
import KVModel
import KVSystem
import KVTransport
import Logging

/// The text of `/metrics`.
public enum StoreMetrics {
    /// Every counter and gauge of a store, its drives, its namespaces and its transports, in Prometheus' text format, all
    /// with the prefix `holdfast_store_`.
    public static func text(_ store: Store) -> String {
        var page = MetricsPage()
        let status = store.status
        for field in StoreTotals.fields {
            let type = field.name.hasSuffix("_total") ? "counter" : "gauge"
            page.add(field.name, type, field.help, [("", "\(status.totals[field.name] ?? 0)")])
        }
        for gauge in status.gauges { page.add(gauge.name, "gauge", gauge.help, [("", "\(gauge.value)")]) }
        page.add("uptime_seconds", "gauge", "Seconds since the start", [("", "\(status.uptimeSeconds)")])
        page.add(status.drives)
        page.add(status.namespaces)
        let times = store.times
        page.add("put_seconds", "From a put's acceptance to its answer", times.put)
        page.add("get_seconds", "From a get's acceptance to the end of its payload", times.get)
        let transports = store.transports.sorted { $0.key < $1.key }.compactMap { entry in
            (entry.value as? any CountingTransport).map { (entry.value.address, $0.counters) }
        }
        for field in TransportCounters.fields where !transports.isEmpty {
            let series = transports.map { ("{address=\"\($0.0)\"}", "\($0.1[keyPath: field.path])") }
            let isCounter = field.name.hasSuffix("_total")
            let words = field.name.split(separator: "_").filter { $0 != "total" }.joined(separator: " ")
            let help = "Of a transport\(isCounter ? " since its start" : ""): \(words)"
            page.add("transport_" + field.name, isCounter ? "counter" : "gauge", help, series)
        }
        return page.text
    }
}

/// A page of metrics, each family with what it is.
private struct MetricsPage {
    private(set) var text = ""

    mutating func add(_ name: String, _ type: String, _ help: String, _ series: [(labels: String, value: String)]) {
        guard !series.isEmpty else { return }
        text += "# HELP holdfast_store_\(name) \(help)\n# TYPE holdfast_store_\(name) \(type)\n"
        for (labels, value) in series { text += "holdfast_store_\(name)\(labels) \(value)\n" }
    }

    mutating func add(_ drives: [StoreStatus.Drive]) {
        func family(_ name: String, _ help: String, _ value: (StoreStatus.Drive) -> Int) {
            add("drive_" + name, "gauge", help, drives.enumerated().map { ("{drive=\"\($0)\"}", "\(value($1))") })
        }
        family("extents", "Extents of a drive") { $0.extents }
        family("free_extents", "Extents of a drive that are free") { $0.freeExtents }
        family("healthy", "1 while a drive takes writes") { $0.state == "healthy" ? 1 : 0 }
        family("readable", "1 while a drive's blocks can be read") { $0.state == "failed" ? 0 : 1 }
        family("commands_unanswered", "Commands that a drive has not answered") { $0.commandsUnanswered }
    }

    mutating func add(_ namespaces: [StoreStatus.Namespace]) {
        func family(_ name: String, _ help: String, _ value: (StoreStatus.Namespace) -> Int) {
            add(
                "namespace_" + name, "gauge", help,
                namespaces.map { ("{namespace=\"\(escaped($0.name))\"}", "\(value($0))") })
        }
        family("objects", "Blocks of a namespace that can be found") { $0.objects }
        family("payload_bytes", "Bytes of payload of a namespace") { $0.payloadBytes }
        family("used_bytes", "Bytes of a namespace's extents that are not free") { $0.usedBytes }
        family("pinned_bytes", "Bytes of a namespace's pinned extents") { $0.pinnedBytes }
        family("quota_bytes", "What a namespace's extents may take, 0 = as the store has") { $0.policy.quotaBytes }
    }

    mutating func add(_ name: String, _ help: String, _ times: LatencyHistogram) {
        text += "# HELP holdfast_store_\(name) \(help)\n# TYPE holdfast_store_\(name) histogram\n"
        var sum = 0
        for (bucket, count) in times.counts.enumerated() {
            sum += count
            let bound = bucket < LatencyHistogram.bounds.count ? "\(LatencyHistogram.bounds[bucket].seconds)" : "+Inf"
            text += "holdfast_store_\(name)_bucket{le=\"\(bound)\"} \(sum)\n"
        }
        text += "holdfast_store_\(name)_sum \(times.sum.seconds)\nholdfast_store_\(name)_count \(sum)\n"
    }

    private func escaped(_ label: String) -> String {
        label.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
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
    let router = ServiceHTTP.router(
        metrics: { StoreMetrics.text(store) }, unreadiness: { store.status.unreadiness })
    return ServiceHTTP.application(
        router, host: host, port: port, idleSeconds: StoreConfiguration.httpIdleSeconds, logger: logger)
}

extension StoreStatus {
    /// Numbers that go up and down, in the metrics' spelling, and what they are.
    var gauges: [(name: String, help: String, value: Int)] {
        [
            ("objects", "Blocks that can be found", objects),
            ("capacity_bytes", "Bytes of extents on all drives", capacityBytes),
            ("free_bytes", "Bytes of extents that are free", freeBytes),
            ("extent_bytes", "Bytes of an extent", extentBytes), ("drives", "Drives of the store", drives.count),
            ("drives_healthy", "Drives that take writes", drives.count { $0.state == "healthy" }),
            ("memory_bytes", "Bytes of the memory tier", memoryBytes),
            ("memory_lent_bytes", "Bytes of the memory tier that requests use", memoryLentBytes),
            ("memory_copies", "Blocks with a copy in memory", memoryCopies),
            ("requests_in_flight", "Requests that hold a buffer or wait for one", requestsInFlight),
            ("requests_waiting", "Requests that wait for a buffer or for room", requestsWaiting),
            ("sessions", "Sessions open", sessions), ("namespaces", "Namespaces", namespaceCount),
            ("pins", "Pins, dangling ones included", pins),
            ("pins_dangling", "Pins whose block is not there", danglingPins),
            ("scrub_passes", "Full passes of the scrubber since the start", scrubPasses),
        ]
    }

    /// Why it cannot serve: it is being shut down, or no drive takes writes. Nil when it can.
    public var unreadiness: String? {
        if state == "draining" { return "it drains" }
        return drives.contains { $0.state == "healthy" } ? nil : "no drive takes writes"
    }
}
