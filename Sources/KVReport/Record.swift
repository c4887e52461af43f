// What a replay leaves behind: facts, no conclusions. `report` reads records and draws the conclusions.
//
// A modelled record holds no wall time, host name or anything else of the machine that made it: same trace,
// scenario and seed give the same bytes everywhere. Quantities are SI base units, named in the key.

/// The result of one replay, with all systems that were compared in it.
public struct Record: Codable, Sendable, Equatable {
    /// Always `holdfast-record-1`.
    public var schema = "holdfast-record-1"
    /// The version of Holdfast that made it.
    public var version: String
    /// What the record is called in reports.
    public var name: String
    /// How its times came about.
    public var mode: Mode
    public var trace: TraceSummary
    public var configuration: Configuration
    public var modelError: ModelError
    /// The systems compared: key "1" is the configured one, then the baselines and ceilings.
    public var systems: [SystemResult]
    public var missRatioCurve: MissRatioCurve?
    public var loadSweep: LoadSweep?
    public var sloSearch: [SLOSearchResult]
    public var prices: [Price]
    public var checks: [Check]

    /// How the times of a record came about.
    public enum Mode: String, Codable, Sendable { case modelled, live }

    public init(
        version: String, name: String, mode: Mode, trace: TraceSummary, configuration: Configuration,
        modelError: ModelError, systems: [SystemResult], missRatioCurve: MissRatioCurve? = nil,
        loadSweep: LoadSweep? = nil, sloSearch: [SLOSearchResult] = [], prices: [Price], checks: [Check]
    ) {
        self.version = version
        self.name = name
        self.mode = mode
        self.trace = trace
        self.configuration = configuration
        self.modelError = modelError
        self.systems = systems
        self.missRatioCurve = missRatioCurve
        self.loadSweep = loadSweep
        self.sloSearch = sloSearch
        self.prices = prices
        self.checks = checks
    }
}

/// What was replayed.
public struct TraceSummary: Codable, Sendable, Equatable {
    public var name: String
    public var format: String
    public var sha256: String
    public var requests: Int
    public var inputTokens: Int
    public var outputTokens: Int
    public var blockReferences: Int
    public var uniqueBlocks: Int
    public var blockTokens: Int
    public var spanSeconds: Double
    /// Conversations, where the trace names them.
    public var sessions: Int?
    /// Lines left out as unreadable.
    public var skippedLines: Int
}

/// What it was replayed with: enough to make the record again.
public struct Configuration: Codable, Sendable, Equatable {
    public var seed: UInt64
    public var scenario: String
    public var scenarioSHA256: String
    /// The whole scenario as YAML, overrides applied.
    public var scenarioText: String
    /// `--set` options, key to value.
    public var overrides: [String: String]
    /// The command that makes this record again.
    public var command: String
    public var model: String
    public var gpu: String
    public var weights: String
    public var kvType: String
    public var replicas: Int
    public var tensorParallel: Int
    public var gpus: Int
    /// `full`, `host` or `engine`: who owns the HBM and host tiers.
    public var ownership: String
    public var tiers: [TierConfiguration]
    public var inclusion: String
    public var policy: String
    public var planner: String
    public var overlap: String
    public var linkDiscipline: String
    public var router: String
    public var routerStalenessSeconds: Double
    public var prefetch: Bool
    public var arrivals: String
    public var warmUpShare: Double
    public var requestOverheadSeconds: Double
    public var slo: SLO
    /// Bytes of KV of one token of the whole model.
    public var kvBytesPerToken: Double
    /// Where the model and GPU constants come from.
    public var constantsSource: String
}

/// One tier of the configured system.
public struct TierConfiguration: Codable, Sendable, Equatable {
    public var tier: String
    /// Bytes in all, over the cluster.
    public var bytes: Double
    /// Whether all replicas see the same blocks.
    public var shared: Bool
}

/// What a request must reach to count as good.
public struct SLO: Codable, Sendable, Equatable {
    public var name: String
    public var ttftSeconds: Double
    public var tpotSeconds: Double
}

