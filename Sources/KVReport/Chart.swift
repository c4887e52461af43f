// Pictures as data: what is drawn, never how. Each picture can say itself in words for those who cannot see it.

/// A picture.
public enum Chart: Sendable, Equatable {
    /// Stacked bars, a row a system.
    case stacks(StackChart)
    /// One stacked bar with a part unfolded below.
    case breakdown(BreakdownChart)
    /// Groups of plain bars, each with its own scale from zero.
    case panels([BarPanel])
    /// Lines over an axis.
    case lines(LineChart)
    /// Small line charts on one scale.
    case multiples([LineChart])
    /// Gains and losses that add up to a net.
    case waterfall(WaterfallChart)
}

/// What a bar's part means. One meaning has one colour and one character everywhere.
public enum Fill: String, Sendable, CaseIterable {
    /// Served by, or kept in, a tier.
    case hbm, dram, nvme, flash
    /// Done twice; its two paler forms are causes of it.
    case again, refused, choice
    /// Waiting.
    case waiting
    /// Useful work.
    case decode, useful
    /// Context: first seen, idle.
    case context
    /// What a ceiling would have served, from no tier in particular.
    case ghost
}

/// Stacked bars, a row a system, all on one scale.
public struct StackChart: Sendable, Equatable {
    /// The legend: each fill with its name, in drawing order.
    public var legend: [LegendEntry]
    /// The bars.
    public var rows: [Row]
    /// The length of a bar that fills the width.
    public var full: Double
    /// A dashed line through all bars.
    public var line: Line?
    /// What the numbers at the right say.
    public var valueTitle: String

    /// A fill and its name.
    public struct LegendEntry: Sendable, Equatable {
        /// The fill.
        public var fill: Fill
        /// What it stands for in this picture.
        public var name: String
    }
    /// One bar.
    public struct Row: Sendable, Equatable {
        /// Whose it is.
        public var mark: SystemMark?
        /// Its name.
        public var name: String
        /// Its parts, from the left.
        public var segments: [Segment]
        /// What stands at its right.
        public var value: String
        /// The sum of its parts.
        public var total: Double { segments.reduce(0) { $0 + $1.value } }
    }
    /// Part of a bar.
    public struct Segment: Sendable, Equatable {
        /// Its meaning.
        public var fill: Fill
        /// Its length, on the chart's scale.
        public var value: Double
        /// What stands in it, where there is room.
        public var label: String
    }
    /// A dashed line at a place on the scale.
    public struct Line: Sendable, Equatable {
        /// Where.
        public var value: Double
        /// What it marks.
        public var name: String
        /// The letter at its head.
        public var key: String
    }
}

/// One stacked bar and, below it, one of its parts unfolded.
public struct BreakdownChart: Sendable, Equatable {
    /// The bar.
    public var parts: [Part]
    /// Which of `parts` is unfolded.
    public var unfolded: Int
    /// What the unfolded part is made of, largest first; parts of no length are listed but not drawn.
    public var causes: [Part]
    /// A dashed line through the upper bar.
    public var line: StackChart.Line?

    /// A part of the whole.
    public struct Part: Sendable, Equatable {
        /// Its meaning.
        public var fill: Fill
        /// Its name.
        public var name: String
        /// A shorter name that fits into a bar.
        public var short: String
        /// Its share of the whole, a fraction.
        public var share: Double
        /// The share in words.
        public var percent: String
        /// The amount in words.
        public var amount: String
    }
}

/// A group of bars on one scale from zero.
public struct BarPanel: Sendable, Equatable {
    /// What is shown.
    public var title: String
    /// The bars, from the top.
    public var bars: [Bar]
    /// The value of a full-length bar; the longest bar's own when absent.
    public var full: Double?

    /// A bar: one length, or parts of several meanings.
    public struct Bar: Sendable, Equatable {
        /// Whose it is.
        public var mark: SystemMark
        /// Its name.
        public var name: String
        /// Its length.
        public var value: Double
        /// The 95 % interval of a measured value.
        public var interval: ClosedRange<Double>?
        /// Whether the value was measured; a modelled bar is drawn paler beside measured ones.
        public var isMeasured = false
        /// What stands behind it.
        public var label: String
        /// Its parts, where it is stacked.
        public var segments: [StackChart.Segment] = []
    }
}

