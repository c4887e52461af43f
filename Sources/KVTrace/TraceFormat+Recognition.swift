// Recognises the format of a trace by its first line, and says what a file that is no trace looks like.

import KVModel

extension TraceFormat {
    /// The format's name with what makes it out, for messages and help.
    public var summary: String {
        switch self {
        case .mooncake: "mooncake (JSON lines with hash_ids)"
        case .extents: "extents (JSON lines with hash_extents)"
        case .bailian: "bailian (JSON lines with chat_id and hash_ids)"
        case .azure: "azure (CSV with \(AzureRowParser.columns.joined(separator: ",")))"
        case .holdfast: "holdfast (JSON lines after a header with schema \(HoldfastHeader.schema))"
        }
    }

    /// The format that the first line of a trace shows; `nil` when it is none of ours.
    static func recognised(in line: Span<UInt8>, _ range: Range<Int>) -> TraceFormat? {
        var scanner = JSONScanner(range)
        if scanner.peek(line) != 0x7B {
            return AzureRowParser(header: text(line, range)) == nil ? nil : .azure
        }
        let names = topLevelNames(line, range)
        if names.contains("schema") { return .holdfast }
        if names.contains("hash_extents") { return .extents }
        guard names.contains("hash_ids") else { return nil }
        return names.contains("chat_id") ? .bailian : .mooncake
    }

    /// What the start of a file that is none of our formats looks like: "looks like Parquet".
    static func description(ofUnknown line: Span<UInt8>, _ range: Range<Int>) -> String {
        if let known = knownFile(line, range) { return known }
        let head = text(line, range.prefix(4096))
        let start = head.drop(while: \.isWhitespace)
        if start.first == "{" {
            let names = topLevelNames(line, range)
            if names.isEmpty { return "starts with { but its first line is no whole JSON object" }
            let more = names.count > 12 ? ", …" : ""
            return "looks like JSON lines with the fields \(names.prefix(12).joined(separator: ", "))\(more)"
        }
        if start.first == "[" {
            return "looks like one JSON array (one object a line is expected: `jq -c '.[]'` makes it so)"
        }
        if range.contains(where: { line[$0] == 0 }) { return "looks like a binary file" }
        if line.extracting(range.prefix(4096)).hasControlBytes { return "looks like a binary file" }
        let columns = start.split(separator: ",", omittingEmptySubsequences: false)
        if columns.count > 1 {
            return "looks like CSV with the columns \(shortened(columns.prefix(12).joined(separator: ",")))"
        }
        let tabs = start.split(separator: "\t", omittingEmptySubsequences: false)
        if tabs.count > 1 { return "looks like tab-separated text with \(tabs.count) columns" }
        return "looks like text that starts with “\(shortened(String(start)))”"
    }

    private static func shortened(_ text: String) -> String {
        text.count > 80 ? text.prefix(80) + "…" : text
    }

    /// Files that say what they are in their first bytes.
    private static func knownFile(_ line: Span<UInt8>, _ range: Range<Int>) -> String? {
        let signatures: [([UInt8], String)] = [
            (Array("PAR1".utf8), "Parquet"), (Array("ARROW1".utf8), "an Arrow file"),
            (Array("SQLite format 3".utf8), "an SQLite database"), ([0x50, 0x4B, 0x03, 0x04], "a zip archive"),
            (Array("BZh".utf8), "bzip2"), ([0xFD, 0x37, 0x7A, 0x58, 0x5A], "xz"), ([0x04, 0x22, 0x4D, 0x18], "lz4"),
            (Array("Obj".utf8) + [1], "Avro"), (Array("%PDF".utf8), "a PDF"), ([0x7F, 0x45, 0x4C, 0x46], "a program"),
            (Array("ORC".utf8), "ORC"), ([0x89, 0x48, 0x44, 0x46], "HDF5"), ([0x1F, 0x8B], "gzip within gzip"),
            ([0x28, 0xB5, 0x2F, 0xFD], "zstd within another compression"),
            ([0xFF, 0xFE], "UTF-16 text (UTF-8 is expected)"), ([0xFE, 0xFF], "UTF-16 text (UTF-8 is expected)"),
            (Array("version https://git-lfs".utf8), "a Git LFS pointer (`git lfs pull` fetches the file)"),
            (Array("<!DOCTYPE".utf8), "an HTML page"), (Array("<html".utf8), "an HTML page"),
        ]
        for (signature, name) in signatures where range.count >= signature.count {
            let matches = signature.indices.allSatisfy { line[range.lowerBound + $0] == signature[$0] }
            if matches { return "looks like \(name)" }
        }
        return nil
    }

    /// The names of the fields of the object that the line is; empty when it is none.
    static func topLevelNames(_ line: Span<UInt8>, _ range: Range<Int>) -> [String] {
        var scanner = JSONScanner(range)
        var names: [String] = []
        do throws(LineProblem) {
            try scanner.expect(0x7B, line)
            if scanner.take(0x7D, line) { return [] }
            repeat {
                if scanner.peek(line) != 0x22 { return [] }
                names.append(text(line, try scanner.string(line)))
                try scanner.expect(0x3A, line)
                try scanner.skipValue(line)
            } while scanner.take(0x2C, line)
            try scanner.expect(0x7D, line)
            return names
        } catch {
            return []
        }
    }

    /// The bytes as text; what is not UTF-8 becomes the replacement character.
    static func text(_ line: Span<UInt8>, _ range: Range<Int>) -> String {
        String(decoding: range.map { line[$0] }, as: UTF8.self)
    }
}

extension Span<UInt8> {
    /// Whether there are bytes that no text holds.
    fileprivate var hasControlBytes: Bool {
        for index in 0..<count where self[index] < 0x09 || (self[index] > 0x0D && self[index] < 0x20) { return true }
        return false
    }
}
