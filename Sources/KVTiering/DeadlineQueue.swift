// What must happen at a time, if nothing happens before: a binary heap of stated capacity.

import KVModel

/// Deadlines, the soonest first; equal times in the order in which they were set.
struct DeadlineQueue<Matter> {
    struct Entry {
        var time: Instant
        var order: UInt64
        var matter: Matter
    }

    let capacity: Int
    private var heap: [Entry] = []
    private var nextOrder: UInt64 = 0

    init(capacity: Int) {
        self.capacity = capacity
        heap.reserveCapacity(min(capacity, 1024))
    }

    var count: Int { heap.count }
    /// The soonest deadline.
    var first: Instant { heap.first?.time ?? .distantFuture }

    /// Whether there was room for it.
    mutating func insert(_ matter: Matter, at time: Instant) -> Bool {
        guard heap.count < capacity else { return false }
        heap.append(Entry(time: time, order: nextOrder, matter: matter))
        nextOrder += 1
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard precedes(child, parent) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
        return true
    }

    /// Drops what nobody waits for any more; the others keep their order.
    mutating func removeAll(where isStale: (Matter) -> Bool) {
        heap.removeAll { isStale($0.matter) }
        // What is sorted is a heap.
        heap.sort { $0.time != $1.time ? $0.time < $1.time : $0.order < $1.order }
    }

    /// Takes the soonest one if its time has come.
    mutating func pop(at now: Instant) -> Matter? {
        guard let soonest = heap.first, soonest.time <= now else { return nil }
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            if 2 * parent + 1 < heap.count, precedes(2 * parent + 1, least) { least = 2 * parent + 1 }
            if 2 * parent + 2 < heap.count, precedes(2 * parent + 2, least) { least = 2 * parent + 2 }
            if least == parent { break }
            heap.swapAt(parent, least)
            parent = least
        }
        return soonest.matter
    }

    private func precedes(_ left: Int, _ right: Int) -> Bool {
        heap[left].time != heap[right].time
            ? heap[left].time < heap[right].time : heap[left].order < heap[right].order
    }
}
