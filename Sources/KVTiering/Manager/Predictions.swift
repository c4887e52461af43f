// The state of predictions: conversations between turns, blocks brought up and not used yet, budgets, and the balance
// sheet. What is done with it is in TieringManager+Prefetch.swift.

import KVModel

/// What prefetch gave and what it cost, in blocks and per reason. Every block moved is in exactly one of used, late,
/// never used, cancelled, failed, or still held.
public struct PrefetchSheet: Sendable, Equatable {
    /// One reason's account.
    public struct Account: Sendable, Equatable {
        /// Blocks whose transfer was started.
        public internal(set) var started = 0
        /// Blocks that were in place when a request took them.
        public internal(set) var used = 0
        /// Blocks that were still on their way when a request took them.
        public internal(set) var late = 0
        /// Blocks that left without use.
        public internal(set) var neverUsed = 0
        /// Blocks whose transfer was cancelled.
        public internal(set) var cancelled = 0
        /// Blocks that did not come through.
        public internal(set) var failed = 0

        /// Blocks in place or on their way that nobody has used yet.
        public var held: Int { started - used - late - neverUsed - cancelled - failed }
    }

    // By `PrefetchReason.rawValue`.
    private var accounts = [Account](repeating: Account(), count: PrefetchReason.allCases.count)
    /// Blocks missed in node memory that would have been there had predictions left it their slots.
    public internal(set) var displacedBlocks = 0
    /// Blocks that loads took from below node memory: what perfect prefetch would have brought up.
    public internal(set) var missedBlocks = 0

    /// The account of one reason.
    public internal(set) subscript(_ reason: PrefetchReason) -> Account {
        get { accounts[Int(reason.rawValue)] }
        set { accounts[Int(reason.rawValue)] = newValue }
    }

    /// Nothing was moved yet.
    public init() {}
}

/// A conversation between two turns.
struct Session {
    enum State: UInt8 { case unused, running, waiting }

    var number: Int32 = -1
    var state = State.unused
    var generation: UInt32 = 0
    var turn = TurnClass(reason: .unknown, turn: 0, gapBefore: nil)
    var endedAt = Instant.zero
    /// The deepest full block of its last prompt, with its key: the number may go to another one meanwhile.
    var lastBlock = BlockRecord.noBlock
    var lastKey = BlockKey(high: 0, low: 0)
    /// When its next turn is expected.
    var window = ReturnWindow(probability: 0, opens: 0, closes: 0)
    /// The gap before the turn in hand. Seconds.
    var gap: Double?
}

/// Blocks brought up on one prediction, each with a lease until it is used or the prediction is given up.
struct Hold {
    var isOpen = false
    var reason = PrefetchReason.session
    var probability = 0.0
    var generation: UInt32 = 0
    var blocks: [BlockNumber] = []
}

/// All predictions in force.
struct Predictions {
    let configuration: PrefetchConfiguration?
    /// The reasons of the configuration as bits: every event asks.
    private var followed: UInt8 = 0
    /// Slots that predictions may hold at once.
    let slotsMax: Int
    var sheet = PrefetchSheet()
    var predictor = ReturnPredictor()

    var sessions: [Session] = []
    var sessionSlots: [Int32: Int32] = [:]
    /// The next session to give up when the table is full.
    private var hand = 0

    var holds: [Hold] = []
    var freeHolds: [Int32] = []
    /// Blocks with a prediction's lease, with the hold that has it.
    var holdOf: [BlockNumber: Int32] = [:]
    var heldCount: Int { holdOf.count }
    /// Blocks on their way for predictions.
    var inFlightCount = 0
    /// What each path may still carry for predictions: local flash, shared flash. Bytes.
    private var allowance = (nvme: 0.0, flash: 0.0)
    private var allowanceAt = Instant.zero
    /// The rates of the paths as last seen.
    var bandwidth = (nvme: 0.0, flash: 0.0)
    /// Blocks many asked for, that left node memory.
    var popular: [BlockNumber] = []

    static let popularMax = 64

    init(_ configuration: PrefetchConfiguration?, stagingSlots: Int) {
        self.configuration = configuration
        for reason in configuration?.reasons ?? [] { followed |= 1 << reason.rawValue }
        slotsMax = Int(Double(stagingSlots) * (configuration?.stagingShare ?? 0))
        holds.reserveCapacity(64)
    }

    var isOn: Bool { configuration != nil }
    var stagesQueue: Bool { follows(.queue) }
    func follows(_ reason: PrefetchReason) -> Bool { followed >> reason.rawValue & 1 == 1 }

    /// Rates of the paths, as a request just saw them.
    mutating func observe(_ links: LinkView) { bandwidth = (links.nvme.bandwidth, links.flash.bandwidth) }

    /// Takes bytes out of a path's allowance for predictions: its share of the last second's bandwidth at most.
    mutating func take(_ bytes: Int, from tier: Tier, at now: Instant) -> Bool {
        let share = configuration?.linkShare ?? 0
        let elapsed = min(1, (now - allowanceAt).seconds)
        if elapsed > 0 {
            allowance.nvme = min(share * bandwidth.nvme, allowance.nvme + elapsed * share * bandwidth.nvme)
            allowance.flash = min(share * bandwidth.flash, allowance.flash + elapsed * share * bandwidth.flash)
            allowanceAt = now
        }
        if tier == .nvme {
            // A block larger than a second's share may go when the allowance is full.
            guard allowance.nvme >= min(Double(bytes), share * bandwidth.nvme), share > 0 else { return false }
            allowance.nvme -= Double(bytes)
        } else {
            guard allowance.flash >= min(Double(bytes), share * bandwidth.flash), share > 0 else { return false }
            allowance.flash -= Double(bytes)
        }
        return true
    }

    // MARK: Conversations

    /// A conversation goes on: what its last turn's class predicted is now known.
    mutating func requestArrived(session: Int32, at now: Instant) {
        guard isOn, session >= 0, let slot = sessionSlots[session] else { return }
        guard sessions[Int(slot)].state == .waiting else { return }
        let gap = (now - sessions[Int(slot)].endedAt).seconds
        predictor.returned(sessions[Int(slot)].turn, gap: gap)
        sessions[Int(slot)].gap = gap
        sessions[Int(slot)].state = .running
        sessions[Int(slot)].generation &+= 1
    }

    /// A conversation does not go on: nothing is expected of it, and nothing is learned from its end.
    mutating func forget(session: Int32) {
        guard let slot = sessionSlots[session] else { return }
        sessions[Int(slot)].state = .unused
        sessions[Int(slot)].gap = nil
        sessions[Int(slot)].generation &+= 1
    }

    /// The slot of a conversation, taking the place of the one that waits for longest by the clock hand if needed.
    mutating func slot(of session: Int32) -> Int32 {
        if let slot = sessionSlots[session] { return slot }
        let slot: Int32
        if sessions.count < configuration?.sessionsMax ?? 0 {
            sessions.append(Session())
            slot = Int32(truncatingIfNeeded: sessions.count - 1)
        } else {
            hand = (hand + 1) % sessions.count
            slot = Int32(truncatingIfNeeded: hand)
            sessionSlots[sessions[hand].number] = nil
        }
        let generation = sessions[Int(slot)].generation &+ 1
        sessions[Int(slot)] = Session()
        sessions[Int(slot)].generation = generation
        sessions[Int(slot)].number = session
        sessionSlots[session] = slot
        return slot
    }
}
