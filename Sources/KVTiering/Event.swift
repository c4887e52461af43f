// What can happen to a node's agent. Events carry batches, never single blocks.

import KVModel

/// Names a request of the node from its arrival to its end. The caller chooses it; it may be used again after the
/// end. Small dense numbers cost least.
public typealias RequestNumber = UInt32

/// Names a transfer in flight, a question or an offer to the store. Chosen by the manager, used again after the end.
public typealias TransferNumber = UInt32

/// Something that happened outside.
public enum Event: Sendable {
    /// A request arrived: look its prompt up. Answered by exactly one `Command.answer`, at once or after the store
    /// was asked (at most once, for at most `askDeadline`).
    case arrived(Arrival)
    /// The engine has room for the request and takes its blocks now. Answered by exactly one `Command.ready`, at once
    /// when there is nothing to load, else after one `Command.loading` and when the load ended or its time is over.
    case load(LoadRequest)
    /// The whole prompt is in the engine: its blocks can be kept. Everything the request missed is booked now.
    case computed(Computed)
    /// The turn ended: the answer is out and the engine's blocks of the request may go. Above zero, `resumesAfter` says when its
    /// conversation is expected to go on.
    case ended(request: RequestNumber, reason: StopReason, resumesAfter: Duration = .zero)
    /// An engine used a chain's blocks out of its own memory, without asking for them: a note that they are wanted. It is no
    /// request and no turn: nothing is looked up, booked or let in.
    case touched(chain: ArraySlice<BlockKey>)
    /// The request was given up at any point before its end. Its transfers are cancelled.
    case cancelled(request: RequestNumber)
    /// A transfer ended, in whole or in part.
    case transferEnded(TransferEnd)
    /// The store answered a question.
    case storeAnswered(StoreAnswer)
    /// The store says which blocks of an offer it wants; it holds places for them until they come or are withdrawn.
    case storeWants(StoreWant)
    /// What the store's stream says of keys that came and went since the last such event.
    case storeChanged(added: [BlockKey], removed: [BlockKey])
    /// The store's stream broke, or lost something: nothing that it said so far is believed any more.
    case storeForgotten
    /// Somebody wants blocks kept. Answered by one `Command.pinned`.
    case pin(PinRequest)
    /// Takes a pin back before its time. Unknown pins are ignored.
    case unpin(pin: UInt32)
    /// An engine wants empty slots of node memory to write into. Answered by one `Command.reserved`.
    case reserve(ReserveRequest)
    /// A reservation is over: what was not adopted of it is free. Unknown reservations are ignored.
    case unreserve(reservation: UInt32)
    /// An engine reads no more what a load lent it (`LoadRequest.isLease`). The request itself goes on.
    case released(request: RequestNumber)
    /// The time given to `next(until:)` was reached.
    case deadline
    /// The device whose slots are ours is used no more: nothing on it is to be found, and nothing comes there.
    case deviceLost
}

/// A request with its prompt.
public struct Arrival: Sendable {
    /// Names the request until its end.
    public var request: RequestNumber
    /// Which engine of the node it came to. Engines have their own GPU memory; the node's tiers are common.
    public var engine: Int32
    /// The prompt's chain of block keys, root first, the last one possibly partial. The manager copies what it keeps.
    public var chain: ArraySlice<BlockKey>
    /// Tokens of the prompt. All but the last block hold the configured number.
    public var promptTokens: Int32
    /// How many leading blocks the engine has itself (engine- and host-owned; 0 in `full`).
    public var engineBlocks: Int32
    /// The conversation, or −1 when nobody said.
    public var session: Int32
    /// Its place in the conversation, from 0, or −1 when nobody said.
    public var turn: Int32
    /// The request whose turn it belongs to, when it only loads or hands over a part of that one's blocks: then it is no turn of
    /// its own, whatever became of the other (`endedRequest` if nobody knows it any more), and what it loads is booked with that
    /// one's prompt. `noRequest` otherwise.
    public var pieceOf: RequestNumber

    /// An arrival of given parts.
    public init(
        request: RequestNumber, engine: Int32 = 0, chain: ArraySlice<BlockKey>, promptTokens: Int32,
        engineBlocks: Int32 = 0, session: Int32 = -1, turn: Int32 = -1, pieceOf: RequestNumber = noRequest
    ) {
        self.request = request
        self.engine = engine
        self.chain = chain
        self.promptTokens = promptTokens
        self.engineBlocks = engineBlocks
        self.session = session
        self.turn = turn
        self.pieceOf = pieceOf
    }
}

