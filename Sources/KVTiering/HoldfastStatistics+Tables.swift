// Rates and indices of the `holdfast` policy. Rates of small classes are drawn towards those of larger ones; the
// index looks for the period over which keeping a block pays best.

import KVModel

/// Sums and rates of the classes above the cells, kept between rebuilds so that none allocates.
struct HoldfastTables {
    /// Hits and waiting, summed over classes.
    struct Count {
        var hits = 0.0
        var waited = 0.0

        @inline(__always)
        mutating func add(_ other: Count) {
            hits += other.hits
            waited += other.waited
        }
    }

    var all = [Count](repeating: Count(), count: AgeBins.count)
    var bySharing = [Count](repeating: Count(), count: Popularity.levels * AgeBins.count)
    var byChain = [Count](repeating: Count(), count: Popularity.levels * HoldfastTraffic.chains * AgeBins.count)
    var byRhythm = [Count](
        repeating: Count(), count: HoldfastTraffic.rhythms * Stage.allCases.count * AgeBins.count)
    var rateOfAll = [Double](repeating: 0, count: AgeBins.count)
    var rateBySharing = [Double](repeating: 0, count: Popularity.levels * AgeBins.count)
    /// Seconds between comings back: the inverse of a rate.
    var waitByChain = [Double](
        repeating: 0, count: Popularity.levels * HoldfastTraffic.chains * AgeBins.count)
    /// How much longer or shorter than the crowd a rhythm waits, within bounds.
    var waitByRhythm = [Double](
        repeating: 0, count: HoldfastTraffic.rhythms * Stage.allCases.count * AgeBins.count)
    /// By family and stage: what a block brings and costs from the end of its turn to its best stop.
    var best: [Stretch] = []
    /// How much evidence a class needs, by age: in blocks of weight.
    var evidence = [Double](repeating: 0, count: AgeBins.count)

    /// Ages from one on that are kept or given up together: what a block brings and costs in them, the share that stays
    /// to their end, and the age after them.
    struct Stretch {
        var hits = 0.0
        var space = 0.0
        var stay = 0.0
        var end = 0
    }

    /// The rate of `count` drawn towards `prior`.
    @inline(__always)
    func rate(_ count: Count, prior: Double, bin: Int) -> Double {
        (count.hits + evidence[bin]) / (count.waited + evidence[bin] / prior)
    }
}

extension HoldfastStatistics {
    /// Makes all tables from the counts.
    mutating func rebuild(clock: Double, longGap: Double) {
        isStale = false
        for bin in 0..<AgeBins.count {
            tables.evidence[bin] = meanWeight * min(max(5 * AgeBins.middles[bin] / longGap, 1), 50)
        }
        sum(clock: clock)
        shareRates()
        let classes = families.count * Stage.allCases.count
        if tables.best.count < classes {
            tables.best.append(contentsOf: repeatElement(.init(), count: classes - tables.best.count))
        }
        for family in families.indices { value(family: family, clock: clock) }
        sortCells()
    }

    /// Sums the cells by chain and by rhythm, and these up to sharing and all.
    private mutating func sum(clock: Double) {
        // Arrays are moved out while they are written, so that whether they are shared is asked once.
        var chains: [HoldfastTables.Count] = []
        var rhythms: [HoldfastTables.Count] = []
        swap(&chains, &tables.byChain)
        swap(&rhythms, &tables.byRhythm)
        sum(clock, byChain: &chains, byRhythm: &rhythms)
        swap(&chains, &tables.byChain)
        swap(&rhythms, &tables.byRhythm)
        for place in tables.bySharing.indices {
            let (level, bin) = place.quotientAndRemainder(dividingBy: AgeBins.count)
            var count = HoldfastTables.Count()
            for chain in 0..<HoldfastTraffic.chains {
                count.add(tables.byChain[(level * HoldfastTraffic.chains + chain) * AgeBins.count + bin])
            }
            tables.bySharing[place] = count
        }
        for bin in tables.all.indices {
            var count = HoldfastTables.Count()
            for level in 0..<Popularity.levels { count.add(tables.bySharing[level * AgeBins.count + bin]) }
            tables.all[bin] = count
        }
    }

    private func sum(
        _ clock: Double, byChain: inout [HoldfastTables.Count], byRhythm: inout [HoldfastTables.Count]
    ) {
        let cells = cells.span
        var chains = byChain.mutableSpan
        var rhythms = byRhythm.mutableSpan
        for place in chains.indices { chains[place] = .init() }
        for place in rhythms.indices { rhythms[place] = .init() }
        for number in 1..<max(families.count, 1) {
            let chain = (families[number].level * HoldfastTraffic.chains + families[number].chain) * AgeBins.count
            for stage in Stage.allCases where isUsed(number, stage) {
                let first = Int(firstCell(of: Int32(number), stage: stage))
                let rhythm = (families[number].rhythm * Stage.allCases.count + Int(stage.rawValue)) * AgeBins.count
                for bin in 0..<AgeBins.count {
                    let cell = cells[first + bin]
                    let count = HoldfastTables.Count(hits: cell.hits, waited: cell.waited(until: clock))
                    chains[chain + bin].add(count)
                    rhythms[rhythm + bin].add(count)
                }
            }
        }
    }

