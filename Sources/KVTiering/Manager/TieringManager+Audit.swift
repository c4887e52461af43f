// The manager checked against itself, for tests and simulations: counts that must agree, whatever happened.

import KVModel

extension TieringManager {
    /// Every rule that is broken, in words; empty when all hold. Walks everything: not for the hot path.
    public func audit() -> [String] {
        var broken: [String] = []
        func check(_ holds: Bool, _ rule: String) {
            if !holds { broken.append(rule) }
        }
        var dramUsed = 0
        var dramIdle = 0
        var dramKept = 0
        var nvmeUsed = 0
        var dramOwners = Set<SlotIndex>()
        var nvmeOwners = Set<SlotIndex>()
        for block in 0..<known.numberLimit {
            let record = known[block]
            check((record.dramSlot == BlockRecord.noSlot) == (record.dram == .absent), "a slot of DRAM without a block")
            check((record.nvmeSlot == BlockRecord.noSlot) == (record.nvme == .absent), "a slot of NVMe without a block")
            if record.dramSlot != BlockRecord.noSlot {
                dramUsed += 1
                check(dramOwners.insert(record.dramSlot).inserted, "two blocks in one slot of DRAM")
                let isHeld = record.dramReaders > 0 || record.flags.contains(.keptInDRAM) || record.dram != .present
                check(dram.isIdle(record.dramSlot) != isHeld, "a slot of DRAM is idle that is held, or not idle")
                if dram.isIdle(record.dramSlot) { dramIdle += 1 }
            }
            if record.nvmeSlot != BlockRecord.noSlot {
                nvmeUsed += 1
                check(nvmeOwners.insert(record.nvmeSlot).inserted, "two blocks in one slot of NVMe")
            }
            if record.flags.contains(.keptInDRAM) { dramKept += 1 }
            let isResident = dramPolicy?.isResident(block) ?? false
            check(isResident == record.flags.contains(.keptInDRAM), "the policy of DRAM and its manager disagree")
            let isBelow = nvmePolicy?.isResident(block) ?? false
            check(isBelow == record.flags.contains(.keptOnNVMe), "the policy of NVMe and its manager disagree")
            check(
                record.flags.contains(.predicted) == (predictions.holdOf[block] != nil), "a prediction without a hold")
        }
        check(dramUsed + (device.isOn ? 0 : loans.reservedCount) == dram.usedCount, "slots of DRAM leaked")
        let lent = requests.reduce(loans.reservedCount) { $0 + $1.loanedSlots }
        check(lent == loans.count, "slots that engines hold miscounted")
        check(device.isOn || loans.count <= configuration.loanSlotsMax, "engines hold more slots than they may")
        broken += auditDevice()
        check(dramIdle == dram.idleCount, "idle slots of DRAM miscounted")
        check(nvmeUsed == nvme.usedCount, "slots of NVMe leaked")
        check(dramUsed * configuration.blockBytes <= configuration.dram?.bytes ?? 0, "DRAM beyond its bytes")
        check(nvmeUsed * configuration.blockBytes <= configuration.nvme?.bytes ?? 0, "NVMe beyond its bytes")
        check(dramKept <= dramPolicy?.capacity ?? 0, "more blocks kept than DRAM is given")
        var early = 0
        for transfer in transfers where transfer.use == .move && transfer.to == .dram {
            if transfer.kind == .prefetch || transfer.kind == .stage { early += transfer.moves.count }
        }
        check(early == predictions.inFlightCount, "predicted blocks in flight miscounted")
        let budget = predictions.configuration?.bytesInFlightMax ?? 0
        check(early * configuration.blockBytes <= budget, "more bytes in flight for predictions than allowed")
        check(predictions.heldCount <= predictions.slotsMax, "predictions hold more slots than allowed")
        check(ledger.total == ledger.promptTokens, "the ledger does not add up")
        return broken
    }

    private func auditDevice() -> [String] {
        guard device.isOn else { return [] }
        var broken: [String] = []
        func check(_ holds: Bool, _ rule: String) {
            if !holds { broken.append(rule) }
        }
        var (idle, readers) = (0, 0)
        var owners = Set(loans.reservations.values.joined())
        check(owners.count == loans.reservedCount, "reserved slots of the device miscounted")
        for (block, entry) in device.blocks {
            check(owners.insert(entry.slot).inserted, "two owners of one slot of the device")
            check(known[block].flags.contains(.named), "a block of the device has no name")
            let isIdle = entry.readers == 0 && entry.presence == .present
            check(device.slots.isIdle(entry.slot) == isIdle, "a slot of the device is idle that is held, or not idle")
            check(entry.presence != .spoiled || entry.readers > 0, "a wrong block stays on the device for nobody")
            if isIdle { idle += 1 }
            readers += Int(entry.readers)
        }
        check(owners.count == device.slots.usedCount, "slots of the device leaked")
        check(idle == device.slots.idleCount, "idle slots of the device miscounted")
        check(owners.count * configuration.blockBytes <= configuration.hbmBytes, "the device beyond its bytes")
        var held = 0
        for request in requests {
            held += request.written.count
            held += (0..<request.taken.count).count { request.taken.contains($0) }
        }
        for transfer in transfers where transfer.use == .move && transfer.from == .hbm { held += transfer.moves.count }
        check(held == readers, "readers of the device miscounted")
        let sinking = transfers.reduce(0) { $0 + ($1.use == .move && $1.isSinking ? $1.moves.count : 0) }
        check(sinking == device.sinking, "blocks that sink from the device miscounted")
        return broken
    }

    /// Leases, users, transfers, offers and predictions in force: all zero when nothing is in flight.
    public func inFlight() -> (leases: Int, users: Int, transfers: Int, offers: Int, predictions: Int) {
        var leases = 0
        var users = 0
        for block in 0..<known.numberLimit {
            leases += Int(known[block].dramReaders) + known[block].nvmeReaders
            users += Int(known[block].users)
        }
        for entry in device.blocks.values { leases += Int(entry.readers) }
        return (
            leases, users, transfers.count - freeTransfers.count, offers.count - freeOffers.count,
            predictions.heldCount
        )
    }

    /// Slots of node memory and of local flash: those in use, blocks on their way included, and all.
    public var slotCounts: (dramUsed: Int, dram: Int, nvmeUsed: Int, nvme: Int) {
        (dram.usedCount, dram.count, nvme.usedCount, nvme.count)
    }

    /// In which tiers a block can be found; of the shared store, what it last said.
    public func whereabouts(_ key: BlockKey) -> [Tier] {
        guard let block = known.find(key) else { return [] }
        var tiers: [Tier] = device.holds(block) ? [.hbm] : []
        if known[block].dram == .present { tiers.append(.dram) }
        if known[block].nvme == .present { tiers.append(.nvme) }
        if known[block].flash == .present { tiers.append(.flash) }
        return tiers
    }

    /// Whether a block can be found in a tier, and in which slot.
    public func slot(of key: BlockKey, in tier: Tier) -> SlotIndex? {
        guard let block = known.find(key) else { return nil }
        switch tier {
        case .dram: return known[block].dram == .present ? known[block].dramSlot : nil
        case .nvme: return known[block].nvme == .present ? known[block].nvmeSlot : nil
        case .hbm: return device.holds(block) ? device[block]?.slot : nil
        case .flash: return nil
        }
    }
}
