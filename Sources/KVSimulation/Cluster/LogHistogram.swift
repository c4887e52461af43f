// Distributions over requests, and over single tokens without keeping each.

import KVModel
import KVReport

extension Distribution {
    /// The distribution of values in any order. Percentiles are the smallest value that the stated share of values does
    /// not exceed, so each is a value that happened.
    package init(of values: [Double]) {
        let sorted = values.sorted()
        let count = sorted.count
        func at(_ share: Double) -> Double {
            count == 0 ? 0 : sorted[min(count - 1, max(0, Int((share * Double(count)).rounded(.up)) - 1))]
        }
        var sum = 0.0
        for value in sorted { sum += value }
        var points: [[Double]] = []
        let pointCount = min(count, 200)
        for index in 0..<pointCount {
            let rank = pointCount == 1 ? count - 1 : index * (count - 1) / (pointCount - 1)
            points.append([sorted[rank], Double(rank + 1) / Double(count)])
        }
        self.init(
            count: count, mean: count == 0 ? 0 : sum / Double(count), p1: at(0.01), p10: at(0.1), p50: at(0.5),
            p90: at(0.9), p95: at(0.95), p99: at(0.99), p999: at(0.999), cdf: points)
    }
}

/// Counts of positive values in buckets of equal ratio, 1/128 apart in the leading digits: a percentile is exact to
/// 0.8 %, at any number of values. Buckets come from the bits of the number, so no logarithm is taken.
package struct LogHistogram {
    private var counts: [Int]
    private static let lowest = 0x3E00_0000_0000_0000  // 2⁻³¹
    private static let shift = 45

    package init() { counts = Array(repeating: 0, count: 64 * 128) }

    /// Adds a value `count` times. Values outside 2⁻³¹ to 2³³ count at the end of the range.
    package mutating func add(_ value: Double, count: Int = 1) {
        let bits = Int(truncatingIfNeeded: value.bitPattern) - Self.lowest
        counts[min(counts.count - 1, max(0, bits >> Self.shift))] += count
    }

    /// The value that `share` of all added values do not exceed; 0 when none was added.
    package func percentile(_ share: Double) -> Double {
        let total = counts.reduce(0, +)
        if total == 0 { return 0 }
        var left = Int((share * Double(total)).rounded(.up))
        for (bucket, count) in counts.enumerated() {
            left -= count
            if left <= 0 {
                return Double(bitPattern: UInt64(Self.lowest + (bucket << Self.shift) + (1 << (Self.shift - 1))))
            }
        }
        return 0
    }
}
