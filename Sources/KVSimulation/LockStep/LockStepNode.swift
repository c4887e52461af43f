// What a lock-step replay asks of a node, whatever carries it out: decisions over a world that stands still, or a real
// agent with real bytes. One request at a time, everything drained to quiet before the next word.

import KVModel
import KVReport
import KVTiering

/// One request of a lock-step replay.
public struct LockStepRequest: Sendable {
    /// Its place in the trace.
    public var index: Int
    /// The engine of its node that it came to.
    public var engine: Int
    /// Its chain, root first, by the trace's numbers.
    public var path: ArraySlice<BlockNumber>
    /// Tokens of the prompt.
    public var promptTokens: Int32
    /// Leading blocks that the engine has itself.
    public var engineBlocks: Int32
    /// Leading blocks that it has after its load.
    public var loadedBlocks: Int32 = 0
    /// The conversation.
    public var session: Int32
    /// Its place in the conversation.
    public var turn: Int32
    /// Why its turn ended.
    public var reason: StopReason
    /// When it arrived.
    public var time: Instant
}

/// What came of a request's load.
public struct LockStepLoad: Sendable {
    /// One past the last block that the engine has now.
    public var end: Int32
    /// How long it took, by a clock or as planned, seconds.
    public var seconds: Double
    /// Whether the engine died of it, with all that it held.
    public var engineDied: Bool

    /// A load of its parts.
    public init(end: Int32, seconds: Double = 0, engineDied: Bool = false) {
        self.end = end
        self.seconds = seconds
        self.engineDied = engineDied
    }
}

/// A node in lock step. Every call returns when nothing of it is in flight any more.
public protocol LockStepNode: AnyObject {
    /// Leading blocks of the prompt that could be served, the engine's own included.
    func lookUp(_ request: LockStepRequest) throws -> Int32
    /// Brings the blocks from `request.engineBlocks` up to `end` into the engine.
    func load(_ request: LockStepRequest, upTo end: Int32) throws -> LockStepLoad
    /// The prompt is computed: the engine offers its blocks, all of which it holds; where HBM slots are the node's, it writes
    /// those that it did not find into slots of the device.
    func save(_ request: LockStepRequest) throws
    /// The prompt is booked and its turn over: where its tokens came from, as far as the node knows. Empty: nobody booked it.
    func finish(_ request: LockStepRequest) throws -> Ledger
}
