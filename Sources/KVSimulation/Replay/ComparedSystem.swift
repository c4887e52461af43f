// The systems a record compares: the configured one, the baselines that need less, the ceilings that nothing can beat.

import KVModel

/// One system of a comparison, as a change of the scenario.
enum ComparedSystem: String, Sendable, CaseIterable {
    /// The scenario as it stands.
    case configured = "1"
    /// Every prompt is computed whole.
    case noCache = "A"
    /// The engine's own prefix cache in GPU memory.
    case hbmOnly = "B"
    /// And the node's DRAM, LRU: the reference, because nothing has to be bought for it.
    case hostMemory = "C"
    /// And flash in the node.
    case localFlash = "D"
    /// The shared tier as a plain cache: LRU, no prefetch.
    case sharedLRU = "E"
    /// What the same bytes could serve with the future known, in one place that every GPU reads at no cost.
    case clairvoyant = "Y"
    /// What endless bytes could serve, at no cost.
    case infinite = "Z"

    /// The key in records.
    var key: String { rawValue }

    var name: String {
        switch self {
        case .configured: "This run"
        case .noCache: "No cache"
        case .hbmOnly: "HBM only"
        case .hostMemory: "HBM + DRAM"
        case .localFlash: "+ local NVMe"
        case .sharedLRU: "Shared tier, LRU"
        case .clairvoyant: "Clairvoyant, same size"
        case .infinite: "Infinite cache"
        }
    }

    /// `run`, `baseline`, `reference` or `ceiling`.
    var role: String {
        switch self {
        case .configured: "run"
        case .noCache, .hbmOnly, .localFlash, .sharedLRU: "baseline"
        case .hostMemory: "reference"
        case .clairvoyant, .infinite: "ceiling"
        }
    }

    /// The scenario that this system runs. What a node keeps no other node can read, so without a shared store sessions
    /// stay on their node; which of its replicas answers is the scenario's router's to say, as all of them read its tiers.
    func scenario(from configured: Scenario) -> Scenario {
        var scenario = configured
        switch self {
        case .configured:
            return scenario
        case .noCache:
            scenario.engine.prefixCaching = false
            scenario.keepOnly(dram: false, nvme: false, flash: false)
            scenario.router.policy = .leastLoaded
        case .hbmOnly:
            scenario.keepOnly(dram: false, nvme: false, flash: false)
            scenario.router.bindsSessionsToNodes = true
        case .hostMemory:
            scenario.keepOnly(dram: true, nvme: false, flash: false)
            scenario.router.bindsSessionsToNodes = true
        case .localFlash:
            scenario.keepOnly(dram: true, nvme: true, flash: false)
            scenario.router.bindsSessionsToNodes = true
        case .sharedLRU:
            scenario.keepOnly(dram: true, nvme: scenario.tiers.nvme.use, flash: true)
        case .clairvoyant, .infinite:
            scenario.keepOnly(dram: false, nvme: false, flash: false)
        }
        return scenario
    }
}

extension Scenario {
    /// Leaves only the stated tiers below HBM, as plain caches: LRU, no prefetch.
    fileprivate mutating func keepOnly(dram: Bool, nvme: Bool, flash: Bool) {
        tiers.dram.use = dram
        tiers.nvme.use = nvme
        tiers.flash.use = flash
        tiers.policy = .lru
        tiers.flash.policy = .lru
        prefetch.use = false
    }

    /// Bytes of KV of all tiers below HBM, over the cluster.
    var bytesBelowHBM: Double {
        (tiers.dram.use ? tiers.dram.perNode * Double(nodes) : 0)
            + (tiers.nvme.use ? tiers.nvme.perNode * Double(nodes) : 0)
            + (tiers.flash.use ? tiers.flash.perServer * Double(tiers.flash.servers) : 0)
    }
}
