// Slots of a device that are ours: copies between them and node memory on the device's own queues, every checksum compared
// before a block counts as arrived. What an engine writes there the agent reads first when it copies it down.

import KVMemory
import KVModel
import KVSystem
import KVTiering

/// The device's slots, and what lies in them.
struct DeviceSlots {
    let memory: any DeviceMemory
    private var contents: [SlotContent]

    init(_ memory: any DeviceMemory) {
        self.memory = memory
        contents = [SlotContent](repeating: SlotContent(), count: memory.slotCount)
    }

    subscript(_ slot: UInt32) -> SlotContent {
        get { contents[Int(slot)] }
        set { contents[Int(slot)] = newValue }
    }
}

extension LiveWorld {
    /// Whether a transfer touches memory that is an engine's own.
    func touchesEngine(_ order: TransferOrder) -> Bool { device == nil && order.touchesEngine }

    // MARK: What engines write and read

    /// Blocks that an engine wrote into its reserved slots have names now.
    mutating func takeWritten() {
        for block in desk.written { device?[block.slot] = block.content }
        desk.written.removeAll(keepingCapacity: true)
    }

    /// An engine writes into these slots from now on: what lay there is gone.
    mutating func giveAwayOnDevice(_ given: [SlotIndex]) {
        for slot in given { replaceOnDevice(slot, SlotContent()) }
    }

    private mutating func replaceOnDevice(_ slot: SlotIndex, _ content: SlotContent) {
        let old = device?[slot].name ?? ObjectName.none
        if desk.hasSubscribers, old != .none, old != content.name { left.append(old) }
        device?[slot] = content
    }

    /// The blocks of a load lie on the device: its engine is told where.
    mutating func lendOnDevice(_ ready: Ready) {
        guard let device else { return }
        for (index, slot) in ready.slots.enumerated() {
            let content = device[slot]
            desk.lend(
                ready.request, at: ready.first + Int32(truncatingIfNeeded: index),
                LeasedBlock(slot: slot, checksum: content.checksum, hasChecksum: content.hasChecksum))
        }
    }

    // MARK: Copies

    /// Hands the next few blocks to the device's queue.
    mutating func beginDeviceCopy(_ index: Int, _ device: DeviceSlots) -> Bool {
        let flight = flights[index]
        let moves = flight.order.moves
        let isUp = flight.path == .intoEngine
        let perPiece = max(1, min(16, settings.limits.copyBytesMax / settings.blockBytes))
        var check = CopyCheck.compare
        var copies: [BlockCopy] = []
        for move in moves[flight.next..<min(moves.count, flight.next + perPiece)] {
            let content = isUp ? slots[move.source] : device[move.source]
            let wanted: CopyCheck = content.hasChecksum ? .compare : .take
            if copies.isEmpty { check = wanted }
            guard content.name.blockKey == move.key, wanted == check else { break }
            let bytes = Int(content.payloadBytes)
            let host = slots.slice(isUp ? move.source : move.destination, bytes)
            let there = device.memory.slice(Int(isUp ? move.destination : move.source), bytes)
            copies.append(
                BlockCopy(
                    from: isUp ? host : there, to: isUp ? there : host, name: content.name, checksum: content.checksum))
        }
        guard !copies.isEmpty else { return lose(index, through: flight.next + 1) }
        let order = DeviceCopies(
            tag: tag(index, flight.next), direction: isUp ? .toDevice : .toHost, copies: copies, check: check)
        guard device.memory.submit(order) == .accepted else {
            guard underWay[flight.path.rawValue] == 0 else { return false }
            // Full with nothing under way is a device that was lost: nothing will ever come back from it.
            noteLoss(of: device)
            return lose(index, through: moves.count)
        }
        flights[index].next += copies.count
        flights[index].outstanding += copies.count
        underWay[flight.path.rawValue] += 1
        return true
    }

    /// Copies came back from the device.
    mutating func deviceCopied(_ copies: DeviceCopies) {
        guard let (index, first) = move(of: copies.tag) else {
            preconditionFailure("a device gives back what was not asked for")
        }
        underWay[flights[index].path.rawValue] -= 1
        if let device, !copies.copies.allSatisfy(\.isWhole) { noteLoss(of: device) }
        for (offset, copy) in copies.copies.enumerated() {
            let move = flights[index].order.moves[first + offset]
            if copy.isWhole {
                settleCopy(copy, move, copies.direction)
                moveEnded(index, first + offset, nil)
            } else if copies.mayStillWrite {
                // A lost device may still write there: the slot is never used again.
                counters.quarantined += 1
            } else {
                moveEnded(index, first + offset, cause(of: copy, copies))
            }
        }
    }

    /// Tells the decisions, once, of a device that is used no more.
    private mutating func noteLoss(of device: DeviceSlots) {
        guard !deviceIsLost, device.memory.failure != nil else { return }
        deviceIsLost = true
        isPublished = false
        ordinary.append(DueEvent(event: .deviceLost, request: noRequest))
    }

    private mutating func settleCopy(_ copy: BlockCopy, _ move: BlockMove, _ direction: DeviceDirection) {
        switch direction {
        case .toDevice: replaceOnDevice(move.destination, slots[move.source])
        case .toHost:
            device?[move.source].checksum = copy.checksum
            device?[move.source].hasChecksum = true
            noteLeaving(move.destination, for: copy.name)
            if let content = device?[move.source] { slots[move.destination] = content }
        }
    }

    /// Whether bytes were wrong or their copy was not made: a device says only that a block is not there whole.
    private func cause(of copy: BlockCopy, _ copies: DeviceCopies) -> LostMove.Cause {
        switch copies.direction {
        case .toDevice:
            let sum = unsafe BlockChecksum.of(copy.name, UnsafeRawBufferPointer(slots.memory[copy.from]))
            return sum == copy.checksum ? .failed : .corrupt
        case .toHost: return copies.check == .compare ? .corrupt : .failed
        }
    }
}