/// The serving model's class of error for this model and engine, as fractions of the measured mean.
public struct ModelError: Codable, Sendable, Equatable {
    public var ttftMean: Double
    public var tpot: Double
    /// For which class it was found: "dense, vLLM".
    public var kind: String
}

/// What one system did with the trace.
public struct SystemResult: Codable, Sendable, Equatable {
    /// `1`, baselines `A` to `E`, ceilings `Y` and `Z`.
    public var key: String
    public var name: String
    /// `run`, `baseline`, `reference` or `ceiling`.
    public var role: String
    public var ledger: Ledger
    public var ttft: Distribution
    public var serviceTTFT: Distribution
    public var tpot: Distribution
    public var itlP99Seconds: Double
    public var tbt10Seconds: Distribution
    /// Time to first token without the warm-up share of requests.
    public var ttftAfterWarmUp: Distribution
    public var completedRequests: Int
    /// Requests a second that met both limits of the SLO.
    public var goodput: Double
    public var goodputTokens: Double
    /// Requests a second that arrived.
    public var offered: Double
    /// Share of requests that met the SLO.
    public var metSLO: Double
    public var gpuSeconds: GPUSeconds
    /// FLOPs of useful work ÷ (peak FLOP/s × GPU-seconds).
    public var mfu: Double
    /// FLOPs of the prompt tokens that were not computed.
    public var flopsAvoided: Double
    /// GPU-seconds that those tokens would have taken alone.
    public var gpuSecondsAvoided: Double
    public var preemptions: Int
    public var energy: Energy
    public var cost: Cost
    public var links: [LinkResult]
    public var prefetch: PrefetchBalance?
    /// Bytes written to flash, local and shared.
    public var flashBytesWritten: Double
}

/// Each prompt token in exactly one place: the tier that served it, or the cause for which it was computed.
public struct Ledger: Codable, Sendable, Equatable {
    /// Tokens served, by tier name.
    public var hbm = 0, dram = 0, nvme = 0, flash = 0
    /// Never seen before anywhere in the cluster.
    public var firstSeen = 0
    /// It had been kept and was evicted.
    public var evicted = 0
    /// It was refused when it asked to be kept.
    public var refused = 0
    /// It was kept, but in a place this replica cannot reach.
    public var heldElsewhere = 0
    /// It was there at look-up and gone when it was loaded.
    public var lostAfterLookUp = 0
    /// It was on its way and did not come in time.
    public var late = 0
    /// Its bytes could not be proven right.
    public var corrupt = 0
    /// Its namespace had no room left.
    public var quota = 0
    /// There was no tier to keep it in.
    public var noTier = 0
    /// Loading it would have taken longer than computing it.
    public var recomputeCheaper = 0
    /// The last token of a prompt, always computed, or tokens behind the last full block.
    public var alwaysComputed = 0

    public init() {}

    /// Tokens that came out of a tier.
    public var served: Int { hbm + dram + nvme + flash }
    /// Tokens computed although they had been computed before.
    public var recomputed: Int {
        evicted + refused + heldElsewhere + lostAfterLookUp + late + corrupt + quota + noTier + recomputeCheaper
    }
    /// All prompt tokens.
    public var total: Int { served + recomputed + firstSeen + alwaysComputed }
}

/// A distribution over requests, in seconds.
public struct Distribution: Codable, Sendable, Equatable {
    public var count: Int
    public var mean: Double
    public var p1: Double
    public var p10: Double
    public var p50: Double
    public var p90: Double
    public var p95: Double
    public var p99: Double
    public var p999: Double
    /// At most 200 points `[seconds, share of requests at or below]`, rising.
    public var cdf: [[Double]]
}

/// GPU-seconds of all GPUs from the first arrival to the last completion, each in one class.
public struct GPUSeconds: Codable, Sendable, Equatable {
    public var decode = 0.0
    public var prefillUseful = 0.0
    public var prefillRecomputed = 0.0
    public var stalledOnLoad = 0.0
    public var idle = 0.0
    /// GPUs × span, which the five classes must add up to.
    public var total = 0.0

    public init() {}
}

