// What a load costs an engine, tier by tier: through the door of a real agent, a process of its own, one load at a time and
// everything at rest before it, as in a live replay in lock step.

import Foundation
import KVAgent
import KVModel
import KVSimulation
import KVSystem
import KVTiering
import KVTransport

/// Which loads are measured.
struct LoadPlan {
    var blockSizes: [Int]
    /// Blocks of a load, as far as their bytes are at most `bytesMax`.
    var counts: [Int]
    var bytesMax: Int
    /// Loads of each kind; what counts is their median.
    var rounds: Int

    static let quick = LoadPlan(
        blockSizes: [64 << 10, 2 << 20], counts: [1, 4, 16, 64], bytesMax: 8 << 20, rounds: 11)
    static let full = LoadPlan(
        blockSizes: [4 << 10, 64 << 10, 512 << 10, 2 << 20], counts: [1, 4, 16, 64], bytesMax: 16 << 20, rounds: 15)

    func counts(of blockBytes: Int) -> [Int] { counts.filter { $0 == 1 || $0 * blockBytes <= bytesMax } }

    /// Blocks that an agent's node memory holds, so that all that is measured finds room.
    func heldBlocks(of blockBytes: Int) -> Int {
        let counts = counts(of: blockBytes)
        return max(16, 12 * (counts.max() ?? 1), rounds * counts.reduce(0, +))
    }

    /// Blocks that are saved: what is measured, and what pushes that out of node memory.
    func savedBlocks(of blockBytes: Int) -> Int {
        let counts = counts(of: blockBytes)
        return rounds * counts.reduce(0, +) + heldBlocks(of: blockBytes) * 9 / 8 + (counts.max() ?? 1)
    }
}

/// Loads of one kind.
struct LoadPoint: Encodable {
    var tier: String
    var blockBytes: Int
    var blocks: Int
    /// From asking to having, the median.
    var seconds: Double
}

/// What loads took.
struct LoadRates {
    private(set) var costs = LoadCosts()
    private(set) var points: [LoadPoint] = []
    /// Blocks that a store was given.
    private(set) var stored: [Range<BlockNumber>] = []

    /// Where blocks lie that are loaded.
    enum Source {
        case dram
        /// On local flash, in a scratch file of this folder.
        case nvme(folder: String)
        /// In a store: settings of an agent that name it, and its memory, which is not to answer.
        case store(lines: String, memory: StoreMemory)

        var tier: Tier {
            switch self {
            case .dram: .dram
            case .nvme: .nvme
            case .store: .flash
            }
        }
    }

    /// Measures loads from one tier; node memory comes first, since all others pass through it.
    mutating func measure(_ source: Source, plan: LoadPlan) async throws {
        var costs: [LoadCost] = []
        for blockBytes in plan.blockSizes {
            let bench = try LoadBench(source, plan: plan, blockBytes: blockBytes)
            defer { if source.tier == .flash { stored.append(bench.saved) } }
            try bench.save()
            if case .store(_, let memory) = source { try await memory.displace() }
            let loads = try bench.load()
            points += loads.map {
                LoadPoint(tier: source.tier.name, blockBytes: blockBytes, blocks: $0.blocks, seconds: $0.seconds)
            }
            if source.tier == .dram {
                costs.append(LoadCost(blockBytes: blockBytes, fitting: loads))
            } else {
                guard let dram = self.costs.dram?.first(where: { $0.blockBytes == blockBytes }) else {
                    preconditionFailure("loads from below are measured before those from node memory")
                }
                costs.append(
                    LoadCost(
                        blockBytes: blockBytes, fittingWhole: loads, dram: dram,
                        sliceBlocks: AgentConfiguration.sliceBlocks(of: blockBytes)))
            }
        }
        switch source.tier {
        case .hbm: break
        case .dram: self.costs.dram = costs
        case .nvme: self.costs.nvme = costs
        case .flash: self.costs.flash = costs
        }
    }
}

/// An agent and an engine at its door, with chains to load that lie in one tier.
private final class LoadBench {
    private let tier: Tier
    private let plan: LoadPlan
    private let counts: [Int]
    private let blockBytes: Int
    private let folder: ScratchFolder
    private let agent: AgentProcess
    private let engine: LiveEngine
    /// Time as the agent is given it.
    private var now = Instant.zero
    /// What was saved so far, one chain behind the other.
    private(set) var saved: Range<BlockNumber>
    /// Those that are to be loaded.
    private var chains: [[ObjectName]] = []
    /// What a machine does between two loads: other bytes come into the caches.
    private var otherWork = [UInt64](repeating: 1, count: 8 << 20)

