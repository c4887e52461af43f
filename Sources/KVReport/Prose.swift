// Text with a few marks in it. The three printers read the same value and show the marks in their own way.

/// A piece of running text: words, stressed words, system keys, provenance marks and commands.
///
/// Written as a string literal: `"against \(key: "C") HBM + DRAM, \(.modelled)"`.
public struct Prose: Sendable, Equatable, ExpressibleByStringInterpolation {
    /// One stretch of text of one kind.
    public enum Run: Sendable, Equatable {
        /// Plain words.
        case text(String)
        /// Words that stand out.
        case strong(String)
        /// A system's letter, shown as its badge.
        case key(String)
        /// The mark of where a number comes from.
        case provenance(Provenance)
        /// A command or option.
        case code(String)
    }

    /// The stretches, in order.
    public var runs: [Run]

    /// Plain words.
    public init(_ text: String) { runs = [.text(text)] }
    /// Plain words.
    public init(stringLiteral value: String) { runs = [.text(value)] }
    /// Words with marks between them.
    public init(stringInterpolation: Interpolation) { runs = stringInterpolation.runs }

    /// Collects the pieces of an interpolated literal.
    public struct Interpolation: StringInterpolationProtocol {
        var runs: [Run] = []

        /// Makes room; the sizes do not matter here.
        public init(literalCapacity: Int, interpolationCount: Int) {}
        /// Plain words.
        public mutating func appendLiteral(_ literal: String) { appendInterpolation(literal) }
        /// Plain words.
        public mutating func appendInterpolation(_ text: String) {
            if case .text(let before)? = runs.last {
                runs[runs.count - 1] = .text(before + text)
            } else if !text.isEmpty {
                runs.append(.text(text))
            }
        }
        /// Text with its marks.
        public mutating func appendInterpolation(prose: Prose) {
            for run in prose.runs {
                if case .text(let text) = run { appendInterpolation(text) } else { runs.append(run) }
            }
        }
        /// A printed number.
        public mutating func appendInterpolation(_ printed: Printed) { appendInterpolation(printed.text) }
        /// Words that stand out.
        public mutating func appendInterpolation(strong text: String) { runs.append(.strong(text)) }
        /// A system's letter.
        public mutating func appendInterpolation(key: String) { runs.append(.key(key)) }
        /// Where a number comes from.
        public mutating func appendInterpolation(_ provenance: Provenance) { runs.append(.provenance(provenance)) }
        /// A command or option.
        public mutating func appendInterpolation(code: String) { runs.append(.code(code)) }
    }

    /// The words alone.
    public var plain: String {
        runs.map {
            switch $0 {
            case .text(let text), .strong(let text), .code(let text), .key(let text): text
            case .provenance(let provenance): provenance.rawValue
            }
        }.joined()
    }
}

/// Where a number comes from. A number made of others takes the least certain of their words.
public enum Provenance: String, Sendable, CaseIterable, Comparable {
    /// An input: a price, a wattage, an SLO.
    case given
    /// Virtual time from the serving model; carries the model's class of error.
    case modelled
    /// A clock or a counter on a real machine.
    case measured
    /// Exact arithmetic on the trace, no time in it.
    case counted

    /// What the word means, for the legend.
    public var meaning: String {
        switch self {
        case .measured: "a clock or a counter on a real machine"
        case .modelled: "virtual time from the serving model"
        case .counted: "exact arithmetic on the trace, no time in it"
        case .given: "an input: a price, a wattage, an SLO"
        }
    }

    /// Less certain comes first.
    public static func < (left: Provenance, right: Provenance) -> Bool {
        allCases.firstIndex(of: left)! < allCases.firstIndex(of: right)!
    }
}
