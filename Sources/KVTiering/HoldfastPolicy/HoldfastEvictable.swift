// The tails of the `holdfast` policy that could give up a block, by what they are worth. Which tails those are is decided in
// `HoldfastResidency.swift`.

import KVModel

/// Evictable tails in two lists a cell: of those whose end the leader would not hold, and of the others. A tail's neighbours are
/// kept with it.
///
/// Thousands of cells could hold a tail, hundreds do. Those that do are kept side by side, each with its worth, and the least
/// is looked for among them when it is asked for and not known. Ordering all cells each time the worths change would cost more
/// than the searches, of which a request needs one or two.
struct HoldfastEvictable {
    /// First and last tail of a cell, and where the list stands among the filled ones of its kind.
    private struct List {
        var first: Int32 = none
        var last: Int32 = none
        var place: Int32 = none
    }

    private var lists: [List] = []
    /// Of each filled list the worth above the cell, which puts equals in order; the unwanted ones, and the others.
    private var unwanted: [UInt64] = []
    private var wanted: [UInt64] = []
    /// The least of each, or `unknown`.
    private var leastUnwanted = unknown
    private var leastWanted = unknown

    private static let unknown = UInt64.max

    mutating func grow(to cells: Int) {
        if lists.count < 2 * cells { lists.append(contentsOf: repeatElement(List(), count: 2 * cells - lists.count)) }
    }

    /// A cell's worth above its number: positive floats order as their bits do.
    @inline(__always)
    private static func key(_ cell: Int32, _ worths: [Double]) -> UInt64 {
        UInt64(Float(worths[Int(cell)]).bitPattern) << 32 | UInt64(UInt32(bitPattern: cell))
    }

    /// The cells' worths have changed.
    mutating func worthsChanged(_ worths: [Double]) {
        for place in unwanted.indices { unwanted[place] = Self.key(Int32(truncatingIfNeeded: unwanted[place]), worths) }
        for place in wanted.indices { wanted[place] = Self.key(Int32(truncatingIfNeeded: wanted[place]), worths) }
        leastUnwanted = Self.unknown
        leastWanted = Self.unknown
    }

    /// The first tail of the cell of least worth, of the lower number among equals, or `none`; one that the leader does not
    /// want, if there is any.
    mutating func least() -> Int32 {
        if !unwanted.isEmpty {
            if leastUnwanted == Self.unknown { leastUnwanted = Self.least(of: unwanted.span) }
            return lists[2 * Int(UInt32(truncatingIfNeeded: leastUnwanted))].first
        }
        if wanted.isEmpty { return none }
        if leastWanted == Self.unknown { leastWanted = Self.least(of: wanted.span) }
        return lists[2 * Int(UInt32(truncatingIfNeeded: leastWanted)) + 1].first
    }

    private static func least(of keys: Span<UInt64>) -> UInt64 {
        var least = UInt64.max
        for place in keys.indices { least = min(least, keys[place]) }
        return least
    }

    /// Puts a tail behind the others of its cell.
    @inline(__always)
    mutating func append(
        _ tail: Int32, to cell: Int32, isWanted: Bool, worths: [Double], _ ends: inout [ResidentEnd]
    ) {
        var ends = ends.mutableSpan
        let list = 2 * Int(cell) + (isWanted ? 1 : 0)
        let last = lists[list].last
        ends[Int(tail)].list = Int32(truncatingIfNeeded: list)
        ends[Int(tail)].previous = last
        ends[Int(tail)].next = none
        lists[list].last = tail
        if last != none {
            ends[Int(last)].next = tail
            return
        }
        lists[list].first = tail
        let key = Self.key(cell, worths)
        if isWanted {
            lists[list].place = Int32(truncatingIfNeeded: wanted.count)
            wanted.append(key)
            if leastWanted != Self.unknown { leastWanted = min(leastWanted, key) }
        } else {
            lists[list].place = Int32(truncatingIfNeeded: unwanted.count)
            unwanted.append(key)
            if leastUnwanted != Self.unknown { leastUnwanted = min(leastUnwanted, key) }
        }
    }

    /// Takes a tail out of its list; nothing if it is in none.
    @inline(__always)
    mutating func remove(_ tail: Int32, _ ends: inout [ResidentEnd]) {
        guard ends[Int(tail)].list != none else { return }
        var ends = ends.mutableSpan
        let end = ends[Int(tail)]
        ends[Int(tail)].list = none
        if end.next == none {
            lists[Int(end.list)].last = end.previous
        } else {
            ends[Int(end.next)].previous = end.previous
        }
        if end.previous != none {
            ends[Int(end.previous)].next = end.next
            return
        }
        lists[Int(end.list)].first = end.next
        if end.next == none { empty(Int(end.list)) }
    }

    /// A list lost its last tail: another takes its place among the filled ones.
    private mutating func empty(_ list: Int) {
        let place = Int(lists[list].place)
        if list & 1 == 1 {
            if wanted[place] == leastWanted { leastWanted = Self.unknown }
            let last = wanted.removeLast()
            guard place < wanted.count else { return }
            wanted[place] = last
            lists[2 * Int(UInt32(truncatingIfNeeded: last)) + 1].place = Int32(truncatingIfNeeded: place)
        } else {
            if unwanted[place] == leastUnwanted { leastUnwanted = Self.unknown }
            let last = unwanted.removeLast()
            guard place < unwanted.count else { return }
            unwanted[place] = last
            lists[2 * Int(UInt32(truncatingIfNeeded: last))].place = Int32(truncatingIfNeeded: place)
        }
    }
}
