// Reads one JSON line into `RequestValues`. Knows the grammar of fields, not what the numbers mean together.

import KVModel

/// Reads the lines of one JSON format.
struct RequestLineParser {
    let format: LineFormat

    /// Reads the line into `values`, which it clears first. Unknown fields are checked for grammar and left out.
    func parse(
        _ range: Range<Int>, of line: Span<UInt8>, into values: inout RequestValues, interner: inout PathInterner
    ) throws(LineProblem) {
        values.clear()
        var scanner = JSONScanner(range)
        if scanner.peek(line) != 0x7B { throw scanner.unexpected(line, wanted: "a JSON object") }
        _ = scanner.take(0x7B, line)
        if !scanner.take(0x7D, line) {
            repeat {
                if scanner.peek(line) != 0x22 { throw scanner.unexpected(line, wanted: "a field name") }
                let name = try scanner.string(line)
                try scanner.expect(0x3A, line)
                if let field = field(named: name, line) {
                    try values.mark(field)
                    try read(field, &scanner, line, into: &values, interner: &interner)
                } else {
                    try scanner.skipValue(line)
                }
            } while scanner.take(0x2C, line)
            try scanner.expect(0x7D, line)
        }
        try scanner.expectEnd(line)
        for field in format.fields where field.isRequired && !values.has(field.field) {
            throw LineProblem(.missingField, "\(field.name) is missing")
        }
    }

    @inline(__always)
    private func field(named range: Range<Int>, _ line: Span<UInt8>) -> FieldSpecification? {
        guard let name = FieldName(range, line) else { return nil }
        return format.fields.first { $0.packed == name }
    }

    private func read(
        _ field: FieldSpecification, _ scanner: inout JSONScanner, _ line: Span<UInt8>,
        into values: inout RequestValues, interner: inout PathInterner
    ) throws(LineProblem) {
        if !field.isRequired, scanner.peek(line) == 0x6E {
            try scanner.word("null", line)
            values.unmark(field.field)
            return
        }
        switch field.field {
        case .timestamp: values.timestamp = try number(field, &scanner, line)
        case .inputTokens: values.inputTokens = try number(field, &scanner, line)
        case .outputTokens: values.outputTokens = try number(field, &scanner, line)
        case .turn: values.turn = try number(field, &scanner, line)
        case .serviceTime: values.serviceTime = try number(field, &scanner, line)
        case .thinkTime: values.thinkTime = try number(field, &scanner, line)
        case .session:
            let agent = values.session.agent
            values.session = try name(field, &scanner, line) ?? SessionName()
            values.session.agent = agent
        case .agent: values.session.agent = try text(field, &scanner, line)
        case .stopReason: values.stopReason = StopReason(traceName: try text(field, &scanner, line))
        case .chat:
            guard let chat = try name(field, &scanner, line) else {
                throw LineProblem(.outOfRange, "\(field.name) is negative")
            }
            values.chat = chat
        case .parentChat: values.parentChat = try name(field, &scanner, line)
        case .blockIds: try blockIds(field, &scanner, line, into: &values.ids, interner: &interner)
        case .blockExtents: try blockExtents(field, &scanner, line, into: &values.extents)
        }
    }

    @inline(__always)
    private func number(_ field: FieldSpecification, _ scanner: inout JSONScanner, _ line: Span<UInt8>)
        throws(LineProblem) -> DecimalNumber
    {
        let next = scanner.peek(line)
        guard next == 0x2D || next &- 0x30 < 10 else {
            throw mismatch(field.name, &scanner, line, wanted: "a number")
        }
        return try scanner.number(line)
    }

    private func text(_ field: FieldSpecification, _ scanner: inout JSONScanner, _ line: Span<UInt8>)
        throws(LineProblem) -> String
    {
        if scanner.peek(line) != 0x22 { throw mismatch(field.name, &scanner, line, wanted: "a string") }
        return decoded(try scanner.string(line), line)
    }

