// The options that say what a trace is replayed on, the same for every verb that replays one.

import ArgumentParser
import Foundation
import KVModel
import KVServing
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

    @Option(help: "Clusters that are replayed at the same time. No result depends on it.")
    var threads: Int?

    /// Clusters replayed at the same time.
    var threadCount: Int { threads ?? min(2, ProcessInfo.processInfo.activeProcessorCount) }

    /// The scenario, overrides and profile applied.
    func read() throws(OperatorError) -> Scenario {
        var text: String?
        if let scenario { text = try readText(scenario) }
        var read = try Scenario.read(yaml: text, file: scenario ?? "default.yaml", overrides: try readOverrides())
        if let profile { read.apply(try DeviceProfile(json: Data(try readText(profile).utf8), at: profile)) }
        return read
    }

    /// The built-in catalogue, extended by the file that was named.
    func readCatalogue() throws -> Catalogue {
        var catalogue = Catalogue.builtIn
        if let path = self.catalogue { try catalogue.extend(with: try readText(path), at: path) }
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

    /// The words of a command that say the same.
    var words: [String] {
        var words: [String] = []
        if let scenario { words += ["--scenario", scenario] }
        for override in overrides { words += ["--set", override] }
        if let profile { words += ["--profile", profile] }
        if let catalogue { words += ["--catalogue", catalogue] }
        return words
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
