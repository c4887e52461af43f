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
    /// The block at depth `high − 1`; the others are its parents.
    var last: BlockNumber
    /// Sharing, chain and gap, as a number; see `HoldfastPolicy+Classes.swift`.
    var family: Int32
    /// Class and age: the index of its statistics.
    var cell: Int32
    var bin: Int32
    /// When its age began: the request, or the end of the turn if that is known. Seconds.
    var start: Double
    /// When it entered its cell. Seconds.
    var entered: Double
    /// What each of its blocks counts in the statistics.
    var weight: Double
    /// The record of its request.
    var request: Int32
    /// Neighbours of the same age bin, oldest first.
    var previousOfAge: Int32 = none
    var nextOfAge: Int32 = none
    /// Neighbours among the tails that own blocks the tier does not hold.
    var previousLost: Int32 = none
    var nextLost: Int32 = none
    var isLost = false

    var owned: Int32 { high - low }

    /// length^(−3/4) a block: between counting blocks, where a few long tails drown the rest, and counting tails.
    static func weight(length: Int) -> Double {
        let root = Double(length).squareRoot()
        return 1 / (root * root.squareRoot())
    }
}

/// What later requests need to know of one that owns blocks.
struct RequestRecord {
    /// The caller's number.
    var number: UInt32
    /// Length of its path in blocks.
    var length: Int32
    /// Its turn in the chain of requests that continue each other, from 1.
    var turn: Int32
    /// When it came. Seconds.
    var arrival: Double
    /// Its tails whose class changes when the turn ends: at most one a level of a conversation's own blocks.
    var ownTails = SIMD4<Int32>(repeating: none)
    var ownCount: Int32 = 0
    /// How many of its tails still own something.
    var live: Int32 = 0
}