    init(_ source: LoadRates.Source, plan: LoadPlan, blockBytes: Int) throws {
        (tier, self.plan, counts) = (source.tier, plan, plan.counts(of: blockBytes))
        self.blockBytes = blockBytes
        // Names that nobody has in this store.
        let first = BlockNumber.random(in: 0..<1 << 31)
        saved = first..<first
        folder = try ScratchFolder("calibrate")
        // Room for all that is measured, so that a tenth of it, for what passes through, is room for the longest load.
        let blocks = plan.heldBlocks(of: blockBytes)
        var lines = """
            dram: \(blocks * blockBytes)
            policy: lru
            planner: always
            spill: onSave
            prefetch: false
            subscribe: false
            clock: given
            links: [1e9, 0, 1e9, 0, 1e9, 0]
            hugePages: false
            pinMemory: false
            copyThreads: 1

            """
        switch source {
        case .dram: break
        case .nvme(let place):
            let drive = "\(place)/holdfast-calibrate-\(UUID().uuidString)"
            folder.removeAtEnd(drive)
            lines += "nvme: \"\(drive)\"\nnvmeSize: \(LiveDrive.byteCount(3 * blocks, blockBytes))\n"
        case .store(let settings, _): lines += settings
        }
        agent = try AgentProcess(folder: folder.url, number: 0, settings: lines)
        engine = try LiveEngine(
            socket: agent.socket, blockTokens: 16, blockBytes: blockBytes, rows: counts.max()!,
            namespace: "calibrate")
        if tier == .flash { try waitForStore() }
    }

    deinit { engine.client.close(within: KVModel.Duration(seconds: 2)) }

    /// Chains of each kind, in turns, come to lie in the tier and nowhere above it.
    func save() throws {
        chains = try (0..<plan.rounds).flatMap { _ in try counts.map { try saveNew($0) } }
        guard tier != .dram else { return }
        // As much again and a little more pushes what was saved out of node memory.
        let longest = counts.max()!
        var left = plan.heldBlocks(of: blockBytes) * 9 / 8
        while left > 0 {
            _ = try saveNew(min(longest, left))
            left -= longest
        }
    }

    /// Loads of each kind, in turns; medians.
    func load() throws -> [(blocks: Int, seconds: Double)] {
        var seconds: [Int: [Double]] = [:]
        for chain in chains {
            for index in stride(from: 0, to: otherWork.count, by: 8) { otherWork[index] &+= 1 }
            seconds[chain.count, default: []].append(try load(chain))
        }
        return counts.map { count in
            let all = seconds[count, default: []].sorted()
            return (count, all[all.count / 2])
        }
    }

    private func rest() throws {
        now = now + KVModel.Duration(milliseconds: 1)
        try agent.rest(at: now)
    }

    private func waitForStore() throws {
        let deadline = MonotonicClock.now + LiveEngine.limit
        while try agent.rest(at: now)?.store?.isUsable != true {
            guard MonotonicClock.now < deadline else {
                throw OperatorError("an agent does not reach the store", at: "--store")
            }
            usleep(20_000)
        }
    }

    /// A chain that nobody has seen, offered to the agent and brought to rest wherever it is to lie.
    private func saveNew(_ count: Int) throws -> [ObjectName] {
        let first = saved.upperBound
        saved = saved.lowerBound..<first + BlockNumber(count)
        let names = (first..<saved.upperBound).map(LiveBlocks.name)
        for (row, name) in names.enumerated() { engine.fill(name, row: row) }
        let isSaved = LiveAnswer<Bool>()
        engine.client.save(names, first: 0, places: engine.places(0..<count)) { _ in isSaved.set(true) }
        _ = try isSaved.wait("the end of a save")
        try rest()
        return names
    }

    /// How long a load of a whole chain takes.
    private func load(_ names: [ObjectName]) throws -> Double {
        try rest()
        let found = LiveAnswer<EngineFound>()
        let ticket = engine.client.lookUp(names, promptTokens: Int32(16 * names.count + 1)) { found.set($0) }
        let place = try found.wait("an answer to a look-up")
        try rest()
        let here =
            switch tier {
            case .nvme: place.nvmeBlocks
            case .flash: place.flashBlocks
            default: place.dramBlocks
            }
        guard Int(here) == names.count else {
            throw OperatorError(
                "of \(names.count) blocks that an agent saved \(here) are in \(tier.name)", at: "calibrate",
                remedy: tier == .flash
                    ? "see whether the store has room for a gigabyte, and lets the tenant write" : "")
        }
        // Here, as in a replay: meanwhile the agent goes to sleep and the rows take the place of its tables in the caches. A load that is
        // asked for right behind an answer finds all of it awake.
        engine.clear(0..<names.count)
        let loaded = LiveAnswer<EngineLoaded>()
        let start = MonotonicClock.now
        engine.client.load(first: 0, places: engine.places(0..<names.count), request: ticket) { loaded.set($0) }
        let end = try loaded.wait("the end of a load")
        let seconds = (MonotonicClock.now - start).seconds
        engine.client.finished(EngineRequestEnd(ticket: ticket))
        guard Int(end.end) == names.count else { throw OperatorError("an agent does not give back what it took") }
        return seconds
    }
}
