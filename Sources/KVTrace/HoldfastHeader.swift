// The first line of our own format: what the trace is, and how it was made.

import KVModel

/// How a trace came about: enough to make it again.
public struct TraceOrigin: Sendable, Equatable {
    /// What made it, as a command a person can repeat.
    public var generator: String
    /// The seed that decided every draw; `nil` when nothing was drawn.
    public var seed: UInt64?
    /// The parameters, by name, in the order they are documented in.
    public var parameters: [Parameter]

    /// One parameter.
    public struct Parameter: Sendable, Equatable {
        /// What it is called.
        public var name: String
        /// Its value as text.
        public var value: String

        /// A parameter of a name and a value.
        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    /// An origin of given parts.
    public init(generator: String, seed: UInt64? = nil, parameters: [Parameter] = []) {
        self.generator = generator
        self.seed = seed
        self.parameters = parameters
    }
}

/// `{"schema":"holdfast-trace-1","blockTokens":64,"generator":"…","seed":7,"parameters":{"…":"…"}}`
struct HoldfastHeader {
    static let schema = "holdfast-trace-1"

    var blockTokens: Int
    var origin: TraceOrigin?

    init(blockTokens: Int, origin: TraceOrigin?) {
        self.blockTokens = blockTokens
        self.origin = origin
    }

    /// Reads the header line.
    init(_ range: Range<Int>, of line: Span<UInt8>) throws(LineProblem) {
        var scanner = JSONScanner(range)
        var schema: String?
        var tokens: Int?
        var generator: String?
        var seed: UInt64?
        var parameters: [TraceOrigin.Parameter] = []
        try scanner.members(line) { name, scanner throws(LineProblem) in
            switch name {
            case "schema": schema = try scanner.text(line, field: name)
            case "blockTokens": tokens = try scanner.wholeNumber(line, field: name).flatMap { Int(exactly: $0) }
            case "generator": generator = try scanner.text(line, field: name)
            case "seed": seed = try scanner.wholeNumber(line, field: name)
            case "parameters":
                try scanner.members(line) { name, scanner throws(LineProblem) in
                    parameters.append(.init(name: name, value: try scanner.text(line, field: name)))
                }
            default: try scanner.skipValue(line)
            }
        }
        try scanner.expectEnd(line)
        guard schema == Self.schema else {
            throw LineProblem(
                .syntax, "the header's schema is \(schema.map { "“\($0)”" } ?? "missing"), not “\(Self.schema)”",
                remedy: "read it with the version of holdfast that wrote it")
        }
        guard let tokens, Trace.blockTokensRange.contains(tokens) else {
            throw LineProblem(
                .outOfRange, "the header's blockTokens is not from 1 to \(Trace.blockTokensRange.upperBound)")
        }
        blockTokens = tokens
        origin = generator.map { TraceOrigin(generator: $0, seed: seed, parameters: parameters) }
    }

    /// The header line, without its line ending.
    var line: String {
        var line = "{\"schema\":\(quoted(Self.schema)),\"blockTokens\":\(blockTokens)"
        if let origin {
            line += ",\"generator\":\(quoted(origin.generator))"
            if let seed = origin.seed { line += ",\"seed\":\(seed)" }
            let members = origin.parameters.map { "\(quoted($0.name)):\(quoted($0.value))" }
            line += ",\"parameters\":{\(members.joined(separator: ","))}"
        }
        return line + "}"
    }
}

extension JSONScanner {
    /// Walks the members of an object. `body` reads or skips each value.
    mutating func members(
        _ line: Span<UInt8>, _ body: (String, inout JSONScanner) throws(LineProblem) -> Void
    ) throws(LineProblem) {
        if peek(line) != 0x7B { throw unexpected(line, wanted: "a JSON object") }
        _ = take(0x7B, line)
        if take(0x7D, line) { return }
        repeat {
            if peek(line) != 0x22 { throw unexpected(line, wanted: "a field name") }
            let name = unescaped(try string(line), line)
            try expect(0x3A, line)
            try body(name, &self)
        } while take(0x2C, line)
        try expect(0x7D, line)
    }

    /// A text value, its escapes resolved.
    mutating func text(_ line: Span<UInt8>, field: String) throws(LineProblem) -> String {
        if peek(line) != 0x22 {
            throw LineProblem(.wrongType, "\(field) is \(kindOfNextValue(line)), expected a string")
        }
        return unescaped(try string(line), line)
    }

    /// A whole number; `nil` when it is not one.
    mutating func wholeNumber(_ line: Span<UInt8>, field: String) throws(LineProblem) -> UInt64? {
        if peek(line) == 0x22 { throw LineProblem(.wrongType, "\(field) is a string, expected a number") }
        return try number(line).wholeNumber
    }

    /// A string's text. Surrogate pairs and other \u escapes become the characters they stand for.
    func unescaped(_ range: Range<Int>, _ line: Span<UInt8>) -> String {
        var units: [UInt16] = []
        var text = ""
        var plain: [UInt8] = []
        func flush() {
            if !units.isEmpty { text += String(decoding: units, as: UTF16.self) }
            if !plain.isEmpty { text += String(decoding: plain, as: UTF8.self) }
            units = []
            plain = []
        }
        var index = range.lowerBound
        while index < range.upperBound {
            guard line[index] == 0x5C else {
                if !units.isEmpty { flush() }
                plain.append(line[index])
                index += 1
                continue
            }
            if line[index + 1] == 0x75 {
                if !plain.isEmpty { flush() }
                let digits = TraceFormat.text(line, (index + 2)..<(index + 6))
                units.append(UInt16(digits, radix: 16) ?? 0xFFFD)
                index += 6
                continue
            }
            if !units.isEmpty { flush() }
            plain.append(unescapedByte(line[index + 1]))
            index += 2
        }
        flush()
        return text
    }

    private func unescapedByte(_ byte: UInt8) -> UInt8 {
        switch byte {
        case 0x62: 0x08
        case 0x66: 0x0C
        case 0x6E: 0x0A
        case 0x72: 0x0D
        case 0x74: 0x09
        default: byte
        }
    }
}

/// The text as a JSON string.
func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\t": result += "\\t"
        default:
            if scalar.value < 0x20 {
                result += "\\u00" + hexadecimal(UInt8(scalar.value)).dropFirst(2)
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
    }
    return result + "\""
}
