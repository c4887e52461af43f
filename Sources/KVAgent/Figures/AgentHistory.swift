// What an agent had counted at the end of each of the last minutes: enough to say what it did in any span of the last hours. All of
// its memory is taken at the start.

import KVModel
import KVTiering
import Synchronization

/// Rows of counts, one a minute, the oldest given up first.
package final class AgentHistory: Sendable {
    /// What an agent had counted by one moment. All numbers only grow.
    package struct Row: Sendable {
        /// Since the start.
        package var uptime = Duration.zero
        /// In the order of `AgentHistory.names`.
        package var counts: [UInt64]
        /// In the order of `AgentHistory.timeNames`.
        package var times: [TimeHistogram]
        /// Of the engine's own page: time to first token by bucket, and all of it together in microseconds.
        package var engineTimes: [UInt64]
        package var engineSum: UInt64
    }

    /// Six hours of minutes.
    package static let rowsMax = 360
    package static let timeNames = ["first_token", "lookup", "load", "save"]
    static var timePaths: [KeyPath<EngineCounters, TimeHistogram>] {
        [\.firstTokenTime, \.lookUpTime, \.loadTime, \.saveTime]
    }

    package let names: [String]
    private let width: Int
    /// Rows side by side, and which of them are in use.
    private let stored: Mutex<(words: [UInt64], first: Int, count: Int)>

    /// - Parameter names: Of the counts in a row.
    package init(names: [String]) {
        self.names = names
        width =
            2 + names.count + Self.timeNames.count * (TimeHistogram.bucketCount + 1) + EngineMetricsPage.boundsMax
        stored = Mutex((Array(repeating: 0, count: width * Self.rowsMax), 0, 0))
    }

    /// A row in which nothing has happened.
    package var zero: Row {
        Row(
            counts: Array(repeating: 0, count: names.count),
            times: Array(repeating: TimeHistogram(), count: Self.timeNames.count),
            engineTimes: Array(repeating: 0, count: EngineMetricsPage.boundsMax), engineSum: 0)
    }

    /// Remembers a row; the oldest goes when there are too many.
    package func remember(_ row: Row) {
        precondition(row.counts.count == names.count, "a row of other counts")
        stored.withLock { stored in
            if stored.count == Self.rowsMax {
                stored.first = (stored.first + 1) % Self.rowsMax
                stored.count -= 1
            }
            var at = (stored.first + stored.count) % Self.rowsMax * width
            func put(_ word: UInt64) {
                stored.words[at] = word
                at += 1
            }
            put(UInt64(clamping: row.uptime.nanoseconds))
            for count in row.counts { put(count) }
            for times in row.times {
                for count in times.counts { put(count) }
                put(UInt64(clamping: times.sum.nanoseconds))
            }
            for count in row.engineTimes { put(count) }
            put(row.engineSum)
            stored.count += 1
        }
    }

    /// The rows remembered, the oldest first, from the last one at or before `uptime` on; a row of zeros goes first where the
    /// agent's start is not forgotten.
    package func rows(from uptime: Duration) -> [Row] {
        stored.withLock { stored in
            let kept = (0..<stored.count).map { number in
                row(stored.words, at: (stored.first + number) % Self.rowsMax * width)
            }
            let all = stored.count < Self.rowsMax ? [zero] + kept : kept
            return Array(all[(all.lastIndex { $0.uptime <= uptime } ?? 0)...])
        }
    }

    private func row(_ words: [UInt64], at start: Int) -> Row {
        var at = start
        func take(_ count: Int) -> [UInt64] {
            defer { at += count }
            return Array(words[at..<(at + count)])
        }
        var row = zero
        row.uptime = Duration(nanoseconds: Int64(clamping: take(1)[0]))
        row.counts = take(names.count)
        row.times = Self.timeNames.map { _ in
            let counts = take(TimeHistogram.bucketCount)
            return TimeHistogram(counts: counts, sum: Duration(nanoseconds: Int64(clamping: take(1)[0])))
        }
        row.engineTimes = take(EngineMetricsPage.boundsMax)
        row.engineSum = take(1)[0]
        return row
    }

    /// The engine's buckets have other ends from now on: what was counted by the old ones cannot be compared.
    package func forgetEngineTimes() {
        stored.withLock { stored in
            let tail = EngineMetricsPage.boundsMax + 1
            for row in 0..<Self.rowsMax {
                for word in ((row + 1) * width - tail)..<((row + 1) * width) { stored.words[word] = 0 }
            }
        }
    }
}

extension AgentHistory {
    /// Everything that a report is made of, by its name, in one order for ever.
    static func counts(
        _ status: AgentStatus, _ door: EngineCounters, _ watched: WatchTotals
    ) -> [(name: String, value: UInt64)] {
        func whole(_ value: Int?) -> UInt64 { UInt64(clamping: value ?? 0) }
        var counts: [(name: String, value: UInt64)] = [("prompt_tokens", whole(status.promptTokens))]
        for tokenClass in TokenClass.allCases {
            counts.append(("ledger_\(tokenClass)", whole(status.ledger["\(tokenClass)"])))
        }
        for account in PrefetchReason.allCases.flatMap({ reason in prefetchAccounts.map { "\(reason.name)_\($0)" } })
            + ["displaced", "missed"]
        {
            counts.append(("prefetch_\(account)", whole(status.prefetch[account])))
        }
        for field in EngineCounters.fields { counts.append((field.name, door[keyPath: field.path])) }
        for name in totals { counts.append((name, whole(status.totals[name]))) }
        return counts + watched.counts
    }

    /// Of each reason's account.
    static let prefetchAccounts = ["started", "used", "late", "never_used", "cancelled", "failed"]
    private static let totals = [
        "dram_evictions", "nvme_evictions", "blocks_corrupt", "blocks_lost", "loads_late", "loads_cut_short",
        "bytes_flash_read", "bytes_flash_write", "bytes_store_get", "bytes_store_put", "store_lost",
    ]
}
