// Bytes in flight and the slots they hold. Every slot is taken before its transfer starts and given back only after
// the transfer ended and nobody reads it, so a tier's bytes are never exceeded, blocks on their way included.

import KVModel

/// An entry of the table of what is in flight.
struct Transfer {
    enum Use: UInt8 { case unused, move, question }

    var use = Use.unused
    var kind = TransferKind.load
    var from = Tier.dram
    var to = Tier.dram
    var reason = PrefetchReason.queue
    var isCancelled = false
    /// The request concerned, or −1, with its generation.
    var requestSlot: Int32 = -1
    var generation: UInt32 = 0
    var moves: [BlockMove] = []
    /// Of a question: the positions it asks for.
    var asked: [Int32] = []
    /// Whether it writes down what only the device has, ahead of need.
    var isSinking: Bool { kind == .demote && from == .hbm }
}

extension TieringManager {
    // MARK: The table of transfers

    mutating func takeTransfer() -> TransferNumber? {
        if let free = freeTransfers.popLast() { return free }
        guard transfers.count < configuration.limits.transfersMax else {
            counters.transfersDropped += 1
            return nil
        }
        transfers.append(Transfer())
        return TransferNumber(truncatingIfNeeded: transfers.count - 1)
    }

    mutating func releaseTransfer(_ transfer: TransferNumber) {
        transfers[Int(transfer)].use = .unused
        transfers[Int(transfer)].isCancelled = false
        transfers[Int(transfer)].moves = []
        freeTransfers.append(transfer)
    }

    /// Starts a transfer whose slots are taken. `false`: there is no room for it, and nothing was started.
    mutating func start(
        _ kind: TransferKind, from: Tier, to: Tier, request slot: Int32, reason: PrefetchReason = .queue,
        _ moves: [BlockMove]
    ) -> Bool {
        guard let transfer = takeTransfer() else { return false }
        let index = Int(transfer)
        transfers[index].use = .move
        transfers[index].kind = kind
        transfers[index].from = from
        transfers[index].to = to
        transfers[index].reason = reason
        transfers[index].requestSlot = slot
        transfers[index].generation = slot >= 0 ? requests[Int(slot)].generation : 0
        transfers[index].moves = moves
        emit(
            .transfer(
                TransferOrder(
                    transfer: transfer, kind: kind, from: from, to: to,
                    engine: slot >= 0 ? requests[Int(slot)].engine : -1,
                    request: slot >= 0 ? requests[Int(slot)].number : noRequest,
                    bytes: moves.count * configuration.blockBytes, moves: moves)))
        return true
    }

    mutating func transferEnded(_ end: TransferEnd) {
        let index = Int(end.transfer)
        precondition(transfers[index].use == .move, "a transfer ends that is not in flight")
        if end.outcome == .done { countEnd(index, end) }
        switch (transfers[index].from, transfers[index].to) {
        case (.dram, .hbm): if device.isOn { promotionArrived(index, end) } else { loadArrived(index, end) }
        case (.hbm, .dram):
            saveArrived(index, end)
            if device.isOn { leftDevice(index, end) }
        case (.nvme, .dram), (.flash, .dram): fetchArrived(index, end)
        case (.dram, .nvme): demotionArrived(index, end)
        case (.dram, .flash): spillArrived(index, end)
        default: preconditionFailure("a transfer between tiers that do not exchange blocks")
        }
        releaseTransfer(end.transfer)
    }

    private mutating func countEnd(_ index: Int, _ end: TransferEnd) {
        let count = transfers[index].moves.count - end.lost.count
        switch (transfers[index].from, transfers[index].to) {
        case (.nvme, .dram): counters.nvmeReads += count
        case (.flash, .dram): counters.flashReads += count
        case (.hbm, .dram): counters.dramWrites += count
        case (.dram, .nvme): counters.nvmeWrites += count
        case (.dram, .flash): counters.flashWrites += count
        default: break
        }
        for lost in end.lost {
            if lost.cause == .corrupt { counters.blocksCorrupt += 1 }
            if lost.cause == .absent { counters.blocksLost += 1 }
        }
    }

    // MARK: What arrives

