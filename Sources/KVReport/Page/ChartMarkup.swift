// Bars on the page: plain boxes of flexible width, so that their letters never shrink.

extension Chart {
    /// The picture.
    var markup: Markup {
        switch self {
        case .stacks(let chart): chart.markup(alternative: textAlternative)
        case .breakdown(let chart): chart.markup(alternative: textAlternative)
        case .panels(let panels): BarPanel.markup(panels, alternative: textAlternative)
        case .waterfall(let chart): chart.markup(alternative: textAlternative)
        case .lines(let chart): LineMarkup.whole(chart)
        case .multiples(let charts): LineMarkup.multiples(charts)
        }
    }
}

extension LineMarkup {
    fileprivate static func whole(_ chart: LineChart) -> Markup {
        var drawing = LineMarkup(chart)
        return "\(drawing.markup())\(drawing.legend())"
    }

    fileprivate static func multiples(_ charts: [LineChart]) -> Markup {
        let pieces = charts.map { chart -> Markup in
            var drawing = LineMarkup(chart, isSmall: true)
            return
                "<div class=\"multiple\"><h4>\(chart.title)<span>\(chart.summary)</span></h4>\(drawing.markup())</div>"
        }
        let hasPeaks = charts.contains { $0.series.count > 1 }
        let peaks: Markup = hasPeaks ? "<li><i class=\"rule plain\"></i>busiest second</li>" : ""
        return """
            <div class="multiples">\(pieces)</div><ul class="legend"><li><i class="swatch area"></i>mean</li>\(peaks)\
            <li><i class="rule there"></i>practical limit</li><li>across: minutes since the first arrival</li></ul>
            """
    }
}

/// The narrowest a bar gets in the page's two layouts, in pixels.
private struct BarRoom {
    var wide: Double
    var phone: Double

    /// A bar with a name at its left and a value at its right.
    static let row = BarRoom(wide: 420, phone: 286)
    /// A bar over the whole column.
    static let full = BarRoom(wide: 703, phone: 286)
    /// A bar over half of the column.
    static let half = BarRoom(wide: 325, phone: 286)

    /// Shown in both layouts, in the wide one only, or not at all.
    func markup(_ lines: [String], share: Double) -> Markup {
        let letters = Double(lines.map(\.count).max() ?? 0)
        guard letters > 0, letters * 8.8 + 8 <= share * wide else { return "" }
        let isWideOnly = letters * 8.2 + 6 > share * phone
        var text: Markup = ""
        for (index, line) in lines.enumerated() { text += index == 0 ? "\(line)" : "<br>\(line)" }
        return isWideOnly ? "<span class=\"wide-only\">\(text)</span>" : "<span>\(text)</span>"
    }
}

extension StackChart {
    fileprivate func markup(alternative: String) -> Markup {
        let isSingle = rows.count == 1
        let rows = rows.map { row -> Markup in
            let share = full > 0 ? row.total / full : 0
            let segments = row.segments.map { segment -> Markup in
                let room = isSingle ? BarRoom.half : BarRoom.row
                return segment.markup(room.markup([segment.label], share: segment.value / full), of: full)
            }
            let line: Markup = line.map { "<i class=\"mark\" style=\"left:\(mark: $0.value / full)\"></i>" } ?? ""
            let bar: Markup =
                "<div class=\"track\"><div class=\"stack\" style=\"width:\(percent: share)\">\(segments)</div>\(line)</div>"
            if isSingle { return bar }
            return """
                <div class="row \(row.mark?.style ?? "")"><span class="name">\(row.mark?.badge ?? "")\(row.name)</span>\(bar)\
                <span class="value">\(row.value)</span></div>
                """
        }
        return "\(legendMarkup)<div class=\"rows\" role=\"img\" aria-label=\"\(alternative)\">\(rows)</div>"
    }

    private var legendMarkup: Markup {
        var entries: Markup = ""
        for entry in legend { entries += "<li><i class=\"swatch \(entry.fill.rawValue)\"></i>\(entry.name)</li>" }
        if let line { entries += "<li><i class=\"rule dashes\"></i>\(line.name)</li>" }
        return "<ul class=\"legend\">\(entries)</ul>"
    }
}

extension StackChart.Segment {
    fileprivate func markup(_ label: Markup, of full: Double) -> Markup {
        "<div class=\"seg \(fill.rawValue)\" style=\"flex-grow:\(coordinate: value / full * 1000)\">\(label)</div>"
    }
}

