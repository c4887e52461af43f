// Names that clients choose, where people read them: no byte of theirs may begin a line or move a terminal's cursor.

extension StringProtocol {
    /// Whether it holds a character that ends a line or steers a terminal.
    public var hasControlCharacters: Bool { unicodeScalars.contains { $0.steers } }

    /// The same text with `\u{FFFD}` in place of each such character.
    public var plainLine: String {
        var plain = ""
        for scalar in unicodeScalars { plain.unicodeScalars.append(scalar.steers ? "\u{FFFD}" : scalar) }
        return plain
    }
}

extension Unicode.Scalar {
    fileprivate var steers: Bool {
        switch properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: true
        default: false
        }
    }
}
