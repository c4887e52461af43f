// What a replay leaves behind: facts, no conclusions. `report` reads records and draws the conclusions.
//
// A modelled record holds no wall time, host name or anything else of the machine that made it: same trace,
// scenario and seed give the same bytes everywhere. Quantities are SI base units, named in the key; shares are
// fractions. What a replay did not find out is absent, never zero.

/// The result of one replay, with all systems that were compared in it.
public struct Record: Codable, Sendable, Equatable {
    /// The only schema this version reads and writes.
    public static let schemaName = "holdfast-record-1"

    /// Always `holdfast-record-1`.
    public var schema = Record.schemaName
    /// The version of Holdfast that made it.
    public var version: String
    /// What the record is called in reports.
    public var name: String
    /// How its times came about.
    public var mode: Mode
    /// What was replayed.
    public var trace: TraceSummary
    /// What it was replayed with.
    public var configuration: Configuration
    /// The serving model's class of error for this model and engine.
    public var modelError: ModelError
    /// The systems compared: key "1" is the configured one, then the baselines and ceilings.
    public var systems: [SystemResult]
    /// Misses against bytes kept, counted without time.
    public var missRatioCurve: MissRatioCurve?
    /// The same trace at other loads.
    public var loadSweep: LoadSweep?
    /// The smallest cluster that meets the SLO, per system.
    public var sloSearch: [SLOSearchResult]
    /// Every input a person gave that has a unit of money or power.
    public var prices: [Price]
    /// What must hold in every record, and whether it did.
    public var checks: [Check]
    /// Said on every form of the report, beside its name: "SAMPLE DATA: every number here is invented".
    public var notice: String?
    /// What only a live run knows.
    public var live: LiveRun?

    /// How the times of a record came about.
    public enum Mode: String, Codable, Sendable {
        /// Virtual time from the serving model.
        case modelled
        /// Clocks and counters of real machines.
        case live
    }

    /// A record of what a replay found; each argument is the property of that name.
    public init(
        version: String, name: String, mode: Mode, trace: TraceSummary, configuration: Configuration,
        modelError: ModelError, systems: [SystemResult], missRatioCurve: MissRatioCurve? = nil,
        loadSweep: LoadSweep? = nil, sloSearch: [SLOSearchResult] = [], prices: [Price], checks: [Check],
        notice: String? = nil, live: LiveRun? = nil
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
        self.notice = notice
        self.live = live
    }
}

/// What was replayed.
public struct TraceSummary: Codable, Sendable, Equatable {
    /// The trace's name: its file name without folder and extensions.
    public var name: String
    /// The format it was read as.
    public var format: String
    /// SHA-256 of the file's content, decompressed, in hexadecimal.
    public var sha256: String
    /// Requests replayed.
    public var requests: Int
    /// Prompt tokens of all requests.
    public var inputTokens: Int
    /// Generated tokens of all requests.
    public var outputTokens: Int
    /// Blocks named by all requests, repetitions counted.
    public var blockReferences: Int
    /// Different blocks among them.
    public var uniqueBlocks: Int
    /// Tokens of a full block.
    public var blockTokens: Int
    /// From the first arrival to the last.
    public var spanSeconds: Double
    /// Conversations, where the trace names them.
    public var sessions: Int?
    /// Lines left out as unreadable.
    public var skippedLines: Int

    /// Each argument is the property of that name.
    public init(
        name: String, format: String, sha256: String, requests: Int, inputTokens: Int, outputTokens: Int,
        blockReferences: Int, uniqueBlocks: Int, blockTokens: Int, spanSeconds: Double, sessions: Int? = nil,
        skippedLines: Int
    ) {
        self.name = name
        self.format = format
        self.sha256 = sha256
        self.requests = requests
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
        self.blockReferences = blockReferences
        self.uniqueBlocks = uniqueBlocks
        self.blockTokens = blockTokens
        self.spanSeconds = spanSeconds
        self.sessions = sessions
        self.skippedLines = skippedLines
    }

    /// Whether it tells which prompts share a prefix. Azure's published traces are arrivals and lengths alone.
    var tellsPrefixes: Bool { format != "azure" }
}

