// Engines that read blocks where they lie in node memory, and write into slots that they were given before the blocks have names.
// They give back late or never, as engines do; then the agent takes back what was held too long.

import KVModel
import KVTiering

/// Slots that an engine writes into.
struct HeldReservation {
    var number: UInt32
    var node: Int
    var slots: [SlotIndex]
}

extension Simulation {
    /// How long an engine may hold what it was lent or given, nanoseconds.
    private static let loanMax: Int64 = 200_000_000

    /// When an engine gives back; those that forget it are reminded at the end of their time.
    private func giveBackTime() -> Int64 {
        let wait = lender.below(4) == 0 ? Self.loanMax : Int64(lender.exponential(mean: 0.04) * 1e9) + 1
        return world.clock + min(wait, Self.loanMax)
    }

    // MARK: Blocks read in place

    /// From here on the engine reads what was promised to it, in the slots through which it was promised.
    func lend(_ index: Int, _ ready: Ready) {
        let request = requests[index]
        guard request.isLease, ready.end > ready.first else { return }
        for position in ready.first..<ready.end {
            guard let slot = world.prompts[request.node][request.number]?.places[position] else {
                world.broken.append("a block is lent that is nowhere")
                continue
            }
            if world.nodes[request.node].slot(.dram, slot)?.content?.key
                != BlockKey(traceBlock: UInt64(request.path[Int(position)]))
            {
                world.broken.append("a block is lent whose slot holds something else")
            }
            world.nodes[request.node].change(.dram, slot) { $0.readers += 1 }
            requests[index].lentSlots.append(slot)
        }
        world.counts.blocksLent += Int(ready.end - ready.first)
        world.queue.add(.loanEnds(index), at: giveBackTime())
        if world.saboteur.strikes(.loanEndedEarly) {
            world.tell(request.node, .released(request: request.number), at: world.clock)
        }
    }

    /// The engine reads no more.
    func stopReading(_ index: Int) {
        let node = requests[index].node
        for slot in requests[index].lentSlots { world.nodes[node].change(.dram, slot) { $0.readers -= 1 } }
        requests[index].lentSlots = []
    }

    func endLoan(_ index: Int) {
        guard requests[index].state != .over, !requests[index].lentSlots.isEmpty else { return }
        stopReading(index)
        deliver(.released(request: requests[index].number), to: requests[index].node)
    }

    // MARK: Slots written in place

    func reserve() {
        guard world.clock < shape.end else { return }
        world.queue.add(.reserve, at: world.clock + Int64(lender.exponential(mean: 0.1) * 1e9) + 1)
        let node = lender.below(shape.nodes)
        let number = nextReservation
        nextReservation += 1
        reservations.append(HeldReservation(number: number, node: node, slots: []))
        world.queue.add(.unreserve(number, node: node, life: world.nodes[node].life), at: giveBackTime())
        deliver(.reserve(ReserveRequest(reservation: number, count: Int32(1 + lender.below(6)))), to: node)
    }

    func reserved(_ answer: Reserved, by node: Int) {
        guard let place = reservations.firstIndex(where: { $0.number == answer.reservation && $0.node == node }) else {
            world.broken.append("a node gives slots away that nobody asked for")
            return
        }
        for slot in answer.slots {
            guard let device = world.nodes[node].slot(.dram, slot), device.readers + device.writers == 0 else {
                world.broken.append("an engine is given a slot that is in use, or none")
                continue
            }
            world.nodes[node].change(.dram, slot) {
                $0.writers += 1
                $0.content = nil
            }
        }
        reservations[place].slots = answer.slots
        world.counts.slotsReserved += answer.slots.count
    }

    /// The engine writes no more into slots of a reservation.
    private func stopWriting(_ slots: [SlotIndex], of node: Int) {
        for slot in slots { world.nodes[node].change(.dram, slot) { $0.writers -= 1 } }
    }

    func unreserve(_ number: UInt32, of node: Int) {
        guard let place = reservations.firstIndex(where: { $0.number == number && $0.node == node }) else { return }
        stopWriting(reservations.remove(at: place).slots, of: node)
        if world.saboteur.bug == .loanForgotten { return }
        deliver(.unreserve(reservation: number), to: node)
    }

    /// An engine may have computed the end of a prompt in slots that it was given: their blocks have names now.
    func adoption(by index: Int) -> (slots: Adoption, firstHeld: Int32)? {
        guard shape.lends, lender.below(2) == 0 else { return nil }
        let (node, path) = (requests[index].node, requests[index].path)
        guard let place = reservations.firstIndex(where: { $0.node == node && !$0.slots.isEmpty }) else { return nil }
        let count = min(reservations[place].slots.count, path.count)
        let slots = Array(reservations[place].slots.suffix(count))
        reservations[place].slots.removeLast(count)
        stopWriting(slots, of: node)
        world.counts.slotsAdopted += count
        return (
            Adoption(reservation: reservations[place].number, slots: slots),
            Int32(truncatingIfNeeded: path.count - count)
        )
    }
}
