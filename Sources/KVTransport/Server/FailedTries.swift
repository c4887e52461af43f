// Guessing keys is slow: each failed try from an address, and each at a tenant, doubles the time until the next refusal,
// up to a limit. Who has the right key never waits.

import KVModel
import Synchronization

/// What a server remembers about tries that failed, for all its threads together. Bounded: the oldest is forgotten.
package final class FailedTries: Sendable {
    private struct Record {
        var count: Int
        var last: Instant
    }

    /// Failures by one kind of name.
    private struct Table {
        private static let countMax = 1024
        private static let memory = Duration(seconds: 300)
        var records: [String: Record] = [:]

        /// Notes a failure; how many there were before it.
        mutating func add(_ name: String, at now: Instant) -> Int {
            var record = records[name] ?? Record(count: 0, last: now)
            if now - record.last > Self.memory { record.count = 0 }
            let before = record.count
            record.count += 1
            record.last = now
            if records[name] == nil, records.count >= Self.countMax,
                let oldest = records.min(by: { $0.value.last < $1.value.last })
            {
                records[oldest.key] = nil
            }
            records[name] = record
            return before
        }
    }

    private struct Tables {
        var addresses = Table()
        var tenants = Table()
    }

    private let tables = Mutex(Tables())
    private let delay: Duration
    private let delayMax: Duration

    /// Nobody failed yet. The first failure is answered after the limits' delay, none later than after their longest.
    package init(limits: ServerLimits) {
        delay = limits.failureDelay
        delayMax = limits.failureDelayMax
    }

    /// Notes a failure; how long to wait before saying so. Many addresses that guess at one tenant slow each other
    /// down, and so do many tenants guessed at from one address.
    package func add(_ peer: String, tenant: String, at now: Instant) -> Duration {
        let before = tables.withLock { tables in
            max(tables.addresses.add(Self.host(of: peer), at: now), tables.tenants.add(tenant, at: now))
        }
        return min(Duration(nanoseconds: delay.nanoseconds << Int64(min(before, 20))), delayMax)
    }

    /// `10.0.0.7` of `10.0.0.7:51234`: a peer's port changes from try to try.
    private static func host(of peer: String) -> String {
        guard let colon = peer.lastIndex(of: ":") else { return peer }
        return String(peer[..<colon])
    }
}