/// Where the energy went, in joules.
public struct Energy: Codable, Sendable, Equatable {
    public var prefill = 0.0
    public var decode = 0.0
    public var idle = 0.0
    public var moving = 0.0

    public init() {}
    public var total: Double { prefill + decode + idle + moving }
}

/// What the cluster cost over the run, in USD.
public struct Cost: Codable, Sendable, Equatable {
    public var gpus: Int
    public var gpu: Double
    public var storage: Double
    public var switches: Double
    public var perMillionTokens: Double
    public var perMillionOutputTokens: Double
    public var perRequest: Double
    public var total: Double { gpu + storage + switches }
}

/// What one link carried.
public struct LinkResult: Codable, Sendable, Equatable {
    public var name: String
    /// Bytes a second on the data sheet.
    public var lineRate: Double
    /// Bytes a second that can be reached: line rate × efficiency.
    public var practical: Double
    public var mean: Double
    /// Bytes a second in the busiest 1 % of seconds.
    public var p99Second: Double
    /// Share of seconds at 95 % of the practical rate or more.
    public var timeAtLimit: Double
    public var bytes: Double
    /// At most 240 bins of equal width over the span: mean bytes a second.
    public var series: [Double]
}

/// What prefetch gave and what it cost.
public struct PrefetchBalance: Codable, Sendable, Equatable {
    public var bytesUsed = 0.0
    public var bytesNeverUsed = 0.0
    public var bytesLate = 0.0
    public var bytesCancelled = 0.0
    /// Used ÷ moved.
    public var precision = 0.0
    /// Used ÷ all that was served from tiers below DRAM or would have been.
    public var recall = 0.0
    /// Seconds of TTFT, summed over requests: saved above zero, costs below.
    public var ttftSecondsSaved = 0.0
    public var ttftSecondsDisplaced = 0.0
    public var ttftSecondsContention = 0.0
    public var byReason: [PrefetchReason] = []

    public init() {}
}

/// Prefetch started for one reason.
public struct PrefetchReason: Codable, Sendable, Equatable {
    /// `session`, `successor`, `popularity` or `queue`.
    public var reason: String
    public var bytesMoved: Double
    public var bytesUsed: Double
}

/// Prompt tokens missed against bytes kept, counted without time.
public struct MissRatioCurve: Codable, Sendable, Equatable {
    public var bytes: [Double]
    /// Miss ratio of prompt tokens, per policy name.
    public var policies: [String: [Double]]
    /// What an endless cache still misses.
    public var infinite: Double
    public var marks: [TierMark]
}

/// Where a tier's size falls on a curve.
public struct TierMark: Codable, Sendable, Equatable {
    public var tier: String
    public var bytes: Double
}

/// The same trace at other loads.
public struct LoadSweep: Codable, Sendable, Equatable {
    /// Rising.
    public var sessionsPerGPU: [Double]
    /// Useful share of busy GPU time, per system key.
    public var usefulShareOfBusy: [String: [Double]]
    /// USD per million tokens at the same SLO or on the same GPUs, per system key.
    public var costPerMillionTokens: [String: [Double]]
    /// Share of requests that met the SLO, per system key.
    public var metSLO: [String: [Double]]
    /// Sessions per GPU at which a system's tiers are full: counted bytes ÷ mean bytes a session.
    public var capacity: [String: Double]
    /// The load of the trace itself.
    public var traceRunsAt: Double
}

/// The smallest cluster with which a system meets the SLO.
public struct SLOSearchResult: Codable, Sendable, Equatable {
    public var key: String
    /// `nil` when no cluster tried met it.
    public var gpus: Int?
    public var cost: Cost?
    public var triedGPUs: [Int]
}

/// A price, wattage or other input a person gave.
public struct Price: Codable, Sendable, Equatable {
    /// The scenario key that changes it: `prices.gpuHour`.
    public var key: String
    public var value: Double
    public var unit: String
}

/// Something that must hold in every record.
public struct Check: Codable, Sendable, Equatable {
    public var name: String
    public var passed: Bool
    public var left: Double
    public var right: Double
}
