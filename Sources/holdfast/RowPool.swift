// Which rows of an engine's memory are free: runs of them are lent and come back. It knows nothing of what lies in them.

/// Rows of an engine's memory, lent as runs.
struct RowPool {
    private var free: [Range<Int>]

    init(count: Int) { free = [0..<count] }

    /// The first run that is long enough; nil when there is none now.
    mutating func take(_ count: Int) -> Range<Int>? {
        guard let place = free.firstIndex(where: { $0.count >= count }) else { return nil }
        let run = free[place].lowerBound..<free[place].lowerBound + count
        free[place] = run.upperBound..<free[place].upperBound
        if free[place].isEmpty { free.remove(at: place) }
        return run
    }

    mutating func giveBack(_ run: Range<Int>) {
        guard !run.isEmpty else { return }
        let place = free.firstIndex { $0.lowerBound > run.lowerBound } ?? free.count
        free.insert(run, at: place)
        if place + 1 < free.count, free[place].upperBound == free[place + 1].lowerBound {
            free[place] = free[place].lowerBound..<free.remove(at: place + 1).upperBound
        }
        if place > 0, free[place - 1].upperBound == free[place].lowerBound {
            free[place - 1] = free[place - 1].lowerBound..<free.remove(at: place).upperBound
        }
    }
}
