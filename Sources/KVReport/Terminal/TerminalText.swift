// Lines for a terminal: ASCII only, so that they survive logs and pagers; colour repeats what the characters say.

/// How a stretch of a line is shown where colour is wanted. Never the only carrier of a meaning.
enum TerminalStyle: String {
    case bold = "1"
    case dim = "2"
    case red = "31"
    case yellow = "33"
    case blue = "34"
    case cyan = "36"
}

/// A line made of stretches.
struct TerminalLine {
    var spans: [(text: String, style: TerminalStyle?)] = []

    init() {}
    init(_ text: String, _ style: TerminalStyle? = nil) { append(text, style) }

    mutating func append(_ text: String, _ style: TerminalStyle? = nil) {
        if !text.isEmpty { spans.append((text, style)) }
    }
    mutating func pad(to column: Int) { append(String(repeating: " ", count: max(0, column - width))) }

    var width: Int { spans.reduce(0) { $0 + $1.text.count } }

    /// The characters to print, without spaces at the end.
    func rendered(colour: Bool) -> String {
        var spans = spans
        while let last = spans.last {
            let kept = last.text.reversed().drop { $0 == " " }
            spans[spans.count - 1].text = String(kept.reversed())
            if !kept.isEmpty { break }
            spans.removeLast()
        }
        return spans.map { span in
            let text = span.text.replacing(thinSpace, with: " ")
            guard colour, let style = span.style else { return text }
            return "\u{1B}[\(style.rawValue)m\(text)\u{1B}[0m"
        }.joined()
    }
}

/// Text in ASCII, but for the narrow space, which becomes a plain one when a line is rendered: until then it keeps a
/// number and its unit together. Control characters, which could come from a trace's name, are made visible.
func ascii(_ text: String) -> String {
    var result = ""
    for character in text {
        switch character {
        case "\u{202F}": result.append(character)
        case "\u{A0}": result.append("\u{202F}")
        case "×": result.append("x")
        case "÷": result.append("/")
        case "−", "–", "—": result.append("-")
        case "±": result.append("+-")
        case "µ": result.append("u")
        case "…": result.append("...")
        case "“", "”": result.append("\"")
        case "’", "‘": result.append("'")
        default:
            let isPlain = character.isASCII && (character.asciiValue ?? 0) >= 0x20 && character.asciiValue != 0x7F
            result.append(isPlain ? character : "?")
        }
    }
    return result
}

/// Lines of at most `width` characters, broken at spaces; a word that is longer is cut.
func wrapped(_ text: String, width: Int) -> [String] {
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
        var word = String(word)
        if !line.isEmpty, line.count + 1 + word.count <= width {
            line += " " + word
            continue
        }
        if !line.isEmpty { lines.append(line) }
        while word.count > width {
            lines.append(String(word.prefix(width)))
            word = String(word.dropFirst(width))
        }
        line = word
    }
    if !line.isEmpty { lines.append(line) }
    return lines
}

/// A name that fits, its end replaced by dots where it does not.
func shortened(_ name: String, _ width: Int) -> String { name.count <= width ? name : name.prefix(width - 1) + "…" }

extension String {
    /// Filled with spaces on the right.
    func padded(_ width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
    /// Filled with spaces on the left.
    func aligned(_ width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
}

extension Fill {
    /// The character of a meaning: `x` is always work done twice, `~` always waiting, `.` always context.
    var character: Character {
        switch self {
        case .hbm, .decode: "#"
        case .dram, .useful: "="
        case .nvme: "+"
        case .flash: "-"
        case .again, .refused: "x"
        case .choice: ","
        case .waiting: "~"
        case .context: "."
        case .ghost: "o"
        }
    }

    var style: TerminalStyle? {
        switch self {
        case .hbm, .dram, .nvme, .flash: .blue
        case .decode, .useful: .cyan
        case .again, .refused: .red
        case .waiting: .yellow
        case .choice, .context, .ghost: .dim
        }
    }
}
