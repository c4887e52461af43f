// The gaps between tokens, without keeping each token.

/// The durations of a replica's steps in order, so that a request can look back at the gaps between its own tokens.
package struct StepLog {
    private var entries: [(step: Float, count: Int32)] = []
    /// Number of the first entry still kept.
    private var offset = 0
    private var scratch: [(step: Float, count: Int32)] = []

    package init() {}

    /// The number that the next entry gets.
    package var next: Int { offset + entries.count }

    /// Adds `count` steps of `seconds` each.
    package mutating func append(seconds: Double, count: Int) { entries.append((Float(seconds), Int32(count))) }

    /// Forgets entries before `number`.
    package mutating func forget(before number: Int) {
        // In bulk, so that moving the rest is paid for by what is forgotten.
        guard number - offset > 4096, 2 * (number - offset) > entries.count else { return }
        entries.removeFirst(number - offset)
        offset = number
    }

    /// The mean of the longest tenth of the steps since entry `first`, at least one step.
    package mutating func meanOfLongestTenth(since first: Int) -> Double {
        scratch.removeAll(keepingCapacity: true)
        var total = 0
        for index in first - offset..<entries.count {
            scratch.append(entries[index])
            total += Int(entries[index].count)
        }
        if total == 0 { return 0 }
        let wanted = max(1, total / 10)
        // Quickselect on the duration: everything before `low` belongs to the tenth, everything from `high` on does not.
        var low = 0
        var high = scratch.count
        var taken = 0
        var sum = 0.0
        while low < high {
            let pivot = scratch[(low + high) / 2].step
            // Longer than the pivot to the front, equal in the middle.
            var front = low
            var middle = low
            var back = high
            while middle < back {
                if scratch[middle].step > pivot {
                    scratch.swapAt(front, middle)
                    front += 1
                    middle += 1
                } else if scratch[middle].step < pivot {
                    back -= 1
                    scratch.swapAt(middle, back)
                } else {
                    middle += 1
                }
            }
            var longer = 0
            var longerSum = 0.0
            for index in low..<front {
                longer += Int(scratch[index].count)
                longerSum += Double(scratch[index].step) * Double(scratch[index].count)
            }
            if taken + longer > wanted {
                high = front
                continue
            }
            taken += longer
            sum += longerSum
            var equal = 0
            for index in front..<back { equal += Int(scratch[index].count) }
            let fromEqual = min(equal, wanted - taken)
            taken += fromEqual
            sum += Double(pivot) * Double(fromEqual)
            if taken == wanted { break }
            low = back
        }
        return sum / Double(wanted)
    }
}
