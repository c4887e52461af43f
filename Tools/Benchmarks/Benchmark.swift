// What a benchmark is, and how a fair comparison is made of two things that are timed in turn.

import Foundation

/// A named group of measurements.
protocol Benchmark: Sendable {
    var name: String { get }
    /// What it measures, in a line.
    var purpose: String { get }
    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow]
}

/// What a person chose for the run.
struct BenchmarkSetting {
    /// A folder of real traces, if there is one.
    let tracesFolder: String?
    let python: String
    /// In which Mooncake Store can be imported.
    let peersPython: String?
    /// What `Tools/bench` built of `absl_table.cpp`.
    let abslLibrary: String?
    let pairCount: Int
    /// Part of the names of the groups of rows that are wanted.
    let only: String

    /// Whether a group of rows is measured.
    func wants(_ group: String) -> Bool { only.isEmpty || group.contains(only) }

    /// Runs of something that takes seconds and is held against a bound: as many as a 95 % interval needs.
    var longRunCount: Int { min(pairCount, 6) }
}

/// One measured comparison.
struct BenchmarkRow: Encodable {
    let name: String
    let unit: String
    let ours: Double
    let reference: Double
    let referenceName: String
    /// Above 1: ours is better.
    let ratio: Double
    /// The 95 % interval of the ratio's median.
    let low: Double
    let high: Double
    let conditions: String
}

/// Times two things in turn and compares them pair by pair, so that what disturbs the machine disturbs both.
struct PairedRuns {
    private var ours: [Double] = []
    private var references: [Double] = []

    /// Runs pairs; each closure gives one figure. The side that goes first alternates. One pair before the first is
    /// not counted: it warms caches and allocates.
    init(count: Int, ours: () throws -> Double, reference: () throws -> Double) rethrows {
        for pair in -1..<count {
            let first = pair % 2 == 0 ? try ours() : try reference()
            let second = pair % 2 == 0 ? try reference() : try ours()
            if pair < 0 { continue }
            self.ours.append(pair % 2 == 0 ? first : second)
            references.append(pair % 2 == 0 ? second : first)
        }
    }

    /// Pairs whose sides the caller timed in turn.
    init(ours: [Double], references: [Double]) {
        precondition(ours.count == references.count, "a pair with one side")
        self.ours = ours
        self.references = references
    }

    /// The row for figures of which less is better.
    func row(name: String, unit: String, referenceName: String, conditions: String) -> BenchmarkRow {
        note("  \(name): \(shortNumber(median(ours))) \(unit)")
        let ratios = zip(ours, references).map { $1 / $0 }
        let interval = medianInterval(ratios)
        return BenchmarkRow(
            name: name, unit: unit, ours: median(ours), reference: median(references), referenceName: referenceName,
            ratio: median(ratios), low: interval.low, high: interval.high,
            conditions: "\(conditions); \(ours.count) interleaved pairs")
    }
}

/// The middle value, or the mean of the two middle ones.
func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/// The 95 % interval of the median by order statistics, which asks nothing of the distribution: the widest pair of
/// ranks that the binomial distribution leaves with at most 2.5 % on each side.
func medianInterval(_ values: [Double]) -> (low: Double, high: Double) {
    let sorted = values.sorted()
    let count = sorted.count
    var rank = 0
    var term = pow(0.5, Double(count))  // Binomial probability of `rank` values below the median.
    var below = term
    while below <= 0.025, rank < count / 2 {
        rank += 1
        term *= Double(count - rank + 1) / Double(rank)
        below += term
    }
    // With `rank` ranks cut off on each side, `below` would pass 2.5 %; the ranks before that are kept.
    let cut = max(0, rank - 1)
    return (sorted[cut], sorted[count - 1 - cut])
}

/// Seconds of processor time that something takes. Not of the wall's clock: on a machine with other work the wall
/// tells how busy the others are. What sleeps or reads from a device must be timed otherwise.
func seconds(_ body: () throws -> Void) rethrows -> Double {
    let start = nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID)
    try body()
    return Double(nanoseconds(of: CLOCK_PROCESS_CPUTIME_ID) - start) * 1e-9
}

/// Seconds on the wall's clock that something takes.
func wallSeconds(_ body: () throws -> Void) rethrows -> Double {
    let start = nanoseconds(of: CLOCK_MONOTONIC)
    try body()
    return Double(nanoseconds(of: CLOCK_MONOTONIC) - start) * 1e-9
}

private func nanoseconds(of clock: clockid_t) -> Int {
    var time = timespec()
    unsafe clock_gettime(clock, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Keeps a value from being optimised away.
@inline(never)
func keep<Value>(_ value: Value) { withExtendedLifetime(value) {} }

/// A comparison with a fixed bound instead of a reference that runs: less than the bound is better.
func boundRow(
    name: String, unit: String, measured: [Double], bound: Double, boundName: String, conditions: String
) -> BenchmarkRow {
    note("  \(name): \(shortNumber(median(measured))) \(unit)")
    let ratios = measured.map { bound / $0 }
    let interval = measured.count >= 6 ? medianInterval(ratios) : (ratios.min() ?? 0, ratios.max() ?? 0)
    return BenchmarkRow(
        name: name, unit: unit, ours: median(measured), reference: bound, referenceName: boundName,
        ratio: median(ratios), low: interval.0, high: interval.1, conditions: conditions)
}
