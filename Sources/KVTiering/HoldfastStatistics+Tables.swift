// Rates and indices of the `holdfast` policy. Rates of small classes are drawn towards those of larger ones; the
// index looks for the period over which keeping a block pays best.

import KVModel

/// Sums and rates of the classes above the cells, kept between rebuilds so that none allocates.
struct HoldfastTables {
    /// Hits and waiting, summed over classes.
    struct Count {
        var hits = 0.0
        var waited = 0.0
    }

    var all = [Count](repeating: Count(), count: AgeBins.count)
    var bySharing = [Count](repeating: Count(), count: Popularity.levels * AgeBins.count)
    var byChain = [Count](repeating: Count(), count: Popularity.levels * HoldfastTraffic.chains * AgeBins.count)
    var byRhythm = [Count](
        repeating: Count(), count: HoldfastTraffic.gapClasses * Stage.allCases.count * AgeBins.count)
    var rateOfAll = [Double](repeating: 0, count: AgeBins.count)
    var rateBySharing = [Double](repeating: 0, count: Popularity.levels * AgeBins.count)
    var rateByChain = [Double](
        repeating: 0, count: Popularity.levels * HoldfastTraffic.chains * AgeBins.count)
    /// How much faster or slower than the crowd a rhythm comes back, within bounds.
    var rhythms = [Double](
        repeating: 0, count: HoldfastTraffic.gapClasses * Stage.allCases.count * AgeBins.count)
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