    private mutating func shareRates() {
        for bin in 0..<AgeBins.count {
            // Unless shown otherwise, rates fall as 1/age.
            let middle = AgeBins.middles[bin]
            let fallen =
                bin == 0 ? 0.3 / middle : tables.rateOfAll[bin - 1] * AgeBins.middles[bin - 1] / middle
            let prior = min(fallen, 1 / middle)
            tables.rateOfAll[bin] = tables.rate(tables.all[bin], prior: prior, bin: bin)
        }
        for place in tables.bySharing.indices {
            let bin = place % AgeBins.count
            tables.rateBySharing[place] = tables.rate(
                tables.bySharing[place], prior: tables.rateOfAll[bin], bin: bin)
        }
        for pair in pairs {
            let (level, first) = (pair / HoldfastTraffic.chains, pair * AgeBins.count)
            for bin in 0..<AgeBins.count {
                let prior = tables.rateBySharing[level * AgeBins.count + bin]
                tables.waitByChain[first + bin] = 1 / tables.rate(tables.byChain[first + bin], prior: prior, bin: bin)
            }
        }
        for place in tables.byRhythm.indices {
            let bin = place % AgeBins.count
            let rate = tables.rate(tables.byRhythm[place], prior: tables.rateOfAll[bin], bin: bin)
            tables.waitByRhythm[place] = min(max(tables.rateOfAll[bin] / rate, 0.125), 8)
        }
    }

    /// The indices of one family: first the stages a turn can end in, then the running turn, which leads to them.
    private mutating func value(family: Int, clock: Double) {
        var hitsAfter = 0.0
        var spaceAfter = 0.0
        if turnsEnd, turnMatters(to: Int32(family)) {
            var weightSum = 0.0
            // Where nobody says how turns end, a tool is what they are thought to wait for.
            for stage in Stage.allCases where stage == .askedForTool || stage != .running && isSeen(stage) {
                let best = waiting(family: family, stage: stage, clock: clock)
                var weight = families[family].destinations[Int(stage.rawValue)]
                if stage == .askedForTool { weight += tables.evidence[AgeBins.count - 1] }
                hitsAfter += weight * best.hits
                spaceAfter += weight * best.space
                weightSum += weight
            }
            hitsAfter /= weightSum
            spaceAfter /= weightSum
        }
        _ = value(family: family, stage: .running, clock: clock, hitsAfter: hitsAfter, spaceAfter: spaceAfter)
    }

    /// Hits and space at the best stop of a block whose turn ended in `stage`. A family has a lower number than those whose
    /// tails wait in it, so for them it is known already.
    private mutating func waiting(family: Int, stage: Stage, clock: Double) -> HoldfastTables.Stretch {
        let home = Int(families[family].ended)
        let place = home * Stage.allCases.count + Int(stage.rawValue)
        if home == family {
            tables.best[place] = value(family: family, stage: stage, clock: clock, hitsAfter: 0, spaceAfter: 0)
        }
        return tables.best[place]
    }

    /// Writes the index of every age of one class and returns hits and space at the best stop of a block of age 0.
    ///
    /// From an age it pays to go on as long as what follows is worth more than what was had so far. Worked from the oldest
    /// age back, what follows is already in stretches that belong together, and each stretch is taken in once.
    private mutating func value(
        family: Int, stage: Stage, clock: Double, hitsAfter: Double, spaceAfter: Double
    ) -> HoldfastTables.Stretch {
        let first = Int(firstCell(of: Int32(family), stage: stage))
        var stretches = stretches(
            family: family, stage: stage, first: first, clock: clock, hitsAfter: hitsAfter, spaceAfter: spaceAfter)
        var index = index.mutableSpan
        for bin in stride(from: AgeBins.count - 1, through: 0, by: -1) {
            var stretch = stretches[bin]
            while stretch.end < AgeBins.count {
                let next = stretches[stretch.end]
                guard next.hits * stretch.space > stretch.hits * next.space else { break }
                stretch.hits += stretch.stay * next.hits
                stretch.space += stretch.stay * next.space
                stretch.stay *= next.stay
                stretch.end = next.end
            }
            stretches[bin] = stretch
            index[first + bin] = stretch.hits / stretch.space
        }
        return stretches[0]
    }