/// What it was replayed with: enough to make the record again.
public struct Configuration: Codable, Sendable, Equatable {
    /// Decides every random draw.
    public var seed: UInt64
    /// The scenario's name.
    public var scenario: String
    /// SHA-256 of `scenarioText`, in hexadecimal.
    public var scenarioSHA256: String
    /// The whole scenario as YAML, overrides applied.
    public var scenarioText: String
    /// `--set` options, key to value.
    public var overrides: [String: String]
    /// The command that makes this record again.
    public var command: String
    /// The model served: `Llama-3.1-70B`.
    public var model: String
    /// The GPU it runs on: `H100`.
    public var gpu: String
    /// The weights' type: `fp8`.
    public var weights: String
    /// The KV cache's type: `bf16`.
    public var kvType: String
    /// Copies of the model.
    public var replicas: Int
    /// GPUs of one copy.
    public var tensorParallel: Int
    /// GPUs in all.
    public var gpus: Int
    /// `full`, `host` or `engine`: who owns the HBM and host tiers.
    public var ownership: String
    /// The tiers of system 1, nearest to the GPU first.
    public var tiers: [RecordedTier]
    /// `exclusive`, `inclusive` or `keep`: whether a block in a nearer tier stays in the farther one.
    public var inclusion: String
    /// The eviction policy of system 1.
    public var policy: String
    /// `always`, `threshold` or `split`: load or recompute.
    public var planner: String
    /// How loads overlap with compute.
    public var overlap: String
    /// `processor-sharing`, `round-robin` or `fifo`.
    public var linkDiscipline: String
    /// Which replica gets a request.
    public var router: String
    /// Age of what the router knows.
    public var routerStalenessSeconds: Double
    /// Whether system 1 prefetches.
    public var prefetch: Bool
    /// `open` (arrival times of the trace) or `sessions` (a think time after the previous turn ended).
    public var arrivals: String
    /// Share of the first requests that `ttftAfterWarmUp` leaves out.
    public var warmUpShare: Double
    /// Client overhead added to each TTFT.
    public var requestOverheadSeconds: Double
    /// What a request must reach to count as good.
    public var slo: SLO
    /// Bytes of KV of one token of the whole model.
    public var kvBytesPerToken: Double
    /// Where the model and GPU constants come from.
    public var constantsSource: String

    /// Each argument is the property of that name.
    public init(
        seed: UInt64, scenario: String, scenarioSHA256: String, scenarioText: String, overrides: [String: String],
        command: String, model: String, gpu: String, weights: String, kvType: String, replicas: Int,
        tensorParallel: Int, gpus: Int, ownership: String, tiers: [RecordedTier], inclusion: String,
        policy: String, planner: String, overlap: String, linkDiscipline: String, router: String,
        routerStalenessSeconds: Double, prefetch: Bool, arrivals: String, warmUpShare: Double,
        requestOverheadSeconds: Double, slo: SLO, kvBytesPerToken: Double, constantsSource: String
    ) {
        self.seed = seed
        self.scenario = scenario
        self.scenarioSHA256 = scenarioSHA256
        self.scenarioText = scenarioText
        self.overrides = overrides
        self.command = command
        self.model = model
        self.gpu = gpu
        self.weights = weights
        self.kvType = kvType
        self.replicas = replicas
        self.tensorParallel = tensorParallel
        self.gpus = gpus
        self.ownership = ownership
        self.tiers = tiers
        self.inclusion = inclusion
        self.policy = policy
        self.planner = planner
        self.overlap = overlap
        self.linkDiscipline = linkDiscipline
        self.router = router
        self.routerStalenessSeconds = routerStalenessSeconds
        self.prefetch = prefetch
        self.arrivals = arrivals
        self.warmUpShare = warmUpShare
        self.requestOverheadSeconds = requestOverheadSeconds
        self.slo = slo
        self.kvBytesPerToken = kvBytesPerToken
        self.constantsSource = constantsSource
    }
}

/// One tier of the configured system.
public struct RecordedTier: Codable, Sendable, Equatable {
    /// `hbm`, `dram`, `nvme` or `flash`.
    public var tier: String
    /// Bytes in all, over the cluster.
    public var bytes: Double
    /// Whether all replicas see the same blocks.
    public var shared: Bool

