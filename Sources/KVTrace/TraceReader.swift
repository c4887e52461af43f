// Reads a trace of any known format, once, from start to end, into flat arrays. One bad line is one clear error that
// names file and line; or, when asked, lines that are bad are left out and counted.

import KVModel

/// How a trace is to be read.
public struct TraceReadOptions: Sendable {
    /// The format; `nil` recognises it by the first line.
    public var format: TraceFormat?
    /// Tokens of a block where the format fixes none itself and the file uses another size than is usual.
    public var blockTokens: Int?
    /// Leaves out lines that cannot be read and counts them, instead of stopping at the first.
    public var skipsBadLines: Bool
    /// The longest line that is read; what is longer is refused in bounded memory.
    public var lineByteLimit: Int
    /// The most block references a trace may have: 4 bytes each stay in memory.
    public var referenceLimit: Int
    /// Also notes turns that are out of order, which hurt nobody but those who trust `turn`.
    var checksTurnOrder = false

    /// Options; the defaults read what a user points at.
    public init(
        format: TraceFormat? = nil, blockTokens: Int? = nil, skipsBadLines: Bool = false,
        lineByteLimit: Int = 64 << 20, referenceLimit: Int = 1 << 31
    ) {
        self.format = format
        self.blockTokens = blockTokens
        self.skipsBadLines = skipsBadLines
        self.lineByteLimit = lineByteLimit
        self.referenceLimit = referenceLimit
    }
}

extension Trace {
    /// Block sizes that can be meant.
    public static let blockTokensRange = 1...65_536
    /// The longest prompt or answer that can be meant: 16 Mi tokens, more than the longest context in use.
    public static let tokensRange = 0...(16 << 20)

    /// Reads the trace at `path`; `-` is standard input. Plain, gzip and zstd are told apart by their first bytes.
    /// `progress` is called now and then while bytes arrive.
    ///
    /// Throws an error that names the file, the line and the reason: a file that cannot be opened or decompressed,
    /// a format that is unknown, and (unless `options` skips them) the first bad line.
    public static func read(
        from path: String, options: TraceReadOptions = TraceReadOptions(),
        progress: ((TraceProgress) -> Void)? = nil
    ) throws(OperatorError) -> Trace {
        let reader = TraceReader(options: options, place: path == "-" ? "standard input" : path)
        return try reader.read(try ByteSource(path: path), name: baseName(path), progress: progress) { _, _ in }
    }

    /// Reads a trace from bytes that are in memory, compressed or not. `name` stands for the file in errors.
    public static func read(
        bytes: [UInt8], name: String, options: TraceReadOptions = TraceReadOptions()
    ) throws(OperatorError) -> Trace {
        let reader = TraceReader(options: options, place: name)
        return try reader.read(ByteSource(bytes: bytes, place: name), name: baseName(name), progress: nil) { _, _ in }
    }

    /// What a trace from `path` is called: the file name without its folder and suffixes.
    static func baseName(_ path: String) -> String {
        if path == "-" { return "stdin" }
        let file = path.split(separator: "/").last ?? "trace"
        return String(file.split(separator: ".").first ?? file)
    }
}

/// Reads one trace.
struct TraceReader {
    let options: TraceReadOptions
    let place: String

    /// Reads everything. `onProblem` hears of each bad line before it is thrown or skipped.
    func read(
        _ source: consuming ByteSource, name: String, progress: ((TraceProgress) -> Void)?,
        onProblem: (Int, LineProblem) -> Void
    ) throws(OperatorError) -> Trace {
        try outcome(of: source, name: name, progress: progress, onProblem: onProblem).get()
    }

