// What an agent tells Prometheus. Every name is listed here or comes of a list of names; dashboards and alerts are checked
// against them.

import KVModel

/// The text of `/metrics`.
public enum AgentMetrics {
    /// Gauges of the process and its tiers, with what they mean.
    public static let gauges: [(name: String, meaning: String)] = [
        ("ready", "1 while engines may come and the last that came was served"), ("uptime_seconds", "since the start"),
        ("engines", "engines attached"), ("engine_region_bytes", "memory that engines share, all together"),
        ("open_jobs", "loads and saves under way"), ("open_requests", "requests between look-up and end"),
        ("memory_ready_bytes", "bytes of node memory whose pages are there"),
        ("memory_pinned_bytes", "bytes of it that cannot be swapped out"),
        ("tier_bytes", "bytes of a tier's slots"), ("tier_used_bytes", "of those, in use"),
        ("link_bytes_per_second", "rate of a path while busy, as last seen"),
        ("link_waiting_bytes", "bytes that wait for a path"), ("link_under_way", "pieces under way on a path"),
        ("store_usable", "1 while the shared store is reached"), ("pins", "pins in force"),
        ("transfers", "transfers under way"), ("block_bytes", "bytes of a block's slot"),
    ]

    /// What is handed over without a copy, with the prefix `holdfast_handover_`, beside the counters of `HandOverCounters`.
    public static let handOverGauges: [(name: String, meaning: String)] = [
        ("loans", "leases and reservations in force"), ("loaned_bytes", "bytes of the slots that engines hold by them"),
        ("reserved_bytes", "of those, bytes of slots that are still to be filled"),
    ]

    /// Counters of what is handed over without a copy.
    public static var handOverCounters: [String] { HandOverCounters.fields.map(\.name) }

    /// Everything, in Prometheus' text format, with the prefixes `holdfast_agent_` and `holdfast_handover_`, and by tier with
    /// `holdfast_` alone.
    public static func text(_ sidecar: AgentSidecar) -> String {
        var page = MetricsPage(prefix: "holdfast_agent_", meanings: meanings)
        let view = sidecar.view
        var status = sidecar.agent?.status ?? AgentStatus()
        status.store = status.store ?? sidecar.store
        page.add("ready", "gauge", sidecar.isReady ? 1 : 0)
        page.add("uptime_seconds", "gauge", sidecar.uptimeSeconds)
        page.add("engines", "gauge", Double(view.engines.count))
        page.add("engine_region_bytes", "gauge", Double(view.engines.reduce(0) { $0 + $1.regionBytes }))
        page.add("open_jobs", "gauge", Double(view.engines.reduce(0) { $0 + $1.jobs }))
        page.add("open_requests", "gauge", Double(view.engines.reduce(0) { $0 + $1.requests }))
        if let memory = sidecar.memory {
            page.add("memory_ready_bytes", "gauge", Double(memory.readyBytes))
            page.add("memory_pinned_bytes", "gauge", Double(memory.pinnedBytes))
        }
        addDoor(view.counters, to: &page)
        page.add("spans_exported_total", "counter", Double(sidecar.traceCounters.exported))
        page.add("spans_dropped_total", "counter", Double(sidecar.traceCounters.dropped))
        addTiers(status, to: &page)
        for (name, value) in status.totals.sorted(by: { $0.key < $1.key }) {
            page.add("decided_\(name)_total", "counter", Double(value))
        }
        return page.text + handOver(status) + tierPage(status, view)
    }

    private static func handOver(_ status: AgentStatus) -> String {
        var page = MetricsPage(prefix: "holdfast_handover_", meanings: handOverMeanings)
        page.add("loans", "gauge", Double(status.loans))
        page.add("loaned_bytes", "gauge", Double(status.loanedBytes))
        page.add("reserved_bytes", "gauge", Double(status.reservedBytes))
        for name in handOverCounters { page.add(name, "counter", Double(status.handOver[name] ?? 0)) }
        return page.text
    }

    private static func addDoor(_ counters: EngineDoorCounters, to page: inout MetricsPage) {
        let values: [(String, UInt64)] = [
            ("connections_total", counters.connections), ("attached_total", counters.attached),
            ("engines_lost_total", counters.lostEngines), ("changes_dropped_total", counters.changesDropped),
            ("regions_mapped_total", counters.regionsMapped), ("regions_unsealed_total", counters.regionsUnsealed),
            ("regions_lost_total", counters.regionsLost), ("arenas_opened_total", counters.arenasOpened),
        ]
        for (name, value) in values { page.add(name, "counter", Double(value)) }
        page.add(
            "refused_total", "counter",
            EngineRefusalCode.allCases.map { ("code=\"\($0.name)\"", Double(counters.refused[$0] ?? 0)) })
        for field in EngineCounters.fields {
            page.add(field.name, "counter", Double(counters.engines[keyPath: field.path]))
        }
        for time in EngineCounters.times { page.add(time.name, counters.engines[keyPath: time.path]) }
    }

