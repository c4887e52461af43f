// The tails of the `holdfast` policy in the order in which they grow older: one queue for each age bin. A tail is looked
// at when it outgrows its bin and at no other time. What ageing means to it is not decided here.

/// Tails by age bin, oldest first.
///
/// A queue is an array that is walked in order, so what comes next is in the cache. A tail that left its queue early
/// (it was used up, or its turn ended) leaves its entry behind; the entry's stamp tells that it is stale.
struct HoldfastAges {
    struct Entry {
        /// When the tail's age began. Seconds.
        var start: Double
        var tail: Int32
        /// The tail's stamp when it was put in; any other stamp means that it is elsewhere by now.
        var stamp: UInt32
    }

    private struct Queue {
        var entries: [Entry] = []
        var head = 0
    }

    private var queues = [Queue](repeating: Queue(), count: AgeBins.count)
    /// When the first entry of each bin outgrows it, side by side: most requests find that none has.
    private(set) var due = [Double](repeating: .infinity, count: AgeBins.count)
    /// Entries of all bins, the stale ones included.
    private(set) var count = 0

    /// The entries of a bin, oldest first.
    func entries(of bin: Int) -> ArraySlice<Entry> { queues[bin].entries[queues[bin].head...] }

    /// Puts an entry behind the others of its bin.
    mutating func append(_ entry: Entry, to bin: Int) {
        if queues[bin].head == queues[bin].entries.count {
            queues[bin].entries.removeAll(keepingCapacity: true)
            queues[bin].head = 0
            due[bin] = Self.due(entry, in: bin)
        }
        queues[bin].entries.append(entry)
        count += 1
    }

    /// Takes the first entry of a bin. There must be one.
    mutating func removeFirst(of bin: Int) -> Entry {
        let entry = queues[bin].entries[queues[bin].head]
        queues[bin].head += 1
        count -= 1
        let head = queues[bin].head
        if head >= 64, 2 * head >= queues[bin].entries.count {
            queues[bin].entries.removeFirst(head)
            queues[bin].head = 0
        }
        noteDue(bin)
        return entry
    }

    /// Drops stale entries.
    mutating func compact(keeping isCurrent: (Entry) -> Bool) {
        count = 0
        for bin in queues.indices {
            queues[bin].entries.removeFirst(queues[bin].head)
            queues[bin].head = 0
            queues[bin].entries.removeAll { !isCurrent($0) }
            count += queues[bin].entries.count
            noteDue(bin)
        }
    }

    private mutating func noteDue(_ bin: Int) {
        let head = queues[bin].head
        due[bin] = head < queues[bin].entries.count ? Self.due(queues[bin].entries[head], in: bin) : .infinity
    }

    private static func due(_ entry: Entry, in bin: Int) -> Double {
        bin < AgeBins.count - 1 ? entry.start + AgeBins.upperEdges[bin] : .infinity
    }
}
