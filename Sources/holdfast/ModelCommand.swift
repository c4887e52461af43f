// Checks the serving model against measured points.

import ArgumentParser
import Foundation
import KVModel
import KVServing
import KVSettings

struct ModelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model", abstract: "Checks the serving model against measured points.",
        subcommands: [ModelCheckCommand.self])
}

struct ModelCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Predicts measured points and shows how far off the serving model is.",
        discussion: """
            POINTS is a JSON file: an object whose list "points" holds measured points of the kinds closed_loop, \
            open_loop, prefill, load and breakeven. A point whose kind, model, GPU or trace is not known, or of which \
            a value is missing or impossible, is listed as skipped with the reason. Errors are relative, without their sign; TTFT is what a client sees, with 40 ms for HTTP, \
            tokenizer and queue hand-off. For prefill, load and breakeven points the error stands in the TTFT columns. \
            Traces/README.md has every field of a point.
            """)

    @Argument(help: "The file of measured points, or - for standard input.")
    var points: String

    @Flag(help: "Print JSON: groups, points with predictions, and what was skipped.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "A YAML file of further models, GPUs and engines, or of changed constants.", valueName: "file"))
    var catalogue: String?

    @Flag(help: "End with exit code 1 if the points of reliability A miss the gate.")
    var gate = false

    func run() async throws {
        var entries = Catalogue.builtIn
        if let catalogue {
            try entries.extend(with: try NamedFile(catalogue).text(), at: catalogue)
        }
        let isPiped = points == "-"
        let file = isPiped ? NamedFile.standardInput : NamedFile(points)
        let measured = try MeasuredPoint.read(try file.bytes(), at: isPiped ? "standard input" : points)
        let check = ModelCheck(measured, catalogue: entries)
        try print(json ? check.json.formatted : check.table)
        if gate, !check.passesGate { throw ExitCode(1) }
    }
}

extension ModelCheck {
    /// The groups as a table, what was skipped, and what the gate says.
    fileprivate var table: String {
        var lines = [row("group", "kind", "rel", "points", "TTFT mean", "p90", "TPOT mean", "p90")]
        for group in groups {
            let errors = group.errors
            lines.append(
                row(
                    group.name, group.kind.rawValue, group.reliability, String(errors.count),
                    percent(errors.timeToFirstTokenMean), percent(errors.timeToFirstTokenP90),
                    percent(errors.timePerTokenMean), percent(errors.timePerTokenP90)))
        }
        lines.append("")
        for point in skipped { lines.append("skipped \(point.point.place): \(point.reason)") }
        if !skipped.isEmpty { lines.append("") }
        lines.append(verdict)
        return lines.joined(separator: "\n")
    }

    private var verdict: String {
        guard reliable.count > 0 else { return "No serving run of reliability A among the points: nothing to judge." }
        let ttft = percent(reliable.timeToFirstTokenMean)
        let tpot = percent(reliable.timePerTokenMean)
        let bounds = "gate \(percent(Self.gate.timeToFirstToken)) and \(percent(Self.gate.timePerToken))"
        let aims = "aim \(percent(Self.aim.timeToFirstToken)) and \(percent(Self.aim.timePerToken))"
        let runs = reliable.count == 1 ? "one serving run" : "\(reliable.count) serving runs"
        return "Over the \(runs) of reliability A the mean error is \(ttft) on TTFT and \(tpot) "
            + "on TPOT: \(passesGate ? "within" : "outside") the gate (\(bounds), \(aims))."
    }

    private func percent(_ share: Double?) -> String {
        guard let share else { return "–" }
        return String(format: "%.1f %%", share * 100)
    }

    private func row(_ cells: String...) -> String {
        let widths = [36, -12, -4, 7, 10, 9, 10, 9]
        return zip(cells, widths).map { cell, width in
            let padding = String(repeating: " ", count: max(0, abs(width) - cell.count))
            return width == 36 || width < 0 ? cell + padding : padding + cell
        }.joined(separator: " ")
    }
}
