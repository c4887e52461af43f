// `holdfast agent`: the sidecar beside inference engines.

import ArgumentParser
import Foundation
import KVAgent
import KVModel
import KVServing
import KVSettings
import KVSimulation
import KVStore
import KVSystem
import KVTiering
import Logging

struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent", abstract: "Keeps KV blocks of the engines beside it: in memory, on flash, in a store.",
        discussion: """
            Engines come through a local socket and share their memory by passing its descriptor; blocks never \
            travel over the socket. The agent serves until SIGTERM, which lets jobs under way end. The socket's \
            folder is made once, or another is named with --socket.

              sudo install -d -o $USER /run/holdfast
              holdfast agent --dram 64GiB
              holdfast agent --dram 64GiB --nvme /mnt/nvme/blocks --nvme-size 2TiB \\
                --store 10.0.0.7:9460 --keys store.keys

            A YAML file may hold the same settings under the same names (`nvme-size` is `nvmeSize` there) and more; \
            options overrule it. `--print-config` writes all of them with what they mean; `holdfast doctor \
            --agent-config` checks them beforehand.
            """)

    @Option(name: .long, help: ArgumentHelp("A YAML file of settings.", valueName: "file"))
    var config: String?

    @Option(
        name: .long, help: ArgumentHelp("Where engines come (default: /run/holdfast/agent.sock).", valueName: "path"))
    var socket: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Node memory for blocks, like 64GiB (default: 8GiB).", valueName: "size"))
    var dram: String?

    @Option(
        name: .long,
        parsing: .unconditional,
        help: ArgumentHelp(
            "HBM slots that are the agent's, like 2GiB, for engines that say full (default: engines own their GPU's memory).",
            valueName: "size"))
    var hbm: String?

    @Option(name: .long, help: ArgumentHelp("What those slots lie in: cuda:N, or emulated.", valueName: "device"))
    var device: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "A file or block device for blocks of this node; it is formatted at each start.", valueName: "path"))
    var nvme: String?

    @Option(
        name: .long, parsing: .unconditional, help: ArgumentHelp("Bytes of that file, like 2TiB.", valueName: "size"))
    var nvmeSize: String?

    @Option(name: .long, help: ArgumentHelp("The shared store, address:port.", valueName: "address"))
    var store: String?

    @Option(name: .long, help: ArgumentHelp("The file with the tenant's key at the store.", valueName: "file"))
    var keys: String?

    @Option(name: .long, help: ArgumentHelp("Who the agent is at the store (default: local).", valueName: "name"))
    var tenant: String?

    @Option(
        name: .long,
        help: ArgumentHelp("The store's namespace (default: the one that engines name).", valueName: "name"))
    var namespace: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Where /metrics, /healthz, /readyz and /status are served (default: 127.0.0.1:9471).", valueName: "address")
    )
    var http: String?

    @Option(
        name: .long,
        help: ArgumentHelp("The profile that `holdfast calibrate` wrote of this machine.", valueName: "file"))
    var profile: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "The model that is served, of the catalogue; with --gpu it says what computing costs.", valueName: "name"))
    var model: String?

    @Option(name: .long, help: ArgumentHelp("The GPU that serves it, of the catalogue.", valueName: "name"))
    var gpu: String?

    @Option(
        name: .long, parsing: .unconditional, help: ArgumentHelp("GPUs of one copy of the model.", valueName: "count"))
    var tensorParallel: Int?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Where request traces go (OTLP, JSON): a file, or a collector like http://127.0.0.1:4318.",
            valueName: "place"))
    var traces: String?

    @OptionGroup(title: "Log")
    var log: LogOptions

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp("Any other setting, like planner=always; repeat it.", valueName: "name=value"))
    var assignments: [String] = []

    @OptionGroup
    var process: ServiceOptions

    func run() async throws {
        if process.printConfig {
            try print(AgentConfiguration.documented, terminator: "")
            return
        }
        process.endWithStarter()
        let settings = try readSettings()
        let logger = log.logger("holdfast.agent")
        var surroundings = AgentSurroundings(links: try AgentSettingsReading.links(settings))
        surroundings.program = "holdfast \(Holdfast.configuration.version)"
        surroundings.traceResource = Self.traceResource(program: surroundings.program)
        surroundings.storeSecret = try AgentSettingsReading.secret(settings)
        let service = try AgentService(settings, in: surroundings, logger: logger)
        try await process.run(service, logger: logger)
    }

    private static func traceResource(program: String) -> TraceResource {
        let process = ProcessInfo.processInfo
        let wallClock = Int64(Date().timeIntervalSince1970 * 1e9)
        return TraceResource(
            program: program, host: process.hostName,
            instance: "\(process.processIdentifier)-\(UInt32.random(in: 0 ... .max))",
            wallClockAtZero: wallClock - MonotonicClock.now.nanoseconds)
    }

    /// The file's settings, overruled by the options.
    func readSettings() throws(OperatorError) -> AgentConfiguration {
        var settings = AgentConfiguration()
        if let config { try settings.read(file: config) }
        let options: [(name: String, option: String, value: String?)] = [
            ("socket", "--socket", socket), ("dram", "--dram", dram),
            ("hbm", "--hbm", hbm), ("device", "--device", device), ("nvme", "--nvme", nvme),
            ("nvmeSize", "--nvme-size", nvmeSize), ("store", "--store", store), ("keys", "--keys", keys),
            ("tenant", "--tenant", tenant), ("namespace", "--namespace", namespace), ("http", "--http", http),
            ("profile", "--profile", profile), ("traces", "--traces", traces), ("model", "--model", model),
            ("gpu", "--gpu", gpu), ("tensorParallel", "--tensor-parallel", tensorParallel.map(String.init)),
        ]
        try settings.set(options)
        for assignment in assignments {
            guard let equals = assignment.firstIndex(of: "=") else {
                throw OperatorError("`\(assignment)` is not name=value", at: "--set")
            }
            let words = assignment[assignment.index(after: equals)...].split(separator: ",").map(String.init)
            try settings.set(String(assignment[..<equals]), words.isEmpty ? [""] : words, at: "--set")
        }
        try settings.check()
        guard tensorParallel == nil || !settings.model.isEmpty else {
            throw OperatorError("GPUs of a copy of no model", at: "--tensor-parallel", remedy: "name --model and --gpu")
        }
        try settings.priceCatalogueModel()
        return settings
    }
}

