// What the decisions ask of the world. Commands speak of blocks, tiers and slots, never of offsets or descriptors.

import KVModel

/// The place of one block in a tier: 0 to the tier's slot count − 1.
public typealias SlotIndex = UInt32

/// An effect that the manager wants.
public enum Command: Sendable, Equatable {
    /// What a look-up found.
    case answer(Answer)
    /// A load started; `ready` follows. For engines that overlap loading with computing.
    case loading(LoadPlan)
    /// The engine may start: these blocks are in its memory, the rest of the prompt must be computed.
    case ready(Ready)
    /// Move blocks. Ends with one `Event.transferEnded`.
    case transfer(TransferOrder)
    /// Nobody waits for this transfer any more. It still ends with its event. Never refused.
    case cancel(transfer: TransferNumber)
    /// Ask the shared store which keys it has. Ends with one `Event.storeAnswered`.
    case askStore(StoreQuestion)
    /// Tell the shared store that a chain was used, and offer what we could write. Ends with one `Event.storeWants`.
    case offer(StoreOffer)
    /// Promised blocks of an offer will not come: the store may give their places to others.
    case withdraw(keys: [BlockKey])
    /// Whether a pin was granted.
    case pinned(PinAnswer)
    /// Slots that are an engine's to write into.
    case reserved(Reserved)
}

/// What a look-up found: the leading run of the prompt that is in some tier, by the nearest tier of each block.
public struct Answer: Sendable, Equatable {
    /// The request concerned.
    public var request: RequestNumber
    /// Leading blocks that could be served, the engine's own included.
    public var hitBlocks: Int32 = 0
    /// Of those: in the engine or in HBM slots.
    public var hbmBlocks: Int32 = 0
    /// Of those: in node memory.
    public var dramBlocks: Int32 = 0
    /// Of those: on local flash.
    public var nvmeBlocks: Int32 = 0
    /// Of those: in the shared store, as far as is known.
    public var flashBlocks: Int32 = 0

    /// Nothing found for a request.
    public init(request: RequestNumber) { self.request = request }
}

/// A load that was decided.
public struct LoadPlan: Sendable, Equatable {
    /// The request concerned.
    public var request: RequestNumber
    /// First block to load. Above the engine's own run only with `split`: the engine computes those before it.
    public var first: Int32
    /// One past the last block to load.
    public var end: Int32
    /// Bytes that move.
    public var bytes: Int
    /// How long it should take from now.
    public var expected: Duration
    /// When the request goes on without what has not come.
    public var deadline: Instant
}

/// What a request got.
public struct Ready: Sendable, Equatable {
    /// The request concerned.
    public var request: RequestNumber
    /// First block of the loaded run: the engine's own run, or above it with `split`.
    public var first: Int32
    /// One past the last block of it. Blocks `first ..< end` are in the engine's memory; `end == first`: none.
    public var end: Int32
    /// Where those blocks lie, if the engine reads them in slots of the device; they stay there until `Event.released` or the
    /// request's end. Empty where engines have memory of their own.
    public var slots: [SlotIndex] = []

    /// A run of its parts.
    public init(request: RequestNumber, first: Int32, end: Int32) {
        self.request = request
        self.first = first
        self.end = end
    }
}

/// Why bytes move. The order is the order of urgency.
public enum TransferKind: UInt8, Sendable, CaseIterable {
    /// A request waits in the engine for it.
    case load
    /// New blocks leave the engine for node memory.
    case save
    /// A request that has arrived will want it.
    case stage
    /// A prediction.
    case prefetch
    /// Out of node memory to local flash.
    case demote
    /// Out of node memory to the shared store.
    case spill
}

/// Why blocks are brought up before they are asked for.
public enum PrefetchReason: UInt8, Sendable, CaseIterable, Codable {
    /// Its conversation is about to go on.
    case session
    /// It usually follows what was just used.
    case successor
    /// Many ask for it.
    case popularity
    /// A request that waits will ask for it.
    case queue

    /// The name in records and reports.
    public var name: String {
        switch self {
        case .session: "session"
        case .successor: "successor"
        case .popularity: "popularity"
        case .queue: "queue"
        }
    }
}