    /// A conversation's number or text; `nil` for −1, which formats use for "none".
    private func name(_ field: FieldSpecification, _ scanner: inout JSONScanner, _ line: Span<UInt8>)
        throws(LineProblem) -> SessionName?
    {
        if scanner.peek(line) == 0x22 {
            return SessionName(text: decoded(try scanner.string(line), line))
        }
        let number = try number(field, &scanner, line)
        if number.isNegative, number.digits == 1, number.exponent == 0 { return nil }
        guard let whole = number.wholeNumber else {
            throw LineProblem(.outOfRange, "\(field.name) is not a whole number from 0 to \(UInt64.max)")
        }
        return SessionName(number: whole)
    }

    /// An array of ids, which are whole numbers or texts.
    private func blockIds(
        _ field: FieldSpecification, _ scanner: inout JSONScanner, _ line: Span<UInt8>, into ids: inout [UInt64],
        interner: inout PathInterner
    ) throws(LineProblem) {
        if scanner.peek(line) != 0x5B { throw mismatch(field.name, &scanner, line, wanted: "an array") }
        _ = scanner.take(0x5B, line)
        if scanner.take(0x5D, line) { return }
        repeat {
            if scanner.peek(line) == 0x22 {
                let text = decoded(try scanner.string(line), line)
                ids.append(try interner.id(ofText: text))
            } else {
                ids.append(try interner.id(ofNumber: try blockId(field, &scanner, line)))
            }
        } while scanner.take(0x2C, line)
        try scanner.expect(0x5D, line)
    }

    /// An array of `[first, count]`.
    private func blockExtents(
        _ field: FieldSpecification, _ scanner: inout JSONScanner, _ line: Span<UInt8>, into extents: inout [UInt64]
    ) throws(LineProblem) {
        if scanner.peek(line) != 0x5B { throw mismatch(field.name, &scanner, line, wanted: "an array") }
        _ = scanner.take(0x5B, line)
        if scanner.take(0x5D, line) { return }
        repeat {
            if scanner.peek(line) != 0x5B {
                throw mismatch("an extent of \(field.name)", &scanner, line, wanted: "[first, count]")
            }
            _ = scanner.take(0x5B, line)
            let first = try blockId(field, &scanner, line)
            try scanner.expect(0x2C, line)
            let count = try blockId(field, &scanner, line)
            try scanner.expect(0x5D, line)
            if count > 0, first.addingReportingOverflow(count - 1).overflow {
                throw LineProblem(.outOfRange, "an extent of \(field.name) ends beyond \(UInt64.max)")
            }
            extents.append(first)
            extents.append(count)
        } while scanner.take(0x2C, line)
        try scanner.expect(0x5D, line)
    }

    @inline(__always)
    private func blockId(_ field: FieldSpecification, _ scanner: inout JSONScanner, _ line: Span<UInt8>)
        throws(LineProblem) -> UInt64
    {
        let number = try number(field, &scanner, line)
        if number.exponent == 0, !number.isNegative, !number.isTruncated { return number.digits }
        guard let whole = number.wholeNumber else {
            throw LineProblem(
                .outOfRange, "\(field.name) holds a number that is not whole and from 0 to \(UInt64.max)")
        }
        return whole
    }

    private func mismatch(_ name: String, _ scanner: inout JSONScanner, _ line: Span<UInt8>, wanted: String)
        -> LineProblem
    {
        guard scanner.position < scanner.end else { return scanner.unexpected(line, wanted: wanted) }
        let next = scanner.peek(line)
        guard "\"{[tfn-0123456789".utf8.contains(next) else { return scanner.unexpected(line, wanted: wanted) }
        return LineProblem(.wrongType, "\(name) is \(scanner.kindOfNextValue(line)), expected \(wanted)")
    }

    private func decoded(_ range: Range<Int>, _ line: Span<UInt8>) -> String {
        unsafe String(unsafeUninitializedCapacity: range.count) { buffer in
            for index in 0..<range.count { unsafe buffer[index] = line[range.lowerBound + index] }
            return range.count
        }
    }
}

extension StopReason {
    /// The reason that traces write so; every other text is unknown.
    init(traceName: String) {
        switch traceName {
        case "tool_use": self = .toolUse
        case "end_turn": self = .endTurn
        case "branch_ended": self = .branchEnded
        default: self = .unknown
        }
    }

    /// How traces write it.
    var traceName: String {
        switch self {
        case .unknown: ""
        case .toolUse: "tool_use"
        case .endTurn: "end_turn"
        case .branchEnded: "branch_ended"
        }
    }
}
