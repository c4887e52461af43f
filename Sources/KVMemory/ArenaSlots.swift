// Whose bytes a slot holds at each moment, counted exactly. A value of one thread; nothing here touches the memory.

import KVModel

/// How many slots are in which state. The first five add up to all of them.
public struct SlotCounts: Sendable, Equatable, Codable {
    /// Their pages are not there yet.
    public var unready = 0
    /// They hold nothing.
    public var free = 0
    /// They are being written for the first time; nobody may read them.
    public var filling = 0
    /// They hold a whole block.
    public var visible = 0
    /// They hold nothing that anybody wants, and still belong to a transfer that was not told to end.
    public var quarantined = 0
    /// Of those that are filling, visible or quarantined: in the hands of at least one transfer.
    public var lent = 0
    /// Of the visible ones: must stay.
    public var pinned = 0

    /// Counts of their parts.
    public init(
        unready: Int = 0, free: Int = 0, filling: Int = 0, visible: Int = 0, quarantined: Int = 0, lent: Int = 0,
        pinned: Int = 0
    ) {
        self.unready = unready
        self.free = free
        self.filling = filling
        self.visible = visible
        self.quarantined = quarantined
        self.lent = lent
        self.pinned = pinned
    }
}

/// The slots of one memory. Nothing is allocated after it is made.
public struct ArenaSlots: Sendable {
    /// What a slot is for.
    public enum State: UInt8, Sendable {
        /// Its pages are not there yet.
        case unready
        /// It holds nothing.
        case free
        /// It is being written.
        case filling
        /// It holds a whole block.
        case visible
        /// It is nobody's, but a transfer still has it.
        case quarantined
    }

    private struct Slot {
        var state = State.unready
        var loans: UInt16 = 0
        var pins: UInt16 = 0
    }

    /// How many slots are in which state.
    public private(set) var counts = SlotCounts()
    private var slots: [Slot]
    /// A stack with the lowest slot of each batch on top.
    private var free: [UInt32] = []
    private var readyCount = 0

    /// Slots of which none is ready.
    public init(count: Int) {
        precondition(count >= 0 && count <= Int(UInt32.max), "an impossible number of slots")
        slots = [Slot](repeating: Slot(), count: count)
        free.reserveCapacity(count)
        counts.unready = count
    }

    /// All slots.
    public var count: Int { slots.count }

    /// The state of a slot.
    public func state(of slot: UInt32) -> State { slots[Int(slot)].state }

    /// The first `ready` slots can be used from now on; those that could before stay as they are.
    public mutating func admit(upTo ready: Int) {
        precondition(ready <= slots.count, "more slots ready than there are")
        guard ready > readyCount else { return }
        for slot in (readyCount..<ready).reversed() {
            slots[slot].state = .free
            free.append(UInt32(slot))
        }
        counts.unready -= ready - readyCount
        counts.free += ready - readyCount
        readyCount = ready
    }

    /// A free slot, which is filling from now on. Nil: there is none.
    public mutating func take() -> UInt32? {
        guard let slot = free.popLast() else { return nil }
        slots[Int(slot)].state = .filling
        counts.free -= 1
        counts.filling += 1
        return slot
    }

    /// What was filled is whole.
    public mutating func publish(_ slot: UInt32) {
        precondition(slots[Int(slot)].state == .filling, "a slot published that was not being filled")
        slots[Int(slot)].state = .visible
        counts.filling -= 1
        counts.visible += 1
    }

    /// A transfer gets hold of a slot's bytes: the network, a drive, a GPU.
    public mutating func lend(_ slot: UInt32) {
        let state = slots[Int(slot)].state
        precondition(state == .filling || state == .visible, "a slot lent that holds nothing")
        if slots[Int(slot)].loans == 0 { counts.lent += 1 }
        slots[Int(slot)].loans += 1
    }

    /// A transfer has let go for certain. A quarantined slot that nobody holds any more is free.
    public mutating func giveBack(_ slot: UInt32) {
        precondition(slots[Int(slot)].loans > 0, "a slot given back that was not lent")
        slots[Int(slot)].loans -= 1
        guard slots[Int(slot)].loans == 0 else { return }
        counts.lent -= 1
        if slots[Int(slot)].state == .quarantined {
            counts.quarantined -= 1
            makeFree(slot)
        }
    }

    /// A block must stay.
    public mutating func pin(_ slot: UInt32) {
        precondition(slots[Int(slot)].state == .visible, "a slot pinned that holds no whole block")
        if slots[Int(slot)].pins == 0 { counts.pinned += 1 }
        slots[Int(slot)].pins += 1
    }

    /// One who wanted it to stay wants it no more.
    public mutating func unpin(_ slot: UInt32) {
        precondition(slots[Int(slot)].pins > 0, "a slot unpinned that was not pinned")
        slots[Int(slot)].pins -= 1
        if slots[Int(slot)].pins == 0 { counts.pinned -= 1 }
    }

    /// Nobody wants what a slot holds: it is free, or quarantined until the last transfer has let go.
    ///
    /// - Returns: Whether it is free at once.
    @discardableResult
    public mutating func remove(_ slot: UInt32) -> Bool {
        precondition(slots[Int(slot)].pins == 0, "a pinned slot removed")
        switch slots[Int(slot)].state {
        case .filling: counts.filling -= 1
        case .visible: counts.visible -= 1
        case .unready, .free, .quarantined: preconditionFailure("a slot removed that holds nothing")
        }
        guard slots[Int(slot)].loans == 0 else {
            slots[Int(slot)].state = .quarantined
            counts.quarantined += 1
            return false
        }
        makeFree(slot)
        return true
    }

    private mutating func makeFree(_ slot: UInt32) {
        slots[Int(slot)].state = .free
        free.append(slot)
        counts.free += 1
    }
}
