// How numbers are written: two significant digits in sentences and headlines, three in tables, so that a report
// never claims more than its model can carry. Not for machines: JSON carries the numbers themselves.

/// A number as a reader sees it: the text, and the value that the text says.
///
/// Differences and ratios are made from `value`, so that a reader who subtracts two printed numbers gets the printed
/// difference.
public struct Printed: Sendable, Equatable, CustomStringConvertible {
    /// The text, with a narrow no-break space before the unit.
    public var text: String
    /// What the text says, in the unit of the argument: 0.6 for "60 %".
    public var value: Double

    /// The text.
    public var description: String { text }

    /// How many digits a number deserves where it stands.
    public enum Precision: Sendable {
        /// Two significant digits: sentences, labels, headline figures.
        case sentence
        /// Three significant digits: tables.
        case table
        /// As a person gave it: three digits without zeros at the end.
        case given
    }
}

/// Between a number and its unit: does not break, and is narrower than a space between words.
public let thinSpace = "\u{202F}"

extension Printed {
    /// A share as percent. 0 and 100 % only when exact.
    public static func percent(_ share: Double, _ precision: Precision = .sentence) -> Printed {
        let decimals = precision == .table ? 1 : 0
        let scale = precision == .table ? 1000.0 : 100.0
        let rounded = (share * scale).rounded() / scale
        let least = precision == .table ? "0.1" : "1"
        let most = precision == .table ? "99.9" : "99"
        if rounded == 0, share > 0 {
            return Printed(text: precision == .table ? "<0.1 %".thin : "under \(least) %".thin, value: 0)
        }
        if rounded == 1, share < 1 {
            return Printed(text: precision == .table ? ">99.9 %".thin : "over \(most) %".thin, value: 1)
        }
        let exact = rounded == 1 || (rounded == 0 && precision != .table)
        return Printed(text: fixed(rounded * 100, decimals: exact ? 0 : decimals) + thinSpace + "%", value: rounded)
    }

    /// A time: µs, ms, s, min or h, whichever reads best.
    public static func seconds(_ seconds: Double, _ precision: Precision = .sentence) -> Printed {
        scaled(
            seconds, [(0, 1e-6, "µs"), (1e-3, 1e-3, "ms"), (0.1, 1, "s"), (300, 60, "min"), (7200, 3600, "h")],
            precision)
    }

    /// Decimal bytes: kB, MB, GB, TB, PB.
    public static func bytes(_ bytes: Double, _ precision: Precision = .sentence) -> Printed {
        scaled(
            bytes,
            [
                (0, 1, "B"), (1e3, 1e3, "kB"), (1e6, 1e6, "MB"), (1e9, 1e9, "GB"), (1e12, 1e12, "TB"),
                (1e15, 1e15, "PB"),
            ],
            precision)
    }

    /// Bytes a second.
    public static func byteRate(_ rate: Double, _ precision: Precision = .sentence) -> Printed {
        var printed = bytes(rate, precision)
        printed.text += "/s"
        return printed
    }

    /// Tokens: k, M, G.
    public static func tokens(_ tokens: Int, _ precision: Precision = .table) -> Printed {
        if abs(tokens) < 1000 { return count(tokens) }
        return scaled(Double(tokens), [(0, 1e3, "k"), (1e6, 1e6, "M"), (1e9, 1e9, "G"), (1e12, 1e12, "T")], precision)
    }

    /// GPU-seconds as GPU-hours; the caller writes the unit, which often stands once for several numbers.
    public static func gpuHours(_ gpuSeconds: Double, _ precision: Precision = .sentence) -> Printed {
        var printed = number(gpuSeconds / 3600, precision)
        printed.value *= 3600
        return printed
    }

    /// US dollars.
    public static func dollars(_ dollars: Double, _ precision: Precision = .sentence) -> Printed {
        let printed = number(dollars < 0 ? -dollars : dollars, precision)
        return Printed(
            text: (dollars < 0 ? "−$" : "$") + printed.text, value: dollars < 0 ? -printed.value : printed.value)
    }

    /// A price as a person gave it: at least cents, and else six digits.
    public static func price(_ dollars: Double) -> Printed {
        let text =
            (dollars * 100).rounded() / 100 == dollars
            ? fixed(dollars, decimals: 2) : trimmed(significant(dollars, 6).text)
        return Printed(text: "$" + text, value: dollars)
    }

    /// A number that a person gave, as a setting takes it: all its digits and nothing between them.
    public static func exact(_ number: Double) -> Printed {
        let isWhole = number == number.rounded() && abs(number) < 1e15
        return Printed(text: isWhole ? String(Int(number)) : "\(number)", value: number)
    }

    /// Joules as watt-hours.
    public static func wattHours(_ joules: Double, _ precision: Precision = .sentence) -> Printed {
        scaled(joules, [(0, 3600, "Wh"), (3.6e6, 3.6e6, "kWh"), (3.6e9, 3.6e9, "MWh")], precision)
    }

    /// Requests a second.
    public static func requestRate(_ rate: Double, _ precision: Precision = .sentence) -> Printed {
        var printed = number(rate, precision)
        printed.text += thinSpace + "/s"
        return printed
    }

