// Line charts on the page: an SVG that stretches with the window, and letters that do not.

/// Draws one line chart.
struct LineMarkup {
    let chart: LineChart
    let isSmall: Bool
    private var placement: LabelPlacement
    private var labels: [Markup] = []

    init(_ chart: LineChart, isSmall: Bool = false) {
        self.chart = chart
        self.isSmall = isSmall
        placement = LabelPlacement(sizes: isSmall ? [.small, .small] : [.wide, .phone])
    }

    /// Where a point lies: shares of the plot, from the left and from the top.
    private func place(_ point: LineChart.Point) -> (x: Double, y: Double) {
        (chart.x.place(point.x), 1 - chart.y.place(point.y))
    }

    /// The drawing, with its text alternative.
    mutating func markup() -> Markup {
        if !isSmall { placeLabels() }
        return """
            <div class="plot\(isSmall ? " small" : "")" role="img" aria-label="\(chart.alternative)">\
            <svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">\(shapes())</svg>\
            \(tickLabels())\(dots())\(labels)\(isSmall ? Markup.empty : axisTitle())</div>
            """
    }

    private func axisTitle() -> Markup { "<span class=\"t axis\">\(chart.x.title)</span>" }

    // MARK: Shapes

    private func shapes() -> Markup {
        var shapes: Markup = ""
        for band in chart.bands {
            let (from, to) = (chart.x.place(band.from), chart.x.place(band.to))
            shapes +=
                "<rect class=\"band\" x=\"\(coordinate: from * 100)\" width=\"\(coordinate: (to - from) * 100)\" y=\"0\" height=\"100\"/>"
        }
        for tick in chart.y.ticks {
            let y = (1 - chart.y.place(tick.value)) * 100
            shapes += "<path class=\"\(tick.value == chart.y.lower ? "axis" : "grid")\" d=\"M0 \(coordinate: y)H100\"/>"
        }
        for tick in chart.x.ticks {
            shapes += "<path class=\"grid\" d=\"M\(coordinate: chart.x.place(tick.value) * 100) 0V100\"/>"
        }
        for vertical in chart.verticals {
            let x = chart.x.place(vertical.x) * 100
            shapes += "<path class=\"\(vertical.isStrong ? "here" : "there")\" d=\"M\(coordinate: x) 0V100\"/>"
        }
        if isSmall {
            for note in chart.notes {
                shapes += "<path class=\"there\" d=\"M0 \(coordinate: (1 - chart.y.place(note.at.y)) * 100)H100\"/>"
            }
        }
        for series in chart.series {
            shapes +=
                "<path class=\"\(series.isArea ? "area" : "line \(series.mark?.style ?? "plain")")\" d=\"\(path(series))\"><title>\(series.name)</title></path>"
        }
        return shapes
    }

    private func path(_ series: LineChart.Series) -> String {
        var path = ""
        for (index, point) in series.points.enumerated() {
            let (x, y) = place(point)
            path +=
                (index == 0 ? "M" : index == 1 ? "L" : " ") + Markup.coordinate(x * 100) + " "
                + Markup.coordinate(y * 100)
        }
        if series.isArea, let first = series.points.first, let last = series.points.last {
            path += "L\(Markup.coordinate(place(last).x * 100)) 100 \(Markup.coordinate(place(first).x * 100)) 100Z"
        }
        return path
    }

    private func dots() -> Markup {
        var dots: Markup = ""
        for series in chart.series where series.hasDots {
            for point in series.points {
                let (x, y) = place(point)
                dots +=
                    "<i class=\"dot \(series.mark?.style ?? "plain")\" style=\"--x:\(percent: x);--y:\(percent: y)\"></i>"
            }
        }
        return dots
    }

    // MARK: Ticks

    private func tickLabels() -> Markup {
        var labels: Markup = ""
        for tick in chart.y.ticks {
            labels += "<span class=\"t y\" style=\"--y:\(percent: 1 - chart.y.place(tick.value))\">\(tick.label)</span>"
        }
        let wide = fitting(chart.x.ticks, isSmall ? .small : .wide)
        let phone = fitting(wide, isSmall ? .small : .phone)
        for tick in wide {
            let isKept = phone.contains(tick)
            labels +=
                "<span class=\"t x\(isKept ? "" : " wide-only")\" style=\"--x:\(percent: chart.x.place(tick.value))\">\(tick.label)</span>"
        }
        return labels
    }

    /// The ticks whose labels fit beside each other, the major ones first.
    private func fitting(_ ticks: [LineChart.Tick], _ size: PlotSize) -> [LineChart.Tick] {
        var kept: [LineChart.Tick] = []
        for tick in ticks.filter(\.isMajor) + ticks.filter({ !$0.isMajor }) {
            let x = chart.x.place(tick.value) * size.width
            let half = LabelPlacement.width(tick.label) / 2
            let isFree = kept.allSatisfy { other in
                abs(chart.x.place(other.value) * size.width - x) > half + LabelPlacement.width(other.label) / 2
            }
            if isFree { kept.append(tick) }
        }
        return ticks.filter(kept.contains)
    }

    // MARK: Labels