    /// The same; that there was no request at all is a result and not thrown.
    func outcome(
        of source: consuming ByteSource, name: String, progress: ((TraceProgress) -> Void)?,
        onProblem: (Int, LineProblem) -> Void
    ) throws(OperatorError) -> Result<Trace, OperatorError> {
        if let tokens = options.blockTokens, !Trace.blockTokensRange.contains(tokens) {
            throw OperatorError("block size \(tokens) is not from 1 to \(Trace.blockTokensRange.upperBound) tokens")
        }
        var lines = LineReader(source: source, lineByteLimit: options.lineByteLimit)
        var builder = TraceBuilder(options: options, format: options.format)
        var shownBytes = 0
        var firstUnknown: String?
        reading: while true {
            var problem: LineProblem?
            switch try lines.next(stopsAtLongLine: !options.skipsBadLines) {
            case .end: break reading
            case .tooLong: problem = longLine
            case .bytes(var range):
                let line = lines.buffer.span
                if lines.lineNumber == 1 { range = withoutByteOrderMark(range, line) }
                if isBlank(range, line) { continue }
                do throws(LineProblem) {
                    if builder.format == nil { try builder.recognise(range, line) }
                    if try !builder.takeHeader(range, line) { try builder.append(range, line) }
                    if let noted = builder.takeNote() { onProblem(lines.lineNumber, noted) }
                } catch {
                    problem = error
                    if builder.format == nil, firstUnknown == nil { firstUnknown = error.what }
                }
            }
            if let problem {
                onProblem(lines.lineNumber, problem)
                if !mayBeSkipped(builder) { try lines.source.checkRest() }
                try skipOrThrow(problem, line: lines.lineNumber, builder: &builder)
            }
            if let progress, lines.source.progress.bytesRead != shownBytes {
                shownBytes = lines.source.progress.bytesRead
                progress(lines.source.progress)
            }
        }
        if builder.requests.isEmpty { return .failure(emptyError(builder, firstUnknown)) }
        return .success(builder.trace(name: name, sha256: lines.source.sha256))
    }

    private var longLine: LineProblem {
        LineProblem(
            .lineTooLong, "the line is longer than \(options.lineByteLimit) bytes",
            remedy: "a trace has one request a line")
    }

    /// A header line may not: all lines depend on it.
    private func mayBeSkipped(_ builder: TraceBuilder) -> Bool { options.skipsBadLines && !isHeader(builder) }

    private func isHeader(_ builder: TraceBuilder) -> Bool { builder.format == .holdfast && !builder.hasHeader }

    private func skipOrThrow(_ problem: LineProblem, line: Int, builder: inout TraceBuilder) throws(OperatorError) {
        if mayBeSkipped(builder) {
            builder.skippedLineCount += 1
            return
        }
        let remedy =
            !problem.remedy.isEmpty || isHeader(builder) || builder.format == nil
            ? problem.remedy : "repair the line, or pass over such lines with --skip-bad"
        throw OperatorError(problem.what, at: "\(place):\(line)", remedy: remedy)
    }

    private func emptyError(_ builder: TraceBuilder, _ firstUnknown: String?) -> OperatorError {
        if builder.skippedLineCount > 0 {
            let reason = firstUnknown.map { " (\($0))" } ?? ""
            let count = builder.skippedLineCount
            let lines = count == 1 ? "the only line is no" : "none of \(count) lines is a"
            return OperatorError("\(lines) request\(reason)", at: place)
        }
        let what = builder.format == nil ? "is empty" : "holds no request"
        return OperatorError(what, at: place, remedy: "a trace has one request a line")
    }

    private func withoutByteOrderMark(_ range: Range<Int>, _ line: Span<UInt8>) -> Range<Int> {
        guard range.count >= 3, line[range.lowerBound] == 0xEF, line[range.lowerBound + 1] == 0xBB,
            line[range.lowerBound + 2] == 0xBF
        else { return range }
        return range.dropFirst(3)
    }

    private func isBlank(_ range: Range<Int>, _ line: Span<UInt8>) -> Bool {
        for index in range where line[index] != 0x20 && line[index] != 0x09 { return false }
        return true
    }
}
