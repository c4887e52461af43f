// What a drive has done.

/// Counts since a drive was opened.
public struct FlashCounters: Sendable, Equatable {
    /// Reads that ended well.
    public internal(set) var reads = 0
    /// Bytes of them.
    public internal(set) var readBytes = 0
    /// Writes that ended well, volatile ones too.
    public internal(set) var writes = 0
    /// Bytes of them, without headers.
    public internal(set) var writtenBytes = 0
    /// Erasures that ended well.
    public internal(set) var erasures = 0
    /// Flushes sent to the device.
    public internal(set) var flushes = 0
    /// Runs of extents that the device was told to discard.
    public internal(set) var discards = 0
    /// Commands that failed.
    public internal(set) var failures = 0
    /// Commands given up because the device did not answer in time.
    public internal(set) var overdue = 0
    /// Whether a flush has failed, so that nothing is written any more.
    public internal(set) var isReadOnly = false

    /// Nothing yet.
    public init() {}

    mutating func count(_ kind: DriveScheduler.Kind, _ bytes: Int) {
        switch kind {
        case .read:
            reads += 1
            readBytes += bytes
        case .write, .volatileWrite:
            writes += 1
            writtenBytes += bytes
        case .erase: erasures += 1
        }
    }
}
