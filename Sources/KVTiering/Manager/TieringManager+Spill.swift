// Down to the shared store: used chains are shown to it, what it wants of them is written in the background.

import KVModel

/// A chain shown to the store, until it has said what it wants.
struct Offer {
    var isOpen = false
    var blocks: [BlockNumber] = []
    /// Blocks from here on are offered, each with a lease if it is in node memory.
    var first = 0
    var leased: [BlockNumber] = []
}

extension TieringManager {
    /// The first block that the store may lack and is not known to be on its way there.
    func spillStart(_ blocks: [BlockNumber]) -> Int {
        guard configuration.spill == .onSave else { return blocks.count }
        return blocks.firstIndex { known[$0].flash != .present && !known[$0].flags.contains(.promised) } ?? blocks.count
    }

    /// Shows a chain to the store and offers its blocks from `first` on. The offered blocks of node memory stay until
    /// the store has answered.
    ///
    /// - Parameter shown: Leading blocks that the store was shown for the same request before.
    mutating func offer(_ blocks: [BlockNumber], _ context: RequestContext, from first: Int, shown: Int = 0) {
        guard let number = takeOffer() else {
            counters.spillsDropped += blocks.count - first
            return
        }
        let index = Int(number)
        offers[index].blocks = blocks
        offers[index].first = first
        for block in blocks { known[block].users += 1 }
        var leased = offers[index].leased
        offers[index].leased = []
        for block in blocks[first...] where known[block].dram == .present || known[block].dram == .filling {
            known[block].dramReaders += 1
            settleDRAM(block)
            leased.append(block)
        }
        offers[index].leased = leased
        var chain: [BlockKey] = []
        chain.reserveCapacity(blocks.count)
        for block in blocks { chain.append(known[block].key) }
        emit(
            .offer(
                StoreOffer(
                    offer: number, chain: chain, firstOffered: Int32(truncatingIfNeeded: first),
                    shownBlocks: Int32(truncatingIfNeeded: shown), context: context)))
    }

    private mutating func takeOffer() -> TransferNumber? {
        let number: TransferNumber
        if let free = freeOffers.popLast() {
            number = free
        } else {
            guard offers.count < configuration.limits.transfersMax else { return nil }
            offers.append(Offer())
            number = TransferNumber(truncatingIfNeeded: offers.count - 1)
        }
        offers[Int(number)].isOpen = true
        return number
    }

    /// Offers blocks that lost their place in node memory, each run of parent and child as one chain.
    mutating func offerEvicted(_ blocks: [BlockNumber]) {
        var start = 0
        while start < blocks.count {
            // Victims come deepest first: the next one is usually the parent.
            var end = start + 1
            while end < blocks.count, known[blocks[end - 1]].parent == blocks[end] { end += 1 }
            var chain: [BlockNumber] = []
            var block = blocks[start]
            chain.reserveCapacity(Int(known[block].depth) + 1)
            while block != BlockRecord.noBlock {
                chain.append(block)
                block = known[block].parent
            }
            chain.reverse()
            let context = RequestContext(request: noRequest, now: now)
            offer(chain, context, from: chain.count - (end - start))
            start = end
        }
    }

    mutating func storeWants(_ want: StoreWant) {
        let index = Int(want.offer)
        precondition(offers[index].isOpen, "the store wants of an offer that was not made")
        let blocks = offers[index].blocks
        for position in 0..<min(Int(want.presentBlocks), blocks.count) { hear(blocks[position], isPresent: true) }
        var ready: [BlockNumber] = []
        var missing: [BlockKey] = []
        for range in want.wanted {
            for position in range {
                let block = blocks[Int(position)]
                switch known[block].dram {
                case .present where !known[block].flags.contains(.promised):
                    promise(block)
                    ready.append(block)
                case .filling where !known[block].flags.contains(.promised):
                    promise(block)
                default:
                    missing.append(known[block].key)
                }
            }
        }
        for position in min(max(0, Int(want.refusedFrom)), blocks.count)..<blocks.count {
            noteLoss(blocks[position], .refused)
        }
        closeOffer(index)
        if !missing.isEmpty {
            counters.spillsDropped += missing.count
            emit(.withdraw(keys: missing))
        }
        spill(ready)
    }

    private mutating func closeOffer(_ index: Int) {
        let blocks = offers[index].blocks
        var leased = offers[index].leased
        offers[index].isOpen = false
        offers[index].blocks = []
        offers[index].leased = []
        for block in leased { endDRAMRead(block) }
        for block in blocks { known[block].users -= 1 }
        leased.removeAll(keepingCapacity: true)
        offers[index].leased = leased
        freeOffers.append(TransferNumber(truncatingIfNeeded: index))
    }

    /// The store holds a place for the block: it stays in node memory until it is written.
    private mutating func promise(_ block: BlockNumber) {
        known[block].flags.insert(.promised)
        known[block].dramReaders += 1
        settleDRAM(block)
    }

    /// A promised block will not be written.
    mutating func giveUpPromise(_ block: BlockNumber) {
        guard known[block].flags.contains(.promised) else { return }
        known[block].flags.remove(.promised)
        counters.spillsDropped += 1
        emit(.withdraw(keys: [known[block].key]))
        endDRAMRead(block)
    }

    /// Writes promised blocks to the store.
    mutating func spill(_ blocks: [BlockNumber]) {
        var moves: [BlockMove] = []
        for (index, block) in blocks.enumerated() {
            if moves.isEmpty { moves.reserveCapacity(min(configuration.limits.sliceBlocks, blocks.count - index)) }
            moves.append(
                BlockMove(
                    key: known[block].key, block: block, position: known[block].depth, source: known[block].dramSlot,
                    destination: 0))
            if moves.count == configuration.limits.sliceBlocks { startSpill(&moves) }
        }
        startSpill(&moves)
    }

    private mutating func startSpill(_ moves: inout [BlockMove]) {
        guard !moves.isEmpty else { return }
        if !start(.spill, from: .dram, to: .flash, request: -1, moves) {
            for move in moves { giveUpPromise(move.block) }
        }
        moves = []
    }

    mutating func spillArrived(_ index: Int, _ end: TransferEnd) {
        let moves = transfers[index].moves
        var fates = MoveFates(end)
        for position in moves.indices {
            let block = moves[position].block
            let cause = fates.cause(of: position)
            switch cause {
            // The store takes nothing that does not fit its checksum: then it is our copy that is wrong.
            case .corrupt: distrustDRAM(block)
            case .refused: noteLoss(block, .refused)
            case .overQuota: known[block].fate = .quota
            case .absent, .failed, nil: break
            }
            known[block].flags.remove(.promised)
            if cause == nil {
                hear(block, isPresent: true)
            } else {
                counters.spillsDropped += 1
            }
            endDRAMRead(block)
        }
    }
}
