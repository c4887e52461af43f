// Guessing keys is slow: each failed try from an address doubles the time until the next refusal, up to a limit.

import KVModel

/// What is remembered about addresses that failed to prove who they are. Bounded: the oldest is forgotten.
package struct FailedTries {
    private struct Record {
        var count: Int
        var last: Instant
    }

    private var records: [String: Record] = [:]
    private let addressCountMax = 1024
    private let memory = Duration(seconds: 300)
    private let delay: Duration
    private let delayMax: Duration

    /// Nobody failed yet. A first failure is answered after `delay`, a later one after at most `delayMax`.
    package init(delay: Duration, delayMax: Duration) {
        self.delay = delay
        self.delayMax = delayMax
    }

    /// Notes a failure; how long to wait before saying so.
    package mutating func add(_ peer: String, at now: Instant) -> Duration {
        let address = Self.host(of: peer)
        var record = records[address] ?? Record(count: 0, last: now)
        if now - record.last > memory { record.count = 0 }
        let doublings = min(record.count, 20)
        record.count += 1
        record.last = now
        if records[address] == nil, records.count >= addressCountMax,
            let oldest = records.min(by: { $0.value.last < $1.value.last })
        {
            records[oldest.key] = nil
        }
        records[address] = record
        return min(Duration(nanoseconds: delay.nanoseconds << Int64(doublings)), delayMax)
    }

    /// `10.0.0.7` of `10.0.0.7:51234`: a peer's port changes from try to try.
    private static func host(of peer: String) -> String {
        guard let colon = peer.lastIndex(of: ":") else { return peer }
        return String(peer[..<colon])
    }
}