/// One block of a transfer.
public struct BlockMove: Sendable, Equatable {
    /// The block's name.
    public var key: BlockKey
    /// The block's number in this manager.
    public var block: BlockNumber
    /// Its position in the request's chain where there is a request, else its depth.
    public var position: Int32
    /// Its slot in the tier it leaves. In the engine's own memory and in the shared store: not ours to name, 0.
    public var source: SlotIndex
    /// Its slot in the tier it enters, likewise.
    public var destination: SlotIndex

    /// A move of given parts: the decisions make moves, and tests.
    package init(key: BlockKey, block: BlockNumber, position: Int32, source: SlotIndex, destination: SlotIndex) {
        self.key = key
        self.block = block
        self.position = position
        self.source = source
        self.destination = destination
    }
}

/// Blocks to move from one tier to the next.
public struct TransferOrder: Sendable, Equatable {
    /// The transfer, as its order names it.
    public var transfer: TransferNumber
    /// Why the bytes move.
    public var kind: TransferKind
    /// Where the bytes are. `.hbm` means the engine's memory, whoever owns it: with slots of the device the moves name them.
    public var from: Tier
    /// Where they go.
    public var to: Tier
    /// The engine concerned, or −1.
    public var engine: Int32
    /// The request concerned, or `noRequest`.
    public var request: RequestNumber
    /// Bytes that move.
    public var bytes: Int
    /// The blocks. Source slots are not reused and destination slots not read until the transfer has ended.
    public var moves: [BlockMove]
}

/// No request.
public let noRequest = RequestNumber.max

/// Stands for a request that is over, where one that still runs would be named.
public let endedRequest = RequestNumber.max - 1

/// Which of these keys does the store have?
public struct StoreQuestion: Sendable, Equatable {
    /// The question, as asked.
    public var question: TransferNumber
    /// The request concerned.
    public var request: RequestNumber
    /// The keys, in chain order.
    public var keys: [BlockKey]
}

/// A chain that was used, and the part of it that could be written to the store.
public struct StoreOffer: Sendable {
    /// The offer, as made.
    public var offer: TransferNumber
    /// The whole chain, root first: the store's policy judges it whole.
    public var chain: [BlockKey]
    /// Blocks from here on could be written. The chain's length: nothing is offered, it was only used.
    public var firstOffered: Int32
    /// Leading blocks that were in an earlier offer for the same request, whose turn comes in pieces.
    public var shownBlocks: Int32
    /// What is known of the request.
    public var context: RequestContext

    /// An offer of given parts.
    public init(
        offer: TransferNumber, chain: [BlockKey], firstOffered: Int32, shownBlocks: Int32 = 0, context: RequestContext
    ) {
        self.offer = offer
        self.chain = chain
        self.firstOffered = firstOffered
        self.shownBlocks = shownBlocks
        self.context = context
    }
}

extension StoreOffer: Equatable {
    /// Equal chains offered alike.
    public static func == (left: StoreOffer, right: StoreOffer) -> Bool {
        left.offer == right.offer && left.chain == right.chain && left.firstOffered == right.firstOffered
    }
}

/// Slots that an engine may write into: of the device where its slots are ours, else of node memory. They count against the
/// tier's bytes from now on, and nobody finds them.
public struct Reserved: Sendable, Equatable {
    /// The reservation, as its request names it.
    public var reservation: UInt32
    /// As many as there was room for.
    public var slots: [SlotIndex]

    /// A reservation of its parts.
    public init(reservation: UInt32, slots: [SlotIndex]) {
        self.reservation = reservation
        self.slots = slots
    }
}

/// Whether a pin was granted.
public struct PinAnswer: Sendable, Equatable {
    /// The pin, as its request names it.
    public var pin: UInt32
    /// What became of it.
    public var outcome: Outcome
    /// Blocks that it holds.
    public var blocks: Int32

    /// An answer of its parts.
    public init(pin: UInt32, outcome: Outcome, blocks: Int32) {
        self.pin = pin
        self.outcome = outcome
        self.blocks = blocks
    }

    /// What became of a request to pin.
    public enum Outcome: UInt8, Sendable {
        /// The blocks stay until it expires or is taken back.
        case granted
        /// None of the blocks is in a tier of this node.
        case nothingHere
        /// Its owner's budget has too little left.
        case overBudget
        /// The table of pins is full.
        case tooMany
        /// There is no such owner, or the pin's number is in force.
        case invalid
        /// It would have ended before it began.
        case expired
    }
}
