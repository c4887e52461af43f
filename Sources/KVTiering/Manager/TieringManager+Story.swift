// Why a block is, or is not, where it is, why a load was, or was not, made, and why a prompt was computed: for operators who
// ask.

import KVModel

/// What a node knows of one block.
public struct BlockStory: Sendable, Codable, Equatable {
    /// Tiers in which it can be found; of the shared store, what it last said.
    public var tiers: [String]
    /// What last happened to it when it left: `evicted`, `refused`, `lost`, `corrupt`, `quota`, `noTier` or `none`.
    public var fate: String
    /// Whether the policies of node memory and of local flash keep it.
    public var isKeptInMemory: Bool
    /// See `isKeptInMemory`.
    public var isKeptOnFlash: Bool
    /// Whether it is on its way into node memory or local flash, was brought up on a prediction, or is promised to the
    /// store.
    public var isFilling: Bool
    /// See `isFilling`.
    public var isPredicted: Bool
    /// See `isFilling`.
    public var isPromised: Bool
    /// Transfers, offers and requests that hold its slot in node memory.
    public var holders: Int
    /// Requests that used it.
    public var uses: Int
    /// Its place in its chain.
    public var depth: Int
    /// How long ago the store was last heard of it, or −1. Seconds.
    public var storeHeardSeconds: Double
}

/// Where the tokens of a prompt without a load come from.
public struct MissStory: Sendable, Codable, Equatable {
    /// Blocks of the prompt.
    public var blocks: Int
    /// Leading blocks found when it arrived, the engine's own included.
    public var found: Int
    /// Its tokens by the ledger's classes.
    public var tokens: [String: Int]

    init(_ miss: LoadNotes.Miss) {
        blocks = Int(miss.blocks)
        found = Int(miss.found)
        tokens = [:]
        for tokenClass in TokenClass.allCases where miss.tokens[Int(tokenClass.rawValue)] > 0 {
            tokens["\(tokenClass)"] = Int(miss.tokens[Int(tokenClass.rawValue)])
        }
    }

    /// The same in words, the largest class first.
    var sentence: String {
        let classes = tokens.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        let parts = classes.map { "\($0.value) tokens \(Self.words[$0.key] ?? $0.key)" }.joined(separator: ", ")
        return "\(found) of \(blocks) blocks found, none loaded; \(parts)"
    }

    private static let words = [
        "hbm": "in the engine's own memory", "firstSeen": "never seen before",
        "evicted": "evicted since they were kept",
        "refused": "refused when they asked to be kept", "heldElsewhere": "in no place that this node can reach",
        "lostAfterLookUp": "lost after the look-up", "corrupt": "with wrong bytes",
        "quota": "over the namespace's quota",
        "noTier": "without a tier to keep them", "recomputeCheaper": "cheaper to compute",
        "alwaysComputed": "always computed",
    ]
}

/// A load as it was decided, and what came of it; or a prompt that was computed without one.
public struct LoadStory: Sendable, Codable, Equatable {
    /// How long ago it was decided. Seconds.
    public var secondsAgo: Double
    /// Tokens of the prompt.
    public var promptTokens: Int
    /// Leading blocks that the engine had itself.
    public var engineBlocks: Int
    /// Blocks found on the device, where its slots are the agent's.
    public var foundOnDevice: Int?
    /// Blocks found behind them, by tier.
    public var foundInMemory: Int
    /// See `foundInMemory`.
    public var foundOnFlash: Int
    /// See `foundInMemory`.
    public var foundInStore: Int
    /// Blocks that were to be loaded.
    public var planned: Int
    /// Blocks that were there in time; −1 while they are on their way.
    public var came: Int
    /// Why fewer came than were planned, as the ledger calls it: `late`, `corrupt`, `lostAfterLookUp`. Empty: none is missing.
    public var cause: String
    /// What loading all that was found was expected to take, and computing it. Seconds.
    public var loadSeconds: Double
    /// See `loadSeconds`.
    public var computeSeconds: Double
    /// What the slowest path was believed to carry. Bytes a second.
    public var bytesPerSecond: Double
    /// Of a prompt that was computed without a load: why. Nothing was planned then.
    public var miss: MissStory?

