// What must happen at a time, if nothing happens before: binary heaps of a stated capacity together.

import KVModel

/// Deadlines, the soonest first; equal times in the order in which they were set.
///
/// Whoever ends early leaves its deadline behind. Once more than half of the places are taken, a few deadlines are to be looked at
/// before each insertion (`nextToExamine`), and what is stale goes: no turn walks the queue, as one of 394,000 did in 26 to 130 ms.
/// The last element of a heap can be taken away without moving another, so those that still matter go over one by one into a
/// second heap, which takes the place of the first when that is empty: each is looked at once a pass. As long as no more than half
/// of the capacity matters the queue is never full: a pass lasts an eighth of what it began with, so it ends with at most 4/7.
package struct DeadlineQueue<Matter> {
    /// How many are looked at before an insertion.
    package static var examinedEach: Int { 8 }

    package let capacity: Int
    private var heap = DeadlineHeap<Matter>()
    /// While a pass runs: what is new, and what it found to matter.
    private var kept = DeadlineHeap<Matter>()
    private var isSifting = false
    private var nextOrder: UInt64 = 0

    package init(capacity: Int) {
        self.capacity = capacity
        // Memory that is not used yet is not there yet, and no turn copies what has grown.
        heap.reserveCapacity(capacity)
        kept.reserveCapacity(capacity)
    }

    package var count: Int { heap.count + kept.count }
    /// The soonest deadline.
    package var first: Instant { min(heap.first, kept.first) }

    /// Whether there was room for it.
    package mutating func insert(_ matter: Matter, at time: Instant) -> Bool {
        guard count < capacity else { return false }
        let entry = DeadlineHeap.Entry(time: time, order: nextOrder, matter: matter)
        nextOrder += 1
        if isSifting { kept.insert(entry) } else { heap.insert(entry) }
        if !isSifting, count > capacity / 2 { isSifting = true }
        return true
    }

    /// Takes the soonest one if its time has come.
    package mutating func pop(at now: Instant) -> Matter? {
        guard first <= now, count > 0 else { return nil }
        let matter = kept.precedes(heap) ? kept.popFirst() : heap.popFirst()
        endPass()
        return matter
    }

    /// What is to be looked at next; nil when nothing is, because there is room enough.
    package var nextToExamine: Matter? { isSifting ? heap.last : nil }

    /// `nextToExamine` was looked at: it goes, or it is kept until the next pass.
    package mutating func examined(isStale: Bool) {
        let entry = heap.popLast()
        if !isStale { kept.insert(entry) }
        endPass()
    }

    private mutating func endPass() {
        guard isSifting, heap.count == 0 else { return }
        swap(&heap, &kept)
        isSifting = false
    }
}

/// A binary heap of deadlines.
private struct DeadlineHeap<Matter> {
    struct Entry {
        var time: Instant
        var order: UInt64
        var matter: Matter
    }

    private var entries: [Entry] = []

    var count: Int { entries.count }
    var first: Instant { entries.first?.time ?? .distantFuture }
    /// That of the last element, which is none of the soonest.
    var last: Matter? { entries.last?.matter }

    mutating func reserveCapacity(_ count: Int) { entries.reserveCapacity(count) }

    /// Whether its first one comes before another heap's.
    func precedes(_ other: DeadlineHeap) -> Bool {
        guard let mine = entries.first else { return false }
        guard let theirs = other.entries.first else { return true }
        return mine.time != theirs.time ? mine.time < theirs.time : mine.order < theirs.order
    }

    mutating func insert(_ entry: Entry) {
        entries.append(entry)
        var child = entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard precedes(child, parent) else { break }
            entries.swapAt(child, parent)
            child = parent
        }
    }

    mutating func popLast() -> Entry { entries.removeLast() }

    mutating func popFirst() -> Matter {
        entries.swapAt(0, entries.count - 1)
        let soonest = entries.removeLast()
        var parent = 0
        while true {
            var least = parent
            if 2 * parent + 1 < entries.count, precedes(2 * parent + 1, least) { least = 2 * parent + 1 }
            if 2 * parent + 2 < entries.count, precedes(2 * parent + 2, least) { least = 2 * parent + 2 }
            if least == parent { break }
            entries.swapAt(parent, least)
            parent = least
        }
        return soonest.matter
    }

    private func precedes(_ left: Int, _ right: Int) -> Bool {
        entries[left].time != entries[right].time
            ? entries[left].time < entries[right].time : entries[left].order < entries[right].order
    }
}
