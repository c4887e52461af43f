// What engines said, counted where it becomes events.

/// What engines did, counted.
public struct DeskCounters: Sendable, Codable, Equatable {
    /// Messages by kind.
    public internal(set) var lookUps = 0
    /// See `lookUps`.
    public internal(set) var loads = 0
    /// See `lookUps`.
    public internal(set) var saves = 0
    /// See `lookUps`.
    public internal(set) var finished = 0
    /// See `lookUps`.
    public internal(set) var cancels = 0
    /// See `lookUps`.
    public internal(set) var hints = 0
    /// Blocks that engines were given, and that they offered.
    public internal(set) var blocksLoaded = 0
    /// See `blocksLoaded`.
    public internal(set) var blocksOffered = 0
    /// Requests and jobs for which there was no room.
    public internal(set) var refused = 0
    /// Jobs whose places or names made no sense.
    public internal(set) var invalid = 0
    /// Loads cut because their engine waited no longer.
    public internal(set) var loadsLate = 0

    /// Nothing happened yet.
    public init() {}
}
