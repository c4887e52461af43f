// What a node's tiers are and by which rules they run. Every field is required; defaults live in the command.

import KVModel

/// The configuration of one node's decisions.
///
/// It can be written down and read, as a journal's head is, but for what is no number and no word: `hashSeed`, on which no
/// decision depends, and the policies of the tiers, which who reads it must give anew (`TierConfiguration.makePolicy`).
public struct TieringConfiguration: Codable {
    /// Prompt tokens of a full block.
    public var blockTokens: Int
    /// Bytes of a block in every tier.
    public var blockBytes: Int
    /// Who owns the engine's memory. The decisions are the same in all three modes, because each arrival and load says
    /// what the engine has itself; worlds differ in what a save and a load move.
    public var ownership: Ownership
    /// Bytes of the device's memory that are slots of ours, the tier above node memory: then engines read and write their
    /// blocks there, and have no memory of their own. 0: engines own it. Needs node memory.
    public var hbmBytes = 0
    /// Node memory, or `nil`.
    public var dram: TierConfiguration?
    /// Local flash, or `nil`. Needs node memory.
    public var nvme: TierConfiguration?
    /// How local flash relates to node memory.
    public var inclusion: InclusionMode
    /// What may be written to local flash, or `nil` for no limit.
    public var nvmeWriteBudget: WriteBudgetConfiguration?
    /// Whether there is a shared store. Needs node memory.
    public var hasStore: Bool
    /// When blocks are offered to the shared store.
    public var spill: SpillRule
    /// What the manager remembers of the store's answers.
    public var directory: DirectoryConfiguration
    /// Load or recompute.
    public var planner: PlannerConfiguration
    /// What may be brought up before it is asked for, or `nil` for nothing.
    public var prefetch: PrefetchConfiguration?
    /// Bytes that each owner may pin, by the owner's index.
    public var pinBudgetBytes: [Int]
    /// Sizes of everything that could grow.
    public var limits: TieringLimits
    /// What the index's hashes begin with: for a node that serves engines, a number they cannot know. No decision
    /// depends on it.
    public var hashSeed: UInt64 = 0
    /// The share of node memory's staging slots that engines may hold as many of, to read in place or to write into. A block
    /// that an engine reads keeps its slot when its policy gives it up; so the rest of the staging slots is always there.
    public var loanShare = 0.5

    /// All but `hashSeed`.
    private enum CodingKeys: CodingKey {
        case blockTokens, blockBytes, ownership, hbmBytes, dram, nvme, inclusion, nvmeWriteBudget, hasStore, spill
        case directory, planner, prefetch, pinBudgetBytes, limits, loanShare
    }

    /// A configuration of given parts.
    public init(
        blockTokens: Int, blockBytes: Int, ownership: Ownership, dram: TierConfiguration?, nvme: TierConfiguration?,
        inclusion: InclusionMode,
        nvmeWriteBudget: WriteBudgetConfiguration?, hasStore: Bool, spill: SpillRule,
        directory: DirectoryConfiguration, planner: PlannerConfiguration, prefetch: PrefetchConfiguration?,
        pinBudgetBytes: [Int], limits: TieringLimits
    ) {
        self.blockTokens = blockTokens
        self.blockBytes = blockBytes
        self.ownership = ownership
        self.dram = dram
        self.nvme = nvme
        self.inclusion = inclusion
        self.nvmeWriteBudget = nvmeWriteBudget
        self.hasStore = hasStore
        self.spill = spill
        self.directory = directory
        self.planner = planner
        self.prefetch = prefetch
        self.pinBudgetBytes = pinBudgetBytes
        self.limits = limits
    }
}

/// Who owns the engine's memory (DESIGN: a block's way, the agent and its engine).
public enum Ownership: String, Sendable, CaseIterable, Codable {
    /// The engine owns HBM and a host region and evicts there by its own rule; ours starts at our own DRAM, and every
    /// save and load is a copy between the two.
    case engine
    /// Our DRAM is the engine's host tier; the engine owns HBM.
    case host
    /// HBM slots are ours too (`TieringConfiguration.hbmBytes`): engines read and write their blocks there.
    case full
}

