// What the `holdfast` policy has counted: per class of tails and age, how often blocks came back and how long they
// waited. From these counts the tables of `HoldfastStatistics+Tables.swift` are made.

import KVModel

/// Counts of one class at one age, weighted by the tails' weights.
struct HoldfastCell {
    /// Blocks asked for.
    var hits = 0.0
    /// Block-seconds of waiting that are over.
    var exposure = 0.0
    /// Blocks whose turn ended.
    var ended = 0.0
    /// Blocks waiting now, and the same times when they entered.
    var alive = 0.0
    var entered = 0.0

    /// Block-seconds of waiting until now. Without those that still wait, rates would be too high early on.
    func waited(until clock: Double) -> Double { max(0, exposure + clock * alive - entered) }
}

/// All counts and the tables made from them.
///
/// Cells are numbered family × 4 stages × 34 ages; families get their numbers as they appear. Family 0 is that of
/// partial blocks.
struct HoldfastStatistics {
    /// A family: sharing, chain and rhythm.
    struct Family {
        var level: Int
        var chain: Int
        var rhythm: Int
        /// The family in which its tails wait once their turn ended: why it ended says more than how much it added, so of
        /// those that leapt and those that did not it is the same.
        var ended: Int32
        /// Weight of turns that ended, by the stage they went to.
        var destinations = [Double](repeating: 0, count: Stage.allCases.count)
    }

    static let partial: Int32 = 0
    static let cellsPerFamily = Int32(Stage.allCases.count * AgeBins.count)

    var cells: [HoldfastCell]
    var families: [Family]
    private var familyNumber: [Int32]
    /// Which of all pairs of level and chain have a family, in rising order.
    private(set) var pairs: [Int] = []
    /// A class has no tables yet.
    var isStale = true
    /// Whether anybody tells when turns end, and the stages they went to, as bits: cells of other stages hold no tail.
    var turnsEnd: Bool { stagesSeen != 1 }
    private var stagesSeen: UInt8 = 1
    private var tailsBorn = 0.0
    private var weightBorn = 0.0

    /// Per cell: expected hits per block-second over the best period.
    var index: [Double]
    var tables = HoldfastTables()

    init() {
        families = [Family(level: 0, chain: 0, rhythm: 0, ended: Self.partial)]
        cells = Array(repeating: HoldfastCell(), count: Int(Self.cellsPerFamily))
        index = Array(repeating: 0, count: Int(Self.cellsPerFamily))
        let combinations = Popularity.levels * HoldfastTraffic.chains * HoldfastTraffic.rhythms
        familyNumber = Array(repeating: none, count: combinations)
    }

    /// The mean weight of a tail.
    var meanWeight: Double { tailsBorn > 0 ? weightBorn / tailsBorn : 1 }

    /// Whether the end of a conversation's turn says anything about such tails: not about what others share, nor
    /// about a partial block.
    func turnMatters(to family: Int32) -> Bool {
        family != Self.partial && families[Int(family)].level < Popularity.ownLevels
    }

    mutating func family(level: Int, chain: Int, rhythm: Int) -> Int32 {
        let place = (level * HoldfastTraffic.chains + chain) * HoldfastTraffic.rhythms + rhythm
        if familyNumber[place] != none { return familyNumber[place] }
        let leapless = HoldfastTraffic.gapClasses
        let twin = rhythm < leapless ? nil : family(level: level, chain: chain, rhythm: rhythm - leapless)
        let number = Int32(families.count)
        familyNumber[place] = number
        let pair = level * HoldfastTraffic.chains + chain
        let placeOfPair = pairs.firstIndex { $0 >= pair } ?? pairs.count
        if placeOfPair == pairs.count || pairs[placeOfPair] != pair { pairs.insert(pair, at: placeOfPair) }
        families.append(Family(level: level, chain: chain, rhythm: rhythm, ended: twin ?? number))
        cells.append(contentsOf: repeatElement(HoldfastCell(), count: Int(Self.cellsPerFamily)))
        index.append(contentsOf: repeatElement(0, count: Int(Self.cellsPerFamily)))
        isStale = true
        return number
    }

