// Checks the serving model against measured points.

import ArgumentParser
import Foundation
import KVModel
import KVServing

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
            open_loop, prefill, load and breakeven. A point whose kind, model, GPU or trace is not known is listed as \
            skipped. Errors are absolute and relative; TTFT is what a client sees, with 40 ms for HTTP, tokenizer and \
            queue hand-off. For prefill, load and breakeven points the error stands in the TTFT columns.
            """)

    @Argument(help: "The file of measured points, or - for standard input.")
    var points: String

    @Flag(help: "Print JSON: groups, points with predictions, and what was skipped.")
    var json = false

    @Option(help: "A YAML file of further models, GPUs and engines, or of changed constants.")
    var catalogue: String?

    @Flag(help: "End with exit code 1 if the points of reliability A miss the gate.")
    var gate = false

    func run() async throws {
        var entries = Catalogue.builtIn
        if let catalogue {
            let text = String(decoding: try readWhole(catalogue), as: UTF8.self)
            try entries.extend(with: text, at: catalogue)
        }
        let measured = try MeasuredPoint.read(try readWhole(points), at: points)
        let check = try ModelCheck(measured, catalogue: entries)
        print(json ? check.json.formatted : check.table)
        if gate, !check.passesGate { throw ExitCode(1) }
    }

    private func readWhole(_ path: String) throws(OperatorError) -> [UInt8] {
        var isFolder: ObjCBool = false
        if path != "-" {
            guard unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
                throw OperatorError("no such file", at: path)
            }
            guard !isFolder.boolValue else { throw OperatorError("a folder, not a file", at: path) }
        }
        do {
            if path == "-" { return Array(try FileHandle.standardInput.readToEnd() ?? Data()) }
            return Array(try Data(contentsOf: URL(filePath: path)))
        } catch {
            throw OperatorError("cannot be read: \(error.localizedDescription)", at: path)
        }
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
        return "Over the \(reliable.count) serving runs of reliability A the mean error is \(ttft) on TTFT and \(tpot) "
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
