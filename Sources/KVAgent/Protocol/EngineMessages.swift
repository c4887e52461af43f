// The border between the agent's decisions and its engines, whatever carries it: what an engine says, and what it is
// told. The door (sockets, frames, descriptors) and a replay inside one process speak it alike. Both sides are
// mailboxes: neither ever waits for the other.

import KVModel
import KVSystem
import KVTiering

/// An engine process as long as its connection lives. Never given twice while the agent runs.
public typealias EngineNumber = Int32

/// Names a request or a job of one engine from its first message to its end. The engine chooses it.
public typealias EngineTicket = UInt64

/// Who an engine is and how its blocks look.
public struct EngineHello: Sendable, Equatable {
    /// What speaks: `vllm-tier`, `vllm-connector`, `sglang`, `lmcache`, `replay`, `visitor`.
    public var kind: String
    /// Its process, by the socket's word.
    public var process: Int32
    /// Who owns the memory that its regions show.
    public var ownership: Ownership
    /// The fields of the namespace of its blocks; they are compared with those of the agent's other engines.
    public var namespace: [String: String]
    /// The store's namespace in which its blocks are kept.
    public var storeNamespace: String
    /// Prompt tokens of a full block.
    public var blockTokens: Int32
    /// Bytes of a block's payload, all its segments together.
    public var blockBytes: Int

    /// Whether it is no engine and only looks: what it says of blocks counts for nothing.
    public var isVisitor: Bool { kind == EngineProtocol.visitorKind }

    /// A hello of its parts.
    public init(
        kind: String, process: Int32, ownership: Ownership, namespace: [String: String], storeNamespace: String,
        blockTokens: Int32, blockBytes: Int
    ) {
        self.kind = kind
        self.process = process
        self.ownership = ownership
        self.namespace = namespace
        self.storeNamespace = storeNamespace
        self.blockTokens = blockTokens
        self.blockBytes = blockBytes
    }
}

/// Memory of an engine that the agent may read and write, only for jobs it was given.
public struct EngineRegion: Sendable {
    /// The engine's number for it; slices of jobs name it.
    public var number: Int32
    /// Its bytes, mapped into this process (one region in it). Unmapped when the last holder lets go.
    public var memory: BlockMemory
    private let watch: @Sendable () -> Bool

    /// A region of given memory. `isIntact` asks `watch`, from any thread.
    public init(number: Int32, memory: BlockMemory, watch: @escaping @Sendable () -> Bool = { true }) {
        self.number = number
        self.memory = memory
        self.watch = watch
    }

    /// Whether all its pages are still the engine's. An engine that cuts its file short loses pages under whoever reads
    /// them, and zeros stand in their place: ask after reading and before anybody may see what was read.
    public var isIntact: Bool { watch() }
}

/// A prompt whose blocks are looked up.
public struct EngineLookUp: Sendable, Equatable {
    /// Names the request until `finished` or `cancel`.
    public var ticket: EngineTicket
    /// The chain, root first.
    public var names: [ObjectName]
    /// Tokens of the prompt, the part without a full block included.
    public var promptTokens: Int32
    /// Leading blocks that the engine has itself.
    public var engineBlocks: Int32
    /// The conversation, 0 when the engine cannot say.
    public var session: UInt64
    /// Its place in the conversation, or −1.
    public var turn: Int32

    /// A look-up of its parts.
    public init(
        ticket: EngineTicket, names: [ObjectName], promptTokens: Int32, engineBlocks: Int32 = 0, session: UInt64 = 0,
        turn: Int32 = -1
    ) {
        self.ticket = ticket
        self.names = names
        self.promptTokens = promptTokens
        self.engineBlocks = engineBlocks
        self.session = session
        self.turn = turn
    }
}

/// Where blocks lie in the engine's memory: `segmentsPerBlock` slices a block, in the order of its bytes. Their `region`
/// is the engine's number of a region.
public struct EnginePlaces: Sendable, Equatable {
    /// Slices a block: 1 where a block is one row, more where its parts lie apart.
    public var segmentsPerBlock: Int
    /// The slices, block by block.
    public var slices: [MemorySlice]

    /// Places of given slices.
    public init(segmentsPerBlock: Int = 1, slices: [MemorySlice]) {
        self.segmentsPerBlock = segmentsPerBlock
        self.slices = slices
    }

