// A scenario's tiers in the words of the tiering decisions.

import KVModel
import KVReport
import KVServing
import KVTiering

extension Scenario {
    /// What each node's manager is made with.
    func tieringConfiguration(
        _ model: ServingModel, _ cost: PrefillCost, _ blockBytes: Int, _ workload: Workload
    ) -> TieringConfiguration {
        let policy = tiers.policy
        func tier(_ bytes: Double, stagingShare: Double) -> TierConfiguration {
            let blocks = Self.blocks(bytes, blockBytes, workload)
            return .init(bytes: blocks * blockBytes, stagingShare: stagingShare) { policy.make($0) }
        }
        let blocks =
            Self.blocks(tiers.dram.perNode, blockBytes, workload)
            + (tiers.nvme.use ? Self.blocks(tiers.nvme.perNode, blockBytes, workload) : 0)
        var limits = TieringLimits(
            requestsMax: 24_000, transfersMax: 12_000, knownBlocksMax: Self.known(blocks, workload), pinsMax: 16,
            sliceBlocks: 64)
        limits.knownBlocksExpected = limits.knownBlocksMax / nodes
        return TieringConfiguration(
            blockTokens: workload.blockTokens, blockBytes: blockBytes,
            ownership: ownership == .engine ? .engine : .host,
            dram: tier(tiers.dram.perNode, stagingShare: 0.1),
            nvme: tiers.nvme.use ? tier(tiers.nvme.perNode, stagingShare: 0) : nil,
            inclusion: InclusionMode(rawValue: tiers.inclusion.rawValue) ?? .keep,
            nvmeWriteBudget: tiers.writesPerDay > 0
                ? WriteBudgetConfiguration(
                    bytesPerDay: tiers.writesPerDay * tiers.nvme.perNode, largestWrite: blockBytes) : nil,
            hasStore: tiers.flash.use, spill: tiers.flash.use ? .onSave : .never,
            directory: DirectoryConfiguration(
                presentAge: Duration(seconds: 10), absentAge: Duration(seconds: 0.1),
                askDeadline: Duration(milliseconds: 5), isSubscribed: false),
            planner: PlannerConfiguration(
                rule: plannerRule, prefixOnly: planner.policy != .split, prefill: cost,
                gpuSecondWeight: planner.gpuWeight, gpusPerEngine: Double(tensorParallel),
                overlap: KVTiering.Overlap(rawValue: engine.overlap.rawValue) ?? .none, layers: model.shape.layers,
                loadGraceMin: Duration(milliseconds: 20), loadGraceMax: Duration(seconds: 2)),
            prefetch: prefetch.use ? prefetchConfiguration(blockBytes) : nil,
            pinBudgetBytes: [],
            limits: limits)
    }

    private var plannerRule: PlannerRule {
        switch planner.policy {
        case .always: .always
        case .threshold: .threshold
        case .boundary, .split: .split
        }
    }

    private func prefetchConfiguration(_ blockBytes: Int) -> PrefetchConfiguration {
        PrefetchConfiguration(
            reasons: Set(PrefetchReason.allCases), bytesInFlightMax: Int(tiers.dram.perNode * 0.05),
            linkShare: prefetch.budget, stagingShare: 0.5, probabilityMin: 0.3, sessionsMax: 65_536)
    }

    /// Blocks of a tier. More than the workload ever names would only cost the replay memory.
    private static func blocks(_ bytes: Double, _ blockBytes: Int, _ workload: Workload) -> Int {
        max(16, min(Int(bytes) / blockBytes, workload.uniqueBlockCount * 5 / 4 + 4096))
    }

    /// Blocks known by key: all that the workload ever names, so that no policy and no ledger forgets for want of room.
    private static func known(_ blocks: Int, _ workload: Workload) -> Int {
        max(blocks, min(workload.uniqueBlockCount + 4096, 32_000_000))
    }

    /// The shared store of all nodes.
    func makeStore(_ blockBytes: Int, _ workload: Workload) -> StoreManager {
        let bytes = tiers.flash.perServer * Double(tiers.flash.servers)
        let blocks = Self.blocks(bytes, blockBytes, workload)
        let policy = tiers.flash.policy
        var configuration = StoreManagerConfiguration(
            blockBytes: blockBytes, bytes: blocks * blockBytes, makePolicy: { policy.make($0) },
            writeBudget: tiers.writesPerDay > 0
                ? WriteBudgetConfiguration(bytesPerDay: tiers.writesPerDay * bytes, largestWrite: blockBytes) : nil,
            knownBlocksMax: Self.known(blocks, workload))
        configuration.knownBlocksExpected = configuration.knownBlocksMax
        return StoreManager(configuration)
    }
}

extension Scenario.Policy {
    /// A fresh policy for a tier of so many blocks.
    func make(_ capacity: Int) -> any TierPolicy { named(rawValue, capacity) }
}

extension Scenario.StorePolicy {
    /// A fresh policy for a store of so many blocks.
    func make(_ capacity: Int) -> any TierPolicy {
        self == .ranked ? RankedPolicy(capacity: capacity) : named(rawValue, capacity)
    }
}

private func named(_ name: String, _ capacity: Int) -> any TierPolicy {
    guard let policy = PolicyName(rawValue: name)?.makePolicy(capacity: capacity) else {
        preconditionFailure("the policy `\(name)` of a scenario has no implementation")
    }
    return policy
}

extension PrefillCost {
    /// The curve through the serving model's first chunk and one behind eight others. Its fixed part is 0: every prompt
    /// is computed in part, so what an iteration costs at least is paid whatever is loaded.
    public init(of model: ServingModel, chunk: Int) {
        let tokens = Double(chunk)
        let first = model.prefillSeconds(tokens: chunk, after: 0)
        let late = model.prefillSeconds(tokens: chunk, after: 8 * chunk)
        let quadratic = max(0, (late - first) / (8 * tokens * tokens))
        self.init(base: 0, linear: max(0, (first - quadratic * tokens * tokens / 2) / tokens), quadratic: quadratic)
    }
}

extension ModelError {
    /// The serving model's class of error, as measured against published points (see the model check).
    init(of model: ServingModel) {
        if model.shape.isMixtureOfExperts {
            self.init(ttftMean: 0.35, tpot: 0.34, kind: "mixture of experts, \(model.engine.name)")
        } else {
            self.init(ttftMean: 0.11, tpot: 0.05, kind: "dense, \(model.engine.name)")
        }
    }
}