    /// Blocks came up into node memory from a lower tier.
    private mutating func fetchArrived(_ index: Int, _ end: TransferEnd) {
        let moves = transfers[index].moves
        let source = transfers[index].from
        var spilled: [BlockNumber] = []
        var isAwaited = false
        var fates = MoveFates(end)
        for position in moves.indices {
            let block = moves[position].block
            if known[block].flags.contains(.awaited) {
                known[block].flags.remove(.awaited)
                isAwaited = true
            }
            let cause = fates.cause(of: position)
            if source == .nvme { endNVMeRead(block) }
            if cause != nil, known[block].flags.contains(.predicted) {
                endPrediction(block, transfers[index].isCancelled ? .cancelled : .failed)
            }
            if let cause {
                giveUpPromise(block)
                fetchFailed(block, from: source, cause)
            } else {
                known[block].dram = .present
                settleDRAM(block)
                if known[block].flags.contains(.promised) { spilled.append(block) }
            }
        }
        spill(spilled)
        if transfers[index].kind != .load { predictions.inFlightCount -= moves.count }
        let slot = transfers[index].requestSlot
        if isAwaited {
            for waiting in loading.reversed() { pump(waiting) }
        } else if isCurrent(slot, transfers[index].generation) {
            pump(slot)
        }
    }

    private mutating func fetchFailed(_ block: BlockNumber, from source: Tier, _ cause: LostMove.Cause) {
        switch cause {
        case .corrupt:
            if source == .nvme { removeFromNVMe(block) }
            if source == .flash { hear(block, isPresent: false) }
            dropDRAM(block, fate: .corrupt)
        case .absent:
            if source == .nvme { removeFromNVMe(block) }
            if source == .flash { hear(block, isPresent: false) }
            dropDRAM(block, fate: .lost)
        case .refused, .failed, .overQuota:
            dropDRAM(block, fate: .none)
        }
    }

    /// New blocks came out of an engine into node memory.
    private mutating func saveArrived(_ index: Int, _ end: TransferEnd) {
        let moves = transfers[index].moves
        var throughNVMe: [BlockNumber] = []
        var spilled: [BlockNumber] = []
        var isAwaited = false
        var fates = MoveFates(end)
        for position in moves.indices {
            let block = moves[position].block
            let failed = fates.cause(of: position) != nil
            if known[block].flags.contains(.awaited) {
                known[block].flags.remove(.awaited)
                isAwaited = true
            }
            let wantsNVMe = known[block].flags.contains(.writeThrough)
            known[block].flags.remove(.writeThrough)
            if failed {
                giveUpPromise(block)
                dropDRAM(block, fate: .lost)
                // Its place is free for others again; under pins nothing is taken away.
                if pins.isEmpty, known[block].flags.contains(.keptInDRAM) { removeFromDRAMPolicy(block) }
                continue
            }
            known[block].dram = .present
            settleDRAM(block)
            if wantsNVMe { throughNVMe.append(block) }
            if known[block].flags.contains(.promised) { spilled.append(block) }
        }
        demote(throughNVMe)
        spill(spilled)
        if isAwaited { for waiting in loading.reversed() { pump(waiting) } }
    }

    private mutating func demotionArrived(_ index: Int, _ end: TransferEnd) {
        let moves = transfers[index].moves
        var fates = MoveFates(end)
        for position in moves.indices {
            let block = moves[position].block
            let failed = fates.cause(of: position) != nil
            if failed {
                nvme.release(known[block].nvmeSlot)
                known[block].nvme = .absent
                known[block].nvmeSlot = BlockRecord.noSlot
            } else {
                known[block].nvme = .present
            }
            endDRAMRead(block)
            settleNVMe(block)
        }
    }

    // MARK: Slots of node memory

    /// A slot for a block that has none, taking the oldest idle one if none is free.
    ///
    /// - Parameter keepingFree: Slots that must remain available to others.
    mutating func takeDRAMSlot(for block: BlockNumber, keepingFree: Int) -> SlotIndex? {
        guard dram.available > keepingFree else { return nil }
        if dram.freeCount == 0, let idle = dram.oldestIdle {
            dram.setHeld(known[idle].dramSlot)
            dropDRAM(idle, fate: .evicted)
            // Slots are needed in a row: the record of the next to go is asked for ahead.
            if let next = dram.oldestIdle { known.willUse(next) }
        }
        return dram.take(for: block)
    }

    /// A block's slot is held while its policy keeps it or somebody reads it, and idle otherwise.
    @inline(__always)
    mutating func settleDRAM(_ block: BlockNumber) {
        guard known[block].dram == .present else {
            if known[block].dram == .spoiled, known[block].dramReaders == 0 { dropDRAM(block, fate: .none) }
            return
        }
        let isHeld = known[block].dramReaders > 0 || known[block].flags.contains(.keptInDRAM)
        let slot = known[block].dramSlot
        if isHeld == dram.isIdle(slot) {
            if isHeld { dram.setHeld(slot) } else { dram.setIdle(slot) }
        }
    }

