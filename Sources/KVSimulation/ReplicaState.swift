// One replica of the cluster: its batching engine, its KV memory, the requests it holds back, and how its time went.

import KVModel
import KVServing

/// How long a replica's GPUs did what, in whole nanoseconds, so that the classes add up exactly.
struct ReplicaTime {
    var decode: Int64 = 0
    var prefillUseful: Int64 = 0
    var prefillRecomputed: Int64 = 0
    var stalled: Int64 = 0
    var idle: Int64 = 0

    var total: Int64 { decode + prefillUseful + prefillRecomputed + stalled + idle }
}

/// A queue of requests that grows at its end and, for preempted ones, at its front.
struct RequestQueue {
    private var items: [Int32] = []
    private var head = 0

    var isEmpty: Bool { head == items.count }
    var count: Int { items.count - head }
    /// The first request. There must be one.
    var first: Int32 { items[head] }

    mutating func append(_ request: Int32) {
        if head > 64, head * 2 > items.count {
            items.removeFirst(head)
            head = 0
        }
        items.append(request)
    }

    mutating func prepend(_ request: Int32) {
        if head > 0 {
            head -= 1
            items[head] = request
        } else {
            items.insert(request, at: 0)
        }
    }

    mutating func removeFirst() -> Int32 {
        defer { head += 1 }
        return items[head]
    }
}

/// One replica of a cluster.
struct ReplicaState {
    var engine: Replica
    var space: ReplicaSpace
    /// Requests that have no KV memory yet, in order of arrival.
    var held = RequestQueue()
    /// Their prompt tokens.
    var heldTokens = 0
    /// Preempted requests whose KV is in host memory and waits for room.
    var swappedOut: [Int32] = []
    /// Requests whose KV is on its way, and those of them that compute meanwhile.
    private(set) var loadingCount = 0
    private(set) var splitCount = 0

    // The iteration under way, or the run of decode steps.
    private(set) var isBusy = false
    private(set) var start: Int64 = 0
    /// When it ends, as far as is known.
    private(set) var end: Int64 = 0
    /// Computing in it, and how much of that decoding alone would take.
    private var duration: Int64 = 0
    private var decodeDuration: Int64 = 0
    private var steps = 0
    private var sequences = 0
    private(set) var decodeFLOPs = 0.0
    /// Share of its prefill that had been computed before, by FLOPs.
    var recomputedShare = 0.0
    /// Computing that a short load added, nanoseconds; and what was added before the iteration began.
    private var extra: Int64 = 0
    /// Whether it only waits for the last layers of a load.
    private var isHeld = false

    /// How its time was spent, up to `accountedTo`.
    private(set) var time = ReplicaTime()
    private var accountedTo: Int64
    var log = StepLog()

    init(engine: Replica, space: ReplicaSpace, start: Int64) {
        self.engine = engine
        self.space = space
        accountedTo = start
    }

    /// Tokens that are admitted and wait to be computed; what they hit in a cache does not count.
    var queuedTokens: Int { engine.queuedPrefillTokens - space.cachedWaiting }

    /// Whether another request may take KV memory: an engine admits while the next iteration has tokens to give.
    func hasRoomForMore(_ settings: Scenario.Engine) -> Bool {
        queuedTokens < settings.tokenBudget
            && engine.runningCount + engine.waitingCount + loadingCount < settings.maxSequences
    }

    /// Another engine takes the place of one that died. Its time goes on; what ran is lost, and its time was for nothing.
    mutating func beginAnew(_ engine: Replica, _ space: ReplicaSpace, at now: Int64) {
        let lost = now - accountedTo
        if lost > 0 { time.idle += lost }
        let time = time
        self = ReplicaState(engine: engine, space: space, start: now)
        self.time = time
    }

    /// Books the time since the last booking, during which nothing ran.
    mutating func accountWaiting(to now: Int64) {
        if isBusy { return }
        let passed = now - accountedTo
        if loadingCount > 0 { time.stalled += passed } else { time.idle += passed }
        accountedTo = now
    }

    mutating func beginLoad(at now: Int64) {
        accountWaiting(to: now)
        loadingCount += 1
    }

    mutating func endLoad(at now: Int64) {
        accountWaiting(to: now)
        loadingCount -= 1
        precondition(loadingCount >= 0, "more loads ended than began")
    }

    /// A load turned out to be of a prompt's back, with its front to compute meanwhile.
    mutating func beginSplit() { splitCount += 1 }

