// What is in a trace, counted: the figures of `trace info`. Everything here is exact arithmetic on the trace.

import KVModel

/// Counts and distributions of one trace.
public struct TraceStatistics: Codable, Sendable, Equatable {
    /// What the trace is called.
    public var name: String
    /// The format it was read from.
    public var format: String
    /// SHA-256 of its file's content, decompressed.
    public var sha256: String
    /// Tokens of a block; absent without block ids.
    public var blockTokens: Int?
    /// Requests.
    public var requests: Int
    /// Lines that were left out because they could not be read.
    public var skippedLines: Int
    /// From the first arrival to the last.
    public var spanSeconds: Double
    /// Prompt tokens of all requests.
    public var inputTokens: Int
    /// Answer tokens of all requests.
    public var outputTokens: Int
    /// Prompt tokens of a request.
    public var input: Distribution
    /// Answer tokens of a request.
    public var output: Distribution
    /// Conversations; absent when the trace does not say which request belongs to which.
    public var sessions: Int?
    /// Requests of a conversation.
    public var turns: Distribution?
    /// The coefficient of variation of the gaps between arrivals: 1 for a Poisson process.
    public var burstiness: Double?

    /// Blocks of all prompts, each counted as often as it is asked for. This and the next four are 0 where no prompt is as
    /// long as a block, and null where nothing says which prompts share a prefix.
    public var blockReferences: Int?
    /// Different blocks.
    public var uniqueBlocks: Int?
    /// Tokens of all different blocks: what an unlimited cache would hold.
    public var uniqueTokens: Int?
    /// Prompt tokens that an unlimited cache would serve.
    public var infiniteHitTokens: Int?
    /// Their share of all prompt tokens.
    public var infiniteHitRatio: Double?
    /// Share of the different blocks that one request asks for and no other.
    public var usedOnceShare: Double?
    /// Share of the different blocks that more than one conversation asks for.
    public var sharedBlockShare: Double?
    /// Share of the hit tokens of an unlimited cache that another conversation had brought in.
    public var sharedHitShare: Double?
    /// Seconds since the last use of what is hit, weighted by tokens.
    public var reuseSeconds: Distribution?
    /// The same figures by place in the prompt.
    public var depths: [Depth]?
    /// Why the figures about prefixes are absent.
    public var prefixNote: String?
    /// How the trace was made, when its file says so.
    public var generator: String?

    /// A distribution in the unit of its field.
    public struct Distribution: Codable, Sendable, Equatable {
        /// The arithmetic mean.
        public var mean: Double
        /// Ten per cent are not above it.
        public var p10: Double
        /// Half are not above it.
        public var p50: Double
        /// Nine in ten are not above it.
        public var p90: Double
        /// 99 of 100 are not above it.
        public var p99: Double
        /// The largest.
        public var max: Double
    }

    /// Blocks that start within a range of places in the prompt.
    public struct Depth: Codable, Sendable, Equatable {
        /// The first token of the range.
        public var fromToken: Int
        /// The token behind its last; `nil` is the end of the longest prompt.
        public var toToken: Int?
        /// References to blocks there.
        public var blockReferences: Int
        /// Different blocks there.
        public var uniqueBlocks: Int
        /// Share of the references that an unlimited cache serves.
        public var hitShare: Double
    }
}