/// Lines over two axes.
public struct LineChart: Sendable, Equatable {
    /// What is drawn over what.
    public var title: String
    /// From the left.
    public var x: Axis
    /// From the bottom.
    public var y: Axis
    /// The lines, drawn in this order.
    public var series: [Series]
    /// Vertical lines.
    public var verticals: [Vertical] = []
    /// Shaded stretches of the x axis.
    public var bands: [Band] = []
    /// Words beside a place.
    public var notes: [Note] = []
    /// What stands at the right of the title of a small chart.
    public var summary = ""
    /// The sentence for those who cannot see it.
    public var alternative: String

    /// An axis with its ticks.
    public struct Axis: Sendable, Equatable {
        /// What it measures; says so when the scale is logarithmic.
        public var title: String
        /// The value at its start.
        public var lower: Double
        /// The value at its end.
        public var upper: Double
        /// Whether equal steps are equal factors.
        public var isLogarithmic: Bool
        /// The ticks.
        public var ticks: [Tick]
    }
    /// A tick: a grid line and its label.
    public struct Tick: Sendable, Equatable {
        /// Where.
        public var value: Double
        /// Its label.
        public var label: String
        /// Whether a narrow window keeps it.
        public var isMajor = true
    }
    /// A line.
    public struct Series: Sendable, Equatable {
        /// Whose it is; `nil` for a plain line.
        public var mark: SystemMark?
        /// What the legend says.
        public var name: String
        /// Rising in x.
        public var points: [Point]
        /// Whether every point is a replay of its own, and so gets a dot.
        public var hasDots = false
        /// Whether the space below is filled.
        public var isArea = false
        /// A number for the legend: "91 % by 2 s".
        public var legendValue = ""
    }
    /// A place.
    public struct Point: Sendable, Equatable {
        /// On the x axis.
        public var x: Double
        /// On the y axis.
        public var y: Double
    }
    /// A vertical line with a label.
    public struct Vertical: Sendable, Equatable {
        /// Where.
        public var x: Double
        /// What it marks.
        public var label: String
        /// Whether it belongs to this run.
        public var isStrong: Bool
        /// Where its label sits: at the top (0) or bottom (1), or a fraction between.
        public var labelAt = 0.0
    }
    /// A shaded stretch.
    public struct Band: Sendable, Equatable {
        /// Its start.
        public var from: Double
        /// Its end.
        public var to: Double
        /// What it marks.
        public var label: String
    }
    /// Words beside a place.
    public struct Note: Sendable, Equatable {
        /// Where, on the axes.
        public var at: Point
        /// The words, a line each.
        public var lines: [String]
        /// Which line stands out, if one does.
        public var strong: Int?
    }
}

/// Gains and losses that add up.
public struct WaterfallChart: Sendable, Equatable {
    /// The steps; their net last, and beside it perhaps the same found in another way.
    public var steps: [Step]

    /// A gain (above zero) or a loss.
    public struct Step: Sendable, Equatable {
        /// What it is.
        public var name: String
        /// How much, above zero for a gain.
        public var value: Double
        /// The amount in words.
        public var label: String
        /// Its meaning.
        public var fill: Fill
        /// Whether this is the sum of the others, or another figure for it: it starts at zero.
        public var isNet = false
    }
}

extension Chart {
    /// The picture in words: its kind, and each row's numbers.
    public var textAlternative: String {
        switch self {
        case .stacks(let chart):
            let rows = chart.rows.map { chart.describe($0) }.joined(separator: "; ")
            return "Stacked bars. \(rows)." + (chart.line.map { " A dashed line marks \($0.name)." } ?? "")
        case .breakdown(let chart):
            let parts = chart.parts.map { "\($0.name) \($0.percent)" }.joined(separator: ", ")
            let causes = chart.causes.map { "\($0.name) \($0.percent)" }.joined(separator: ", ")
            return "Stacked bar: \(parts). Of these, \(chart.parts[chart.unfolded].name) unfolds into \(causes)."
        case .panels(let panels):
            return panels.map { panel in
                "\(panel.title): " + panel.bars.map { "\($0.name) \($0.label)" }.joined(separator: ", ")
            }.joined(separator: ". ") + "."
        case .lines(let chart): return chart.alternative
        case .multiples(let charts): return charts.map(\.alternative).joined(separator: " ")
        case .waterfall(let chart):
            return "Waterfall: " + chart.steps.map { "\($0.name) \($0.label)" }.joined(separator: ", ") + "."
        }
    }
}

extension StackChart {
    /// A row in words.
    func describe(_ row: Row) -> String {
        let parts = row.segments.map { segment in
            let name = legend.first { $0.fill == segment.fill }?.name ?? segment.fill.rawValue
            return "\(name) \(segment.label)"
        }
        return "\(row.name): \(parts.joined(separator: ", "))" + (row.value.isEmpty ? "" : ", \(row.value)")
    }
}
