// What a record says about money: the smallest clusters, when the shared tier pays, what would change that.
// Only arithmetic on the record; nothing is replayed here.

/// The money side of one record.
struct Economics {
    let run: ComparedRun

    /// The smallest cluster of this run that meets the SLO.
    var own: SLOSearchResult? { search("1") }
    /// The smallest cluster of the reference that meets the SLO.
    var reference: SLOSearchResult? { run.reference.flatMap { search($0.key) } }

    /// What a buyer would weigh this run against: the reference, and every baseline that needs less bought. A shared
    /// tier is weighed against local NVMe, too.
    var rivals: [String] {
        guard let reference = run.reference?.key else { return [] }
        if reference == "E" { return [reference] }
        let less = run.sharesATier ? ["B", "C", "D"] : ["B", "C"]
        return less.contains(reference) ? less : less + [reference]
    }

    /// The cheapest of them that meets the SLO.
    var opponent: SLOSearchResult? {
        let meeting = rivals.compactMap(search).filter { $0.cost != nil }
        return meeting.min { ($0.cost?.perMillionTokens ?? 0) < ($1.cost?.perMillionTokens ?? 0) }
    }

    /// What the opponent is called in a sentence.
    var opponentName: String { opponent.flatMap { run.system($0.key) }?.sentenceName ?? run.referenceName }

    func search(_ key: String) -> SLOSearchResult? { run.record.sloSearch.first { $0.key == key } }

    func price(_ key: String) -> Double? { run.record.prices.first { $0.key == key }?.value }

    /// The key of the storage server's price, as the record has it.
    var storeKey: String {
        ["prices.storeServerHour", "prices.storeHour"].first { price($0) != nil } ?? "prices.storeServerHour"
    }

    /// Hours the run took, from its cost where the GPU price is known.
    var hours: Double {
        let cost = run.system.cost
        if let price = price("prices.gpuHour"), price > 0, cost.gpus > 0, cost.gpu > 0 {
            return cost.gpu / (price * Double(cost.gpus))
        }
        let gpus = max(run.record.configuration.gpus, 1)
        return run.system.gpuSeconds.total / Double(gpus) / 3600
    }

    /// USD an hour for storage and switches at the same SLO.
    var storagePerHour: Double? {
        guard let cost = own?.cost, hours > 0 else { return nil }
        return (cost.storage + cost.switches) / hours
    }

    /// USD an hour at which storage and switches would make this run as dear as the opponent at the same SLO; not
    /// above zero when even a free tier would not pay.
    var breakEvenStoragePerHour: Double? {
        guard let cost = own?.cost, let other = opponent?.cost, hours > 0 else { return nil }
        return (other.total - cost.gpu) / hours
    }

    /// Whether a free storage line would make this run cost as much as the opponent.
    var wouldBeAlikeIfFree: Bool {
        guard let cost = own?.cost, let other = opponent?.cost else { return false }
        return areAlike(cost.gpu, other.total)
    }

    // MARK: The load from which it pays

    /// Whether and from which load on this run is cheaper than all its rivals.
    enum BreakEven: Equatable {
        /// The sweep has no costs for both systems.
        case unknown
        /// At no load from some load on.
        case never
        /// At every load swept, the lowest of which is given.
        case always(Double)
        /// Above this load; rounded up to two digits.
        case above(Double)
    }

    /// USD per million tokens of requests within the SLO, at each load swept. On a fixed cluster a system that answers
    /// too late looks cheap a token; this asks for tokens that count.
    func sweptCosts(_ key: String) -> [Double]? {
        guard let sweep = run.record.loadSweep, let costs = sweep.costPerMillionTokens[key],
            let met = sweep.metSLO[key], costs.count == met.count
        else { return nil }
        return zip(costs, met).map { $0 / max($1, 1e-6) }
    }

    /// The same of the cheapest rival at each load.
    var sweptRivalCosts: [Double]? {
        let costs = rivals.compactMap(sweptCosts)
        guard let first = costs.first, costs.allSatisfy({ $0.count == first.count }) else { return nil }
        return first.indices.map { load in costs.map { $0[load] }.min() ?? first[load] }
    }

    /// The lowest swept load from which cost stays below every rival's for all higher loads, linear between dots.
    var breakEven: BreakEven {
        guard let sweep = run.record.loadSweep,
            let own = sweptCosts("1"), let other = sweptRivalCosts, own.count == sweep.sessionsPerGPU.count,
            other.count == own.count, !own.isEmpty
        else { return .unknown }
        let excess = zip(own, other).map { $0 - $1 }
        guard let last = excess.lastIndex(where: { $0 >= 0 }) else { return .always(sweep.sessionsPerGPU[0]) }
        guard last + 1 < excess.count else { return .never }
        let (low, high) = (sweep.sessionsPerGPU[last], sweep.sessionsPerGPU[last + 1])
        return .above(roundedUp(low + (high - low) * excess[last] / (excess[last] - excess[last + 1])))
    }

    private func roundedUp(_ value: Double) -> Double {
        let nearest = significant(value, 2).value
        if nearest >= value || value <= 0 { return nearest }
        // One step of the second digit more.
        var step = 0.1
        while value >= step * 100 { step *= 10 }
        while value < step * 10 { step /= 10 }
        return significant(nearest + step, 2).value
    }

