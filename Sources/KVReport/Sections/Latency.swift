// 2. What did users feel? Time to first token and time per output token, beside the baselines.

extension Comparison {
    /// Section 2.
    func latencySection() -> Section {
        let run = runs[0]
        let configuration = run.record.configuration
        guard runs.contains(where: { $0.system.hasTimes }) else {
            return absent(
                "latency", 2, "What did users feel?", rule: "l",
                "request times; a connector or a replay in time reports them")
        }
        let error = run.record.modelError
        let modelled = runs.filter { $0.record.mode == .modelled }
        let errors =
            modelled.count > 0
            ? "\(modelled.count == runs.count ? "" : "; modelled ones") ±\(Printed.percent(error.ttftMean).text) on mean TTFT, ±\(Printed.percent(error.tpot).text) on TPOT"
            : ""
        let overhead = Printed.seconds(configuration.requestOverheadSeconds, .given).text
        let warm =
            configuration.warmUpShare > 0 && run.system.ttftAfterWarmUp.count > 0
            ? " without the first \(Printed.percent(configuration.warmUpShare).text) the median is "
                + "\(Printed.seconds(run.system.ttftAfterWarmUp.p50).text)." : ""
        return Section(
            id: "latency", number: 2, question: "What did users feel?", conclusions: runs.map(\.latencyConclusion),
            provenance: times.plain,
            explanation: """
                \(prose: times)\(errors). TTFT is first token out minus arrival: router, queue, load and prefill, client \
                overhead \(overhead). All \(Printed.count(run.system.completedRequests).text) completed requests, warm-up \
                included\(warm.isEmpty ? "." : ";")\(warm) SLO \(.given).\(ceilingIsBeaten ? " \(ceilingWords)" : "")
                """,
            figures: [distributionFigure(), percentileFigure()])
    }

    private var ceilingWords: String {
        "Z bounds tokens, not times: what it serves starts at once and fills batches that others then wait for."
    }

    /// Whether a system answers sooner than the endless cache, which computes the least.
    private var ceilingIsBeaten: Bool {
        guard let ceiling = runs[0].infinite, ceiling.hasTimes else { return false }
        return rows().contains { row in
            row.system.hasTimes && (row.system.ttft.p50 < ceiling.ttft.p50 || row.system.ttft.p99 < ceiling.ttft.p99)
        }
    }

    private func distributionFigure() -> Figure {
        let rows = rows(ceilings: ["Y", "Z"]).filter { $0.system.hasTimes && $0.system.ttft.cdf.count > 1 }
        let slo = runs[0].record.configuration.slo
        // The fastest and slowest hundredth would squeeze everything else into a corner.
        let fastest = rows.map { $0.system.ttft.p1 }.filter { $0 > 0 }.min() ?? 0.01
        let slowest = rows.map { $0.system.ttft.p99 }.max() ?? 1
        let x = LineChart.Axis.logarithmic(
            "time to first token, log scale", from: max(fastest, 1e-3), to: max(slowest, slo.ttftSeconds * 1.5)
        ) { $0 < 1 ? Printed.seconds($0, .given).text : Printed.number($0, .given).text + thinSpace + "s" }
        let limit = Printed.seconds(slo.ttftSeconds, .given).text
        let series = rows.map { row -> LineChart.Series in
            LineChart.Series(
                mark: row.mark, name: row.name,
                points: row.system.ttft.curve(over: x, exactAt: slo.ttftSeconds),
                legendValue: "\(Printed.percent(row.system.ttft.share(within: slo.ttftSeconds)).text) by \(limit)")
        }
        let ends = series.map { "\($0.name) \($0.legendValue)" }.joined(separator: ", ")
        let chart = LineChart(
            title: "Time to first token", x: x, y: .percent("share of requests", from: 0), series: series,
            verticals: [LineChart.Vertical(x: slo.ttftSeconds, label: "SLO \(limit)", isStrong: true, labelAt: 0.94)],
            alternative: "Cumulative share of requests over time to first token, log scale from "
                + "\(Printed.seconds(x.lower, .given).text) to \(Printed.seconds(x.upper, .given).text). Share of requests started "
                + "within the SLO: \(ends).")
        return Figure(
            title: "Time to first token",
            caption: "share of requests that have started by then. Further left is better",
            chart: .lines(chart), table: latencyTable(), terminal: .table)
    }

    private func percentileFigure() -> Figure {
        let rows = rows(ceilings: ["Z"]).filter { $0.system.hasTimes }
        // Answers of one token have no time between tokens.
        let rowsWithTPOT = rows.filter { $0.system.tpot.count > 0 }
        func panel(_ title: String, _ value: (SystemResult) -> Double, of rows: [SystemRow]) -> BarPanel {
            BarPanel(
                title: title,
                bars: rows.map { row in
                    BarPanel.Bar(
                        mark: row.mark, name: row.name, value: value(row.system), isMeasured: row.record.mode == .live,
                        label: Printed.seconds(value(row.system)).text)
                })
        }
        var panels = [
            panel("TTFT p50", { $0.ttft.p50 }, of: rows), panel("TTFT p90", { $0.ttft.p90 }, of: rows),
            panel("TTFT p99", { $0.ttft.p99 }, of: rows),
        ]
        if !rowsWithTPOT.isEmpty { panels.append(panel("TPOT p99", { $0.tpot.p99 }, of: rowsWithTPOT)) }
        return Figure(
            title: "Percentiles", caption: "shorter is better. Each panel has its own scale from zero",
            chart: .panels(panels), table: serviceTable(), terminal: .nothing)
    }

