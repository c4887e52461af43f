// Finds everything that is wrong with a trace in one reading, counted by kind.

import KVModel

/// What is wrong with a trace.
public struct TraceCheck: Sendable {
    /// One kind of problem.
    public struct Finding: Sendable {
        /// The kind.
        public var kind: TraceProblemKind
        /// How many lines have it.
        public var count: Int
        /// The first lines that have it, at most five.
        public var lines: [Int]
        /// What the first of them says.
        public var example: String
    }

    /// The kinds that occur, in the order they were first met.
    public var findings: [Finding] = []
    /// The trace without the bad lines; `nil` when no line could be read.
    public var trace: Trace?

    /// Lines with a problem.
    public var problemCount: Int { findings.reduce(0) { $0 + $1.count } }

    /// Reads the trace at `path` and collects its problems. Throws when there is nothing to check: the file cannot
    /// be read, or its format is unknown.
    public static func run(
        path: String, options: TraceReadOptions = TraceReadOptions(), progress: ((TraceProgress) -> Void)? = nil
    ) throws(OperatorError) -> TraceCheck {
        try run(
            try ByteSource(path: path), place: path == "-" ? "standard input" : path, name: Trace.baseName(path),
            options: options, progress: progress)
    }

    /// The same for bytes that are in memory.
    public static func run(
        bytes: [UInt8], name: String, options: TraceReadOptions = TraceReadOptions()
    ) throws(OperatorError) -> TraceCheck {
        try run(
            ByteSource(bytes: bytes, place: name), place: name, name: Trace.baseName(name), options: options,
            progress: nil)
    }

    private static func run(
        _ source: consuming ByteSource, place: String, name: String, options: TraceReadOptions,
        progress: ((TraceProgress) -> Void)?
    ) throws(OperatorError) -> TraceCheck {
        var check = TraceCheck()
        var lenient = options
        lenient.skipsBadLines = true
        lenient.checksTurnOrder = true
        let outcome = try TraceReader(options: lenient, place: place).outcome(
            of: source, name: name, progress: progress
        ) { line, problem in check.note(problem, line: line) }
        switch outcome {
        case .success(let trace): check.trace = trace
        case .failure(let error):
            // Lines were found, and none was good: that is a finding, not a failure.
            if check.findings.isEmpty || check.findings.contains(where: { $0.isUnknownFormat }) { throw error }
        }
        return check
    }

    private mutating func note(_ problem: LineProblem, line: Int) {
        if let index = findings.firstIndex(where: { $0.kind == problem.kind }) {
            findings[index].count += 1
            if findings[index].lines.count < 5 { findings[index].lines.append(line) }
        } else {
            findings.append(Finding(kind: problem.kind, count: 1, lines: [line], example: problem.what))
        }
    }
}

extension TraceCheck.Finding {
    fileprivate var isUnknownFormat: Bool { kind == .syntax && example.hasPrefix(TraceBuilder.unknownFormat) }
}
