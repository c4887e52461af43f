// Pins: blocks that somebody wants kept, against a budget and until a time.

import KVModel

/// A pin in force.
struct Pin {
    var number: UInt32
    var owner: Int
    var dramBlocks: [BlockNumber]
    var nvmeBlocks: [BlockNumber]

    var blocks: Int { dramBlocks.count + nvmeBlocks.count }

    func holds(_ block: BlockNumber) -> Bool { dramBlocks.contains(block) || nvmeBlocks.contains(block) }
}

extension TieringManager {
    /// Bytes that an owner has pinned.
    public func pinnedBytes(of owner: Int) -> Int { pinnedBytes[owner] }

    /// Grants a pin on the blocks of a chain that a tier keeps, or says why not.
    mutating func pin(_ request: PinRequest) {
        let outcome = grant(request)
        let blocks = outcome == .granted ? pins.last?.blocks ?? 0 : 0
        emit(.pinned(PinAnswer(pin: request.pin, outcome: outcome, blocks: Int32(truncatingIfNeeded: blocks))))
    }

    private mutating func grant(_ request: PinRequest) -> PinAnswer.Outcome {
        guard pinnedBytes.indices.contains(Int(request.owner)), !pins.contains(where: { $0.number == request.pin })
        else { return .invalid }
        guard request.expires > now else { return .expired }
        guard pins.count < configuration.limits.pinsMax else { return .tooMany }
        var pin = Pin(number: request.pin, owner: Int(request.owner), dramBlocks: [], nvmeBlocks: [])
        var seen: Set<BlockNumber> = []
        for key in request.chain {
            guard let block = known.find(key), seen.insert(block).inserted else { break }
            if known[block].dram == .present, known[block].flags.contains(.keptInDRAM) {
                pin.dramBlocks.append(block)
            } else if known[block].nvme == .present, known[block].flags.contains(.keptOnNVMe) {
                pin.nvmeBlocks.append(block)
            } else {
                break
            }
        }
        guard pin.blocks > 0 else { return .nothingHere }
        let bytes = pin.blocks * configuration.blockBytes
        guard pinnedBytes[pin.owner] + bytes <= configuration.pinBudgetBytes[pin.owner] else { return .overBudget }
        guard setDeadline(.pin(request.pin), at: request.expires) else { return .tooMany }
        for block in pin.dramBlocks { dramPolicy?.pin(block) }
        for block in pin.nvmeBlocks { nvmePolicy?.pin(block) }
        // A pinned number is in use: it is not given to another key, whatever becomes of the bytes.
        for block in pin.dramBlocks + pin.nvmeBlocks { known[block].users += 1 }
        pinnedBytes[pin.owner] += bytes
        pins.append(pin)
        return .granted
    }

    /// A block leaves the policies' hands by force: pins let go of it and of what is deeper.
    mutating func loosenPins(at block: BlockNumber) {
        for place in pins.indices {
            guard pins[place].dramBlocks.contains(block) || pins[place].nvmeBlocks.contains(block) else { continue }
            let depth = known[block].depth
            let dramLoose = pins[place].dramBlocks.filter { known[$0].depth >= depth }
            let nvmeLoose = pins[place].nvmeBlocks.filter { known[$0].depth >= depth }
            for block in dramLoose { dramPolicy?.unpin(block) }
            for block in nvmeLoose { nvmePolicy?.unpin(block) }
            for block in dramLoose + nvmeLoose { known[block].users -= 1 }
            pins[place].dramBlocks.removeAll { known[$0].depth >= depth }
            pins[place].nvmeBlocks.removeAll { known[$0].depth >= depth }
            pinnedBytes[pins[place].owner] -= (dramLoose.count + nvmeLoose.count) * configuration.blockBytes
        }
    }

    mutating func pinExpired(_ number: UInt32) { unpin(number) }

    mutating func unpin(_ number: UInt32) {
        guard let place = pins.firstIndex(where: { $0.number == number }) else { return }
        let pin = pins.remove(at: place)
        for block in pin.dramBlocks { dramPolicy?.unpin(block) }
        for block in pin.nvmeBlocks { nvmePolicy?.unpin(block) }
        for block in pin.dramBlocks + pin.nvmeBlocks { known[block].users -= 1 }
        pinnedBytes[pin.owner] -= pin.blocks * configuration.blockBytes
    }
}
