// JSON with a fixed order of keys, which Foundation's encoder cannot keep.

/// A JSON value whose objects keep the order in which they were written.
public indirect enum JSONValue: Sendable, Equatable {
    /// Members in their order.
    case object([Member])
    /// Values in their order.
    case array([JSONValue])
    /// Text, escaped when written.
    case string(String)
    /// A finite number.
    case number(Double)
    /// A whole number.
    case integer(Int)
    /// A whole number above what a signed one can say: a seed.
    case unsigned(UInt64)
    /// True or false.
    case bool(Bool)

    /// A key and its value.
    public struct Member: Sendable, Equatable {
        /// The key.
        public var key: String
        /// The value.
        public var value: JSONValue
    }

    /// An object; members without a value are left out, since an absent figure is absent and never null.
    static func members(_ members: KeyValuePairs<String, JSONValue?>) -> JSONValue { .object(present(members)) }

    /// The members that have a value.
    static func present(_ members: KeyValuePairs<String, JSONValue?>) -> [Member] {
        members.compactMap { key, value in value.map { Member(key: key, value: $0) } }
    }

    static func numbers(_ values: [Double]) -> JSONValue { .array(values.map { .number($0) }) }

    /// The text: two-space indentation, arrays of plain values on one line, no line feed at the end.
    public var text: String {
        var text = ""
        write(to: &text, indent: 0)
        return text
    }

    private var isPlain: Bool {
        switch self {
        case .object, .array: false
        default: true
        }
    }

    private func write(to text: inout String, indent: Int) {
        let inner = "\n" + String(repeating: "  ", count: indent + 1)
        let outer = "\n" + String(repeating: "  ", count: indent)
        switch self {
        case .object(let members):
            if members.isEmpty { return text += "{}" }
            text += "{"
            for (index, member) in members.enumerated() {
                text += (index == 0 ? "" : ",") + inner + JSONValue.quoted(member.key) + ": "
                member.value.write(to: &text, indent: indent + 1)
            }
            text += outer + "}"
        case .array(let values):
            // Lists of numbers, and of pairs of numbers, would be a page long with a line each.
            let isFlat = values.allSatisfy { value in
                if case .array(let pair) = value { return pair.allSatisfy(\.isPlain) }
                return value.isPlain
            }
            text += "["
            for (index, value) in values.enumerated() {
                text += index == 0 ? (isFlat ? "" : inner) : (isFlat ? ", " : "," + inner)
                value.write(to: &text, indent: indent + 1)
            }
            text += isFlat ? "]" : outer + "]"
        case .string(let string): text += JSONValue.quoted(string)
        case .number(let number): text += JSONValue.digits(number)
        case .integer(let integer): text += String(integer)
        case .unsigned(let integer): text += String(integer)
        case .bool(let bool): text += bool ? "true" : "false"
        }
    }

    /// The shortest digits that read back as the same number. Infinities and NaN, which JSON cannot say, never reach
    /// this place: records with them are refused.
    private static func digits(_ number: Double) -> String {
        precondition(number.isFinite, "a number that is not finite reached JSON")
        if number == number.rounded(), abs(number) < 9e15 { return String(Int(number)) }
        return number.description
    }

    private static func quoted(_ string: String) -> String {
        var text = "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\t": text += "\\t"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}