    /// Each argument is the property of that name.
    public init(tier: String, bytes: Double, shared: Bool) {
        self.tier = tier
        self.bytes = bytes
        self.shared = shared
    }
}

/// What a request must reach to count as good.
public struct SLO: Codable, Sendable, Equatable {
    /// What people call it: `interactive`.
    public var name: String
    /// Longest time to first token.
    public var ttftSeconds: Double
    /// Longest mean time per output token.
    public var tpotSeconds: Double
    /// Share of requests that must meet both for a cluster to count as large enough.
    public var requiredShare: Double = 0.9

    /// Each argument is the property of that name.
    public init(name: String, ttftSeconds: Double, tpotSeconds: Double, requiredShare: Double = 0.9) {
        self.name = name
        self.ttftSeconds = ttftSeconds
        self.tpotSeconds = tpotSeconds
        self.requiredShare = requiredShare
    }
}

/// The serving model's class of error for this model and engine, as fractions of the measured mean.
public struct ModelError: Codable, Sendable, Equatable {
    /// Mean absolute error of mean TTFT.
    public var ttftMean: Double
    /// Mean absolute error of TPOT.
    public var tpot: Double
    /// For which class it was found: "dense, vLLM".
    public var kind: String

    /// Each argument is the property of that name.
    public init(ttftMean: Double, tpot: Double, kind: String) {
        self.ttftMean = ttftMean
        self.tpot = tpot
        self.kind = kind
    }
}

/// A price, wattage or other input a person gave.
public struct Price: Codable, Sendable, Equatable {
    /// The scenario key that changes it: `prices.gpuHour`.
    public var key: String
    /// In `unit`.
    public var value: Double
    /// `USD`, `W`, `J/GB`.
    public var unit: String
    /// What it is, in words: "H100, per GPU-hour". The key stands for it when absent.
    public var label: String?

    /// Each argument is the property of that name.
    public init(key: String, value: Double, unit: String, label: String? = nil) {
        self.key = key
        self.value = value
        self.unit = unit
        self.label = label
    }
}

/// Something that must hold in every record.
public struct Check: Codable, Sendable, Equatable {
    /// What must hold, in words: "every prompt token is in exactly one class".
    public var name: String
    /// Whether it held.
    public var passed: Bool
    /// One side of the comparison.
    public var left: Double
    /// The other side.
    public var right: Double

    /// Each argument is the property of that name.
    public init(name: String, passed: Bool, left: Double, right: Double) {
        self.name = name
        self.passed = passed
        self.left = left
        self.right = right
    }
}

/// What only a live run knows: where it ran, and how its interleaved pairs compare.
public struct LiveRun: Codable, Sendable, Equatable {
    /// The machine, in words: "2 × EPYC 9454, 8 × H100, 4 × 400 GbE".
    public var machine: String
    /// How often the trace was run.
    public var runs: Int
    /// Interleaved pairs against the reference, where they were made.
    public var pairs: [PairedRatio] = []
    /// How long loads took beside what the device profile says, by tier, where one was named.
    public var loads: [LoadTimes]?

    /// Each argument is the property of that name.
    public init(machine: String, runs: Int, pairs: [PairedRatio] = [], loads: [LoadTimes]? = nil) {
        self.machine = machine
        self.runs = runs
        self.pairs = pairs
        self.loads = loads
    }
}

/// One figure of this record ÷ the same figure of the reference, over interleaved pairs of runs.
public struct PairedRatio: Codable, Sendable, Equatable {
    /// A key of the report's `summary`: `ttftP50`.
    public var figure: String
    /// Pairs compared; conclusions need 15.
    public var pairs: Int
    /// The median ratio.
    public var median: Double
    /// Lower end of its 95 % interval.
    public var low: Double
    /// Upper end of its 95 % interval.
    public var high: Double

    /// Each argument is the property of that name.
    public init(figure: String, pairs: Int, median: Double, low: Double, high: Double) {
        self.figure = figure
        self.pairs = pairs
        self.median = median
        self.low = low
        self.high = high
    }
}
