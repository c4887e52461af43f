// What engines and agent say of slots of node memory that an engine reads or writes itself, without a copy: leases of blocks, and
// reservations of empty slots.

import KVModel

/// A lease or a reservation. Numbers are used again, and each time with a higher generation.
public struct EngineLoan: Sendable, Hashable {
    /// Which word of the loan words says whether it is in force.
    public var number: UInt32
    /// What stands in that word as long as it is. Never zero.
    public var generation: UInt64

    /// A loan of its parts.
    public init(number: UInt32 = 0, generation: UInt64 = 0) {
        self.number = number
        self.generation = generation
    }

    /// No loan.
    public static let none = EngineLoan()
}

/// Blocks that an engine wants to read where they lie.
public struct EngineTake: Sendable, Equatable {
    /// The job, answered by one `taken`.
    public var job: EngineTicket
    /// The request it belongs to, 0 when there is none.
    public var request: EngineTicket
    /// The connection that asked for the request, by its number; 0: the one that sends this, where it must be open.
    public var asker: UInt16
    /// The chain up to the last wanted block or further; empty when the request's look-up named it.
    public var names: [ObjectName]
    /// Position in the chain of the first wanted block.
    public var first: Int32
    /// How many blocks, at most.
    public var count: Int32
    /// Whether the agent compares checksums before it hands blocks over.
    public var isVerified: Bool
    /// How long the engine would be busy before it could compute this prompt anyway.
    public var computeWait: Duration
    /// When the engine stops waiting for the answer.
    public var deadline: Instant
    /// How long it wants to read; zero: as long as the agent lends.
    public var lifetime: Duration

    /// A take of its parts.
    public init(
        job: EngineTicket, request: EngineTicket = 0, asker: UInt16 = 0, names: [ObjectName], first: Int32,
        count: Int32, isVerified: Bool = true, computeWait: Duration = .zero, deadline: Instant = .distantFuture,
        lifetime: Duration = .zero
    ) {
        self.job = job
        self.request = request
        self.asker = asker
        self.names = names
        self.first = first
        self.count = count
        self.isVerified = isVerified
        self.computeWait = computeWait
        self.deadline = deadline
        self.lifetime = lifetime
    }
}

/// A block that an engine may read in place.
public struct LeasedBlock: Sendable, Hashable {
    /// The slot of the arena that it lies in.
    public var slot: UInt32
    /// What its checksum must be (`BlockChecksum` of name and payload).
    public var checksum: UInt64
    /// Whether anybody has taken it. What an engine wrote on a device has none until the agent has copied it down.
    public var hasChecksum: Bool

    /// A block of its parts.
    public init(slot: UInt32, checksum: UInt64, hasChecksum: Bool = true) {
        self.slot = slot
        self.checksum = checksum
        self.hasChecksum = hasChecksum
    }
}

/// What an engine may read.
public struct EngineTaken: Sendable, Equatable {
    /// Position in the chain of the first block.
    public var first: Int32
    /// The lease, or none when there are no blocks.
    public var loan: EngineLoan
    /// From the job's arrival to its end.
    public var time: Duration
    /// The blocks from `first` on.
    public var blocks: [LeasedBlock]

    /// A hand-over of its parts.
    public init(first: Int32, loan: EngineLoan = .none, time: Duration = .zero, blocks: [LeasedBlock] = []) {
        self.first = first
        self.loan = loan
        self.time = time
        self.blocks = blocks
    }

    /// One past the last block.
    public var end: Int32 { first + Int32(truncatingIfNeeded: blocks.count) }
}

/// Empty slots that an engine wants.
public struct EngineReserve: Sendable, Equatable {
    /// The job, answered by one `reserved`.
    public var job: EngineTicket
    /// How many, at most.
    public var count: Int32
    /// How long it wants them; zero: as long as the agent lends.
    public var lifetime: Duration

    /// A reservation of its parts.
    public init(job: EngineTicket, count: Int32, lifetime: Duration = .zero) {
        self.job = job
        self.count = count
        self.lifetime = lifetime
    }
}

/// Slots that an engine may write into.
public struct EngineReserved: Sendable, Equatable {
    /// The reservation, or none when there are no slots.
    public var loan: EngineLoan
    /// From the job's arrival to its end.
    public var time: Duration
    /// The slots; they hold what somebody left there.
    public var slots: [UInt32]

    /// A reservation of its parts.
    public init(loan: EngineLoan = .none, time: Duration = .zero, slots: [UInt32] = []) {
        self.loan = loan
        self.time = time
        self.slots = slots
    }
}

/// Reserved slots that are full: blocks from now on.
public struct EngineCommit: Sendable, Equatable {
    /// The job, answered by one `saved`. The engine writes into the slots no more.
    public var job: EngineTicket
    /// The request it belongs to, 0 when there is none.
    public var request: EngineTicket
    /// The connection that asked for the request, by its number; 0: the one that sends this, where it must be open.
    public var asker: UInt16
    /// The chain from its root (or as much as is known) up to the last block.
    public var names: [ObjectName]
    /// Position in the chain of the first block.
    public var first: Int32
    /// The eviction class, as namespaces define it.
    public var evictionClass: UInt8
    /// The reservation.
    public var loan: EngineLoan
    /// A slot of the reservation for each block from `first` on.
    public var slots: [UInt32]

    /// A commit of its parts.
    public init(
        job: EngineTicket, request: EngineTicket = 0, asker: UInt16 = 0, names: [ObjectName], first: Int32,
        evictionClass: UInt8 = 0,
        loan: EngineLoan, slots: [UInt32]
    ) {
        self.job = job
        self.request = request
        self.asker = asker
        self.names = names
        self.first = first
        self.evictionClass = evictionClass
        self.loan = loan
        self.slots = slots
    }
}

/// What the slots that an engine is shown lie in.
public enum EngineArenaMemory: UInt8, Sendable {
    /// Node memory: a memory file.
    case node
    /// A device that stands in for a GPU: a memory file, too.
    case emulatedDevice
    /// A GPU's memory: a descriptor for `cuMemImportFromShareableHandle`.
    case cudaDevice
}

/// How the arena looks to an engine that maps it.
public struct EngineArenaShape: Sendable, Equatable {
    /// Bytes from one slot to the next.
    public var slotBytes: Int
    /// How many slots.
    public var slotCount: Int
    /// Bytes of the file.
    public var byteCount: Int
    /// How many loan words: 8 bytes each, in the second file.
    public var loanCount: Int
    /// The longest loan.
    public var lifetimeMax: Duration
    /// Whether the descriptor allows writing.
    public var isWritable: Bool
    /// What the slots lie in.
    public var memory: EngineArenaMemory

    /// A shape of its parts.
    public init(
        slotBytes: Int, slotCount: Int, byteCount: Int, loanCount: Int, lifetimeMax: Duration, isWritable: Bool,
        memory: EngineArenaMemory = .node
    ) {
        self.memory = memory
        self.slotBytes = slotBytes
        self.slotCount = slotCount
        self.byteCount = byteCount
        self.loanCount = loanCount
        self.lifetimeMax = lifetimeMax
        self.isWritable = isWritable
    }
}
