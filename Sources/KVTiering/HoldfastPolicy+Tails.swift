// The life of tails in the `holdfast` policy: born with a request, ageing, changing class when the turn ends,
// losing blocks, forgotten.

import KVModel

extension HoldfastPolicy {
    // MARK: Birth and death

    mutating func newRecord(_ number: UInt32, length: Int, past: Past) -> Int32 {
        let record = RequestRecord(number: number, length: Int32(length), turn: 1, arrival: clock)
        let slot: Int32
        if let free = freeRecords.popLast() {
            records[Int(free)] = record
            slot = free
        } else {
            records.append(record)
            slot = Int32(records.count - 1)
        }
        recordOfRequest[number] = slot
        return slot
    }

    mutating func newTail(_ segment: Segment, last: BlockNumber, request: Int32) -> Int32 {
        let length = segment.high - segment.low
        let tail = Tail(
            low: Int32(segment.low), high: Int32(segment.high), last: last, family: segment.family, cell: 0, bin: 0,
            start: clock, entered: clock, weight: Tail.weight(length: length), request: request)
        let slot: Int32
        if let free = freeTails.popLast() {
            tails[Int(free)] = tail
            slot = free
        } else {
            tails.append(tail)
            slot = Int32(tails.count - 1)
            tier.growTails(to: tails.count)
            indexTier?.growTails(to: tails.count)
        }
        let index = Int(request)
        if statistics.turnMatters(to: segment.family) {
            records[index].ownTails[Int(records[index].ownCount)] = slot
            records[index].ownCount += 1
        }
        records[index].live += 1
        return slot
    }

    /// A tail that owns nothing more leaves all lists.
    mutating func retire(_ tail: Int32) {
        unlinkAge(tail)
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

    mutating func linkAge(_ tail: Int32, bin: Int) {
        let last = ages[bin].last
        tails[Int(tail)].bin = Int32(bin)
        tails[Int(tail)].previousOfAge = last
        tails[Int(tail)].nextOfAge = none
        ages[bin].last = tail
        if last == none {
            ages[bin].first = tail
            noteDue(bin)
        } else {
            tails[Int(last)].nextOfAge = tail
        }
    }

    private mutating func noteDue(_ bin: Int) {
        let first = ages[bin].first
        guard bin < AgeBins.count - 1, first != none else {
            agesDue[bin] = .infinity
            return
        }
        agesDue[bin] = tails[Int(first)].start + AgeBins.upperEdges[bin]
    }

    mutating func unlinkAge(_ tail: Int32) {
        let bin = Int(tails[Int(tail)].bin)
        let previous = tails[Int(tail)].previousOfAge
        let next = tails[Int(tail)].nextOfAge
        if next == none { ages[bin].last = previous } else { tails[Int(next)].previousOfAge = previous }
        if previous == none {
            ages[bin].first = next
            noteDue(bin)
        } else {
            tails[Int(previous)].nextOfAge = next
        }
    }

    /// Moves every tail that has outgrown its bin.
    mutating func age() {
        for bin in 0..<AgeBins.count - 1 {
            while agesDue[bin] <= clock {
                let tail = ages[bin].first
                let due = agesDue[bin]
                let cell = tails[Int(tail)].cell
                statistics.leave(cell: cell, tail: tails[Int(tail)], at: max(due, tails[Int(tail)].entered))
                unlinkAge(tail)
                linkAge(tail, bin: bin + 1)
                tails[Int(tail)].entered = max(due, tails[Int(tail)].entered)
                move(tail, to: cell + 1)
            }
        }
    }

    private mutating func move(_ tail: Int32, to cell: Int32) {
        tails[Int(tail)].cell = cell
        statistics.enter(cell: cell, tail: tails[Int(tail)])
        tier.move(tail, to: cell, rank: statistics.rank, shadows: shadows)
        indexTier?.move(tail, to: cell, rank: statistics.rank, shadows: shadows)
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
        let cell = tails[index].cell
        guard statistics.stage(of: cell) == .running else { return }
        let time = max(ending.time, tails[index].entered)
        statistics.turnEnded(cell: cell, tail: tails[index], stage: stage, at: time)
        unlinkAge(tail)
        tails[index].start = time
        tails[index].entered = time
        linkAge(tail, bin: 0)
        if statistics.isStale { requestsUntilRebuild = 0 }
        move(tail, to: statistics.firstCell(of: tails[index].family, stage: stage))
    }

    // MARK: Blocks that are remembered without being held

    mutating func markLost(_ tail: Int32) {
        let index = Int(tail)
        guard !tails[index].isLost else { return }
        tails[index].isLost = true
        tails[index].previousLost = lost.last
        tails[index].nextLost = none
        if lost.last == none { lost.first = tail } else { tails[Int(lost.last)].nextLost = tail }
        lost.last = tail
    }

    private mutating func unmarkLost(_ tail: Int32) {
        let index = Int(tail)
        guard tails[index].isLost else { return }
        tails[index].isLost = false
        let previous = tails[index].previousLost
        let next = tails[index].nextLost
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