    /// The decision in a sentence.
    public var sentence: String {
        if let miss { return miss.sentence }
        let found = (foundOnDevice ?? 0) + foundInMemory + foundOnFlash + foundInStore
        func milliseconds(_ seconds: Double) -> String {
            let tenths = (seconds * 10_000).rounded()
            return "\(tenths / 10) ms"
        }
        if found == 0 { return "nothing was found behind the \(engineBlocks) blocks that the engine had" }
        let all = [
            (foundOnDevice ?? 0, "HBM"), (foundInMemory, "node memory"), (foundOnFlash, "local flash"),
            (foundInStore, "the store"),
        ]
        let places =
            all
            .filter { $0.0 > 0 }.map { "\($0.0) in \($0.1)" }.joined(separator: ", ")
        let prices =
            "loading was expected to take \(milliseconds(loadSeconds)) at \(Int(bytesPerSecond / 1e6)) MB/s, computing "
            + milliseconds(computeSeconds)
        var text = "\(found) blocks found (\(places)); \(prices); "
        if planned == 0 {
            text += "none was loaded, because computing was cheaper"
        } else if came < 0 {
            text += "\(planned) are being loaded"
        } else if came == planned {
            text += "\(came) were loaded"
        } else {
            text += "\(planned) were to be loaded and \(max(0, came)) came: the rest was \(cause)"
        }
        return text
    }
}

/// The last loads, in a ring of fixed size.
struct LoadNotes {
    struct Miss {
        var blocks: Int32
        var found: Int32
        var tokens = InlineArray<15, Int32>(repeating: 0)
    }

    struct Note {
        var at = Instant.zero
        var request = noRequest
        var session: Int32 = -1
        var promptTokens: Int32 = 0
        var engineBlocks: Int32 = 0
        var hbm: Int32 = 0
        var dram: Int32 = 0
        var nvme: Int32 = 0
        var flash: Int32 = 0
        var first: Int32 = 0
        var planned: Int32 = 0
        var came: Int32 = -1
        var cause = TokenClass.late
        var loadSeconds = 0.0
        var computeSeconds = 0.0
        var bandwidth = 0.0
        /// Of a prompt that was computed without a load: its tokens by class, and what was found of its blocks.
        var miss: Miss?
        /// The last block found, or of a prompt without a load the last of all, with its key: the number may go to another one.
        var deepest = BlockRecord.noBlock
        var deepestKey = BlockKey(high: 0, low: 0)
    }

    static let countMax = 256
    /// Off in replays, which ask nobody.
    var isOn = false
    private(set) var ring: [Note] = []
    private var next = 0

    mutating func add(_ note: Note) {
        if ring.count < Self.countMax {
            ring.append(note)
        } else {
            ring[next] = note
        }
        next = (next + 1) % Self.countMax
    }

    mutating func ended(_ request: RequestNumber, end: Int32, cause: TokenClass) {
        // The latest note of the number: numbers are used again.
        for back in 1...max(1, ring.count) {
            let place = (next - back + 2 * Self.countMax) % Self.countMax
            guard place < ring.count, ring[place].request == request else { continue }
            ring[place].came = max(0, end - ring[place].first)
            ring[place].cause = cause
            return
        }
    }

    /// The latest first.
    var latest: [Note] {
        (0..<ring.count).map { ring[(next - 1 - $0 + 2 * Self.countMax) % Self.countMax] }
    }
}

extension TieringManager {
    /// Whether the last loads are remembered with their reasons.
    public var remembersLoads: Bool {
        get { notes.isOn }
        set { notes.isOn = newValue }
    }

    /// The time of the latest event.
    public var time: Instant { now }

    /// What is known of a block; nil when nothing is, or not any more.
    public func story(of key: BlockKey) -> BlockStory? {
        guard let block = known.find(key) else { return nil }
        let record = known[block]
        let heard = record.flash == .unknown ? -1 : Double(milliseconds &- record.flashHeard) / 1000
        return BlockStory(
            tiers: whereabouts(key).map(\.name), fate: "\(record.fate)",
            isKeptInMemory: record.flags.contains(.keptInDRAM), isKeptOnFlash: record.flags.contains(.keptOnNVMe),
            isFilling: record.dram == .filling || record.nvme == .filling,
            isPredicted: record.flags.contains(.predicted), isPromised: record.flags.contains(.promised),
            holders: Int(record.dramReaders), uses: Int(record.uses), depth: Int(record.depth),
            storeHeardSeconds: heard)
    }

