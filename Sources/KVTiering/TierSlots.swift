// The slots of one tier: a fixed number of places of one block each, so the tier's bytes can never be exceeded.
// It knows which block has which slot and which slots could be had; which block deserves one is decided elsewhere.

import KVModel

/// A fixed number of slots. A slot is free, held, or idle: still full of a block nobody insists on, and the first to go.
struct TierSlots {
    let count: Int
    private(set) var usedCount = 0
    private(set) var idleCount = 0
    /// The most slots that were ever used at once.
    private(set) var usedPeak = 0
    private var owners: [BlockNumber]
    private var free: [SlotIndex]
    // Idle slots from oldest to newest, as a list with its head at index `count`.
    private var newer: [UInt32]
    private var older: [UInt32]

    init(count: Int) {
        precondition(count >= 0, "a tier of negative size")
        self.count = count
        owners = [BlockNumber](repeating: BlockRecord.noBlock, count: count)
        free = (0..<UInt32(count)).reversed()
        newer = [UInt32](repeating: BlockRecord.noSlot, count: count + 1)
        older = newer
        newer[count] = UInt32(count)
        older[count] = UInt32(count)
    }

    /// Slots that hold nothing.
    var freeCount: Int { free.count }
    /// Slots that could be had now.
    var available: Int { free.count + idleCount }

    /// Takes a free slot.
    mutating func take(for block: BlockNumber) -> SlotIndex? {
        guard let slot = free.popLast() else { return nil }
        owners[Int(slot)] = block
        usedCount += 1
        usedPeak = max(usedPeak, usedCount)
        return slot
    }

    /// A slot goes from one holder to another, full.
    mutating func reassign(_ slot: SlotIndex, to block: BlockNumber) {
        precondition(owners[Int(slot)] != BlockRecord.noBlock, "a slot goes over that nobody holds")
        precondition(!isIdle(slot), "an idle slot goes over")
        owners[Int(slot)] = block
    }

    /// The block that has been idle for longest: give its slot back before taking another.
    var oldestIdle: BlockNumber? {
        let slot = newer[count]
        return slot == UInt32(count) ? nil : owners[Int(slot)]
    }

    /// Gives a slot back; its bytes are gone.
    mutating func release(_ slot: SlotIndex) {
        precondition(owners[Int(slot)] != BlockRecord.noBlock, "a slot is released twice")
        precondition(!isIdle(slot), "an idle slot is released without being taken up")
        owners[Int(slot)] = BlockRecord.noBlock
        usedCount -= 1
        free.append(slot)
    }

    func isIdle(_ slot: SlotIndex) -> Bool { newer[Int(slot)] != BlockRecord.noSlot }

    /// Nobody insists on the slot's block any more.
    mutating func setIdle(_ slot: SlotIndex) {
        precondition(!isIdle(slot), "a slot becomes idle twice")
        let last = older[count]
        newer[Int(last)] = slot
        older[Int(slot)] = last
        newer[Int(slot)] = UInt32(count)
        older[count] = slot
        idleCount += 1
    }

    /// Somebody insists on the slot's block again.
    mutating func setHeld(_ slot: SlotIndex) {
        precondition(isIdle(slot), "a slot is taken up that was not idle")
        newer[Int(older[Int(slot)])] = newer[Int(slot)]
        older[Int(newer[Int(slot)])] = older[Int(slot)]
        newer[Int(slot)] = BlockRecord.noSlot
        older[Int(slot)] = BlockRecord.noSlot
        idleCount -= 1
    }
}
