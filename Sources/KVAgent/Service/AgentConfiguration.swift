// What an operator says about an agent, with every setting documented once, in `all`.

import KVModel
import KVSettings
import KVTiering
import KVTransport

/// The settings of `holdfast agent`, with their defaults.
public struct AgentConfiguration: NamedSettings, Sendable, Equatable {
    /// The socket through which engines come.
    public var socket = "/run/holdfast/agent.sock"
    /// Users (numbers) whose engines may come beside the agent's own user.
    public var users: [UInt32] = []
    /// Engines at once.
    public var engines = 64
    /// HBM slots that are the agent's, of which engines read and write their blocks; 0: engines own their GPU's memory.
    public var hbm = 0
    /// What they lie in: `emulated`, `cuda:N`, or empty where there are none.
    public var device = ""
    /// Node memory for blocks.
    public var dram = 8 << 30
    /// Whether node memory lies on huge pages if the machine has them.
    public var hugePages = true
    /// Whether node memory is pinned, so that it is never swapped out.
    public var pinMemory = true
    /// The NUMA node of node memory: a number, `auto` (that of the GPU, else that of the RDMA device), or `any`.
    public var numaNode = "auto"
    /// A file or block device for blocks of this node; empty: none.
    public var nvme = ""
    /// Bytes of it; nil: a block device whole.
    public var nvmeSize: Int?
    /// Bytes that may be written to it in a day; 0 is no limit.
    public var nvmeWritePerDay = 0
    /// The shared store, `address:port`; empty: none.
    public var store = ""
    /// The store's namespace; empty: the one that engines name.
    public var namespace = ""
    /// Who the agent is at the store.
    public var tenant = "local"
    /// The file with the tenant's key.
    public var keys = ""
    /// The device of RDMA on the way to the store, if any, and how it is used.
    public var rdma = VerbsConfiguration()
    /// Where the store accepts RDMA sessions.
    public var rdmaStore = ""
    /// PEM file of who signed the store's certificate; with it the way to the store is TLS.
    public var tlsAuthority = ""
    /// The name in the store's certificate; empty: the address that is connected to.
    public var tlsName = ""
    /// PEM file of the agent's own certificate, where the store wants one, and that of its key.
    public var tlsCertificate = ""
    /// See `tlsCertificate`.
    public var tlsKey = ""
    /// Seconds that a block may take to the store or from it.
    public var storeLimit = 10.0
    /// Which blocks stay.
    public var policy = PolicyName.holdfast
    /// How local flash relates to node memory.
    public var inclusion = InclusionMode.keep
    /// When blocks are offered to the store.
    public var spill = SpillRule.onSave
    /// Which hits are loaded.
    public var planner = PlannerRule.split
    /// The model that is served and the GPU that serves it, of the catalogue: with them the command sets `prefill` and `layers`.
    public var model = ""
    /// See `model`.
    public var gpu = ""
    /// GPUs of one copy of it.
    public var tensorParallel = 1
    /// Seconds of prefill: fixed, a token, a token and token before it.
    public var prefill = PrefillCost(base: 0, linear: 1.0e-4, quadratic: 1.0e-9)
    /// Layers of the model.
    public var layers = 32
    /// How loading and computing overlap in the engine.
    public var overlap = Overlap.prefetch
    /// The time a load may take beyond its plan: this share of the computing it saves, within these seconds.
    public var loadGraceShare = 0.25
    /// See `loadGraceShare`.
    public var loadGraceMin = 0.02
    /// See `loadGraceShare`.
    public var loadGraceMax = 2.0
    /// Whether blocks are brought up before they are asked for.
    public var prefetch = true
    /// Share of each link that this may take.
    public var prefetchShare = 0.3
    /// Seconds that a look-up may wait for the store.
    public var ask = 0.005
    /// The profile that `calibrate` wrote.
    public var profile = ""
    /// Bytes a second and seconds of delay of node memory, local flash and store, to be believed whatever is measured; empty:
    /// what is measured counts.
    public var links: [Double] = []
    /// Whether the store tells what comes and goes there.
    public var subscribe = true
    /// Whose time the decisions follow.
    public var clock = AgentTime.machine
    /// Where /metrics, /healthz and /readyz are served; empty for nowhere.
    public var http = "127.0.0.1:9471"
    /// The engine's own page of metrics, for the report: `http://127.0.0.1:8000/metrics`; empty: none.
    public var engineMetrics = ""
    /// Threads that copy between engines and node memory.
    public var copyThreads = 2
    /// Seconds that the agent's thread stays awake for an engine's next word.
    public var watch = 0.000_05
    /// The nice value that the agent's thread asks for.
    public var nice = -10
    /// Bytes that pins may hold.
    public var pins = 0
    /// Seconds that a host-owned engine may hold what it was lent or has reserved.
    public var loan = 60.0
    /// Share of the slots for blocks that pass through that such engines may hold at once.
    public var loanShare = 0.5
    /// Seconds that a shutdown waits for jobs under way.
    public var drain = 10.0
    /// The file in which every input of the decisions is written down; empty: none.
    public var journal = ""
    /// The most that it may take.
    public var journalSize = 256 << 20
    /// Where request traces go in OpenTelemetry's form: a file, or a collector's address; empty: nowhere.
    public var traces = ""
    /// The most that a file of them may take; the one before it is kept.
    public var tracesSize = 256 << 20

