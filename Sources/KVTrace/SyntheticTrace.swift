// Makes traces: sessions that start at random, each with its own content and its own stream of randomness, so that a
// change to one kind of traffic leaves the others as they were. The same specification gives the same bytes on every
// machine. Not a claim about any one service: the parameters say what was assumed, and the reports carry them.

import KVModel

/// What to make.
public struct SyntheticSpecification: Sendable, Equatable {
    /// Decides every draw.
    public var seed: UInt64
    /// How long the trace is. Requests that would arrive later are cut, as in any recording.
    public var durationSeconds: Double
    /// How long traffic had been running when the recording starts: sessions under way are caught in the middle.
    public var leadSeconds: Double
    /// Tokens of a block.
    public var blockTokens: Int
    /// The coefficient of variation of the gaps between session starts: 1 is a Poisson process, more is burstier
    /// (gamma gaps, as BurstGPT, arXiv 2401.17644, found them).
    public var burstiness: Double
    /// Ends the trace after that many requests; `nil` leaves them all.
    public var requestLimit: Int?
    /// The kinds of traffic.
    public var parts: [Part]

    /// One kind of traffic and how often a session of it starts.
    public struct Part: Sendable, Equatable {
        /// The kind, with its parameters.
        public var workload: SyntheticWorkload
        /// Mean session starts a second.
        public var sessionsPerSecond: Double

        /// A part of a given kind and rate.
        public init(_ workload: SyntheticWorkload, sessionsPerSecond: Double) {
            self.workload = workload
            self.sessionsPerSecond = sessionsPerSecond
        }
    }

    /// A specification of given parts.
    public init(
        seed: UInt64, durationSeconds: Double, leadSeconds: Double = 0, blockTokens: Int = 64,
        burstiness: Double = 1, requestLimit: Int? = nil, parts: [Part]
    ) {
        self.seed = seed
        self.durationSeconds = durationSeconds
        self.leadSeconds = leadSeconds
        self.blockTokens = blockTokens
        self.burstiness = burstiness
        self.requestLimit = requestLimit
        self.parts = parts
    }
}

/// Makes synthetic traces.
public enum SyntheticTrace {
    /// The most sessions that one trace may have.
    public static let sessionLimit = 5_000_000

    /// Makes the trace. `progress` is called with the share that is done, from 0 to 1. Throws when the specification
    /// is out of range or makes no request.
    public static func make(
        _ specification: SyntheticSpecification, progress: ((Double) -> Void)? = nil
    ) throws(OperatorError) -> Trace {
        try check(specification)
        var recorder = SyntheticRecorder(blockTokens: specification.blockTokens)
        for (index, part) in specification.parts.enumerated() {
            var arrivals = RandomSource(seed: mixBits(specification.seed) ^ UInt64(index + 1))
            let generator = SessionGenerator(workload: part.workload, seed: specification.seed, part: index)
            let shape = 1 / (specification.burstiness * specification.burstiness)
            var start = -specification.leadSeconds
            var session: UInt64 = 0
            while true {
                start += arrivals.gamma(shape: shape, mean: 1 / part.sessionsPerSecond)
                if start >= specification.durationSeconds { break }
                generator.run(
                    session: session, from: start, until: specification.durationSeconds, into: &recorder)
                session += 1
                if session & 0x3F == 0 {
                    let done =
                        (start + specification.leadSeconds)
                        / (specification.durationSeconds + specification.leadSeconds)
                    progress?((Double(index) + done) / Double(specification.parts.count))
                }
            }
        }
        var trace = recorder.trace(limit: specification.requestLimit)
        if trace.requests.isEmpty {
            throw OperatorError("this makes no request at all", remedy: "give a longer duration or more sessions")
        }
        trace.sha256 = trace.contentDigest
        progress?(1)
        return trace
    }

    private static func check(_ specification: SyntheticSpecification) throws(OperatorError) {
        func require(_ condition: Bool, _ what: String) throws(OperatorError) {
            if !condition { throw OperatorError(what) }
        }
        try require(!specification.parts.isEmpty, "no kind of traffic is given")
        try require(
            (0.001...10_000_000).contains(specification.durationSeconds), "the duration is not from 1 ms to 115 days")
        try require((0...10_000_000).contains(specification.leadSeconds), "the lead is not from 0 s to 115 days")
        try require(
            Trace.blockTokensRange.contains(specification.blockTokens),
            "the block size is not from 1 to \(Trace.blockTokensRange.upperBound) tokens")
        try require((0.1...20).contains(specification.burstiness), "the burstiness is not from 0.1 to 20")
        try require(specification.requestLimit.map { $0 > 0 } ?? true, "the number of requests is not above 0")
        let span = specification.durationSeconds + specification.leadSeconds
        var sessions = 0.0
        for part in specification.parts {
            try require(
                part.sessionsPerSecond > 0 && part.sessionsPerSecond.isFinite, "a rate of sessions is not above 0")
            sessions += part.sessionsPerSecond * span
            for (parameter, value) in part.workload.parameters where !parameter.range.contains(value) {
                throw OperatorError("\(parameter.name) is \(plain(value)), outside its range")
            }
        }
        try require(sessions <= Double(sessionLimit), "more than \(sessionLimit) sessions are asked for")
    }
}
