// Slots that engines hold: blocks that they read where they lie, and empty slots that they write into before anybody knows what
// the blocks will be called. All of them count against the bytes of their tier. In node memory there are never more than a
// share of what is kept for blocks that pass through; on a device whose slots are ours engines may have all.

import KVModel

/// Which slots are in engines' hands.
struct LoanedSlots {
    /// Slots of all reservations and leases, a block counted once for each request that holds it.
    var count = 0
    /// What each reservation has left.
    var reservations: [UInt32: [SlotIndex]] = [:]
    /// Slots of reservations.
    var reservedCount = 0
    /// Slots whose blocks are being named, in the order of the blocks; taken ones are marked.
    var adoption: [SlotIndex] = []
    /// Whether `adoption` means something, and whose slots they are.
    var isAdopting = false
    /// See `isAdopting`.
    var adopting: UInt32 = 0

    /// Stands for the block that a reserved slot will hold.
    static let owner = BlockRecord.noBlock - 1
}

extension TieringManager {
    /// Slots that engines hold, to read or to write.
    public var loanedSlots: (all: Int, reserved: Int) {
        (device.isOn ? device.slots.usedCount - device.slots.idleCount : loans.count, loans.reservedCount)
    }

    // MARK: Slots to write into

    /// Gives an engine empty slots, as far as there is room. In node memory they leave loads a quarter of the staging slots; what policies
    /// keep is not pushed out for bytes that nobody has named yet.
    mutating func reserve(_ request: ReserveRequest) {
        precondition(loans.reservations[request.reservation] == nil, "two reservations of one number")
        let most = device.isOn ? device.slots.count : configuration.loanSlotsMax - loans.count
        let count = min(Int(request.count), most)
        var slots: [SlotIndex] = []
        while slots.count < count {
            let slot =
                device.isOn
                ? takeDeviceSlot(for: LoanedSlots.owner)
                : takeDRAMSlot(for: LoanedSlots.owner, keepingFree: (stagingCount + 3) / 4)
            guard let slot else { break }
            slots.append(slot)
        }
        counters.slotsReserved += slots.count
        loans.count += slots.count
        loans.reservedCount += slots.count
        loans.reservations[request.reservation] = slots
        emit(.reserved(Reserved(reservation: request.reservation, slots: slots)))
        if device.isOn { sinkOldest() }
    }

    mutating func unreserve(_ reservation: UInt32) {
        guard let slots = loans.reservations.removeValue(forKey: reservation) else { return }
        for slot in slots { if device.isOn { device.slots.release(slot) } else { dram.release(slot) } }
        leaveReservation(slots.count)
    }

    private mutating func leaveReservation(_ count: Int) {
        loans.count -= count
        loans.reservedCount -= count
    }

    // MARK: Slots become blocks

    /// The slots of a save that are full already leave their reservation.
    mutating func beginAdoption(_ adopted: Adoption) {
        loans.adopting = adopted.reservation
        var left = loans.reservations[adopted.reservation] ?? []
        let taken = Set(adopted.slots)
        left.removeAll { taken.contains($0) }
        let wasHere = (loans.reservations[adopted.reservation]?.count ?? 0) - left.count
        precondition(wasHere == adopted.slots.count, "slots are adopted that were not reserved")
        loans.reservations[adopted.reservation] = left
        loans.adoption = adopted.slots
        loans.isAdopting = true
    }

    /// The full slot of a block that is to be kept.
    mutating func adoptSlot(at index: Int, for block: BlockNumber) -> SlotIndex? {
        guard loans.isAdopting, loans.adoption.indices.contains(index) else { return nil }
        let slot = loans.adoption[index]
        loans.adoption[index] = BlockRecord.noSlot
        dram.reassign(slot, to: block)
        counters.slotsAdopted += 1
        return slot
    }

    /// Slots whose blocks nobody wants are free. On the device their writer goes on reading them, so that they stay its own.
    mutating func endAdoption() {
        defer { loans.isAdopting = false }
        if device.isOn {
            let left = loans.adoption.filter { $0 != BlockRecord.noSlot }
            loans.reservations[loans.adopting, default: []] += left
            return loans.adoption.removeAll(keepingCapacity: true)
        }
        for slot in loans.adoption where slot != BlockRecord.noSlot { dram.release(slot) }
        leaveReservation(loans.adoption.count)
        loans.adoption.removeAll(keepingCapacity: true)
    }

    // MARK: Blocks read in place

    /// A load lends blocks of node memory: it may have as many slots as engines may still hold. Blocks of the device are the
    /// engine's working memory and have no such bound.
    ///
    /// - Returns: Where the load ends at the latest.
    mutating func beginLoan(_ slot: Int32, to end: Int32) -> Int32 {
        guard !device.isOn else { return end }
        let index = Int(slot)
        let first = requests[index].engineBlocks
        let room = min(configuration.loanSlotsMax - loans.count, Int(requests[index].chainCount - first))
        requests[index].isLease = true
        requests[index].loanedSlots = max(0, room)
        loans.count += requests[index].loanedSlots
        return min(end, first + Int32(truncatingIfNeeded: max(0, room)))
    }

    /// A loan is as large as its load.
    mutating func shrinkLoan(_ slot: Int32) {
        let index = Int(slot)
        guard requests[index].isLease else { return }
        let count = Int(requests[index].end - requests[index].first)
        loans.count -= requests[index].loanedSlots - count
        requests[index].loanedSlots = count
    }

    /// The engine of a request reads no more.
    mutating func released(_ number: RequestNumber) {
        guard let slot = requestSlots[number], requests[Int(slot)].state == .ready else { return }
        endLoan(slot)
        releaseLeases(slot)
        releaseTaken(slot, from: 0)
    }

    /// What a request was lent is to be given back with its other leases.
    mutating func endLoan(_ slot: Int32) {
        guard requests[Int(slot)].isLease else { return }
        requests[Int(slot)].isLease = false
        loans.count -= requests[Int(slot)].loanedSlots
        requests[Int(slot)].loanedSlots = 0
    }
}
