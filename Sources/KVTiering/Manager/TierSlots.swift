// The slots of one tier: a fixed number of places of one block each, so the tier's bytes can never be exceeded.
// It knows which block has which slot and which slots could be had; which block deserves one is decided elsewhere.

import KVModel

/// A fixed number of slots. A slot is free, held, or idle: still full of a block nobody insists on, and the first to go.
struct TierSlots {
    let count: Int
    private(set) var usedCount = 0
    private(set) var idleCount = 0
    /// What is known of a slot lies together: slots are taken up in any order.
    private struct Slot {
        var owner = BlockRecord.noBlock
        // Idle slots from oldest to newest, as a list with its head at index `count`.
        var newer = BlockRecord.noSlot
        var older = BlockRecord.noSlot
    }
    private var slots: [Slot]
    private var free: [SlotIndex]

    init(count: Int) {
        precondition(count >= 0, "a tier of negative size")
        self.count = count
        slots = [Slot](repeating: Slot(), count: count + 1)
        slots[count].newer = UInt32(count)
        slots[count].older = UInt32(count)
        free = (0..<UInt32(count)).reversed()
    }

    /// Slots that hold nothing.
    var freeCount: Int { free.count }
    /// Slots that could be had now.
    var available: Int { free.count + idleCount }

    /// Takes a free slot.
    mutating func take(for block: BlockNumber) -> SlotIndex? {
        guard let slot = free.popLast() else { return nil }
        slots[Int(slot)].owner = block
        usedCount += 1
        return slot
    }

    /// A slot goes from one holder to another, full.
    mutating func reassign(_ slot: SlotIndex, to block: BlockNumber) {
        precondition(slots[Int(slot)].owner != BlockRecord.noBlock, "a slot goes over that nobody holds")
        precondition(!isIdle(slot), "an idle slot goes over")
        slots[Int(slot)].owner = block
    }

    /// The block that has been idle for longest: give its slot back before taking another.
    var oldestIdle: BlockNumber? {
        let slot = slots[count].newer
        return slot == UInt32(count) ? nil : slots[Int(slot)].owner
    }

    /// Blocks that have been idle for longest, at most `count` of them, the oldest first.
    func oldestIdle(_ limit: Int) -> [BlockNumber] {
        var blocks: [BlockNumber] = []
        var slot = slots[count].newer
        while blocks.count < limit, slot != UInt32(count) {
            blocks.append(slots[Int(slot)].owner)
            slot = slots[Int(slot)].newer
        }
        return blocks
    }

    /// Gives a slot back; its bytes are gone.
    mutating func release(_ slot: SlotIndex) {
        precondition(slots[Int(slot)].owner != BlockRecord.noBlock, "a slot is released twice")
        precondition(!isIdle(slot), "an idle slot is released without being taken up")
        slots[Int(slot)].owner = BlockRecord.noBlock
        usedCount -= 1
        free.append(slot)
    }

    func isIdle(_ slot: SlotIndex) -> Bool { slots[Int(slot)].newer != BlockRecord.noSlot }

    /// Nobody insists on the slot's block any more.
    mutating func setIdle(_ slot: SlotIndex) {
        precondition(!isIdle(slot), "a slot becomes idle twice")
        let last = slots[count].older
        slots[Int(last)].newer = slot
        slots[Int(slot)].older = last
        slots[Int(slot)].newer = UInt32(count)
        slots[count].older = slot
        idleCount += 1
    }

    /// Somebody insists on the slot's block again.
    mutating func setHeld(_ slot: SlotIndex) {
        let entry = slots[Int(slot)]
        precondition(entry.newer != BlockRecord.noSlot, "a slot is taken up that was not idle")
        slots[Int(entry.older)].newer = entry.newer
        slots[Int(entry.newer)].older = entry.older
        slots[Int(slot)].newer = BlockRecord.noSlot
        slots[Int(slot)].older = BlockRecord.noSlot
        idleCount -= 1
    }
}
