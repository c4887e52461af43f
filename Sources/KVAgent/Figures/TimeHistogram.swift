// How long things took, counted in buckets: of bounded size, and two of them can be subtracted.

import KVModel

/// Times in buckets whose ends grow by an eighth of a power of two: from 1 µs to 537 s, and one for the rest. What is read from it
/// is the end of a bucket, at most an eighth too long.
public struct TimeHistogram: Sendable, Equatable {
    /// Buckets in which the end doubles.
    public static let perDoubling = 8
    private static let doublings = 29
    /// Buckets, the last one open.
    public static let bucketCount = 2 + perDoubling * doublings
    /// Ends per bucket.
    public private(set) var counts = [UInt64](repeating: 0, count: Self.bucketCount)
    /// All times together.
    public private(set) var sum = Duration.zero

    /// Nothing measured.
    public init() {}

    /// What was counted elsewhere, bucket by bucket.
    init(counts: [UInt64], sum: Duration) {
        precondition(counts.count == Self.bucketCount, "a histogram of other buckets")
        (self.counts, self.sum) = (counts, sum)
    }

    /// The upper end of a bucket; nil of the last.
    public static func bound(_ bucket: Int) -> Duration? {
        guard bucket < bucketCount - 1 else { return nil }
        guard bucket > 0 else { return Duration(nanoseconds: 1_000) }
        let (doubling, part) = (bucket - 1).quotientAndRemainder(dividingBy: perDoubling)
        let low = Int64(1_000) << Int64(doubling)
        return Duration(nanoseconds: low + low / Int64(perDoubling) * Int64(part + 1))
    }

    /// The bucket of a time: the first whose end is not before it.
    static func bucket(of time: Duration) -> Int {
        let before = max(0, time.nanoseconds - 1)
        let microseconds = UInt64(before / 1_000)
        guard microseconds > 0 else { return 0 }
        let doubling = UInt64.bitWidth - microseconds.leadingZeroBitCount - 1
        guard doubling < doublings else { return bucketCount - 1 }
        let low = Int64(1_000) << Int64(doubling)
        return 1 + doubling * perDoubling + Int((before - low) * Int64(perDoubling) / low)
    }

    /// One more.
    public mutating func add(_ time: Duration) {
        counts[Self.bucket(of: time)] += 1
        sum = Self.total(sum, time)
    }

    /// How many.
    public var count: UInt64 { counts.reduce(0, +) }

    /// The upper end of the bucket in which the given share of all lies; zero of none.
    public func quantile(_ share: Double) -> Duration {
        let rank = Double(count) * share
        var below: UInt64 = 0
        for (bucket, count) in counts.enumerated() where count > 0 {
            below += count
            if Double(below) >= rank { return Self.bound(bucket) ?? Duration(seconds: 600) }
        }
        return .zero
    }

    /// Adds another's.
    public static func += (left: inout TimeHistogram, right: TimeHistogram) {
        for bucket in 0..<bucketCount { left.counts[bucket] += right.counts[bucket] }
        left.sum = total(left.sum, right.sum)
    }

    /// Times come from engines: more of them than a sum can hold are as much as it can hold.
    private static func total(_ left: Duration, _ right: Duration) -> Duration {
        let (sum, overflows) = left.nanoseconds.addingReportingOverflow(right.nanoseconds)
        return Duration(nanoseconds: overflows ? .max : sum)
    }
}
