// One replica's batching: what waits, what runs, what the next iteration holds, and how long it takes.
// It reads no clock and knows no tiers: time goes in, durations and events come out, and room for KV is asked from a KVSpace.

import KVModel

/// The continuous batching of one replica, as a state machine.
///
/// The owner calls `startIteration` when the replica is free, and `finishIteration` when the returned duration has
/// passed. Each iteration gives every decoding sequence one token, continues unfinished prompts, then admits waiting
/// requests in order of arrival while token budget, sequences and room for KV remain. While nothing is left to prefill,
/// many decode steps are taken as one *run*: it ends where the first sequence finishes, at `until`, after
/// `runStepsMax` steps, or, by `shorten`, when something arrives that nobody foresaw.
///
/// Decoding sequences are kept relative to `step`, the number of decode steps so far: a run of any length changes one
/// counter, and sequences are only visited when one of them finishes or needs room.
///
/// A request that waits for its KV to be loaded is the owner's until then: enqueued when the load ends, it takes its
/// place by `order`. A request whose tokens exceed the whole KV space must not be enqueued.
public struct Replica: Sendable {
    /// The times.
    public let model: ServingModel
    /// The settings.
    public let batching: Batching

    /// A sequence that decodes. It has KV for `base + step` tokens.
    @usableFromInline struct Decode: Sendable {
        @usableFromInline var request: ReplicaRequest
        @usableFromInline var base: Int
        /// The value of `step` at which its last token is out.
        @usableFromInline var finishStep: Int
        /// The value of `step` up to which it has room.
        @usableFromInline var roomStep: Int

        @usableFromInline init(request: ReplicaRequest, base: Int, finishStep: Int, roomStep: Int) {
            self.request = request
            self.base = base
            self.finishStep = finishStep
            self.roomStep = roomStep
        }
    }

    /// A request whose prompt is not finished.
    @usableFromInline struct Partial: Sendable {
        @usableFromInline var request: ReplicaRequest
        /// Tokens that have their KV, and tokens that need it before the next one is produced.
        @usableFromInline var computed: Int
        @usableFromInline var target: Int
        /// Tokens it has room for.
        @usableFromInline var room: Int

        @usableFromInline init(request: ReplicaRequest, computed: Int, target: Int, room: Int) {
            self.request = request
            self.computed = computed
            self.target = target
            self.room = room
        }

        /// Tokens left to compute.
        @inlinable var left: Int {
            target - computed - (computed <= request.gap.lowerBound ? request.gap.count : 0)
        }
    }

    @usableFromInline var waiting = WaitingQueue()
    /// In order of admission, and so are `partials`, which are younger.
    @usableFromInline var decodes: [Decode] = []
    @usableFromInline var partials: [Partial] = []
    /// Prompts computed up to a gap whose KV is still being loaded.
    @usableFromInline var parked: [Partial] = []
    /// Decode steps so far.
    @usableFromInline var step = 0
    /// Σ base of the decodes.
    @usableFromInline var baseSum = 0
    /// The lowest finishStep and roomStep, or lower after a removal.
    @usableFromInline var nextFinish = Int.max
    @usableFromInline var nextRoom = Int.max
    /// The iteration under way.
    @usableFromInline var current: Iteration?
    @usableFromInline var startedAt = Instant.zero

    @usableFromInline var plannedChunks: [PrefillChunk] = []
    @usableFromInline var reportedEvents: [ReplicaEvent] = []
    @usableFromInline var uncomputedTokens = 0

    /// A replica without requests.
    public init(model: ServingModel, batching: Batching) {
        self.model = model
        self.batching = batching
        decodes.reserveCapacity(batching.sequencesMax)
        partials.reserveCapacity(batching.sequencesMax)
        plannedChunks.reserveCapacity(batching.sequencesMax)
        reportedEvents.reserveCapacity(2 * batching.sequencesMax)
    }

