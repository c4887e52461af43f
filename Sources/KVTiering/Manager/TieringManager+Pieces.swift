// A turn whose blocks are handed over piece by piece: a prompt that is computed in chunks, an answer that grows. The policies see
// its chain once, whole, as it was looked up, and grant places; pieces fill them. So what is kept does not depend on how a
// prompt was cut, and a turn that was told in ten pieces is one use, one turn and one end.

import KVModel

extension TieringManager {
    /// The turn of which a request brings a piece, if it runs and this is a piece of its chain or goes on from there.
    func turn(of slot: Int32) -> Int32? {
        let piece = requests[Int(slot)]
        guard piece.pieceOf != noRequest, !piece.blocks.isEmpty, let turn = requestSlots[piece.pieceOf] else {
            return nil
        }
        let common = min(piece.blocks.count, requests[Int(turn)].blocks.count)
        // A number names the whole prefix.
        guard common > 0, requests[Int(turn)].blocks[common - 1] == piece.blocks[common - 1] else { return nil }
        return turn
    }

    /// Keeps a piece of a turn.
    mutating func keepPiece(_ slot: Int32, of turn: Int32, _ computed: Computed) {
        let piece = requests[Int(slot)].blocks
        let index = Int(turn)
        if piece.count > requests[index].blocks.count {
            for block in piece[requests[index].blocks.count...] {
                known[block].users += 1
                requests[index].blocks.append(block)
            }
        }
        var context = requests[index].context(blockTokens: configuration.blockTokens, now: now)
        let blocks = requests[index].blocks
        let end = requests[index].shown == 0 ? blocks.count : max(requests[index].shown, piece.count)
        if end < blocks.count { context.lastBlockIsPartial = false }
        countUses(turn, upTo: end)
        requests[index].handedOver = max(requests[index].handedOver, piece.count)
        requests[index].computedParts.insert(.kept)
        let isNew = requests[index].shown < end
        show(end == blocks.count ? blocks : Array(blocks[..<end]), of: turn, context)
        learnPath(turn)
        bringOut(slot, piece, computed)
        if isNew { for block in blocks[min(piece.count, end)..<end] { giveUpBelow(block) } }
        guard configuration.hasStore else { return }
        if piece.count < blocks.count { context.lastBlockIsPartial = false }
        let shown = min(requests[index].offered, piece.count)
        requests[index].offered = max(requests[index].offered, piece.count)
        offer(piece, context, from: spillStart(piece), shown: shown)
    }

    /// What policies were shown and no piece has brought yet may be in node memory already.
    private mutating func giveUpBelow(_ block: BlockNumber) {
        if known[block].dram == .present, known[block].flags.contains(.keptInDRAM) { promoted(block) }
    }

    /// Keeps a piece whose turn is over: it makes longer what it goes on from, whoever used that last. One that begins a chain is
    /// kept as a turn of its own.
    mutating func keepLatePiece(_ slot: Int32, _ computed: Computed) {
        let piece = requests[Int(slot)].blocks
        let first = min(Int(computed.firstHeld), piece.count)
        guard first < piece.count else { return }
        // What its turn looked up is counted already.
        for block in piece[first...] where known[block].uses == 0 { known[block].uses = 1 }
        var context = requests[Int(slot)].context(blockTokens: configuration.blockTokens, now: now)
        context.request = noRequest
        requests[Int(slot)].shown = first
        show(piece, of: slot, context)
        // Its end is nobody's.
        requests[Int(slot)].shown = 0
        bringOut(slot, piece, computed)
        if configuration.hasStore { offer(piece, context, from: spillStart(piece), shown: first) }
    }

    /// A turn is over: places that were granted for blocks that never came are free for others, the deepest first.
    mutating func returnPlaces(_ slot: Int32) {
        guard requests[Int(slot)].handedOver > 0 else { return }
        let request = requests[Int(slot)]
        var end = request.shown
        while end > request.handedOver {
            end -= 1
            let block = request.blocks[end]
            let record = known[block]
            guard record.users == 1, record.dram == .absent, record.nvme == .absent, record.flash != .present,
                !device.knows(block)
            else { return }
            if record.flags.contains(.keptInDRAM) { removeFromDRAMPolicy(block) }
            if record.flags.contains(.keptOnNVMe) { removeFromNVMePolicy(block) }
        }
    }
}
