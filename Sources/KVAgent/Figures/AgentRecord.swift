// What an agent did in a span of its last hours: the shape of `/history`, from which `report --agent` is made.

import KVModel

/// Differences of counts between two moments, and each minute in between.
public struct AgentRecord: Codable, Sendable {
    /// How long things took.
    public struct Times: Codable, Sendable, Equatable {
        /// Ends of the buckets that hold any, seconds; nil: the last, which has none.
        public var bounds: [Double?]
        /// How many each of them holds.
        public var counts: [UInt64]
        /// All together.
        public var sumSeconds: Double

        /// How many.
        public var count: UInt64 { counts.reduce(0, +) }
        /// On average; nil of none.
        public var meanSeconds: Double? { count == 0 ? nil : sumSeconds / Double(count) }

        /// The end of the bucket in which the given share of all lies; nil of none, or when that bucket has no end.
        public func quantile(_ share: Double) -> Double? {
            let rank = Double(count) * share
            var below: UInt64 = 0
            for (bound, count) in zip(bounds, counts) {
                below += count
                if Double(below) >= rank { return bound }
            }
            return nil
        }

        /// What came between two moments.
        init(_ later: TimeHistogram, since earlier: TimeHistogram) {
            self.init(
                bounds: (0..<TimeHistogram.bucketCount).map { TimeHistogram.bound($0)?.seconds },
                later: later.counts, earlier: earlier.counts, sumSeconds: max(0, (later.sum - earlier.sum).seconds))
        }

        init(bounds: [Double?], later: [UInt64], earlier: [UInt64], sumSeconds: Double) {
            (self.bounds, counts, self.sumSeconds) = ([], [], sumSeconds)
            for (bucket, bound) in bounds.enumerated() where later[bucket] > earlier[bucket] {
                self.bounds.append(bound)
                counts.append(later[bucket] - earlier[bucket])
            }
        }
    }

    /// One minute of the span, or what there is of it.
    public struct Minute: Codable, Sendable, Equatable {
        /// How long before the record was made it ended.
        public var endSecondsAgo: Double
        /// How long it was.
        public var seconds: Double
        /// Prompt tokens by class of the ledger.
        public var tokens: [String: UInt64]
        /// Time to first token, as engines told it; nil: nobody told one.
        public var firstTokenP50: Double?
        /// See `firstTokenP50`.
        public var firstTokenP99: Double?
        /// Share of the time in which the GPUs ran a kernel; nil: not seen.
        public var gpuBusy: Double?
    }

    /// Since the agent's start.
    public var uptimeSeconds: Double
    /// The span that was asked for, and the one that the record covers: not before the start, nor what was forgotten.
    public var askedSeconds: Double
    /// See `askedSeconds`.
    public var spanSeconds: Double
    /// Bytes of a block's slot; 0: no engine has come.
    public var blockBytes: Int
    /// What came in the span, by name: prompt tokens, `ledger_…`, `prefetch_…`, counts of the door as metrics name them, and sums of
    /// what was seen of GPUs and engine.
    public var counts: [String: UInt64]
    /// How long things took: `first_token` (as engines told it), `lookup`, `load`, `save`.
    public var times: [String: Times]
    /// Time to first token by the engine's own page; nil: there is none.
    public var engineFirstToken: Times?
    /// The GPUs looked at, and why none was.
    public var gpuNames: [String]
    /// See `gpuNames`.
    public var gpuReason: String
    /// Why the engine's page could not be read; empty: it could.
    public var engineReason: String
    /// Minute by minute, the oldest first.
    public var minutes: [Minute]

    /// The count of that name; 0 of none.
    public subscript(_ name: String) -> UInt64 { counts[name] ?? 0 }
}

extension AgentRecord {
    /// - Parameters:
    ///   - rows: The oldest first; the first is where the span begins, the last is now.
    ///   - asked: Seconds that were asked for.
    package init(
        _ rows: [AgentHistory.Row], of history: AgentHistory, asked: Double, blockBytes: Int, seen: AgentWatch.Seen
    ) {
        precondition(!rows.isEmpty, "a record of no moment")
        let (first, last) = (rows[0], rows[rows.count - 1])
        uptimeSeconds = last.uptime.seconds
        askedSeconds = asked
        spanSeconds = (last.uptime - first.uptime).seconds
        self.blockBytes = blockBytes
        counts = Self.difference(last, first, history.names)
        times = Dictionary(
            uniqueKeysWithValues: zip(AgentHistory.timeNames, zip(last.times, first.times)).map {
                ($0, Times($1.0, since: $1.1))
            })
        let bounds = seen.engineTimes.bounds
        if !bounds.isEmpty {
            engineFirstToken = Times(
                bounds: bounds.map { $0.isFinite ? $0 : nil }, later: last.engineTimes, earlier: first.engineTimes,
                sumSeconds: Double(last.engineSum - min(last.engineSum, first.engineSum)) / 1e6)
        }
        gpuNames = seen.gpuNames
        gpuReason = seen.gpuReason
        engineReason = seen.engineReason
        minutes = zip(rows, rows.dropFirst()).map { Self.minute($0, $1, last, history.names) }
    }

    private static func difference(
        _ later: AgentHistory.Row, _ earlier: AgentHistory.Row, _ names: [String]
    ) -> [String: UInt64] {
        Dictionary(
            uniqueKeysWithValues: names.enumerated().map { index, name in
                (name, later.counts[index] - min(later.counts[index], earlier.counts[index]))
            })
    }

    private static func minute(
        _ earlier: AgentHistory.Row, _ later: AgentHistory.Row, _ last: AgentHistory.Row, _ names: [String]
    ) -> Minute {
        let counts = difference(later, earlier, names)
        let firstToken = Times(later.times[0], since: earlier.times[0])
        let tokens = counts.filter { $0.key.hasPrefix("ledger_") && $0.value > 0 }
        let looks = counts["gpu_looks"] ?? 0
        return Minute(
            endSecondsAgo: (last.uptime - later.uptime).seconds, seconds: (later.uptime - earlier.uptime).seconds,
            tokens: Dictionary(uniqueKeysWithValues: tokens.map { (String($0.key.dropFirst(7)), $0.value) }),
            firstTokenP50: firstToken.quantile(0.5), firstTokenP99: firstToken.quantile(0.99),
            gpuBusy: looks == 0 ? nil : Double(counts["gpu_busy"] ?? 0) / Double(looks) / 1000)
    }
}
