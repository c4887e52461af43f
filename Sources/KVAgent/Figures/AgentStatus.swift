// What an agent tells people and programs of itself: the shapes of its JSON.

import KVModel
import KVTiering

/// The state of an agent, some milliseconds ago at most while anything happens.
public struct AgentStatus: Codable, Sendable, Equatable {
    /// One tier of the node.
    public struct Tier: Codable, Sendable, Equatable {
        /// Bytes of its slots.
        public var totalBytes = 0
        /// Of those, in use, blocks on their way included.
        public var usedBytes = 0
        /// Blocks of leading runs that requests were served from it.
        public var hitTokens = 0
    }

    /// One path.
    public struct Link: Codable, Sendable, Equatable {
        /// `out of engines`, `into engines`, `flash reads`, `flash writes`, `store gets`, `store puts`.
        public var name: String
        /// Bytes a second while busy, as last seen.
        public var bytesPerSecond: Double
        /// Bytes that transfers begun or waiting have still to move.
        public var waitingBytes: Int
        /// Pieces under way.
        public var underWay: Int
    }

    /// The shared store.
    public struct Store: Codable, Sendable, Equatable {
        /// Its namespace, once an engine or the configuration named it.
        public var namespace: String?
        /// Whether it is reached and its namespace open.
        public var isUsable: Bool
        /// Why it was lost last.
        public var reason: String
    }

    /// One engine.
    public struct Engine: Codable, Sendable, Equatable {
        /// Its number.
        public var number: EngineNumber
        /// What speaks.
        public var kind: String
        /// Its process.
        public var process: Int32
        /// Requests and jobs that it has open.
        public var open: Int
        /// Bytes of its regions.
        public var regionBytes: Int
        /// Who owns its host tier: `engine`, `host` or `full`.
        public var ownership: String
        /// Leases and reservations that it holds.
        public var loans: Int
    }

    /// `serving` or `draining`.
    public var state = "serving"
    /// Since the start.
    public var uptimeSeconds = 0.0
    /// Bytes of a block.
    public var blockBytes = 0
    /// Slots of the device, where they are the agent's.
    public var hbm: Tier?
    /// The device in words.
    public var device: String?
    /// Node memory.
    public var dram = Tier()
    /// Local flash.
    public var nvme = Tier()
    /// The shared store, as far as hits go.
    public var flash = Tier()
    /// Tokens served from the engine itself.
    public var hbmHitTokens = 0
    /// Prompt tokens by class of the ledger.
    public var ledger: [String: Int] = [:]
    /// Prompt tokens booked.
    public var promptTokens = 0
    /// The paths.
    public var links: [Link] = []
    /// The store, if there is one.
    public var store: Store?
    /// Engines attached.
    public var engines: [Engine] = []
    /// Requests and jobs open, transfers and questions under way.
    public var openRequests = 0
    /// See `openRequests`.
    public var transfers = 0
    /// See `openRequests`.
    public var questions = 0
    /// Pins in force.
    public var pins = 0
    /// Leases and reservations in force.
    public var loans = 0
    /// Bytes of the slots that engines hold by them, and of those that nobody can find yet.
    public var loanedBytes = 0
    /// See `loanedBytes`.
    public var reservedBytes = 0
    /// What was handed over without a copy.
    public var handOver: [String: Int] = [:]
    /// Counts since the start, named as metrics are.
    public var totals: [String: Int] = [:]
    /// What was brought up before it was asked for.
    public var prefetch: [String: Int] = [:]

    /// Of an agent that has just started.
    public init() {}
}

extension AgentCore {
    /// The state as of now.
    func status() -> AgentStatus {
        var status = AgentStatus()
        status.blockBytes = blockBytes
        addTiers(to: &status)
        status.links = links()
        if world.client != nil {
            status.store = .init(namespace: world.desk.storeNamespace, isUsable: world.storeIsUsable, reason: "")
        }
        status.engines = engines()
        status.openRequests = world.desk.openCount
        status.transfers = world.openFlights
        status.questions = world.inquiries.count
        status.pins = world.desk.pins.count
        status.loans = world.desk.loans.count
        status.loanedBytes = manager.loanedSlots.all * blockBytes
        status.reservedBytes = manager.loanedSlots.reserved * blockBytes
        for field in HandOverCounters.fields { status.handOver[field.name] = world.desk.handOver[keyPath: field.path] }
        status.totals = totals()
        status.prefetch = prefetch()
        return status
    }