    // Of the class being valued, by age: the rate to draw towards, and the stretch from there on.
    var binPrior = [Double](repeating: 0, count: AgeBins.count)
    var stretches = [Stretch](repeating: Stretch(), count: AgeBins.count)

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
        for family in families.indices { value(family: family, clock: clock) }
        sortCells()
    }

    private mutating func sum(clock: Double) {
        for bin in tables.all.indices { tables.all[bin] = .init() }
        for place in tables.bySharing.indices { tables.bySharing[place] = .init() }
        for place in tables.byChain.indices { tables.byChain[place] = .init() }
        for place in tables.byRhythm.indices { tables.byRhythm[place] = .init() }
        for number in 1..<max(families.count, 1) {
            let level = families[number].level
            let chain = families[number].chain
            let gap = families[number].gap
            for stage in Stage.allCases {
                let first = Int(firstCell(of: Int32(number), stage: stage))
                for bin in 0..<AgeBins.count {
                    let hits = cells[first + bin].hits
                    let waited = cells[first + bin].waited(until: clock)
                    add(hits, waited, to: &tables.all[bin])
                    add(hits, waited, to: &tables.bySharing[level * AgeBins.count + bin])
                    let chainPlace = (level * HoldfastTraffic.chains + chain) * AgeBins.count + bin
                    add(hits, waited, to: &tables.byChain[chainPlace])
                    let rhythmPlace = (gap * Stage.allCases.count + Int(stage.rawValue)) * AgeBins.count + bin
                    add(hits, waited, to: &tables.byRhythm[rhythmPlace])
                }
            }
        }
    }

    @inline(__always)
    private func add(_ hits: Double, _ waited: Double, to count: inout HoldfastTables.Count) {
        count.hits += hits
        count.waited += waited
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
        for place in tables.byChain.indices {
            let bin = place % AgeBins.count
            let level = place / AgeBins.count / HoldfastTraffic.chains
            let prior = tables.rateBySharing[level * AgeBins.count + bin]
            tables.rateByChain[place] = tables.rate(tables.byChain[place], prior: prior, bin: bin)
        }
        for place in tables.byRhythm.indices {
            let bin = place % AgeBins.count
            let rate = tables.rate(tables.byRhythm[place], prior: tables.rateOfAll[bin], bin: bin)
            tables.rhythms[place] = min(max(rate / tables.rateOfAll[bin], 0.125), 8)
        }
    }

    /// What the rates of a family's class are drawn towards: those of its sharing and chain, bent by its rhythm.
    private mutating func fillPriors(family: Int, stage: Stage) {
        if family == Int(Self.partial) {
            for bin in 0..<AgeBins.count { tables.binPrior[bin] = tables.rateBySharing[bin] / 2 }
            return
        }
        let chain = families[family].level * HoldfastTraffic.chains + families[family].chain
        let rhythm = families[family].gap * Stage.allCases.count + Int(stage.rawValue)
        for bin in 0..<AgeBins.count {
            tables.binPrior[bin] =
                tables.rateByChain[chain * AgeBins.count + bin] * tables.rhythms[rhythm * AgeBins.count + bin]
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
                fillBins(family: family, stage: stage, clock: clock, hitsAfter: 0, spaceAfter: 0)
                let best = valueBins(from: Int(firstCell(of: Int32(family), stage: stage)))
                var weight = families[family].destinations[Int(stage.rawValue)]
                if stage == .askedForTool { weight += tables.evidence[AgeBins.count - 1] }
                hitsAfter += weight * best.hits
                spaceAfter += weight * best.space
                weightSum += weight
            }
            hitsAfter /= weightSum
            spaceAfter /= weightSum
        }
        fillBins(
            family: family, stage: .running, clock: clock, hitsAfter: hitsAfter, spaceAfter: spaceAfter)
        _ = valueBins(from: Int(firstCell(of: Int32(family), stage: .running)))
    }

    /// What each age bin brings and costs. 1/(1 + x + x²/2) stands for e⁻ˣ.
    private mutating func fillBins(
        family: Int, stage: Stage, clock: Double, hitsAfter: Double, spaceAfter: Double
    ) {
        let first = Int(firstCell(of: Int32(family), stage: stage))
        let needed = families[family].level < Popularity.ownLevels ? 1 : Popularity.sharedEvidence
        fillPriors(family: family, stage: stage)
        for bin in 0..<AgeBins.count {
            let cell = cells[first + bin]
            let waited = cell.waited(until: clock)
            let prior = tables.binPrior[bin]
            let evidence = tables.evidence[bin] * needed
            let returns = (cell.hits + evidence) / (waited + evidence / prior)
            let ends = cell.ended / (waited + evidence / prior)
            let leaves = returns + ends
            let x = leaves * AgeBins.widths[bin]
            let stay = bin == AgeBins.count - 1 ? 0 : 1 / (1 + x + x * x / 2)
            let gone = (1 - stay) / leaves
            tables.stretches[bin] = HoldfastTables.Stretch(
                hits: gone * (returns + ends * hitsAfter), space: gone * (1 + ends * spaceAfter), stay: stay,
                end: bin + 1)
        }
    }

    /// Writes the index of every age and returns hits and space at the best stop of a block of age 0.
    ///
    /// From an age it pays to go on as long as what follows is worth more than what was had so far. Worked from the oldest
    /// age back, what follows is already in stretches that belong together, and each stretch is taken in once.
    private mutating func valueBins(from first: Int) -> (hits: Double, space: Double) {
        for bin in stride(from: AgeBins.count - 1, through: 0, by: -1) {
            var stretch = tables.stretches[bin]
            while stretch.end < AgeBins.count {
                let next = tables.stretches[stretch.end]
                guard next.hits * stretch.space > stretch.hits * next.space else { break }
                stretch.hits += stretch.stay * next.hits
                stretch.space += stretch.stay * next.space
                stretch.stay *= next.stay
                stretch.end = next.end
            }
            tables.stretches[bin] = stretch
            index[first + bin] = stretch.hits / stretch.space
        }
        return (tables.stretches[0].hits, tables.stretches[0].space)
    }

    /// Orders the cells that can hold a tail by index, least first; equal ones by number.
    private mutating func sortCells() {
        gatherSortKeys()
        // The cells come by number, and each pass keeps the order of equals.
        for digit in 0..<Self.sortDigits { sortPass(digit) }
        order.removeAll(keepingCapacity: true)
        if rank.count < cells.count { rank.append(contentsOf: repeatElement(0, count: cells.count - rank.count)) }
        for (place, key) in sortKeys.enumerated() {
            let cell = Int32(truncatingIfNeeded: key & 0xFFFF_FFFF)
            rank[Int(cell)] = Int32(truncatingIfNeeded: place)
            order.append(cell)
        }
    }

    private mutating func gatherSortKeys() {
        sortKeys.removeAll(keepingCapacity: true)
        for place in sortStarts.indices { sortStarts[place] = 0 }
        for family in families.indices {
            let matters = turnMatters(to: Int32(family))
            for stage in Stage.allCases where stage == .running || matters && isSeen(stage) {
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
        for key in sortKeys {
            let place = Self.place(of: key, digit)
            sortedKeys[Int(sortStarts[place])] = key
            sortStarts[place] += 1
        }
        swap(&sortKeys, &sortedKeys)
    }
}
