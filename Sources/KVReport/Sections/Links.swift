// 8. Were the links the limit? All links on one scale: the tight link is the one that is full.

extension ComparedRun {
    /// The link that was at its practical limit the longest; the fuller one of equals.
    var tightestLink: LinkResult? {
        system.links.max {
            ($0.timeAtLimit, $0.fullness) < ($1.timeAtLimit, $1.fullness)
        }
    }

    /// The sentence of section 8.
    var linksConclusion: Conclusion {
        guard let link = tightestLink else {
            return Conclusion(record: key, rule: "n.missing", sentence: "Links are not in this record.")
        }
        let stalledSeconds = system.gpuSeconds.stalledOnLoad
        let hours =
            stalledSeconds < 36
            ? "\(Printed.number(stalledSeconds)) GPU-seconds" : "\(Printed.gpuHours(stalledSeconds)) GPU-hours"
        let full = Printed.percent(link.timeAtLimit).text
        if link.timeAtLimit >= 0.10 {
            return Conclusion(
                record: key, rule: "n.limit",
                sentence:
                    "Yes: one link (\(link.name)) was full \(full) of the time, and \(hours) stalled behind it.")
        }
        let atLimit =
            link.timeAtLimit == 0
            ? "never reached its practical limit" : "sat at its practical limit \(full) of the time"
        let stalled =
            system.gpuSeconds.stalledOnLoad > 0
            ? "Twice the rate could win back at most the \(hours) stalled on load."
            : "No GPU stalled on load, so a faster link would win nothing back."
        return Conclusion(
            record: key, rule: "n.main",
            sentence:
                "No: the tightest link (\(link.name)) \(atLimit). \(stalled)")
    }
}

extension LinkResult {
    /// Mean ÷ practical rate.
    var fullness: Double { practical > 0 ? mean / practical : 0 }
}

extension Comparison {
    /// Links drawn a record; the table has them all.
    private static let linksDrawn = 6

    /// Section 8.
    func linksSection() -> Section {
        let question = "Were the links the limit?"
        guard runs.contains(where: { !$0.system.links.isEmpty }) else {
            return absent("links", 8, question, rule: "n", "links; a replay in time adds them")
        }
        return Section(
            id: "links", number: 8, question: question, conclusions: runs.map(\.linksConclusion),
            provenance: "\(times.plain) use, given rates",
            explanation: """
                \(prose: times) use of \(.given) rates. The scale is the line rate; the dotted line is what the path can really carry. A \
                link counts as full in a second in which it carries \(Printed.percent(0.95).text) of that.
                """,
            figures: runs.filter { !$0.system.links.isEmpty }.map(linksFigure))
    }

    private func linksFigure(_ run: ComparedRun) -> Figure {
        let tightest = run.system.links.sorted {
            ($0.timeAtLimit, $0.fullness, $1.name) > ($1.timeAtLimit, $1.fullness, $0.name)
        }
        let kept = Set(tightest.prefix(Comparison.linksDrawn).map(\.name))
        let whose = runs.count == 1 ? "" : "\(run.name): "
        return Figure(
            title: "\(whose)Use of each link",
            caption:
                "mean as area, the busiest second as line, share of the line rate over minutes since the first arrival",
            chart: .multiples(run.system.links.filter { kept.contains($0.name) }.map { multiple($0, run) }),
            table: linksTable(run), terminal: .table)
    }

    private func multiple(_ link: LinkResult, _ run: ComparedRun) -> LineChart {
        let span = run.system.gpuSeconds.total / Double(max(run.record.configuration.gpus, 1))
        let rate = max(link.lineRate, 1)
        func points(_ values: [Double]) -> [LineChart.Point] {
            let width = span / 60 / Double(max(values.count, 1))
            return values.enumerated().map {
                LineChart.Point(x: (Double($0.offset) + 0.5) * width, y: min($0.element / rate, 1))
            }
        }
        var series = [LineChart.Series(mark: nil, name: "mean", points: points(link.series), isArea: true)]
        if !link.peaks.isEmpty {
            series.append(LineChart.Series(mark: nil, name: "busiest second", points: points(link.peaks)))
        }
        let x = LineChart.Axis.linear("minutes", to: max(span / 60, 0.1)) { Printed.number($0, .given).text }
        let y = LineChart.Axis(
            title: "share of line rate", lower: 0, upper: 1, isLogarithmic: false,
            ticks: [0, 0.5, 1].map { LineChart.Tick(value: $0, label: fixed($0 * 100, decimals: 0) + thinSpace + "%") })
        let summary =
            rates(link)
        let full = Printed.percent(link.timeAtLimit).text
        return LineChart(
            title: link.name, x: x, y: y, series: series,
            notes: [
                LineChart.Note(
                    at: LineChart.Point(x: 0, y: min(link.practical / rate, 1)), lines: ["practical limit"], strong: nil
                )
            ], summary: summary,
            alternative:
                "\(link.name): mean \(summary), \(Printed.byteRate(link.p99Second).text) in the busiest second of a "
                + "hundred, at its practical limit \(full) of the time.")
    }

    /// "2.1 of 12.5 GB/s": the unit once where both have the same.
    private func rates(_ link: LinkResult) -> String {
        let mean = Printed.byteRate(link.mean).text.split(separator: Character(thinSpace))
        let line = Printed.byteRate(link.lineRate, .given).text.split(separator: Character(thinSpace))
        return (mean.last == line.last ? String(mean[0]) : mean.joined(separator: thinSpace)) + " of "
            + line.joined(separator: thinSpace)
    }

    private func linksTable(_ run: ComparedRun) -> Table {
        let rows = run.system.links.map { link in
            Table.Row(
                mark: nil, name: link.name,
                cells: [
                    Printed.byteRate(link.lineRate, .table).text, Printed.byteRate(link.practical, .table).text,
                    Printed.byteRate(link.mean, .table).text, Printed.byteRate(link.p99Second, .table).text,
                    Printed.percent(link.timeAtLimit, .table).text, Printed.bytes(link.bytes, .table).text,
                ])
        }
        return Table(
            title: runs.count == 1 ? "every link" : "every link, \(run.name)", corner: "Link",
            columns: ["line rate", "practical", "mean", "p99 second", "at limit", "bytes"], rows: rows,
            note: "Written to flash: \(Printed.bytes(run.system.flashBytesWritten, .table).text).")
    }
}
