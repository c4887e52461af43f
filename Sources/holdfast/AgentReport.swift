// `report --agent`: what a running agent did in its last hours. Each figure says where it comes from: counted or measured by the
// agent, told by its engines, read from the engine's own page or from the GPU's library. What nobody told is left out, and said.

import Foundation
import KVAgent
import KVModel
import KVTiering

/// An agent's record of itself, as figures with their sources; text, JSON and page are made of them.
struct AgentReport {
    /// One line of the report.
    struct Figure: Encodable {
        /// What it is, like `p99`.
        var name: String
        /// The number, in its unit.
        var value: Double
        /// `tokens`, `s`, `B`, `blocks`, `share`, `requests`, `W`, `objects`.
        var unit: String
        /// Its share of the section's whole, 0 to 1.
        var share: Double?
        /// Where it comes from.
        var source: String
    }

    /// Figures that belong together.
    struct Section: Encodable {
        var title: String
        var figures: [Figure]
    }

    /// Whose record it is: `agent` and `socket`.
    let status: SidecarStatus
    let record: AgentRecord
    /// What the figures are of.
    let sections: [Section]
    /// What is not among them, and why: a sentence each.
    let missing: [String]

    init(status: SidecarStatus, record: AgentRecord) {
        (self.status, self.record) = (status, record)
        let figures = AgentFigures(status: status, record: record)
        (sections, missing) = (figures.sections, figures.missing)
    }

    /// The span in words.
    var span: String {
        let words = "the last \(Self.text(seconds: record.spanSeconds))"
        guard record.askedSeconds > record.spanSeconds + 60 else { return words }
        let why = record.spanSeconds + 60 > record.uptimeSeconds ? "it started then" : "no more is remembered"
        return words + " (\(Self.text(seconds: record.askedSeconds)) were asked for; \(why))"
    }

    static func text(seconds: Double) -> String {
        let whole = Int(seconds.rounded())
        if whole < 120 { return "\(whole) s" }
        if whole < 7200 { return "\(whole / 60) min" }
        return "\(whole / 3600) h \(whole % 3600 / 60) min"
    }

    /// A figure's number with its unit.
    static func text(_ figure: Figure) -> String {
        let value = figure.value
        let words =
            switch figure.unit {
            case "s":
                value < 1e-3
                    ? format("%.0f µs", value * 1e6)
                    : value < 1
                        ? format("%.1f ms", value * 1e3)
                        : format("%.2f s", value)
            case "B": ByteSize.text(Int(value))
            case "share": format("%.1f %%", value * 100)
            default: (value == value.rounded() ? "\(Int(value))" : format("%.2f", value)) + " " + figure.unit
            }
        return figure.share.map { words + format(" (%.1f %%)", $0 * 100) } ?? words
    }

    private static func format(_ pattern: String, _ value: Double) -> String { String(format: pattern, value) }

    /// For a terminal.
    var text: String {
        var lines = ["Agent at \(status.socket), \(status.state), \(status.engines.count) engines: \(span)"]
        for section in sections {
            lines += ["", section.title]
            for figure in section.figures {
                lines.append(
                    ("  " + figure.name).padding(toLength: 38, withPad: " ", startingAt: 0)
                        + Self.text(figure).padding(toLength: 28, withPad: " ", startingAt: 0) + figure.source)
            }
        }
        if !missing.isEmpty { lines += ["", "left out"] + missing.map { "  " + $0 } }
        return lines.joined(separator: "\n")
    }

    private struct JSON: Encodable {
        var socket: String
        var state: String
        var engines: Int
        var uptimeSeconds: Double
        var askedSeconds: Double
        var spanSeconds: Double
        var sections: [Section]
        var missing: [String]
        var minutes: [AgentRecord.Minute]
    }

    /// For programs: the same figures, and each minute.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        let shape = JSON(
            socket: status.socket, state: status.state, engines: status.engines.count,
            uptimeSeconds: record.uptimeSeconds, askedSeconds: record.askedSeconds, spanSeconds: record.spanSeconds,
            sections: sections, missing: missing, minutes: record.minutes)
        return String(decoding: try encoder.encode(shape), as: UTF8.self)
    }
}

