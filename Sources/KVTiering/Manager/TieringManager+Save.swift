// A prompt is computed: every token is booked, each tier's policy sees the path once, and what is to be kept starts
// on its way. Policies judge whole paths and decide who deserves a place; the place fills when bytes come.

import KVModel

extension TieringManager {
    mutating func computed(_ computed: Computed) {
        if let adopted = computed.adopted { beginAdoption(adopted) }
        defer { if computed.adopted != nil { endAdoption() } }
        guard let slot = requestSlots[computed.request] else { return }
        let parts = computed.parts.subtracting(requests[Int(slot)].computedParts)
        requests[Int(slot)].computedParts.formUnion(parts)
        if parts.contains(.booked) {
            book(slot, knownBlocks: computed.knownBlocks, engineBlocks: computed.engineBlocks)
        }
        guard parts.contains(.kept) else { return }
        guard configuration.dram != nil else { return noteNoTier(slot) }
        if let turn = turn(of: slot) { return keepPiece(slot, of: turn, computed) }
        if requests[Int(slot)].pieceOf != noRequest, computed.firstHeld > 0 { return keepLatePiece(slot, computed) }
        let path = requests[Int(slot)].blocks
        countUses(slot, upTo: path.count)
        defer { if !path.isEmpty { learnPath(slot) } }
        let end = reach(of: path, firstHeld: Int(computed.firstHeld))
        let blocks = end == path.count ? path : Array(path[..<end])
        guard !blocks.isEmpty else { return }
        var context = requests[Int(slot)].context(blockTokens: configuration.blockTokens, now: now)
        if end < path.count { context.lastBlockIsPartial = false }
        show(blocks, of: slot, context)
        bringOut(slot, blocks, computed)
        if configuration.hasStore { offer(blocks, context, from: spillStart(blocks)) }
    }

    /// Counts a request among the uses of its leading blocks, each once.
    mutating func countUses(_ slot: Int32, upTo end: Int) {
        let counted = requests[Int(slot)].counted
        guard counted < end else { return }
        requests[Int(slot)].counted = end
        let path = requests[Int(slot)].blocks
        for block in path[counted..<end] {
            known[block].uses = known[block].uses == .max ? .max : known[block].uses + 1
        }
    }

    /// Shows the tiers' policies what they have not seen yet of a request's path.
    mutating func show(_ blocks: [BlockNumber], of slot: Int32, _ context: RequestContext) {
        let shown = requests[Int(slot)].shown
        guard shown < blocks.count else { return }
        requests[Int(slot)].shown = blocks.count
        let evicted = accessDRAM(blocks, from: shown, context)
        accessNVMe(blocks, from: shown, context)
        noteUpkeep()
        leaveDRAM(evicted)
    }

    /// Brings what is to be kept of a path out of its engine.
    mutating func bringOut(_ slot: Int32, _ blocks: [BlockNumber], _ computed: Computed) {
        if device.isOn {
            saveFromDevice(blocks, from: Int(computed.firstHeld), adopted: computed.adopted)
        } else {
            save(slot, blocks, from: Int(computed.firstHeld))
        }
    }

    /// How many leading blocks of a path there is any point in keeping. Behind them nothing is in a tier or held by the
    /// engine for us: a place that a policy gave it would stay empty, and real blocks would be refused for it.
    private func reach(of path: [BlockNumber], firstHeld: Int) -> Int {
        var end = path.count
        while end > 0, end <= firstHeld {
            let record = known[path[end - 1]]
            guard record.dram == .absent, record.nvme == .absent, record.flash != .present,
                !device.knows(path[end - 1])
            else { break }
            end -= 1
        }
        return end
    }

    private mutating func noteNoTier(_ slot: Int32) {
        let blocks = requests[Int(slot)].blocks
        for block in blocks { known[block].fate = .noTier }
    }

    // MARK: The policies

    /// Shows the path, of which `shown` leading blocks were shown before, to the policy of node memory.
    ///
    /// - Returns: The blocks that it keeps no more.
    private mutating func accessDRAM(
        _ blocks: [BlockNumber], from shown: Int, _ context: RequestContext
    ) -> [BlockNumber] {
        var evicted: [BlockNumber] = []
        swap(&evicted, &scratchEvicted)
        evicted.clear()
        if shown == 0 {
            dramPolicy?.access(blocks.span, context, evicted: &evicted)
        } else {
            dramPolicy?.extend(blocks.span, from: shown, context, evicted: &evicted)
        }
        dramPolicy?.takeForgotten(into: &scratchForgotten)
        scratchForgotten.clear()
        for block in evicted { known[block].flags.remove(.keptInDRAM) }
        guard let policy = dramPolicy else { return [] }
        for block in blocks where !known[block].flags.contains(.keptInDRAM) && policy.isResident(block) {
            known[block].flags.insert(.keptInDRAM)
            settleDRAM(block)
        }
        return evicted
    }

    /// Shows the path to the policy of local flash.
    private mutating func accessNVMe(_ blocks: [BlockNumber], from shown: Int, _ context: RequestContext) {
        guard nvmePolicy != nil else { return }
        var evicted: [BlockNumber] = []
        if shown == 0 {
            nvmePolicy?.access(blocks.span, context, evicted: &evicted)
        } else {
            nvmePolicy?.extend(blocks.span, from: shown, context, evicted: &evicted)
        }
        nvmePolicy?.takeForgotten(into: &scratchForgotten)
        scratchForgotten.clear()
        for block in evicted { known[block].flags.remove(.keptOnNVMe) }
        if let policy = nvmePolicy {
            for block in blocks where !known[block].flags.contains(.keptOnNVMe) && policy.isResident(block) {
                known[block].flags.insert(.keptOnNVMe)
            }
        }
        for block in evicted { settleNVMe(block) }
    }

