// The figures everybody asks for, each beside the reference and the ceiling. The keys are a contract with scripts and
// dashboards: they only ever grow.

/// One headline figure of one record.
public struct SummaryFigure: Sendable, Equatable {
    /// Its key in JSON: `tokensAvoided`.
    public var key: String
    /// What it is, in a few words.
    public var title: String
    /// The unit of `value`, `reference` and `ceiling`.
    public var unit: String
    /// Where it comes from.
    public var provenance: Provenance
    /// Whether a smaller number is the better one.
    public var lessIsBetter: Bool
    /// The record's own value, and how it is printed.
    public var own: Value
    /// The reference's.
    public var reference: Value?
    /// The infinite cache's.
    public var ceiling: Value?
    /// The gain on the reference in words: "+31 points", "÷ 3.1", "−44 %".
    public var gain: String
    /// More numbers for JSON, in order.
    public var more: [(key: String, value: Double)] = []
    /// The value at which the headline's bar is full.
    public var full: Double

    /// A number and how it is printed.
    public struct Value: Sendable, Equatable {
        /// In the figure's unit.
        public var number: Double
        /// With two digits.
        public var printed: Printed
    }

    /// Whether all numbers and words are the same.
    public static func == (left: SummaryFigure, right: SummaryFigure) -> Bool {
        left.key == right.key && left.own == right.own && left.reference == right.reference
            && left.ceiling == right.ceiling && left.gain == right.gain
            && left.more.map(\.value) == right.more.map(\.value)
    }
}

/// A figure that a record lacks, and how to get it.
public struct MissingFigure: Sendable, Equatable {
    /// Its key in `summary`, or a section's name.
    public var figure: String
    /// Why it is missing and what would supply it.
    public var reason: String
}

/// How the gain of a figure is stated.
enum GainStyle { case points, ratio, percent }

extension ComparedRun {
    /// The headline figures that this record has, in the order of the report.
    public var summary: [SummaryFigure] {
        [
            tokensAvoided, latency("ttftP50", "TTFT p50", \.p50), latency("ttftP99", "TTFT p99", \.p99), goodput,
            usefulShareOfBusy, costAtSameSLO, costOnSameGPUs, energy, breakEvenSessions,
        ].compactMap(\.self)
    }

    private func figure(
        _ key: String, _ title: String, unit: String, _ provenance: Provenance, lessIsBetter: Bool, gain: GainStyle,
        print: (Double) -> Printed, own: Double, reference: Double?, ceiling: Double?, full: Double? = nil,
        more: [(key: String, value: Double)] = []
    ) -> SummaryFigure {
        func value(_ number: Double?) -> SummaryFigure.Value? {
            number.map { SummaryFigure.Value(number: $0, printed: print($0)) }
        }
        let mine = print(own)
        let gained = reference.map(print).map { other -> String in
            if let measured = measuredGain(key) { return measured }
            switch gain {
            case .points: return Printed.points(mine, against: other)
            case .ratio: return Printed.ratio(mine, against: other, lessIsBetter: lessIsBetter) ?? ""
            case .percent: return Printed.change(mine, against: other) ?? ""
            }
        }
        let largest = max(own, reference ?? 0, ceiling ?? 0)
        return SummaryFigure(
            key: key, title: title, unit: unit, provenance: provenance, lessIsBetter: lessIsBetter,
            own: SummaryFigure.Value(number: own, printed: mine), reference: value(reference), ceiling: value(ceiling),
            gain: gained ?? "", more: more, full: full ?? (largest > 0 ? largest * 1.15 : 1))
    }

    /// A measured gain is the median ratio of interleaved pairs with its 95 % interval; no winner unless the whole
    /// interval is on one side of 1.
    private func measuredGain(_ key: String) -> String? {
        guard let pair = record.live?.pairs.first(where: { $0.figure == key }) else { return nil }
        guard pair.pairs >= 15 else { return "\(pair.pairs) pairs: too few" }
        let interval = "[\(Printed.number(pair.low, .table).text), \(Printed.number(pair.high, .table).text)]"
        if pair.low <= 1, pair.high >= 1 { return "alike \(interval)" }
        return "× \(Printed.number(pair.median, .table).text) \(interval)"
    }

    private var tokensAvoided: SummaryFigure? {
        var more: [(key: String, value: Double)] = []
        if let ceiling = infinite?.servedShare, ceiling > 0 { more.append(("ofCeiling", system.servedShare / ceiling)) }
        return figure(
            "tokensAvoided", "Prefill tokens avoided", unit: "share of prompt tokens", times, lessIsBetter: false,
            gain: .points, print: { .percent($0) }, own: system.servedShare, reference: reference?.servedShare,
            ceiling: infinite?.servedShare, full: 1, more: more)
    }

    private func latency(_ key: String, _ title: String, _ path: KeyPath<Distribution, Double>) -> SummaryFigure? {
        guard system.hasTimes else { return nil }
        func value(_ system: SystemResult?) -> Double? { system.flatMap { $0.hasTimes ? $0.ttft[keyPath: path] : nil } }
        return figure(
            key, title, unit: "s", times, lessIsBetter: true, gain: .ratio, print: { .seconds($0) },
            own: system.ttft[keyPath: path], reference: value(reference), ceiling: value(infinite))
    }

