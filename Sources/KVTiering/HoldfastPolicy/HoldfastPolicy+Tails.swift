// The life of tails in the `holdfast` policy: born with a request, ageing, changing class when the turn ends,
// losing blocks, forgotten.

import KVModel

extension HoldfastPolicy {
    // MARK: Birth and death

    mutating func newRecord(_ number: UInt32, length: Int, past: Past) -> Int32 {
        let record = RequestRecord(
            number: number, order: traffic.requests, length: Int32(length), turn: 1, arrival: clock)
        let slot: Int32
        if let free = freeRecords.popLast() {
            records[Int(free)] = record
            slot = free
        } else {
            records.makeRoom(for: records.count + 1)
            records.append(record)
            slot = Int32(records.count - 1)
        }
        recordOfRequest[number] = slot
        return slot
    }

    mutating func newTail(_ segment: Segment, last: BlockNumber, request: Int32) -> Int32 {
        let length = segment.high - segment.low
        let slot: Int32
        if let free = freeTails.popLast() {
            slot = free
        } else {
            slot = Int32(tails.count)
            tails.makeRoom(for: tails.count + 1)
            tails.append(Tail(slotOf: request))
            tier.growTails(to: tails.count)
            indexTier?.growTails(to: tails.count)
        }
        let cell = statistics.firstCell(of: segment.family, stage: .running)
        tails[Int(slot)] = Tail(
            low: Int32(segment.low), high: Int32(segment.high), last: last, cell: cell, request: request,
            stamp: tails[Int(slot)].stamp, start: clock, entered: clock, weight: Tail.weight(length: length))
        let index = Int(request)
        if statistics.turnMatters(to: segment.family), records[index].ownCount < RequestRecord.ownTailsMax {
            records[index].ownTails[Int(records[index].ownCount)] = slot
            records[index].ownCount += 1
        }
        records[index].live += 1
        return slot
    }

    /// A tail that owns nothing more leaves all lists.
    mutating func retire(_ tail: Int32) {
        tails[Int(tail)].stamp &+= 1
        unmarkLost(tail)
        let request = Int(tails[Int(tail)].request)
        for place in 0..<Int(records[request].ownCount) where records[request].ownTails[place] == tail {
            records[request].ownTails[place] = none
        }
        records[request].live -= 1
        if records[request].live == 0 {
            if recordOfRequest[records[request].number] == Int32(request) {
                recordOfRequest[records[request].number] = nil
            }
            freeRecords.append(Int32(request))
        }
        freeTails.append(tail)
    }

    // MARK: Ageing

    /// A tail is as young as it can be.
    mutating func begin(_ tail: Int32) {
        let index = Int(tail)
        ages.append(.init(start: tails[index].start, tail: tail, stamp: tails[index].stamp), to: 0)
        // Most entries that go stale do so in a bin that moves on slowly.
        guard ages.count > 1024 + 4 * (tails.count - freeTails.count) else { return }
        ages.compact { tails[Int($0.tail)].stamp == $0.stamp }
    }

    /// Moves every tail that has outgrown its bin.
    ///
    /// First all of them are looked at, oldest first, then moved: tails lie anywhere in memory, and so it answers for
    /// several at once.
    mutating func age() {
        outgrown.clear()
        var bin = AgeBins.count - 1
        while bin > 0 {
            bin -= 1
            if ages.due[bin] <= clock { ages.takeDue(of: bin, by: clock, into: &outgrown) }
        }
        if outgrown.isEmpty { return }
        Self.look(at: &outgrown, tails, tier.ends)
        moveOutgrown()
    }

    private static func look(
        at outgrown: inout [HoldfastAges.Outgrown], _ tails: [Tail], _ ends: [ResidentEnd]
    ) {
        var outgrown = outgrown.mutableSpan
        for index in outgrown.indices {
            let entry = outgrown[index].entry
            outgrown[index].isCurrent = tails[Int(entry.tail)].stamp == entry.stamp
            // It is in the tail's other line of memory: that is on its way by now, too.
            outgrown[index].weight = tails[Int(entry.tail)].weightOfAll
            // Most tails that are remembered hold nothing, and so are in no list.
            outgrown[index].isListed = ends[Int(entry.tail)].list != none
        }
    }

    private mutating func moveOutgrown() {
        let edges = AgeBins.upperEdges
        // The array moves out of `self` for the walk: a span into it may then live beside the other members.
        var all: [Tail] = []
        swap(&all, &tails)
        defer { swap(&all, &tails) }
        var tails = all.mutableSpan
        for due in outgrown where due.isCurrent {
            let tail = due.entry.tail
            statistics.growOlder(&tails[Int(tail)], weight: due.weight, to: clock, edges: edges.span)
            let cell = tails[Int(tail)].cell
            ages.append(due.entry, to: Int(cell) % AgeBins.count)
            if due.isListed { tier.move(tail, to: cell, worths: statistics.index, shadows: shadows) }
            indexTier?.move(tail, to: cell, worths: statistics.index, shadows: shadows)
        }
    }

