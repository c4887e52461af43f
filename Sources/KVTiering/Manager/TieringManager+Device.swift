// The device's memory as the tier above node memory: blocks come up into slots that engines read in place, new blocks are
// written there by engines and become blocks where they lie, and node memory gets its copy at once, so that a full device
// only has to forget.

import KVModel

extension TieringManager {
    /// Slots of the device in use, blocks on their way and reserved ones included, and all.
    public var deviceSlots: (used: Int, count: Int) { (device.slots.usedCount, device.slots.count) }

    /// Whether some tier of the node or the shared store has the block.
    @inline(__always)
    func isAnywhere(_ block: BlockNumber) -> Bool { isBelowDevice(block) || device.holds(block) }

    private func isBelowDevice(_ block: BlockNumber) -> Bool {
        known[block].dram == .present || known[block].nvme == .present || known[block].flash == .present
    }

    // MARK: Slots

    /// A slot of the device, the oldest idle one if none is free.
    mutating func takeDeviceSlot(for block: BlockNumber) -> SlotIndex? {
        guard !device.isLost else { return nil }
        if device.slots.freeCount == 0 {
            guard let idle = device.slots.oldestIdle else { return nil }
            device.remove(idle)
            counters.hbmEvictions += 1
            noteLoss(idle, .evicted)
        }
        return device.slots.take(for: block)
    }

    /// Writes down what only the device has before its place is needed, the oldest first, as far as node memory has idle slots.
    mutating func sinkOldest() {
        let most = min(device.lowWater, configuration.limits.sliceBlocks) - device.sinking
        guard most > 0, !device.isLost, device.slots.freeCount < device.lowWater else { return }
        var moves: [BlockMove] = []
        for block in device.slots.oldestIdle(most)
        where !isBelowDevice(block) && known[block].dram == .absent {
            guard let move = moveDown(block, keepingFree: (stagingCount + 1) / 2) else { break }
            moves.append(move)
        }
        guard !moves.isEmpty else { return }
        let count = moves.count
        if startDown(.demote, &moves) { device.sinking += count }
    }

    /// The device is used no more. What lay there is found no more, and only what was copied down is left; the slots of readers
    /// wait for them. What is on its way up ends undone by itself.
    mutating func deviceLost() {
        guard device.isOn, !device.isLost else { return }
        device.isLost = true
        // In order: what leaves first is no matter, but it must be the same each time.
        for block in device.blocks.keys.sorted() where device.holds(block) {
            device.spoil(block)
            noteLoss(block, .lost)
        }
        for waiting in loading.reversed() { pump(waiting) }
    }

    // MARK: Down into node memory

    /// Takes a slot of node memory for a block of the device.
    private mutating func moveDown(_ block: BlockNumber, keepingFree: Int) -> BlockMove? {
        guard let entry = device[block], let place = takeDRAMSlot(for: block, keepingFree: keepingFree) else {
            return nil
        }
        known[block].dram = .filling
        known[block].dramSlot = place
        device.beginRead(block)
        return BlockMove(
            key: known[block].key, block: block, position: known[block].depth, source: entry.slot, destination: place)
    }

    private mutating func startDown(_ kind: TransferKind, _ moves: inout [BlockMove]) -> Bool {
        guard !moves.isEmpty else { return true }
        defer { moves.removeAll(keepingCapacity: true) }
        if start(kind, from: .hbm, to: .dram, request: -1, moves) { return true }
        counters.savesDropped += moves.count
        for move in moves.reversed() {
            known[move.block].flags.remove(.writeThrough)
            endDeviceRead(move.block)
            dropDRAM(move.block, fate: .none)
        }
        return false
    }

    /// Copies of blocks of the device reached node memory, or did not: the device's are idle again.
    mutating func leftDevice(_ index: Int, _ end: TransferEnd) {
        if transfers[index].isSinking { device.sinking -= transfers[index].moves.count }
        // Deepest first: what is idle for longest goes first, and a leaf goes before its parent.
        for (position, move) in transfers[index].moves.enumerated().reversed() {
            if end.outcome == .done,
                end.lost.contains(where: { Int($0.move) == position && $0.cause == .corrupt })
            {
                device.spoil(move.block)
            }
            endDeviceRead(move.block)
        }
    }

    @inline(__always)
    private mutating func endDeviceRead(_ block: BlockNumber) {
        if device.endRead(block) { noteLoss(block, known[block].fate == .corrupt ? .corrupt : .lost) }
    }

