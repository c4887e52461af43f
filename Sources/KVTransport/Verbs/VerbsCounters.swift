// What went over queue pairs, counted: work requests, doorbells, completions. Counts hold on every adapter, an emulated
// one included; speeds do not.

/// What went over one channel, or over all of a transport.
public struct VerbsCounters: Sendable, Equatable {
    /// WRITEs posted, one a message of payload.
    public var writes: UInt64 = 0
    /// READs posted, one a message of payload.
    public var reads: UInt64 = 0
    /// Messages sent: frames, pieces of long frames, reports of credits.
    public var sends: UInt64 = 0
    /// Times the adapter was told of new sends, WRITEs and READs.
    public var sendDoorbells: UInt64 = 0
    /// Times it was told of new receives.
    public var receiveDoorbells: UInt64 = 0
    /// Completions of sends, WRITEs and READs.
    public var sendCompletions: UInt64 = 0
    /// Completions of receives.
    public var receiveCompletions: UInt64 = 0
    /// Payload bytes that the adapter moved between registered memory of both ends.
    public var payloadBytes: UInt64 = 0
    /// Bytes of frames that were copied to or from messages. Payload is never among them.
    public var frameBytesCopied: UInt64 = 0
    /// The most READs that were outstanding on one queue pair.
    public var readsOutstandingMax: UInt64 = 0
    /// Queue pairs set up.
    public var pairsOpened: UInt64 = 0
    /// Queue pairs that ended by an error of theirs.
    public var pairsFailed: UInt64 = 0
    /// Clients that asked for a queue pair and got none, for want of room or by bad parameters.
    public var pairsRefused: UInt64 = 0
    /// Queue pairs destroyed before all that was posted had come back flushed.
    public var pairsUndrained: UInt64 = 0

    /// Times the server's thread had nothing to do, armed the completion queue and slept.
    public var sleeps: UInt64 = 0

    /// Nothing yet.
    public init() {}

    /// Adds what another counted.
    public mutating func add(_ other: VerbsCounters) {
        for field in Self.fields where field.path != \.readsOutstandingMax {
            self[keyPath: field.path] += other[keyPath: field.path]
        }
        readsOutstandingMax = max(readsOutstandingMax, other.readsOutstandingMax)
    }

    /// Every count with its name, for metrics.
    public static var fields: [(name: String, path: WritableKeyPath<VerbsCounters, UInt64>)] {
        [
            ("writes", \.writes), ("reads", \.reads), ("sends", \.sends), ("send_doorbells", \.sendDoorbells),
            ("receive_doorbells", \.receiveDoorbells), ("send_completions", \.sendCompletions),
            ("receive_completions", \.receiveCompletions), ("payload_bytes", \.payloadBytes),
            ("frame_bytes_copied", \.frameBytesCopied), ("reads_outstanding_max", \.readsOutstandingMax),
            ("pairs_opened", \.pairsOpened), ("pairs_failed", \.pairsFailed), ("pairs_refused", \.pairsRefused),
            ("pairs_undrained", \.pairsUndrained), ("sleeps", \.sleeps),
        ]
    }
}