    /// The last loads of a conversation, or of all, the latest first.
    public func loads(ofSession session: Int32?, at time: Instant) -> [LoadStory] {
        notes.latest.filter { session == nil || $0.session == session }.map { story($0, at: time) }
    }

    /// The last loads in which a block was found, the latest first.
    public func loads(of key: BlockKey, at time: Instant) -> [LoadStory] {
        guard let block = known.find(key) else { return [] }
        return notes.latest.filter { isBlock(block, under: $0) }.map { story($0, at: time) }
    }

    private func isBlock(_ block: BlockNumber, under note: LoadNotes.Note) -> Bool {
        var ancestor = note.deepest
        guard ancestor != BlockRecord.noBlock, known[ancestor].key == note.deepestKey else { return false }
        while ancestor != BlockRecord.noBlock, known[ancestor].depth > known[block].depth {
            ancestor = known[ancestor].parent
        }
        return ancestor == block
    }

    private func story(_ note: LoadNotes.Note, at time: Instant) -> LoadStory {
        let planned = Int(note.planned - note.first)
        return LoadStory(
            secondsAgo: max(.zero, time - note.at).seconds, promptTokens: Int(note.promptTokens),
            engineBlocks: Int(note.engineBlocks), foundOnDevice: device.isOn ? Int(note.hbm) : nil,
            foundInMemory: Int(note.dram), foundOnFlash: Int(note.nvme),
            foundInStore: Int(note.flash), planned: planned, came: Int(note.came),
            cause: note.came >= 0 && Int(note.came) < planned ? "\(note.cause)" : "", loadSeconds: note.loadSeconds,
            computeSeconds: note.computeSeconds, bytesPerSecond: note.bandwidth, miss: note.miss.map(MissStory.init))
    }

    /// Writes down a load that was just decided.
    mutating func note(_ slot: Int32, _ load: LoadRequest, _ choice: LoadChoice) {
        let request = requests[Int(slot)]
        var note = LoadNotes.Note()
        note.at = now
        note.request = request.number
        note.session = request.session
        note.promptTokens = request.promptTokens
        note.engineBlocks = request.engineBlocks
        note.first = choice.first
        note.planned = choice.end
        note.bandwidth = load.links.dram.bandwidth
        var start = request.engineBlocks
        for run in request.sources {
            switch run.tier {
            case .nvme:
                note.nvme += run.end - start
                note.bandwidth = min(note.bandwidth, load.links.nvme.bandwidth)
            case .flash:
                note.flash += run.end - start
                note.bandwidth = min(note.bandwidth, load.links.flash.bandwidth)
            case .dram: note.dram += run.end - start
            case .hbm: note.hbm += run.end - start
            }
            start = run.end
        }
        (note.loadSeconds, note.computeSeconds) = planner.appraise(question(slot, load, request.sources))
        add(note, reaching: Int(start), of: request)
    }

    /// Writes down a prompt that was just booked and had no load.
    mutating func noteMiss(_ slot: Int32) {
        let request = requests[Int(slot)]
        var note = LoadNotes.Note()
        note.at = now
        note.request = request.number
        note.session = request.session
        note.promptTokens = request.promptTokens
        note.engineBlocks = request.engineBlocks
        note.came = 0
        var miss = LoadNotes.Miss(
            blocks: request.chainCount, found: max(request.foundOnArrival, request.engineBlocks))
        for run in lastBooked { miss.tokens[Int(run.tokenClass.rawValue)] += run.tokens }
        note.miss = miss
        add(note, reaching: request.blocks.count, of: request)
    }

    private mutating func add(_ note: LoadNotes.Note, reaching end: Int, of request: Request) {
        var note = note
        if end > 0, end <= request.blocks.count {
            note.deepest = request.blocks[end - 1]
            note.deepestKey = known[note.deepest].key
        }
        notes.add(note)
    }
}