    // MARK: New blocks

    /// Slots that an engine filled become blocks where they lie, and node memory gets what it is to keep, or to pass on.
    mutating func saveFromDevice(_ blocks: [BlockNumber], from firstHeld: Int, adopted: Adoption?) {
        let holder = adopted.flatMap { requestSlots[$0.holder] }
        // A writer goes on reading what it wrote: where no request is there to hold it by, the slots stay its own. So they do on a
        // device that was lost, where nothing can be read.
        let isHeld = holder != nil && !device.isLost
        for position in firstHeld..<(isHeld ? max(firstHeld, blocks.count) : firstHeld) {
            let block = blocks[position]
            guard !device.knows(block), let slot = adoptDeviceSlot(at: position - firstHeld, for: block) else {
                continue
            }
            device.place(block, in: slot, .present, readers: 1)
            if let holder { requests[Int(holder)].written.append(block) }
            counters.hbmWrites += 1
        }
        var moves: [BlockMove] = []
        for block in blocks {
            let record = known[block]
            let isKept = record.flags.contains(.keptInDRAM)
            if record.dram == .present {
                settleDRAM(block)
                if isKept { promoted(block) }
                continue
            }
            guard record.dram == .absent, device.holds(block) else { continue }
            let wish = wishes(for: record)
            guard isKept || wish.isForNVMe || wish.isForStore else { continue }
            guard let move = moveDown(block, keepingFree: isKept ? 0 : (stagingCount + 1) / 2) else {
                counters.savesDropped += 1
                continue
            }
            if wish.isForNVMe { known[block].flags.insert(.writeThrough) }
            moves.append(move)
            if moves.count == configuration.limits.sliceBlocks { _ = startDown(.save, &moves) }
        }
        _ = startDown(.save, &moves)
        for block in blocks.reversed() { device.settle(block) }
    }

    /// The full slot of a block that lies in it.
    private mutating func adoptDeviceSlot(at index: Int, for block: BlockNumber) -> SlotIndex? {
        guard loans.isAdopting, loans.adoption.indices.contains(index) else { return nil }
        let slot = loans.adoption[index]
        loans.adoption[index] = BlockRecord.noSlot
        device.slots.reassign(slot, to: block)
        counters.slotsAdopted += 1
        loans.count -= 1
        loans.reservedCount -= 1
        return slot
    }

    // MARK: Up to an engine

    /// Keeps what is on the device already, or on its way there, from being given away before the load is over.
    mutating func holdWhatIsThere(_ slot: Int32) {
        let index = Int(slot)
        let blocks = requests[index].blocks
        requests[index].taken.clear(count: blocks.count)
        for position in Int(requests[index].first)..<Int(requests[index].end)
        where device.expects(blocks[position]) {
            hold(blocks[position], at: position, slot)
        }
    }

    /// Whether the load finds a block of its chain on the device, or on its way there; then it is kept for it.
    mutating func isOnDevice(_ block: BlockNumber, at position: Int, _ slot: Int32) -> Bool {
        guard device.isOn else { return false }
        if !requests[Int(slot)].taken.contains(position), device.expects(block) { hold(block, at: position, slot) }
        return requests[Int(slot)].taken.contains(position)
    }

    private mutating func hold(_ block: BlockNumber, at position: Int, _ slot: Int32) {
        device.beginRead(block)
        requests[Int(slot)].taken.insert(position)
    }

    /// Sends what has arrived in node memory on into slots of the device, in chain order.
    mutating func promote(_ slot: Int32) {
        let index = Int(slot)
        let blocks = requests[index].blocks
        var moves: [BlockMove] = []
        promoting: while requests[index].issued < min(requests[index].end, requests[index].fetched) {
            let position = requests[index].issued
            let block = blocks[Int(position)]
            if isOnDevice(block, at: Int(position), slot) {
                switch device[block]?.presence {
                case .present:
                    releaseLease(slot, at: Int(position))
                    requests[index].issued = position + 1
                    continue
                case .filling: break promoting
                default:
                    cut(slot, at: position, cause: causeOfLoss(block, of: slot))
                    break promoting
                }
            }
            guard known[block].dram == .present, !device.knows(block) else {
                if known[block].dram != .filling { cut(slot, at: position, cause: causeOfLoss(block, of: slot)) }
                break
            }
            guard let place = takeDeviceSlot(for: block) else {
                counters.loadsCutShort += 1
                cut(slot, at: position, cause: .noTier)
                break
            }
            device.place(block, in: place, .filling, readers: 1)
            requests[index].taken.insert(Int(position))
            moves.append(
                BlockMove(
                    key: known[block].key, block: block, position: position, source: known[block].dramSlot,
                    destination: place))
            requests[index].issued = position + 1
            if moves.count == configuration.limits.sliceBlocks, !startPromotion(slot, &moves) { break }
        }
        _ = startPromotion(slot, &moves)
        sinkOldest()
    }

