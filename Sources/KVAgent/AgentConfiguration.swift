// What an operator says about an agent: a YAML file, and options that overrule it, by the same names. Every setting is
// documented once, in `all`; the file that `holdfast agent --print-config` writes is made of it.

import Foundation
import KVModel
import KVTiering
import Yams

/// The settings of `holdfast agent`, with their defaults.
public struct AgentConfiguration: Sendable {
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
    /// The NUMA node of node memory: a number, `auto` (that of the RDMA device, if there is one), or `any`.
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
    /// RDMA device on the way to the store (`mlx5_0`), `auto`, or empty for none.
    public var rdma = ""
    /// Where the store accepts RDMA sessions.
    public var rdmaStore = ""
    /// PEM file of who signed the store's certificate; with it the way to the store is TLS.
    public var tlsAuthority = ""
    /// Which blocks stay.
    public var policy = PolicyName.holdfast
    /// How local flash relates to node memory.
    public var inclusion = InclusionMode.keep
    /// When blocks are offered to the store.
    public var spill = SpillRule.onSave
    /// Which hits are loaded.
    public var planner = PlannerRule.split
    /// Seconds of prefill: fixed, a token, a token and token before it.
    public var prefill = PrefillCost(base: 0, linear: 1.0e-4, quadratic: 1.0e-9)
    /// Layers of the model.
    public var layers = 32
    /// How loading and computing overlap in the engine.
    public var overlap = Overlap.prefetch
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
    /// Threads that copy between engines and node memory.
    public var copyThreads = 2
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

    /// A setting as people see it.
    public struct Setting: Sendable {
        /// In files and options (`nvmeSize`, `--nvme-size`).
        public var name: String
        /// What it means, for the documented file.
        public var meaning: String
        /// Its default as a file writes it.
        public var standard: String
    }

    /// Every setting, in the order of the documented file.
    public static let all: [Setting] = [
        (
            "socket", "Where engines come: a path of at most 107 bytes, in a folder that engine and agent share.",
            "/run/holdfast/agent.sock"
        ),
        ("users", "Users (numbers) whose engines may come beside the agent's own user.", "[]"),
        ("engines", "Engines at once.", "64"),
        (
            "hbm",
            "HBM slots that are the agent's, the tier above node memory: engines that say *full* read and write their blocks "
                + "there, and no others may come. 0: engines own their GPU's memory.", "0"
        ),
        ("device", "What these slots lie in: cuda:N (the GPU's number), or emulated (ordinary memory).", "\"\""),
        (
            "dram", "Node memory for blocks. Larger than the engine's own host region, or every block lies twice.",
            "8GiB"
        ),
        ("hugePages", "Whether node memory lies on huge pages, as far as the machine has any.", "true"),
        ("pinMemory", "Whether node memory is pinned, in the background. Needs the right to (`ulimit -l`).", "true"),
        (
            "numaNode",
            "The NUMA node that node memory comes from: a number, auto (that of the RDMA device), or any.", "auto"
        ),
        ("nvme", "A file or block device for blocks of this node. It is formatted at each start. Empty: none.", "\"\""),
        ("nvmeSize", "Bytes of that file. A block device is taken whole unless this says less.", "\"\""),
        ("nvmeWritePerDay", "Bytes that may be written to it in a day. 0: no limit.", "0"),
        ("store", "The shared store, address:port. Empty: none.", "\"\""),
        ("namespace", "The store's namespace. Empty: the one that engines name.", "\"\""),
        ("tenant", "Who the agent is at the store.", "local"),
        ("keys", "The file with the tenant's key, as the store made it.", "\"\""),
        ("rdma", "RDMA device on the way to the store (mlx5_0), auto, or empty for TCP.", "\"\""),
        ("rdmaStore", "Where the store accepts RDMA sessions, address:port (its `rdmaListen`).", "\"\""),
        (
            "tlsAuthority", "PEM file of who signed the store's certificate. With it the way to the store is TLS.",
            "\"\""
        ),
        ("policy", "Which blocks stay: holdfast, lru, fifo, lfu, s3fifo, sieve or arc.", "holdfast"),
        ("inclusion", "How local flash relates to node memory: keep, inclusive or exclusive.", "keep"),
        ("spill", "When blocks are offered to the store: onSave, onEviction or never.", "onSave"),
        (
            "planner",
            "Which hits are loaded: split (what is cheapest), threshold (if the whole is cheaper) or always.", "split"
        ),
        (
            "prefill",
            "What computing costs: seconds fixed, a token, a token and token before it. See `--model` and `--gpu`.",
            "[0, 1e-4, 1e-9]"
        ),
        ("layers", "Layers of the model, for loading that overlaps layer by layer.", "32"),
        ("overlap", "How loading and computing overlap in the engine: prefetch, layerwise or none.", "prefetch"),
        ("prefetch", "Whether blocks are brought up before they are asked for.", "true"),
        ("prefetchShare", "Share of each link that this may take, 0 to 1.", "0.3"),
        ("ask", "Seconds that a look-up may wait for the store; then it is a miss.", "0.005"),
        ("profile", "The profile that `holdfast calibrate` wrote of this machine.", "\"\""),
        (
            "links",
            "What the planner believes of node memory, local flash and store whatever is measured: six numbers, bytes a "
                + "second and seconds of delay of each. Empty: what is measured counts.", "[]"
        ),
        ("subscribe", "Whether the store tells the agent what comes and goes there.", "true"),
        (
            "clock",
            "machine, or given: time stands still but for `POST /rest?at=NANOSECONDS`, for replays in lock step.",
            "machine"
        ),
        ("http", "Where /metrics, /healthz, /readyz and /status are served. Empty: nowhere.", "127.0.0.1:9471"),
        ("copyThreads", "Threads that copy between engines and node memory.", "2"),
        ("pins", "Bytes that engines' pins may hold.", "0"),
        ("loan", "Seconds that a host-owned engine may hold blocks it was lent, or slots it reserved, at most.", "60"),
        (
            "loanShare",
            "How much such engines may hold at once: a share of what is set apart for blocks that pass through, which is a "
                + "tenth of `dram`.", "0.5"
        ),
        ("drain", "Seconds that a shutdown waits for jobs under way.", "10"),
        ("journal", "The file in which every input of the decisions is written down. Empty: none.", "\"\""),
        ("journalSize", "The most that it may take.", "256MiB"),
        (
            "traces",
            "Where request traces go in OpenTelemetry's form (OTLP, JSON): a file, or a collector (http://127.0.0.1:4318).",
            "\"\""
        ),
        ("tracesSize", "The most that a file of traces may take; the one before it is kept as FILE.1.", "256MiB"),
    ].map { Setting(name: $0.0, meaning: $0.1, standard: $0.2) }

    /// A file of all settings with what they mean and their defaults.
    public static var documented: String {
        "# The settings of `holdfast agent`; `holdfast doctor --agent-config` checks them. What is left out keeps its default.\n\n"
            + all.map { "# \($0.meaning)\n\($0.name): \($0.standard)\n" }.joined(separator: "\n")
    }
}
