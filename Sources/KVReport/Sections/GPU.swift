// 3. What did the GPUs do? Every GPU-second in one of five classes.

extension GPUSeconds {
    /// The classes in drawing order.
    var classes: [(fill: Fill, name: String, seconds: Double)] {
        [
            (.decode, "decode", decode), (.useful, "prefill, useful", prefillUseful),
            (.again, "prefill, recomputed", prefillRecomputed), (.waiting, "stalled on load", stalledOnLoad),
            (.context, "idle", idle),
        ]
    }
}

/// The unit that GPU time is told in, one for all that is compared: hours, or seconds where hours would be all zeros.
struct GPUTimeUnit {
    /// "hours" or "seconds".
    let name: String
    /// Behind a number.
    let symbol: String
    private let seconds: Double

    /// The unit that fits a longest time of so many GPU-seconds.
    init(longest: Double) {
        (name, symbol, seconds) = longest < 360 ? ("seconds", "s", 1) : ("hours", "h", 3600)
    }

    /// A time in this unit; the unit is not in the text, and `value` stays in GPU-seconds.
    func printed(_ gpuSeconds: Double, _ precision: Printed.Precision = .sentence) -> Printed {
        let number = Printed.number(gpuSeconds / seconds, precision)
        return Printed(text: number.text, value: number.value * seconds)
    }
}

extension Comparison {
    /// The unit of GPU time in this report.
    private var gpuTimeUnit: GPUTimeUnit {
        GPUTimeUnit(longest: tableRows().map(\.system.gpuSeconds.total).max() ?? 0)
    }

    /// Section 3.
    func gpuSection() -> Section {
        let question = "What did the GPUs do?"
        guard runs.contains(where: { $0.system.gpuSeconds.total > 0 }) else {
            return absent("gpu", 3, question, rule: "g", "GPU time; NVML, the engine or a replay in time reports it")
        }
        let run = runs[0]
        let mfu = Printed.percent(run.system.mfu).text
        let other = run.reference.map { ", \(Printed.percent($0.mfu).text) for \(run.referenceName)" } ?? ""
        return Section(
            id: "gpu", number: 3, question: question, conclusions: runs.map(\.gpuConclusion),
            provenance: times.plain,
            explanation: """
                \(prose: times). Every GPU-second from the first arrival to the last completion is in one of five classes; a bar is \
                longer where a system could not keep up with the trace. Useful is useful prefill and decode. Useful work ran at \
                \(mfu) of the GPUs' peak arithmetic (MFU)\(other).
                """,
            figures: [gpuFigure()])
    }

    private func gpuFigure() -> Figure {
        let unit = gpuTimeUnit
        let rows = rows(ceilings: ["Y", "Z"]).filter { $0.system.gpuSeconds.total > 0 }
        let bars = rows.map { row in
            StackChart.Row(
                mark: row.mark, name: row.name,
                segments: row.system.gpuSeconds.classes.filter { $0.seconds > 0 }.map {
                    StackChart.Segment(
                        fill: $0.fill, value: $0.seconds, label: unit.printed($0.seconds, .table).text)
                },
                value: unit.printed(row.system.gpuSeconds.total, .table).text + thinSpace
                    + unit.symbol)
        }
        let chart = StackChart(
            legend: GPUSeconds().classes.map { StackChart.LegendEntry(fill: $0.fill, name: $0.name) }, rows: bars,
            full: rows.map(\.system.gpuSeconds.total).max() ?? 1, line: nil, valueTitle: "GPU-\(unit.name)")
        return Figure(
            title: "GPU-\(unit.name) by class",
            caption: "\(Printed.count(runs[0].record.configuration.gpus).text) GPUs",
            chart: .stacks(chart), table: gpuTable(), terminal: .chart)
    }

    private func gpuTable() -> Table {
        let unit = gpuTimeUnit
        let rows = tableRows().filter { $0.system.gpuSeconds.total > 0 }.map { row -> Table.Row in
            let time = row.system.gpuSeconds
            let times = (time.classes.map(\.seconds) + [time.total]).map { unit.printed($0, .table).text }
            let span = time.total / Double(max(row.record.configuration.gpus, 1))
            let shares = [
                time.busy / time.total, time.usefulShareOfAll ?? 0, time.usefulShareOfBusy ?? 0, row.system.mfu,
            ]
            return Table.Row(
                mark: row.mark, name: row.name,
                cells: times + [Printed.seconds(span, .table).text] + shares.map { Printed.percent($0, .table).text }
                    + [
                        unit.printed(row.system.gpuSecondsAvoided, .table).text
                    ])
        }
        return Table(
            title: "GPU-\(unit.name) by class, busy and useful shares", corner: "System",
            columns: [
                "decode", "useful", "recomputed", "stalled", "idle", "total", "span", "busy", "useful of all",
                "useful of busy",
                "MFU", "prefill avoided",
            ], rows: rows, onlyOnPage: [10, 11],
            note: "Prefill avoided: GPU-\(unit.name) that the tokens served from a tier would have taken alone.")
    }
}

extension ComparedRun {
    /// The sentence of section 3.
    var gpuConclusion: Conclusion {
        let time = system.gpuSeconds
        let figures = ["usefulShareOfBusy"]
        guard time.total > 0, let useful = time.usefulShareOfBusy else {
            return Conclusion(record: key, rule: "g.missing", sentence: "GPU time is not in this record.")
        }
        let stalled = time.stalledOnLoad / time.total
        if stalled > 0.05 {
            return Conclusion(
                record: key, rule: "g.stall",
                sentence:
                    "GPUs waited for KV \(Printed.percent(stalled).text) of the time: the tier is too slow for this load "
                    + "(question 8).", figures: figures)
        }
        let unit = GPUTimeUnit(longest: max(time.total, reference?.gpuSeconds.total ?? 0))
        let own = unit.printed(time.prefillRecomputed)
        let share = Printed.percent(useful).text
        guard let other = reference?.gpuSeconds, let otherUseful = other.usefulShareOfBusy else {
            return Conclusion(
                record: key, rule: "g.alone",
                sentence: "Recompute took \(own.text) GPU-\(unit.name). \(share) of busy GPU time was useful.",
                figures: figures)
        }
        let before = unit.printed(other.prefillRecomputed)
        let change =
            own.text == before.text
            ? "Recompute stayed at \(own.text) GPU-\(unit.name)"
            : "Recompute \(own.value < before.value ? "fell" : "rose") from \(before.text) to \(own.text) GPU-\(unit.name)"
        return Conclusion(
            record: key, rule: "g.main",
            sentence: "\(change). \(share) of busy GPU time was useful, against \(Printed.percent(otherUseful).text)"
                + "\(whereTimeWent(time, other)).", figures: figures)
    }

    private func whereTimeWent(_ own: GPUSeconds, _ other: GPUSeconds) -> String {
        let gpus = Double(max(record.configuration.gpus, 1))
        if own.total < other.total, !areAlike(own.total, other.total) {
            return "; the trace ends \(Printed.seconds((other.total - own.total) / gpus).text) sooner"
        }
        // Nothing is freed where nothing less is computed, and conversations that wait for answers are no fixed load.
        let freesTime =
            own.idle > other.idle && own.prefillRecomputed < other.prefillRecomputed
            && !areAlike(own.prefillRecomputed, other.prefillRecomputed)
        let hasFixedLoad = record.configuration.arrivals != "sessions"
        return freesTime && hasFixedLoad ? "; at this fixed load the freed time is idle" : ""
    }
}
