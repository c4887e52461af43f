// What a modelled replay runs on: hardware, tiers, engine, router and prices, checked and in base units. Every field is
// required; the defaults live in one place, `Traces/scenarios/default.yaml`, which the command carries inside.

import KVModel
import KVServing

/// A cluster to replay a trace on. Bytes, bytes a second, seconds, USD.
public struct Scenario: Sendable {
    /// What it is called: its file without the suffix.
    public var name: String
    /// Decides every random draw.
    public var seed: UInt64
    /// A model of the catalogue.
    public var modelName: String
    /// Format of the weights: `bf16`, `fp8` or `fp4`.
    public var weights: String
    /// Format of the KV: `bf16` or `fp8`.
    public var kvType: String
    /// A GPU of the catalogue.
    public var gpuName: String
    /// GPUs that share one host.
    public var gpusPerNode: Int
    /// Copies of the model.
    public var replicas: Int
    /// GPUs of one copy.
    public var tensorParallel: Int
    /// Who owns HBM and the host tier.
    public var ownership: Ownership
    /// The inference engine.
    public var engine: Engine
    /// When requests arrive.
    public var arrivals: Arrivals
    /// The tiers below HBM.
    public var tiers: Tiers
    /// How tiers are joined.
    public var links: Links
    /// How requests find replicas.
    public var router: RouterSettings
    /// When a hit is loaded.
    public var planner: PlannerSettings
    /// What is brought up before it is asked for.
    public var prefetch: PrefetchSettings
    /// What a request must reach to count as good.
    public var slo: SLOSettings
    /// USD.
    public var prices: Prices
    /// Watts and joules.
    public var energy: EnergySettings
    /// Share of requests that the figures after warm-up leave out.
    public var warmUp: Double
    /// Loads and cluster sizes that are tried.
    public var sweep: Sweep
    /// The whole scenario as YAML, overrides applied.
    public var text: String

    /// Who owns HBM and the host tier.
    public enum Ownership: String, Sendable, CaseIterable { case host, engine }
    /// How loading KV overlaps with computing.
    public enum Overlap: String, Sendable, CaseIterable { case none, layerwise, prefetch }
    /// What happens to the newest running request when no KV block is free.
    public enum Preemption: String, Sendable, CaseIterable { case recompute, swap }
    /// When requests arrive.
    public enum ArrivalMode: String, Sendable, CaseIterable { case open, sessions }
    /// Whether a block brought up stays in the tier below.
    public enum Inclusion: String, Sendable, CaseIterable { case keep, inclusive, exclusive }
    /// How a request finds its replica.
    public enum RouterPolicy: String, Sendable, CaseIterable {
        case random, roundRobin, leastLoaded, sticky, cacheAware, stateless
    }
    /// When a hit is loaded.
    public enum PlannerPolicy: String, Sendable, CaseIterable { case always, threshold, boundary, split }
    /// The eviction and admission policies a tier can have.
    public enum Policy: String, Sendable, CaseIterable { case holdfast, lru, fifo, lfu, s3fifo, sieve, arc }

    /// What decides which blocks the shared store keeps.
    public enum StorePolicy: String, Sendable, CaseIterable {
        /// As `holdfast store` does.
        case ranked
        case holdfast, lru, fifo, lfu, s3fifo, sieve, arc
    }

    /// The inference engine of a replica.
    public struct Engine: Sendable {
        /// A name of the catalogue's engines.
        public var name: String
        /// Tokens of one iteration, prefill chunks and decodes together.
        public var tokenBudget: Int
        /// Requests that run at the same time on a replica.
        public var maxSequences: Int
        /// Share of HBM the engine takes.
        public var memoryShare: Double
        /// Keep KV of ended requests in HBM until its memory is needed.
        public var prefixCaching: Bool
        /// What happens to a running request when no KV block is free.
        public var preemption: Preemption
        /// How loading overlaps with computing.
        public var overlap: Overlap
        /// Bytes of the engine's own host tier, per replica (engine-owned).
        public var hostRegion: Double
        /// Added to each TTFT.
        public var requestOverhead: Double
    }

    /// The block `arrivals`.
    public struct Arrivals: Sendable {
        /// When requests arrive.
        public var mode: ArrivalMode
        /// Mean think time where the trace does not say.
        public var thinkTime: Double
        /// Sessions of the trace are multiplied (with fresh content) or thinned to this.
        public var load: Double
    }

    /// The block `tiers`.
    public struct Tiers: Sendable {
        /// Eviction and admission of the tiers of a node.
        public var policy: Policy
        /// Whether a block brought up stays below.
        public var inclusion: Inclusion
        /// Memory of each node.
        public var dram: DRAM
        /// Flash of each node.
        public var nvme: NVMe
        /// The shared store.
        public var flash: Flash
        /// Drive writes a day that flash may take; 0 is no limit.
        public var writesPerDay: Double

