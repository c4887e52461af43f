// Blocks of the `holdfast` policy that were used where the tier did not serve them. It promises that they stay their owners': no
// request, no class, no turn comes of it, or a conversation that an engine serves by itself would look like many short ones.

import KVModel

extension HoldfastPolicy {
    /// Tails that were used whole wait anew: what they waited until now was in vain for nobody, so it counts as time and neither
    /// as a hit nor as a miss. Of a tail that was used in part nobody asked for the end, and its end is what would go.
    public mutating func touch(_ path: Span<BlockNumber>, at time: Instant) {
        clock = max(clock, time.seconds)
        endTurns()
        if isFull { age() }
        var depth = 0
        while depth < path.count, Int(path[depth]) < known.count {
            let owner = known[Int(path[depth])].owner
            guard owner != none, tails[Int(owner)].low == depth else { return }
            let high = Int(tails[Int(owner)].high)
            guard high <= path.count, path[high - 1] == tails[Int(owner)].last else { return }
            renew(owner)
            depth = high
        }
    }

    private mutating func renew(_ tail: Int32) {
        let index = Int(tail)
        if !isFull { catchUp(tail, to: clock) }
        let old = tails[index].cell
        statistics.leave(cell: old, tail: tails[index], at: clock)
        tails[index].start = clock
        tails[index].entered = clock
        tails[index].stamp &+= 1
        begin(tail)
        let cell = statistics.firstCell(of: statistics.family(of: old), stage: statistics.stage(of: old))
        tails[index].cell = cell
        statistics.enter(cell: cell, tail: tails[index])
        tier.move(tail, to: cell, worths: statistics.index, shadows: shadows)
        indexTier?.move(tail, to: cell, worths: statistics.index, shadows: shadows)
    }
}
