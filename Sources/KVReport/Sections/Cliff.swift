// 6. How far is the cliff? The same trace at many loads: a single load proves nothing.

extension ComparedRun {
    /// The sentence of section 6.
    var cliffConclusion: Conclusion {
        guard let sweep = record.loadSweep, let own = sweep.capacity["1"] else {
            return Conclusion(record: key, rule: "k.missing", sentence: "Other loads are not in this record.")
        }
        let load = Printed.number(sweep.traceRunsAt)
        let ownFull = Printed.number(own)
        guard let reference, let capacity = sweep.capacity[reference.key] else {
            return Conclusion(
                record: key, rule: "k.alone",
                sentence: "Useful work falls off at \(ownFull.text) sessions per GPU. This trace runs at \(load.text): "
                    + "\(relation(load, ownFull)) that.")
        }
        let full = Printed.number(capacity)
        if let near = nearestCliff {
            let who = near.key == "1" ? tierName : referenceName
            return Conclusion(
                record: key, rule: "k.near",
                sentence: "This trace runs on the edge: \(load.text) sessions per GPU where \(who) is full at "
                    + "\(Printed.number(near.capacity).text).", figures: ["breakEvenSessionsPerGPU"])
        }
        if sweep.traceRunsAt < 0.5 * capacity {
            return Conclusion(
                record: key, rule: "k.far",
                sentence:
                    "No cliff near: \(referenceName) holds \(full.text) sessions per GPU and this trace runs at \(load.text).",
                figures: ["breakEvenSessionsPerGPU"])
        }
        return Conclusion(
            record: key, rule: "k.main",
            sentence:
                "Useful work falls off at \(full.text) sessions per GPU with \(referenceName) and at \(ownFull.text) with "
                + "\(tierName). This trace runs at \(load.text): \(relation(load, full)) the first, \(relation(load, ownFull)) the "
                + "second.", figures: ["breakEvenSessionsPerGPU"])
    }

    /// "2.0 times past" or "4.0 times below", from printed numbers.
    private func relation(_ load: Printed, _ capacity: Printed) -> String {
        guard load.value > 0, capacity.value > 0 else { return "below" }
        let isPast = load.value > capacity.value
        let factor = isPast ? load.value / capacity.value : capacity.value / load.value
        return "\(Printed.number(factor).text) times \(isPast ? "past" : "below")"
    }
}

extension Comparison {
    /// Section 6.
    func cliffSection() -> Section {
        let question = "How far is the cliff?"
        guard let sweep = runs.compactMap(\.record.loadSweep).first, sweep.sessionsPerGPU.count > 1 else {
            return absent("cliff", 6, question, rule: "k", "other loads; a replay with its sweep adds them")
        }
        return Section(
            id: "cliff", number: 6, question: question, conclusions: runs.map(\.cliffConclusion),
            provenance: "\(times.plain), \(sweep.sessionsPerGPU.count) loads",
            explanation: """
                \(prose: times): a sweep of \(Printed.count(sweep.sessionsPerGPU.count).text) loads, each dot one replay. The shaded bands \
                are ±\(Printed.percent(0.2).text) around the load that fills each system, where the model must not be trusted to \
                a point.
                """,
            figures: [cliffFigure(sweep)])
    }

    private func cliffFigure(_ sweep: LoadSweep) -> Figure {
        var series: [LineChart.Series] = []
        for row in rows() where !row.mark.isRun {
            guard let shares = sweep.usefulShareOfBusy[row.mark.key] else { continue }
            series.append(line(row.mark, row.name, sweep, shares))
        }
        for run in runs {
            guard let own = run.record.loadSweep, let shares = own.usefulShareOfBusy["1"] else { continue }
            series.append(line(run.mark, run.name, own, shares))
        }
        let least = series.flatMap(\.points).map(\.y).min() ?? 0
        let lower = [0.8, 0.6, 0.4, 0.2].first { $0 < least } ?? 0
        let x = LineChart.Axis.powersOfTwo(
            "sessions per GPU, log scale", from: sweep.sessionsPerGPU[0],
            to: max(sweep.sessionsPerGPU[sweep.sessionsPerGPU.count - 1], sweep.traceRunsAt))
        let load = Printed.number(sweep.traceRunsAt).text
        let starts = lower == 0 ? "" : "; the axis starts at \(fixed(lower * 100, decimals: 0))\(thinSpace)%"
        let chart = LineChart(
            title: "Useful share of busy GPU time", x: x, y: .percent("useful share of busy GPU time", from: lower),
            series: series,
            verticals: [
                LineChart.Vertical(x: sweep.traceRunsAt, label: "this trace, \(load)", isStrong: true, labelAt: 0.05)
            ], bands: bands(sweep, x), alternative: alternative(sweep, series, x))
        return Figure(
            title: "Useful share of busy GPU time",
            caption: "over sessions per GPU. 100\(thinSpace)% means that nothing was computed twice\(starts)",
            chart: .lines(chart),
            table: cliffTable(sweep), terminal: .table)
    }

