// What goes into a replica's batches and what comes out: settings, requests, iterations, events.

import KVModel

/// How a replica forms its iterations: continuous batching with chunked prefill, as vLLM v1 and Sarathi-Serve
/// (OSDI 2024) do it.
public struct Batching: Sendable, Equatable {
    /// Tokens of one iteration, decodes and prefill chunks together.
    public var tokenBudget: Int
    /// Requests that run at once.
    public var sequencesMax: Int
    /// What happens to a request that is stopped because no block is free.
    public var preemption: Preemption
    /// Decode steps taken at once while nothing else happens.
    public var runStepsMax: Int
    /// Whether a request starts only when its whole prompt finds room. Without it a prompt may be half computed when
    /// room runs out, and its work is thrown away.
    public var reservesWholePrompt: Bool

    /// A way to stop a request.
    public enum Preemption: String, Sendable, CaseIterable {
        /// Its KV is computed again; it returns to the head of the queue by itself.
        case recompute
        /// The owner moves its KV away and back, and enqueues it again then.
        case swap
    }

    /// The usual settings of vLLM: 8192 tokens, 256 requests, recompute; runs of at most 64 steps.
    public init(
        tokenBudget: Int = 8192, sequencesMax: Int = 256, preemption: Preemption = .recompute, runStepsMax: Int = 64,
        reservesWholePrompt: Bool = true
    ) {
        precondition(sequencesMax > 0, "a replica that runs no request")
        precondition(tokenBudget >= sequencesMax, "an iteration must hold one token of every running request")
        precondition(runStepsMax > 0, "a run without a step")
        self.tokenBudget = tokenBudget
        self.sequencesMax = sequencesMax
        self.preemption = preemption
        self.runStepsMax = runStepsMax
        self.reservesWholePrompt = reservesWholePrompt
    }
}

/// A request as its owner hands it to a replica, ready to run.
public struct ReplicaRequest: Sendable, Equatable {
    /// Its number in the owner's arrays.
    public var number: RequestNumber
    /// Its rank by arrival: of two waiting requests the lower one starts first, whenever they were enqueued.
    public var order: Int
    /// Tokens of its prompt, at least 1.
    public var inputTokens: Int
    /// Tokens it will produce, at least 1.
    public var outputTokens: Int
    /// Tokens it produced before it was preempted.
    public var producedTokens: Int
    /// Tokens whose KV is being loaded while those before them are computed; empty for most requests. The engine must be
    /// able to do both at once.
    public var gap: Range<Int>
    /// Whether the gap's KV is not there yet.
    public var isGapOpen: Bool

    /// A request.
    public init(
        number: RequestNumber, order: Int, inputTokens: Int, outputTokens: Int, producedTokens: Int = 0,
        gap: Range<Int> = 0..<0
    ) {
        self.number = number
        self.order = order
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
        self.producedTokens = producedTokens
        self.gap = gap
        isGapOpen = !gap.isEmpty
    }
}

/// Part of a prompt that one iteration computes.
public struct PrefillChunk: Sendable, Equatable {
    /// Whose prompt.
    public var request: RequestNumber
    /// Its first token.
    public var start: Int
    /// Its tokens.
    public var count: Int

    /// A chunk.
    public init(request: RequestNumber, start: Int, count: Int) {
        self.request = request
        self.start = start
        self.count = count
    }
}

/// One iteration with prefill chunks, or a run of decode steps.
public struct Iteration: Sendable, Equatable {
    /// How long it takes.
    public var duration: Duration
    /// How long its decodes alone would take.
    public var decodeDuration: Duration
    /// Decode steps; 1 where there are chunks.
    public var steps: Int
    /// Sequences that decode.
    public var sequences: Int
    /// FLOPs of the decodes, over all steps.
    public var decodeFLOPs: Double
}

/// What an iteration did to a request. It happens at the iteration's end, a preemption at its start.
public enum ReplicaEvent: Sendable, Equatable {
    /// The first token is out.
    case firstToken(RequestNumber)
    /// The last token is out, and its KV belongs to nobody.
    case finished(RequestNumber)
    /// It was stopped for want of room, after it had produced so many tokens.
    case preempted(RequestNumber, producedTokens: Int)
}