    private func addTiers(to status: inout AgentStatus) {
        let counts = manager.slotCounts
        let ledger = manager.ledger
        if let device = world.device {
            let slots = manager.deviceSlots
            status.hbm = .init(
                totalBytes: slots.count * blockBytes, usedBytes: slots.used * blockBytes, hitTokens: ledger[.hbm])
            status.device = device.memory.deviceName
            if let failure = device.memory.failure { status.device? += ", lost: \(failure)" }
        }
        status.dram = .init(
            totalBytes: counts.dram * blockBytes, usedBytes: counts.dramUsed * blockBytes, hitTokens: ledger[.dram])
        status.nvme = .init(
            totalBytes: counts.nvme * blockBytes, usedBytes: counts.nvmeUsed * blockBytes, hitTokens: ledger[.nvme])
        status.flash.hitTokens = ledger[.flash]
        status.hbmHitTokens = ledger[.hbm]
        for tokenClass in TokenClass.allCases { status.ledger["\(tokenClass)"] = ledger[tokenClass] }
        status.promptTokens = ledger.promptTokens
    }

    private func links() -> [AgentStatus.Link] {
        let names = ["out of engines", "into engines", "flash reads", "flash writes", "store gets", "store puts"]
        let now = world.now
        return Path.allCases.map { path in
            let meter = world.meters[path.rawValue]
            return .init(
                name: names[path.rawValue], bytesPerSecond: meter.state(at: now).bandwidth,
                waitingBytes: meter.waitingBytes, underWay: world.underWay[path.rawValue])
        }
    }

    private func engines() -> [AgentStatus.Engine] {
        world.desk.engines.values.sorted { $0.number < $1.number }.map { engine in
            .init(
                number: engine.number, kind: engine.hello?.kind ?? "", process: engine.hello?.process ?? 0,
                open: engine.openCount,
                regionBytes: engine.regions.byNumber.values.reduce(0) {
                    let bytes = unsafe $1.memory.regions[0].count
                    return $0 + bytes
                }, ownership: engine.hello?.ownership.rawValue ?? "",
                loans: world.desk.loans.all { $0.engine == engine.number }.count)
        }
    }

    private func prefetch() -> [String: Int] {
        var counts = ["displaced": manager.prefetchSheet.displacedBlocks, "missed": manager.prefetchSheet.missedBlocks]
        for reason in PrefetchReason.allCases {
            let account = manager.prefetchSheet[reason]
            counts["\(reason.name)_started"] = account.started
            counts["\(reason.name)_used"] = account.used
            counts["\(reason.name)_late"] = account.late
            counts["\(reason.name)_never_used"] = account.neverUsed
            counts["\(reason.name)_cancelled"] = account.cancelled
            counts["\(reason.name)_failed"] = account.failed
        }
        return counts
    }

    private func totals() -> [String: Int] {
        let (decided, done, asked) = (manager.counters, world.counters, world.desk.counters)
        var totals: [String: Int] = [
            "requests": decided.requests, "requests_refused": decided.requestsRefused,
            "chains_cut": decided.chainsCut, "commands_refused": decided.commandsRefused,
            "transfers_dropped": decided.transfersDropped, "dram_evictions": decided.dramEvictions,
            "nvme_evictions": decided.nvmeEvictions, "saves_dropped": decided.savesDropped,
            "demotions_dropped": decided.demotionsDropped, "spills_dropped": decided.spillsDropped,
            "loads_cut_short": decided.loadsCutShort, "loads_late": decided.loadsLate,
            "blocks_corrupt": decided.blocksCorrupt, "blocks_lost": decided.blocksLost,
            "store_questions": decided.storeQuestions, "store_questions_late": decided.storeQuestionsLate,
            "dram_writes": decided.dramWrites, "nvme_writes": decided.nvmeWrites, "nvme_reads": decided.nvmeReads,
            "flash_writes": decided.flashWrites, "flash_reads": decided.flashReads,
            "look_ups": asked.lookUps, "loads": asked.loads, "saves": asked.saves, "finished": asked.finished,
            "cancels": asked.cancels, "hints": asked.hints, "blocks_loaded": asked.blocksLoaded,
            "blocks_offered": asked.blocksOffered, "engine_refused": asked.refused, "engine_invalid": asked.invalid,
            "engine_loads_late": asked.loadsLate, "slots_quarantined": done.quarantined,
            "names_missing": done.namesMissing, "store_lost": done.storeLost, "stream_broken": done.streamBroken,
            "journal_bytes": world.journal?.byteCount ?? 0,
        ]
        if world.device != nil {
            totals["hbm_writes"] = decided.hbmWrites
            totals["hbm_evictions"] = decided.hbmEvictions
        }
        let paths = ["out_of_engine", "into_engine", "flash_read", "flash_write", "store_get", "store_put"]
        for path in Path.allCases {
            totals["blocks_\(paths[path.rawValue])"] = done.blocks[path.rawValue]
            totals["bytes_\(paths[path.rawValue])"] = done.bytes[path.rawValue]
            totals["corrupt_\(paths[path.rawValue])"] = done.corrupt[path.rawValue]
            totals["failed_\(paths[path.rawValue])"] = done.failed[path.rawValue]
            totals["absent_\(paths[path.rawValue])"] = done.absent[path.rawValue]
            totals["refused_\(paths[path.rawValue])"] = done.refused[path.rawValue]
        }
        return totals
    }
}
