// The sentence over everything: what a reader with ten seconds takes away. Ordered cases; the first that holds speaks.

extension ComparedRun {
    /// The verdict on this record.
    public var verdict: Conclusion {
        let (rule, sentence) = verdictCase
        var figures = summary.map(\.key)
        figures.removeAll {
            !["tokensAvoided", "goodput", "costPerMillionTokensSameSLO", "breakEvenSessionsPerGPU"].contains($0)
        }
        let certain = ["v.invalid", "v.noprefix", "v.noreuse"].contains(rule)
        return Conclusion(record: key, rule: rule, sentence: sentence + (certain ? "" : cliffWarning), figures: figures)
    }

    private var verdictCase: (rule: String, sentence: String) {
        if let failed = record.checks.first(where: { !$0.passed }) {
            return ("v.invalid", "This record must not be used: \(failed.name) failed.")
        }
        guard record.trace.tellsPrefixes else {
            return (
                "v.noprefix",
                "This trace cannot say what a cache would give: it does not tell which prompts share a prefix. Times and costs are "
                    + "those of prompts that share nothing."
            )
        }
        let own = Printed.percent(system.servedShare).text
        guard let reference else { return ("v.alone", avoided + ".") }
        let other = Printed.percent(reference.servedShare).text
        if let infinite, infinite.servedShare - reference.servedShare < 0.02 {
            return ("v.noreuse", nothingToGain(reference, infinite))
        }
        let money = Economics(run: self)
        let beside = "\(avoided); \(referenceName) alone avoids \(other)."
        guard let search = money.own else { return ("v.unpriced", beside) }
        guard let cost = search.cost else {
            return ("v.noslo", "\(avoided), but no cluster in the sweep meets \(record.configuration.slo.words).")
        }
        guard let opponent = money.opponent, let opponentCost = opponent.cost,
            let rival = self.system(opponent.key)
        else {
            return (
                "v.pays",
                "\(beside) \(search.gpus ?? 0) GPUs meet the SLO, which \(referenceName) met with no cluster in the sweep."
            )
        }
        let name = money.opponentName
        let isCheaper =
            cost.perMillionTokens < opponentCost.perMillionTokens
            && !areAlike(cost.perMillionTokens, opponentCost.perMillionTokens)
        if isCheaper { return ("v.pays", beside + " " + pays(money)) }
        if system.goodput > rival.goodput, !areAlike(system.goodput, rival.goodput) {
            return (
                "v.latency",
                "Holdfast avoids \(own) of prefill tokens, but \(name) alone avoids "
                    + "\(Printed.percent(rival.servedShare).text); it buys latency, not "
                    + "money: \(Printed.number(system.goodput).text) of \(Printed.number(system.offered).text) requests/s meet "
                    + "the SLO, against \(Printed.number(rival.goodput).text)."
            )
        }
        let (a, b) = (Printed.dollars(cost.perMillionTokens).text, Printed.dollars(opponentCost.perMillionTokens).text)
        let words = a == b ? "\(a), as with \(name)," : "\(a) instead of \(b) with \(name)"
        return (
            "v.nobuy",
            "\(tierName.capitalizedFirst) is not worth buying here: a million tokens cost \(words) at the same SLO."
                + wouldPay(money)
        )
    }

    /// Why nothing is left to gain: prompts that share next to nothing, or a reference that already has it all.
    private func nothingToGain(_ reference: SystemResult, _ infinite: SystemResult) -> String {
        let most = Printed.percent(infinite.servedShare).text
        let already = Printed.percent(reference.servedShare).text
        guard infinite.servedShare >= 0.1 else {
            return "No cache can help much here: an infinite one would avoid \(most) of prefill tokens and "
                + "\(referenceName) already avoids \(already)."
        }
        let share = Printed.percent(min(1, reference.servedShare / infinite.servedShare)).text
        return "Nothing larger than \(referenceName) can help much here: it already avoids \(already) of prefill "
            + "tokens, \(share) of what an infinite cache would."
    }

    /// "Holdfast avoids 60 % of prefill tokens, 83 % of what an infinite cache could".
    private var avoided: String {
        let own = "Holdfast avoids \(Printed.percent(system.servedShare).text) of prefill tokens"
        guard let infinite, infinite.servedShare > 0 else { return own }
        return own
            + ", \(Printed.percent(system.servedShare / infinite.servedShare).text) of what an infinite cache could"
    }

    private func pays(_ money: Economics) -> String {
        let load = record.loadSweep.map { Printed.number($0.traceRunsAt).text } ?? ""
        switch money.breakEven {
        // A break-even that the trace does not reach is one at equal GPUs; the tier pays by what it needs fewer of.
        case .above(let from) where (record.loadSweep?.traceRunsAt ?? 0) >= from:
            return
                "\(tierName.capitalizedFirst) pays for itself above \(Printed.number(from).text) sessions per GPU, and "
                + "this trace runs at \(load)."
        case .always(let from):
            return
                "\(tierName.capitalizedFirst) pays for itself at every load swept, from \(Printed.number(from).text) "
                + "sessions per GPU; this trace runs at \(load)."
        case .above, .never, .unknown:
            guard let own = money.own?.cost, let other = money.opponent?.cost else { return "" }
            return "At the same SLO a million tokens cost \(Printed.dollars(own.perMillionTokens).text) instead of "
                + "\(Printed.dollars(other.perMillionTokens).text)."
        }
    }

