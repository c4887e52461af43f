// `trace info`: what is in a trace, as a table for people or JSON for programs.

import ArgumentParser
import Foundation
import KVModel
import KVTrace

struct TraceInfo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Says what is in a trace: lengths, sharing, and what an unlimited cache would hit.")

    @OptionGroup var input: TraceInput

    @OptionGroup var terminal: TerminalOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let trace = try input.read()
        let statistics = TraceStatistics(trace)
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try print(String(decoding: try encoder.encode(statistics), as: UTF8.self))
        } else {
            try print(TraceTable(statistics, isColoured: terminal.isColoured).text)
        }
    }
}

/// The table of `trace info`.
private struct TraceTable {
    private let isColoured: Bool
    private var lines: [String] = []

    var text: String { lines.joined(separator: "\n") }

    init(_ info: TraceStatistics, isColoured: Bool) {
        self.isColoured = isColoured
        lines.append(styled(shown(info.name, width: 60), .bold) + "  \(info.format), sha256 \(info.sha256.prefix(16))…")
        if let generator = info.generator { lines.append("made by \(shown(generator))") }
        lines.append("")
        row("requests", grouped(info.requests), over(info))
        if info.skippedLines > 0 { row("lines left out", grouped(info.skippedLines), "") }
        row("prompt tokens", scaled(Double(info.inputTokens)), distribution(info.input))
        row("answer tokens", scaled(Double(info.outputTokens)), distribution(info.output))
        if let sessions = info.sessions, let turns = info.turns {
            row("conversations", grouped(sessions), "turns: " + distribution(turns))
        }
        lines.append("")
        if let note = info.prefixNote {
            lines.append((info.uniqueBlocks == nil ? "Prefix figures are absent" : "No cache can hit") + ": \(note).")
            return
        }
        prefixRows(info)
    }

    private mutating func prefixRows(_ info: TraceStatistics) {
        guard let unique = info.uniqueBlocks, let hit = info.infiniteHitRatio, let once = info.usedOnceShare,
            let uniqueTokens = info.uniqueTokens, let hitTokens = info.infiniteHitTokens
        else { return }
        row(
            "an unlimited cache hits", percent(hit),
            "\(scaled(Double(hitTokens))) of \(scaled(Double(info.inputTokens))) prompt tokens")
        row(
            "and holds", scaled(Double(uniqueTokens)),
            "tokens in \(grouped(unique)) blocks of \(info.blockTokens ?? 0) tokens, \(grouped(info.blockReferences ?? 0)) references"
        )
        row("blocks used once", percent(once), "of all blocks: a cache gains nothing by keeping them")
        if let shared = info.sharedBlockShare, let sharedHits = info.sharedHitShare {
            row("blocks shared", percent(shared), "between conversations; they give \(percent(sharedHits)) of the hits")
        }
        if let reuse = info.reuseSeconds {
            row(
                "time to reuse", duration(reuse.p50),
                "median of the hit tokens; 10 % within \(duration(reuse.p10)), 90 % within \(duration(reuse.p90))")
        }
        guard let depths = info.depths else { return }
        lines.append("")
        lines.append(styled("place in the prompt     references      unique    hit", .faint))
        for depth in depths {
            let range =
                depth.toToken.map { "\(tokens(depth.fromToken)) to \(tokens($0))" }
                ?? "\(tokens(depth.fromToken)) and on"
            let bar = String(repeating: "▇", count: Int((depth.hitShare * 30).rounded()))
            lines.append(
                pad(range, 20) + lead(grouped(depth.blockReferences), 14) + lead(grouped(depth.uniqueBlocks), 12)
                    + lead(percent(depth.hitShare), 9) + "  " + styled(bar, .cyan))
        }
    }

    private mutating func row(_ name: String, _ value: String, _ detail: String) {
        lines.append(pad(name, 24) + lead(value, 10) + "  " + styled(detail, .faint))
    }

    private func over(_ info: TraceStatistics) -> String {
        guard info.spanSeconds > 0 else { return info.requests > 1 ? "all at the same time" : "" }
        let rate = Double(info.requests) / info.spanSeconds
        let bursts = info.burstiness.map { ", gaps vary by \(decimal($0, 1)) of their mean" } ?? ""
        return "over \(duration(info.spanSeconds)), \(decimal(rate, 2))/s" + bursts
    }

    private func distribution(_ values: TraceStatistics.Distribution) -> String {
        "mean \(short(values.mean)), p50 \(short(values.p50)), p90 \(short(values.p90)), p99 \(short(values.p99)), max \(short(values.max))"
    }

    private func short(_ value: Double) -> String {
        value < 100 ? decimal(value, value == value.rounded() ? 0 : 1) : grouped(Int(value.rounded()))
    }

    private func tokens(_ count: Int) -> String { count >= 1024 ? "\(count / 1024)k" : "\(count)" }

    private func percent(_ share: Double) -> String { decimal(share * 100, 1) + " %" }

    private func scaled(_ value: Double) -> String {
        if value >= 1e9 { return decimal(value / 1e9, 2) + " G" }
        if value >= 1e6 { return decimal(value / 1e6, 2) + " M" }
        return grouped(Int(value))
    }

    private func duration(_ seconds: Double) -> String {
        if seconds >= 7200 { return decimal(seconds / 3600, 1) + " h" }
        if seconds >= 120 { return decimal(seconds / 60, 1) + " min" }
        if seconds >= 0.1 { return decimal(seconds, seconds < 10 ? 1 : 0) + " s" }
        return seconds > 0 ? decimal(seconds * 1000, seconds < 0.01 ? 1 : 0) + " ms" : "0 s"
    }

    private func decimal(_ value: Double, _ places: Int) -> String {
        String(format: "%.\(places)f", value)
    }

    private func styled(_ text: String, _ style: Style) -> String { style.applied(to: text, isColoured) }

    private func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    private func lead(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
}
