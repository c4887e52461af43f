// What a paced replay asks of nodes, how they answer, and what came of it.

import KVModel
import KVReport

/// What a paced replay asks of a node. `lookUp` and `load` are answered once each.
public enum PacedOrder: Sendable {
    /// A request has come.
    case lookUp(PacedRequest)
    /// Its engine has room for it: blocks from `engineBlocks` up to `end` are wanted.
    case load(PacedRequest, end: Int32)
    /// Its prompt is computed: the engine offers the blocks.
    case save(PacedRequest)
    /// Its last token is out.
    case end(PacedRequest)
}

/// How a node answers.
public enum PacedAnswer: Sendable {
    /// Leading blocks that could be served, the engine's own included, and the seconds that it took to say so.
    case found(request: Int, blocks: Int32, seconds: Double)
    /// One past the last block that the engine has now, and the seconds since the order.
    case loaded(request: Int, end: Int32, seconds: Double)
}

/// A request, and where it went.
public struct PacedRequest: Sendable {
    /// Its node, and everything that is said of it there.
    public var node: Int
    /// See `node`.
    public var request: LockStepRequest
}

/// What came of a paced replay.
public struct PacedResult: Sendable {
    /// Requests that ended, of those that came.
    public var completed = 0
    /// Requests that came.
    public var arrived = 0
    /// Their prompt tokens.
    public var promptTokens = 0
    /// Where the tokens would have come from with endless bytes that every engine reads.
    public var ceiling = Ledger()
    /// From arrival to the first token: queueing and computing as modelled, look-up and load as they were, seconds.
    public var ttft: [Double] = []
    /// Of that, look-up and load.
    public var readySeconds: [Double] = []
    /// A token of the answer, seconds.
    public var tpot: [Double] = []
    /// Requests that met both limits of the SLO.
    public var metSLO = 0
    /// GPU time of all replicas by what it was spent on.
    public var gpu = GPUSeconds()
    /// From the first arrival to the last token, seconds of the trace's time.
    public var span = 0.0
    /// Requests that were taken up later than they came by more than `PacedReplay.lateness`, and the worst of them: seconds
    /// of the machine's time.
    public var lateRequests = 0
    /// See `lateRequests`.
    public var lateSecondsMax = 0.0
}
