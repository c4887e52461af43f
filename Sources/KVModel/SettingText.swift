// What settings of long-running verbs have in common: the nearest of known names, and `address:port`.

/// The known name that a mistyped one is nearest to, by changed, missing and extra letters; capitals count for nothing. None
/// where more than half of the letters are others: that is another word, not a mistyped one.
public func nearestName(to name: String, among names: [String]) -> String? {
    let near = names.map { (name: $0, distance: letterDistance(name, $0)) }.min { $0.distance < $1.distance }
    guard let near, near.distance * 2 <= name.count else { return nil }
    return near.name
}

/// The fewest letters to change, leave out or add (Levenshtein, 1966).
private func letterDistance(_ left: String, _ right: String) -> Int {
    let right = Array(right.lowercased())
    var row = Array(0...right.count)
    for (index, letter) in left.lowercased().enumerated() {
        var corner = row[0]
        row[0] = index + 1
        for place in right.indices {
            let change = corner + (letter == right[place] ? 0 : 1)
            corner = row[place + 1]
            row[place + 1] = min(change, row[place] + 1, row[place + 1] + 1)
        }
    }
    return row[right.count]
}

/// `address:port` taken apart; an IPv6 address stands in brackets.
public func splitEndpoint(_ text: String, option: String) throws(OperatorError) -> (host: String, port: UInt16) {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
        throw OperatorError("`\(text)` is not address:port", at: option)
    }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    guard !host.isEmpty else { throw OperatorError("`\(text)` has no address", at: option) }
    return (String(host), port)
}