    /// Whose time the decisions follow.
    public enum AgentTime: String, Sendable, CaseIterable {
        /// The machine's.
        case machine
        /// That of whoever drives a replay in lock step: it stands still but for `POST /rest`.
        case given
    }

    /// The defaults.
    public init() {}

    /// Every setting, in the order of the documented file.
    public static let all: [Setting] = tiersAndStore + VerbsConfiguration.all + rest

    private static let tiersAndStore = [
        Setting(
            "socket", "Where engines come: a path of at most 107 bytes, in a folder that engine and agent share.",
            "/run/holdfast/agent.sock"
        ),
        Setting("users", "Users (numbers) whose engines may come beside the agent's own user.", "[]"),
        Setting("engines", "Engines at once.", "64"),
        Setting(
            "hbm",
            "HBM slots that are the agent's, the tier above node memory: engines that say *full* read and write their blocks "
                + "there, and no others may come. 0: engines own their GPU's memory.", "0"
        ),
        Setting("device", "What these slots lie in: cuda:N (the GPU's number), or emulated (ordinary memory).", "\"\""),
        Setting(
            "dram", "Node memory for blocks. Larger than the engine's own host region, or every block lies twice.",
            "8GiB"
        ),
        Setting("hugePages", "Whether node memory lies on huge pages, as far as the machine has any.", "true"),
        Setting(
            "pinMemory", "Whether node memory is pinned, in the background. Needs the right to (`ulimit -l`).", "true"),
        Setting(
            "numaNode",
            "The NUMA node that node memory comes from: a number, auto (near `device`'s GPU, else near the RDMA device), or any.",
            "auto"
        ),
        Setting(
            "nvme", "A file or block device for blocks of this node. It is formatted at each start. Empty: none.",
            "\"\""),
        Setting("nvmeSize", "Bytes of that file. A block device is taken whole unless this says less.", "\"\""),
        Setting("nvmeWritePerDay", "Bytes that may be written to it in a day. 0: no limit.", "0"),
        Setting("store", "The shared store, address:port. Empty: none.", "\"\""),
        Setting("namespace", "The store's namespace. Empty: the one that engines name.", "\"\""),
        Setting("tenant", "Who the agent is at the store.", "local"),
        Setting("keys", "The file with the tenant's key, as the store made it.", "\"\""),
    ]