    /// The back has come, up to token `end`.
    mutating func endSplit(_ request: UInt32, end: Int) {
        splitCount -= 1
        engine.closeGap(request, end: end, space: &space)
    }

    /// Starts an iteration; false when nothing can run.
    mutating func startIteration(at now: Int64) -> Bool {
        guard
            let iteration = engine.startIteration(
                at: Instant(nanoseconds: now), until: .distantFuture, space: &space)
        else { return false }
        isBusy = true
        isHeld = false
        start = now
        duration = max(1, iteration.duration.nanoseconds)
        decodeDuration = min(duration, iteration.decodeDuration.nanoseconds)
        steps = iteration.steps
        sequences = iteration.sequences
        decodeFLOPs = iteration.decodeFLOPs
        end = now + duration + extra
        return true
    }

    /// Cuts a run of decode steps short if somebody waits who could join; whether it ends earlier now.
    mutating func shortenForNewcomers(_ settings: Scenario.Engine, at now: Int64) -> Bool {
        (engine.waitingCount > 0 || !held.isEmpty) && hasRoomForMore(settings) && shorten(at: now)
    }

    /// Cuts a run of decode steps at the next step; whether it ends earlier now.
    private mutating func shorten(at now: Int64) -> Bool {
        guard steps > 1, now < end else { return false }
        let shorter = max(1, engine.shorten(at: Instant(nanoseconds: now)).nanoseconds)
        guard shorter < duration else { return false }
        let share = Double(shorter) / Double(duration)
        steps = max(1, Int((Double(steps) * share).rounded()))
        decodeFLOPs *= share
        duration = shorter
        decodeDuration = min(decodeDuration, shorter)
        end = start + duration + extra
        return true
    }

    /// Layer-wise loading: computing starts when the first layer is there.
    mutating func holdForLayers(_ table: RequestTable, layers: Int) {
        var wait: Int64 = 0
        for chunk in engine.chunks where table.states[Int(chunk.request)].isLoading {
            wait = max(wait, table.states[Int(chunk.request)].plannedLoad / Int64(layers))
        }
        end += wait
    }

    /// Whether the iteration is computed but for the last layers of a load; then it ends when that has come.
    mutating func isHeldByLoad(_ table: RequestTable) -> Bool {
        for chunk in engine.chunks where table.states[Int(chunk.request)].isLoading {
            isHeld = true
            return true
        }
        return false
    }

    /// A layer-wise load ended: what is left is the last layer's share of computing, and whatever did not come.
    mutating func layersLoaded(at now: Int64, extra more: Int64, layers: Int, _ table: RequestTable) {
        extra += more
        guard isBusy else { return }
        if isHeld {
            if isHeldByLoad(table) { return }
            isHeld = false
            end = now + duration / Int64(layers) + more
        } else {
            end = max(end, now + duration / Int64(layers)) + more
        }
    }

    /// Books the iteration that ends now.
    mutating func finishIteration(at now: Int64, itl: inout LogHistogram) {
        let prefill = duration - decodeDuration
        let recomputed = Int64((Double(prefill) * recomputedShare).rounded())
        time.decode += decodeDuration
        time.prefillRecomputed += recomputed + extra
        time.prefillUseful += prefill - recomputed
        time.stalled += (now - start) - duration - extra
        accountedTo = now
        isBusy = false
        extra = 0
        if sequences > 0 {
            let step = Double(now - start) / Double(steps) / 1e9
            log.append(seconds: step, count: steps)
            itl.add(step, count: steps * sequences)
        }
        engine.finishIteration(space: &space)
    }
}

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

/// The KV memory of one replica, as its batching engine asks for it.
struct ReplicaSpace: KVSpace {
    var cache: PrefixCache
    private let table: RequestTable
    private let blockTokens: Int
    /// Without prefix caching no block is shared or kept.
    private let sharesPrefixes: Bool
    private var evicted: [BlockNumber] = []
    /// Engine-owned: the engine's own host tier, as its LRU keeps it; without readers, all of it is cache.
    private var hostRegion: PrefixCache?
    /// Tokens of requests that wait in the engine's queue and need no computing.
    var cachedWaiting = 0

    init(cache: PrefixCache, table: RequestTable, sharesPrefixes: Bool, hostBlocks: Int) {
        self.cache = cache
        hostRegion = hostBlocks > 0 ? PrefixCache(capacity: hostBlocks) : nil
        self.table = table
        self.sharesPrefixes = sharesPrefixes
        blockTokens = table.workload.blockTokens
    }