extension TraceStatistics {
    /// Writes every key that has a value, and the figures of an unlimited cache whether they have one or not: a program that
    /// asks for them tells "not known" (null) from "none" (0).
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(format, forKey: .format)
        try container.encode(sha256, forKey: .sha256)
        try container.encodeIfPresent(blockTokens, forKey: .blockTokens)
        try container.encode(requests, forKey: .requests)
        try container.encode(skippedLines, forKey: .skippedLines)
        try container.encode(spanSeconds, forKey: .spanSeconds)
        try container.encode(inputTokens, forKey: .inputTokens)
        try container.encode(outputTokens, forKey: .outputTokens)
        try container.encode(input, forKey: .input)
        try container.encode(output, forKey: .output)
        try container.encodeIfPresent(sessions, forKey: .sessions)
        try container.encodeIfPresent(turns, forKey: .turns)
        try container.encodeIfPresent(burstiness, forKey: .burstiness)
        try container.encode(blockReferences, forKey: .blockReferences)
        try container.encode(uniqueBlocks, forKey: .uniqueBlocks)
        try container.encode(uniqueTokens, forKey: .uniqueTokens)
        try container.encode(infiniteHitTokens, forKey: .infiniteHitTokens)
        try container.encode(infiniteHitRatio, forKey: .infiniteHitRatio)
        try container.encodeIfPresent(usedOnceShare, forKey: .usedOnceShare)
        try container.encodeIfPresent(sharedBlockShare, forKey: .sharedBlockShare)
        try container.encodeIfPresent(sharedHitShare, forKey: .sharedHitShare)
        try container.encodeIfPresent(reuseSeconds, forKey: .reuseSeconds)
        try container.encodeIfPresent(depths, forKey: .depths)
        try container.encodeIfPresent(prefixNote, forKey: .prefixNote)
        try container.encodeIfPresent(generator, forKey: .generator)
    }

    /// Counts a trace.
    public init(_ trace: Trace) {
        let requests = trace.requests
        name = trace.name
        format = trace.format.rawValue
        sha256 = trace.sha256
        self.requests = requests.count
        skippedLines = trace.skippedLineCount
        let span = (requests.last?.arrival ?? .zero) - (requests.first?.arrival ?? .zero)
        spanSeconds = span.seconds
        inputTokens = requests.reduce(0) { $0 + Int($1.inputTokens) }
        outputTokens = requests.reduce(0) { $0 + Int($1.outputTokens) }
        input = Distribution(requests.map { Double($0.inputTokens) })
        output = Distribution(requests.map { Double($0.outputTokens) })
        burstiness = Self.burstiness(requests)
        var turnCounts: [Int32: Int] = [:]
        for request in requests where request.session >= 0 { turnCounts[request.session, default: 0] += 1 }
        if !turnCounts.isEmpty {
            sessions = turnCounts.count
            turns = Distribution(turnCounts.values.map(Double.init))
        }
        generator = trace.origin?.generator
        guard trace.namesPrefixes else {
            prefixNote =
                trace.format == .azure
                ? "the format has arrivals and lengths only: nothing says which prompts share a prefix"
                : "no request has a block, though prompts are longer than one: nothing says which share a prefix"
            return
        }
        guard !trace.blocks.isEmpty else {
            prefixNote = "no prompt fills a block of \(trace.blockTokens) tokens, so there is nothing to share"
            blockTokens = trace.blockTokens
            (blockReferences, uniqueBlocks, uniqueTokens) = (0, 0, 0)
            (infiniteHitTokens, infiniteHitRatio) = (0, 0)
            return
        }
        count(PrefixCounts(trace), of: trace)
    }

    private mutating func count(_ counts: PrefixCounts, of trace: Trace) {
        let unique = Double(trace.uniqueBlockCount)
        blockTokens = trace.blockTokens
        blockReferences = trace.blocks.count
        uniqueBlocks = trace.uniqueBlockCount
        uniqueTokens = counts.uniqueTokens
        infiniteHitTokens = counts.hitTokens
        infiniteHitRatio = inputTokens > 0 ? Double(counts.hitTokens) / Double(inputTokens) : 0
        usedOnceShare = Double(counts.usedOnce) / unique
        if sessions != nil {
            sharedBlockShare = Double(counts.sharedBlocks) / unique
            sharedHitShare = counts.hitTokens > 0 ? Double(counts.sharedHitTokens) / Double(counts.hitTokens) : 0
        }
        reuseSeconds = counts.reuse.distribution
        depths = counts.depths
    }

    /// The coefficient of variation of the gaps between arrivals.
    private static func burstiness(_ requests: [TraceRequest]) -> Double? {
        if requests.count < 3 { return nil }
        let gaps = zip(requests, requests.dropFirst()).map { ($1.arrival - $0.arrival).seconds }
        let mean = gaps.reduce(0, +) / Double(gaps.count)
        if mean <= 0 { return nil }
        let variance = gaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(gaps.count)
        return variance.squareRoot() / mean
    }
}

extension TraceStatistics.Distribution {
    /// The distribution of some values: percentiles by nearest rank.
    public init(_ values: [Double]) {
        let sorted = values.sorted()
        func rank(_ share: Double) -> Double {
            if sorted.isEmpty { return 0 }
            let position = Int((share * Double(sorted.count)).rounded(.up)) - 1
            return sorted[Swift.max(0, Swift.min(sorted.count - 1, position))]
        }
        mean = values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count)
        (p10, p50, p90, p99, max) = (rank(0.1), rank(0.5), rank(0.9), rank(0.99), sorted.last ?? 0)
    }
}