    private mutating func startPromotion(_ slot: Int32, _ moves: inout [BlockMove]) -> Bool {
        guard let first = moves.first?.position else { return true }
        defer { moves.removeAll(keepingCapacity: true) }
        guard start(.load, from: .dram, to: .hbm, request: slot, moves) else {
            counters.loadsCutShort += 1
            for move in moves { device.spoil(move.block) }
            requests[Int(slot)].issued = first
            cut(slot, at: first, cause: .late)
            return false
        }
        // The leases are the transfer's from now on.
        for move in moves { requests[Int(slot)].leases.remove(Int(move.position)) }
        requests[Int(slot)].outstanding += 1
        return true
    }

    /// A block of the load lies on the device: its slot of node memory is not waited for any more.
    private mutating func releaseLease(_ slot: Int32, at position: Int) {
        if requests[Int(slot)].leases.remove(position) { endDRAMRead(requests[Int(slot)].blocks[position]) }
    }

    /// A transfer into the device ended.
    mutating func promotionArrived(_ transfer: Int, _ end: TransferEnd) {
        let moves = transfers[transfer].moves
        let slot = transfers[transfer].requestSlot
        let isWaiting = isCurrent(slot, transfers[transfer].generation) && requests[Int(slot)].state == .loading
        var fates = MoveFates(end, isVoid: device.isLost)
        for (position, move) in moves.enumerated() {
            if let cause = fates.cause(of: position) {
                if cause == .corrupt { distrustDRAM(move.block) }
                device.spoil(move.block)
                if isWaiting { cut(slot, at: move.position, cause: cause == .corrupt ? .corrupt : .late) }
            } else {
                counters.hbmWrites += 1
                device.set(move.block, .present)
                device.settle(move.block)
            }
            endDRAMRead(move.block)
        }
        if isWaiting { requests[Int(slot)].outstanding -= 1 }
        // Others may wait for the same blocks.
        for waiting in loading.reversed() { pump(waiting) }
    }

    /// Whether somebody else waits for a block that is on its way to the device for a request.
    func isSharedOnDevice(_ move: BlockMove, by slot: Int32) -> Bool {
        let own: UInt32 = requests[Int(slot)].taken.contains(Int(move.position)) ? 1 : 0
        return (device[move.block]?.readers ?? 0) > own
    }

    /// A block that proved wrong after the load had passed it ends what can be promised.
    mutating func cutWhatSpoiled(_ slot: Int32) {
        let request = requests[Int(slot)]
        for position in request.first..<request.end
        where device[request.blocks[Int(position)]]?.presence != .present {
            return cut(slot, at: position, cause: device.isLost ? .lostAfterLookUp : .corrupt)
        }
    }

    /// Where the blocks of a load lie.
    func placesOnDevice(_ request: Request) -> [SlotIndex] {
        (request.first..<request.end).map { position in
            guard let entry = device[request.blocks[Int(position)]], entry.presence == .present else {
                preconditionFailure("a block is promised that is not on the device")
            }
            return entry.slot
        }
    }

    /// Lets go of what a load holds from a position on, the deepest block first.
    mutating func releaseTaken(_ slot: Int32, from first: Int) {
        guard device.isOn else { return }
        let index = Int(slot)
        var position = requests[index].taken.count
        while position > first {
            position -= 1
            if requests[index].taken.remove(position) { endDeviceRead(requests[index].blocks[position]) }
        }
    }

    /// A request is over: its engine reads nothing any more.
    mutating func releaseDevice(_ slot: Int32) {
        guard device.isOn else { return }
        let written = requests[Int(slot)].written
        requests[Int(slot)].written = []
        for block in written.reversed() { endDeviceRead(block) }
        releaseTaken(slot, from: 0)
    }
}
