// `trace synth`: makes a trace from kinds of traffic and a seed.

import ArgumentParser
import KVModel
import KVTrace

struct TraceSynth: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "synth", abstract: "Makes a trace: chat, agent, rag, templates, or a mix.",
        discussion: """
            Sessions start at random; KIND=WEIGHT shares them out. A chat or agent session makes many requests, a \
            rag or templates session one. The same options give the same trace on every machine. --parameters lists \
            what --set can change, with the source of each default.

              holdfast trace synth chat=6 agent=1 rag=3 --sessions 2000 -o mix.jsonl.gz
            """)

    @Argument(help: "Kinds of traffic: chat, agent, rag, templates, each with =WEIGHT if there are several.")
    var kinds: [String] = []

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("The file to write, .gz and .zst compress; - is standard output.", valueName: "file"))
    var output: String?

    @Option(parsing: .unconditional, help: ArgumentHelp("Decides every draw.", valueName: "number"))
    var seed: UInt64 = 1

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Sessions that start within the duration, on average (default: 1000).", valueName: "count"))
    var sessions: Double?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Session starts a second, instead of --sessions.", valueName: "number"))
    var rate: Double?

    @Option(parsing: .unconditional, help: ArgumentHelp("End after this many requests.", valueName: "count"))
    var requests: Int?

    @Option(parsing: .unconditional, help: ArgumentHelp("Length of the trace in seconds.", valueName: "seconds"))
    var duration: Double = 3600

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Seconds that traffic had been running before: sessions under way are caught in the middle.",
            valueName: "seconds"))
    var lead: Double = 0

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Variation of the gaps between session starts: 1 is Poisson, more is burstier.", valueName: "number"))
    var burstiness: Double = 1

    @Option(parsing: .unconditional, help: ArgumentHelp("Tokens of a block.", valueName: "count"))
    var blockTokens: Int = 64

    @Option(help: ArgumentHelp("Change a parameter, KIND.NAME=VALUE; repeatable.", valueName: "name=value"))
    var set: [String] = []

    @Flag(help: "List the parameters with their defaults and sources, and make nothing.")
    var parameters = false

    @Flag(help: "Show progress even where standard error is no terminal.")
    var progress = false

    func validate() throws {
        func check(_ name: String, _ value: Double?, _ range: ClosedRange<Double>, _ allowed: String) throws {
            guard let value, !range.contains(value) else { return }
            throw ValidationError("--\(name) \(Self.number(value)): give \(allowed).")
        }
        let least = Double.leastNonzeroMagnitude
        try check("duration", duration, 0.001...1e7, "0.001 to 10000000 seconds")
        try check("lead", lead, 0...1e7, "0 to 10000000 seconds")
        try check("sessions", sessions, least...5e6, "more than 0 and at most 5000000")
        try check("rate", rate, least...Double.greatestFiniteMagnitude, "more than 0")
        try check("requests", requests.map(Double.init), 1...Double(Int.max), "1 or more")
        try check("burstiness", burstiness, 0.1...20, "0.1 to 20")
        try check("block-tokens", Double(blockTokens), 1...65_536, "1 to 65536")
    }

    func run() async throws {
        if parameters { return try print(Self.parameterTable) }
        guard let output else { throw OperatorError("no file to write", at: "--output", remedy: "-o FILE, or -o -") }
        let specification = try specification()
        let bar = ProgressBar("making \(output)", forced: progress)
        var trace = try SyntheticTrace.make(specification) { bar.update($0 * 0.8) }
        trace.origin = origin(of: specification)
        try trace.write(to: output) { bar.update(0.8 + $0 * 0.2) }
        bar.finish()
        if output != "-" {
            note(
                "\(output): \(counted(trace.requests.count, "request")), \(counted(trace.uniqueBlockCount, "block")) of "
                    + "\(trace.blockTokens) tokens, content \(trace.contentDigest)")
        }
    }

    private static let sessionsUnlessTold = 1000.0

    /// The specification that the options describe.
    private func specification() throws -> SyntheticSpecification {
        if kinds.isEmpty {
            throw OperatorError(
                "no kind of traffic is given",
                remedy: "give some of \(SyntheticWorkload.kindNames.joined(separator: ", "))")
        }
        guard rate == nil || sessions == nil else {
            throw OperatorError(
                "--rate and --sessions both say how many sessions start", remedy: "give one of them")
        }
        var weighted: [(workload: SyntheticWorkload, weight: Double)] = []
        for kind in kinds {
            let (name, value) = try Self.assignment(kind, place: "KIND", defaultValue: 1)
            guard let workload = SyntheticWorkload(kind: name) else {
                throw OperatorError(
                    "there is no kind of traffic “\(name)”",
                    remedy: "known are \(SyntheticWorkload.kindNames.joined(separator: ", "))")
            }
            if weighted.contains(where: { $0.workload.kind == name }) { throw OperatorError("\(name) is given twice") }
            if value <= 0 { throw OperatorError("the weight of \(name) is not above 0") }
            weighted.append((workload, value))
        }
        for assignment in set {
            let (name, value) = try Self.assignment(assignment, place: "--set", defaultValue: nil)
            let kind = name.split(separator: ".").first.map(String.init) ?? ""
            guard let index = weighted.firstIndex(where: { $0.workload.kind == kind }) else {
                throw OperatorError("\(name) is of no kind that is made", at: "--set", remedy: "KIND.NAME=VALUE")
            }
            try weighted[index].workload.set(name, to: value)
        }
        let total = weighted.reduce(0) { $0 + $1.weight }
        let perSecond = rate ?? (sessions ?? Self.sessionsUnlessTold) / duration
        return SyntheticSpecification(
            seed: seed, durationSeconds: duration, leadSeconds: lead, blockTokens: blockTokens,
            burstiness: burstiness, requestLimit: requests,
            parts: weighted.map { .init($0.workload, sessionsPerSecond: perSecond * $0.weight / total) })
    }

    /// `name=number`.
    private static func assignment(_ text: String, place: String, defaultValue: Double?) throws(OperatorError)
        -> (name: String, value: Double)
    {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        if parts.count == 1, let defaultValue { return (String(parts[0]), defaultValue) }
        guard parts.count == 2, let value = Double(parts[1]), value.isFinite else {
            throw OperatorError("“\(text)” is not NAME=NUMBER", at: place)
        }
        return (String(parts[0]), value)
    }

    /// What the file says of how it was made: a command that makes it again, and every parameter.
    private func origin(of specification: SyntheticSpecification) -> TraceOrigin {
        var words = ["holdfast trace synth"] + kinds
        words += rate.map { ["--rate \(number($0))"] } ?? ["--sessions \(number(sessions ?? Self.sessionsUnlessTold))"]
        if let requests { words.append("--requests \(requests)") }
        words += ["--duration \(number(duration))"]
        if lead > 0 { words.append("--lead \(number(lead))") }
        if burstiness != 1 { words.append("--burstiness \(number(burstiness))") }
        if blockTokens != 64 { words.append("--block-tokens \(blockTokens)") }
        words += set.map { "--set \($0)" }
        words.append("--seed \(seed)")
        let parameters = specification.parts.flatMap { part in
            part.workload.parameters.map { TraceOrigin.Parameter(name: $0.parameter.name, value: number($0.value)) }
        }
        return TraceOrigin(generator: words.joined(separator: " "), seed: seed, parameters: parameters)
    }

    private func number(_ value: Double) -> String { Self.number(value) }

    private static func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(value)
    }

    private static var parameterTable: String {
        var lines = ["parameter, default, meaning (source of the default)"]
        var kind = ""
        for parameter in SyntheticParameter.all {
            let own = String(parameter.name.prefix { $0 != "." })
            if own != kind { lines.append("") }
            kind = own
            let name = parameter.name + String(repeating: " ", count: max(1, 26 - parameter.name.count))
            let value = number(parameter.defaultValue)
            lines.append(
                name + String(repeating: " ", count: max(0, 8 - value.count)) + value
                    + "  \(parameter.meaning) (\(parameter.source))")
        }
        return lines.joined(separator: "\n")
    }
}
