// The enumerated steps of a write and of an erasure, between any two of which a crash must be harmless. The crash
// campaign names one to its worker process, which kills itself there.

/// A step that a command has just reached.
public enum FaultPoint: String, CaseIterable, Sendable {
    /// A write was taken on; nothing of it was sent to the device.
    case writeTaken
    /// Some transfers of a write's data have ended, others have not.
    case dataHalfWritten
    /// All data of a write has been written and not flushed.
    case dataWritten
    /// A flush has made a write's data durable; its header is not written.
    case dataFlushed
    /// A write's header has been written and not flushed.
    case headerWritten
    /// A flush has made a write's header durable; nobody was told.
    case headerFlushed
    /// The owner was told that a write is done.
    case written
    /// A tombstone has been written and not flushed.
    case tombstoneWritten
    /// A flush has made a tombstone durable; nobody was told.
    case tombstoneFlushed
    /// The owner was told that an erasure is done.
    case erased
}

/// Where a process kills itself: at the given occurrence of a point.
public struct FaultTrigger: Sendable, Equatable {
    /// The point.
    public var point: FaultPoint
    /// Which time it is reached, from 1.
    public var occurrence: Int

    /// A point and its occurrence.
    public init(_ point: FaultPoint, occurrence: Int) {
        precondition(occurrence >= 1, "occurrences count from 1")
        self.point = point
        self.occurrence = occurrence
    }
}