    /// What each age of a class brings and costs. 1/(1 + x + x²/2) stands for e⁻ˣ. Its rates are drawn towards those of
    /// its sharing and chain, bent by its rhythm.
    private func stretches(
        family: Int, stage: Stage, first: Int, clock: Double, hitsAfter: Double, spaceAfter: Double
    ) -> InlineArray<34, HoldfastTables.Stretch> {
        let widths = AgeBins.widths
        let isPartial = family == Int(Self.partial)
        let (level, ofChain) = (families[family].level, families[family].chain)
        let chain = isPartial ? 0 : (level * HoldfastTraffic.chains + ofChain) * AgeBins.count
        let rhythm = (families[family].rhythm * Stage.allCases.count + Int(stage.rawValue)) * AgeBins.count
        let needed = level < Popularity.ownLevels ? 1 : Popularity.sharedEvidence
        var stretches = InlineArray<34, HoldfastTables.Stretch>(repeating: .init())
        for bin in 0..<AgeBins.count {
            let cell = cells[first + bin]
            let wait =
                isPartial
                ? 2 / tables.rateBySharing[bin] : tables.waitByChain[chain + bin] * tables.waitByRhythm[rhythm + bin]
            let evidence = tables.evidence[bin] * needed
            let perSecond = 1 / (cell.waited(until: clock) + evidence * wait)
            let returns = (cell.hits + evidence) * perSecond
            let ends = cell.ended * perSecond
            // The time spent in the bin is (1 − stay) / leaves, which is this without a second division.
            let x = (returns + ends) * widths[bin]
            let isLast = bin == AgeBins.count - 1
            let stay = isLast ? 0 : 1 / (1 + x + x * x / 2)
            let spent = isLast ? 1 / (returns + ends) : widths[bin] * (1 + x / 2) * stay
            stretches[bin] = HoldfastTables.Stretch(
                hits: spent * (returns + ends * hitsAfter), space: spent * (1 + ends * spaceAfter), stay: stay,
                end: bin + 1)
        }
        return stretches
    }

    /// Orders the cells that can hold a tail by index, least first; equal ones by number.
    private mutating func sortCells() {
        gatherSortKeys()
        // The cells come by number, and each pass keeps the order of equals.
        for digit in 0..<Self.sortDigits { sortPass(digit) }
        order.removeAll(keepingCapacity: true)
        if rank.count < cells.count { rank.append(contentsOf: repeatElement(0, count: cells.count - rank.count)) }
        Self.number(sortKeys, ranks: &rank, order: &order)
    }

    /// Writes down the order and the place of every cell in it.
    private static func number(_ keys: [UInt64], ranks: inout [Int32], order: inout [Int32]) {
        order.reserveCapacity(keys.count)
        var ranks = ranks.mutableSpan
        for (place, key) in keys.enumerated() {
            let cell = Int32(truncatingIfNeeded: key)
            ranks[Int(cell)] = Int32(truncatingIfNeeded: place)
            order.append(cell)
        }
    }

    private mutating func gatherSortKeys() {
        sortKeys.removeAll(keepingCapacity: true)
        for place in sortStarts.indices { sortStarts[place] = 0 }
        for family in families.indices {
            for stage in Stage.allCases where isUsed(family, stage) {
                let first = Int(firstCell(of: Int32(family), stage: stage))
                for cell in first..<first + AgeBins.count {
                    // Positive floats order as their bit patterns do.
                    let key = UInt64(Float(index[cell]).bitPattern) << 32 | UInt64(cell)
                    sortKeys.append(key)
                    for digit in 0..<Self.sortDigits { sortStarts[Self.place(of: key, digit)] += 1 }
                }
            }
        }
    }

    @inline(__always)
    private static func place(of key: UInt64, _ digit: Int) -> Int {
        digit * digitValues + Int(key >> UInt64(32 + 11 * digit) & UInt64(digitValues - 1))
    }

    /// Orders the keys by one digit of eleven bits. A few thousand keys are in order after three passes, in a tenth of
    /// the time that comparing them takes.
    private mutating func sortPass(_ digit: Int) {
        var start: Int32 = 0
        for place in digit * Self.digitValues..<(digit + 1) * Self.digitValues {
            let count = sortStarts[place]
            sortStarts[place] = start
            start += count
        }
        if sortedKeys.count < sortKeys.count {
            sortedKeys.append(contentsOf: repeatElement(0, count: sortKeys.count - sortedKeys.count))
        } else {
            sortedKeys.removeLast(sortedKeys.count - sortKeys.count)
        }
        Self.distribute(sortKeys, over: &sortedKeys, from: &sortStarts, digit)
        swap(&sortKeys, &sortedKeys)
    }

    private static func distribute(
        _ keys: [UInt64], over sorted: inout [UInt64], from starts: inout [Int32], _ digit: Int
    ) {
        let keys = keys.span
        var sorted = sorted.mutableSpan
        var starts = starts.mutableSpan
        for index in keys.indices {
            let place = place(of: keys[index], digit)
            sorted[Int(starts[place])] = keys[index]
            starts[place] += 1
        }
    }
}