extension BreakdownChart {
    fileprivate func markup(alternative: String) -> Markup {
        let drawn = parts.filter { $0.share > 0 }.map { part in
            bar(part, share: part.share, lines: [part.short, part.percent])
        }
        let line: Markup = line.map { "<i class=\"mark\" style=\"left:\(mark: $0.value)\"></i>" } ?? ""
        let part = parts[unfolded]
        let upper: Markup = "<div class=\"track tall\"><div class=\"stack\">\(drawn)</div>\(line)</div>"
        let names = parts.filter { $0.share > 0 }.map { entry($0) }
        guard part.share > 0 else {
            return "<div role=\"img\" aria-label=\"\(alternative)\">\(upper)</div><ul class=\"causes\">\(names)</ul>"
        }
        let start = parts.prefix(unfolded).reduce(0) { $0 + $1.share }
        let (from, to) = (start * 100, (start + part.share) * 100)
        let below = causes.filter { $0.share > 0 }.map { bar($0, share: $0.share / part.share, lines: [$0.short]) }
        return """
            <div role="img" aria-label="\(alternative)">\(upper)\
            <svg class="unfold" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">\
            <path d="M\(coordinate: from) 0H\(coordinate: to)L100 10H0Z"/></svg>\
            <div class="track tall"><div class="stack">\(below)</div></div></div>\
            <ul class="causes phone-only">\(names)</ul><ul class="causes" aria-label="Why \(part.name)">\(causes.map { entry($0) })</ul>
            """
    }

    private func bar(_ part: Part, share: Double, lines: [String]) -> Markup {
        let label = BarRoom.full.markup(lines, share: share)
        return "<div class=\"seg \(part.fill.rawValue)\" style=\"flex-grow:\(coordinate: share * 1000)\">\(label)</div>"
    }

    private func entry(_ part: Part) -> Markup {
        "<li><i class=\"swatch \(part.fill.rawValue)\"></i>\(part.name) <b>\(part.percent)</b><em>\(part.amount)</em></li>"
    }
}

extension BarPanel {
    /// Panels beside each other; bars of one panel share its scale.
    fileprivate static func markup(_ panels: [BarPanel], alternative: String) -> Markup {
        let isStacked = panels.contains { $0.bars.contains { !$0.segments.isEmpty } }
        let pieces = panels.map { panel -> Markup in
            let full = panel.full ?? panel.bars.map(\.value).max() ?? 0
            // Room behind the longest bar for the longest label, in units of a digit.
            let room = (panel.bars.map(\.label.count).max() ?? 0) + 1
            let bars = panel.bars.map { $0.markup(full: full) }
            let title: Markup = panels.count == 1 ? "" : "<h4>\(panel.title)</h4>"
            return "<div class=\"panel\" style=\"--room:\(room)\">\(title)\(bars)</div>"
        }
        let legend: Markup =
            isStacked
            ? """
            <ul class="legend"><li><i class="swatch choice"></i>GPUs</li><li><i class="swatch dram"></i>storage</li>\
            <li><i class="swatch waiting"></i>switches</li></ul>
            """ : ""
        let kind = panels.count == 1 ? "panels single" : "panels"
        return "\(legend)<div class=\"\(kind)\" role=\"img\" aria-label=\"\(alternative)\">\(pieces)</div>"
    }
}

extension BarPanel.Bar {
    fileprivate func markup(full: Double) -> Markup {
        let share = full > 0 ? value / full : 0
        let parts = segments.map { $0.markup("", of: max(value, 1e-300)) }
        let bar: Markup =
            segments.isEmpty
            ? "<i class=\"bar\(isMeasured ? " measured" : "")\" style=\"--v:\(coordinate: share)\">\(whisker)</i>"
            : "<div class=\"bar stack\" style=\"--v:\(coordinate: share)\">\(parts)</div>"
        return "<div class=\"line \(mark.style)\">\(mark.badge)<div>\(bar)<b>\(label)</b></div></div>"
    }

    /// The 95 % interval, on the bar's own length.
    private var whisker: Markup {
        guard let interval, value > 0 else { return "" }
        let (low, high) = (interval.lowerBound / value, interval.upperBound / value)
        return "<u style=\"left:\(percent: low);width:\(percent: high - low)\"></u>"
    }
}

extension WaterfallChart {
    fileprivate func markup(alternative: String) -> Markup {
        let (low, high) = range
        let span = max(high - low, 1e-12)
        let rows = zip(steps, ends).map { step, ends -> Markup in
            let from = (min(ends.from, ends.to) - low) / span
            let width = abs(ends.to - ends.from) / span
            return """
                <div class="row\(step.isNet ? " net" : "")"><span class="name">\(step.name)</span><div class="track">\
                <i class="swatch \(step.fill.rawValue)" style="left:\(percent: from);width:\(percent: width)"></i></div>\
                <span class="value">\(step.label)</span></div>
                """
        }
        return "<div class=\"rows fall\" role=\"img\" aria-label=\"\(alternative)\">\(rows)</div>"
    }
}
