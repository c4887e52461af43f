// What one system did with the trace: where its tokens came from, its latencies, its GPU time, energy, cost, links.

/// What one system did with the trace.
public struct SystemResult: Codable, Sendable, Equatable {
    /// `1`, baselines `A` to `E`, ceilings `Y` and `Z`.
    public var key: String
    /// What it is called in tables and legends.
    public var name: String
    /// `run`, `baseline`, `reference` or `ceiling`.
    public var role: String
    /// Where each prompt token came from.
    public var ledger: Ledger
    /// First token out − arrival, with router, queue, load and prefill.
    public var ttft: Distribution
    /// The same without the queue.
    public var serviceTTFT: Distribution
    /// (Last − first token) ÷ (outputs − 1), for requests of two tokens or more.
    public var tpot: Distribution
    /// 99th percentile of the gaps between tokens.
    public var itlP99Seconds: Double
    /// Mean of the longest tenth of a request's gaps.
    public var tbt10Seconds: Distribution
    /// Time to first token without the warm-up share of requests.
    public var ttftAfterWarmUp: Distribution
    /// Requests whose last token came out.
    public var completedRequests: Int
    /// Requests a second that met both limits of the SLO.
    public var goodput: Double
    /// Output tokens a second of those requests.
    public var goodputTokens: Double
    /// Requests a second that arrived.
    public var offered: Double
    /// Share of requests that met the SLO.
    public var metSLO: Double
    /// Where the GPUs' time went.
    public var gpuSeconds: GPUSeconds
    /// FLOPs of useful work ÷ (peak FLOP/s × GPU-seconds).
    public var mfu: Double
    /// FLOPs of the prompt tokens that were not computed.
    public var flopsAvoided: Double
    /// GPU-seconds that those tokens would have taken alone.
    public var gpuSecondsAvoided: Double
    /// Times a running request was thrown out to make room.
    public var preemptions: Int
    /// Where the energy went.
    public var energy: Energy
    /// What the cluster of this replay cost over the run.
    public var cost: Cost
    /// What each link carried.
    public var links: [LinkResult]
    /// What prefetch gave and cost; `nil` when it was off.
    public var prefetch: PrefetchBalance?
    /// Bytes written to flash, local and shared.
    public var flashBytesWritten: Double

    /// Each argument is the property of that name.
    public init(
        key: String, name: String, role: String, ledger: Ledger, ttft: Distribution, serviceTTFT: Distribution,
        tpot: Distribution, itlP99Seconds: Double, tbt10Seconds: Distribution, ttftAfterWarmUp: Distribution,
        completedRequests: Int, goodput: Double, goodputTokens: Double, offered: Double, metSLO: Double,
        gpuSeconds: GPUSeconds, mfu: Double, flopsAvoided: Double, gpuSecondsAvoided: Double, preemptions: Int,
        energy: Energy, cost: Cost, links: [LinkResult], prefetch: PrefetchBalance? = nil, flashBytesWritten: Double
    ) {
        self.key = key
        self.name = name
        self.role = role
        self.ledger = ledger
        self.ttft = ttft
        self.serviceTTFT = serviceTTFT
        self.tpot = tpot
        self.itlP99Seconds = itlP99Seconds
        self.tbt10Seconds = tbt10Seconds
        self.ttftAfterWarmUp = ttftAfterWarmUp
        self.completedRequests = completedRequests
        self.goodput = goodput
        self.goodputTokens = goodputTokens
        self.offered = offered
        self.metSLO = metSLO
        self.gpuSeconds = gpuSeconds
        self.mfu = mfu
        self.flopsAvoided = flopsAvoided
        self.gpuSecondsAvoided = gpuSecondsAvoided
        self.preemptions = preemptions
        self.energy = energy
        self.cost = cost
        self.links = links
        self.prefetch = prefetch
        self.flashBytesWritten = flashBytesWritten
    }