/// Makes the figures of a record.
private struct AgentFigures {
    private(set) var sections: [AgentReport.Section] = []
    private(set) var missing: [String] = []
    private let record: AgentRecord

    init(status: SidecarStatus, record: AgentRecord) {
        self.record = record
        if record.blockBytes == 0 { missing.append("tokens and tiers: no engine has come yet") }
        tokens(hasDeviceSlots: status.agent?.hbm != nil)
        firstToken()
        waits()
        prefetch()
        utilization()
        moved()
    }

    private mutating func add(_ title: String, _ figures: [AgentReport.Figure]) {
        if !figures.isEmpty { sections.append(.init(title: title, figures: figures)) }
    }

    private func figure(
        _ name: String, _ value: Double, _ unit: String, _ source: String, share: Double? = nil
    ) -> AgentReport.Figure {
        .init(name: name, value: value, unit: unit, share: share, source: source)
    }

    private static let tiers: [TokenClass] = [.hbm, .dram, .nvme, .flash]

    private mutating func tokens(hasDeviceSlots: Bool) {
        let prompt = Double(record["prompt_tokens"])
        guard prompt > 0 else {
            if record.blockBytes > 0 { missing.append("tokens: no request came in this time") }
            return
        }
        func part(_ name: String, _ tokenClass: TokenClass) -> AgentReport.Figure {
            let tokens = Double(record["ledger_\(tokenClass)"])
            return figure(name, tokens, "tokens", "counted", share: tokens / prompt)
        }
        var sources = [figure("prompt tokens", prompt, "tokens", "counted")]
        let names = [hasDeviceSlots ? "HBM slots" : "the engine itself", "node memory", "local flash", "the store"]
        sources += zip(names, Self.tiers).map { part("from \($0)", $1) }
        let served = Self.tiers.reduce(0) { $0 + Double(record["ledger_\($1)"]) }
        sources.append(figure("computed", prompt - served, "tokens", "counted", share: (prompt - served) / prompt))
        add("Where prompt tokens came from", sources)
        let causes = TokenClass.allCases.filter { !Self.tiers.contains($0) }
            .map { part(Self.words(of: $0), $0) }.filter { $0.value > 0 }.sorted { $0.value > $1.value }
        let all = TokenClass.allCases.reduce(0) { $0 + Double(record["ledger_\($1)"]) }
        add(
            "Why tokens were computed",
            causes + [
                figure(
                    "all classes together", all, "tokens", all == prompt ? "adds up" : "DOES NOT ADD UP",
                    share: all / prompt)
            ])
    }

    /// `recomputeCheaper` as `recompute cheaper`.
    private static func words(of tokenClass: TokenClass) -> String {
        "\(tokenClass)".reduce("") { $0 + ($1.isUppercase ? " " + $1.lowercased() : String($1)) }
    }

