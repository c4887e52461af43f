// When each of a fixed number of things happens next. A knockout that can play an entry's games again, so nothing is ever
// cancelled by leaving it behind, and nothing is allocated after the start.

import KVModel

/// The next moment of each of `count` actors, and the earliest of them. Equal moments come in the order of the actors.
package struct IndexedClock {
    private struct Entry {
        var moment: Int64
        var actor: Int32
    }

    /// A knockout among the actors: the winner of all at place 1, and at place `p` the earlier one of those at `2p` and `2p + 1`. The
    /// last row, from place `row` on, are the actors themselves in their order; who waits for nothing has the moment `never`.
    private var entries: [Entry]
    /// The number of actors, rounded up to a power of two.
    private let row: Int

    /// Later than anything.
    package static let never = Int64.max

    package init(count: Int) {
        var row = 1
        while row < count { row *= 2 }
        self.row = row
        entries = Array(repeating: Entry(moment: Self.never, actor: 0), count: 2 * row)
        for place in (1..<2 * row).reversed() {
            entries[place].actor = place < row ? entries[2 * place].actor : Int32(truncatingIfNeeded: place - row)
        }
    }

    /// The earliest moment, or `never`.
    package var earliest: Int64 { entries[1].moment }
    /// The actor of the earliest moment. There must be one.
    package var first: Int { Int(entries[1].actor) }

    /// Sets when `actor` happens next; `never` takes it out.
    package mutating func set(_ actor: Int, to moment: Int64) {
        var place = row + actor
        var entries = entries.mutableSpan
        if entries[place].moment == moment { return }
        entries[place].moment = moment
        place /= 2
        while place > 0 {
            let (left, right) = (entries[2 * place], entries[2 * place + 1])
            let winner = right.moment < left.moment ? right : left
            // Where a game ends as before, those that follow do.
            if winner.moment == entries[place].moment, winner.actor == entries[place].actor { return }
            entries[place] = winner
            place /= 2
        }
    }
}

/// Things that happen once at a stated moment, earliest first; equal moments in the order they were added.
package struct TimerQueue<Payload> {
    private var heap: [Entry] = []
    private var added: UInt64 = 0

    private struct Entry {
        var moment: Int64
        var order: UInt64
        var payload: Payload

        @inline(__always)
        func precedes(_ other: Entry) -> Bool { moment != other.moment ? moment < other.moment : order < other.order }
    }

    package init() {}

    package var count: Int { heap.count }
    /// The earliest moment, or `IndexedClock.never`.
    package var earliest: Int64 { heap.isEmpty ? IndexedClock.never : heap[0].moment }

    package mutating func add(_ payload: Payload, at moment: Int64) {
        let entry = Entry(moment: moment, order: added, payload: payload)
        heap.append(entry)
        added += 1
        Self.rise(entry, &heap)
    }

    private static func rise(_ entry: Entry, _ heap: inout [Entry]) {
        var heap = heap.mutableSpan
        var place = heap.count - 1
        while place > 0 {
            let parent = (place - 1) / 2
            guard entry.precedes(heap[parent]) else { break }
            heap[place] = heap[parent]
            place = parent
        }
        heap[place] = entry
    }

    /// Takes the earliest out. There must be one.
    package mutating func removeFirst() -> Payload {
        let last = heap.removeLast()
        if heap.isEmpty { return last.payload }
        let first = heap[0].payload
        Self.sink(last, &heap)
        return first
    }

    private static func sink(_ last: Entry, _ heap: inout [Entry]) {
        var heap = heap.mutableSpan
        var place = 0
        while true {
            var child = 2 * place + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
            guard heap[child].precedes(last) else { break }
            heap[place] = heap[child]
            place = child
        }
        heap[place] = last
    }
}
