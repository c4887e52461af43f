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

    /// An entry of a tail that has outgrown its bin, and what was found when the tail was looked at.
    struct Outgrown {
        var entry: Entry
        /// Whether it is still the tail's.
        var isCurrent = false
        /// Whether the tail is in a list of the tier's.
        var isListed = false
        /// What its blocks count together in the statistics.
        var weight = 0.0
    }

    private struct Queue {
        var entries: [Entry] = []
        var head = 0
    }

    private var queues = InlineArray<34, Queue>(repeating: Queue())
    /// When the first entry of each bin outgrows it, side by side: most requests find that none has.
    private(set) var due = InlineArray<34, Double>(repeating: .infinity)
    /// The age at which each bin is outgrown, at hand.
    private let edges = AgeBins.upperEdges
    /// Entries of all bins, the stale ones included.
    private(set) var count = 0

    /// The entries of a bin, oldest first.
    func entries(of bin: Int) -> ArraySlice<Entry> { queues[bin].entries[queues[bin].head...] }

    /// Puts an entry behind the others of its bin.
    @inline(__always)
    mutating func append(_ entry: Entry, to bin: Int) {
        if queues[bin].head == queues[bin].entries.count {
            queues[bin].entries.removeAll(keepingCapacity: true)
            queues[bin].head = 0
            due[bin] = due(entry, in: bin)
        }
        queues[bin].entries.makeRoom(for: queues[bin].entries.count + 1)
        queues[bin].entries.append(entry)
        count += 1
    }

    /// Takes out all entries of a bin that outgrow it by `time`, oldest first.
    mutating func takeDue(of bin: Int, by time: Double, into outgrown: inout [Outgrown]) {
        let edge = edges[bin]
        var head = queues[bin].head
        let end = queues[bin].entries.count
        while head < end, queues[bin].entries[head].start + edge <= time {
            outgrown.append(Outgrown(entry: queues[bin].entries[head]))
            head += 1
        }
        count -= head - queues[bin].head
        queues[bin].head = head
        if head >= 64, 2 * head >= end {
            queues[bin].entries.removeFirst(head)
            queues[bin].head = 0
        }
        noteDue(bin)
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
        due[bin] = head < queues[bin].entries.count ? due(queues[bin].entries[head], in: bin) : .infinity
    }

    @inline(__always)
    private func due(_ entry: Entry, in bin: Int) -> Double {
        bin < AgeBins.count - 1 ? entry.start + edges[bin] : .infinity
    }
}