    private func latencyTable() -> Table {
        let rows = tableRows().filter { $0.system.hasTimes }.map { row -> Table.Row in
            let (ttft, tpot) = (row.system.ttft, row.system.tpot)
            return Table.Row(
                mark: row.mark, name: row.name,
                cells: [ttft.p50, ttft.p90, ttft.p99, ttft.p999].map { Printed.seconds($0, .table).text } + [
                    tpot.cell(\.p50), tpot.cell(\.p99),
                    Printed.requestRate(row.system.goodput, .table).text,
                    Printed.percent(row.system.metSLO, .table).text,
                ])
        }
        return Table(
            title: "latency percentiles and goodput", corner: "System",
            columns: ["TTFT p50", "p90", "p99", "p99.9", "TPOT p50", "p99", "goodput", "meets SLO"], rows: rows,
            onlyOnPage: [3])
    }

    private func serviceTable() -> Table {
        let rows = tableRows().filter { $0.system.hasTimes }.map { row -> Table.Row in
            let system = row.system
            return Table.Row(
                mark: row.mark, name: row.name,
                cells: [
                    system.ttft.cell(\.mean), system.serviceTTFT.cell(\.p50), system.serviceTTFT.cell(\.p99),
                    system.ttftAfterWarmUp.cell(\.p50), system.tpot.cell(\.mean),
                    system.itlP99Seconds > 0 ? Printed.seconds(system.itlP99Seconds, .table).text : "-",
                    system.tbt10Seconds.cell(\.p50), system.tbt10Seconds.cell(\.p99),
                    Printed.count(system.preemptions).text,
                ])
        }
        return Table(
            title: "means, service time without queueing, gaps between tokens", corner: "System",
            columns: [
                "TTFT mean", "service p50", "service p99", "after warm-up p50", "TPOT mean", "ITL p99", "tbt10 p50",
                "tbt10 p99",
                "preemptions",
            ], rows: rows)
    }
}

extension Distribution {
    /// A time in a table; a dash where no request has one, as no answer of one token has a time between tokens.
    fileprivate func cell(_ time: KeyPath<Distribution, Double>) -> String {
        count > 0 ? Printed.seconds(self[keyPath: time], .table).text : "-"
    }

    /// Share of requests at or below a time, linear between the points of the distribution.
    func share(within seconds: Double) -> Double {
        guard let first = cdf.first, let last = cdf.last else { return 0 }
        if seconds < first[0] { return 0 }
        if seconds >= last[0] { return last[1] }
        return interpolate(cdf.map { $0[0] }, cdf.map { $0[1] }, at: seconds) ?? last[1]
    }
}

extension Distribution {
    /// The points drawn.
    private static let pointsDrawn = 200

    /// At most 200 points between the ends of an axis, exact at the percentiles people quote and at one more time.
    func curve(over axis: LineChart.Axis, exactAt seconds: Double) -> [LineChart.Point] {
        let quoted = [(p1, 0.01), (p10, 0.1), (p50, 0.5), (p90, 0.9), (p99, 0.99), (p999, 0.999)]
        let exact =
            quoted.map { LineChart.Point(x: $0.0, y: $0.1) }
            + [axis.lower, seconds, axis.upper].filter { $0 >= (cdf.first?[0] ?? 0) && $0 <= (cdf.last?[0] ?? 0) }
            .map { LineChart.Point(x: $0, y: share(within: $0)) }
        let step = max(
            1, (cdf.count + Distribution.pointsDrawn - exact.count - 1) / (Distribution.pointsDrawn - exact.count))
        let thinned = stride(from: 0, to: cdf.count, by: step).map { LineChart.Point(x: cdf[$0][0], y: cdf[$0][1]) }
        let inside = (thinned + exact).filter { $0.x >= axis.lower && $0.x <= axis.upper }
        var height = 0.0
        // The quoted percentiles and the points may round differently; a share never falls.
        return inside.sorted { ($0.x, $0.y) < ($1.x, $1.y) }.map { point in
            height = max(height, point.y)
            return LineChart.Point(x: point.x, y: height)
        }
    }
}

extension ComparedRun {
    /// The sentence of section 2.
    var latencyConclusion: Conclusion {
        let figures = ["ttftP50", "goodput"]
        guard system.hasTimes else {
            return Conclusion(
                record: key, rule: "l.missing", sentence: "Request times are not in this record.", figures: [])
        }
        let slo = record.configuration.slo
        let own = Printed.seconds(system.ttft.p50).text
        let name = slo.name.isEmpty ? "" : slo.name + " "
        let met =
            "\(Printed.percent(system.metSLO).text) meet the \(name)SLO (\(slo.words.replacing(" and ", with: ", ")))"
        guard let reference, reference.hasTimes else {
            return Conclusion(
                record: key, rule: "l.alone", sentence: "Half of all requests start within \(own). \(met).",
                figures: figures)
        }
        let other = Printed.seconds(reference.ttft.p50).text
        let alike = isAlike("ttftP50", system.ttft.p50, reference.ttft.p50)
        if !alike, system.ttft.p50 > reference.ttft.p50 {
            return Conclusion(
                record: key, rule: "l.slow",
                sentence: "Requests start later than with \(referenceName): \(own) against \(other) at the median.",
                figures: figures)
        }
        if alike, areAlike(shares: system.metSLO, reference.metSLO) {
            return Conclusion(
                record: key, rule: "l.alike",
                sentence: "Users would not notice: \(own) at the median, as with \(referenceName).", figures: figures)
        }
        let others = Printed.percent(reference.metSLO).text
        return Conclusion(
            record: key, rule: "l.main",
            sentence: "Half of all requests start within \(own), against \(other) with \(referenceName). \(met)"
                + (others == Printed.percent(system.metSLO).text
                    ? ", as with \(referenceName)." : "; with \(referenceName) \(others) do."),
            figures: figures)
    }
}
