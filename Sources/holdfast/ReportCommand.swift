// Shows what replays found: terminal, JSON or one HTML page.

import ArgumentParser
import KVModel
import KVReport
import KVSettings

struct ReportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Shows what replays found: terminal, JSON or one HTML page.",
        discussion: """
            A record is what `holdfast replay -o FILE` leaves behind. Several records are compared with the first. \
            Gains are stated against a baseline that needs nothing bought (C: HBM + DRAM), never against no cache.

            `--agent` shows what a running agent did in its last hours in place of records: where prompt tokens came \
            from, time to first token, prefetching, GPU use.

              holdfast report --agent 127.0.0.1:9471 --last 2h --html agent.html
            """)

    @Argument(
        help: ArgumentHelp("Records to show, at most four on a page; - is standard input.", valueName: "record"),
        completion: .file())
    var records: [String] = []

    @Option(help: ArgumentHelp("A running agent's address (its `http`) in place of records.", valueName: "address"))
    var agent: String?

    @Option(
        help: ArgumentHelp(
            "Of an agent: how far back, like 2h, 90m or 30s; six hours are remembered.", valueName: "time"))
    var last: String?

    @Flag(help: "Print the report as one JSON object.")
    var json = false

    @Option(
        help: ArgumentHelp("Write one self-contained page.", valueName: "file"), completion: .file(extensions: ["html"])
    )
    var html: String?

    @Option(help: ArgumentHelp("The baseline that gains are stated against: B to E.", valueName: "key"))
    var against: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Show one question in full; may be repeated.", valueName: "n"))
    var section: [Int] = []

    @Flag(help: "Show every question in full.")
    var all = false

    @OptionGroup var terminal: TerminalOptions

    func validate() throws {
        guard records.isEmpty != (agent == nil) else {
            throw ValidationError(
                agent == nil ? "Missing expected argument '<record> ...'" : "--agent takes no records.")
        }
        guard agent != nil || last == nil else { throw ValidationError("--last goes with --agent.") }
        guard agent == nil || (section.isEmpty && !all && against == nil) else {
            throw ValidationError("--section, --all and --against are of records: an agent's report is shown whole.")
        }
        if let wrong = section.first(where: { !(1...9).contains($0) }) {
            throw ValidationError("--section \(wrong): the questions are 1 to 9.")
        }
    }

    func run() async throws {
        if let agent {
            let seconds = try last.map { (text) throws(OperatorError) in try Self.seconds(text) } ?? 21_600
            let question = AgentQuestion(address: agent, limit: 10)
            let report = AgentReport(status: try question.status(), record: try question.record(ofLast: seconds))
            if let html { try NamedFile(html).write(Array(report.page.utf8)) }
            if json {
                try print(try report.json())
            } else if html == nil {
                try print(report.text)
            }
            return
        }
        var read: [Record] = []
        for path in records {
            let isStandardInput = path == "-"
            let file = isStandardInput ? NamedFile.standardInput : NamedFile(path)
            let bytes = try file.bytes(remedy: "`holdfast replay FILE -o \(path)` makes a record")
            read.append(try Record(decoding: bytes, at: isStandardInput ? "standard input" : path))
        }
        let comparison = try Comparison(read, against: against, files: records)
        if let html {
            guard read.count <= 4 else {
                throw OperatorError(
                    "\(read.count) records do not fit on a page", at: "--html",
                    remedy: "give at most four, or use --json")
            }
            try NamedFile(html).write(Array(comparison.page.utf8))
        }
        if json {
            try print(comparison.jsonReport, terminator: "")
        } else if html == nil {
            let choice: SectionChoice = all ? .all : section.isEmpty ? .standard : .only(Set(section))
            try print(
                comparison.terminalReport(
                    width: terminal.columns, colour: terminal.isColoured, sections: choice,
                    file: records.joined(separator: " ")), terminator: "")
        }
    }

    /// Seconds of a time like `2h`, `90m` or `30s`.
    static func seconds(_ text: String) throws(OperatorError) -> Double {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600]
        guard let unit = text.last.flatMap({ units[$0] }), let number = Double(text.dropLast()), number > 0,
            number * unit <= 604_800
        else { throw OperatorError("`\(text)` is no time like 2h, 90m or 30s", at: "--last") }
        return number * unit
    }

}