/// One walk over all block references.
private struct PrefixCounts {
    var hitTokens = 0
    var sharedHitTokens = 0
    var uniqueTokens = 0
    var usedOnce = 0
    var sharedBlocks = 0
    var reuse = LogHistogram()
    private var depthCounts: [(references: Int, unique: Int)] = []

    /// The first depth is up to 1,024 tokens, each next one twice as deep.
    private static func depthIndex(token: Int) -> Int {
        token < 1024 ? 0 : Int.bitWidth - (token / 1024).leadingZeroBitCount
    }

    init(_ trace: Trace) {
        var uses = [UInt8](repeating: 0, count: trace.uniqueBlockCount)
        var lastUse = [Int64](repeating: 0, count: trace.uniqueBlockCount)
        // The first conversation that used the block; −2 once there were two.
        var user = [Int32](repeating: -1, count: trace.uniqueBlockCount)
        let size = trace.blockTokens
        for request in trace.requests {
            var runIsOpen = true
            var place = 0
            for block in trace.path(of: request) {
                let index = Int(block)
                let tokens = min(size, Int(request.inputTokens) - place)
                let depth = Self.depthIndex(token: place)
                while depthCounts.count <= depth { depthCounts.append((0, 0)) }
                depthCounts[depth].references += 1
                if uses[index] == 0 {
                    runIsOpen = false
                    uniqueTokens += tokens
                    depthCounts[depth].unique += 1
                    user[index] = request.session
                } else if runIsOpen {
                    hitTokens += tokens
                    if user[index] != request.session { sharedHitTokens += tokens }
                    reuse.add(Double(request.arrival.nanoseconds - lastUse[index]) / 1e9, weight: tokens)
                }
                if uses[index] < 2 { uses[index] += 1 }
                if user[index] != request.session, user[index] != -2 {
                    user[index] = -2
                    sharedBlocks += 1
                }
                lastUse[index] = request.arrival.nanoseconds
                place += size
            }
        }
        usedOnce = uses.count { $0 == 1 }
    }

    var depths: [TraceStatistics.Depth] {
        depthCounts.enumerated().map { index, counts in
            TraceStatistics.Depth(
                fromToken: index == 0 ? 0 : 1024 << (index - 1),
                toToken: index == depthCounts.count - 1 ? nil : 1024 << index, blockReferences: counts.references,
                uniqueBlocks: counts.unique,
                hitShare: counts.references > 0
                    ? Double(counts.references - counts.unique) / Double(counts.references) : 0)
        }
    }
}

/// A weighted distribution of times in bins that grow by an eighth of an octave: percentiles to 6 %.
private struct LogHistogram {
    private var weights: [Int] = []
    private var total = 0
    private var sum = 0.0
    private var maximum = 0.0
    private static let binsPerOctave = 8
    private static let smallest = 0.001

    mutating func add(_ value: Double, weight: Int) {
        var bin = 0
        if value > Self.smallest {
            let scaled = value / Self.smallest
            // The exponent gives the octave, the significand the eighth of it (linear within the octave).
            bin =
                1 + Int(scaled.exponent) * Self.binsPerOctave
                + Int((scaled.significand - 1) * Double(Self.binsPerOctave))
        }
        while weights.count <= bin { weights.append(0) }
        weights[bin] += weight
        total += weight
        sum += value * Double(weight)
        maximum = max(maximum, value)
    }

    private func quantile(_ share: Double) -> Double {
        var left = share * Double(total)
        for bin in weights.indices {
            left -= Double(weights[bin])
            if left > 0 { continue }
            if bin == 0 { return 0 }
            let octave = (bin - 1) / Self.binsPerOctave
            let part = Double((bin - 1) % Self.binsPerOctave + 1) / Double(Self.binsPerOctave)
            return min(maximum, Self.smallest * Double(UInt64(1) << UInt64(octave)) * (1 + part))
        }
        return maximum
    }

    var distribution: TraceStatistics.Distribution? {
        if total == 0 { return nil }
        return TraceStatistics.Distribution(
            mean: sum / Double(total), p10: quantile(0.1), p50: quantile(0.5), p90: quantile(0.9),
            p99: quantile(0.99), max: maximum)
    }
}
