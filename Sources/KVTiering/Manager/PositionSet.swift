// A set of small numbers as bits, used again and again without allocation.

/// Positions in a chain.
struct PositionSet {
    private var words: [UInt64] = []

    /// Numbers below this may be in the set.
    var count: Int { words.count * 64 }

    /// Empties the set and makes room for numbers below `count`.
    mutating func clear(count: Int) {
        words.removeAll(keepingCapacity: true)
        words.append(contentsOf: repeatElement(0, count: (count + 63) / 64))
    }

    /// Gives up the words of numbers that are all `limit` or more and no longer in the set.
    mutating func truncate(to limit: Int) {
        let kept = (limit + 63) / 64
        if words.count > kept { words.removeLast(words.count - kept) }
    }

    @inline(__always)
    func contains(_ position: Int) -> Bool {
        position / 64 < words.count && words[position / 64] >> UInt64(position % 64) & 1 == 1
    }

    @inline(__always)
    mutating func insert(_ position: Int) { words[position / 64] |= 1 << UInt64(position % 64) }

    /// Whether it was in the set.
    @inline(__always)
    @discardableResult
    mutating func remove(_ position: Int) -> Bool {
        guard contains(position) else { return false }
        words[position / 64] &= ~(1 << UInt64(position % 64))
        return true
    }
}
