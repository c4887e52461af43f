// The unit the `holdfast` policy judges: the run of blocks that one request was the last to use.

import KVModel

/// The blocks `[low, high)` of one request's path that nobody has used since.
///
/// A later request takes blocks from the top only (it shares a prefix), and the tier drops blocks from the bottom
/// only, so the owned blocks and the resident ones both stay intervals.
struct Tail {
    /// Depths owned.
    var low: Int32
    var high: Int32
    /// Family, stage and age: the index of its statistics.
    var cell: Int32
    /// Rises when its entry among the ages becomes stale, also when the slot goes to another tail.
    var stamp: UInt32
    /// When its age began: the request, or the end of the turn if that is known. Seconds.
    var start: Double
    /// When it entered its cell. Seconds.
    var entered: Double
    /// What each of its blocks counts in the statistics. All that ageing needs is above this, side by side.
    var weight: Double
    /// The block at depth `high − 1`; the others are its parents.
    var last: BlockNumber
    /// The record of its request.
    var request: Int32
    /// Neighbours among the tails that own blocks the tier does not hold.
    var previousLost = Tail.notLost
    var nextLost: Int32 = none

    /// In `previousLost`: the tier holds all its blocks.
    static let notLost: Int32 = -2

    var isLost: Bool { previousLost != Self.notLost }
    var owned: Int32 { high - low }
    /// What all its blocks count together.
    var weightOfAll: Double { weight * Double(owned) }
    /// How old it is.
    var bin: Int { Int(cell) % AgeBins.count }

    /// A slot that no tail has had yet.
    init(slotOf request: Int32) {
        self.init(
            low: 0, high: 0, last: noBlock, cell: 0, request: request, stamp: 0, start: 0, entered: 0, weight: 0)
    }

    init(
        low: Int32, high: Int32, last: BlockNumber, cell: Int32, request: Int32, stamp: UInt32, start: Double,
        entered: Double, weight: Double
    ) {
        self.low = low
        self.high = high
        self.last = last
        self.cell = cell
        self.request = request
        self.stamp = stamp
        self.start = start
        self.entered = entered
        self.weight = weight
    }

    /// length^(−3/4) a block: between counting blocks, where a few long tails drown the rest, and counting tails.
    static func weight(length: Int) -> Double {
        let root = Double(length).squareRoot()
        return 1 / (root * root.squareRoot())
    }
}

/// First and last of the tails that own blocks the tier does not hold.
struct LostTails {
    var first: Int32 = none
    var last: Int32 = none
}

/// What later requests need to know of one that owns blocks.
struct RequestRecord {
    /// The caller's number.
    var number: UInt32
    /// How many requests came before it.
    var order: Int
    /// Length of its path in blocks.
    var length: Int32
    /// Its turn in the chain of requests that continue each other, from 1.
    var turn: Int32
    /// When it came. Seconds.
    var arrival: Double
    /// The running mean of the gaps of its conversation, in bins of age; negative for a first turn.
    var pace = -1.0
    /// Its tails whose class changes when the turn ends: at most one a level of a conversation's own blocks.
    var ownTails = SIMD4<Int32>(repeating: none)
    var ownCount: Int32 = 0
    /// A tail a level, and one more for a turn that grew after another request had used its end.
    static let ownTailsMax: Int32 = 4
    /// How many of its tails still own something.
    var live: Int32 = 0
}
