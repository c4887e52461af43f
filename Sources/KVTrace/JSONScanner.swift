// Walks one line of JSON once, from left to right, and allocates nothing. It checks the whole grammar, also of what it
// skips, so that a damaged line is found even where the damage is in a field nobody reads.
// Not a JSON library: it builds no tree and keeps no text.

import KVModel

/// A position in one line. Every call is given the same bytes.
struct JSONScanner {
    var position: Int
    let end: Int

    init(_ range: Range<Int>) {
        position = range.lowerBound
        end = range.upperBound
    }

    /// How deeply unknown fields may be nested.
    private static let depthLimit = 64

    // MARK: Structure

    @inline(__always)
    mutating func skipSpace(_ line: Span<UInt8>) {
        while position < end {
            let byte = line[position]
            guard byte == 0x20 || byte == 0x09 || byte == 0x0D else { return }
            position += 1
        }
    }

    /// The next byte that is not white space, not consumed; 0 at the end of the line.
    @inline(__always)
    mutating func peek(_ line: Span<UInt8>) -> UInt8 {
        skipSpace(line)
        return position < end ? line[position] : 0
    }

    /// Consumes `byte` after white space, if it comes next.
    @inline(__always)
    mutating func take(_ byte: UInt8, _ line: Span<UInt8>) -> Bool {
        skipSpace(line)
        guard position < end, line[position] == byte else { return false }
        position += 1
        return true
    }

    mutating func expect(_ byte: UInt8, _ line: Span<UInt8>) throws(LineProblem) {
        if !take(byte, line) { throw unexpected(line, wanted: "'\(Character(UnicodeScalar(byte)))'") }
    }

    /// Nothing but white space may follow.
    mutating func expectEnd(_ line: Span<UInt8>) throws(LineProblem) {
        skipSpace(line)
        if position < end { throw unexpected(line, wanted: "the end of the line") }
    }

    func unexpected(_ line: Span<UInt8>, wanted: String) -> LineProblem {
        guard position < end else { return LineProblem(.syntax, "the line ends where \(wanted) is expected") }
        let byte = line[position]
        if byte >= 0x80 { return LineProblem(.syntax, "unexpected byte \(hexadecimal(byte)), expected \(wanted)") }
        let shown = byte < 0x20 || byte == 0x7F ? "byte \(hexadecimal(byte))" : "'\(Character(UnicodeScalar(byte)))'"
        return LineProblem(.syntax, "not JSON: unexpected \(shown) where \(wanted) is expected")
    }

    // MARK: Numbers

    mutating func number(_ line: Span<UInt8>) throws(LineProblem) -> DecimalNumber {
        var number = DecimalNumber()
        skipSpace(line)
        if position < end, line[position] == 0x2D {
            number.isNegative = true
            position += 1
        }
        let first = position
        digits(line, into: &number, fraction: false)
        if position == first { throw unexpected(line, wanted: "a number") }
        if position - first > 1, line[first] == 0x30 {
            throw LineProblem(.syntax, "not JSON: a number starts with a needless 0")
        }
        if position < end, line[position] == 0x2E {
            position += 1
            let fraction = position
            digits(line, into: &number, fraction: true)
            if position == fraction { throw unexpected(line, wanted: "a digit after the point") }
        }
        if position < end, line[position] | 0x20 == 0x65 { try exponent(line, into: &number) }
        return number
    }

    @inline(__always)
    private mutating func digits(_ line: Span<UInt8>, into number: inout DecimalNumber, fraction: Bool) {
        while position < end {
            let digit = line[position] &- 0x30
            guard digit < 10 else { return }
            if number.digits < 1_000_000_000_000_000_000 {
                number.digits = number.digits * 10 + UInt64(digit)
                if fraction { number.exponent -= 1 }
            } else if !fraction, number.exponent == 0, !number.isTruncated,
                let twenty = appended(digit, to: number.digits)
            {
                number.digits = twenty  // the last decade of 64-bit ids
            } else {
                if digit != 0 { number.isTruncated = true }
                if !fraction { number.exponent += 1 }
            }
            position += 1
        }
    }

    private func appended(_ digit: UInt8, to digits: UInt64) -> UInt64? {
        let (product, overflow) = digits.multipliedReportingOverflow(by: 10)
        let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
        return overflow || carry ? nil : sum
    }

    private mutating func exponent(_ line: Span<UInt8>, into number: inout DecimalNumber) throws(LineProblem) {
        position += 1
        var sign = 1
        if position < end, line[position] == 0x2B || line[position] == 0x2D {
            sign = line[position] == 0x2D ? -1 : 1
            position += 1
        }
        let first = position
        var value = 0
        while position < end, line[position] &- 0x30 < 10 {
            value = min(value * 10 + Int(line[position] &- 0x30), 1_000_000)
            position += 1
        }
        if position == first { throw unexpected(line, wanted: "a digit of the exponent") }
        number.exponent += sign * value
    }

