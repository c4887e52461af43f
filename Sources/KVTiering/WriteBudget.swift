// How many bytes may be written to a flash device: its wear, spread over its years, as a token bucket.

import KVModel

/// Bytes that may be written, replenished evenly and saved up to a limit.
package struct WriteBudget {
    private let bytesPerSecond: Double
    private let burst: Double
    private var level: Double
    private var filledAt: Instant?
    /// Bytes refused so far.
    package private(set) var refusedBytes = 0

    /// A full bucket, or one without end when there is no configuration.
    package init(_ configuration: WriteBudgetConfiguration?) {
        bytesPerSecond = (configuration?.bytesPerDay ?? .infinity) / 86_400
        burst = configuration?.burstBytes ?? .infinity
        level = burst
    }

    /// How much of what can be saved up is there; 1 without a limit.
    package func fill(at now: Instant) -> Double { burst.isFinite ? level(at: now) / burst : 1 }

    private func level(at now: Instant) -> Double {
        guard let filledAt, level < burst, now > filledAt else { return level }
        return min(burst, level + bytesPerSecond * (now - filledAt).seconds)
    }

    /// Takes `bytes` if they are there. Nothing is taken otherwise.
    package mutating func take(_ bytes: Int, at now: Instant) -> Bool {
        level = level(at: now)
        filledAt = max(filledAt ?? now, now)
        guard Double(bytes) <= level else {
            refusedBytes += bytes
            return false
        }
        level -= Double(bytes)
        return true
    }
}