    private func wouldPay(_ money: Economics) -> String {
        switch money.breakEven {
        case .above(let from): return " It would pay above \(Printed.number(from).text) sessions per GPU."
        case .always, .never, .unknown: break
        }
        if let price = money.breakEvenStoragePerHour, price > 0 {
            return " It would pay below \(Printed.dollars(price).text) an hour for storage and switches."
        }
        return money.breakEven == .never ? " It would pay at no load in the sweep." : ""
    }

    /// Near the load that fills a system, a single number is worth little.
    private var cliffWarning: String {
        guard isNearCliff else { return "" }
        return " This trace runs within 20 % of the cliff: read question 6 before using any single number.".thinPercent
    }

    /// Whether the trace's load is within 20 % of what fills this run or the reference.
    var isNearCliff: Bool { nearestCliff != nil }

    /// The key and capacity of a system that the trace's load nearly fills.
    var nearestCliff: (key: String, capacity: Double)? {
        guard let sweep = record.loadSweep else { return nil }
        for key in [reference?.key, "1"].compactMap(\.self) {
            if let capacity = sweep.capacity[key], capacity > 0, abs(sweep.traceRunsAt / capacity - 1) <= 0.2 {
                return (key, capacity)
            }
        }
        return nil
    }
}

extension Comparison {
    /// What the second and later records change against the first, as sentences.
    public var comparisons: [Conclusion] {
        runs.dropFirst().map { run in
            guard isAlike else {
                return Conclusion(
                    record: run.key, rule: "m.unlike",
                    sentence: "Record \(run.key) is not compared with record 1: they differ in "
                        + differences.filter(\.breaksLikeness).map(\.key).joined(separator: ", ") + ".")
            }
            return compare(run, with: runs[0])
        }
    }

    private func compare(_ run: ComparedRun, with first: ComparedRun) -> Conclusion {
        var clauses: [String] = []
        var (better, worse) = (0, 0)
        func judge(
            _ left: Double, _ right: Double, lessIsBetter: Bool, alike: Bool, better more: String, worse less: String
        ) {
            if alike { return }
            let isBetter = lessIsBetter ? left < right : left > right
            if isBetter { better += 1 } else { worse += 1 }
            clauses.append(isBetter ? more : less)
        }
        let (a, b) = (run.system, first.system)
        let points = Printed.points(.percent(a.servedShare), against: .percent(b.servedShare))
        judge(
            a.servedShare, b.servedShare, lessIsBetter: false, alike: areAlike(shares: a.servedShare, b.servedShare),
            better: "avoids \(points.dropFirst()) more", worse: "avoids \(points.dropFirst()) less")
        if a.hasTimes, b.hasTimes {
            let times =
                "starts half its requests within \(Printed.seconds(a.ttft.p50).text), not \(Printed.seconds(b.ttft.p50).text)"
            judge(
                a.ttft.p50, b.ttft.p50, lessIsBetter: true, alike: run.isAlike("ttftP50", a.ttft.p50, b.ttft.p50),
                better: times, worse: times)
        }
        if let own = Economics(run: run).own?.cost?.perMillionTokens,
            let other = Economics(run: first).own?.cost?.perMillionTokens
        {
            let money =
                "costs \(Printed.dollars(own).text) per million tokens at the same SLO, not \(Printed.dollars(other).text)"
            judge(own, other, lessIsBetter: true, alike: areAlike(own, other), better: money, worse: money)
        }
        if clauses.isEmpty {
            return Conclusion(
                record: run.key, rule: "m.alike",
                sentence: "Record \(run.key) is like record 1 in tokens avoided, median TTFT and cost.")
        }
        let rule = worse == 0 ? "m.better" : better == 0 ? "m.worse" : "m.mixed"
        let last = clauses.removeLast()
        let list = clauses.isEmpty ? last : clauses.joined(separator: ", ") + " and " + last
        let judgement =
            worse == 0
            ? "; it is the better one" : better == 0 ? "; it is the worse one" : "; neither is better in all of these"
        return Conclusion(record: run.key, rule: rule, sentence: "Record \(run.key) \(list)\(judgement).")
    }
}

extension ComparedRun {
    /// Whether a figure of this run and another is the same for a reader. Measured pairs decide by their interval.
    func isAlike(_ figure: String, _ left: Double, _ right: Double) -> Bool {
        if let pair = record.live?.pairs.first(where: { $0.figure == figure }), pair.pairs >= 15 {
            return pair.low <= 1 && pair.high >= 1
        }
        return areAlike(left, right)
    }
}

extension String {
    /// With its first letter a capital.
    var capitalizedFirst: String { prefix(1).uppercased() + dropFirst() }

    /// With the space before each percent sign made narrow and unbreakable.
    var thinPercent: String { replacing(" %", with: thinSpace + "%") }
}