/// What settings of an agent name, read from where it lies.
enum AgentSettingsReading {
    /// The tenant's key at the store; empty without a store.
    static func secret(_ settings: AgentConfiguration) throws(OperatorError) -> [UInt8] {
        guard !settings.store.isEmpty else { return [] }
        guard let own = try Tenants(file: settings.keys).byName[settings.tenant] else {
            throw OperatorError("there is no tenant `\(settings.tenant)`", at: settings.keys)
        }
        return own.secret
    }

    /// What paths look like before bytes have moved: the profile's figures, else cautious ones.
    static func links(_ settings: AgentConfiguration) throws(OperatorError) -> LinkView {
        guard !settings.profile.isEmpty else { return .cautious }
        return try profile(settings.profile).links(blockBytes: nil)
    }

    /// A profile by its file.
    static func profile(_ path: String) throws(OperatorError) -> DeviceProfile {
        try DeviceProfile(json: Data(try NamedFile(path).bytes(atMost: 16 << 20)), at: path)
    }
}

extension AgentConfiguration {
    /// Takes what computing costs from the catalogue, where `model` and `gpu` name it: with weights and KV in eight bits where the
    /// GPU has them.
    mutating func priceCatalogueModel() throws(OperatorError) {
        guard !model.isEmpty else { return }
        let catalogue = Catalogue.builtIn
        let shape = try catalogue.model(named: model)
        let serving = try ServingModel(
            shape, gpu: try catalogue.gpu(named: gpu), tensorParallel: tensorParallel, weights: .fp8, kv: .fp8,
            engine: try catalogue.engine(named: "vllm"))
        prefill = PrefillCost(of: serving, chunk: 8192)
        layers = shape.layers
    }
}