    private mutating func placeLabels() {
        placement.avoid(chart.series.map { $0.points.map(place) })
        // The largest first: they have the fewest places to go.
        for note in chart.notes { placeNote(note) }
        for vertical in chart.verticals { placeVertical(vertical) }
        for index in chart.series.indices { placeBadge(index) }
        for band in chart.bands { placeBand(band) }
    }

    private mutating func placeVertical(_ vertical: LineChart.Vertical) {
        let x = chart.x.place(vertical.x)
        let heights = [vertical.labelAt] + stride(from: 0.05, to: 0.98, by: 0.07)
        let candidates = heights.flatMap { y in [(x, y, LabelAnchor.right), (x, y, .left)] }
        let width = LabelPlacement.width(vertical.label)
        guard let label = placement.place(candidates, width: width, height: 18) else { return }
        labels.append(text(["\(vertical.label)"], label, isStrong: vertical.isStrong))
    }

    private mutating func placeNote(_ note: LineChart.Note) {
        let (x, y) = place(note.at)
        let width = note.lines.map(LabelPlacement.width).max() ?? 0
        let heights = [y + 0.12, y - 0.12, y + 0.2, y - 0.2] + stride(from: 0.95, to: 0.05, by: -0.03)
        let candidates = heights.flatMap { y in [(x, y, LabelAnchor.left), (x, y, .right)] }
        guard let label = placement.place(candidates, width: width, height: Double(note.lines.count) * 17 + 2) else {
            return
        }
        let lines = note.lines.enumerated().map { index, line -> Markup in
            index == note.strong ? "<b>\(line)</b>" : "\(line)"
        }
        labels.append(text(lines, label, isStrong: false))
    }

    private mutating func placeBand(_ band: LineChart.Band) {
        let middle = (chart.x.place(band.from) + chart.x.place(band.to)) / 2
        let heights = stride(from: 0.94, to: 0.3, by: -0.07)
        let width = LabelPlacement.width(band.label)
        guard let label = placement.place(heights.map { (middle, $0, .centre) }, width: width, height: 18) else {
            return
        }
        labels.append(text(["\(band.label)"], label, isStrong: false))
    }

    private func text(_ lines: [Markup], _ label: PlacedLabel, isStrong: Bool) -> Markup {
        var content: Markup = ""
        for (index, line) in lines.enumerated() { content += index == 0 ? line : "<br>\(line)" }
        let kind = "t chip \(label.anchor.rawValue)\(isStrong ? " strong" : "")\(label.isWideOnly ? " wide-only" : "")"
        return "<span class=\"\(kind)\" style=\"--x:\(percent: label.x);--y:\(percent: label.y)\">\(content)</span>"
    }

    /// The letter sits on its line, where the other lines are far.
    private mutating func placeBadge(_ index: Int) {
        let series = chart.series[index]
        guard let mark = series.mark else { return }
        let lines = chart.series.map { $0.points.map(place) }
        let own = lines[index]
        guard let first = own.first, let last = own.last, last.x > first.x else { return }
        // Letters of neighbouring lines start at different places, so that a reader can follow each.
        let preferred = 0.25 + 0.5 * Double(index) / Double(max(chart.series.count - 1, 1))
        let samples = (1..<60).map { step -> (x: Double, y: Double, distance: Double) in
            let x = first.x + (last.x - first.x) * Double(step) / 60
            let y = height(own, at: x) ?? 0
            let others = lines.indices.filter { $0 != index }.compactMap { height(lines[$0], at: x) }
            return (x, y, others.map { abs($0 - y) }.min() ?? 1)
        }
        let clear = samples.filter { $0.distance > 0.045 && $0.y > 0.04 && $0.y < 0.96 }
            .sorted { abs($0.x - preferred) < abs($1.x - preferred) }
        let rest = samples.sorted { $0.distance > $1.distance }
        let candidates = (clear + rest).map { ($0.x, $0.y, LabelAnchor.centre) }
        guard let label = placement.place(candidates, width: 20, height: 20, isOnLine: true) else { return }
        labels.append(
            """
            <span class="key \(mark.style)\(label.isWideOnly ? " wide-only" : "")" \
            style="--x:\(percent: label.x);--y:\(percent: label.y)">\(mark.key)</span>
            """)
    }

    private func height(_ line: [(x: Double, y: Double)], at x: Double) -> Double? {
        interpolate(line.map(\.x), line.map(\.y), at: x)
    }

    // MARK: Legend

    /// The lines with their letters and names.
    func legend() -> Markup {
        var entries: Markup = ""
        for series in chart.series {
            let sign: Markup =
                series.isArea
                ? "<i class=\"swatch area\"></i>" : "<i class=\"rule \(series.mark?.style ?? "plain")\"></i>"
            let value: Markup = series.legendValue.isEmpty ? "" : " <span>\(series.legendValue)</span>"
            entries += "<li>\(sign)\(series.mark?.badge ?? "")\(series.name)\(value)</li>"
        }
        if !chart.bands.isEmpty {
            entries += "<li><i class=\"swatch band\"></i>±\(Printed.percent(0.2)) around full</li>"
        }
        return "<ul class=\"legend\">\(entries)</ul>"
    }
}
