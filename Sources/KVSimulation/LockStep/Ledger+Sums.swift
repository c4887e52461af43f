// Sums and differences of ledgers, class by class.

import KVReport

extension Ledger {
    private static var classes: [WritableKeyPath<Ledger, Int>] {
        [
            \.hbm, \.dram, \.nvme, \.flash, \.firstSeen, \.evicted, \.refused, \.heldElsewhere, \.lostAfterLookUp,
            \.late,
            \.corrupt, \.quota, \.noTier, \.recomputeCheaper, \.alwaysComputed,
        ]
    }

    /// Adds another ledger's tokens.
    public mutating func add(_ other: Ledger) {
        for path in Self.classes { self[keyPath: path] += other[keyPath: path] }
    }

    /// What one ledger has more than an earlier one of the same books.
    public static func - (later: Ledger, earlier: Ledger) -> Ledger {
        var difference = later
        for path in classes { difference[keyPath: path] -= earlier[keyPath: path] }
        return difference
    }
}
