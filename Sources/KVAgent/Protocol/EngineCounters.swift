// What engines did, counted at the door.

import KVModel
import KVTiering

/// What one engine did, or all of them.
public struct EngineCounters: Sendable, Equatable {
    /// Frames that came.
    public var frames: UInt64 = 0
    /// Look-ups.
    public var lookUps: UInt64 = 0
    /// Keys in them.
    public var keysLookedUp: UInt64 = 0
    /// Leading blocks found for them.
    public var blocksFound: UInt64 = 0
    /// Loads.
    public var loads: UInt64 = 0
    /// Of those: brought nothing.
    public var loadsEmpty: UInt64 = 0
    /// Blocks brought.
    public var blocksLoaded: UInt64 = 0
    /// Bytes brought.
    public var bytesLoaded: UInt64 = 0
    /// Saves.
    public var saves: UInt64 = 0
    /// Blocks kept.
    public var blocksSaved: UInt64 = 0
    /// Bytes kept.
    public var bytesSaved: UInt64 = 0
    /// Takes: blocks wanted for reading in place.
    public var takes: UInt64 = 0
    /// Of those: brought nothing.
    public var takesEmpty: UInt64 = 0
    /// Blocks lent.
    public var blocksTaken: UInt64 = 0
    /// Reservations asked for.
    public var reserves: UInt64 = 0
    /// Slots given for them.
    public var slotsReserved: UInt64 = 0
    /// Commits of reserved slots.
    public var commits: UInt64 = 0
    /// Cancellations asked for.
    public var cancels: UInt64 = 0
    /// Look-ups, loads and saves answered with nothing because the decisions had no room for them.
    public var busy: UInt64 = 0
    /// Hints dropped for the same reason.
    public var hintsDropped: UInt64 = 0
    /// Requests whose end the engine told.
    public var finished: UInt64 = 0
    /// Prompt tokens that engines did not compute, as they told it.
    public var cachedTokens: UInt64 = 0
    /// Tokens of answers, as they told it.
    public var answerTokens: UInt64 = 0
    /// From a request's arrival to its first token, as engines told it.
    public var firstTokenTime = TimeHistogram()
    /// From a look-up's arrival to its answer.
    public var lookUpTime = TimeHistogram()
    /// From a load's arrival to its end.
    public var loadTime = TimeHistogram()
    /// From a save's arrival to its end.
    public var saveTime = TimeHistogram()
    /// From a take's arrival to its hand-over.
    public var takeTime = TimeHistogram()

    /// Nothing counted.
    public init() {}

    /// Every plain count with its name, for metrics.
    public static var fields: [(name: String, path: WritableKeyPath<EngineCounters, UInt64>)] {
        [
            ("frames_total", \.frames), ("lookups_total", \.lookUps), ("keys_looked_up_total", \.keysLookedUp),
            ("blocks_found_total", \.blocksFound), ("loads_total", \.loads), ("loads_empty_total", \.loadsEmpty),
            ("blocks_loaded_total", \.blocksLoaded), ("bytes_loaded_total", \.bytesLoaded),
            ("saves_total", \.saves), ("blocks_saved_total", \.blocksSaved), ("bytes_saved_total", \.bytesSaved),
            ("cancels_total", \.cancels), ("busy_total", \.busy), ("hints_dropped_total", \.hintsDropped),
            ("takes_total", \.takes), ("takes_empty_total", \.takesEmpty), ("blocks_taken_total", \.blocksTaken),
            ("reserves_total", \.reserves), ("slots_reserved_total", \.slotsReserved), ("commits_total", \.commits),
            ("finished_total", \.finished), ("cached_tokens_total", \.cachedTokens),
            ("answer_tokens_total", \.answerTokens),
        ]
    }

    /// The times with their names, for metrics.
    public static var times: [(name: String, path: WritableKeyPath<EngineCounters, TimeHistogram>)] {
        [
            ("lookup_seconds", \.lookUpTime), ("load_seconds", \.loadTime), ("save_seconds", \.saveTime),
            ("take_seconds", \.takeTime), ("first_token_seconds", \.firstTokenTime),
        ]
    }

    /// Adds another's.
    public static func += (left: inout EngineCounters, right: EngineCounters) {
        for field in fields { left[keyPath: field.path] += right[keyPath: field.path] }
        for time in times { left[keyPath: time.path] += right[keyPath: time.path] }
    }
}

/// What the door counted since its start, beside what its engines did.
public struct EngineDoorCounters: Sendable, Equatable {
    /// What engines did, those that left included.
    public var engines = EngineCounters()
    /// Connections taken.
    public var connections: UInt64 = 0
    /// Engines attached since the start.
    public var attached: UInt64 = 0
    /// Engines that left without a goodbye.
    public var lostEngines: UInt64 = 0
    /// Connections ended by the agent, by code.
    public var refused: [EngineRefusalCode: UInt64] = [:]
    /// Changes that a slow engine was not told.
    public var changesDropped: UInt64 = 0
    /// Regions mapped since the start.
    public var regionsMapped: UInt64 = 0
    /// Of those: in files that can shrink, watched instead of sealed.
    public var regionsUnsealed: UInt64 = 0
    /// Times an engine was given the arena to map.
    public var arenasOpened: UInt64 = 0
    /// Regions whose engine cut their file short.
    public var regionsLost: UInt64 = 0

    /// Nothing counted.
    public init() {}
}

/// An engine at the door.
public struct EngineStatus: Sendable, Equatable {
    /// The agent's number for it.
    public var number: EngineNumber
    /// What speaks.
    public var kind: String
    /// Its client.
    public var client: String
    /// Its process.
    public var process: Int32
    /// Where its blocks are kept.
    public var storeNamespace: String
    /// Who owns its host tier, as it said.
    public var ownership: Ownership
    /// How it maps the arena.
    public var arena: EngineArenaAccess
    /// Bytes of its regions.
    public var regionBytes: Int
    /// Requests open.
    public var requests: Int
    /// Jobs open.
    public var jobs: Int
    /// What it did.
    public var counters: EngineCounters
}