    /// Counts the ages a tail has gone through by `time`.
    mutating func catchUp(_ tail: Int32, to time: Double) {
        let bin = tails[Int(tail)].bin
        guard bin < AgeBins.count - 1, tails[Int(tail)].start + AgeBins.upperEdges[bin] <= time else { return }
        let weight = tails[Int(tail)].weightOfAll
        statistics.growOlder(&tails[Int(tail)], weight: weight, to: time, edges: AgeBins.upperEdges.span)
    }

    /// Every tail, of each age bin the oldest first.
    mutating func forEachTailByAge(_ body: (inout HoldfastPolicy, Int32) -> Void) {
        for bin in 0..<AgeBins.count {
            for entry in ages.entries(of: bin) where tails[Int(entry.tail)].stamp == entry.stamp {
                body(&self, entry.tail)
            }
        }
    }

    private mutating func move(_ tail: Int32, to cell: Int32) {
        tails[Int(tail)].cell = cell
        statistics.enter(cell: cell, tail: tails[Int(tail)])
        tier.move(tail, to: cell, worths: statistics.index, shadows: shadows)
        indexTier?.move(tail, to: cell, worths: statistics.index, shadows: shadows)
    }

    // MARK: Ends of turns

    /// Applies the ends whose time has come.
    mutating func endTurns() {
        while firstEnding < endings.count, endings[firstEnding].time <= clock {
            let ending = endings[firstEnding]
            firstEnding += 1
            guard let request = recordOfRequest[ending.request] else { continue }
            for place in 0..<Int(records[Int(request)].ownCount) {
                let tail = records[Int(request)].ownTails[place]
                if tail != none { end(tail, ending) }
            }
        }
        if firstEnding == endings.count || firstEnding > 1024 {
            endings.removeFirst(firstEnding)
            firstEnding = 0
        }
    }

    private mutating func end(_ tail: Int32, _ ending: TurnEnding) {
        let index = Int(tail)
        let stage = Stage(ending.reason)
        guard statistics.stage(of: tails[index].cell) == .running else { return }
        if !isFull { catchUp(tail, to: ending.time) }
        let cell = tails[index].cell
        let time = max(ending.time, tails[index].entered)
        statistics.turnEnded(cell: cell, tail: tails[index], stage: stage, at: time)
        tails[index].start = time
        tails[index].entered = time
        tails[index].stamp &+= 1
        begin(tail)
        if statistics.isStale { requestsUntilRebuild = 0 }
        let family = statistics.families[Int(statistics.family(of: cell))].ended
        move(tail, to: statistics.firstCell(of: family, stage: stage))
    }

    // MARK: Blocks that are remembered without being held

    mutating func markLost(_ tail: Int32) {
        let index = Int(tail)
        guard !tails[index].isLost else { return }
        tails[index].previousLost = lost.last
        tails[index].nextLost = none
        if lost.last == none { lost.first = tail } else { tails[Int(lost.last)].nextLost = tail }
        lost.last = tail
    }

    private mutating func unmarkLost(_ tail: Int32) {
        let index = Int(tail)
        guard tails[index].isLost else { return }
        let previous = tails[index].previousLost
        let next = tails[index].nextLost
        tails[index].previousLost = Tail.notLost
        if previous == none { lost.first = next } else { tails[Int(previous)].nextLost = next }
        if next == none { lost.last = previous } else { tails[Int(next)].previousLost = previous }
    }

    /// Forgets what was lost longest ago once more than `memory` times the capacity is remembered.
    mutating func forgetBeyondMemory() {
        while knownCount - tier.count > Self.memory * capacity, lost.first != none {
            let tail = lost.first
            forgetLostPart(of: tail)
        }
    }

    private mutating func forgetLostPart(of tail: Int32) {
        let index = Int(tail)
        if !isFull { catchUp(tail, to: clock) }
        let kept = max(tier.ends[index].count, indexTier?.ends[index].count ?? 0)
        let length = tails[index].owned - kept
        statistics.blocksForgotten(cell: tails[index].cell, tail: tails[index], length: length, clock: clock)
        tails[index].entered = clock
        var block = tails[index].last
        for _ in 0..<length {
            let parent = known[Int(block)].parent
            known[Int(block)] = KnownBlock(owner: none, parent: parent, uses: 1)
            forgetIfReleased(block)
            block = parent
        }
        knownCount -= Int(length)
        tails[index].last = block
        tails[index].high -= length
        unmarkLost(tail)
        // What only the other view still holds comes round again.
        if kept > tier.ends[index].count { markLost(tail) }
        if tails[index].owned == 0 { retire(tail) }
    }

    /// Forgets what no tail owns and no shadow knows any more. What a shadow knows keeps its parent till then.
    private mutating func forgetIfReleased(_ block: BlockNumber) {
        let entry = known[Int(block)]
        guard entry.owner == none, entry.uses > 0, !shadows.remembers(block) else { return }
        known[Int(block)] = KnownBlock(owner: none, parent: noBlock, uses: 0)
        if reportsForgotten { forgotten.append(block) }
    }

    /// Forgets what the shadows let go of.
    mutating func forgetReleased() {
        for block in shadows.released { forgetIfReleased(block) }
    }
}
