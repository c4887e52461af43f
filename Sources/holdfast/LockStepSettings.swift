// What `holdfast agent` is told in a live replay: one text of settings, from which the modelled nodes of a replay in lock step
// get their rules and the live agents their files. So both decide by the very same rules.

import KVAgent
import KVModel
import KVSettings
import KVSimulation
import KVTiering

/// The rules of all nodes of a lock-step replay.
struct LockStepSettings {
    /// Bytes of a block in every tier.
    let blockBytes: Int
    /// Blocks of each tier; 0: there is none.
    let blocks: (dram: Int, nvme: Int, store: Int)
    /// HBM slots of each node, where they are the agents' to give; 0: engines own their memory.
    let hbmBlocks: Int
    /// The settings of every agent but its places: a YAML file's lines.
    let lines: String
    /// The agents' own reading of them.
    private let agent: AgentConfiguration
    private let blockTokens: Int32

    /// - Parameter isPaced: Whether time passes as it does, and blocks may come before they are asked for.
    init(
        _ replay: ModelledReplay, blockBytes: Int, hbmBlocks: Int = 0, isPaced: Bool = false
    ) throws(OperatorError) {
        self.hbmBlocks = hbmBlocks
        let scenario = replay.scenario
        guard scenario.tiers.dram.use else {
            throw OperatorError(
                "lock step needs node memory", at: "tiers.dram.use", remedy: "leave it true; agents cannot do without")
        }
        self.blockBytes = blockBytes
        blockTokens = Int32(replay.blockTokens)
        blocks = replay.tierBlocks
        let links = replay.idleLinks(blockBytes: blockBytes)
        try Self.check(dramBytes: blocks.dram * blockBytes, links, blockBytes: blockBytes)
        let cost = replay.prefillCost
        let numbers = [links.dram, links.nvme, links.flash].flatMap { ["\($0.bandwidth)", "\($0.delay.seconds)"] }
        let planner: PlannerRule =
            switch scenario.planner.policy {
            case .always: .always
            case .threshold: .threshold
            case .boundary, .split: .split
            }
        let writes = scenario.tiers.writesPerDay * Double(blocks.nvme * blockBytes)
        var lines = [
            "dram: \(blocks.dram * blockBytes)", "policy: \(scenario.tiers.policy.rawValue)",
            "inclusion: \(scenario.tiers.inclusion.rawValue)", "spill: \(blocks.store > 0 ? "onSave" : "never")",
            "planner: \(planner.rawValue)", "prefill: [\(cost.base), \(cost.linear), \(cost.quadratic)]",
            "layers: \(replay.layers)", "overlap: \(scenario.engine.overlap.rawValue)",
            "nvmeWritePerDay: \(Int(writes))", "links: [\(numbers.joined(separator: ", "))]",
            "hugePages: false", "pinMemory: false", "copyThreads: 1",
        ]
        // In lock step nothing can come early, as no time passes, and what is told in between would come at no certain moment.
        lines +=
            isPaced
            ? ["prefetch: \(scenario.prefetch.use)"] : ["prefetch: false", "subscribe: false", "clock: given"]
        if hbmBlocks > 0 { lines += ["hbm: \(hbmBlocks * blockBytes)", "device: emulated"] }
        if blocks.store > 0 { lines += ["tenant: local", "namespace: replay"] }
        self.lines = lines.joined(separator: "\n") + "\n"
        var agent = AgentConfiguration()
        try agent.read(yaml: self.lines, file: "settings of the replay's agents")
        // The places, which the rules do not depend on.
        if blocks.store > 0 { agent.store = "modelled" }
        if blocks.nvme > 0 {
            agent.nvme = "modelled"
            agent.nvmeSize = blocks.nvme * blockBytes
        }
        self.agent = agent
    }

    /// Refuses what becomes too small for agents when blocks, and with them tiers and paths, are smaller than the model's.
    private static func check(dramBytes: Int, _ links: LinkView, blockBytes: Int) throws(OperatorError) {
        let size = ByteSize.text(blockBytes)
        guard dramBytes >= AgentConfiguration.dramBytesMin else {
            throw OperatorError(
                "node memory is \(ByteSize.text(dramBytes)) in blocks of \(size), and an agent needs "
                    + ByteSize.text(AgentConfiguration.dramBytesMin),
                at: "tiers.dram.perNode", remedy: "make it larger, or give a larger --block-bytes")
        }
        let paths = [("links.hostMemory", links.dram), ("tiers.nvme", links.nvme), ("tiers.flash", links.flash)]
        for (key, link) in paths where link.bandwidth < AgentConfiguration.linkRates.lowerBound {
            throw OperatorError(
                "the path moves \(Int(link.bandwidth)) B/s in blocks of \(size), and an agent plans with "
                    + "\(Int(AgentConfiguration.linkRates.lowerBound)) B/s at least",
                at: key, remedy: "make it faster, or give a larger --block-bytes")
        }
    }

    /// What agents make of the settings.
    func tiering() throws(OperatorError) -> TieringConfiguration {
        try agent.tiering(slotBytes: blockBytes, blockTokens: blockTokens, ownership: hbmBlocks > 0 ? .full : .host)
    }

    /// What the planner believes of paths.
    var links: LinkView {
        guard let links = agent.givenLinks else { preconditionFailure("settings without links") }
        return links
    }
}