        /// The block `tiers.dram`.
        public struct DRAM: Sendable {
            /// Whether there is one.
            public var use: Bool
            /// Bytes of KV a node keeps in memory.
            public var perNode: Double
            /// First byte.
            public var latency: Double
        }
        /// The block `tiers.nvme`.
        public struct NVMe: Sendable {
            /// Whether there is one.
            public var use: Bool
            /// Bytes in each node.
            public var perNode: Double
            /// All drives of the node: four PCIe 4.0 drives of 7 GB/s.
            public var read: Double
            /// Bytes a second written, all drives together.
            public var write: Double
            /// First byte, seconds.
            public var latency: Double
        }
        /// The block `tiers.flash`.
        public struct Flash: Sendable {
            /// Whether there is one.
            public var use: Bool
            /// Eviction and admission of the store.
            public var policy: StorePolicy
            /// Servers of the store.
            public var servers: Int
            /// Bytes in each server.
            public var perServer: Double
            /// All drives of a server: 24 PCIe 4.0 drives of 7 GB/s.
            public var read: Double
            /// Bytes a second written, all drives together.
            public var write: Double
            /// Each way, per server: 2 x 400 GbE.
            public var nic: Double
            /// First byte, seconds.
            public var latency: Double
            /// Servers over which one request's blocks are spread.
            public var stripe: Int
        }
    }

    /// The block `links`.
    public struct Links: Sendable {
        /// How a link is shared.
        public var discipline: LinkDiscipline
        /// Share of each line rate that transfers reach.
        public var efficiency: Double
        /// Each way, per node: 400 GbE.
        public var hostNIC: Double
        /// Per node: copies in and out of DRAM, both ways together.
        public var hostMemory: Double
        /// Per GPU, each way, as reached; 0 takes the catalogue's figure.
        public var hostToGPU: Double

        /// What is reached between node memory and one GPU, bytes a second each way.
        func rateToGPU(of gpu: GPU) -> Double { hostToGPU > 0 ? hostToGPU : gpu.hostLinkBytesPerSecond }
    }

    /// The block `router`.
    public struct RouterSettings: Sendable {
        /// How a request finds its replica.
        public var policy: RouterPolicy
        /// How old the router's knowledge may be.
        public var staleness: Double
        /// Whether a session stays on one node, its name's, and the rule chooses among that node's replicas only. Not a
        /// key of scenarios: the systems whose tiers no other node can read are compared so.
        public var bindsSessionsToNodes = false

        /// A router of a policy, with knowledge up to `staleness` seconds old.
        public init(policy: RouterPolicy, staleness: Double) {
            self.policy = policy
            self.staleness = staleness
        }
    }

    /// The block `planner`.
    public struct PlannerSettings: Sendable {
        /// When a hit is loaded.
        public var policy: PlannerPolicy
        /// Seconds of TTFT that one GPU-second is worth.
        public var gpuWeight: Double
    }

    /// The block `prefetch`.
    public struct PrefetchSettings: Sendable {
        /// Whether there is one.
        public var use: Bool
        /// Share of the read rate below DRAM that prefetch may take.
        public var budget: Double
    }

    /// The block `slo`.
    public struct SLOSettings: Sendable {
        /// What it is called.
        public var name: String
        /// Longest time to first token, seconds.
        public var ttft: Double
        /// Longest mean time per output token, seconds.
        public var tpot: Double
        /// Share of requests that must meet both, where a cluster is sized by the SLO.
        public var share: Double
    }

    /// The block `prices`.
    public struct Prices: Sendable {
        /// H100 on demand, median of public lists, spring 2026.
        public var gpuHour: Double
        /// 24 drives, 2 x 400 GbE, amortised over four years.
        public var storeHour: Double
        /// Share of the switches that the store needs, per server.
        public var switchHour: Double
        /// A TB of local drives, amortised.
        public var nvmeHour: Double
        /// A TB of DRAM; the node's comes with the GPUs.
        public var dramHour: Double
    }

    /// The block `energy`.
    public struct EnergySettings: Sendable {
        /// Board power of a GPU, watts; 0 takes the catalogue's figure.
        public var gpu: Double
        /// Share of the board power while prefilling.
        public var prefill: Double
        /// Share of the board power while decoding.
        public var decode: Double
        /// Share of the board power while waiting.
        public var idle: Double
        /// J/GB.
        public var drive: Double
        /// J/GB, each.
        public var nic: Double
        /// J/GB, a store server's share.
        public var store: Double
    }

    /// The block `sweep`.
    public struct Sweep: Sendable {
        /// Whether there is one.
        public var use: Bool
        /// Multiples of the workload that are tried.
        public var loads: [Double]
        /// Cluster sizes tried for the SLO.
        public var replicas: [Int]
        /// Points of the miss-ratio curve.
        public var capacities: Int
    }
}

extension Scenario {
    /// GPUs of the cluster.
    public var gpus: Int { replicas * tensorParallel }
    /// Copies of the model in one node; a copy larger than a node takes several.
    public var replicasPerNode: Int { max(1, gpusPerNode / tensorParallel) }
    /// Hosts of the cluster.
    public var nodes: Int { (replicas + replicasPerNode - 1) / replicasPerNode }
}