    /// Blocks lost their place in node memory: what a lower tier wants and lacks is written there first.
    private mutating func leaveDRAM(_ evicted: [BlockNumber]) {
        var demoted: [BlockNumber] = []
        var spillFrom: [BlockNumber] = []
        for block in evicted {
            let record = known[block]
            guard record.dram == .present, !record.flags.contains(.keptInDRAM) else { continue }
            if configuration.inclusion != .inclusive, record.flags.contains(.keptOnNVMe), record.nvme == .absent {
                demoted.append(block)
            }
            if configuration.hasStore, configuration.spill == .onEviction, record.flash != .present {
                spillFrom.append(block)
            }
        }
        demote(demoted)
        offerEvicted(spillFrom)
        for block in evicted { settleDRAM(block) }
        scratchEvicted = evicted
    }

    // MARK: Into node memory

    /// Brings what node memory, or a tier behind it, is to keep out of the engine. Blocks that only pass through use
    /// staging slots, of which loads find at least a half free.
    private mutating func save(_ slot: Int32, _ blocks: [BlockNumber], from firstHeld: Int) {
        var moves: [BlockMove] = []
        // Of blocks that the engine does not hold for us only an exclusive lower tier's copies have a way to go.
        let first = configuration.inclusion == .exclusive ? 0 : min(firstHeld, blocks.count)
        for position in first..<blocks.count {
            let block = blocks[position]
            let record = known[block]
            let isKept = record.flags.contains(.keptInDRAM)
            if record.dram == .present {
                if isKept { promoted(block) }
                continue
            }
            guard record.dram == .absent, position >= firstHeld else { continue }
            let (isForNVMe, isForStore) = wishes(for: record)
            guard isKept || isForNVMe || isForStore else {
                if record.nvme != .present, record.flash != .present { known[block].fate = .refused }
                continue
            }
            let offered = adoptSlot(at: position - firstHeld, for: block)
            guard let place = offered ?? takeDRAMSlot(for: block, keepingFree: isKept ? 0 : (stagingCount + 1) / 2)
            else {
                counters.savesDropped += 1
                if !isKept { known[block].fate = .refused }
                continue
            }
            known[block].dram = .filling
            known[block].dramSlot = place
            if isForNVMe { known[block].flags.insert(.writeThrough) }
            if moves.isEmpty { moves.reserveCapacity(min(configuration.limits.sliceBlocks, blocks.count - position)) }
            moves.append(
                BlockMove(
                    key: record.key, block: block, position: Int32(truncatingIfNeeded: position), source: 0,
                    destination: place))
            if moves.count == configuration.limits.sliceBlocks { startSave(slot, &moves) }
        }
        startSave(slot, &moves)
    }

    /// Whether local flash and the shared store want a block that comes into node memory.
    func wishes(for record: BlockRecord) -> (isForNVMe: Bool, isForStore: Bool) {
        let isKept = record.flags.contains(.keptInDRAM)
        let throughNVMe = configuration.inclusion == .inclusive && record.flags.contains(.keptOnNVMe)
        return (
            record.flags.contains(.keptOnNVMe) && record.nvme == .absent && (throughNVMe || !isKept),
            configuration.hasStore && configuration.spill != .never && record.flash != .present
        )
    }

    private mutating func startSave(_ slot: Int32, _ moves: inout [BlockMove]) {
        guard !moves.isEmpty else { return }
        if !start(.save, from: .hbm, to: .dram, request: slot, moves) {
            counters.savesDropped += moves.count
            for move in moves {
                known[move.block].flags.remove(.writeThrough)
                dropDRAM(move.block, fate: .refused)
            }
        }
        // The transfer has the array now.
        moves = []
    }

    /// A block is kept in node memory: an exclusive lower tier gives its copy up.
    mutating func promoted(_ block: BlockNumber) {
        guard configuration.inclusion == .exclusive, known[block].nvme == .present, known[block].nvmeReaders == 0 else {
            return
        }
        // A pin holds the block where it was granted: the copy above is nobody's promise.
        guard !pins.contains(where: { $0.nvmeBlocks.contains(block) }) else { return }
        nvme.release(known[block].nvmeSlot)
        known[block].nvmeSlot = BlockRecord.noSlot
        known[block].nvme = .absent
    }

    // MARK: Down to local flash

    /// Writes blocks of node memory to local flash, as far as slots, the write budget and the transfers allow.
    mutating func demote(_ blocks: [BlockNumber]) {
        var moves: [BlockMove] = []
        for block in blocks {
            guard known[block].nvme == .absent, known[block].dram == .present else { continue }
            guard nvme.freeCount > 0, nvmeBudget.take(configuration.blockBytes, at: now),
                let place = nvme.take(for: block)
            else {
                counters.demotionsDropped += 1
                continue
            }
            known[block].nvme = .filling
            known[block].nvmeSlot = place
            known[block].dramReaders += 1
            settleDRAM(block)
            moves.append(
                BlockMove(
                    key: known[block].key, block: block, position: known[block].depth, source: known[block].dramSlot,
                    destination: place))
            if moves.count == configuration.limits.sliceBlocks { startDemotion(&moves) }
        }
        startDemotion(&moves)
    }

    private mutating func startDemotion(_ moves: inout [BlockMove]) {
        guard !moves.isEmpty else { return }
        if !start(.demote, from: .dram, to: .nvme, request: -1, moves) {
            counters.demotionsDropped += moves.count
            for move in moves {
                nvme.release(move.destination)
                known[move.block].nvmeSlot = BlockRecord.noSlot
                known[move.block].nvme = .absent
                endDRAMRead(move.block)
            }
        }
        moves = []
    }
}