    // MARK: Strings

    /// The bytes of a string without its quotes, escapes left as they are.
    mutating func string(_ line: Span<UInt8>) throws(LineProblem) -> Range<Int> {
        try expect(0x22, line)
        let first = position
        while position < end {
            let byte = line[position]
            if byte == 0x22 {
                position += 1
                return first..<(position - 1)
            }
            if byte == 0x5C {
                try escape(line)
            } else if byte < 0x20 {
                throw unexpected(line, wanted: "the rest of a string")
            } else if byte < 0x80 {
                position += 1
            } else {
                try multibyte(line)
            }
        }
        throw LineProblem(.syntax, "the line ends inside a string")
    }

    private mutating func escape(_ line: Span<UInt8>) throws(LineProblem) {
        position += 1
        guard position < end else { throw LineProblem(.syntax, "the line ends inside a string") }
        switch line[position] {
        case 0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74: position += 1
        case 0x75:
            for _ in 0..<4 {
                position += 1
                guard position < end, isHexadecimalDigit(line[position]) else {
                    throw unexpected(line, wanted: "four hexadecimal digits")
                }
            }
            position += 1
        default: throw unexpected(line, wanted: "an escape such as \\n")
        }
    }

    /// One UTF-8 sequence of two to four bytes, checked as Unicode's table 3-7 of well-formed sequences says.
    private mutating func multibyte(_ line: Span<UInt8>) throws(LineProblem) {
        let lead = line[position]
        let second: ClosedRange<UInt8>
        let length: Int
        switch lead {
        case 0xC2...0xDF: (length, second) = (2, 0x80...0xBF)
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xE1...0xEF: (length, second) = (3, 0x80...0xBF)
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF1...0xF3: (length, second) = (4, 0x80...0xBF)
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        default: throw LineProblem(.encoding, "byte \(hexadecimal(lead)) is not UTF-8")
        }
        for offset in 1..<length {
            let allowed = offset == 1 ? second : 0x80...0xBF
            guard position + offset < end, allowed.contains(line[position + offset]) else {
                throw LineProblem(.encoding, "byte \(hexadecimal(lead)) starts a character that is not UTF-8")
            }
        }
        position += length
    }

    // MARK: Values that nobody reads

    /// Skips one value of any kind.
    mutating func skipValue(_ line: Span<UInt8>, depth: Int = 0) throws(LineProblem) {
        if depth > Self.depthLimit {
            throw LineProblem(.syntax, "a field is nested more than \(Self.depthLimit) deep")
        }
        switch peek(line) {
        case 0x22: _ = try string(line)
        case 0x7B: try skipMembers(line, closing: 0x7D, depth: depth)
        case 0x5B: try skipMembers(line, closing: 0x5D, depth: depth)
        case 0x74: try word("true", line)
        case 0x66: try word("false", line)
        case 0x6E: try word("null", line)
        default: _ = try number(line)
        }
    }

    /// The members of an object (closed by `}`) or an array (closed by `]`).
    private mutating func skipMembers(_ line: Span<UInt8>, closing: UInt8, depth: Int) throws(LineProblem) {
        position += 1
        if take(closing, line) { return }
        repeat {
            if closing == 0x7D {
                _ = try string(line)
                try expect(0x3A, line)
            }
            try skipValue(line, depth: depth + 1)
        } while take(0x2C, line)
        try expect(closing, line)
    }

    mutating func word(_ word: String, _ line: Span<UInt8>) throws(LineProblem) {
        skipSpace(line)
        for byte in word.utf8 {
            guard position < end, line[position] == byte else { throw unexpected(line, wanted: word) }
            position += 1
        }
    }

    /// What kind of value comes next, for messages.
    mutating func kindOfNextValue(_ line: Span<UInt8>) -> String {
        switch peek(line) {
        case 0x22: "a string"
        case 0x7B: "an object"
        case 0x5B: "an array"
        case 0x74, 0x66: "true or false"
        case 0x6E: "null"
        default: "a number"
        }
    }
}

/// `0x1F`.
func hexadecimal(_ byte: UInt8) -> String {
    let digits = String(byte, radix: 16, uppercase: true)
    return "0x" + (digits.count < 2 ? "0" : "") + digits
}

private func isHexadecimalDigit(_ byte: UInt8) -> Bool {
    byte &- 0x30 < 10 || (byte | 0x20) &- 0x61 < 6
}
