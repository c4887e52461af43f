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
    /// The ages of the class in hand: waits that its rates are drawn towards, and what each brings and costs.
    var waits = [Double](repeating: 0, count: AgeBins.count)
    var stretches = [Stretch](repeating: Stretch(), count: AgeBins.count)
    // The ages, at hand.
    let widths = AgeBins.widths
    let middles = AgeBins.middles

    /// Ages from one on that are kept or given up together: what a block brings and costs in them, the share that stays
    /// to their end, and the age after them.
    struct Stretch {
        var hits = 0.0
        var space = 0.0
        var stay = 0.0
        var end = 0
    }

    /// Sums chains up to sharing, and sharing up to all. Pairs of level and chain without a family counted nothing.
    mutating func sumUp(_ pairs: [Int]) {
        let bins = AgeBins.count
        for place in bySharing.indices { bySharing[place] = .init() }
        for pair in pairs {
            let level = pair / HoldfastTraffic.chains * bins
            for bin in 0..<bins { bySharing[level + bin].add(byChain[pair * bins + bin]) }
        }
        for bin in 0..<bins {
            var count = HoldfastTables.Count()
            for level in 0..<Popularity.levels { count.add(bySharing[level * bins + bin]) }
            all[bin] = count
        }
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
            tables.evidence[bin] = meanWeight * min(max(5 * tables.middles[bin] / longGap, 1), 50)
        }
        sum(clock: clock)
        tables.sumUp(pairs)
        shareRates()
        let classes = families.count * Stage.allCases.count
        if tables.best.count < classes {
            tables.best.append(contentsOf: repeatElement(.init(), count: classes - tables.best.count))
        }
        for family in families.indices { value(family: family, clock: clock) }
    }

    /// Sums the cells by chain and by rhythm, and these up to sharing and all.
    private mutating func sum(clock: Double) {
        let bins = AgeBins.count
        let stageCount = Stage.allCases.count
        var used: [Bool] = []
        used.reserveCapacity(families.count * stageCount)
        for family in families.indices { for stage in Stage.allCases { used.append(isUsed(family, stage)) } }
        // The arrays move out of `self` for the walk: spans into them may then live beside the other members.
        var byChain: [HoldfastTables.Count] = []
        var byRhythm: [HoldfastTables.Count] = []
        swap(&byChain, &tables.byChain)
        swap(&byRhythm, &tables.byRhythm)
        defer {
            swap(&byChain, &tables.byChain)
            swap(&byRhythm, &tables.byRhythm)
        }
        var chains = byChain.mutableSpan
        var rhythms = byRhythm.mutableSpan
        for pair in pairs { for place in pair * bins..<(pair + 1) * bins { chains[place] = .init() } }
        for place in rhythms.indices { rhythms[place] = .init() }
        for number in 1..<max(families.count, 1) {
            let chain = (families[number].level * HoldfastTraffic.chains + families[number].chain) * bins
            for stage in 0..<stageCount where used[number * stageCount + stage] {
                let first = (number * stageCount + stage) * bins
                let rhythm = (families[number].rhythm * stageCount + stage) * bins
                let cells = cells.span.extracting(first..<first + bins)
                for bin in 0..<bins {
                    let count = HoldfastTables.Count(hits: cells[bin].hits, waited: cells[bin].waited(until: clock))
                    chains[chain + bin].add(count)
                    rhythms[rhythm + bin].add(count)
                }
            }
        }
    }

    private mutating func shareRates() {
        for bin in 0..<AgeBins.count {
            // Unless shown otherwise, rates fall as 1/age.
            let middle = tables.middles[bin]
            let fallen =
                bin == 0 ? 0.3 / middle : tables.rateOfAll[bin - 1] * tables.middles[bin - 1] / middle
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
        let bins = AgeBins.count
        let first = Int(firstCell(of: Int32(family), stage: stage))
        setWaits(family: family, stage: stage)
        let needed = families[family].level < Popularity.ownLevels ? 1 : Popularity.sharedEvidence
        // Moved out of `self` for the walk, as above.
        var ages: [HoldfastTables.Stretch] = []
        var all: [Double] = []
        swap(&ages, &tables.stretches)
        swap(&all, &index)
        defer {
            swap(&ages, &tables.stretches)
            swap(&all, &index)
        }
        var stretches = ages.mutableSpan
        var index = all.mutableSpan
        let cells = cells.span.extracting(first..<first + bins)
        let waits = tables.waits.span
        let evidences = tables.evidence.span
        let widths = tables.widths.span
        var bin = bins
        while bin > 0 {
            bin -= 1
            var stretch = Self.stretch(
                bin, cells[bin], wait: waits[bin], evidence: evidences[bin] * needed, width: widths[bin], clock: clock,
                hitsAfter: hitsAfter, spaceAfter: spaceAfter)
            while stretch.end < bins {
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

    /// The waits that the rates of a class are drawn towards: those of its sharing and chain, bent by its rhythm.
    private mutating func setWaits(family: Int, stage: Stage) {
        let bins = AgeBins.count
        var row: [Double] = []
        swap(&row, &tables.waits)
        defer { swap(&row, &tables.waits) }
        var waits = row.mutableSpan
        if family == Int(Self.partial) {
            for bin in 0..<bins { waits[bin] = 2 / tables.rateBySharing[bin] }
            return
        }
        let chain = (families[family].level * HoldfastTraffic.chains + families[family].chain) * bins
        let rhythm = (families[family].rhythm * Stage.allCases.count + Int(stage.rawValue)) * bins
        let chains = tables.waitByChain.span.extracting(chain..<chain + bins)
        let rhythms = tables.waitByRhythm.span.extracting(rhythm..<rhythm + bins)
        for bin in 0..<bins { waits[bin] = chains[bin] * rhythms[bin] }
    }

    /// What one age of a class brings and costs. 1/(1 + x + x²/2) stands for e⁻ˣ.
    @inline(__always)
    private static func stretch(
        _ bin: Int, _ cell: HoldfastCell, wait: Double, evidence: Double, width: Double, clock: Double,
        hitsAfter: Double, spaceAfter: Double
    ) -> HoldfastTables.Stretch {
        let perSecond = 1 / (cell.waited(until: clock) + evidence * wait)
        let returns = (cell.hits + evidence) * perSecond
        let ends = cell.ended * perSecond
        // The time spent in the bin is (1 − stay) / leaves, which is this without a second division.
        let x = (returns + ends) * width
        let isLast = bin == AgeBins.count - 1
        let stay = isLast ? 0 : 1 / (1 + x + x * x / 2)
        let spent = isLast ? 1 / (returns + ends) : width * (1 + x / 2) * stay
        return HoldfastTables.Stretch(
            hits: spent * (returns + ends * hitsAfter), space: spent * (1 + ends * spaceAfter), stay: stay, end: bin + 1
        )
    }
}
