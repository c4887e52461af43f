// What every request of a run has become, shared by the cluster and its replicas' memories; and the transfers that belong to a
// request but to no manager.

/// A transfer that no manager ordered.
struct ForeignTransfer {
    enum Kind: UInt64 {
        /// A preempted request's KV on its way to host memory.
        case swapOut
        /// And back.
        case swapIn
        /// Out of the engine's own host region.
        case hostRegion
    }

    let kind: Kind
    let request: Int

    init(kind: Kind, request: Int) {
        self.kind = kind
        self.request = request
    }

    init(tag: UInt64) {
        let plain = tag & ~SimulatedWorld.foreign
        guard let kind = Kind(rawValue: plain & 3) else { preconditionFailure("a transfer of no kind") }
        self.kind = kind
        request = Int(plain >> 2)
    }

    var tag: UInt64 { UInt64(request) << 2 | kind.rawValue }
}

/// What a request has become.
struct RequestState {
    var replica: Int32 = -1
    /// Prompt tokens that need no computing, by the admission; −1 before it.
    var cachedTokens: Int32 = -1
    /// Leading blocks that were in HBM at that moment.
    var hbmBlocks: Int32 = 0
    /// Leading prompt blocks that had been computed before anywhere in the cluster.
    var knownBlocks: Int32 = 0
    /// Of those, the ones behind which nothing was being computed for the first time just then.
    var computedBlocks: Int32 = 0
    /// Leading blocks that the rest of the cluster holds, where this replica cannot reach them.
    var elsewhereBlocks: Int32 = 0
    /// Blocks of KV beyond the path's: the answer, and tokens behind the last named block.
    var privateBlocks: Int32 = 0
    /// First entry of the replica's step log after the first token.
    var firstStep: Int32 = 0
    /// Whether its blocks are taken in HBM.
    var isReserved = false
    /// Sources from which its KV is still being loaded.
    var loadParts: Int8 = 0
    /// Blocks that are loaded while the engine computes those before them: the planner's `split`.
    var split: Range<Int32> = 0..<0
    /// Whether it has been given to the batching engine.
    var isEnqueued = false
    /// Leading blocks that its node's tiers brought, or that were in HBM before.
    var readyBlocks: Int32 = 0
    /// Leading blocks that the engine's own memories had: HBM and, engine-owned, its host region.
    var hostBlocks: Int32 = 0
    /// Whether its first token is out; a preempted request comes by a second time.
    var isComputed = false
    /// Whether its KV is being loaded and the iteration that computes its rest must wait for that.
    var isLoading: Bool { loadParts > 0 && split.isEmpty }
    /// What its node's manager calls it.
    var number: UInt32 = 0
    /// Its rank of arrival.
    var order = 0
    /// Tokens it had generated when it was swapped out.
    var producedTokens: Int32 = 0
    /// How long its load should take, nanoseconds.
    var plannedLoad: Int64 = 0
    var arrival: Int64 = 0
    /// When its KV blocks were taken: the end of its time in the queue.
    var admitted: Int64 = 0
    var firstToken: Int64 = -1
    var finished: Int64 = -1
}

/// All requests of a run, shared by the cluster and its replicas' memories.
final class RequestTable {
    let workload: Workload
    var states: [RequestState]

    init(_ workload: Workload) {
        self.workload = workload
        states = Array(repeating: RequestState(), count: workload.requests.count)
    }
}