    private static func addTiers(_ status: AgentStatus, to page: inout MetricsPage) {
        let tiers = (status.hbm.map { [("hbm", $0)] } ?? []) + [("dram", status.dram), ("nvme", status.nvme)]
        page.add("tier_bytes", "gauge", tiers.map { ("tier=\"\($0)\"", Double($1.totalBytes)) })
        page.add("tier_used_bytes", "gauge", tiers.map { ("tier=\"\($0)\"", Double($1.usedBytes)) })
        page.add(
            "hit_tokens_total", "counter",
            [
                ("engine", status.hbmHitTokens), ("dram", status.dram.hitTokens), ("nvme", status.nvme.hitTokens),
                ("flash", status.flash.hitTokens),
            ].map { ("tier=\"\($0)\"", Double($1)) })
        page.add("prompt_tokens_total", "counter", Double(status.promptTokens))
        page.add(
            "ledger_tokens_total", "counter",
            status.ledger.sorted { $0.key < $1.key }.map { ("class=\"\($0)\"", Double($1)) })
        page.add(
            "prefetch_blocks", "gauge",
            status.prefetch.sorted { $0.key < $1.key }.map { ("account=\"\($0)\"", Double($1)) })
        func path(_ name: String) -> String { "path=\"\(name.split(separator: " ").joined(separator: "_"))\"" }
        page.add("link_bytes_per_second", "gauge", status.links.map { (path($0.name), $0.bytesPerSecond) })
        page.add("link_waiting_bytes", "gauge", status.links.map { (path($0.name), Double($0.waitingBytes)) })
        page.add("link_under_way", "gauge", status.links.map { (path($0.name), Double($0.underWay)) })
        if let store = status.store { page.add("store_usable", "gauge", store.isUsable ? 1 : 0) }
        page.add("pins", "gauge", Double(status.pins))
        page.add("transfers", "gauge", Double(status.transfers))
        page.add("block_bytes", "gauge", Double(status.blockBytes))
    }
}

/// A page in Prometheus' text format.
struct MetricsPage {
    private(set) var text = ""
    private let prefix: String
    private let meanings: [String: String]

    /// - Parameters:
    ///   - prefix: Of all names.
    ///   - meanings: Of all names, without it.
    init(prefix: String, meanings: [String: String]) {
        self.prefix = prefix
        self.meanings = meanings
    }

    mutating func add(_ name: String, _ kind: String, _ value: Double) { add(name, kind, [("", value)]) }

    mutating func add(_ name: String, _ kind: String, _ values: [(labels: String, value: Double)]) {
        guard !values.isEmpty else { return }
        head(name, kind)
        for (labels, value) in values { line(name, labels, value) }
    }

    /// A histogram in seconds, its buckets summed up as Prometheus wants them.
    mutating func add(_ name: String, _ times: TimeHistogram) { add(name, [("", times)]) }

    /// Several of one name, with labels.
    mutating func add(_ name: String, _ histograms: [(labels: String, times: TimeHistogram)]) {
        head(name, "histogram")
        for (labels, times) in histograms {
            let more = labels.isEmpty ? "" : labels + ","
            var below: UInt64 = 0
            for bucket in 0..<TimeHistogram.bucketCount {
                below += times.counts[bucket]
                // Whole doublings are enough for a dashboard; `/history` has all buckets.
                let isLast = bucket == TimeHistogram.bucketCount - 1
                guard bucket % TimeHistogram.perDoubling == 0 || isLast else { continue }
                let bound = TimeHistogram.bound(bucket).map { "\($0.seconds)" } ?? "+Inf"
                line("\(name)_bucket", "\(more)le=\"\(bound)\"", Double(below))
            }
            line("\(name)_sum", labels, times.sum.seconds)
            line("\(name)_count", labels, Double(times.count))
        }
    }

    private mutating func head(_ name: String, _ kind: String) {
        if let meaning = meanings[name] { text += "# HELP \(prefix)\(name) \(meaning)\n" }
        text += "# TYPE \(prefix)\(name) \(kind)\n"
    }

    private mutating func line(_ name: String, _ labels: String, _ value: Double) {
        let number = value == value.rounded() && abs(value) < 1e15 ? "\(Int64(value))" : "\(value)"
        text += prefix + name + (labels.isEmpty ? "" : "{\(labels)}") + " \(number)\n"
    }
}
