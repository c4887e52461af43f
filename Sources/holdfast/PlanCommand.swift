// `plan`: from a trace, prices and an SLO to what to buy, or that it is not worth it.

import ArgumentParser
import Foundation
import KVModel
import KVReport
import KVSimulation

struct PlanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Says how much DRAM and flash to buy for a trace, or that it is not worth it.",
        discussion: """
            Counts what caches of each size would hit, then replays the trace on clusters of rising size for each \
            choice of DRAM, local NVMe and shared flash until one meets the SLO. Prices, SLO, model and GPU are the \
            scenario's:

              holdfast plan trace.jsonl.gz --set prices.gpuHour=2.5 --set slo.ttft=1s
            """)

    @OptionGroup var input: TraceInput

    @Flag(help: "Print the plan as one JSON object.")
    var json = false

    @OptionGroup var scenario: ScenarioOptions
    @OptionGroup var terminal: TerminalOptions

    func run() async throws {
        let read = try scenario.read()
        let replay = try ModelledReplay(
            trace: try input.read(), scenario: read, catalogue: try scenario.readCatalogue())
        let bar = ProgressBar("planning", forced: input.progress)
        let plan = try await replay.plan(threads: scenario.threadCount) { what, share in
            bar.update(share, detail: what)
        }
        bar.finish()
        try print(json ? try Self.encoded(plan) : PlanText(plan, terminal).text, terminator: "")
    }

    private static func encoded(_ plan: Plan) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(plan), as: UTF8.self) + "\n"
    }
}

/// A plan as a person reads it in a terminal.
struct PlanText {
    let plan: Plan
    let isColoured: Bool
    let columns: Int

    init(_ plan: Plan, _ terminal: TerminalOptions) {
        self.plan = plan
        isColoured = terminal.isColoured
        columns = min(100, max(60, terminal.columns))
    }

    var text: String {
        let parts = [head, reuse, choices, breakEven, given]
        return parts.joined(separator: "\n\n").replacing(thinSpace, with: " ") + "\n"
    }

    private var head: String {
        wrapped(strong(plan.verdict.sentence)) + "\n\n"
            + wrapped(
                "\(shown(plan.trace.name, width: 40)): \(counted(plan.trace.requests, "request")), "
                    + "\(Printed.tokens(plan.trace.inputTokens)) prompt tokens; \(plan.model) on \(plan.gpu), "
                    + "\(counted(plan.gpusPerReplica, "GPU")) a replica")
    }

    private var reuse: String {
        var lines = [
            strong("What is there to gain?") + "  counted",
            "an endless cache serves \(Printed.percent(plan.reuse.infinite, .table)) of prompt tokens and holds "
                + "\(Printed.bytes(plan.reuse.distinctBytes, .table))",
            "one replica's GPU memory holds \(Printed.bytes(plan.reuse.hbmBytes, .table)) and serves "
                + "\(Printed.percent(plan.reuse.hbm, .table)) (LRU, if all requests came to it)", "",
        ]
        let policies = plan.missRatioCurve.policies.keys.sorted { order($0) < order($1) }
        lines.append(pad("bytes for", 26) + policies.map { padLeft($0, 14) }.joined())
        for size in plan.sizes {
            lines.append(
                pad("\(Printed.percent(size.shareOfCeiling)) of its hits", 26)
                    + policies.map { policy in
                        padLeft(size.bytes[policy].map { Printed.bytes($0, .table).text } ?? "-", 14)
                    }.joined())
        }
        return lines.joined(separator: "\n")
    }

    private var choices: String {
        var rows = [["choice", "GPUs", "$/h", "$/M tok", "saves", "served", "TTFT p50", "p99", "in SLO"]]
        rows += plan.choices.map { choice in
            [
                choice.name, choice.gpus.map(String.init) ?? "-",
                choice.gpus == nil ? "-" : Printed.number(choice.costPerHour, .table).text,
                choice.gpus == nil ? "-" : Printed.number(choice.costPerMillionTokens, .table).text, saving(choice),
                Printed.percent(choice.served, .table).text, Printed.seconds(choice.ttftP50Seconds, .table).text,
                Printed.seconds(choice.ttftP99Seconds, .table).text, Printed.percent(choice.metSLO).text,
            ]
        }
        let widths = Self.widths(of: rows, atLeast: [32, 6, 8, 9, 8, 9, 10, 9, 8])
        var lines = [strong("What does each choice cost?") + "  modelled, at the smallest cluster that meets the SLO"]
        for row in rows {
            let cells =
                pad(row[0], widths[0]) + zip(row, widths).dropFirst().map { padLeft($0, $1) }.joined()
            lines.append(row[0] == plan.picks.best ? strong(cells) : cells)
        }
        lines.append(
            "saves: $ per million tokens less than GPU memory alone, none within 5 %; no GPUs: misses the SLO")
        return lines.joined(separator: "\n")
    }

    /// Each column as wide as its longest cell and a space. What the others need beyond `least` is taken from the first, of
    /// which the names leave some: prices of almost nothing are long.
    private static func widths(of rows: [[String]], atLeast least: [Int]) -> [Int] {
        var widths = least.indices.map { column in
            max(least[column], 1 + (rows.map { $0[column].count }.max() ?? 0))
        }
        let excess = widths.dropFirst().reduce(0, +) - least.dropFirst().reduce(0, +)
        widths[0] = max(1 + (rows.map { $0[0].count }.max() ?? 0), widths[0] - excess)
        return widths
    }

    /// What a choice saves against GPU memory alone; what the model cannot tell apart is no saving.
    private func saving(_ choice: Plan.Choice) -> String {
        guard let saved = choice.savesPerMillionTokens else { return "-" }
        let isNone = areAlike(choice.costPerMillionTokens, choice.costPerMillionTokens + saved)
        return isNone ? "none" : Printed.number(saved, .sentence).text
    }

    private var breakEven: String {
        let even = plan.breakEven
        guard even.hitTokens > 0 else { return strong("Is the link fast enough?") + "\nNothing is ever hit." }
        let verdict = even.pathBytesPerSecond > even.bytesPerSecond ? "Yes" : "No"
        return strong("Is the link fast enough?") + "  modelled\n"
            + wrapped(
                "\(verdict): a mean hit of \(Printed.tokens(Int(even.hitTokens))) tokens takes "
                    + "\(Printed.seconds(even.computeSeconds)) to compute, so loading wins above "
                    + "\(Printed.byteRate(even.bytesPerSecond)) a replica; an idle path from the store gives "
                    + "\(Printed.byteRate(even.pathBytesPerSecond)).")
    }

    private var given: String {
        strong("Prices") + "  given\n"
            + plan.prices.map { "\(pad($0.key, 26))\(padLeft(Printed.exact($0.value).text, 8)) \($0.unit)" }
            .joined(separator: "\n")
    }

    private func order(_ policy: String) -> Int { ["lru": 0, "clairvoyant": 2][policy] ?? 1 }
    private func strong(_ text: String) -> String { isColoured ? "\u{1B}[1m\(text)\u{1B}[0m" : text }
    private func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
    private func padLeft(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(1, width - text.count)) + text
    }

    /// Breaks text at spaces so that no line is longer than the terminal.
    private func wrapped(_ text: String) -> String {
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, line.count + word.count + 1 > columns {
                lines.append(line)
                line = ""
            }
            line += (line.isEmpty ? "" : " ") + word
        }
        return (lines + [line]).joined(separator: "\n")
    }
}