    /// A system of which only the ledger is known: a ceiling that was counted, not modelled in time.
    public init(counted key: String, name: String, role: String, ledger: Ledger) {
        self.init(
            key: key, name: name, role: role, ledger: ledger, ttft: .none, serviceTTFT: .none, tpot: .none,
            itlP99Seconds: 0, tbt10Seconds: .none, ttftAfterWarmUp: .none, completedRequests: 0, goodput: 0,
            goodputTokens: 0, offered: 0, metSLO: 0, gpuSeconds: GPUSeconds(), mfu: 0, flopsAvoided: 0,
            gpuSecondsAvoided: 0, preemptions: 0, energy: Energy(), cost: .none, links: [], prefetch: nil,
            flashBytesWritten: 0)
    }

    /// Whether times were found out for this system; else only its ledger counts.
    public var hasTimes: Bool { ttft.count > 0 }
}

/// Each prompt token in exactly one place: the tier that served it, or the cause for which it was computed.
public struct Ledger: Codable, Sendable, Equatable {
    /// Tokens served by GPU memory.
    public var hbm = 0
    /// Tokens served by node memory.
    public var dram = 0
    /// Tokens served by node flash.
    public var nvme = 0
    /// Tokens served by the shared flash store.
    public var flash = 0
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

    /// An empty ledger.
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
    /// Requests in it; 0 means that nothing is known.
    public var count: Int
    /// The mean.
    public var mean: Double
    /// 1st percentile.
    public var p1: Double
    /// 10th percentile.
    public var p10: Double
    /// The median.
    public var p50: Double
    /// 90th percentile.
    public var p90: Double
    /// 95th percentile.
    public var p95: Double
    /// 99th percentile.
    public var p99: Double
    /// 99.9th percentile.
    public var p999: Double
    /// At most 200 points `[seconds, share of requests at or below]`, rising.
    public var cdf: [[Double]]

    /// Each argument is the property of that name.
    public init(
        count: Int, mean: Double, p1: Double, p10: Double, p50: Double, p90: Double, p95: Double, p99: Double,
        p999: Double, cdf: [[Double]]
    ) {
        self.count = count
        self.mean = mean
        self.p1 = p1
        self.p10 = p10
        self.p50 = p50
        self.p90 = p90
        self.p95 = p95
        self.p99 = p99
        self.p999 = p999
        self.cdf = cdf
    }

    /// Nothing is known.
    public static let none = Distribution(
        count: 0, mean: 0, p1: 0, p10: 0, p50: 0, p90: 0, p95: 0, p99: 0, p999: 0, cdf: [])
}

/// GPU-seconds of all GPUs from the first arrival to the last completion, each in one class.
public struct GPUSeconds: Codable, Sendable, Equatable {
    /// Iterations, as if they held decodes only.
    public var decode = 0.0
    /// What prefill added for tokens never computed before in this run.
    public var prefillUseful = 0.0
    /// What prefill added for tokens computed before anywhere in the cluster.
    public var prefillRecomputed = 0.0
    /// Nothing to run, and a request waits for KV.
    public var stalledOnLoad = 0.0
    /// Nothing to run and nothing loading.
    public var idle = 0.0
    /// GPUs × span, which the five classes must add up to.
    public var total = 0.0

    /// All zero.
    public init() {}
}

/// Where the energy went, in joules.
public struct Energy: Codable, Sendable, Equatable {
    /// GPUs computing prompts.
    public var prefill = 0.0
    /// GPUs generating.
    public var decode = 0.0
    /// GPUs stalled or idle.
    public var idle = 0.0
    /// Drives, NICs and the store's share, per byte moved.
    public var moving = 0.0

    /// All zero.
    public init() {}

    /// All of it.
    public var total: Double { prefill + decode + idle + moving }
}

/// What the cluster cost over the run, in USD.
public struct Cost: Codable, Sendable, Equatable {
    /// GPUs of the cluster; 0 means that no cost is known.
    public var gpus: Int
    /// The GPUs' share.
    public var gpu: Double
    /// Storage servers and local drives.
    public var storage: Double
    /// Switches' share.
    public var switches: Double
    /// All ÷ million tokens in and out.
    public var perMillionTokens: Double
    /// All ÷ million tokens out.
    public var perMillionOutputTokens: Double
    /// All ÷ requests.
    public var perRequest: Double

