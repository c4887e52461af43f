// What the live world counts, for status and metrics.

/// What the world did, counted.
public struct WorldCounters: Sendable, Codable, Equatable {
    /// Blocks and bytes that came through, by path: out of engines, into engines, from and to local flash, from and to the
    /// store.
    public internal(set) var blocks = [Int](repeating: 0, count: 6)
    /// See `blocks`.
    public internal(set) var bytes = [Int](repeating: 0, count: 6)
    /// Blocks whose bytes were wrong, and that failed otherwise, by path.
    public internal(set) var corrupt = [Int](repeating: 0, count: 6)
    /// See `corrupt`.
    public internal(set) var failed = [Int](repeating: 0, count: 6)
    /// Blocks that were not at their source, and that the store did not take, by path.
    public internal(set) var absent = [Int](repeating: 0, count: 6)
    /// See `absent`.
    public internal(set) var refused = [Int](repeating: 0, count: 6)
    /// Slots that a failed path kept for a while.
    public internal(set) var quarantined = 0
    /// Keys whose full name was not known any more.
    public internal(set) var namesMissing = 0
    /// Times the store was lost, and times its stream broke.
    public internal(set) var storeLost = 0
    /// See `storeLost`.
    public internal(set) var streamBroken = 0
    /// Times the thread had nothing to do.
    public internal(set) var sleeps = 0

    /// Nothing happened yet.
    public init() {}
}
