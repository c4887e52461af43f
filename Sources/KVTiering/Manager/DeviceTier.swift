// The slots of a device's memory, the tier above node memory, where they are the agent's to give: which block lies in which
// slot and who reads it there. What only passes by an engine that owns its GPU's memory is none of this.

import KVModel

/// One block's place in the device.
struct DeviceBlock {
    var slot: SlotIndex
    var presence = BlockRecord.Presence.present
    /// Requests whose engines read it where it lies, and transfers that read it.
    var readers: UInt32 = 0
}

/// The device's slots. A block that nobody reads is idle, and the one that has been idle for longest goes first: what a GPU's
/// memory is for is the work at hand, so a policy that holds places there would only take them from engines.
///
/// It keeps a table of its own and not fields of `BlockRecord`: a device has thousands of slots where a node knows millions of
/// blocks, and a node without one pays nothing.
struct DeviceTier {
    var slots: TierSlots
    private(set) var blocks: [BlockNumber: DeviceBlock] = [:]
    /// Slots below which what only the device has is written down ahead of need.
    let lowWater: Int
    /// Blocks on their way down for that reason.
    var sinking = 0
    /// Whether it is used no more.
    var isLost = false

    init(count: Int) {
        slots = TierSlots(count: count)
        lowWater = (count + 7) / 8
        blocks.reserveCapacity(count)
    }

    @inline(__always) var isOn: Bool { slots.count > 0 }

    subscript(_ block: BlockNumber) -> DeviceBlock? { blocks[block] }

    /// Whether the block can be found here.
    @inline(__always)
    func holds(_ block: BlockNumber) -> Bool { isOn && blocks[block]?.presence == .present }

    /// Whether the block is here or on its way here.
    @inline(__always)
    func expects(_ block: BlockNumber) -> Bool {
        guard isOn, let entry = blocks[block] else { return false }
        return entry.presence == .present || entry.presence == .filling
    }

    /// Whether the block has a slot, whatever is in it.
    @inline(__always)
    func knows(_ block: BlockNumber) -> Bool { isOn && blocks[block] != nil }

    mutating func place(_ block: BlockNumber, in slot: SlotIndex, _ presence: BlockRecord.Presence, readers: UInt32) {
        precondition(blocks[block] == nil, "a block has two slots of the device")
        blocks[block] = DeviceBlock(slot: slot, presence: presence, readers: readers)
    }

    mutating func set(_ block: BlockNumber, _ presence: BlockRecord.Presence) { blocks[block]?.presence = presence }

    mutating func beginRead(_ block: BlockNumber) {
        precondition(blocks[block] != nil, "a block is read that the device does not have")
        blocks[block]?.readers += 1
        settle(block)
    }

    /// The last reader of a block whose bytes proved wrong takes it along.
    ///
    /// - Returns: Whether the block's slot was given back.
    @discardableResult
    mutating func endRead(_ block: BlockNumber) -> Bool {
        guard let entry = blocks[block] else { preconditionFailure("a block is let go that the device does not have") }
        precondition(entry.readers > 0, "a block of the device is let go twice")
        blocks[block]?.readers -= 1
        guard entry.presence == .spoiled, entry.readers == 1 else {
            settle(block)
            return false
        }
        remove(block)
        return true
    }

    /// A block that nobody reads is idle, and held otherwise.
    mutating func settle(_ block: BlockNumber) {
        guard let entry = blocks[block], entry.presence == .present else { return }
        let isHeld = entry.readers > 0
        guard isHeld == slots.isIdle(entry.slot) else { return }
        if isHeld { slots.setHeld(entry.slot) } else { slots.setIdle(entry.slot) }
    }

    /// Gives a block's slot back.
    mutating func remove(_ block: BlockNumber) {
        guard let entry = blocks.removeValue(forKey: block) else { return }
        precondition(entry.readers == 0, "a block leaves the device that somebody reads")
        if slots.isIdle(entry.slot) { slots.setHeld(entry.slot) }
        slots.release(entry.slot)
    }

    /// The bytes proved wrong, or did not come: nobody is to find them, and the slot waits for its readers.
    mutating func spoil(_ block: BlockNumber) {
        guard let entry = blocks[block] else { return }
        if entry.presence == .present, slots.isIdle(entry.slot) { slots.setHeld(entry.slot) }
        blocks[block]?.presence = .spoiled
        if entry.readers == 0 { remove(block) }
    }
}
