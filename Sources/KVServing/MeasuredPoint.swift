// A measured point of a real serving engine, as a points file gives it.

import KVModel

/// One published measurement: the conditions, and the times found.
public struct MeasuredPoint: Sendable {
    /// What was measured.
    public enum Kind: String, Sendable, CaseIterable {
        /// So many clients, each sending its next request when the last is answered.
        case closedLoop = "closed_loop"
        /// Poisson arrivals.
        case openLoop = "open_loop"
        /// The time of one cold prompt.
        case prefill
        /// The time to move so many bytes.
        case load
        /// The rate above which loading beats computing, by Mooncake's equation 2.
        case breakEven = "breakeven"
    }

    /// Its fields as given.
    public let fields: [String: JSONValue]
    /// Where it stands: `points[3]`, after the file's name.
    public let place: String

    /// Whether it is an object, so that it has fields at all.
    let isObject: Bool

    init(_ value: JSONValue, at place: String) {
        fields = value.object ?? [:]
        isObject = value.object != nil
        self.place = place
    }

    /// The points of a file: an object with the list `points`. What is wrong with one of them is found when it is predicted,
    /// and is no reason to refuse the others.
    public static func read(_ bytes: [UInt8], at file: String) throws(OperatorError) -> [MeasuredPoint] {
        let root = try JSONValue.parse(bytes, at: file)
        guard let list = root.object?["points"]?.list ?? root.list else {
            throw OperatorError("has no list \"points\"", at: file)
        }
        guard !list.isEmpty else { throw OperatorError("has no points", at: file) }
        var points: [MeasuredPoint] = []
        for (index, value) in list.enumerated() {
            points.append(MeasuredPoint(value, at: "\(file): points[\(index)]"))
        }
        return points
    }

    /// Its group in summaries; its kind where none is given.
    public var group: String { fields["group"]?.text ?? fields["kind"]?.text ?? "" }
    /// A clean, B partly inferred, C for one figure only; empty where not given.
    public var reliability: String { fields["reliability"]?.text ?? "" }

    func error(_ key: String, _ what: String) -> OperatorError { OperatorError("\(key) \(what)", at: place) }

    func text(_ key: String) throws(OperatorError) -> String {
        guard let value = fields[key], value != .null else { throw error(key, "is missing") }
        guard let text = value.text else { throw error(key, "is not a text") }
        return text
    }

    func text(_ key: String, missing: String) throws(OperatorError) -> String {
        fields[key, default: .null] == .null ? missing : try text(key)
    }

    /// A number in a range, nil where it is absent.
    func optionalNumber(_ key: String, in range: ClosedRange<Double>) throws(OperatorError) -> Double? {
        guard let value = fields[key], value != .null else { return nil }
        guard let number = value.number else { throw error(key, "is not a number") }
        guard range.contains(number) else {
            throw error(key, "is \(number), outside \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func number(_ key: String, in range: ClosedRange<Double>) throws(OperatorError) -> Double {
        guard let number = try optionalNumber(key, in: range) else { throw error(key, "is missing") }
        return number
    }

    /// A whole number in a range; `missing` where the key is absent, an error if that is nil.
    func count(_ key: String, in range: ClosedRange<Int>, missing: Int? = nil) throws(OperatorError) -> Int {
        guard let value = fields[key], value != .null else {
            if let missing { return missing }
            throw error(key, "is missing")
        }
        guard let number = value.number, let count = Int(exactly: number) else {
            throw error(key, "is not a whole number")
        }
        guard range.contains(count) else {
            throw error(key, "is \(count), outside \(range.lowerBound) to \(range.upperBound)")
        }
        return count
    }

    /// The measured mean in milliseconds: a number, or the `mean` of an object; nil where it is absent.
    func mean(_ keys: String...) throws(OperatorError) -> Double? {
        for key in keys {
            guard let value = fields[key], value != .null else { continue }
            guard let number = value.number ?? value.object?["mean"]?.number else {
                throw error(key, "is neither a number nor an object with a mean")
            }
            guard number > 0 else { throw error(key, "is \(number), not above 0") }
            return number
        }
        return nil
    }
}