/// One tier: how many bytes, and which policy.
public struct TierConfiguration: Codable {
    /// Never exceeded, transfers in flight included. Whole blocks fit: `bytes / blockBytes`.
    public var bytes: Int
    /// Of those, the share kept out of the policy's hands: for blocks on their way up or out, and for predictions. At
    /// least one block of the tier, 0 only for local flash.
    public var stagingShare: Double
    /// Makes the policy for a number of blocks.
    public var makePolicy: (_ capacity: Int) -> any TierPolicy

    /// A tier of given parts.
    public init(bytes: Int, stagingShare: Double, makePolicy: @escaping (_ capacity: Int) -> any TierPolicy) {
        self.bytes = bytes
        self.stagingShare = stagingShare
        self.makePolicy = makePolicy
    }

    private enum CodingKeys: CodingKey { case bytes, stagingShare }

    /// A tier as it was written down: `makePolicy` is still to be given.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        bytes = try container.decode(Int.self, forKey: .bytes)
        stagingShare = try container.decode(Double.self, forKey: .stagingShare)
        makePolicy = { _ in preconditionFailure("a tier that was read has no policy until it is given one") }
    }
}

/// How a lower tier relates to the one above it.
public enum InclusionMode: String, Sendable, CaseIterable, Codable {
    /// A block is in one of them: promotion frees the lower copy, eviction writes it.
    case exclusive
    /// Every new block is written to the lower tier at once.
    case inclusive
    /// Eviction writes a block that the lower tier lacks; promotion keeps the lower copy.
    case keep
}

/// When blocks are offered to the shared store. Promotion never removes them there: others use them.
public enum SpillRule: String, Sendable, CaseIterable, Codable {
    /// Never: the store is only read.
    case never
    /// As soon as they are in node memory.
    case onSave
    /// When they leave node memory.
    case onEviction
}

/// How long answers of the shared store are believed.
public struct DirectoryConfiguration: Sendable, Codable {
    /// "It is there" is believed for so long.
    public var presentAge: Duration
    /// "It is not there" is believed for so long.
    public var absentAge: Duration
    /// A question that takes longer counts as a miss.
    public var askDeadline: Duration
    /// Whether the store tells what comes and goes (`Event.storeChanged`); then an answer ages only by that.
    public var isSubscribed: Bool

    /// A directory of given ages.
    public init(presentAge: Duration, absentAge: Duration, askDeadline: Duration, isSubscribed: Bool) {
        self.presentAge = presentAge
        self.absentAge = absentAge
        self.askDeadline = askDeadline
        self.isSubscribed = isSubscribed
    }
}

/// Load or recompute.
public struct PlannerConfiguration: Sendable, Codable {
    /// The rule.
    public var rule: PlannerRule
    /// Whether the engine can only be offered a leading run. Then `split` falls back to the best tier boundary.
    public var prefixOnly: Bool
    /// What computing costs on this engine.
    public var prefill: PrefillCost
    /// Seconds of TTFT that a GPU-second is worth (λ). 0: only TTFT counts.
    public var gpuSecondWeight: Double
    /// GPUs that one engine's second of computing occupies.
    public var gpusPerEngine: Double
    /// How loading and computing overlap.
    public var overlap: Overlap
    /// Layers of the model, for layer-wise overlap.
    public var layers: Int
    /// The time a load may take beyond its plan, or in all when its path is not steady: this share of the recompute it saves,
    /// within the two below.
    public var loadGraceShare = 0.25
    /// See `loadGraceShare`.
    public var loadGraceMin: Duration
    /// See `loadGraceShare`.
    public var loadGraceMax: Duration