    private mutating func firstToken() {
        var figures: [AgentReport.Figure] = []
        func add(_ times: AgentRecord.Times, _ source: String) {
            for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
                if let seconds = times.quantile(share) {
                    figures.append(figure("\(name), at most", seconds, "s", source))
                } else {
                    missing.append("time to first token, \(name), \(source): longer than the last bucket's end")
                }
            }
            if let mean = times.meanSeconds { figures.append(figure("mean", mean, "s", source)) }
            figures.append(figure("requests", Double(times.count), "requests", source))
        }
        let told = record.times["first_token"]
        if let told, told.count > 0 { add(told, "told by engines") }
        if let page = record.engineFirstToken, page.count > 0 { add(page, "engine's /metrics") }
        if figures.isEmpty {
            let page = record.engineReason.isEmpty ? "and its page counts no request" : "and \(record.engineReason)"
            missing.append("time to first token: no engine told one in this time, \(page)")
        }
        self.add("Time to first token", figures)
    }

    private mutating func waits() {
        var figures: [AgentReport.Figure] = []
        for name in ["lookup", "load", "save"] {
            guard let times = record.times[name], times.count > 0 else { continue }
            for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
                guard let seconds = times.quantile(share) else { continue }
                figures.append(figure("\(name) \(word), at most", seconds, "s", "measured at the door"))
            }
        }
        add("What engines waited for", figures)
    }

    private mutating func prefetch() {
        func sum(_ account: String) -> Double {
            PrefetchReason.allCases.reduce(0) { $0 + Double(record["prefetch_\($1.name)_\(account)"]) }
        }
        let (started, used, late) = (sum("started"), sum("used"), sum("late"))
        let wasted = sum("never_used") + sum("cancelled") + sum("failed")
        let missed = Double(record["prefetch_missed"])
        guard started + used + late + wasted > 0 else {
            return missing.append("prefetch: nothing was brought up beforehand in this time")
        }
        let bytes = Double(record.blockBytes)
        var figures = [
            figure("brought up", started, "blocks", "counted"), figure("used in time", used, "blocks", "counted"),
            figure("used late", late, "blocks", "counted"), figure("wasted", wasted, "blocks", "counted"),
            figure("wasted bytes", wasted * bytes, "B", "counted"),
            figure("hits displaced", Double(record["prefetch_displaced"]), "blocks", "counted"),
        ]
        // Of those whose end is known: what is still held may yet be used.
        if used + late + wasted > 0 {
            figures.append(figure("precision", (used + late) / (used + late + wasted), "share", "counted"))
        }
        if used + late + missed > 0 {
            figures.append(figure("recall", (used + late) / (used + late + missed), "share", "counted"))
        }
        add("What prefetching came to", figures)
    }

    private mutating func utilization() {
        var figures: [AgentReport.Figure] = []
        let looks = Double(record["gpu_looks"])
        if looks > 0 {
            let source = "NVML, \(record.gpuNames.count) × \(record.gpuNames.first ?? "GPU"), every second"
            figures.append(figure("GPU busy", Double(record["gpu_busy"]) / looks / 1000, "share", source))
            figures.append(figure("its memory busy", Double(record["gpu_memory_busy"]) / looks / 1000, "share", source))
            let watts = Double(record["gpu_milliwatts"]) / looks / 1000
            if watts > 0 { figures.append(figure("power", watts, "W", source)) }
        } else {
            missing.append("GPU use: \(record.gpuReason.isEmpty ? "the GPUs did not say" : record.gpuReason)")
        }
        let pages = Double(record["engine_pages"])
        if pages > 0 {
            let source = "engine's /metrics, every 5 s"
            for (name, count, unit) in [
                ("running", "engine_running", "requests"), ("waiting", "engine_waiting", "requests"),
                ("engine's KV cache in use", "engine_cache_use", "share"),
            ] {
                figures.append(figure(name, Double(record[count]) / pages / 1000, unit, source))
            }
            let failures = record["engine_failures"]
            if failures > 0 {
                missing.append("\(failures) of \(failures + record["engine_pages"]) looks at the engine's page failed")
            }
        } else {
            missing.append("requests running and waiting: \(record.engineReason)")
        }
        add("Utilization", figures)
    }

    private mutating func moved() {
        let names = [
            ("into engines", "bytes_loaded_total"), ("out of engines", "bytes_saved_total"),
            ("from local flash", "bytes_flash_read"), ("to local flash", "bytes_flash_write"),
            ("from the store", "bytes_store_get"), ("to the store", "bytes_store_put"),
        ]
        var figures = names.map { figure($0.0, Double(record[$0.1]), "B", "counted") }.filter { $0.value > 0 }
        for (name, count) in [
            ("evicted from node memory", "dram_evictions"), ("evicted from local flash", "nvme_evictions"),
            ("damaged, and not served", "blocks_corrupt"),
        ] where record[count] > 0 {
            figures.append(figure(name, Double(record[count]), "blocks", "counted"))
        }
        add("What moved", figures)
    }
}