    /// How many blocks of the path are named, and so can be shared.
    func pathCount(_ request: Int) -> Int {
        sharesPrefixes ? Int(table.workload.requests[request].blockCount) : 0
    }

    /// Takes the blocks of a request of `tokens` tokens in all; returns the leading blocks that were filled, or nil when
    /// there is no room, and then nothing has changed. `spare` blocks must stay to be had.
    mutating func reserve(_ request: Int, tokens: Int, spare: Int) -> Int? {
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        let path = blocks.span.extracting(start..<start + pathCount(request))
        let privateBlocks = max(0, (tokens - path.count * blockTokens + blockTokens - 1) / blockTokens)
        let needed = path.count - cache.readRun(path) + privateBlocks
        if needed + spare > cache.available { return nil }
        let filled = cache.filledRun(path)
        evicted.removeAll(keepingCapacity: true)
        cache.acquire(path, evicted: &evicted)
        cache.changePrivate(by: privateBlocks, evicted: &evicted)
        table.states[request].privateBlocks = Int32(privateBlocks)
        table.states[request].isReserved = true
        return filled
    }

    /// The KV of these blocks has been loaded.
    mutating func fill(_ request: Int, _ range: Range<Int>) {
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        cache.fill(blocks.span.extracting(start..<start + pathCount(request)), range)
    }

    /// All KV of a request has come back from host memory.
    mutating func fillAll(_ request: Int) { fill(request, 0..<pathCount(request)) }

    /// How many leading blocks of a request's path are filled.
    func filledRun(_ request: Int) -> Int {
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        return cache.filledRun(blocks.span.extracting(start..<start + pathCount(request)))
    }

    /// How many leading blocks of a request's path are in the engine's host region.
    func hostRun(_ request: Int) -> Int {
        guard let hostRegion else { return 0 }
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        return hostRegion.filledRun(blocks.span.extracting(start..<start + pathCount(request)))
    }

    /// How many leading blocks the engine has in memories of its own.
    func ownRun(_ request: Int) -> Int { max(filledRun(request), hostRun(request)) }

    /// The engine writes what it computed to its host region as well.
    mutating func keepInHostRegion(_ request: Int) {
        guard hostRegion != nil else { return }
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        let count = min(pathCount(request), hostRegion?.capacity ?? 0)
        let path = blocks.span.extracting(start..<start + count)
        evicted.removeAll(keepingCapacity: true)
        hostRegion?.acquire(path, evicted: &evicted)
        hostRegion?.fillLeading(path, count)
        hostRegion?.release(path)
    }

    mutating func admit(_ number: UInt32, tokens: Int, newTokens: Int) -> Int? {
        let request = Int(number)
        if table.states[request].isReserved {
            cachedWaiting -= Int(table.states[request].cachedTokens)
            return Int(table.states[request].cachedTokens)
        }
        // A preempted request comes back on its own; what is left of it in HBM is hit again.
        guard let filled = reserve(request, tokens: tokens, spare: 0) else { return nil }
        return min(filled * blockTokens, tokens - 1)
    }

    mutating func grow(_ number: UInt32, tokens: Int) -> Int? {
        let request = Int(number)
        let path = pathCount(request)
        let wanted = max(0, (tokens - path * blockTokens + blockTokens - 1) / blockTokens)
        let more = wanted - Int(table.states[request].privateBlocks)
        if more > 0 {
            if more > cache.available { return nil }
            evicted.removeAll(keepingCapacity: true)
            cache.changePrivate(by: more, evicted: &evicted)
            table.states[request].privateBlocks += Int32(more)
        }
        return (path + Int(table.states[request].privateBlocks)) * blockTokens
    }

    mutating func computed(_ number: UInt32, tokens: Int) {
        let request = Int(number)
        let path = pathCount(request)
        // A partial last block is complete with the prompt.
        let isWhole = tokens >= Int(table.workload.requests[request].inputTokens)
        let filled = isWhole ? path : min(path, tokens / blockTokens)
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        cache.fillLeading(blocks.span.extracting(start..<start + path), filled)
    }

    mutating func release(_ number: UInt32, tokens: Int, preempted: Bool) {
        let request = Int(number)
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        cache.release(blocks.span.extracting(start..<start + pathCount(request)))
        evicted.removeAll(keepingCapacity: true)
        cache.changePrivate(by: -Int(table.states[request].privateBlocks), evicted: &evicted)
        table.states[request].privateBlocks = 0
        table.states[request].isReserved = false
    }
}
