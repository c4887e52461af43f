// Time as integers. A decision that compares or adds times gives the same answer on every machine,
// which no floating-point clock promises over a long run.

/// A point in time: nanoseconds since an origin that the owner of the clock states (a trace starts at zero).
@frozen
public struct Instant: Hashable, Comparable, Sendable, Codable {
    /// Nanoseconds since the origin.
    public var nanoseconds: Int64

    /// The instant that many nanoseconds after the origin.
    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    /// The instant that many seconds after the origin, rounded to the nearest nanosecond.
    @inlinable public init(seconds: Double) { nanoseconds = Int64((seconds * 1e9).rounded()) }

    /// The origin of the clock.
    public static let zero = Instant(nanoseconds: 0)
    /// Later than any time that is ever reached: the deadline of something that waits for nothing.
    public static let distantFuture = Instant(nanoseconds: .max)

    /// Seconds since the origin.
    @inlinable public var seconds: Double { Double(nanoseconds) / 1e9 }

    /// Earlier comes first.
    @inlinable public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }
    /// The instant a duration later. The far future stays where it is.
    @inlinable public static func + (left: Instant, right: Duration) -> Instant {
        let (sum, overflow) = left.nanoseconds.addingReportingOverflow(right.nanoseconds)
        return overflow ? .distantFuture : Instant(nanoseconds: sum)
    }
    /// The time that passed from `right` to `left`.
    @inlinable public static func - (left: Instant, right: Instant) -> Duration {
        Duration(nanoseconds: left.nanoseconds &- right.nanoseconds)
    }
}

/// A length of time in nanoseconds.
@frozen
public struct Duration: Hashable, Comparable, Sendable, Codable {
    /// The length in nanoseconds.
    public var nanoseconds: Int64

    /// A length in nanoseconds.
    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    /// A length in seconds, rounded to the nearest nanosecond.
    @inlinable public init(seconds: Double) { nanoseconds = Int64((seconds * 1e9).rounded()) }
    /// A length in milliseconds.
    @inlinable public init(milliseconds: Int64) { nanoseconds = milliseconds * 1_000_000 }

    /// No time at all.
    public static let zero = Duration(nanoseconds: 0)

    /// The length in seconds.
    @inlinable public var seconds: Double { Double(nanoseconds) / 1e9 }

    /// Shorter comes first.
    @inlinable public static func < (left: Duration, right: Duration) -> Bool { left.nanoseconds < right.nanoseconds }
    /// The sum of two lengths.
    @inlinable public static func + (left: Duration, right: Duration) -> Duration {
        Duration(nanoseconds: left.nanoseconds + right.nanoseconds)
    }
    /// The difference of two lengths; negative when `right` is longer.
    @inlinable public static func - (left: Duration, right: Duration) -> Duration {
        Duration(nanoseconds: left.nanoseconds - right.nanoseconds)
    }
}
