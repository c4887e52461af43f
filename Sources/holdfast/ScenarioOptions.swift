// The options that say what a trace is replayed on, the same for every verb that replays one.

import ArgumentParser
import Foundation
import KVModel
import KVServing
import KVSettings
import KVSimulation

/// The options that say what a trace is replayed on.
struct ScenarioOptions: ParsableArguments {
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
        parsing: .unconditional,
        help: ArgumentHelp(
            "Clusters that are replayed at the same time, 2 by default; 0 takes all cores. No result depends on it.",
            valueName: "count"))
    var threads: Int?

    /// Clusters replayed at the same time.
    var threadCount: Int {
        let cores = ProcessInfo.processInfo.activeProcessorCount
        return threads.map { $0 == 0 ? cores : $0 } ?? min(2, cores)
    }

    func validate() throws {
        if let threads, threads < 0 { throw ValidationError("--threads \(threads): 0 or more.") }
    }

    /// The scenario, overrides and profile applied.
    func read() throws(OperatorError) -> Scenario {
        var text: String?
        if let scenario { text = try NamedFile(scenario).text() }
        var read = try Scenario.read(yaml: text, file: scenario ?? "default.yaml", overrides: try readOverrides())
        if let profile { read.apply(try AgentSettingsReading.profile(profile)) }
        // What a record names by digest is all that its figures depend on.
        if let catalogue {
            let lines = try NamedFile(catalogue).text().split(separator: "\n", omittingEmptySubsequences: false)
            read.text += "# catalogue:\n" + lines.map { "#   \($0)\n" }.joined()
        }
        return read
    }

    /// The built-in catalogue, extended by the file that was named.
    func readCatalogue() throws -> Catalogue {
        var catalogue = Catalogue.builtIn
        if let path = self.catalogue { try catalogue.extend(with: try NamedFile(path).text(), at: path) }
        return catalogue
    }

    /// The `--set` options, in order.
    func readOverrides() throws(OperatorError) -> [(key: String, value: String)] {
        var pairs: [(key: String, value: String)] = []
        for override in overrides {
            guard let sign = override.firstIndex(of: "="), sign > override.startIndex else {
                throw OperatorError("`\(override)` is not key=value", at: "--set", remedy: "like --set replicas=8")
            }
            pairs.append((String(override[..<sign]), String(override[override.index(after: sign)...])))
        }
        return pairs
    }

    /// The words of a command that say the same, in the folder of the files named.
    var words: [String] {
        var words: [String] = []
        if let scenario { words += ["--scenario", fileName(scenario)] }
        for override in overrides { words += ["--set", override] }
        if let profile { words += ["--profile", fileName(profile)] }
        if let catalogue { words += ["--catalogue", fileName(catalogue)] }
        return words
    }
}
