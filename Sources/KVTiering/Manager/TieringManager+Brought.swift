// Loads that belong to a prompt which another connection looked up, or that are not its first: workers of an engine whose
// scheduler asks, a load that goes through few places. They are loads like any other; what they wanted and what came of it is
// noted with the prompt, which is booked by that.

import KVModel

extension TieringManager {
    /// Notes what a load that was just decided wants for the turn that it brings a piece of.
    mutating func noteWanted(_ slot: Int32) {
        guard let turn = turn(of: slot) else { return }
        let load = requests[Int(slot)]
        let wanted = max(load.planned, min(load.found, load.chainCount))
        let lost = min(load.chainCount, requests[Int(turn)].foundOnArrival)
        note(load.engineBlocks, to: load.first, of: turn, as: .recomputeCheaper)
        // Until it is there.
        note(load.first, to: load.planned, of: turn, as: .late)
        note(load.planned, to: wanted, of: turn, as: .recomputeCheaper)
        note(wanted, to: lost, of: turn, as: .lostAfterLookUp)
    }

    /// Notes what a load that has ended brought for its turn.
    mutating func noteBrought(_ slot: Int32) {
        guard let turn = turn(of: slot) else { return }
        noteSources(of: requests[Int(slot)], in: turn)
        note(requests[Int(slot)].end, to: requests[Int(slot)].planned, of: turn, as: requests[Int(slot)].cutCause)
    }

    /// Puts a turn's own load beside those that brought pieces of it.
    mutating func noteOwnLoad(_ slot: Int32) {
        let load = requests[Int(slot)]
        guard load.state == .loading || load.state == .ready else { return }
        let wanted = max(load.planned, load.found)
        noteSources(of: load, in: slot)
        note(load.engineBlocks, to: load.first, of: slot, as: .recomputeCheaper, isLate: true)
        note(load.end, to: load.planned, of: slot, as: load.cutCause, isLate: true)
        note(load.planned, to: wanted, of: slot, as: .recomputeCheaper, isLate: true)
        note(wanted, to: load.foundOnArrival, of: slot, as: .lostAfterLookUp, isLate: true)
    }

    private mutating func noteSources(of load: Request, in turn: Int32) {
        var position = load.first
        for run in load.sources where position < load.end {
            let end = min(run.end, load.end)
            guard end > position else { continue }
            note(position, to: end, of: turn, as: tokenClass(of: run.tier))
            position = end
        }
    }

    /// Notes what became of blocks, as far as the turn's prompt goes.
    private mutating func note(
        _ start: Int32, to end: Int32, of turn: Int32, as tokenClass: TokenClass, isLate: Bool = false
    ) {
        let count = min(requests[Int(turn)].chainCount, Int32(truncatingIfNeeded: requests[Int(turn)].blocks.count))
        guard start < min(end, count) else { return }
        requests[Int(turn)].brought.note(start..<min(end, count), as: tokenClass, isLate: isLate)
    }

    /// Books what the loads of a prompt brought. What lies before the blocks that were wanted, and between them, the engine has
    /// itself: without it they would be of no use to it.
    mutating func bookBrought(_ request: Request) {
        var position: Int32 = 0
        while position < request.brought.end {
            let tokenClass = request.brought[position]
            var end = position + 1
            while end < request.brought.end, request.brought[end] == tokenClass { end += 1 }
            book(blocks: position..<end, of: request, as: tokenClass ?? .hbm)
            if tokenClass == .nvme || tokenClass == .flash { countBelow(request.blocks[Int(position)..<Int(end)]) }
            position = end
        }
    }
}
