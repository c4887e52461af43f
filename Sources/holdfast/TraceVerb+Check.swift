// `trace check` and `trace convert`.

import ArgumentParser
import KVModel
import KVTrace

struct TraceCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Finds everything that is wrong with a trace.",
        discussion: "Ends with exit code 1 when anything is wrong.")

    @OptionGroup var input: TraceInput

    @OptionGroup var terminal: TerminalOptions

    func run() async throws {
        let bar = ProgressBar("checking \(input.file)", forced: input.progress)
        let check = try TraceCheck.run(path: input.file, options: input.options(), progress: bar.show)
        bar.finish()
        let good = check.trace.map { "\(grouped($0.requests.count)) requests are good (\($0.format.rawValue))" }
        print("\(input.file): \(good ?? "no line is a request")")
        if check.findings.isEmpty {
            print(Style.green.applied(to: "Nothing is wrong.", terminal.isColoured))
            return
        }
        for finding in check.findings {
            let lines = finding.lines.map(String.init).joined(separator: ", ")
            let more = finding.count > finding.lines.count ? ", …" : ""
            print(
                Style.red.applied(to: "\(finding.kind.rawValue): \(grouped(finding.count))", terminal.isColoured)
                    + "  (lines \(lines)\(more))\n    first: \(finding.example)")
        }
        throw ExitCode(1)
    }
}

struct TraceConvert: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert", abstract: "Writes a trace in another format.",
        discussion: """
            The output is compressed when its name ends in .gz or .zst. What the target format cannot hold is refused \
            and named, unless --lossy says to leave it out; the holdfast format holds everything.
            """)

    @OptionGroup var input: TraceInput

    @Option(name: .shortAndLong, help: "The file to write; - is standard output.")
    var output: String

    @Option(help: "The format to write: holdfast, mooncake or extents.")
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
        if output != "-" { note("\(output): \(grouped(trace.requests.count)) requests as \(format.rawValue)") }
    }
}