/// The engine takes a request's blocks now.
public struct LoadRequest: Sendable {
    /// The request concerned.
    public var request: RequestNumber
    /// How many leading blocks the engine has itself by now.
    public var engineBlocks: Int32
    /// One past the last block that the engine has a place for; what was found behind it the engine computes.
    public var endMax: Int32
    /// How long the engine would need before it could compute the first token of this prompt anyway: loading for that
    /// long costs nothing.
    public var computeWait: Duration
    /// What the paths to this engine look like now.
    public var links: LinkView
    /// The engine reads the blocks where they lie in node memory: each slot is lent to it when its last hop ends, until
    /// `Event.released` or the request's end.
    public var isLease = false

    /// A load of given parts.
    public init(
        request: RequestNumber, engineBlocks: Int32, endMax: Int32 = .max, computeWait: Duration = .zero,
        links: LinkView
    ) {
        self.request = request
        self.engineBlocks = engineBlocks
        self.endMax = endMax
        self.computeWait = computeWait
        self.links = links
    }
}

/// One path as it looks now.
public struct LinkState: Sendable, Equatable {
    /// Bytes a second that a new transfer gets.
    public var bandwidth: Double
    /// How long a new transfer waits behind those before it, first-byte latency included.
    public var delay: Duration
    /// Whether both can be relied on. Of a path that is fast in one moment and slow in the next they say what it carries on
    /// the whole, and nothing of when one load ends: such a load is given the time of its grace and no more.
    public var isSteady: Bool

    /// A path of given rate and delay.
    public init(bandwidth: Double, delay: Duration = .zero, isSteady: Bool = true) {
        self.bandwidth = bandwidth
        self.delay = delay
        self.isSteady = isSteady
    }
}

/// The paths on which blocks move up, each from its tier to the engine, as last observed.
public struct LinkView: Sendable, Equatable {
    /// Node memory to GPU.
    public var dram: LinkState
    /// Local flash to node memory.
    public var nvme: LinkState
    /// Shared flash to node memory.
    public var flash: LinkState

    /// A view of given paths.
    public init(dram: LinkState, nvme: LinkState, flash: LinkState) {
        self.dram = dram
        self.nvme = nvme
        self.flash = flash
    }
}

/// A prompt is computed, or a part of it.
public struct Computed: Sendable {
    /// What of it is meant. Whoever sees prompts whole means both at once, in one event; an engine that hands its new
    /// blocks over piece by piece has each piece kept as it comes, and its prompt booked at the end.
    public struct Parts: OptionSet, Sendable {
        /// The parts as bits.
        public let rawValue: UInt8
        /// Parts of given bits.
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// Attribute every token of the prompt in the ledger.
        public static let booked = Parts(rawValue: 1)
        /// Show the chain to the tiers' policies and bring what they want out of the engine.
        public static let kept = Parts(rawValue: 2)
    }

    /// The request concerned.
    public var request: RequestNumber
    /// How many leading blocks of the chain had been computed somewhere in the cluster before this request, by the
    /// caller's oracle; −1 when the caller cannot know (an agent), then a block this agent never met counts as new.
    public var knownBlocks: Int32
    /// What is meant. Each part counts once a request.
    public var parts: Parts
    /// Blocks before this position cannot be brought out of the engine now: it does not hold them for us.
    public var firstHeld: Int32
    /// The blocks from `firstHeld` on lie in reserved slots already.
    public var adopted: Adoption?
    /// How many leading blocks the engine had itself, as it turned out, of a prompt that it loaded nothing of; −1 when it does
    /// not say. What was found behind them and not asked for it computed of its own accord.
    public var engineBlocks: Int32 = -1

    /// A computed prompt of given parts.
    public init(
        request: RequestNumber, knownBlocks: Int32 = -1, parts: Parts = [.booked, .kept], firstHeld: Int32 = 0
    ) {
        self.request = request
        self.knownBlocks = knownBlocks
        self.parts = parts
        self.firstHeld = firstHeld
    }
}

/// Blocks that an engine wrote straight into reserved slots.
public struct Adoption: Sendable, Equatable {
    /// The reservation that the slots belong to.
    public var reservation: UInt32
    /// A slot for each block from `firstHeld` on. Those that are not wanted are free again; on the device, where their writer
    /// goes on reading them, they stay in the reservation.
    public var slots: [SlotIndex]
    /// On the device: the request whose engine goes on reading the blocks until it ends. Without one nothing is taken over.
    public var holder = noRequest

    /// An adoption of its parts.
    public init(reservation: UInt32, slots: [SlotIndex]) {
        self.reservation = reservation
        self.slots = slots
    }
}

