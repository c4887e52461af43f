// A trace in memory: read once, then only walked. Everything is in flat arrays, so that a replay of tens of
// millions of block references costs memory bandwidth and not allocations.

import KVModel

/// Requests of an LLM service in file order, with the prefix blocks of each prompt as dense numbers.
public struct Trace: Sendable {
    /// What the trace is called in reports: the file name without its folder and suffixes.
    public var name: String
    /// The format it was read from.
    public var format: TraceFormat
    /// SHA-256 of the file's content, decompressed if it was compressed, in lower-case hexadecimal.
    public var sha256: String
    /// Prompt tokens that one full block covers.
    public var blockTokens: Int
    /// The requests, in file order.
    public var requests: [TraceRequest]
    /// The paths of all requests, one after another, root first. A number names the whole prefix up to and
    /// including its block; numbers are 0, 1, 2, … in order of first appearance.
    public var blocks: [BlockNumber]
    /// How many different blocks `blocks` holds.
    public var uniqueBlockCount: Int
    /// Lines that were left out because they could not be read (`--skip-bad`).
    public var skippedLineCount: Int
    /// How it was made, when its file says so.
    public var origin: TraceOrigin?

    /// A trace of given parts.
    public init(
        name: String, format: TraceFormat, sha256: String, blockTokens: Int, requests: [TraceRequest],
        blocks: [BlockNumber], uniqueBlockCount: Int, skippedLineCount: Int = 0
    ) {
        self.name = name
        self.format = format
        self.sha256 = sha256
        self.blockTokens = blockTokens
        self.requests = requests
        self.blocks = blocks
        self.uniqueBlockCount = uniqueBlockCount
        self.skippedLineCount = skippedLineCount
    }

    /// Whether its requests say which prompts share a prefix. An Azure trace never does, in whatever format it was written
    /// again: it has prompts long enough for a block, and no block. Prompts that are all too short for a block share none,
    /// and that is known.
    public var namesPrefixes: Bool {
        format != .azure && (!blocks.isEmpty || requests.allSatisfy { $0.inputTokens < blockTokens })
    }

    /// The prefix path of one request, root first.
    @inlinable
    public func path(of request: TraceRequest) -> ArraySlice<BlockNumber> {
        blocks[request.firstReference..<request.firstReference + Int(request.blockCount)]
    }
}

/// One request of a trace.
public struct TraceRequest: Sendable, Equatable {
    /// When it arrived, from the start of the trace's clock.
    public var arrival: Instant
    /// Tokens of the prompt.
    public var inputTokens: Int32
    /// Tokens of the answer.
    public var outputTokens: Int32
    /// Where its path starts in `Trace.blocks`.
    public var firstReference: Int
    /// How many blocks its path has.
    public var blockCount: Int32
    /// The conversation it belongs to, numbered 0, 1, 2, …; −1 when the trace does not say. A sub-agent is a
    /// conversation of its own.
    public var session: Int32
    /// Its place in the conversation, from 0; −1 when the trace does not say.
    public var turn: Int32
    /// Why the turn ended. Known to a policy only after `arrival + serviceTime`.
    public var stopReason: StopReason
    /// How long the original call took (`api_ms`); `nil` when unknown.
    public var serviceTime: Duration?
    /// How long the client waited before this request after the turn before it ended; `nil` when unknown.
    public var thinkTime: Duration?

    /// A request of given parts.
    public init(
        arrival: Instant, inputTokens: Int32, outputTokens: Int32, firstReference: Int, blockCount: Int32,
        session: Int32 = -1, turn: Int32 = -1, stopReason: StopReason = .unknown, serviceTime: Duration? = nil,
        thinkTime: Duration? = nil
    ) {
        self.arrival = arrival
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
        self.firstReference = firstReference
        self.blockCount = blockCount
        self.session = session
        self.turn = turn
        self.stopReason = stopReason
        self.serviceTime = serviceTime
        self.thinkTime = thinkTime
    }
}

/// The formats that can be read.
public enum TraceFormat: String, Sendable, CaseIterable {
    /// Mooncake JSONL: `hash_ids`, one id per 512-token block, the last may be partial.
    case mooncake
    /// Extents JSONL: `hash_extents`, a list of `[first, count]`, full 64-token blocks.
    case extents
    /// Bailian JSONL: `hash_ids` of 16-token blocks, `chat_id`, `parent_chat_id`, seconds.
    case bailian
    /// Azure CSV: arrivals and lengths only, no prefix identity.
    case azure
    /// Holdfast's own format, written by `trace synth` and `trace convert`.
    case holdfast
}
