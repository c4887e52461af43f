// Reads, converts, checks and makes traces.

import ArgumentParser
import KVModel
import KVTrace

struct TraceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace", abstract: "Reads, converts, checks and makes traces.",
        subcommands: [TraceInfo.self, TraceCheckCommand.self, TraceConvert.self, TraceSynth.self])
}

/// How a verb reads a trace: the options that all of them share.
struct TraceInput: ParsableArguments {
    @Argument(help: "The trace: plain, gzip or zstd; - is standard input.")
    var file: String

    @Option(help: "The format, instead of recognising it: mooncake, extents, bailian, azure or holdfast.")
    var format: String?

    @Option(help: "Tokens of a block, where the file uses another size than its format does.")
    var blockTokens: Int?

    @Flag(help: "Leave out lines that cannot be read, and count them.")
    var skipBad = false

    @Flag(help: "Show progress even where standard error is no terminal.")
    var progress = false

    /// The options for the reader.
    func options() throws -> TraceReadOptions {
        var options = TraceReadOptions(blockTokens: blockTokens, skipsBadLines: skipBad)
        options.format = try format.map(TraceFormat.named)
        return options
    }

    /// Reads the trace, with a bar while it takes long.
    func read() throws -> Trace {
        let place = file == "-" ? "standard input" : file
        let bar = ProgressBar("reading \(place)", forced: progress)
        defer { bar.finish() }
        let trace = try Trace.read(from: file, options: options(), progress: bar.show)
        if trace.skippedLineCount > 0 {
            let count = trace.skippedLineCount
            let lines = count == 1 ? "1 line that" : "\(grouped(count)) lines that"
            note("\(place): left out \(lines) cannot be read")
        }
        return trace
    }
}

extension TraceFormat {
    /// The format of that name.
    static func named(_ name: String) throws(OperatorError) -> TraceFormat {
        if let format = TraceFormat(rawValue: name) { return format }
        throw OperatorError(
            "there is no trace format “\(name)”",
            remedy: "known are \(TraceFormat.allCases.map(\.rawValue).joined(separator: ", "))")
    }
}

extension ProgressBar {
    /// Shows how much of a file has been read.
    func show(_ progress: TraceProgress) {
        let share = progress.bytesTotal.map { Double(progress.bytesRead) / Double(max($0, 1)) }
        update(share, detail: "\(progress.bytesRead / 1_000_000) MB")
    }
}

/// How a text can stand out. The numbers are the ECMA-48 codes.
enum Style: Int {
    case bold = 1
    case faint = 2
    case red = 31
    case green = 32
    case cyan = 36

    /// The text in this style, where there is colour.
    func applied(to text: String, _ isColoured: Bool) -> String {
        isColoured ? "\u{1B}[\(rawValue)m\(text)\u{1B}[0m" : text
    }
}
