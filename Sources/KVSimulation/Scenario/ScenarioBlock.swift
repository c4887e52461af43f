// Words of a scenario as numbers with units. A wrong word gives one error that names the key, the place and what
// would be accepted.

import KVModel

/// What a number in a scenario counts.
enum ScenarioUnit: String {
    case plain = "a number"
    case whole = "a whole number"
    case bytes = "bytes, like 512 GB or 2 TiB"
    case rate = "bytes a second, like 50 GB/s or 400 Gb/s"
    case time = "a time, like 20 ms or 30 s"

    /// Unit words and what one of them is in the base unit (1, byte, byte/s, second).
    var factors: [(word: String, factor: Double)] {
        switch self {
        case .plain, .whole: []
        case .bytes: Self.byteWords
        case .rate:
            Self.byteWords.map { ("\($0.word)/s", $0.factor) }
                + [("Mb/s", 1e6 / 8), ("Gb/s", 1e9 / 8), ("Tb/s", 1e12 / 8)]
        case .time:
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1), ("min", 60), ("h", 3600), ("d", 86400)]
        }
    }

    private static let byteWords: [(word: String, factor: Double)] = [
        ("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15),
        ("KiB", 1024), ("MiB", 1_048_576), ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776),
    ]
}

/// A block of a scenario being read, with its dotted path for errors.
struct ScenarioBlock {
    private let tree: ScenarioTree
    private let path: String

    init(_ tree: ScenarioTree, path: String = "") {
        self.tree = tree
        self.path = path
    }

    /// A block inside this one.
    func block(_ key: String) throws(OperatorError) -> ScenarioBlock {
        ScenarioBlock(try value(key), path: full(key))
    }

    /// Where the value of a key was written.
    func place(_ key: String) -> String { tree[key]?.place ?? tree.place }

    /// A number in its base unit, within a closed range of the base unit.
    func number(
        _ key: String, _ unit: ScenarioUnit, in range: ClosedRange<Double>
    ) throws(OperatorError) -> Double {
        try Self.parse(try word(key), unit, in: range, name: full(key), place: place(key))
    }

    /// A whole number within a closed range.
    func count(_ key: String, in range: ClosedRange<Int>) throws(OperatorError) -> Int {
        Int(try number(key, .whole, in: Double(range.lowerBound)...Double(range.upperBound)))
    }

    /// A list of numbers; one number stands for a list of one.
    func numbers(
        _ key: String, _ unit: ScenarioUnit, in range: ClosedRange<Double>
    ) throws(OperatorError) -> [Double] {
        guard case .list(let items) = try value(key).content else { return [try number(key, unit, in: range)] }
        var numbers: [Double] = []
        for item in items {
            guard case .word(let word) = item.content else {
                throw OperatorError("`\(full(key))` is a list of numbers", at: item.place)
            }
            numbers.append(try Self.parse(word, unit, in: range, name: full(key), place: item.place))
        }
        return numbers
    }

    /// Yes or no.
    func flag(_ key: String) throws(OperatorError) -> Bool {
        switch try word(key) {
        case "true", "yes", "on": return true
        case "false", "no", "off": return false
        case let other: throw OperatorError("`\(full(key))` is `\(other)`, not true or false", at: place(key))
        }
    }

    /// One of the names of an enumeration.
    func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String, _: Choice.Type = Choice.self
    ) throws(OperatorError) -> Choice where Choice.RawValue == String {
        let word = try word(key)
        if let choice = Choice(rawValue: word) { return choice }
        let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        throw OperatorError("`\(full(key))` is `\(word)`, not one of \(names)", at: place(key))
    }

    /// The word as it was written.
    func word(_ key: String) throws(OperatorError) -> String {
        let value = try value(key)
        guard case .word(let word) = value.content else {
            throw OperatorError("`\(full(key))` must be one value", at: value.place)
        }
        return word
    }

    private func full(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    private func value(_ key: String) throws(OperatorError) -> ScenarioTree {
        guard let value = tree[key] else {
            throw OperatorError("the key `\(full(key))` is missing", at: tree.place)
        }
        return value
    }

    private static func parse(
        _ word: String, _ unit: ScenarioUnit, in range: ClosedRange<Double>, name: String, place: String
    ) throws(OperatorError) -> Double {
        let digits = word.prefix { $0.isNumber || ".-+eE_".contains($0) }
        let suffix = word.dropFirst(digits.count).drop { $0 == " " }
        // "1 EB" must not read as an exponent, so the digits are tried as they stand and nothing else.
        guard var number = Double(digits.replacing("_", with: "")), number.isFinite else {
            throw OperatorError("`\(name)` is `\(word)`, not \(unit.rawValue)", at: place)
        }
        if !suffix.isEmpty {
            guard let factor = unit.factors.first(where: { $0.word == suffix })?.factor else {
                throw OperatorError("`\(name)` is `\(word)`, not \(unit.rawValue)", at: place)
            }
            number *= factor
        }
        if unit == .whole, number != number.rounded() {
            throw OperatorError("`\(name)` is `\(word)`, not \(unit.rawValue)", at: place)
        }
        guard range.contains(number) else {
            throw OperatorError(
                "`\(name)` is \(word), outside \(show(range.lowerBound, unit)) to \(show(range.upperBound, unit))",
                at: place)
        }
        return number
    }

    private static func show(_ number: Double, _ unit: ScenarioUnit) -> String {
        let best = unit.factors.filter { !$0.word.contains("i") && number >= $0.factor }.max { $0.factor < $1.factor }
        // A bound is a round number in its unit, but for the last bits of the quotient.
        let scaled = best.map { (number / $0.factor * 1e6).rounded() / 1e6 } ?? number
        let text = scaled == scaled.rounded() && scaled < 0x1p53 ? String(Int(scaled)) : String(scaled)
        return best.map { "\(text) \($0.word)" } ?? text
    }
}