    /// Seconds of grace of a load of blocks.
    package func grace(of blocks: Range<Int32>, blockTokens: Int) -> Double {
        let tokens = Double(blockTokens)
        let saved = prefill.seconds(count: Double(blocks.count) * tokens, after: Double(blocks.lowerBound) * tokens)
        return min(max(saved * loadGraceShare, loadGraceMin.seconds), loadGraceMax.seconds)
    }

    /// A planner of given parts.
    public init(
        rule: PlannerRule, prefixOnly: Bool, prefill: PrefillCost, gpuSecondWeight: Double, gpusPerEngine: Double,
        overlap: Overlap, layers: Int, loadGraceMin: Duration, loadGraceMax: Duration
    ) {
        self.rule = rule
        self.prefixOnly = prefixOnly
        self.prefill = prefill
        self.gpuSecondWeight = gpuSecondWeight
        self.gpusPerEngine = gpusPerEngine
        self.overlap = overlap
        self.layers = layers
        self.loadGraceMin = loadGraceMin
        self.loadGraceMax = loadGraceMax
    }
}

/// Which hits are loaded.
public enum PlannerRule: String, Sendable, CaseIterable, Codable {
    /// Every hit.
    case always
    /// A whole hit if loading it takes less time than computing it; else nothing.
    case threshold
    /// What is cheapest: a tier boundary for prefix-only engines, else the front computed and the back loaded.
    case split
}

/// How loading and computing overlap.
public enum Overlap: String, Sendable, CaseIterable, Codable {
    /// One after the other.
    case none
    /// Layer by layer: computing a layer needs only its own part of the load.
    case layerwise
    /// The load runs while the engine works on others; it costs only what exceeds `LoadRequest.computeWait`.
    case prefetch
}

/// The cost curve of prefill: `base + linear · q + quadratic · (q · p + q² / 2)` seconds for `q` tokens behind `p`.
public struct PrefillCost: Sendable, Equatable, Codable {
    /// Seconds for any prefill at all.
    public var base: Double
    /// Seconds a token.
    public var linear: Double
    /// Seconds a token and token before it.
    public var quadratic: Double

    /// A curve of given coefficients.
    public init(base: Double, linear: Double, quadratic: Double) {
        self.base = base
        self.linear = linear
        self.quadratic = quadratic
    }

    /// Seconds to compute `count` tokens behind `start` tokens. No tokens cost nothing.
    public func seconds(count: Double, after start: Double) -> Double {
        count > 0 ? base + linear * count + quadratic * (count * start + count * count / 2) : 0
    }
}

/// Bytes that may be written to a flash device.
public struct WriteBudgetConfiguration: Sendable, Codable {
    /// Bytes a day, replenished evenly.
    public var bytesPerDay: Double
    /// Bytes that may be saved up.
    public var burstBytes: Double

    /// A budget of given parts.
    public init(bytesPerDay: Double, burstBytes: Double) {
        self.bytesPerDay = bytesPerDay
        self.burstBytes = burstBytes
    }

    /// A budget of which an hour's can be saved up, but always as much as one write takes: or the largest never fits.
    public init(bytesPerDay: Double, largestWrite: Int) {
        self.init(bytesPerDay: bytesPerDay, burstBytes: max(bytesPerDay / 24, Double(largestWrite)))
    }
}

/// What may be brought up before it is asked for.
public struct PrefetchConfiguration: Sendable, Codable {
    /// For which reasons.
    public var reasons: Set<PrefetchReason>
    /// Bytes in flight at one time.
    public var bytesInFlightMax: Int
    /// Share of each link's bandwidth, over a second.
    public var linkShare: Double
    /// Share of the staging slots that predictions may hold.
    public var stagingShare: Double
    /// Predictions less likely than this are not followed.
    public var probabilityMin: Double
    /// Conversations remembered at most.
    public var sessionsMax: Int