/// An engine wants empty slots.
public struct ReserveRequest: Sendable, Equatable {
    /// Names the reservation; chosen by the caller, unique among those in force.
    public var reservation: UInt32
    /// How many slots, at most.
    public var count: Int32

    /// A request of its parts.
    public init(reservation: UInt32, count: Int32) {
        self.reservation = reservation
        self.count = count
    }
}

/// How a transfer ended.
public struct TransferEnd: Sendable {
    /// The transfer, as its order names it.
    public var transfer: TransferNumber
    /// What became of the blocks that `lost` does not list.
    public var outcome: Outcome
    /// Moves that went otherwise, by their index in the order. Empty in the ordinary case.
    public var lost: [LostMove]

    /// What became of a transfer.
    public enum Outcome: UInt8, Sendable {
        /// The bytes arrived and were verified.
        case done
        /// The path or a device failed.
        case failed
        /// It was cancelled; nothing of it counts, and nothing writes or reads its slots any more.
        case cancelled
    }

    /// An end of given parts.
    public init(transfer: TransferNumber, outcome: Outcome, lost: [LostMove] = []) {
        self.transfer = transfer
        self.outcome = outcome
        self.lost = lost
    }
}

/// What became of each move of a transfer, asked for in the order of the moves.
struct MoveFates {
    private let lost: [LostMove]
    private let causeOfOthers: LostMove.Cause?
    private var next = 0

    /// - Parameter isVoid: Whether nothing came through, whatever the transfer says.
    init(_ end: TransferEnd, isVoid: Bool = false) {
        lost = end.lost
        causeOfOthers = end.outcome == .done && !isVoid ? nil : .failed
    }

    /// Why the move at `position` did not come through; `nil` if it did.
    mutating func cause(of position: Int) -> LostMove.Cause? {
        guard next < lost.count, Int(lost[next].move) == position else { return causeOfOthers }
        next += 1
        return lost[next - 1].cause
    }
}

/// One block of a transfer that did not come through.
public struct LostMove: Sendable, Equatable {
    /// Its index in the order's `moves`.
    public var move: Int32
    /// Why.
    public var cause: Cause

    /// Why a block did not come through.
    public enum Cause: UInt8, Sendable {
        /// It was no longer at its source.
        case absent
        /// Its bytes could not be proven right.
        case corrupt
        /// The destination did not take it.
        case refused
        /// The path or device failed for this block.
        case failed
        /// The destination did not take it, because what its owner may have there is spent.
        case overQuota
    }

    /// A lost move of given parts.
    public init(move: Int32, cause: Cause) {
        self.move = move
        self.cause = cause
    }
}

/// The store's answer to a question: one bit a key, in the question's order.
public struct StoreAnswer: Sendable {
    /// The question, as asked.
    public var question: TransferNumber
    /// Bit i % 64 of word i / 64 is set when key i is there.
    public var present: [UInt64]
    /// The store did not say: nothing is learned, and what was asked for is a miss this time.
    public var isSilent: Bool

    /// An answer of given parts.
    public init(question: TransferNumber, present: [UInt64], isSilent: Bool = false) {
        self.question = question
        self.present = present
        self.isSilent = isSilent
    }
}

/// What the store wants of an offer.
public struct StoreWant: Sendable {
    /// The offer, as made.
    public var offer: TransferNumber
    /// Positions in the offered chain, rising and disjoint. Empty when nothing is wanted.
    public var wanted: [Range<Int32>]
    /// Leading blocks of the chain that the store has (present, not only promised); the manager learns from it.
    public var presentBlocks: Int32
    /// Positions the store refused for want of worth or budget (the rest are present or on their way from elsewhere).
    public var refusedFrom: Int32

    /// Wants of given parts. `refusedFrom` is the first refused position, or the chain's length.
    public init(offer: TransferNumber, wanted: [Range<Int32>], presentBlocks: Int32, refusedFrom: Int32) {
        self.offer = offer
        self.wanted = wanted
        self.presentBlocks = presentBlocks
        self.refusedFrom = refusedFrom
    }
}

/// Somebody asks that blocks stay.
public struct PinRequest: Sendable {
    /// Names the pin; chosen by the caller, unique among pins in force.
    public var pin: UInt32
    /// Whose budget it uses, by the index in the configuration.
    public var owner: Int32
    /// The chain whose resident blocks are pinned, root first.
    public var chain: ArraySlice<BlockKey>
    /// When it ends by itself.
    public var expires: Instant

    /// A pin of given parts.
    public init(pin: UInt32, owner: Int32, chain: ArraySlice<BlockKey>, expires: Instant) {
        self.pin = pin
        self.owner = owner
        self.chain = chain
        self.expires = expires
    }
}