    /// Whether a class of the family can hold tails.
    func isUsed(_ family: Int, _ stage: Stage) -> Bool {
        stage == .running || isSeen(stage) && turnMatters(to: Int32(family)) && families[family].ended == Int32(family)
    }

    func isSeen(_ stage: Stage) -> Bool { stagesSeen >> stage.rawValue & 1 == 1 }

    @inline(__always)
    func firstCell(of family: Int32, stage: Stage) -> Int32 {
        family * Self.cellsPerFamily + stage.rawValue * Int32(AgeBins.count)
    }

    func family(of cell: Int32) -> Int32 { cell / Self.cellsPerFamily }

    func stage(of cell: Int32) -> Stage {
        Stage(rawValue: cell % Self.cellsPerFamily / Int32(AgeBins.count)) ?? .running
    }

    // MARK: Counting

    mutating func tailBorn(_ tail: Tail) {
        tailsBorn += 1
        weightBorn += tail.weight * Double(tail.owned)
    }

    /// A tail is longer than it was born.
    mutating func tailGrew(from old: Tail, to new: Tail) {
        weightBorn += new.weight * Double(new.owned) - old.weight * Double(old.owned)
    }

    mutating func enter(cell: Int32, tail: Tail) {
        let weight = tail.weight * Double(tail.owned)
        var cells = cells.mutableSpan
        cells[Int(cell)].alive += weight
        cells[Int(cell)].entered += weight * tail.entered
    }

    mutating func leave(cell: Int32, tail: Tail, at time: Double) {
        let weight = tail.weight * Double(tail.owned)
        var cells = cells.mutableSpan
        cells[Int(cell)].exposure += weight * (time - tail.entered)
        cells[Int(cell)].alive -= weight
        cells[Int(cell)].entered -= weight * tail.entered
    }

    /// A tail goes on from its cell to those of the ages that it has reached by `time`. The last bin has no end.
    ///
    /// - Parameters:
    ///   - weight: The tail's `weightOfAll`.
    ///   - edges: `AgeBins.upperEdges`.
    @inline(__always)
    mutating func growOlder(_ tail: inout Tail, weight: Double, to time: Double, edges: Span<Double>) {
        var bin = tail.bin
        var place = Int(tail.cell)
        var cells = cells.mutableSpan
        repeat {
            let entered = max(tail.start + edges[bin], tail.entered)
            cells[place].exposure += weight * (entered - tail.entered)
            cells[place].alive -= weight
            cells[place].entered -= weight * tail.entered
            place += 1
            cells[place].alive += weight
            cells[place].entered += weight * entered
            tail.entered = entered
            bin += 1
        } while bin < AgeBins.count - 1 && tail.start + edges[bin] <= time
        tail.cell = Int32(truncatingIfNeeded: place)
    }

    /// `length` blocks of a tail were asked for; the rest starts to wait anew in the same cell.
    mutating func blocksAsked(cell: Int32, tail: Tail, length: Int32, clock: Double) {
        cells[Int(cell)].hits += tail.weight * Double(length)
        shrink(cell: cell, tail: tail, length: length, clock: clock)
    }

    /// `length` blocks of a tail are remembered no more: they waited in vain.
    mutating func blocksForgotten(cell: Int32, tail: Tail, length: Int32, clock: Double) {
        shrink(cell: cell, tail: tail, length: length, clock: clock)
    }

    private mutating func shrink(cell: Int32, tail: Tail, length: Int32, clock: Double) {
        leave(cell: cell, tail: tail, at: clock)
        let rest = tail.weight * Double(tail.owned - length)
        cells[Int(cell)].alive += rest
        cells[Int(cell)].entered += rest * clock
    }

    mutating func turnEnded(cell: Int32, tail: Tail, stage: Stage, at time: Double) {
        let weight = tail.weight * Double(tail.owned)
        leave(cell: cell, tail: tail, at: time)
        cells[Int(cell)].ended += weight
        families[Int(family(of: cell))].destinations[Int(stage.rawValue)] += weight
        if !isSeen(stage) {
            stagesSeen |= 1 << stage.rawValue
            isStale = true
        }
    }
}