    /// A number without a unit.
    public static func number(_ number: Double, _ precision: Precision = .sentence) -> Printed {
        let digits = significant(number, precision == .sentence ? 2 : 3)
        return Printed(text: precision == .given ? trimmed(digits.text) : digits.text, value: digits.value)
    }

    /// An exact count, whole, its thousands set apart by commas.
    public static func count(_ count: Int) -> Printed { Printed(text: grouped(count), value: Double(count)) }

    private static func scaled(
        _ value: Double, _ ladder: [(from: Double, unit: Double, name: String)], _ precision: Precision
    )
        -> Printed
    {
        // The unit is chosen by the rounded value, or 999.6 MB would read 1,000 MB.
        let rounded = abs(significant(value, precision == .sentence ? 2 : 3).value)
        let base = ladder.first { $0.unit == 1 } ?? ladder[0]
        let step = value == 0 ? base : ladder.last { rounded >= $0.from } ?? ladder[0]
        let printed = number(value / step.unit, precision)
        return Printed(text: printed.text + thinSpace + step.name, value: printed.value * step.unit)
    }
}

// MARK: Differences between printed numbers

extension Printed {
    /// The difference of two printed shares: "+23 points".
    public static func points(_ value: Printed, against reference: Printed) -> String {
        let points = ((value.value - reference.value) * 100).rounded()
        return signed(points, decimals: 0) + " point" + (abs(points) == 1 ? "" : "s")
    }

    /// The change of a printed amount against another, in percent: "−44 %".
    public static func change(_ value: Printed, against reference: Printed) -> String? {
        guard reference.value > 0 else { return nil }
        return signed(((value.value / reference.value - 1) * 100).rounded(), decimals: 0) + thinSpace + "%"
    }

    /// How often a printed amount goes into another: "÷ 3.1" where less is better, "× 1.7" where more is.
    public static func ratio(_ value: Printed, against reference: Printed, lessIsBetter: Bool) -> String? {
        guard value.value > 0, reference.value > 0 else { return nil }
        let quotient = lessIsBetter ? reference.value / value.value : value.value / reference.value
        return (lessIsBetter ? "÷ " : "× ") + significant(quotient, 2).text
    }

    static func signed(_ value: Double, decimals: Int) -> String {
        (value < 0 ? "−" : value > 0 ? "+" : "±") + fixed(abs(value), decimals: decimals)
    }
}

// MARK: Digits

/// A number with so many decimals, rounded half away from zero, its thousands set apart by commas. Integer arithmetic
/// after one multiplication, so that every machine writes the same digits.
func fixed(_ value: Double, decimals: Int) -> String {
    var scale = 1
    for _ in 0..<decimals { scale *= 10 }
    let scaled = (abs(value) * Double(scale)).rounded()
    guard scaled < 9e18 else { return "\(value)" }
    let whole = Int(scaled)
    let sign = value < 0 && whole > 0 ? "−" : ""
    if decimals == 0 { return sign + grouped(whole) }
    let fraction = String(whole % scale)
    return sign + grouped(whole / scale) + "." + String(repeating: "0", count: decimals - fraction.count) + fraction
}

/// So many significant digits, and the value they say.
func significant(_ value: Double, _ digits: Int) -> (text: String, value: Double) {
    guard value.isFinite else { return ("\(value)", value) }
    guard abs(value) > 1e-290 else { return ("0", 0) }
    // The place of the leading digit: 10^place ≤ |value| < 10^(place + 1).
    var place = 0
    var power = 1.0
    while abs(value) >= power * 10 { (place, power) = (place + 1, power * 10) }
    while abs(value) < power { (place, power) = (place - 1, power / 10) }
    // Powers of ten are exact up to 10²², so this is the number that the text will say.
    let shift = digits - 1 - place
    let scale = powerOfTen(abs(shift))
    let rounded = shift >= 0 ? (value * scale).rounded() / scale : (value / scale).rounded() * scale
    // 9.96 has its leading digit one place higher once it is rounded to 10.
    if abs(rounded) >= power * 10 * 0.999_999 { place += 1 }
    let decimals = max(0, digits - 1 - place)
    let text = fixed(rounded, decimals: min(decimals, 12))
    return (text, place >= digits - 1 ? rounded.rounded() : rounded)
}

func powerOfTen(_ exponent: Int) -> Double {
    var power = 1.0
    for _ in 0..<abs(exponent) { power *= 10 }
    return exponent < 0 ? 1 / power : power
}

func grouped(_ value: Int) -> String {
    var text = ""
    for (index, digit) in String(value.magnitude).reversed().enumerated() {
        if index > 0, index % 3 == 0 { text.append(",") }
        text.append(digit)
    }
    return (value < 0 ? "−" : "") + String(text.reversed())
}

private func trimmed(_ text: String) -> String {
    guard text.contains(".") else { return text }
    var text = Substring(text)
    while text.hasSuffix("0") { text = text.dropLast() }
    return String(text.hasSuffix(".") ? text.dropLast() : text)
}

extension String {
    /// With every space made narrow and unbreakable: for a number and its unit.
    var thin: String { replacing(" ", with: thinSpace) }
}