    /// A prefetch of given parts.
    public init(
        reasons: Set<PrefetchReason>, bytesInFlightMax: Int, linkShare: Double, stagingShare: Double,
        probabilityMin: Double, sessionsMax: Int
    ) {
        self.reasons = reasons
        self.bytesInFlightMax = bytesInFlightMax
        self.linkShare = linkShare
        self.stagingShare = stagingShare
        self.probabilityMin = probabilityMin
        self.sessionsMax = sessionsMax
    }
}

/// The ends of all queues and tables.
public struct TieringLimits: Sendable, Codable {
    /// Requests between arrival and end. More are answered with a miss.
    public var requestsMax: Int
    /// Transfers in flight. Background work beyond is dropped and counted; a load beyond is a recompute.
    public var transfersMax: Int
    /// Blocks known by key, in a tier or remembered for the ledger and the policies.
    public var knownBlocksMax: Int
    /// How many of them the table of keys has room for from the start; beyond, and by default, it grows as they come.
    public var knownBlocksExpected = 0
    /// Pins in force.
    public var pinsMax: Int
    /// Blocks in one transfer at most.
    public var sliceBlocks: Int

    /// Limits of given sizes.
    public init(requestsMax: Int, transfersMax: Int, knownBlocksMax: Int, pinsMax: Int, sliceBlocks: Int) {
        self.requestsMax = requestsMax
        self.transfersMax = transfersMax
        self.knownBlocksMax = knownBlocksMax
        self.pinsMax = pinsMax
        self.sliceBlocks = sliceBlocks
    }
}

extension TieringConfiguration {
    /// Slots of a tier.
    func slotCount(_ tier: TierConfiguration?) -> Int { tier.map { $0.bytes / blockBytes } ?? 0 }

    /// Slots of the device.
    var deviceSlotCount: Int { hbmBytes / blockBytes }

    /// Slots of node memory that engines may hold at once.
    var loanSlotsMax: Int { Int(Double(slotCount(dram) - keptCount(dram)) * loanShare) }

    /// Slots of a tier that its policy fills.
    func keptCount(_ tier: TierConfiguration?) -> Int {
        guard let tier else { return 0 }
        let count = slotCount(tier)
        let staging = Int((Double(count) * tier.stagingShare).rounded(.up))
        return max(1, count - staging)
    }

    /// Deadlines in the queue at most. Those of requests that ended early stay until they are found to be stale, hence the factors:
    /// no more than half of them can matter at a time, one of each request, session and pin, and of each hold of a prediction.
    var deadlinesMax: Int {
        let predicted = prefetch.map { $0.sessionsMax + limits.transfersMax } ?? 0
        return 16 * limits.requestsMax + 2 * (predicted + limits.pinsMax) + 16
    }

    /// Traps on what the caller must have checked with words of its own.
    func check() {
        precondition(blockTokens > 0, "blocks of no tokens")
        precondition(blockBytes > 0, "blocks of no bytes")
        precondition(dram == nil || slotCount(dram) >= 2, "node memory of fewer than two blocks")
        precondition(dram == nil || keptCount(dram) < slotCount(dram), "node memory without staging slots")
        precondition(nvme == nil || dram != nil, "local flash without node memory")
        precondition(hbmBytes == 0 || dram != nil, "a device's slots without node memory")
        precondition(hbmBytes == 0 || deviceSlotCount >= 2, "a device of fewer than two blocks")
        precondition(nvme == nil || slotCount(nvme) >= 1, "local flash of no block")
        precondition(!hasStore || dram != nil, "a shared store without node memory")
        precondition(loanShare >= 0 && loanShare < 1, "a share of loans that is none")
        precondition(limits.requestsMax > 0, "a node for no request")
        // Each request, offer and pin may hold the number of one block, transfers read it from local flash: 16 bits.
        let holders = limits.requestsMax + 3 * limits.transfersMax + limits.pinsMax
        precondition(holders < 65_536, "more requests, transfers and pins than a block can count")
        precondition(limits.transfersMax > 0, "a node without transfers")
        precondition(limits.sliceBlocks > 0, "transfers of no block")
    }
}
