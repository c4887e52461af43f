// What many replays of one trace found together: sizes, loads, clusters.

/// Prompt tokens missed against bytes kept, counted without time.
public struct MissRatioCurve: Codable, Sendable, Equatable {
    /// Distinct bytes kept over all tiers, rising.
    public var bytes: [Double]
    /// Miss ratio of prompt tokens at each of `bytes`, per policy name.
    public var policies: [String: [Double]]
    /// What an endless cache still misses.
    public var infinite: Double
    /// Where the configured tiers end, their bytes added up from the GPU outwards.
    public var marks: [TierMark]

    /// Each argument is the property of that name.
    public init(bytes: [Double], policies: [String: [Double]], infinite: Double, marks: [TierMark]) {
        self.bytes = bytes
        self.policies = policies
        self.infinite = infinite
        self.marks = marks
    }
}

/// Where a tier's size falls on a curve.
public struct TierMark: Codable, Sendable, Equatable {
    /// `hbm`, `dram`, `nvme` or `flash`.
    public var tier: String
    /// Bytes of this tier and all nearer ones.
    public var bytes: Double

    /// Each argument is the property of that name.
    public init(tier: String, bytes: Double) {
        self.tier = tier
        self.bytes = bytes
    }
}

/// The same trace at other loads.
public struct LoadSweep: Codable, Sendable, Equatable {
    /// Rising.
    public var sessionsPerGPU: [Double]
    /// Useful share of busy GPU time at each load, per system key.
    public var usefulShareOfBusy: [String: [Double]]
    /// USD per million tokens at each load, at the same SLO (or on the same GPUs), per system key.
    public var costPerMillionTokens: [String: [Double]]
    /// Share of requests that met the SLO at each load, per system key.
    public var metSLO: [String: [Double]]
    /// Sessions per GPU at which a system's tiers are full: counted bytes ÷ mean bytes a session.
    public var capacity: [String: Double]
    /// The load of the trace itself.
    public var traceRunsAt: Double

    /// Each argument is the property of that name.
    public init(
        sessionsPerGPU: [Double], usefulShareOfBusy: [String: [Double]], costPerMillionTokens: [String: [Double]],
        metSLO: [String: [Double]], capacity: [String: Double], traceRunsAt: Double
    ) {
        self.sessionsPerGPU = sessionsPerGPU
        self.usefulShareOfBusy = usefulShareOfBusy
        self.costPerMillionTokens = costPerMillionTokens
        self.metSLO = metSLO
        self.capacity = capacity
        self.traceRunsAt = traceRunsAt
    }
}

/// The smallest cluster with which a system meets the SLO.
public struct SLOSearchResult: Codable, Sendable, Equatable {
    /// The system.
    public var key: String
    /// `nil` when no cluster tried met it.
    public var gpus: Int?
    /// What that cluster costs over the run.
    public var cost: Cost?
    /// Clusters tried, rising.
    public var triedGPUs: [Int]
    /// The smallest cluster if every TTFT were longer by the model's error; `nil` when none tried did, or not known.
    public var gpusIfSlower: Int?
    /// What that cluster costs over the run.
    public var costIfSlower: Cost?

    /// Each argument is the property of that name.
    public init(
        key: String, gpus: Int? = nil, cost: Cost? = nil, triedGPUs: [Int], gpusIfSlower: Int? = nil,
        costIfSlower: Cost? = nil
    ) {
        self.key = key
        self.gpus = gpus
        self.cost = cost
        self.triedGPUs = triedGPUs
        self.gpusIfSlower = gpusIfSlower
        self.costIfSlower = costIfSlower
    }
}
