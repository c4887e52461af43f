// The trace that a verb reads: one argument and the options that say how to read it, the same for every verb.

import ArgumentParser
import KVTrace

/// How a verb reads a trace: the options that all of them share.
struct TraceInput: ParsableArguments {
    @Argument(help: "The trace: plain, gzip or zstd; - is standard input.")
    var file: String

    @Option(
        help: ArgumentHelp(
            "The format, instead of recognising it: mooncake, extents, bailian, azure or holdfast.", valueName: "name"))
    var format: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Tokens of a block, where the file uses another size than its format does.", valueName: "count"))
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

    /// The words of a command that read the same, in the trace's folder: neither where that is nor how the file is compressed
    /// says anything of the trace.
    var words: [String] {
        var words = [TraceCompression.contentName(fileName(file))]
        if let format { words += ["--format", format] }
        if let blockTokens { words += ["--block-tokens", "\(blockTokens)"] }
        if skipBad { words.append("--skip-bad") }
        return words
    }
}
