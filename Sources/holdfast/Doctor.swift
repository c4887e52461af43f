// `holdfast doctor`: what is wrong with this machine or a store's settings, said before the start.

import ArgumentParser
import Foundation
import KVModel
import KVSettings
import KVStore

struct Doctor: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Says what is wrong with a machine or the settings of a store or an agent, and what to do.",
        discussion: """
            Looks, and changes nothing: limits, huge pages, io_uring, drives, ports, memory and settings. A warning \
            costs speed or comfort; a problem keeps a store from starting or from keeping its promises, and ends \
            with exit code 1. Run it as the user that the store will run as.

              holdfast doctor --data /dev/nvme0n1
              holdfast doctor --config store.yaml --json
              holdfast doctor --agent-config agent.yaml --engine-region 32GiB
            """)

    @Option(
        name: .long, help: ArgumentHelp("The YAML file of settings that the store will be given.", valueName: "file"))
    var config: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "A block device or file that the store will be given; repeat it for several drives.", valueName: "path"))
    var data: [String] = []

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Bytes of a file that does not exist yet, like 100GiB.", valueName: "size"))
    var size: String?

    @Option(
        name: .long, help: ArgumentHelp("The YAML file of settings that an agent will be given.", valueName: "file"))
    var agentConfig: String?

    @Option(
        name: .long,
        parsing: .unconditional,
        help: ArgumentHelp(
            "Bytes of the engine's own host region, like 32GiB; vLLM's is found by itself.", valueName: "size"))
    var engineRegion: String?

    @Flag(name: .long, help: "Prints JSON.")
    var json = false

    func validate() throws {
        guard agentConfig == nil || (config == nil && data.isEmpty && size == nil) else {
            throw ValidationError("--agent-config is of an agent; --config, --data and --size are of a store.")
        }
        guard agentConfig != nil || engineRegion == nil else {
            throw ValidationError("--engine-region goes with --agent-config.")
        }
    }

    func run() async throws {
        if let agentConfig {
            return try show(await AgentChecks(file: agentConfig, engineRegion: engineRegion).findings())
        }
        var settings = StoreConfiguration()
        var findings: [Finding] = []
        do {
            if let config { try settings.read(file: config) }
            if !data.isEmpty { try settings.set("data", data, at: "--data") }
            if let size { try settings.set("size", [size], at: "--size") }
            if config != nil || !data.isEmpty { try settings.check() }
            findings.append(Finding("settings", .ok, config == nil ? "defaults and options" : "all of them are known"))
        } catch {
            findings.append(Finding("settings", error))
        }
        findings += MachineChecks(settings: settings).findings
        findings += StoreChecks(settings: settings).findings
        try show(findings)
    }

    private func show(_ findings: [Finding]) throws {
        if json {
            try print(String(decoding: try encodeJSON(findings), as: UTF8.self))
        } else {
            for finding in findings { try print(finding.line) }
        }
        if findings.contains(where: { $0.verdict == .problem }) { throw ExitCode(1) }
    }
}

/// One thing that was looked at.
struct Finding: Codable {
    /// How bad it is.
    enum Verdict: String, Codable { case ok, warning, problem }

    /// What was looked at: "locked memory", a path.
    var about: String
    var verdict: Verdict
    /// What was found.
    var found: String
    /// What to do; empty when nothing is.
    var remedy: String

    init(_ about: String, _ verdict: Verdict, _ found: String, remedy: String = "") {
        self.about = about
        self.verdict = verdict
        self.found = found
        self.remedy = remedy
    }

    /// A problem that an error tells.
    init(_ about: String, _ error: OperatorError) {
        let place = error.place.isEmpty || error.place == about ? "" : "\(error.place): "
        self.init(about, .problem, place + error.what, remedy: error.remedy)
    }

    /// `warning  locked memory: 8 MiB of 256 MiB; raise it`.
    var line: String {
        let word = verdict.rawValue.padding(toLength: 8, withPad: " ", startingAt: 0)
        return "\(word) \(about): \(found)" + (remedy.isEmpty ? "" : "; \(remedy)")
    }
}