    // MARK: What would change the conclusion

    /// The cost of a million tokens at the same SLO if an input were different.
    struct Sensitivity {
        /// The input, as in JSON.
        var input: String
        /// What it is multiplied by.
        var factor: Double
        /// In words.
        var words: String
        /// USD per million tokens of this run and of the opponent.
        var cost: (own: Double, opponent: Double)?
        /// Whether both cost more than that, by an amount nobody knows.
        var isLeast = false
        /// Why there is no cost.
        var absence = ""
    }

    /// As given first, then each change alone.
    func sensitivities() -> [Sensitivity] {
        guard let own = own?.cost, let other = opponent?.cost, own.total > 0, other.total > 0 else { return [] }
        func scaled(gpu: Double = 1, storage: Double = 1) -> (own: Double, opponent: Double) {
            func cost(_ cost: Cost) -> Double {
                cost.perMillionTokens * (cost.gpu * gpu + cost.storage * storage + cost.switches) / cost.total
            }
            return (cost(own), cost(other))
        }
        func with(_ key: String, _ factor: Double) -> String {
            price(key).map { " (\(Printed.price($0 * factor).text))" } ?? ""
        }
        let error = run.record.modelError.ttftMean
        return [
            Sensitivity(input: "none", factor: 1, words: "as given", cost: scaled()),
            Sensitivity(
                input: "prices.gpuHour", factor: 0.5, words: "GPU price halved\(with("prices.gpuHour", 0.5))",
                cost: scaled(gpu: 0.5)),
            Sensitivity(
                input: storeKey, factor: 2, words: "storage price doubled\(with(storeKey, 2))",
                cost: scaled(storage: 2)),
            Sensitivity(
                input: "ttft", factor: 1 + error, words: "TTFT \(Printed.percent(error)) worse than modelled",
                cost: ifSlower, absence: "no cluster tried"),
            Sensitivity(
                input: "sessions", factor: 0.5,
                words: "half the sessions"
                    + (run.record.loadSweep.map {
                        " (\(Printed.number($0.traceRunsAt / 2).text) per GPU), same GPUs, within the SLO"
                    } ?? ""),
                cost: atHalfTheSessions, absence: "load not tried"),
            atHalfTheReuse,
        ]
    }

    private var ifSlower: (own: Double, opponent: Double)? {
        guard let own = own?.costIfSlower, let other = opponent?.costIfSlower else { return nil }
        return (own.perMillionTokens, other.perMillionTokens)
    }

    private var atHalfTheSessions: (own: Double, opponent: Double)? {
        guard let sweep = run.record.loadSweep, let key = opponent?.key,
            let own = sweptCosts("1"), let other = sweptCosts(key)
        else { return nil }
        let load = sweep.traceRunsAt / 2
        guard let a = interpolate(sweep.sessionsPerGPU, own, at: load),
            let b = interpolate(sweep.sessionsPerGPU, other, at: load)
        else { return nil }
        return (a, b)
    }

    /// With half the reuse every system gains half of what it gains over no cache: its smallest cluster is half-way to
    /// that of no cache, in whole replicas. Where no cluster tried is enough without a cache, the largest gives the least that it
    /// would cost. An estimate by arithmetic, not a replay.
    private var atHalfTheReuse: Sensitivity {
        var change = Sensitivity(
            input: "reuse", factor: 0.5, words: "half the reuse: GPUs half-way to no cache", absence: "A not tried")
        guard let without = search("A"), let none = without.gpus ?? without.triedGPUs.max(),
            let own = half(own, none), let other = half(opponent, none)
        else { return change }
        change.cost = (own, other)
        if without.gpus == nil {
            change.isLeast = true
            change.words += ", which needs over \(none)"
        }
        return change
    }

    private func half(_ result: SLOSearchResult?, _ none: Int) -> Double? {
        guard let gpus = result?.gpus, let cost = result?.cost, gpus > 0, cost.total > 0 else { return nil }
        let replica = max(run.record.configuration.tensorParallel, 1)
        let middle = ((gpus + none) / 2 + replica - 1) / replica * replica
        let gpu = cost.gpu * Double(middle) / Double(gpus)
        return cost.perMillionTokens * (gpu + cost.storage + cost.switches) / cost.total
    }
}

/// The value at `x` of the line through the points, linear between them; `nil` outside.
func interpolate(_ xs: [Double], _ ys: [Double], at x: Double) -> Double? {
    guard xs.count == ys.count, let first = xs.first, let last = xs.last, x >= first, x <= last else { return nil }
    guard let upper = xs.firstIndex(where: { $0 >= x }) else { return nil }
    if xs[upper] == x || upper == 0 { return ys[upper] }
    let share = (x - xs[upper - 1]) / (xs[upper] - xs[upper - 1])
    return ys[upper - 1] + (ys[upper] - ys[upper - 1]) * share
}

/// Whether two amounts are the same for a reader: within 5 %.
package func areAlike(_ left: Double, _ right: Double) -> Bool {
    abs(left - right) <= 0.05 * max(abs(left), abs(right))
}

/// Whether two shares are the same for a reader: within 1 point.
func areAlike(shares left: Double, _ right: Double) -> Bool { abs(left - right) <= 0.01 }
