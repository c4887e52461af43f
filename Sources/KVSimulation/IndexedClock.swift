// When each of a fixed number of things happens next. A binary heap that can move an entry, so nothing is ever
// cancelled by leaving it behind, and nothing is allocated after the start.

import KVModel

/// The next moment of each of `count` actors, and the earliest of them. Equal moments come in the order of the actors.
package struct IndexedClock {
    /// The moment of each actor; `never` when it waits for nothing.
    package private(set) var moments: [Int64]
    /// Actors in heap order.
    private var heap: [Int32]
    /// Where each actor stands in `heap`, −1 when it does not.
    private var places: [Int32]

    /// Later than anything.
    package static let never = Int64.max

    package init(count: Int) {
        moments = Array(repeating: Self.never, count: count)
        places = Array(repeating: -1, count: count)
        heap = []
        heap.reserveCapacity(count)
    }

    /// The earliest moment, or `never`.
    package var earliest: Int64 { heap.isEmpty ? Self.never : moments[Int(heap[0])] }
    /// The actor of the earliest moment. There must be one.
    package var first: Int { Int(heap[0]) }

    /// Sets when `actor` happens next; `never` takes it out.
    package mutating func set(_ actor: Int, to moment: Int64) {
        if moments[actor] == moment { return }
        moments[actor] = moment
        let place = Int(places[actor])
        if moment == Self.never {
            remove(at: place)
            places[actor] = -1
        } else if place < 0 {
            heap.append(Int32(truncatingIfNeeded: actor))
            siftUp(from: heap.count - 1)
        } else if siftUp(from: place) == place {
            siftDown(from: place)
        }
    }

    private mutating func remove(at place: Int) {
        let last = heap.removeLast()
        if place == heap.count { return }
        heap[place] = last
        places[Int(last)] = Int32(truncatingIfNeeded: place)
        if siftUp(from: place) == place { siftDown(from: place) }
    }

    private func precedes(_ left: Int32, _ right: Int32) -> Bool {
        let leftMoment = moments[Int(left)]
        let rightMoment = moments[Int(right)]
        return leftMoment != rightMoment ? leftMoment < rightMoment : left < right
    }

    @discardableResult
    private mutating func siftUp(from start: Int) -> Int {
        var place = start
        let actor = heap[place]
        while place > 0 {
            let parent = (place - 1) / 2
            guard precedes(actor, heap[parent]) else { break }
            heap[place] = heap[parent]
            places[Int(heap[place])] = Int32(truncatingIfNeeded: place)
            place = parent
        }
        heap[place] = actor
        places[Int(actor)] = Int32(truncatingIfNeeded: place)
        return place
    }

    private mutating func siftDown(from start: Int) {
        var place = start
        let actor = heap[place]
        while true {
            var child = 2 * place + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, precedes(heap[child + 1], heap[child]) { child += 1 }
            guard precedes(heap[child], actor) else { break }
            heap[place] = heap[child]
            places[Int(heap[place])] = Int32(truncatingIfNeeded: place)
            place = child
        }
        heap[place] = actor
        places[Int(actor)] = Int32(truncatingIfNeeded: place)
    }
}

/// Things that happen once at a stated moment, earliest first; equal moments in the order they were added.
package struct TimerQueue<Payload> {
    private var heap: [(moment: Int64, order: UInt64, payload: Payload)] = []
    private var added: UInt64 = 0

    package init() {}

    package var count: Int { heap.count }
    /// The earliest moment, or `IndexedClock.never`.
    package var earliest: Int64 { heap.isEmpty ? IndexedClock.never : heap[0].moment }

    package mutating func add(_ payload: Payload, at moment: Int64) {
        heap.append((moment, added, payload))
        added += 1
        var place = heap.count - 1
        while place > 0 {
            let parent = (place - 1) / 2
            guard precedes(place, parent) else { break }
            heap.swapAt(place, parent)
            place = parent
        }
    }

    /// Takes the earliest out. There must be one.
    package mutating func removeFirst() -> Payload {
        heap.swapAt(0, heap.count - 1)
        let payload = heap.removeLast().payload
        var place = 0
        while true {
            var child = 2 * place + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, precedes(child + 1, child) { child += 1 }
            guard precedes(child, place) else { break }
            heap.swapAt(child, place)
            place = child
        }
        return payload
    }

    private func precedes(_ left: Int, _ right: Int) -> Bool {
        heap[left].moment != heap[right].moment
            ? heap[left].moment < heap[right].moment : heap[left].order < heap[right].order
    }
}
