// 1. Where did each prompt token come from? The tier that served it, or the cause for which it was computed.

/// Why a token was computed although it had been computed before.
struct RecomputeCause {
    var name: String
    var short: String
    var fill: Fill
    /// The end of "… because".
    var because: String
    var tokens: @Sendable (Ledger) -> Int

    /// In the order of the report's design; shown by size.
    static let all: [RecomputeCause] = [
        .init(name: "evicted", short: "evicted", fill: .again, because: "they had been evicted", tokens: \.evicted),
        .init(
            name: "refused at admission", short: "refused", fill: .refused,
            because: "they were refused when they asked to be kept", tokens: \.refused),
        .init(
            name: "held elsewhere", short: "elsewhere", fill: .refused,
            because: "they were kept where this replica could not reach them", tokens: \.heldElsewhere),
        .init(
            name: "no tier", short: "no tier", fill: .again,
            because: "there was no tier to keep them in, or it was away",
            tokens: \.noTier),
        .init(
            name: "recompute was cheaper", short: "cheaper", fill: .choice,
            because: "computing them was cheaper than loading them", tokens: \.recomputeCheaper),
        .init(name: "late", short: "late", fill: .waiting, because: "they came too late", tokens: \.late),
        .init(
            name: "over quota", short: "quota", fill: .context, because: "their namespace had no room", tokens: \.quota),
        .init(
            name: "lost after look-up", short: "lost", fill: .context,
            because: "they were lost between look-up and load", tokens: \.lostAfterLookUp),
        .init(
            name: "corrupt", short: "corrupt", fill: .context, because: "their bytes could not be proven right",
            tokens: \.corrupt),
    ]
}

extension Comparison {
    /// Section 1.
    func tokensSection() -> Section {
        let total = runs[0].system.ledger.total
        return Section(
            id: "tokens", number: 1, question: "Where did each prompt token come from?",
            conclusions: runs.map(\.tokensConclusion), provenance: "\(times.plain); first seen counted",
            explanation: """
                \(prose: times), decided by the same code the agent runs. First seen is \(.counted). \
                \(Printed.tokens(total).text) prompt tokens; every one is in exactly one class. Hits are a prefix: counting \
                stops at the first gap.
                """,
            figures: runs.map(breakdown) + [tokensBySystem()])
    }

    private func breakdown(_ run: ComparedRun) -> Figure {
        let ledger = run.system.ledger
        func part(_ fill: Fill, _ name: String, _ short: String, _ tokens: Int) -> BreakdownChart.Part {
            let share = run.system.share(tokens)
            return BreakdownChart.Part(
                fill: fill, name: name, short: short, share: share, percent: Printed.percent(share, .table).text,
                amount: Printed.tokens(tokens).text)
        }
        let parts = ledger.parts.map { part($0.fill, $0.name, $0.short, $0.tokens) }
        // Causes of one size keep the design's order: `sorted` is stable.
        let causes = RecomputeCause.all.map { part($0.fill, $0.name, $0.short, $0.tokens(ledger)) }
            .sorted { $0.share > $1.share }
        let unfolded = parts.firstIndex { $0.fill == .again }!
        return Figure(
            title: run.name,
            caption: "share of prompt tokens by where they came from; computed again is unfolded into its causes",
            chart: .breakdown(
                BreakdownChart(parts: parts, unfolded: unfolded, causes: causes, line: ceilingLine(for: run.infinite))),
            table: nil, terminal: .chart)
    }

    private func ceilingLine(for infinite: SystemResult?) -> StackChart.Line? {
        infinite.map {
            StackChart.Line(
                value: $0.servedShare, name: "infinite cache, \(Printed.percent($0.servedShare, .table).text)", key: "Z"
            )
        }
    }

