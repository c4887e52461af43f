// What `/status` serves and `ctl` reads: the agent and its door in one JSON.

import KVMemory
import KVModel

/// The state of a sidecar.
public struct SidecarStatus: Codable, Sendable {
    /// One engine at the door.
    public struct Engine: Codable, Sendable {
        /// The agent's number for it.
        public var number: Int32
        /// What speaks.
        public var kind: String
        /// Its client.
        public var client: String
        /// Its process.
        public var process: Int32
        /// Where its blocks are kept.
        public var storeNamespace: String
        /// Who owns its host tier: `engine`, `host` or `full`.
        public var ownership: String
        /// How it maps the arena: `none`, `reading` or `writing`.
        public var arena: String
        /// Bytes of its regions.
        public var regionBytes: Int
        /// Requests open.
        public var requests: Int
        /// Jobs open.
        public var jobs: Int
        /// What it did, named as metrics are.
        public var counts: [String: UInt64]
    }

    /// A kind of wait at the door.
    public struct Times: Codable, Sendable {
        /// How many there were.
        public var count: UInt64
        /// On average.
        public var meanSeconds: Double
        /// At most so long: half of them (the end of a bucket, an eighth too long at most).
        public var p50Seconds: Double
        /// At most so long: 99 of 100.
        public var p99Seconds: Double

        init(_ times: TimeHistogram) {
            count = times.count
            meanSeconds = times.count == 0 ? 0 : times.sum.seconds / Double(times.count)
            p50Seconds = times.quantile(0.5).seconds
            p99Seconds = times.quantile(0.99).seconds
        }
    }

    /// `waiting` for the first engine, `failing` (it could not serve the last that came), `serving`, or `draining`.
    public var state: String
    /// Why it cannot serve, where it cannot.
    public var failure: String?
    /// Since the start.
    public var uptimeSeconds: Double
    /// Where engines come.
    public var socket: String
    /// Node memory asked for.
    public var dramBytes: Int
    /// Its pages and how far they are, once an engine has come.
    public var memory: ArenaStatus?
    /// Engines attached.
    public var engines: [Engine]
    /// What engines did since the start.
    public var counts: [String: UInt64]
    /// How long they waited, by `lookup`, `load`, `save`, `take`, `first_token` (the last as engines told it).
    public var times: [String: Times]
    /// Connections ended by the agent, by code.
    public var refused: [String: UInt64]
    /// The store, from the start on. Nil: there is none in the settings.
    public var store: AgentStatus.Store?
    /// The decisions, once an engine has come.
    public var agent: AgentStatus?

    /// The state of a sidecar now.
    public init(_ sidecar: AgentSidecar) {
        let view = sidecar.view
        agent = sidecar.agent?.status
        store = agent?.store ?? sidecar.store
        failure = sidecar.unreadiness
        state =
            sidecar.isStopping
            ? "draining" : failure != nil ? "failing" : agent == nil ? "waiting" : "serving"
        uptimeSeconds = sidecar.uptimeSeconds
        socket = sidecar.configuration.socket
        dramBytes = sidecar.configuration.dram
        memory = sidecar.memory
        func counts(_ counters: EngineCounters) -> [String: UInt64] {
            Dictionary(uniqueKeysWithValues: EngineCounters.fields.map { ($0.name, counters[keyPath: $0.path]) })
        }
        engines = view.engines.map {
            Engine(
                number: $0.number, kind: $0.kind, client: $0.client, process: $0.process,
                storeNamespace: $0.storeNamespace, ownership: $0.ownership.rawValue, arena: $0.arena.rawValue,
                regionBytes: $0.regionBytes, requests: $0.requests, jobs: $0.jobs,
                counts: counts($0.counters))
        }
        self.counts = counts(view.counters.engines)
        times = [
            "lookup": Times(view.counters.engines.lookUpTime), "load": Times(view.counters.engines.loadTime),
            "save": Times(view.counters.engines.saveTime), "take": Times(view.counters.engines.takeTime),
            "first_token": Times(view.counters.engines.firstTokenTime),
        ]
        refused = Dictionary(uniqueKeysWithValues: view.counters.refused.map { ($0.key.name, $0.value) })
    }
}
