// Bars and tables in characters. Bars round boundaries, not lengths, so that equal parts line up; what exists gets at
// least one character.

extension TerminalPage {
    /// A bar below this many characters says nothing and is left out.
    private static let shortestBar = 20

    func chart(_ chart: Chart, title: String) -> [TerminalLine] {
        switch chart {
        case .stacks(let stacks): stackLines(stacks)
        case .breakdown(let breakdown): breakdownLines(breakdown, title: title)
        case .panels(let panels): panels.flatMap { panelLines($0, title: title) }
        case .waterfall(let waterfall): waterfallLines(waterfall, title: title)
        case .lines, .multiples: []
        }
    }

    // MARK: Stacked bars

    private func stackLines(_ chart: StackChart) -> [TerminalLine] {
        let names = chart.rows.map { name($0.mark, $0.name) }
        let nameWidth = names.map(\.count).max() ?? 0
        let values = chart.rows.map { ascii($0.value) }
        let valueWidth = max(values.map(\.count).max() ?? 0, ascii(chart.valueTitle).count)
        let barWidth = min(62, width - 3 - nameWidth - 2 - 2 - valueWidth)
        let hasBar = barWidth >= TerminalPage.shortestBar
        let marker = chart.line.map { Int((min($0.value / chart.full, 1) * Double(barWidth)).rounded()) }
        var head = TerminalLine()
        if hasBar, let marker, let line = chart.line {
            head.pad(to: 3 + nameWidth + 2 + min(marker, barWidth - 1))
            head.append(line.key)
        }
        head.pad(to: 3 + nameWidth + 2 + (hasBar ? barWidth + 2 : 0))
        head.append(ascii(chart.valueTitle).aligned(valueWidth), .dim)
        var lines = [head]
        for (row, (name, value)) in zip(chart.rows, zip(names, values)) {
            var line = TerminalLine()
            line.pad(to: 3)
            line.append(name.padded(nameWidth), row.mark?.isRun == true ? .bold : nil)
            line.append("  ")
            if hasBar {
                for span in bar(row.segments, full: chart.full, width: barWidth, marker: marker) {
                    line.append(span.0, span.1)
                }
                line.pad(to: 3 + nameWidth + 2 + barWidth + 2)
            }
            line.append(value.aligned(valueWidth), row.mark?.isRun == true ? .bold : nil)
            lines.append(line)
        }
        guard hasBar else { return lines }
        return lines + legend(chart)
    }

    private func legend(_ chart: StackChart) -> [TerminalLine] {
        var entries = chart.legend.map { (String($0.fill.character), $0.fill.style, ascii($0.name)) }
        if chart.rows.contains(where: { $0.segments.contains { $0.fill == .ghost } }) {
            entries.append((String(Fill.ghost.character), .dim, "served, ceiling"))
        }
        if let line = chart.line { entries.append(("|", nil, ascii(line.name))) }
        var lines: [TerminalLine] = []
        var line = TerminalLine()
        line.pad(to: 3)
        for (character, style, name) in entries {
            if line.width > 3, line.width + 5 + name.count > width {
                lines.append(line)
                line = TerminalLine()
                line.pad(to: 3)
            }
            if line.width > 3 { line.append("   ") }
            line.append(character, style)
            line.append(" " + name)
        }
        return lines + [line]
    }

    private func bar(_ segments: [StackChart.Segment], full: Double, width: Int, marker: Int?) -> [(
        String, TerminalStyle?
    )] {
        var characters: [(Character, TerminalStyle?)] = []
        var sum = 0.0
        for segment in segments where segment.value > 0 {
            sum += segment.value
            let end = max(Int(min((sum / full * Double(width)).rounded(), Double(width))), characters.count + 1)
            while characters.count < min(end, width) { characters.append((segment.fill.character, segment.fill.style)) }
        }
        if let marker, marker < characters.count { characters[marker] = ("|", nil) }
        var spans: [(String, TerminalStyle?)] = []
        for (character, style) in characters {
            if let last = spans.last, last.1 == style {
                spans[spans.count - 1].0.append(character)
            } else {
                spans.append((String(character), style))
            }
        }
        return spans
    }

    /// One line: what was computed again, by cause.
    private func breakdownLines(_ chart: BreakdownChart, title: String) -> [TerminalLine] {
        let part = chart.parts[chart.unfolded]
        let causes = chart.causes.map {
            "\(ascii($0.name)) \(ascii($0.percent).replacing(thinSpace + "%", with: ""))".replacing(
                " ", with: thinSpace)
        }
        let whose = comparison.runs.count == 1 ? "" : "\(ascii(title)), "
        return text("\(whose)\(part.name) \(part.percent): \(causes.joined(separator: ", "))", indent: 3, hanging: 6)
    }

    // MARK: Plain bars

    private func panelLines(_ panel: BarPanel, title: String) -> [TerminalLine] {
        let names = panel.bars.map { name($0.mark, $0.name) }
        let labels = panel.bars.map { ascii($0.label) }
        let nameWidth = names.map(\.count).max() ?? 0
        let labelWidth = labels.map(\.count).max() ?? 0
        let barWidth = min(46, width - 3 - nameWidth - 2 - 2 - labelWidth)
        let full = panel.full ?? panel.bars.map(\.value).max() ?? 0
        var lines = text("\(title), \(panel.title)", indent: 3, .dim)
        for (bar, (name, label)) in zip(panel.bars, zip(names, labels)) {
            var line = TerminalLine()
            line.pad(to: 3)
            line.append(name.padded(nameWidth + 2), bar.mark.isRun ? .bold : nil)
            if barWidth >= TerminalPage.shortestBar, full > 0 {
                let length = bar.value > 0 ? max(1, Int((bar.value / full * Double(barWidth)).rounded())) : 0
                line.append(String(repeating: "#", count: length), bar.mark.isRun ? .blue : .dim)
                line.append("  ")
            }
            line.append(label, bar.mark.isRun ? .bold : nil)
            lines.append(line)
        }
        return lines
    }

