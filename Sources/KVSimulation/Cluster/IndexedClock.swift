// When each of a fixed number of things happens next. A binary heap that can move an entry, so nothing is ever
// cancelled by leaving it behind, and nothing is allocated after the start.

import KVModel

/// The next moment of each of `count` actors, and the earliest of them. Equal moments come in the order of the actors.
package struct IndexedClock {
    /// The moment of each actor; `never` when it waits for nothing.
    package private(set) var moments: [Int64]
    /// Actors in heap order, each with its moment.
    private var heap: [Entry]
    /// Where each actor stands in `heap`, −1 when it does not.
    private var places: [Int32]

    private struct Entry {
        var moment: Int64
        var actor: Int32

        @inline(__always)
        func precedes(_ other: Entry) -> Bool {
            moment != other.moment ? moment < other.moment : actor < other.actor
        }
    }

    /// Later than anything.
    package static let never = Int64.max

    package init(count: Int) {
        moments = Array(repeating: Self.never, count: count)
        places = Array(repeating: -1, count: count)
        heap = []
        heap.reserveCapacity(count)
    }

    /// The earliest moment, or `never`.
    package var earliest: Int64 { heap.isEmpty ? Self.never : heap[0].moment }
    /// The actor of the earliest moment. There must be one.
    package var first: Int { Int(heap[0].actor) }

    /// Sets when `actor` happens next; `never` takes it out.
    package mutating func set(_ actor: Int, to moment: Int64) {
        if moments[actor] == moment { return }
        moments[actor] = moment
        let entry = Entry(moment: moment, actor: Int32(truncatingIfNeeded: actor))
        let place = Int(places[actor])
        if moment == Self.never {
            places[actor] = -1
            let last = heap.removeLast()
            if place < heap.count { Self.settle(last, at: place, &heap, &places) }
        } else if place < 0 {
            heap.append(entry)
            Self.settle(entry, at: heap.count - 1, &heap, &places)
        } else {
            Self.settle(entry, at: place, &heap, &places)
        }
    }

    /// Puts an entry where it belongs, starting from a free place.
    private static func settle(_ entry: Entry, at start: Int, _ heap: inout [Entry], _ places: inout [Int32]) {
        var heap = heap.mutableSpan
        var places = places.mutableSpan
        var place = start
        while place > 0 {
            let parent = (place - 1) / 2
            guard entry.precedes(heap[parent]) else { break }
            heap[place] = heap[parent]
            places[Int(heap[place].actor)] = Int32(truncatingIfNeeded: place)
            place = parent
        }
        // Where it rose, everything below is later.
        while place >= start {
            var child = 2 * place + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
            guard heap[child].precedes(entry) else { break }
            heap[place] = heap[child]
            places[Int(heap[place].actor)] = Int32(truncatingIfNeeded: place)
            place = child
        }
        heap[place] = entry
        places[Int(entry.actor)] = Int32(truncatingIfNeeded: place)
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