    /// Each argument is the property of that name.
    public init(
        gpus: Int, gpu: Double, storage: Double, switches: Double, perMillionTokens: Double,
        perMillionOutputTokens: Double, perRequest: Double
    ) {
        self.gpus = gpus
        self.gpu = gpu
        self.storage = storage
        self.switches = switches
        self.perMillionTokens = perMillionTokens
        self.perMillionOutputTokens = perMillionOutputTokens
        self.perRequest = perRequest
    }

    /// Nothing is known.
    public static let none = Cost(
        gpus: 0, gpu: 0, storage: 0, switches: 0, perMillionTokens: 0, perMillionOutputTokens: 0, perRequest: 0)

    /// All of it.
    public var total: Double { gpu + storage + switches }
}

/// What one link carried.
public struct LinkResult: Codable, Sendable, Equatable {
    /// What people call it: "host NIC, the busier of 2".
    public var name: String
    /// Bytes a second on the data sheet.
    public var lineRate: Double
    /// Bytes a second that can be reached: line rate × efficiency.
    public var practical: Double
    /// Bytes a second over the whole run.
    public var mean: Double
    /// Bytes a second in the busiest 1 % of seconds.
    public var p99Second: Double
    /// Share of seconds at 95 % of the practical rate or more.
    public var timeAtLimit: Double
    /// Bytes in all.
    public var bytes: Double
    /// At most 240 bins of equal width over the span: mean bytes a second.
    public var series: [Double]
    /// Bytes a second of the busiest second of each bin, as many as `series`; empty when not known.
    public var peaks: [Double] = []

    /// Each argument is the property of that name.
    public init(
        name: String, lineRate: Double, practical: Double, mean: Double, p99Second: Double, timeAtLimit: Double,
        bytes: Double, series: [Double], peaks: [Double] = []
    ) {
        self.name = name
        self.lineRate = lineRate
        self.practical = practical
        self.mean = mean
        self.p99Second = p99Second
        self.timeAtLimit = timeAtLimit
        self.bytes = bytes
        self.series = series
        self.peaks = peaks
    }
}

/// What prefetch gave and what it cost.
public struct PrefetchBalance: Codable, Sendable, Equatable {
    /// Bytes that a request then read from DRAM.
    public var bytesUsed = 0.0
    /// Bytes that left DRAM without having been read.
    public var bytesNeverUsed = 0.0
    /// Bytes that came after the request they were for.
    public var bytesLate = 0.0
    /// Bytes moved for transfers that were called off.
    public var bytesCancelled = 0.0
    /// Used ÷ moved.
    public var precision = 0.0
    /// Used ÷ all that was served from tiers below DRAM or would have been.
    public var recall = 0.0
    /// Seconds of TTFT saved, summed over requests; above zero.
    public var ttftSecondsSaved = 0.0
    /// Seconds of TTFT of the hits it displaced; below zero.
    public var ttftSecondsDisplaced = 0.0
    /// Seconds of TTFT of loads that waited behind it; below zero.
    public var ttftSecondsContention = 0.0
    /// Seconds of TTFT, summed over requests, that the same replay without prefetch took longer; nil where there was none.
    public var ttftSecondsBySecondRun: Double?
    /// False where bytes were counted and no time was told apart, as by live agents; the seconds above then mean nothing.
    public var hasTimes: Bool?
    /// The bytes by reason.
    public var byReason: [PrefetchOfReason] = []

    /// All zero.
    public init() {}
}

/// Prefetch started for one reason.
public struct PrefetchOfReason: Codable, Sendable, Equatable {
    /// `session`, `successor`, `popularity` or `queue`.
    public var reason: String
    /// Bytes moved for it.
    public var bytesMoved: Double
    /// Bytes of those that were used.
    public var bytesUsed: Double

    /// Each argument is the property of that name.
    public init(reason: String, bytesMoved: Double, bytesUsed: Double) {
        self.reason = reason
        self.bytesMoved = bytesMoved
        self.bytesUsed = bytesUsed
    }
}