    private func tokensBySystem() -> Figure {
        let rows = rows(ceilings: ["Y"])
        let used = Set(rows.flatMap { $0.system.ledger.parts.filter { $0.tokens > 0 }.map(\.fill) })
        let legend = Ledger().parts.filter { used.contains($0.fill) }.map {
            StackChart.LegendEntry(fill: $0.fill, name: $0.name)
        }
        let bars = rows.map { row -> StackChart.Row in
            let isCeiling = row.mark.role == .ceiling
            let parts = isCeiling ? row.system.ledger.partsOfCeiling : row.system.ledger.parts
            return StackChart.Row(
                mark: row.mark, name: row.name,
                segments: parts.filter { $0.tokens > 0 }.map { part in
                    let share = row.system.share(part.tokens)
                    return StackChart.Segment(
                        fill: part.fill, value: share,
                        label: Printed.percent(share).text.replacing(thinSpace + "%", with: ""))
                },
                value: Printed.percent(row.system.servedShare, .table).text)
        }
        let chart = StackChart(
            legend: legend, rows: bars, full: 1, line: ceilingLine(for: runs[0].infinite), valueTitle: "served")
        return Figure(
            title: "Against the baselines",
            caption: """
                what was never seen before ends every bar, so the dashed line is both its start and the ceiling of an \
                infinite cache (\(key: "Z")). At the right: the share served from a tier
                """,
            chart: .stacks(chart), table: ledgerTable(), terminal: .chart)
    }

    private func ledgerTable() -> Table {
        let causes = RecomputeCause.all
        let tiers = ["HBM", "DRAM", "local NVMe", "flash"]
        let rows = tableRows().map { row -> Table.Row in
            let ledger = row.system.ledger
            let counts =
                [ledger.served, ledger.hbm, ledger.dram, ledger.nvme, ledger.flash, ledger.recomputed]
                + causes.map { $0.tokens(ledger) } + [ledger.firstSeen, ledger.alwaysComputed, ledger.total]
            return Table.Row(
                mark: row.mark, name: row.name,
                cells: counts.dropLast().map { Printed.percent(row.system.share($0), .table).text }
                    + [Printed.count(ledger.total).text])
        }
        let columns =
            ["served"] + tiers + ["computed again"] + causes.map(\.name) + [
                "first seen", "always computed", "prompt tokens",
            ]
        return Table(
            title: "the ledger, percent of prompt tokens", corner: "System", columns: columns, rows: rows,
            onlyOnPage: Set(6..<columns.count))
    }
}

extension Ledger {
    /// The classes of a token in drawing order: hits left, waste middle, what no cache could have had at the right.
    var parts: [(fill: Fill, name: String, short: String, tokens: Int)] {
        [
            (.hbm, "HBM", "HBM", hbm), (.dram, "DRAM", "DRAM", dram), (.nvme, "local NVMe", "NVMe", nvme),
            (.flash, "flash", "flash", flash), (.again, "computed again", "again", recomputed),
            (.context, "first seen", "first seen", firstSeen), (.choice, "always computed", "always", alwaysComputed),
        ]
    }

    /// The same for a ceiling, whose hits come from no tier in particular.
    var partsOfCeiling: [(fill: Fill, name: String, short: String, tokens: Int)] {
        [(.ghost, "served", "served", served)] + parts.suffix(3)
    }
}

extension ComparedRun {
    /// The sentence of section 1.
    var tokensConclusion: Conclusion {
        guard record.trace.tellsPrefixes else {
            return Conclusion(
                record: key, rule: "t.noprefix",
                sentence:
                    "Every prompt was computed whole, since the trace does not tell which of them share a prefix.",
                figures: ["tokensAvoided"])
        }
        let ledger = system.ledger
        let served = Printed.percent(system.servedShare).text
        let again = system.share(ledger.recomputed)
        guard again >= 0.01 else {
            let words = ledger.recomputed == 0 ? "Nothing" : "Next to nothing"
            return Conclusion(
                record: key, rule: "t.none",
                sentence:
                    "\(words) was computed twice: \(served) of prompt tokens came out of a tier and the rest had never "
                    + "been seen.", figures: ["tokensAvoided"])
        }
        // The first of equals, in the design's order.
        let cause = RecomputeCause.all.reduce(RecomputeCause.all[0]) {
            $1.tokens(ledger) > $0.tokens(ledger) ? $1 : $0
        }
        let share = Double(cause.tokens(ledger)) / Double(ledger.recomputed)
        let part =
            share == 1
            ? "all of them" : (share > 0.5 ? "most of them" : "the largest part") + " (\(Printed.percent(share).text))"
        return Conclusion(
            record: key, rule: "t.main",
            sentence:
                "\(served) of prompt tokens came out of a tier. \(Printed.percent(again).text) were computed again although "
                + "they had been computed before, \(part) because \(cause.because).", figures: ["tokensAvoided"])
    }
}
