// How a store ranks what it holds. The deployed store and the store of a replay rank by this one value, so that what is
// replayed is what is deployed. Who asks for room, and what may not go, is decided by its owners.

import KVModel

/// The worth of keeping a block: when it was used last, plus time for repeated use, minus its depth.
///
/// Blocks of one model bring the same benefit per byte, so the time until the next use decides, and recency and frequency are
/// what is known of it. A block that was used twice, four or eight times and more gets a quarter, a half, a whole of the time
/// that blocks usually stay. The depth makes the deepest of one access go first: by a second a block, so that a chain saved
/// over minutes while it was decoded still leaves leaf first, and by no more than a quarter of that time.
public struct StoreRanking: Sendable {
    /// How long blocks stayed that left for want of room, as a running mean: each counts an eighth. Seconds, at least 1.
    public private(set) var tenureSeconds: UInt32 = 1

    /// Ranks that know no stay yet.
    public init() {}

    /// The second of a time, later than any bonus or discount is long.
    public static func second(of time: Instant) -> UInt32 {
        UInt32(truncatingIfNeeded: time.nanoseconds / 1_000_000_000) &+ (1 << 20)
    }

    /// Places of `count` to keep free for puts to come: a 64th, and enough for two blocks of `largest` places.
    public static func freeTarget(of count: Int, largest: Int) -> Int {
        min(max(count / 64, min(2 * largest, count / 8)), count)
    }

    /// How many victims one walk over `count` places picks: it pays for so many evictions.
    public static func victims(of count: Int) -> Int { max(16, count / 64) }

    /// What keeping a block is worth, above all others of less: for one used last in the second `touched`, `uses` times, at
    /// `depth` of its chain.
    @inlinable
    public func worth(touched: UInt32, uses: UInt8, depth: UInt16) -> UInt64 {
        let bonus: UInt32 =
            switch uses {
            case 0, 1: 0
            case 2, 3: tenureSeconds / 4
            case 4...7: tenureSeconds / 2
            default: tenureSeconds
            }
        let discount = min(UInt32(depth), max(tenureSeconds / 4, 1))
        let seconds = touched &+ bonus &- discount
        return UInt64(seconds) << 16 | UInt64(UInt16.max - depth)
    }

    /// The uses of a block that is used again after `rested` seconds: what rested for longer than two stays starts over.
    @inlinable
    public func uses(_ uses: UInt8, againAfter rested: UInt32) -> UInt8 {
        let kept = rested > 2 * tenureSeconds ? uses / 2 : uses
        return kept < .max ? kept + 1 : kept
    }

    /// A block left for want of room, so many seconds after its last use.
    public mutating func evicted(after rested: UInt32) {
        tenureSeconds = max(1, (7 * tenureSeconds + rested) / 8)
    }
}

/// The least worth of many, picked in one pass: a heap with the greatest worth at the top, which the next better candidate
/// drives out. Of equals the lower number leaves first.
public struct LeastWorth: Sendable {
    /// How many it keeps.
    public let countMax: Int
    private var candidates: [(worth: UInt64, number: UInt32)] = []

    /// Keeps the `countMax` of least worth.
    public init(countMax: Int) { self.countMax = countMax }

    /// Looks at one more.
    public mutating func offer(_ number: UInt32, worth: UInt64) {
        if candidates.count < countMax {
            candidates.append((worth, number))
            var child = candidates.count - 1
            while child > 0, precedes(candidates[(child - 1) / 2], candidates[child]) {
                candidates.swapAt(child, (child - 1) / 2)
                child = (child - 1) / 2
            }
        } else if precedes((worth, number), candidates[0]) {
            candidates[0] = (worth, number)
            var parent = 0
            while true {
                var greatest = parent
                for child in [2 * parent + 1, 2 * parent + 2] where child < candidates.count {
                    if precedes(candidates[greatest], candidates[child]) { greatest = child }
                }
                if greatest == parent { break }
                candidates.swapAt(parent, greatest)
                parent = greatest
            }
        }
    }

    /// What it keeps, the least worth last.
    public func victims() -> [UInt32] { candidates.sorted { precedes($1, $0) }.map(\.number) }

    private func precedes(_ left: (worth: UInt64, number: UInt32), _ right: (worth: UInt64, number: UInt32)) -> Bool {
        left.worth != right.worth ? left.worth < right.worth : left.number < right.number
    }
}
