// Rows of the Azure LLM inference traces: arrivals and lengths, no prefix identity.

import KVModel

/// Reads the rows below a header such as `TIMESTAMP,ContextTokens,GeneratedTokens`.
struct AzureRowParser {
    private let timeColumn: Int
    private let inputColumn: Int
    private let outputColumn: Int
    private let columnCount: Int

    static let columns = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]

    /// A parser for files with this header; `nil` when it lacks a column.
    init?(header: String) {
        let names = header.split(separator: ",", omittingEmptySubsequences: false)
        guard let time = names.firstIndex(of: "TIMESTAMP"), let input = names.firstIndex(of: "ContextTokens"),
            let output = names.firstIndex(of: "GeneratedTokens")
        else { return nil }
        (timeColumn, inputColumn, outputColumn, columnCount) = (time, input, output, names.count)
    }

    /// Reads one row. The timestamp comes back as seconds since 1970.
    func parse(_ range: Range<Int>, of line: Span<UInt8>, into values: inout RequestValues) throws(LineProblem) {
        values.clear()
        var column = 0
        var first = range.lowerBound
        for position in range.lowerBound...range.upperBound {
            guard position == range.upperBound || line[position] == 0x2C else { continue }
            let cell = first..<position
            if column == timeColumn { values.timestamp = try seconds(cell, line) }
            if column == inputColumn { values.inputTokens = try count(cell, line, Self.columns[1]) }
            if column == outputColumn { values.outputTokens = try count(cell, line, Self.columns[2]) }
            column += 1
            first = position + 1
        }
        if column != columnCount {
            throw LineProblem(.syntax, "the row has \(column) columns, the header \(columnCount)")
        }
    }

    private func count(_ cell: Range<Int>, _ line: Span<UInt8>, _ name: String) throws(LineProblem) -> DecimalNumber {
        var scanner = JSONScanner(cell)
        do {
            let number = try scanner.number(line)
            try scanner.expectEnd(line)
            return number
        } catch {
            throw LineProblem(.wrongType, "\(name) is not a number")
        }
    }

    /// `2023-11-16 18:15:46.6805900`, with `T` for the blank and a zone of `Z` or `+00:00` allowed.
    private func seconds(_ cell: Range<Int>, _ line: Span<UInt8>) throws(LineProblem) -> DecimalNumber {
        var reader = CellReader(position: cell.lowerBound, end: cell.upperBound)
        guard let year = reader.number(line, digits: 4), reader.take(0x2D, line), let month = reader.number(line),
            reader.take(0x2D, line), let day = reader.number(line),
            reader.take(0x20, line) || reader.take(0x54, line), let hour = reader.number(line),
            reader.take(0x3A, line), let minute = reader.number(line), reader.take(0x3A, line),
            let second = reader.number(line), (1970...2200).contains(year), (1...12).contains(month),
            (1...31).contains(day), hour < 24, minute < 60, second <= 60
        else { throw Self.badTime }
        var nanoseconds = 0
        if reader.take(0x2E, line) {
            var scale = 1_000_000_000
            while let digit = reader.number(line, digits: 1) {
                scale /= 10
                nanoseconds += digit * scale
            }
        }
        if reader.take(0x5A, line) || reader.takeZeroOffset(line), reader.position == cell.upperBound {
            let day = daysSince1970(year: year, month: month, day: day)
            let total = ((day * 24 + hour) * 60 + minute) * 60 + second
            return DecimalNumber(digits: UInt64(total * 1_000_000_000 + nanoseconds), exponent: -9)
        }
        throw Self.badTime
    }

    private static let badTime = LineProblem(
        .wrongType, "TIMESTAMP is not a UTC time such as 2023-11-16 18:15:46.6805900")
}

private struct CellReader {
    var position: Int
    let end: Int

    mutating func take(_ byte: UInt8, _ line: Span<UInt8>) -> Bool {
        guard position < end, line[position] == byte else { return false }
        position += 1
        return true
    }

    mutating func number(_ line: Span<UInt8>, digits: Int = 2) -> Int? {
        guard position + digits <= end else { return nil }
        var value = 0
        for offset in 0..<digits {
            let digit = line[position + offset] &- 0x30
            guard digit < 10 else { return nil }
            value = value * 10 + Int(digit)
        }
        position += digits
        return value
    }

    /// Nothing, or a zone that says UTC.
    mutating func takeZeroOffset(_ line: Span<UInt8>) -> Bool {
        if position == end { return true }
        guard take(0x2B, line), let hours = number(line), take(0x3A, line), let minutes = number(line) else {
            return false
        }
        return hours == 0 && minutes == 0
    }
}

/// Days from 1 January 1970 in the Gregorian calendar. Years are counted from March, so that the leap day is last.
private func daysSince1970(year: Int, month: Int, day: Int) -> Int {
    let shifted = month > 2 ? year : year - 1
    let fromMarch = (month + 9) % 12
    return shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (fromMarch * 153 + 2) / 5 + day - 719_469
}