    /// How many blocks have a place here.
    public var blockCount: Int { slices.count / segmentsPerBlock }
}

/// Blocks that the engine wants in its memory.
public struct EngineLoad: Sendable, Equatable {
    /// The job, answered by one `loaded`.
    public var job: EngineTicket
    /// The request it belongs to, 0 when there is none: then `names` is the chain from its root, or as much as is known.
    public var request: EngineTicket
    /// The connection that asked for the request, by its number; 0: the one that sends this, where it must be open.
    public var asker: UInt16
    /// The chain up to the last wanted block; empty when the request's look-up named it.
    public var names: [ObjectName]
    /// Position in the chain of the first wanted block.
    public var first: Int32
    /// A place for each block from `first` on.
    public var places: EnginePlaces
    /// How long the engine would be busy before it could compute this prompt anyway.
    public var computeWait: Duration
    /// When the engine stops waiting. The agent's own deadline counts too.
    public var deadline: Instant

    /// A load of its parts.
    public init(
        job: EngineTicket, request: EngineTicket = 0, asker: UInt16 = 0, names: [ObjectName], first: Int32,
        places: EnginePlaces, computeWait: Duration = .zero, deadline: Instant = .distantFuture
    ) {
        self.job = job
        self.request = request
        self.asker = asker
        self.names = names
        self.first = first
        self.places = places
        self.computeWait = computeWait
        self.deadline = deadline
    }
}

/// New blocks that the engine offers.
public struct EngineSave: Sendable, Equatable {
    /// The job, answered by one `saved`. The engine keeps the bytes unchanged until then.
    public var job: EngineTicket
    /// The request it belongs to, 0 when there is none.
    public var request: EngineTicket
    /// The connection that asked for the request, by its number; 0: the one that sends this, where it must be open.
    public var asker: UInt16
    /// The chain from its root (or as much as is known) up to the last offered block.
    public var names: [ObjectName]
    /// Position in the chain of the first offered block.
    public var first: Int32
    /// A place for each block from `first` on.
    public var places: EnginePlaces
    /// The eviction class, as namespaces define it: 0 = per-user state, 1 = shared prefix.
    public var evictionClass: UInt8

    /// A save of its parts.
    public init(
        job: EngineTicket, request: EngineTicket = 0, asker: UInt16 = 0, names: [ObjectName], first: Int32,
        places: EnginePlaces,
        evictionClass: UInt8 = 0
    ) {
        self.job = job
        self.request = request
        self.asker = asker
        self.names = names
        self.first = first
        self.places = places
        self.evictionClass = evictionClass
    }
}

/// A request's end as its engine saw it.
public struct EngineRequestEnd: Sendable, Equatable {
    /// The request.
    public var ticket: EngineTicket
    /// Why its turn ended.
    public var reason: StopReason
    /// Prompt tokens that the engine did not compute, or −1 when it does not say.
    public var cachedTokens: Int32
    /// Time from arrival to its first token, or zero when the engine does not say.
    public var timeToFirstToken: Duration
    /// After how long its conversation is expected to go on, or zero when the engine does not say.
    public var resumesAfter: Duration
    /// Tokens of the answer.
    public var answerTokens: Int32

    /// An end of its parts.
    public init(
        ticket: EngineTicket, reason: StopReason = .unknown, cachedTokens: Int32 = -1,
        timeToFirstToken: Duration = .zero, resumesAfter: Duration = .zero, answerTokens: Int32 = 0
    ) {
        self.ticket = ticket
        self.reason = reason
        self.cachedTokens = cachedTokens
        self.timeToFirstToken = timeToFirstToken
        self.resumesAfter = resumesAfter
        self.answerTokens = answerTokens
    }
}

