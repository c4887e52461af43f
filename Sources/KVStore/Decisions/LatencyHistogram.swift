// How long requests took, as a histogram of fixed buckets: adding costs one count and allocates nothing.

import KVModel

/// Times in buckets whose upper bounds double, from 64 µs to 8.4 s; what took longer is in the last.
public struct LatencyHistogram: Sendable, Equatable {
    /// Upper bounds of all buckets but the last.
    public static let bounds: [Duration] = (0..<18).map { Duration(nanoseconds: 64_000 << $0) }
    /// How many times fell into each bucket.
    public private(set) var counts = [Int](repeating: 0, count: bounds.count + 1)
    /// The sum of all times.
    public private(set) var sum = Duration.zero

    /// Nothing yet.
    public init() {}

    /// One more time.
    public mutating func add(_ time: Duration) {
        let units = UInt64(max(0, time.nanoseconds - 1)) / 64_000
        counts[min(64 - units.leadingZeroBitCount, Self.bounds.count)] += 1
        sum = sum + time
    }
}