    private static let rest = [
        Setting("rdmaStore", "Where the store accepts RDMA sessions, address:port (its `rdmaListen`).", "\"\""),
        Setting(
            "tlsAuthority", "PEM file of who signed the store's certificate. With it the way to the store is TLS.",
            "\"\""
        ),
        Setting("tlsName", "The name in the store's certificate. Empty: the address of `store`.", "\"\""),
        Setting("tlsCertificate", "PEM file of the agent's own certificate, where the store wants one.", "\"\""),
        Setting("tlsKey", "PEM file of that certificate's key.", "\"\""),
        Setting("storeLimit", "Seconds that a block may take to the store or from it.", "10"),
        Setting("policy", "Which blocks stay: holdfast, lru, fifo, lfu, s3fifo, sieve or arc.", "holdfast"),
        Setting("inclusion", "How local flash relates to node memory: keep, inclusive or exclusive.", "keep"),
        Setting("spill", "When blocks are offered to the store: onSave, onEviction or never.", "onSave"),
        Setting(
            "planner",
            "Which hits are loaded: split (what is cheapest), threshold (if the whole is cheaper) or always.", "split"
        ),
        Setting(
            "model",
            "The model that is served, of the catalogue; an unknown one is refused with those there are. With `gpu` it says what "
                + "computing costs and how many layers there are, in place of `prefill` and `layers`.", "\"\""
        ),
        Setting("gpu", "The GPU that serves it, of the catalogue.", "\"\""),
        Setting("tensorParallel", "GPUs of one copy of the model.", "1"),
        Setting(
            "prefill",
            "What computing costs: seconds fixed, a token, a token and token before it. The default is of no engine in "
                + "particular: name `model` and `gpu`, or measure.", "[0, 1e-4, 1e-9]"
        ),
        Setting("layers", "Layers of the model, for loading that overlaps layer by layer.", "32"),
        Setting("overlap", "How loading and computing overlap in the engine: prefetch, layerwise or none.", "prefetch"),
        Setting(
            "loadGraceShare",
            "The time that a load may take beyond its plan before it is given up: a share of the computing that it saves.",
            "0.25"
        ),
        Setting("loadGraceMin", "Seconds of that at least.", "0.02"),
        Setting("loadGraceMax", "Seconds of that at most; with `planner: always` each load has so long.", "2"),
        Setting("prefetch", "Whether blocks are brought up before they are asked for.", "true"),
        Setting("prefetchShare", "Share of each link that this may take, 0 to 1.", "0.3"),
        Setting("ask", "Seconds that a look-up may wait for the store; then it is a miss.", "0.005"),
        Setting("profile", "The profile that `holdfast calibrate` wrote of this machine.", "\"\""),
        Setting(
            "links",
            "What the planner believes of node memory, local flash and store whatever is measured: six numbers, bytes a "
                + "second and seconds of delay of each. Empty: what is measured counts.", "[]"
        ),
        Setting("subscribe", "Whether the store tells the agent what comes and goes there.", "true"),
        Setting(
            "clock",
            "machine, or given: time stands still but for `POST /rest?at=NANOSECONDS`, for replays in lock step.",
            "machine"
        ),
        Setting("http", "Where /metrics, /healthz, /readyz and /status are served. Empty: nowhere.", "127.0.0.1:9471"),
        Setting(
            "engineMetrics",
            "The engine's own page of metrics (http://127.0.0.1:8000/metrics), looked at every 5 s for `holdfast report --agent`: "
                + "time to first token, requests running and waiting. Empty: none.", "\"\""
        ),
        Setting("copyThreads", "Threads that copy between engines and node memory.", "2"),
        Setting(
            "watch",
            "Seconds that the agent's thread stays awake for an engine's next word, as long as that comes in time; a processor "
                + "that sleeps is woken in 4 to 50 µs. 0: not at all.", "0.00005"
        ),
        Setting(
            "nice",
            "The nice value of the agent's thread, -20 to 19: below 0 its turns of some 10 µs go before engines' threads that "
                + "compute. Below 0 needs CAP_SYS_NICE or LimitNICE; without, it is 0 and the log says so.", "-10"
        ),
        Setting("pins", "Bytes that engines' pins may hold.", "0"),
        Setting(
            "loan", "Seconds that a host-owned engine may hold blocks it was lent, or slots it reserved, at most.", "60"
        ),
        Setting(
            "loanShare",
            "How much such engines may hold at once: a share of what is set apart for blocks that pass through, which is a "
                + "tenth of `dram`.", "0.5"
        ),
        Setting("drain", "Seconds that a shutdown waits for jobs under way.", "10"),
        Setting(
            "journal",
            "The file in which every input of the decisions is written down; the one before it is kept as FILE.1. Empty: none.",
            "\"\""
        ),
        Setting("journalSize", "The most that it may take.", "256MiB"),
        Setting(
            "traces",
            "Where request traces go in OpenTelemetry's form (OTLP, JSON): a file, or a collector (http://127.0.0.1:4318).",
            "\"\""
        ),
        Setting(
            "tracesSize", "The most that a file of traces may take; the one before it is kept as FILE.1.", "256MiB"),
    ]

    /// What the documented file begins with.
    public static let heading = "The settings of `holdfast agent`; `holdfast doctor --agent-config` checks them."
}