    private func line(_ mark: SystemMark, _ name: String, _ sweep: LoadSweep, _ shares: [Double]) -> LineChart.Series {
        let points = zip(sweep.sessionsPerGPU, shares).map { LineChart.Point(x: $0, y: $1) }
        let full = sweep.capacity[mark.isRun ? "1" : mark.key].map { "full at \(Printed.number($0).text)" } ?? ""
        return LineChart.Series(mark: mark, name: name, points: points, hasDots: true, legendValue: full)
    }

    private func bands(_ sweep: LoadSweep, _ x: LineChart.Axis) -> [LineChart.Band] {
        let shown = Set(rows().map { $0.mark.isRun ? "1" : $0.mark.key })
        return sweep.capacity.filter { shown.contains($0.key) && $0.value > 0 }
            .sorted { ($0.value, $0.key) < ($1.value, $1.key) }
            .filter { $0.value * 1.2 > x.lower && $0.value * 0.8 < x.upper }
            .map { key, capacity in
                LineChart.Band(from: capacity * 0.8, to: capacity * 1.2, label: "\(key) full")
            }
    }

    private func alternative(_ sweep: LoadSweep, _ series: [LineChart.Series], _ x: LineChart.Axis) -> String {
        let values = series.map { line -> String in
            let at = interpolate(line.points.map(\.x), line.points.map(\.y), at: sweep.traceRunsAt)
            let here = at.map { " \(Printed.percent($0).text)" } ?? ""
            return "\(line.name)\(here)\(line.legendValue.isEmpty ? "" : ", \(line.legendValue)")"
        }
        return
            "Useful share of busy GPU time over sessions per GPU, log scale from \(Printed.number(x.lower, .given).text) to "
            + "\(Printed.number(x.upper, .given).text). At this trace's load of \(Printed.number(sweep.traceRunsAt).text): "
            + values.joined(separator: "; ") + "."
    }

    /// A share as whole per cent without the sign; 0 and 100 only when exact.
    private func whole(_ share: Double) -> String {
        let text = fixed(share * 100, decimals: 0)
        if text == "100", share < 1 { return ">99" }
        return text == "0" && share > 0 ? "<1" : text
    }

    private func cliffTable(_ sweep: LoadSweep) -> Table {
        let loads = sweep.sessionsPerGPU.map { Printed.number($0, .given).text }
        func row(_ mark: SystemMark, _ name: String, _ sweep: LoadSweep, _ shares: [Double]) -> Table.Row {
            Table.Row(mark: mark, name: name, cells: shares.map(whole))
        }
        var rows: [Table.Row] = []
        for run in runs {
            // Other records' sweeps join the table only over the same loads.
            guard let own = run.record.loadSweep, own.sessionsPerGPU == sweep.sessionsPerGPU,
                let shares = own.usefulShareOfBusy["1"]
            else { continue }
            rows.append(row(run.mark, run.name, own, shares))
        }
        for other in self.rows().reversed() where !other.mark.isRun {
            guard let shares = sweep.usefulShareOfBusy[other.mark.key] else { continue }
            rows.append(row(other.mark, other.name, sweep, shares))
        }
        return Table(
            title: "useful share of busy GPU time, percent, by sessions per GPU", corner: "sessions per GPU",
            columns: loads,
            rows: rows, isSeries: true,
            note: "Useful share of busy GPU time, %. This trace runs at \(Printed.number(sweep.traceRunsAt).text).")
    }
}