    private var goodput: SummaryFigure? {
        guard system.hasTimes else { return nil }
        func value(_ system: SystemResult?) -> Double? { system.flatMap { $0.hasTimes ? $0.goodput : nil } }
        return figure(
            "goodput", "Goodput at \(record.configuration.slo.words)", unit: "requests/s", times, lessIsBetter: false,
            gain: .ratio, print: { .requestRate($0) }, own: system.goodput, reference: value(reference),
            ceiling: value(infinite), full: system.offered, more: [("offered", system.offered)])
    }

    private var usefulShareOfBusy: SummaryFigure? {
        guard let own = system.gpuSeconds.usefulShareOfBusy else { return nil }
        return figure(
            "usefulShareOfBusy", "Useful share of busy GPU time", unit: "share of busy GPU time", times,
            lessIsBetter: false, gain: .points, print: { .percent($0) }, own: own,
            reference: reference?.gpuSeconds.usefulShareOfBusy, ceiling: infinite?.gpuSeconds.usefulShareOfBusy, full: 1
        )
    }

    private var costAtSameSLO: SummaryFigure? {
        let money = Economics(run: self)
        guard let own = money.own?.cost, let gpus = money.own?.gpus else { return nil }
        var more = [(key: "gpus", value: Double(gpus))]
        if let other = money.reference?.gpus { more.append(("referenceGPUs", Double(other))) }
        return figure(
            "costPerMillionTokensSameSLO", "$ per M tokens, same SLO", unit: "USD", .given, lessIsBetter: true,
            gain: .percent, print: { .dollars($0) }, own: own.perMillionTokens,
            reference: money.reference?.cost?.perMillionTokens, ceiling: nil, more: more)
    }

    private var costOnSameGPUs: SummaryFigure? {
        guard system.cost.gpus > 0 else { return nil }
        let other = reference.flatMap { $0.cost.gpus > 0 ? $0.cost.perMillionTokens : nil }
        return figure(
            "costPerMillionTokensSameGPUs", "$ per M tokens, same GPUs", unit: "USD", .given, lessIsBetter: true,
            gain: .percent, print: { .dollars($0) }, own: system.cost.perMillionTokens, reference: other, ceiling: nil)
    }

    private var energy: SummaryFigure? {
        guard system.energy.total > 0, record.trace.tokens > 0 else { return nil }
        let tokens = record.trace.tokens
        func perMillion(_ system: SystemResult?) -> Double? {
            system.flatMap { $0.energy.total > 0 ? $0.energy.total / 3600 / tokens * 1e6 : nil }
        }
        return figure(
            "energyPerMillionTokens", "Wh per M tokens", unit: "Wh", .given, lessIsBetter: true, gain: .percent,
            print: { .wattHours($0 * 3600) }, own: perMillion(system) ?? 0, reference: perMillion(reference),
            ceiling: perMillion(infinite))
    }

    private var breakEvenSessions: SummaryFigure? {
        guard let sweep = record.loadSweep else { return nil }
        let load: Double
        switch Economics(run: self).breakEven {
        case .always(let from), .above(let from): load = from
        case .never, .unknown: return nil
        }
        return figure(
            "breakEvenSessionsPerGPU", "Pays above, sessions per GPU", unit: "sessions/GPU", .given, lessIsBetter: true,
            gain: .ratio, print: { .number($0) }, own: load, reference: nil, ceiling: nil,
            more: [("traceRunsAt", sweep.traceRunsAt)])
    }

    /// What the record lacks, and what would supply it.
    public var missing: [MissingFigure] {
        let present = Set(summary.map(\.key))
        let money = Economics(run: self)
        var missing: [MissingFigure] = []
        func miss(_ keys: [String], _ reason: String) {
            missing += keys.filter { !present.contains($0) }.map { MissingFigure(figure: $0, reason: reason) }
        }
        miss(
            ["ttftP50", "ttftP99", "goodput"],
            record.mode == .live
                ? "no request times: the engine's connector reports them" : "no request times: replay the trace in time"
        )
        miss(
            ["usefulShareOfBusy"],
            record.mode == .live
                ? "no GPU time: NVML or the engine reports it" : "no GPU time: replay the trace in time")
        miss(
            ["costPerMillionTokensSameSLO"],
            money.own == nil
                ? "no search for the smallest cluster: replay with it" : "no cluster tried met the SLO: try more GPUs")
        miss(["costPerMillionTokensSameGPUs"], "no prices: give them with --set prices.gpuHour=…")
        miss(["energyPerMillionTokens"], "no watts: give them with --set energy.gpu=…")
        miss(
            ["breakEvenSessionsPerGPU"],
            money.breakEven == .never
                ? "the tier does not pay at the highest load swept" : "no sweep of loads with costs: replay with it")
        if system.hasTimes, system.tpot.count == 0 {
            missing.append(MissingFigure(figure: "tpot", reason: "no answer of two tokens or more is known"))
        }
        if reference == nil { missing.append(MissingFigure(figure: "reference", reason: "no baseline in this record")) }
        if infinite == nil {
            missing.append(MissingFigure(figure: "ceiling", reason: "no infinite cache in this record"))
        }
        return missing
    }
}

extension TraceSummary {
    /// Tokens in and out.
    var tokens: Double { Double(inputTokens) + Double(outputTokens) }
}
