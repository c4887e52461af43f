// Where a chart's labels go, so that none overlaps another at any width: charts stretch, their letters do not.

/// The size of a plot in pixels at its narrowest, in one of the page's two layouts. A plot that is wider only moves
/// labels apart.
struct PlotSize {
    var width: Double
    var height: Double

    /// A full-width chart in a window of 761 px, the narrowest of the wide layout.
    static let wide = PlotSize(width: 630, height: 360)
    /// A full-width chart in a window of 320 px.
    static let phone = PlotSize(width: 226, height: 310)
    /// A small chart in either layout.
    static let small = PlotSize(width: 226, height: 92)
}

/// How a label hangs on its place.
enum LabelAnchor: String {
    case centre
    /// To the right of the place.
    case right
    /// To the left of the place.
    case left
}

/// A label that found its place.
struct PlacedLabel {
    /// Shares of the plot, from the left and from the top.
    var x: Double
    var y: Double
    var anchor: LabelAnchor
    /// Whether only the wide layout has room for it.
    var isWideOnly: Bool
}

/// Keeps the rectangles already taken, in both layouts.
struct LabelPlacement {
    private var taken: [[Box]] = [[], []]
    /// Points along the chart's lines, as shares of the plot. Labels keep off them where they can.
    private var lines: [(x: Double, y: Double)] = []
    private let sizes: [PlotSize]

    private struct Box {
        var left: Double
        var top: Double
        var right: Double
        var bottom: Double

        func overlaps(_ other: Box) -> Bool {
            left < other.right && other.left < right && top < other.bottom && other.top < bottom
        }
    }

    init(sizes: [PlotSize] = [.wide, .phone]) { self.sizes = sizes }

    /// The width of a text in the widest of the page's fonts.
    static func width(_ text: String) -> Double { Double(text.count) * 8.6 + 12 }

    /// Lines that labels should not cover.
    mutating func avoid(_ polylines: [[(x: Double, y: Double)]]) {
        for line in polylines {
            for (from, to) in zip(line, line.dropFirst()) {
                let steps = max(1, Int(max(abs(to.x - from.x), abs(to.y - from.y)) / 0.005))
                for step in 0...steps {
                    let share = Double(step) / Double(steps)
                    lines.append((from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share))
                }
            }
        }
    }

    /// Takes the first of the candidates that is free in both layouts, off the lines if possible, else the first that is
    /// free in the wide layout. A label that belongs on a line does not keep off it.
    mutating func place(
        _ candidates: [(x: Double, y: Double, anchor: LabelAnchor)], width: Double, height: Double,
        isOnLine: Bool = false
    ) -> PlacedLabel? {
        for (mustFit, mustKeepOff) in [([0, 1], true), ([0, 1], false), ([0], true), ([0], false)] {
            for candidate in candidates {
                let boxes = sizes.indices.map { box(candidate, width, height, sizes[$0]) }
                let fits = mustFit.allSatisfy { layout in
                    isInside(boxes[layout], sizes[layout]) && !taken[layout].contains { $0.overlaps(boxes[layout]) }
                }
                guard fits else { continue }
                if mustKeepOff, !isOnLine, mustFit.contains(where: { covers(boxes[$0], sizes[$0]) }) { continue }
                for layout in mustFit { taken[layout].append(boxes[layout]) }
                return PlacedLabel(
                    x: candidate.x, y: candidate.y, anchor: candidate.anchor, isWideOnly: mustFit.count == 1)
            }
        }
        return nil
    }

    private func covers(_ box: Box, _ size: PlotSize) -> Bool {
        lines.contains { point in
            let (x, y) = (point.x * size.width, point.y * size.height)
            return x > box.left && x < box.right && y > box.top && y < box.bottom
        }
    }

    private func isInside(_ box: Box, _ size: PlotSize) -> Bool {
        box.left >= -9 && box.right <= size.width + 12 && box.top >= -10 && box.bottom <= size.height + 10
    }

    private func box(
        _ place: (x: Double, y: Double, anchor: LabelAnchor), _ width: Double, _ height: Double, _ size: PlotSize
    ) -> Box {
        let (x, y) = (place.x * size.width, place.y * size.height)
        let left =
            switch place.anchor {
            case .centre: x - width / 2
            case .right: x + 5
            case .left: x - 5 - width
            }
        return Box(left: left, top: y - height / 2 - 1, right: left + width, bottom: y + height / 2 + 1)
    }
}
