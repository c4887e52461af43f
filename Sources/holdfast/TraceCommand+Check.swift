// `trace check` and `trace convert`.

import ArgumentParser
import Foundation
import KVModel
import KVTrace

struct TraceCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Finds everything that is wrong with a trace.",
        discussion: "Ends with exit code 1 when anything is wrong.")

    @OptionGroup var input: TraceInput

    @OptionGroup var terminal: TerminalOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let bar = ProgressBar("checking \(input.file)", forced: input.progress)
        let check = try TraceCheck.run(path: input.file, options: input.options(), progress: bar.show)
        bar.finish()
        if json { try print(Printed(check).text) } else { try show(check) }
        if !check.findings.isEmpty { throw ExitCode(1) }
    }

    private func show(_ check: TraceCheck) throws(OperatorError) {
        let good = check.trace.map { trace in
            let count = trace.requests.count
            return "\(counted(count, "request")) \(count == 1 ? "is" : "are") good (\(trace.format.rawValue))"
        }
        try print("\(shown(input.file, width: 60)): \(good ?? "no line is a request")")
        if check.findings.isEmpty {
            try print(Style.green.applied(to: "Nothing is wrong.", terminal.isColoured))
        }
        for finding in check.findings {
            let lines = finding.lines.map(String.init).joined(separator: ", ")
            let more = finding.count > finding.lines.count ? ", …" : ""
            try print(
                Style.red.applied(to: "\(finding.kind.rawValue): \(grouped(finding.count))", terminal.isColoured)
                    + "  (line\(finding.count == 1 ? "" : "s") \(lines)\(more))\n    first: \(shown(finding.example))")
        }
    }

    private struct Printed: Encodable {
        struct Finding: Encodable {
            var kind: String
            var count: Int
            /// The first of them.
            var lines: [Int]
            /// What is wrong with the first of these.
            var example: String
        }

        var format: String?
        /// Those that are good.
        var requests: Int
        var findings: [Finding]

        init(_ check: TraceCheck) {
            format = check.trace?.format.rawValue
            requests = check.trace?.requests.count ?? 0
            findings = check.findings.map {
                Finding(kind: $0.kind.rawValue, count: $0.count, lines: $0.lines, example: $0.example)
            }
        }

        var text: String {
            get throws {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
                return String(decoding: try encoder.encode(self), as: UTF8.self)
            }
        }
    }
}

struct TraceConvert: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert", abstract: "Writes a trace in another format.",
        discussion: """
            The output is compressed when its name ends in .gz or .zst. What the target format cannot hold is \
            refused and named, unless --lossy says to leave it out; the holdfast format holds everything.
            """)

    @OptionGroup var input: TraceInput

    @Option(name: .shortAndLong, help: ArgumentHelp("The file to write; - is standard output.", valueName: "file"))
    var output: String

    @Option(help: ArgumentHelp("The format to write: holdfast, mooncake or extents.", valueName: "format"))
    var to = "holdfast"

    @Flag(help: "Leave out what the format cannot hold.")
    var lossy = false

    func run() async throws {
        let format = try TraceFormat.named(to)
        guard [.holdfast, .mooncake, .extents].contains(format) else {
            throw OperatorError(
                "\(to) can be read, not written", at: "--to", remedy: "expected holdfast, mooncake or extents")
        }
        let trace = try input.read()
        let bar = ProgressBar("writing \(output)", forced: input.progress)
        try trace.write(to: output, as: format, allowsLoss: lossy) { bar.update($0) }
        bar.finish()
        if output != "-" { note("\(output): \(counted(trace.requests.count, "request")) as \(format.rawValue)") }
    }
}