    @inline(__always)
    mutating func endDRAMRead(_ block: BlockNumber) {
        precondition(known[block].dramReaders > 0, "a lease ends twice")
        known[block].dramReaders -= 1
        settleDRAM(block)
    }

    /// The bytes in node memory are gone, or never came. The slot must not be idle.
    mutating func dropDRAM(_ block: BlockNumber, fate: BlockRecord.Fate) {
        guard known[block].dramSlot != BlockRecord.noSlot else { return }
        if known[block].dram == .present {
            if dram.isIdle(known[block].dramSlot) { dram.setHeld(known[block].dramSlot) }
            counters.dramEvictions += 1
            known[block].evictionOrdinal = UInt32(truncatingIfNeeded: counters.dramEvictions)
        }
        if known[block].flags.contains(.predicted) { endPrediction(block, .failed) }
        dram.release(known[block].dramSlot)
        known[block].dramSlot = BlockRecord.noSlot
        known[block].dram = .absent
        if fate == .evicted {
            notePopular(block)
            noteLoss(block, fate)
        } else if fate != .none {
            known[block].fate = fate
        }
    }

    /// A block left a tier: if no other has it, that is why it will be missed.
    mutating func noteLoss(_ block: BlockNumber, _ fate: BlockRecord.Fate) {
        guard !isAnywhere(block) else { return }
        // What the store had no quota for would be there: that it left node memory later is not why.
        if fate == .evicted, known[block].fate == .quota { return }
        known[block].fate = fate
    }

    /// The bytes in node memory proved wrong: nobody is to find them again. The slot waits for its readers.
    mutating func distrustDRAM(_ block: BlockNumber) {
        known[block].fate = .corrupt
        guard known[block].dram == .present else { return }
        if known[block].flags.contains(.predicted) { endPrediction(block, .failed) }
        removeFromDRAMPolicy(block)
        if dram.isIdle(known[block].dramSlot) { dram.setHeld(known[block].dramSlot) }
        known[block].dram = .spoiled
        settleDRAM(block)
    }

    /// Takes a block out of the policy's hands, and with it what the policy can no longer reach.
    mutating func removeFromDRAMPolicy(_ block: BlockNumber) {
        loosenPins(at: block)
        var evicted: [BlockNumber] = []
        dramPolicy?.remove(block, evicted: &evicted)
        for block in evicted {
            known[block].flags.remove(.keptInDRAM)
            settleDRAM(block)
        }
    }

    // MARK: Slots of local flash

    mutating func endNVMeRead(_ block: BlockNumber) {
        precondition(known[block].nvmeReaders > 0, "a lease on local flash ends twice")
        known[block].nvmeReaders -= 1
        settleNVMe(block)
    }

    /// The copy on local flash is wrong or gone: nobody is to find it again.
    mutating func removeFromNVMe(_ block: BlockNumber) {
        guard known[block].nvme == .present else { return }
        loosenPins(at: block)
        var evicted: [BlockNumber] = []
        nvmePolicy?.remove(block, evicted: &evicted)
        known[block].nvme = .spoiled
        if !evicted.contains(block) { settleNVMe(block) }
        for block in evicted {
            known[block].flags.remove(.keptOnNVMe)
            settleNVMe(block)
        }
    }

    /// Takes a place on local flash that has no bytes out of the policy's hands, and with it what the policy can no longer reach.
    mutating func removeFromNVMePolicy(_ block: BlockNumber) {
        var evicted: [BlockNumber] = []
        nvmePolicy?.remove(block, evicted: &evicted)
        for block in evicted {
            known[block].flags.remove(.keptOnNVMe)
            settleNVMe(block)
        }
    }

    /// A slot of local flash goes when the policy keeps its block no more and nobody reads it.
    mutating func settleNVMe(_ block: BlockNumber) {
        let isWanted = known[block].nvme == .present && known[block].flags.contains(.keptOnNVMe)
        guard known[block].nvmeSlot != BlockRecord.noSlot, known[block].nvme != .filling, !isWanted,
            known[block].nvmeReaders == 0
        else { return }
        nvme.release(known[block].nvmeSlot)
        known[block].nvmeSlot = BlockRecord.noSlot
        known[block].nvme = .absent
        counters.nvmeEvictions += 1
        noteLoss(block, .evicted)
    }
}
