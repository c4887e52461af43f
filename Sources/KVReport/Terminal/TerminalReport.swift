// The report in a terminal: at most 100 columns. The head and the figures here, pictures in TerminalCharts.swift.

/// Which sections a terminal report shows.
public enum SectionChoice: Sendable, Equatable {
    /// Questions 1, 2, 3 and 6.
    case standard
    /// Every question.
    case all
    /// The questions of these numbers, alone.
    case only(Set<Int>)

    func contains(_ number: Int) -> Bool {
        switch self {
        case .standard: [1, 2, 3, 6].contains(number)
        case .all: true
        case .only(let numbers): numbers.contains(number)
        }
    }
}

extension Comparison {
    /// The report as lines for a terminal of `width` columns, each ended by a line feed. Below 60 columns only the
    /// verdict and the figures. `file` is what the last lines tell the reader to type.
    public func terminalReport(
        width: Int = 100, colour: Bool = false, sections choice: SectionChoice = .standard, file: String = "RECORD"
    ) -> String {
        let page = TerminalPage(comparison: self, width: max(20, min(width, 100)), file: file)
        return page.lines(choice).map { $0.rendered(colour: colour) + "\n" }.joined()
    }
}

/// Lays out one report.
struct TerminalPage {
    let comparison: Comparison
    let width: Int
    let file: String

    func lines(_ choice: SectionChoice) -> [TerminalLine] {
        let isNarrow = width < 60
        var lines: [TerminalLine] = []
        if case .only = choice, !isNarrow {
            // A reader who asks for one question has read the head.
        } else {
            lines += head() + [TerminalLine()]
            if !isNarrow { lines += facts() + [TerminalLine()] }
            lines += figures()
        }
        guard !isNarrow else { return lines }
        let sections = comparison.sections
        for section in sections where choice.contains(section.number) {
            if !lines.isEmpty { lines.append(TerminalLine()) }
            lines += self.section(section, inFull: choice != .standard)
        }
        return lines + [TerminalLine()] + foot(sections.filter { !choice.contains($0.number) })
    }

    func text(_ text: String, indent: Int = 0, hanging: Int? = nil, _ style: TerminalStyle? = nil) -> [TerminalLine] {
        let hanging = hanging ?? indent
        return wrapped(ascii(text), width: width - max(indent, hanging)).enumerated().map { index, words in
            var line = TerminalLine()
            line.pad(to: index == 0 ? indent : hanging)
            line.append(words, style)
            return line
        }
    }

    // MARK: Head

    private func head() -> [TerminalLine] {
        let name = comparison.runs.map(\.record.name).joined(separator: " ")
        let title = ascii("holdfast report \(name)")
        let notice = ascii(comparison.runs.compactMap(\.record.notice).first ?? "")
        var lines: [TerminalLine] = []
        if title.count + 2 + notice.count <= width {
            var line = TerminalLine(title)
            line.append(notice.aligned(width - title.count), .yellow)
            lines.append(line)
        } else {
            lines += text(title) + text(notice, .yellow)
        }
        lines.append(TerminalLine(String(repeating: "=", count: width), .dim))
        lines += text(comparison.runs[0].verdict.sentence, .bold)
        for conclusion in comparison.comparisons { lines += text(conclusion.sentence) }
        if comparison.runs.count > 1 {
            let isAlike = comparison.isAlike
            lines += text(
                isAlike
                    ? comparison.differences.isEmpty
                        ? "The records are the same in everything compared." : "What differs:"
                    : "These records are not alike; gains between them are not computed:", isAlike ? nil : .yellow)
            for difference in comparison.differences {
                lines += text("\(difference.key): \(difference.values.joined(separator: " | "))", indent: 2, hanging: 4)
            }
        }
        return lines
    }