    /// The prefill chunks of the iteration started last, oldest request first.
    @inlinable public var chunks: [PrefillChunk] { plannedChunks }
    /// What the last call of `startIteration` or `finishIteration` did.
    @inlinable public var events: [ReplicaEvent] { reportedEvents }
    /// Tokens of waiting prompts and of unfinished ones that are not computed yet.
    public var queuedPrefillTokens: Int { uncomputedTokens }
    /// Requests that run: decoding or with a prompt begun.
    public var runningCount: Int { decodes.count + partials.count + parked.count }
    /// Requests that wait to start.
    public var waitingCount: Int { waiting.count }
    /// Tokens of KV that the decoding sequences have.
    public var contextTokens: Int { baseSum + decodes.count * step }
    /// Whether anything waits or runs.
    public var hasWork: Bool { runningCount > 0 || waitingCount > 0 }
    /// Whether an iteration is under way.
    public var isBusy: Bool { current != nil }

    /// Takes a request that is ready to run.
    public mutating func enqueue(_ request: ReplicaRequest) {
        precondition(request.inputTokens > 0, "a request without a prompt")
        precondition(request.producedTokens >= 0, "a request that produced less than nothing")
        precondition(request.outputTokens > request.producedTokens, "a request that has nothing to produce")
        precondition(
            request.gap.isEmpty || batching.reservesWholePrompt, "a gap in a prompt without room for all of it")
        precondition(request.gap.upperBound < request.tokensToPrefill, "a gap that leaves nothing to compute")
        uncomputedTokens += request.tokensToPrefill - request.gap.count
        waiting.insert(request, rank: request.order)
    }

    /// Plans the next iteration at `now`, and returns it; nil where nothing can run: nothing waits, or what waits finds
    /// no room and nothing runs. Preemptions it had to make are in `events`.
    ///
    /// `next` is when the owner next has something for this replica, `.distantFuture` if it cannot say; a run of decode
    /// steps ends with the first step at or after it.
    @inlinable
    public mutating func startIteration<Space: KVSpace>(
        at now: Instant, until next: Instant, space: inout Space
    ) -> Iteration? {
        precondition(current == nil, "an iteration started before the last one finished")
        reportedEvents.clear()
        plannedChunks.clear()
        if nextRoom <= step { makeRoomForOneStep(&space) }
        let prefill = planPrefill(&space)
        if plannedChunks.isEmpty, decodes.isEmpty { return nil }
        if plannedChunks.isEmpty {
            let steps = stepsWithRoom(stepsUntil(next, from: now), &space)
            current = run(of: steps)
        } else {
            current = mixed(prefill)
        }
        startedAt = now
        return current
    }

    /// Ends a run of decode steps with the first step at or after `now`, and returns its new duration. An iteration with
    /// prefill stays as it is.
    public mutating func shorten(at now: Instant) -> Duration {
        guard let iteration = current else { preconditionFailure("no iteration to shorten") }
        if iteration.steps > 1 {
            let steps = stepsReaching((now - startedAt).seconds, limit: iteration.steps)
            if steps < iteration.steps { current = run(of: steps) }
        }
        return current?.duration ?? .zero
    }

    /// Ends the iteration under way. First and last tokens are in `events`; finished requests have left the space.
    @inlinable
    public mutating func finishIteration<Space: KVSpace>(space: inout Space) {
        guard let iteration = current else { preconditionFailure("no iteration to finish") }
        current = nil
        reportedEvents.clear()
        if !decodes.isEmpty { step += iteration.steps }
        if nextFinish <= step { finishDecodes(&space) }
        if !plannedChunks.isEmpty { finishChunks(&space) }
    }
}

extension ReplicaRequest {
    /// The end of what can be computed at once from `computed` on.
    @inlinable func reach(from computed: Int) -> Int {
        computed <= gap.lowerBound && !gap.isEmpty ? gap.lowerBound : tokensToPrefill
    }

    /// Ends the load of the gap at `end`; returns how many of its tokens have to be computed after all.
    @usableFromInline mutating func closeGap(at end: Int) -> Int {
        let loaded = gap.lowerBound..<min(max(end, gap.lowerBound), gap.upperBound)
        defer {
            gap = loaded
            isGapOpen = false
        }
        return gap.count - loaded.count
    }

    /// Tokens that need KV before the next one can be produced.
    @inlinable var tokensToPrefill: Int { inputTokens + producedTokens }
}
