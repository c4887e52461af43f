// `replay`, modelled: a trace through a whole cluster in virtual time, its baselines beside it, into a record.

import ArgumentParser
import Foundation
import KVModel
import KVReport
import KVServing
import KVSimulation
import KVTrace

struct ModelledOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("The cluster: a YAML file that states what differs from the default.", valueName: "file"))
    var scenario: String?

    @Option(
        name: .customLong("set"), parsing: .singleValue,
        help: ArgumentHelp("Change one key of the scenario: tiers.dram.perNode=2TB.", valueName: "key=value"))
    var overrides: [String] = []

    @Option(help: ArgumentHelp("Rates and latencies as measured on a machine: a device profile.", valueName: "file"))
    var profile: String?

    @Option(help: ArgumentHelp("More models, GPUs and engines: a catalogue file.", valueName: "file"))
    var catalogue: String?

    @Option(
        name: [.customShort("o"), .customLong("output")],
        help: ArgumentHelp("Write the record here, for `holdfast report`.", valueName: "record"))
    var output: String?

    @Option(help: ArgumentHelp("Run only these systems: a comma list of 1 A B C D E Y Z.", valueName: "keys"))
    var only: String?

    @Flag(help: "Leave out the sweep of loads, the smallest clusters and the curve of sizes.")
    var noSweep = false

    @Option(help: "Systems that run at the same time. The record does not depend on it.")
    var threads: Int?

    /// Replays the trace and writes or prints what came of it.
    func run(_ trace: () throws -> Trace, file: String, json: Bool, terminal: TerminalOptions) async throws {
        let scenario = try readScenario()
        let keys = try readKeys()
        var catalogue = Catalogue.builtIn
        if let path = self.catalogue { try catalogue.extend(with: try readText(path), at: path) }
        let replay = try ModelledReplay(trace: try trace(), scenario: scenario, catalogue: catalogue)
        let extent = ModelledReplay.Extent(keys: keys, sweeps: !noSweep, countsCurve: !noSweep)
        let bar = ProgressBar("replaying")
        let record = await replay.record(
            extent, version: Holdfast.configuration.version, command: command(file),
            overrides: Dictionary(try readOverrides().map { ($0.key, $0.value) }) { _, last in last },
            threads: threads ?? min(2, ProcessInfo.processInfo.activeProcessorCount)
        ) { what, share in bar.update(share, detail: what) }
        bar.finish()
        try finish(record, json: json, terminal: terminal)
    }

    private func finish(_ record: Record, json: Bool, terminal: TerminalOptions) throws {
        if let output {
            let bytes = try record.encoded()
            do {
                try Data(bytes).write(to: URL(fileURLWithPath: output))
            } catch {
                throw OperatorError(
                    "cannot write the record: \(error.localizedDescription)", at: output,
                    remedy: "choose another place")
            }
        }
        if let failed = record.checks.first(where: { !$0.passed }) {
            throw OperatorError(
                "a check of the replay failed: \(failed.name) (\(failed.left) against \(failed.right))",
                at: record.name,
                remedy: "this is a defect of Holdfast; keep the trace and the scenario, and report it")
        }
        if json {
            terminal.print(String(decoding: try record.encoded(), as: UTF8.self))
        } else if output == nil {
            let comparison = try Comparison([record])
            terminal.print(
                comparison.terminalReport(width: terminal.columns, colour: terminal.isColoured, file: "RECORD"))
        }
    }

    private func readScenario() throws(OperatorError) -> Scenario {
        var text: String?
        if let scenario { text = try readText(scenario) }
        var read = try Scenario.read(yaml: text, file: scenario ?? "default.yaml", overrides: try readOverrides())
        if let profile { read.apply(try DeviceProfile(json: Data(try readText(profile).utf8), at: profile)) }
        return read
    }

    private func readOverrides() throws(OperatorError) -> [(key: String, value: String)] {
        var pairs: [(key: String, value: String)] = []
        for override in overrides {
            guard let sign = override.firstIndex(of: "="), sign > override.startIndex else {
                throw OperatorError("`\(override)` is not key=value", at: "--set", remedy: "like --set replicas=8")
            }
            pairs.append((String(override[..<sign]), String(override[override.index(after: sign)...])))
        }
        return pairs
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

    /// The command that makes the record again.
    private func command(_ file: String) -> String {
        var words = ["holdfast", "replay", file]
        if let scenario { words += ["--scenario", scenario] }
        for override in overrides { words += ["--set", override] }
        if let profile { words += ["--profile", profile] }
        if let catalogue { words += ["--catalogue", catalogue] }
        if let only { words += ["--only", only] }
        if noSweep { words.append("--no-sweep") }
        return words.map { $0.contains(where: { " *$'\"".contains($0) }) ? "'\($0)'" : $0 }.joined(separator: " ")
    }

    private func readText(_ path: String) throws(OperatorError) -> String {
        var isFolder: ObjCBool = false
        guard unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw OperatorError("no such file", at: path)
        }
        guard !isFolder.boolValue else { throw OperatorError("a folder, not a file", at: path) }
        guard let data = FileManager.default.contents(atPath: path), data.count < 16 << 20,
            let text = String(data: data, encoding: .utf8)
        else { throw OperatorError("not readable as text of at most 16 MiB", at: path) }
        return text
    }
}