    private func facts() -> [TerminalLine] {
        let run = comparison.runs[0]
        let (trace, setup) = (run.record.trace, run.record.configuration)
        let tiers = setup.tiers.filter { $0.tier != "hbm" }.map {
            "\(Fill(rawValue: $0.tier)?.tierName ?? $0.tier) \(Printed.bytes($0.bytes, .given).text)"
        }
        let cluster =
            "\(setup.gpus) × \(setup.gpu), \(setup.model) \(setup.weights), \(setup.replicas) replica\(setup.replicas == 1 ? "" : "s")"
            + " of TP \(setup.tensorParallel)" + (tiers.isEmpty ? "" : "; " + tiers.joined(separator: ", "))
        let sources = comparison.runs.map(timesSource)
        let errors =
            Set(sources).count == 1
            ? sources[0] : zip(comparison.runs, sources).map { "\($0.key) \($1)" }.joined(separator: "; ")
        let arrivals = setup.arrivals == "sessions" ? "sessions with think time" : "open loop"
        let reference = run.reference == nil ? "no reference" : "reference is \(comparison.referenceKey)"
        let times = [errors] + (comparison.runs.contains { $0.system.hasTimes } ? [arrivals] : []) + [reference]
        let traceWords = [
            trace.name, "\(Printed.count(trace.requests).text) request\(trace.requests == 1 ? "" : "s")",
            "\(Printed.tokens(trace.inputTokens, .given).text) prompt tokens",
            "\(Printed.tokens(trace.outputTokens, .given).text) output tokens",
            Printed.seconds(trace.spanSeconds, .given).text,
        ].joined(separator: ", ")
        var rows = [("trace", traceWords), ("cluster", cluster), ("times", times.joined(separator: "; "))]
        rows += comparison.rareCautions(run).map { ("caution", $0.plain) }
        return rows.flatMap { name, words in
            wrapped(ascii(words), width: width - 8).enumerated().map { index, words in
                var line = TerminalLine(index == 0 ? name : "", .dim)
                line.pad(to: 8)
                line.append(words)
                return line
            }
        }
    }

    private func timesSource(_ run: ComparedRun) -> String {
        guard run.system.hasTimes else { return "not in this record" }
        let error = run.record.modelError
        return run.record.mode == .live
            ? "measured on \(run.record.live?.machine ?? "a machine the record does not name")"
            : "modelled, ±\(Printed.percent(error.ttftMean).text) on mean TTFT, ±\(Printed.percent(error.tpot).text) on TPOT"
    }

    // MARK: Figures

    private func figures() -> [TerminalLine] {
        let runs = comparison.runs
        let summaries = runs.map { run in Dictionary(uniqueKeysWithValues: run.summary.map { ($0.key, $0) }) }
        let order = runs.flatMap { $0.summary.map(\.key) }
        let keys = order.enumerated().filter { order.firstIndex(of: $0.element) == $0.offset }.map(\.element)
        let reference = runs[0].reference.map { "\($0.key) \($0.sentenceName)" }
        let isShort = width < 80
        var heads = runs.map {
            isShort ? $0.key : runs.count == 1 ? "1 this run" : "\($0.key) \(shortened($0.name, 14))"
        }
        if let reference { heads.append(isShort ? comparison.referenceKey : reference) }
        let hasCeiling = runs[0].infinite != nil
        if hasCeiling { heads.append(isShort ? "Z" : "Z infinite") }
        if reference != nil { heads.append("gain on \(comparison.referenceKey)") }
        heads.append("source")
        let rows = keys.compactMap { key -> [String]? in
            guard let first = summaries.compactMap({ $0[key] }).first else { return nil }
            var cells = [first.title]
            cells += summaries.map { $0[key]?.own.printed.text ?? "-" }
            if reference != nil { cells.append(summaries[0][key]?.reference?.printed.text ?? "-") }
            if hasCeiling { cells.append(summaries[0][key]?.ceiling?.printed.text ?? "-") }
            if reference != nil { cells.append(summaries[0][key]?.gain ?? "") }
            return cells + [source(of: summaries.compactMap { $0[key] })]
        }
        return columns(
            corner: "", heads: heads, rows: rows.map { (nil, $0[0], Array($0.dropFirst())) }, indent: 0, isSeries: false
        )
    }

