// `replay`, modelled: a trace through a whole cluster in virtual time, its baselines beside it, into a record.

import ArgumentParser
import KVModel
import KVReport
import KVServing
import KVSettings
import KVSimulation

struct ModelledOptions: ParsableArguments {
    @OptionGroup var scenario: ScenarioOptions

    @Option(
        name: [.customShort("o"), .customLong("output")],
        help: ArgumentHelp(
            "Write the record here, for `holdfast report`; - is standard output.", valueName: "record"))
    var output: String?

    @Option(help: ArgumentHelp("Run only these systems: a comma list of 1 A B C D E Y Z.", valueName: "keys"))
    var only: String?

    @Flag(help: "Leave out the sweep of loads, the smallest clusters and the curve of sizes.")
    var noSweep = false

    /// Replays the trace and writes or prints what came of it.
    func run(_ input: TraceInput, json: Bool, terminal: TerminalOptions) async throws {
        let read = try scenario.read()
        let keys = try readKeys()
        try checkOutput()
        let trace = try input.read()
        let replay = try ModelledReplay(trace: trace, scenario: read, catalogue: try scenario.readCatalogue())
        let extent = ModelledReplay.Extent(keys: keys, sweeps: !noSweep, countsCurve: !noSweep)
        let bar = ProgressBar("replaying", forced: input.progress)
        let record = await replay.record(
            extent, version: Holdfast.configuration.version, command: command(input, of: trace.name),
            overrides: Dictionary(try scenario.readOverrides().map { ($0.key, $0.value) }) { _, last in last },
            threads: scenario.threadCount
        ) { what, share in bar.update(share, detail: what) }
        bar.finish()
        try finish(record, json: json, terminal: terminal)
    }

    /// Minutes of replay must not end in a folder that is not there.
    func checkOutput() throws(OperatorError) {
        if let file { try NamedFile(file).checkCanWrite() }
    }

    /// Where the record is to lie, unless it goes to standard output.
    private var file: String? { output == "-" ? nil : output }

    func finish(_ record: Record, json: Bool, terminal: TerminalOptions) throws {
        if let file {
            try NamedFile(file).write(try record.encoded())
            note("\(file): `holdfast report \(file)` shows it")
        }
        if let failed = record.checks.first(where: { !$0.passed }) {
            throw OperatorError(
                "a check of the replay failed: \(failed.name) (\(failed.left) against \(failed.right))",
                at: record.name,
                remedy: "this is a defect of Holdfast; keep the trace and the scenario, and report it")
        }
        if json || output == "-" {
            try print(String(decoding: try record.encoded(), as: UTF8.self), terminator: "")
        } else if output == nil {
            let comparison = try Comparison([record])
            try print(
                comparison.terminalReport(width: terminal.columns, colour: terminal.isColoured, file: "RECORD"),
                terminator: "")
        }
    }

    private func readKeys() throws(OperatorError) -> Set<String>? {
        guard let only else { return nil }
        var keys: Set<String> = ["1"]
        for key in only.split(separator: ",", omittingEmptySubsequences: false) {
            guard ModelledReplay.systemKeys.contains(String(key)) else {
                throw OperatorError(
                    "'\(key)' is not a system", at: "--only",
                    remedy: "give some of \(ModelledReplay.systemKeys.joined(separator: " "))")
            }
            keys.insert(String(key))
        }
        return keys
    }

    /// The command that makes the record of the trace again, for a shell.
    func command(_ input: TraceInput, of trace: String, _ more: [String] = []) -> String {
        var words = ["holdfast", "replay"] + input.words + scenario.words
        if let only { words += ["--only", only] }
        if noSweep { words.append("--no-sweep") }
        words += more + ["-o", trace + ".hfr"]
        return words.map(Self.quoted).joined(separator: " ")
    }

    /// A word as a shell takes it literally.
    private static func quoted(_ word: String) -> String {
        let plain = "_-+=.,:/%@".unicodeScalars
        let isPlain = word.unicodeScalars.allSatisfy { scalar in
            scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || plain.contains(scalar)
        }
        return isPlain && !word.isEmpty ? word : "'" + word.replacing("'", with: "'\\''") + "'"
    }
}
