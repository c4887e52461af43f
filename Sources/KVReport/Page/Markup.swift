// HTML that escapes by construction: what stands in a literal is markup, what is put into it is text. Trace names and
// file names come from strangers.

/// A piece of HTML.
///
/// `"<b>\(name)</b>"` escapes `name`, in attributes too; only another `Markup` goes in as it is.
struct Markup: ExpressibleByStringInterpolation, Equatable {
    /// The HTML.
    var html: String

    init(stringLiteral value: String) { html = value }
    init(stringInterpolation: Interpolation) { html = stringInterpolation.html }
    /// HTML or CSS written by this program, never by a stranger.
    init(trusted html: String) { self.html = html }

    /// Collects the pieces of an interpolated literal.
    struct Interpolation: StringInterpolationProtocol {
        var html = ""

        init(literalCapacity: Int, interpolationCount: Int) { html.reserveCapacity(literalCapacity * 2) }
        mutating func appendLiteral(_ literal: String) { html += literal }
        mutating func appendInterpolation(_ text: String) { html += Markup.escaped(text) }
        mutating func appendInterpolation(_ printed: Printed) { html += Markup.escaped(printed.text) }
        mutating func appendInterpolation(_ number: Int) { html += String(number) }
        mutating func appendInterpolation(_ markup: Markup) { html += markup.html }
        mutating func appendInterpolation(_ pieces: [Markup]) { for piece in pieces { html += piece.html } }
        mutating func appendInterpolation(_ prose: Prose) { html += prose.markup.html }
        /// A share of the width as a CSS percentage with two decimals: the same on every machine.
        mutating func appendInterpolation(percent share: Double) { html += Markup.coordinate(share * 100) + "%" }
        /// The same for a mark of up to 3 px, which must not stand out of a bar at either end: on paper it has no margin.
        mutating func appendInterpolation(mark share: Double) {
            let place = Markup.coordinate(share * 100) + "%"
            html += share > 0.98 ? "min(\(place),100% - 1.5px)" : share < 0.02 ? "max(\(place),2px)" : place
        }
        /// A number with at most two decimals.
        mutating func appendInterpolation(coordinate value: Double) { html += Markup.coordinate(value) }
    }

    static let empty = Markup(trusted: "")

    static func += (left: inout Markup, right: Markup) { left.html += right.html }

    private static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            // Control characters are not allowed in HTML.
            case _ where scalar.value < 0x20 && scalar != "\n" && scalar != "\t": result += "\u{FFFD}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// At most two decimals, without zeros at the end. Integer arithmetic after one multiplication.
    static func coordinate(_ value: Double) -> String {
        let hundredths = Int(min(max((value * 100).rounded(), -1e15), 1e15))
        let (whole, rest) = (abs(hundredths) / 100, abs(hundredths) % 100)
        let sign = hundredths < 0 ? "-" : ""
        if rest == 0 { return "\(sign)\(whole)" }
        let digits = rest % 10 == 0 ? "\(rest / 10)" : rest < 10 ? "0\(rest)" : "\(rest)"
        return "\(sign)\(whole).\(digits)"
    }
}

extension Prose {
    /// The text with its marks.
    var markup: Markup {
        var markup = Markup.empty
        for run in runs {
            switch run {
            case .text(let text): markup += "\(text)"
            case .strong(let text): markup += "<b>\(text)</b>"
            case .key(let key): markup += badge(key)
            case .provenance(let provenance): markup += provenance.markup
            case .code(let text): markup += "<code>\(text)</code>"
            }
        }
        return markup
    }
}

extension Provenance {
    /// The word with the mark that survives black and white.
    var markup: Markup { "<span class=\"from \(rawValue)\">\(rawValue)</span>" }
}

/// A system's letter in running text, where its role does not matter.
private func badge(_ key: String) -> Markup {
    let kind = Comparison.isCeiling(key) ? "ceiling" : key == Comparison.defaultReference ? "reference" : "baseline"
    return "<span class=\"key \(kind)\">\(key)</span>"
}

extension SystemMark {
    /// The class that decides weight and colour: `run1`, `reference`, `baseline`, `ceiling`.
    var style: String {
        switch role {
        case .run(let index): "run run\(index + 1)"
        case .reference: "reference"
        case .baseline: "baseline"
        case .ceiling: "ceiling"
        }
    }

    /// The letter in its badge.
    var badge: Markup { "<span class=\"key \(style)\">\(key)</span>" }
}
