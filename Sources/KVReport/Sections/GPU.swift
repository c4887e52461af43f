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

extension Comparison {
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
        let rows = rows(ceilings: ["Y", "Z"]).filter { $0.system.gpuSeconds.total > 0 }
        let bars = rows.map { row in
            StackChart.Row(
                mark: row.mark, name: row.name,
                segments: row.system.gpuSeconds.classes.filter { $0.seconds > 0 }.map {
                    StackChart.Segment(
                        fill: $0.fill, value: $0.seconds, label: Printed.gpuHours($0.seconds, .table).text)
                }, value: Printed.gpuHours(row.system.gpuSeconds.total, .table).text + thinSpace + "h")
        }
        let chart = StackChart(
            legend: GPUSeconds().classes.map { StackChart.LegendEntry(fill: $0.fill, name: $0.name) }, rows: bars,
            full: rows.map(\.system.gpuSeconds.total).max() ?? 1, line: nil, valueTitle: "GPU-hours")
        return Figure(
            title: "GPU-hours by class", caption: "\(Printed.count(runs[0].record.configuration.gpus).text) GPUs",
            chart: .stacks(chart), table: gpuTable(), terminal: .chart)
    }

    private func gpuTable() -> Table {
        let rows = tableRows().filter { $0.system.gpuSeconds.total > 0 }.map { row -> Table.Row in
            let time = row.system.gpuSeconds
            let hours = (time.classes.map(\.seconds) + [time.total]).map { Printed.gpuHours($0, .table).text }
            let span = time.total / Double(max(row.record.configuration.gpus, 1))
            let shares = [
                time.busy / time.total, time.usefulShareOfAll ?? 0, time.usefulShareOfBusy ?? 0, row.system.mfu,
            ]
            return Table.Row(
                mark: row.mark, name: row.name,
                cells: hours + [Printed.seconds(span, .table).text] + shares.map { Printed.percent($0, .table).text }
                    + [
                        Printed.gpuHours(row.system.gpuSecondsAvoided, .table).text
                    ])
        }
        return Table(
            title: "GPU-hours by class, busy and useful shares", corner: "System",
            columns: [
                "decode", "useful", "recomputed", "stalled", "idle", "total", "span", "busy", "useful of all",
                "useful of busy",
                "MFU", "prefill avoided",
            ], rows: rows, onlyOnPage: [10, 11],
            note: "Prefill avoided: GPU-hours that the tokens served from a tier would have taken alone.")
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
        let own = Printed.gpuHours(time.prefillRecomputed)
        let share = Printed.percent(useful).text
        guard let other = reference?.gpuSeconds, let otherUseful = other.usefulShareOfBusy else {
            return Conclusion(
                record: key, rule: "g.alone",
                sentence: "Recompute took \(own.text) GPU-hours. \(share) of busy GPU time was useful.",
                figures: figures)
        }
        let before = Printed.gpuHours(other.prefillRecomputed)
        let change =
            own.text == before.text
            ? "Recompute stayed at \(own.text) GPU-hours"
            : "Recompute \(own.value < before.value ? "fell" : "rose") from \(before.text) to \(own.text) GPU-hours"
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
        return own.idle > other.idle ? "; at this fixed load the freed time is idle" : ""
    }
}
