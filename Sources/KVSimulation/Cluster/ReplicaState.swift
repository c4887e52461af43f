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
    private var recomputedShare = 0.0
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
    mutating func startIteration(_ settings: Scenario.Engine, at now: Int64) -> Bool {
        if settings.overlap == .none, loadingCount > splitCount { return false }
        guard engine.hasWork else { return false }
        accountWaiting(to: now)
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

    /// Splits the time that prefill adds to the iteration under way into useful and recomputed, by FLOPs.
    ///
    /// - Returns: The FLOPs of what had not been computed before.
    mutating func splitPrefill(_ table: RequestTable, _ model: ServingModel) -> Double {
        var all = 0.0
        var again = 0.0
        for chunk in engine.chunks {
            let request = Int(chunk.request)
            let flops = model.prefillFLOPs(tokens: chunk.count, after: chunk.start)
            all += flops
            // The last token of a prompt is computed whatever is known: its logits are the answer's first token.
            let prompt = Int(table.workload.requests[request].inputTokens)
            let knownTokens =
                table.states[request].isComputed
                ? Int.max : min(Int(table.states[request].knownBlocks) * table.workload.blockTokens, prompt - 1)
            let tokens = min(chunk.count, knownTokens - chunk.start)
            if tokens == chunk.count {
                again += flops
            } else if tokens > 0 {
                again += model.prefillFLOPs(tokens: tokens, after: chunk.start)
            }
        }
        recomputedShare = all > 0 ? again / all : 0
        return all - again
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

/// Replicas that may have something to start, each once.
struct KickedReplicas {
    private var order: [Int] = []
    private var isIn: [Bool]

    init(count: Int) { isIn = Array(repeating: false, count: count) }

    mutating func insert(_ replica: Int) {
        if isIn[replica] { return }
        isIn[replica] = true
        order.append(replica)
    }

    /// Takes the one that came last.
    mutating func popLast() -> Int? {
        guard let replica = order.popLast() else { return nil }
        isIn[replica] = false
        return replica
    }
}

extension Scenario.Engine {
    /// How its replicas make batches.
    func batching(swaps: Bool) -> Batching {
        Batching(
            tokenBudget: tokenBudget, sequencesMax: maxSequences, preemption: swaps ? .swap : .recompute,
            runStepsMax: 64, reservesWholePrompt: true)
    }
}