/// What an engine says.
public enum EngineMessage: Sendable {
    /// First of all. Answered by `attached` or `refused`.
    case attach(EngineNumber, EngineHello)
    /// More memory. Answered by `regionAdded`.
    case addRegion(EngineNumber, EngineRegion)
    /// This memory goes. Answered by `regionDropped` when nothing touches it any more.
    case dropRegion(EngineNumber, region: Int32)
    /// Answered by one `found`.
    case lookUp(EngineNumber, EngineLookUp)
    /// Answered by one `loaded`.
    case load(EngineNumber, EngineLoad)
    /// Answered by one `saved`.
    case save(EngineNumber, EngineSave)
    /// Blocks to be read where they lie. Answered by one `taken`.
    case take(EngineNumber, EngineTake)
    /// Empty slots to write into. Answered by one `reserved`.
    case reserve(EngineNumber, EngineReserve)
    /// Reserved slots are full. Answered by one `saved`.
    case commit(EngineNumber, EngineCommit)
    /// A lease or a reservation is given back. Answered by one `released`.
    case release(EngineNumber, EngineTicket, EngineLoan)
    /// The request's blocks may be judged and its prompt booked.
    case finished(EngineNumber, EngineRequestEnd)
    /// Ends a job or a request. Answered by `cancelled` after the last byte written for it.
    case cancel(EngineNumber, EngineTicket)
    /// Bring these blocks up: a hint. The chain from its root.
    case prefetch(EngineNumber, [ObjectName])
    /// These blocks were used without a request: a hint. The chain from its root.
    case touch(EngineNumber, [ObjectName])
    /// Keep what is here of a chain. Answered by `pinned`.
    case pin(EngineNumber, EngineTicket, [ObjectName], lifetime: Duration)
    /// Take a pin back.
    case unpin(EngineNumber, EngineTicket)
    /// Tell this engine of blocks that come and go.
    case subscribe(EngineNumber)
    /// The connection ended. Its jobs are cancelled; `forgotten` follows when nothing touches its regions any more.
    case gone(EngineNumber)

    /// Its keys and places, of which a message may have tens of thousands, 24 to 40 bytes each.
    var itemCount: Int {
        switch self {
        case .lookUp(_, let lookUp): lookUp.names.count
        case .load(_, let load): load.names.count + load.places.slices.count
        case .save(_, let save): save.names.count + save.places.slices.count
        case .take(_, let take): take.names.count
        case .commit(_, let commit): commit.names.count + commit.slots.count
        case .prefetch(_, let names), .touch(_, let names), .pin(_, _, let names, _): names.count
        default: 0
        }
    }

    /// Whether it may be dropped without a word.
    var isHint: Bool {
        switch self {
        case .prefetch, .touch: true
        default: false
        }
    }

    /// Who says it.
    var engine: EngineNumber {
        switch self {
        case .attach(let engine, _), .addRegion(let engine, _), .dropRegion(let engine, _), .lookUp(let engine, _),
            .load(let engine, _), .save(let engine, _), .take(let engine, _), .reserve(let engine, _),
            .commit(let engine, _), .release(let engine, _, _), .finished(let engine, _), .cancel(let engine, _),
            .prefetch(let engine, _), .touch(let engine, _), .pin(let engine, _, _, _), .unpin(let engine, _),
            .subscribe(let engine), .gone(let engine):
            engine
        }
    }
}

/// What an engine is told.
public enum EngineReply: Sendable {
    /// It may go on.
    case attached(EngineNumber)
    /// It may not, and why: both sides named. `room`: another time it may.
    case refused(EngineNumber, reason: String, code: EngineRefusalCode = .layout)
    case regionAdded(EngineNumber, region: Int32)
    case regionDropped(EngineNumber, region: Int32)
    /// Leading blocks that can be loaded, by tier.
    case found(EngineNumber, EngineTicket, Answer)
    /// A load ended: blocks `first ..< end` of the chain (positions) are in their places and were verified.
    case loaded(EngineNumber, job: EngineTicket, first: Int32, end: Int32)
    /// A save ended: bit i % 64 of word i / 64 is set when offered block i is kept somewhere. The places are free.
    case saved(EngineNumber, job: EngineTicket, kept: [UInt64])
    /// Blocks that the engine may read in place from now on.
    case taken(EngineNumber, job: EngineTicket, EngineTaken)
    /// Slots that the engine may write into from now on.
    case reserved(EngineNumber, job: EngineTicket, EngineReserved)
    /// A loan is over, and whether it was still in force.
    case released(EngineNumber, EngineTicket, wasInForce: Bool)
    /// Nothing touches the job's places any more.
    case cancelled(EngineNumber, EngineTicket)
    case pinned(EngineNumber, EngineTicket, PinAnswer)
    /// Blocks that can be found, and can be found no more, since the last such message.
    case changed(EngineNumber, added: [ObjectName], removed: [ObjectName])
    /// Nothing touches the engine's regions any more.
    case forgotten(EngineNumber)
}