    /// Where a figure comes from. Where records differ, the line above the figures says it of each.
    private func source(of figures: [SummaryFigure]) -> String {
        let words = Set(figures.map(\.provenance.rawValue))
        return words.count == 1 ? words.first ?? "" : "mixed"
    }

    // MARK: Sections

    private func section(_ section: Section, inFull: Bool) -> [TerminalLine] {
        let title = "\(section.number)  \(ascii(section.question))"
        let provenance = ascii(section.provenance)
        var first = TerminalLine(title, .bold)
        if title.count + 2 + provenance.count <= width { first.append(provenance.aligned(width - title.count), .dim) }
        var lines = [first]
        for conclusion in section.conclusions {
            let whose = section.conclusions.count == 1 ? "" : "\(conclusion.record): "
            lines += text(whose + conclusion.sentence, indent: 3)
        }
        for figure in section.figures { lines += self.figure(figure) }
        guard inFull else { return lines }
        for remark in section.remarks { lines += [TerminalLine()] + text(remark.plain, indent: 3) }
        if !section.checks.isEmpty { lines.append(TerminalLine()) }
        for check in section.checks {
            for (index, words) in wrapped(ascii(check.text), width: width - 11).enumerated() {
                var line = TerminalLine()
                line.pad(to: 3)
                line.append(index == 0 ? (check.passed ? "ok" : "FAILED") : "", check.passed ? nil : .red)
                line.pad(to: 11)
                line.append(words)
                lines.append(line)
            }
        }
        for table in section.tables { lines += [TerminalLine()] + self.table(table) }
        for listing in section.listings { lines += [TerminalLine()] + self.listing(listing) }
        return lines
    }

    private func figure(_ figure: Figure) -> [TerminalLine] {
        var lines: [TerminalLine] = []
        if figure.terminal == .chart || figure.terminal == .both {
            let drawn = chart(figure.chart, title: figure.title)
            if !drawn.isEmpty { lines += [TerminalLine()] + drawn }
        }
        if figure.terminal == .table || figure.terminal == .both, let table = figure.table, !table.rows.isEmpty {
            lines += [TerminalLine()] + self.table(table)
        }
        return lines
    }

    private func listing(_ listing: Listing) -> [TerminalLine] {
        let names = listing.entries.map { ascii($0.name) }
        let nameWidth = min(46, names.map(\.count).max() ?? 0)
        var lines = text(listing.title, indent: 3, .dim)
        for (entry, name) in zip(listing.entries, names) {
            let value = ascii(entry.value) + (entry.argument.isEmpty ? "" : ", \(ascii(entry.argument))")
            let words = wrapped(value, width: width - 5 - nameWidth)
            let heads = wrapped(name, width: nameWidth)
            for index in 0..<max(words.count, heads.count) {
                var line = TerminalLine()
                line.pad(to: 3)
                if index < heads.count { line.append(heads[index]) }
                line.pad(to: 5 + nameWidth)
                if index < words.count { line.append(words[index]) }
                lines.append(line)
            }
        }
        return lines
    }

    private func foot(_ hidden: [Section]) -> [TerminalLine] {
        var lines: [TerminalLine] = []
        let checks = comparison.runs.flatMap(\.record.checks)
        let passed = checks.count { $0.passed }
        if !hidden.isEmpty {
            let names = hidden.map { "\($0.number) \($0.id)" }.joined(separator: ", ")
            lines += text("\(names): holdfast report \(file) --section \(hidden[0].number) (or --all)", .dim)
        }
        lines += text(
            "page: holdfast report \(file) --html report.html; checks: \(passed) of \(checks.count) passed",
            passed == checks.count ? .dim : .red)
        return lines
    }
}
