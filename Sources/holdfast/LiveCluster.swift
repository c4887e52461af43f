// The live side of a replay: a store and agents as processes of their own on this machine, engines at the
// agents' doors. Tiers hold as many blocks as the scenario's, of the bytes that were asked for.

import Foundation
import KVAgent
import KVModel
import KVReport
import KVSimulation
import KVSystem

/// Something that dies in the middle of the first load of a request from `request` on.
struct LiveKilling {
    enum Victim: String, CaseIterable { case store, agent, engine }

    var what: Victim
    var request: Int
    /// Of a store: before this request it comes back.
    var back: Int?
}

/// A store and agents of a live replay.
final class LiveCluster {
    /// Nodes of a replay in lock step.
    private(set) var nodes: [LiveNode] = []
    /// Nodes of a paced one, and where their agents' answers come.
    private(set) var pacedNodes: [PacedNode] = []
    let inbox = PacedInbox()
    private let isPaced: Bool
    private let store: StoreProcess?
    private let scratch: ScratchFolder
    /// What is still to die, in order.
    private var killings: [LiveKilling]
    private var returns: [Int] = []
    /// The request that runs.
    private var current = 0

    init(
        _ replay: ModelledReplay, _ settings: LockStepSettings, agents: Int, killings: [LiveKilling],
        isPaced: Bool = false
    ) throws {
        self.isPaced = isPaced
        self.killings = killings.sorted { $0.request < $1.request }
        let engineCount = max(1, replay.scenario.replicas / agents)
        let longest = replay.pathBlocksMax
        // Several requests at once: room for four of the longest, or a quarter of a gigabyte of shorter ones.
        let several = max(longest, min(4 * longest, (256 << 20) / settings.blockBytes))
        let rows = settings.hbmBlocks > 0 ? 1 : isPaced ? several : longest
        guard longest <= EngineProtocol.keyCountMax else {
            throw OperatorError(
                "a prompt has \(longest) blocks, and an agent's door takes \(EngineProtocol.keyCountMax)", at: "--live",
                remedy: "take a trace of larger blocks")
        }
        try Self.checkRoom(settings, agents: agents, engines: agents * engineCount, rows: rows)
        let made = try ScratchFolder("live")
        scratch = made
        let folder = made.url
        let (blocks, blockBytes) = (settings.blocks, settings.blockBytes)
        store =
            blocks.store > 0
            ? try StoreProcess(folder: folder, blocks: blocks.store, blockBytes: blockBytes, agents: agents) : nil
        for number in 0..<agents {
            var lines = settings.lines
            if let store { lines += "store: 127.0.0.1:\(store.port)\nkeys: \(store.keys)\n" }
            if blocks.nvme > 0 {
                let drive = folder.appendingPathComponent("nvme-\(number)").path
                lines += "nvme: \(drive)\nnvmeSize: \(LiveDrive.byteCount(blocks.nvme, blockBytes))\n"
            }
            let agent = try AgentProcess(folder: folder, number: number, settings: lines)
            if isPaced {
                pacedNodes.append(try pacedNode(agent, engineCount, replay, settings, rows))
                continue
            }
            nodes.append(
                try LiveNode(
                    agent, engineCount: engineCount, blockTokens: replay.blockTokens, blockBytes: blockBytes,
                    rows: rows, ownsDevice: settings.hbmBlocks > 0, takeKilling: { [unowned self] in takeKilling() },
                    killStore: { [unowned self] in store?.kill() }))
        }
        try waitForStore()
    }

    private func pacedNode(
        _ agent: AgentProcess, _ engineCount: Int, _ replay: ModelledReplay, _ settings: LockStepSettings, _ rows: Int
    ) throws -> PacedNode {
        let ownsDevice = settings.hbmBlocks > 0
        let engines = try (0..<engineCount).map { _ in
            try PacedEngine(rowCount: rows, inbox: inbox, ownsDevice: ownsDevice) {
                try LiveEngine(
                    socket: agent.socket, blockTokens: replay.blockTokens, blockBytes: settings.blockBytes, rows: rows,
                    ownership: ownsDevice ? .full : .host)
            }
        }
        return PacedNode(agent, engines: engines)
    }

    func killStore() { store?.kill() }

    deinit {
        for node in nodes { node.end() }
        for node in pacedNodes { node.end() }
        (nodes, pacedNodes) = ([], [])
        store?.kill()
    }

    /// Minutes of replay must not end in a full disk or memory.
    private static func checkRoom(
        _ settings: LockStepSettings, agents: Int, engines: Int, rows: Int
    ) throws(OperatorError) {
        let (blocks, bytes) = (settings.blocks, settings.blockBytes)
        let memory = agents * (blocks.dram + settings.hbmBlocks) * bytes + engines * rows * bytes + 128 << 20
        let disk =
            LiveDrive.byteCount(blocks.store, bytes) + (blocks.nvme > 0 ? agents : 0)
            * LiveDrive.byteCount(blocks.nvme, bytes)
        let parent = FileManager.default.temporaryDirectory.path
        let free = (try? FileManager.default.attributesOfFileSystem(forPath: parent))?[.systemFreeSize] as? Int ?? .max
        let remedy = "give a smaller --block-bytes, or smaller tiers"
        guard memory < Int(ProcessInfo.processInfo.physicalMemory) / 4 * 3 else {
            throw OperatorError("this would take \(ByteSize.text(memory)) of memory", at: "--live", remedy: remedy)
        }
        guard disk < free / 10 * 9 else {
            throw OperatorError(
                "this would take \(ByteSize.text(disk)) of the \(ByteSize.text(free)) that are free", at: parent,
                remedy: remedy)
        }
    }

    /// The first request after a start must find the store as reachable as the last.
    private func waitForStore() throws {
        guard let store, store.isRunning else { return }
        let deadline = MonotonicClock.now + LiveEngine.limit
        for agent in nodes.map(\.agent) + pacedNodes.map(\.agent) {
            while try (isPaced ? agent.status() : agent.rest(at: .zero))?.store?.isUsable != true {
                guard MonotonicClock.now < deadline else {
                    throw OperatorError("an agent does not reach the store", at: "127.0.0.1:\(store.port)")
                }
                usleep(20_000)
            }
        }
    }

    /// A request is about to run.
    func begin(_ request: Int) throws {
        current = request
        if let back = returns.first, back <= request {
            returns.removeFirst()
            try store?.start()
            // In lock step the first request after the start must find it; in time it is found when it is found.
            if !isPaced { try waitForStore() }
        }
    }

    func takeKilling() -> LiveKilling? {
        guard let first = killings.first, first.request <= current else { return nil }
        killings.removeFirst()
        if first.what == .store, let back = first.back { returns.append(back) }
        return first
    }

    /// Those that did not find a load to die in.
    var leftKillings: [LiveKilling] { killings }

    /// The machine in words.
    var machine: String {
        let memory = Int(ProcessInfo.processInfo.physicalMemory)
        return "\(ProcessInfo.processInfo.activeProcessorCount) cores, \(ByteSize.text(memory)) of memory"
    }

    /// What all nodes found out beside the ledger.
    var counts: LiveCounts {
        nodes.reduce(into: LiveCounts()) { sum, node in
            sum.bytesCompared += node.counts.bytesCompared
            sum.wrongBlocks += node.counts.wrongBlocks
            sum.bytesOffered += node.counts.bytesOffered
            sum.loads += node.counts.loads
        }
    }
}
