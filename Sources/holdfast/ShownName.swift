// Words that a file or a person gave, as a terminal may show them, and counts with their nouns.

/// A name with every control character masked (a file may be called anything, a line feed or an escape sequence among it),
/// its middle left out where it is longer than `width`.
func shown(_ name: String, width: Int = .max) -> String {
    var text = ""
    for scalar in name.unicodeScalars {
        switch scalar.properties.generalCategory {
        // Format characters turn the direction of what follows.
        case .control, .format, .lineSeparator, .paragraphSeparator, .unassigned, .privateUse: text.append("?")
        default: text.unicodeScalars.append(scalar)
        }
    }
    guard text.count > width else { return text }
    let kept = max(2, width - 1)
    return "\(text.prefix(kept - kept / 2))…\(text.suffix(kept / 2))"
}

/// A file's name without its folder, as a record has it: the same files in another place are the same.
func fileName(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

/// "1 request", "2 requests", "12,031 requests".
func counted(_ count: Int, _ noun: String) -> String { grouped(count) + " " + noun + (count == 1 ? "" : "s") }
