// What a drive can be told, and what it answers: the border between whoever owns extents and buffers and the thread
// that owns the ring.

import KVModel
import KVSystem

/// The extents of one object on one drive, in the order of its bytes. At most 64, held in place.
public struct ExtentList: Sendable {
    /// The most extents an object may have.
    public static let countMax = 64

    private var numbers: InlineArray<64, UInt32>
    /// How many there are.
    public private(set) var count: Int

    /// No extents yet.
    public init() {
        numbers = InlineArray(repeating: 0)
        count = 0
    }

    /// Adds an extent at the end.
    public mutating func append(_ extent: UInt32) {
        precondition(count < Self.countMax, "an object of more than 64 extents")
        numbers[count] = extent
        count += 1
    }

    /// The extent that holds the bytes from `index` × the extent's size on.
    public subscript(index: Int) -> UInt32 {
        precondition(index < count, "an extent past the end of its object")
        return numbers[index]
    }

    /// Whether an extent is among them.
    public func contains(_ extent: UInt32) -> Bool {
        for index in 0..<count where numbers[index] == extent { return true }
        return false
    }
}

extension ExtentList: Equatable {
    /// A list of the given extents.
    public init(_ extents: some Sequence<UInt32>) {
        self.init()
        for extent in extents { append(extent) }
    }

    /// The same extents in the same order.
    public static func == (left: ExtentList, right: ExtentList) -> Bool {
        guard left.count == right.count else { return false }
        for index in 0..<left.count where left[index] != right[index] { return false }
        return true
    }
}

/// Everything about an object that its header on flash says.
public struct FlashObject: Sendable, Equatable {
    /// Its name.
    public var name: ObjectName
    /// What is kept beside it.
    public var metadata: ObjectMetadata
    /// The first 8 bytes of the SHA-256 of its namespace's name, little-endian: a lost catalogue loses no block.
    public var namespace: UInt64
    /// Bytes of its payload.
    public var payloadBytes: Int
    /// `BlockChecksum` of its name and payload.
    public var checksum: UInt64
    /// Higher than that of any earlier object in the same store: of two valid headers for one name, the higher wins.
    public var generation: UInt64
    /// Where its payload is.
    public var extents: ExtentList

    /// An object of its parts.
    public init(
        name: ObjectName, metadata: ObjectMetadata, namespace: UInt64, payloadBytes: Int, checksum: UInt64,
        generation: UInt64, extents: ExtentList
    ) {
        self.name = name
        self.metadata = metadata
        self.namespace = namespace
        self.payloadBytes = payloadBytes
        self.checksum = checksum
        self.generation = generation
        self.extents = extents
    }
}

/// An effect on one drive. Buffers are slices of the `BlockMemory` that the drive was opened with; they belong to the
/// drive until the event with the same tag (after `.overdue`, until `released`). Their offsets are multiples of 4 KiB, and
/// the memory behind them up to the next multiple of 4 KiB travels with them.
public enum FlashCommand: Sendable {
    /// Writes data, flushes, then (restart-safe) writes the header and flushes. `isVolatile`: data only, no header, no
    /// flush.
    case write(tag: UInt64, FlashObject, from: MemorySlice, isVolatile: Bool)
    /// Reads `into.count` bytes of an object from its start. Nothing is verified: that is the reader's business.
    case read(tag: UInt64, ExtentList, into: MemorySlice)
    /// Overwrites the header of an object (at its first extent) by a tombstone and flushes.
    case erase(tag: UInt64, firstExtent: UInt32, generation: UInt64)
    /// Tells the device that extents hold nothing (TRIM), in batches of its own; a hint, without an event.
    case discard(ExtentList)
}

/// How an effect on a drive ended.
public enum FlashOutcome: Sendable, Equatable {
    /// Done; for writes and erasures also durable, as promised by the command.
    case done
    /// The device failed it; error number of the kernel. What the extents now hold is unknown, and after a write so is
    /// whether their header is valid: they are free again only when an `erase` of them is done.
    case failed(Int32)
    /// The drive takes no more writes since a flush failed: nothing since its last good flush is acknowledged. Nothing of
    /// it may be freed before the next restart's scan.
    case readOnly
    /// The device has not answered within the drive's timeout and may still read or write buffer and extents: they stay
    /// the drive's until `released` with the same tag, which may never come. To everyone else the command has failed.
    case overdue
}

/// What a drive says. Every command except `discard` is answered exactly once; `released` follows `.overdue` only.
public enum FlashEvent: Sendable {
    /// The end of a write.
    case written(tag: UInt64, FlashOutcome)
    /// The end of a read.
    case read(tag: UInt64, FlashOutcome)
    /// The end of an erasure.
    case erased(tag: UInt64, FlashOutcome)
    /// A flush failed: the drive is read-only from here on.
    case becameReadOnly(errorNumber: Int32)
    /// The device has let go of the buffer and the extents of a command that was `.overdue`.
    case released(tag: UInt64)
}

/// What the owner of a drive sees of it; `FaultyDrive` decorates it with seeded faults.
public protocol Drive: AnyObject, Sendable {
    /// Hands a command over. `full` when the drive's queue has no room: for a `discard`, when too many were left at once,
    /// whatever else it has.
    func post(_ command: FlashCommand) -> Acceptance
    /// Ends after what was accepted has ended (bounded by the device's own timeouts).
    func shutDown()
}
