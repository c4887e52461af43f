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
    var rateByRhythm = [Double](
        repeating: 0, count: HoldfastTraffic.gapClasses * Stage.allCases.count * AgeBins.count)
    /// How much evidence a class needs, by age: in blocks of weight.
    var evidence = [Double](repeating: 0, count: AgeBins.count)

    // Of the class being valued, by age: what a block of the bin brings and costs before it leaves the bin.
    var binHits = [Double](repeating: 0, count: AgeBins.count)
    var binSpace = [Double](repeating: 0, count: AgeBins.count)
    var binStay = [Double](repeating: 0, count: AgeBins.count)

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
            tables.rateByRhythm[place] = tables.rate(
                tables.byRhythm[place], prior: tables.rateOfAll[bin], bin: bin)
        }
    }

    private func prior(family: Int, stage: Stage, bin: Int) -> Double {
        if family == Int(Self.partial) { return tables.rateBySharing[bin] / 2 }
        let level = families[family].level
        let chainPlace = (level * HoldfastTraffic.chains + families[family].chain) * AgeBins.count + bin
        let rhythmPlace = (families[family].gap * Stage.allCases.count + Int(stage.rawValue)) * AgeBins.count + bin
        let rhythm = tables.rateByRhythm[rhythmPlace] / tables.rateOfAll[bin]
        return tables.rateByChain[chainPlace] * min(max(rhythm, 0.125), 8)
    }

    /// The indices of one family: first the stages a turn can end in, then the running turn, which leads to them.
    private mutating func value(family: Int, clock: Double) {
        var hitsAfter = 0.0
        var spaceAfter = 0.0
        if turnsEnd, turnMatters(to: Int32(family)) {
            var weightSum = 0.0
            for stage in Stage.allCases where stage != .running {
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
        for bin in 0..<AgeBins.count {
            let cell = cells[first + bin]
            let waited = cell.waited(until: clock)
            let prior = prior(family: family, stage: stage, bin: bin)
            let evidence =
                tables.evidence[bin] * (families[family].level < Popularity.ownLevels ? 1 : Popularity.sharedEvidence)
            let returns = (cell.hits + evidence) / (waited + evidence / prior)
            let ends = cell.ended / (waited + evidence / prior)
            let leaves = returns + ends
            let x = leaves * AgeBins.widths[bin]
            let stay = bin == AgeBins.count - 1 ? 0 : 1 / (1 + x + x * x / 2)
            tables.binStay[bin] = stay
            tables.binHits[bin] = (1 - stay) * (returns + ends * hitsAfter) / leaves
            tables.binSpace[bin] = (1 - stay) * (1 + ends * spaceAfter) / leaves
        }
    }

    /// Writes the index of every age and returns hits and space at the best stop of a block of age 0.
    private mutating func valueBins(from first: Int) -> (hits: Double, space: Double) {
        var atBirth = (hits: 0.0, space: 1.0)
        for bin in 0..<AgeBins.count {
            var stay = 1.0
            var hits = 0.0
            var space = 0.0
            var best = (hits: 0.0, space: 1.0)
            for later in bin..<AgeBins.count {
                hits += stay * tables.binHits[later]
                space += stay * tables.binSpace[later]
                stay *= tables.binStay[later]
                if hits * best.space > best.hits * space { best = (hits, space) }
            }
            index[first + bin] = best.hits / best.space
            if bin == 0 { atBirth = best }
        }
        return atBirth
    }

    /// Orders the cells that can hold a tail by index, least first.
    private mutating func sortCells() {
        sortKeys.removeAll(keepingCapacity: true)
        for family in families.indices {
            let stages = turnsEnd && turnMatters(to: Int32(family)) ? Stage.allCases.count : 1
            let first = family * Int(Self.cellsPerFamily)
            for cell in first..<first + stages * AgeBins.count {
                // Positive floats order as their bit patterns do.
                sortKeys.append(UInt64(Float(index[cell]).bitPattern) << 32 | UInt64(cell))
            }
        }
        sortKeys.sort()
        order.removeAll(keepingCapacity: true)
        if rank.count < cells.count { rank.append(contentsOf: repeatElement(0, count: cells.count - rank.count)) }
        for key in sortKeys {
            let cell = Int32(truncatingIfNeeded: key & 0xFFFF_FFFF)
            rank[Int(cell)] = Int32(order.count)
            order.append(cell)
        }
    }
}