    private func waterfallLines(_ chart: WaterfallChart, title: String) -> [TerminalLine] {
        let nameWidth = chart.steps.map(\.name.count).max() ?? 0
        let labelWidth = chart.steps.map { ascii($0.label).count }.max() ?? 0
        let barWidth = min(50, width - 3 - nameWidth - 2 - 2 - labelWidth)
        let (low, high) = chart.range
        var lines = text(title, indent: 3, .dim)
        for (step, ends) in zip(chart.steps, chart.ends) {
            var line = TerminalLine()
            line.pad(to: 3)
            line.append(ascii(step.name).padded(nameWidth + 2), step.isNet ? .bold : nil)
            if barWidth >= TerminalPage.shortestBar, high > low {
                func column(_ value: Double) -> Int { Int(((value - low) / (high - low) * Double(barWidth)).rounded()) }
                let (start, end) = (column(min(ends.from, ends.to)), column(max(ends.from, ends.to)))
                let begin = line.width
                line.pad(to: begin + min(start, barWidth - 1))
                let length = step.value == 0 ? 0 : max(1, end - start)
                line.append(String(repeating: step.fill.character, count: length), step.fill.style)
                line.pad(to: begin + barWidth + 2)
            }
            line.append(ascii(step.label).aligned(labelWidth), step.isNet ? .bold : nil)
            lines.append(line)
        }
        return lines
    }

    // MARK: Tables

    func name(_ mark: SystemMark?, _ name: String) -> String {
        ascii(mark.map { "\($0.key) \(name)" } ?? name)
    }

    func table(_ table: Table) -> [TerminalLine] {
        let kept = table.columns.indices.filter { !table.onlyOnPage.contains($0) }
        let rows = table.rows.map { row in
            (row.mark, name(row.mark, row.name), kept.map { $0 < row.cells.count ? row.cells[$0] : "" })
        }
        var lines = columns(
            corner: table.corner == "System" ? "" : table.corner, heads: kept.map { table.columns[$0] }, rows: rows,
            indent: 3,
            isSeries: table.isSeries)
        if !table.note.isEmpty { lines += text(table.note, indent: 3, .dim) }
        return lines
    }

    /// Columns under heads, numbers flush right. What does not fit goes: every second column of a series, else from the
    /// right, and a line says how many.
    func columns(
        corner: String, heads: [String], rows: [(SystemMark?, String, [String])], indent: Int, isSeries: Bool
    ) -> [TerminalLine] {
        let heads = heads.map(ascii)
        let cells = rows.map { $0.2.map(ascii) }
        let names = rows.map { ascii($0.1) }
        var nameWidth = max(names.map(\.count).max() ?? 0, ascii(corner).count)
        nameWidth = min(nameWidth, max(20, width / 2))
        let widths = heads.indices.map { column in max(heads[column].count, cells.map { $0[column].count }.max() ?? 0) }
        var shown = Array(heads.indices)
        func total(_ gap: Int) -> Int { indent + nameWidth + shown.reduce(0) { $0 + widths[$1] + gap } }
        var gap = isSeries ? 1 : 3
        while gap > (isSeries ? 1 : 2), total(gap) > width { gap -= 1 }
        while total(gap) > width, !shown.isEmpty {
            if isSeries {
                shown = shown.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
            } else {
                shown.removeLast()
            }
        }
        var head = TerminalLine()
        head.pad(to: indent)
        head.append(ascii(corner).padded(nameWidth), .dim)
        for column in shown { head.append(heads[column].aligned(widths[column] + gap), .dim) }
        var lines = [head]
        for (index, row) in rows.enumerated() {
            var line = TerminalLine()
            line.pad(to: indent)
            let style: TerminalStyle? = row.0?.isRun == true ? .bold : nil
            let name = wrapped(names[index], width: nameWidth)
            line.append((name.first ?? "").padded(nameWidth), style)
            for column in shown { line.append(cells[index][column].aligned(widths[column] + gap), style) }
            lines.append(line)
            for more in name.dropFirst() {
                var line = TerminalLine()
                line.pad(to: indent)
                line.append(more, style)
                lines.append(line)
            }
        }
        if shown.count < heads.count {
            let more = heads.count - shown.count
            lines += text(
                "\(more) more column\(more == 1 ? "" : "s") in a wider terminal or on the page", indent: indent, .dim)
        }
        return lines
    }
}

extension WaterfallChart {
    /// Where each step starts and ends: steps follow each other, the net starts at zero.
    var ends: [(from: Double, to: Double)] {
        var sum = 0.0
        return steps.map { step in
            if step.isNet { return (0, step.value) }
            defer { sum += step.value }
            return (sum, sum + step.value)
        }
    }

    /// The smallest and the largest end, zero included.
    var range: (low: Double, high: Double) {
        let all = [0] + ends.map(\.from) + ends.map(\.to)
        return (all.min() ?? 0, all.max() ?? 0)
    }
}
