// Transfers of the faulty world: what they read and write while they last, how long they take, how they end. The
// receiver of each crossing compares the bytes, as the agent does; a device that lies is found out at the next crossing.

import KVModel
import KVTiering

/// A transfer in flight.
struct Flight {
    var node: Int
    var life: UInt32
    var storeLife: UInt32
    var order: TransferOrder
    /// The request it belongs to, −1 without one.
    var request: Int
    /// Blocks that the store did not have when the read began.
    var absent: [LostMove]
    var outcome: TransferEnd.Outcome
    /// Whether nothing moves until somebody gives up.
    var isStalled: Bool
    /// Whether the decisions have been told an end already: only a planted bug does that.
    var isOrphan = false
    /// Rises when the end moves, so that the earlier one is not taken.
    var turn: UInt32
    var isOpen = true
}

extension FaultyWorld {
    /// Whether a tier's slots are this world's to watch.
    private func hasSlots(_ tier: Tier) -> Bool { tier == .dram || tier == .nvme || (tier == .hbm && shape.ownsDevice) }

    mutating func begin(_ order: TransferOrder) {
        counts.transfers += 1
        note(UInt64(order.transfer), UInt64(order.moves.count), UInt64(order.kind.rawValue))
        if order.moves.isEmpty { broken.append("a transfer of no block") }
        if nodes[node].flights[order.transfer] != nil { broken.append("two transfers of one number") }
        var flight = Flight(
            node: node, life: nodes[node].life, storeLife: storeLife, order: order,
            request: prompts[node][order.request]?.request ?? -1, absent: [], outcome: .done, isStalled: false, turn: 0)
        let time = now
        if order.from == .flash { flight.absent = store?.beginRead(order.moves, at: time) ?? [] }
        for move in order.moves { take(move, of: order) }
        let path = path(of: order)
        let usesStore = order.from == .flash || order.to == .flash
        if isActive(.failing), random.uniform() < 0.33 { flight.outcome = .failed }
        if usesStore, isActive(.lostPeer) { flight.outcome = .failed }
        let stall: SimulationFault =
            path.tier == .flash ? .stalledFlash : path.tier == .nvme ? .stalledNVMe : .stalledDRAM
        flight.isStalled = isActive(stall) || (usesStore && isActive(.blackHole))

        let slot = freeFlights.popLast() ?? flights.count
        if slot == flights.count { flights.append(flight) } else { flight.turn = flights[slot].turn &+ 1 }
        flights[slot] = flight
        nodes[node].flights[order.transfer] = slot
        queue.add(.flightEnds(slot, turn: flight.turn), at: endOfFlight(flight, path))
    }

    /// The path that a transfer crosses, and in which direction.
    private func path(of order: TransferOrder) -> (tier: Tier, reads: Bool) {
        switch (order.from, order.to) {
        case (.hbm, _): (.dram, false)
        case (_, .hbm): (.dram, true)
        case (.dram, let below): (below, false)
        case (let below, _): (below, true)
        }
    }

    private mutating func endOfFlight(_ flight: Flight, _ path: (tier: Tier, reads: Bool)) -> Int64 {
        if flight.isStalled { return clock + SimulationShape.transportTimeout }
        if flight.outcome == .failed { return clock + Int64(random.below(2_000_000)) }
        var rate = (SimulationShape.rates[path.tier] ?? 1) * share(of: path.tier, on: node)
        if path.tier == .flash, path.reads, isActive(.fitfulFlash), random.below(2) == 0 { rate /= 200 }
        let bytes = Double((flight.order.moves.count - flight.absent.count) * SimulationShape.blockBytes)
        let start = max(clock, nodes[node].busyUntil(path.tier, reads: path.reads))
        let free = start + Int64(bytes / rate * 1e9)
        nodes[node].occupy(path.tier, reads: path.reads, until: free)
        return free + (SimulationShape.latencies[path.tier] ?? 0)
    }

    /// One block's slots from now on: the source may not change, nobody else may touch the destination.
    private mutating func take(_ move: BlockMove, of order: TransferOrder) {
        if hasSlots(order.from) {
            let slot = nodes[node].slot(order.from, move.source)
            if slot == nil { broken.append("a \(order.kind) reads a slot that \(order.from.name) does not have") }
            if slot?.writers != 0 {
                broken.append("a \(order.kind) reads a slot of \(order.from.name) before it is full")
            }
            if slot?.content?.key != move.key {
                broken.append("a \(order.kind) reads a slot of \(order.from.name) that holds something else")
            }
            nodes[node].change(order.from, move.source) { $0.readers += 1 }
        } else if order.from == .hbm {
            let prompt = prompts[node][order.request]
            if prompt == nil { broken.append("a save of a request that is over") }
            if let prompt,
                !prompt.path.indices.contains(Int(move.position)) || prompt.path[Int(move.position)] != move.key
            {
                broken.append("a save names a block that its request does not have")
            }
        }
        guard hasSlots(order.to) else { return }
        let slot = nodes[node].slot(order.to, move.destination)
        if slot == nil { broken.append("\(order.to.name) beyond its bytes") }
        if let slot, slot.readers > 0 { broken.append("a slot of \(order.to.name) is written that somebody reads") }
        if let slot, slot.writers > 0 { broken.append("two transfers write one slot of \(order.to.name)") }
        nodes[node].change(order.to, move.destination) {
            $0.writers += 1
            $0.content = nil
        }
    }

    mutating func cancel(_ transfer: TransferNumber) {
        guard let slot = nodes[node].flights[transfer] else {
            broken.append("a transfer is cancelled that is not in flight")
            return
        }
        // What moves already may come to its end; what stalls is given up at once.
        guard flights[slot].isStalled || random.uniform() < 0.6 else { return }
        flights[slot].outcome = .cancelled
        moveEnd(of: slot, to: clock + Int64(random.below(1_000_000)))
    }

    mutating func moveEnd(of slot: Int, to moment: Int64) {
        flights[slot].turn &+= 1
        queue.add(.flightEnds(slot, turn: flights[slot].turn), at: moment)
    }

    /// A flight is over: its slots are free, what arrived is compared, and its node hears of it.
    mutating func endFlight(_ slot: Int, _ turn: UInt32) -> (node: Int, event: Event)? {
        guard flights[slot].isOpen, flights[slot].turn == turn else { return nil }
        let flight = flights[slot]
        if flight.isStalled, flight.outcome == .done { flights[slot].outcome = .failed }
        let end = settle(flights[slot])
        close(slot)
        if end.outcome != .done { counts.transfersFailed += 1 }
        note(UInt64(end.transfer), UInt64(end.outcome.rawValue), UInt64(end.lost.count), UInt64(bitPattern: clock))
        return flight.isOrphan || losesEnd(flight) ? nil : (flight.node, .transferEnded(end))
    }

    private mutating func close(_ slot: Int) {
        let flight = flights[slot]
        if !flight.isOrphan { nodes[flight.node].flights[flight.order.transfer] = nil }
        flights[slot].isOpen = false
        flights[slot].order.moves = []
        freeFlights.append(slot)
    }

    private mutating func settle(_ flight: Flight) -> TransferEnd {
        let order = flight.order
        let isDone = flight.outcome == .done
        var lost: [LostMove] = isDone ? flight.absent : []
        for (index, move) in order.moves.enumerated() {
            let place = Int32(truncatingIfNeeded: index)
            let isAbsent = flight.absent.contains { $0.move == place }
            let arrived = isAbsent ? nil : source(of: move, flight)
            if isDone, let arrived {
                counts.blocksChecked += 1
                if !arrived.isIntact || (isActive(.corrupting, on: flight.node) && random.uniform() < 0.1) {
                    counts.blocksCorrupt += 1
                    lost.append(LostMove(move: place, cause: .corrupt))
                    release(move, flight, nil)
                    continue
                }
            }
            release(move, flight, isDone ? arrived : nil)
        }
        lost.sort { $0.move < $1.move }
        if order.from == .flash { endStoreRead(flight, lost) }
        if order.to == .flash { endStoreWrite(flight, lost) }
        return TransferEnd(transfer: order.transfer, outcome: flight.outcome, lost: lost)
    }

    /// What was read, as it is at the end of the reading.
    private mutating func source(of move: BlockMove, _ flight: Flight) -> SlotContent? {
        switch flight.order.from {
        case .hbm where !shape.ownsDevice: return SlotContent(key: move.key, isIntact: true)
        case .flash:
            guard flight.storeLife == storeLife else { return nil }
            let isIntact = storeContent[move.key] ?? spoiledContent[move.key]
            if isIntact == nil { broken.append("the store gave a place away that somebody read") }
            return isIntact.map { SlotContent(key: move.key, isIntact: $0) }
        case .hbm, .dram, .nvme:
            let content = nodes[flight.node].slot(flight.order.from, move.source)?.content
            if content?.key != move.key {
                broken.append("a slot of \(flight.order.from.name) changed while it was read")
            }
            return content
        }
    }

    /// One block's slots are free again; what arrived intact lies in the destination.
    private mutating func release(_ move: BlockMove, _ flight: Flight, _ arrived: SlotContent?) {
        let order = flight.order
        if hasSlots(order.from) { nodes[flight.node].change(order.from, move.source) { $0.readers -= 1 } }
        if hasSlots(order.to) {
            var content = arrived
            if order.to == .nvme, isActive(.lyingNVMe, on: flight.node), random.uniform() < 0.5 {
                content?.isIntact = false
            }
            nodes[flight.node].change(order.to, move.destination) {
                $0.writers -= 1
                $0.content = content
            }
        }
        if order.to == .hbm, arrived != nil, prompts[flight.node][order.request]?.request == flight.request {
            if prompts[flight.node][order.request]?.path[Int(move.position)] != move.key {
                broken.append("an engine got another block than it asked for")
            }
            prompts[flight.node][order.request]?.delivered.insert(move.position)
            prompts[flight.node][order.request]?.places[move.position] = move.source
        }
    }

    /// An engine reads or writes slots of the device from now on; in empty ones nobody may have any business.
    mutating func hold(_ slots: [SlotIndex], areEmpty: Bool, on node: Int) {
        for slot in slots {
            guard let found = nodes[node].slot(.hbm, slot) else {
                broken.append("the device beyond its bytes")
                continue
            }
            if areEmpty, found.readers + found.writers > 0 { broken.append("a slot is given away that is in use") }
            nodes[node].change(.hbm, slot) {
                $0.readers += 1
                if areEmpty { $0.content = nil }
            }
        }
    }

    /// It does so no more.
    mutating func letGo(_ slots: [SlotIndex], on node: Int) {
        for slot in slots { nodes[node].change(.hbm, slot) { $0.readers -= 1 } }
    }

    /// A node's agent died: nothing of it moves any more, and its slots hold nothing.
    mutating func bury(_ dead: Int) {
        for slot in flights.indices where flights[slot].isOpen && flights[slot].node == dead {
            flights[slot].outcome = .failed
            if flights[slot].order.from == .flash { endStoreRead(flights[slot], []) }
            if flights[slot].order.to == .flash { endStoreWrite(flights[slot], []) }
            close(slot)
        }
        forgetPromises(of: dead)
        let life = nodes[dead].life &+ 1
        nodes[dead] = NodeDevices(shape)
        nodes[dead].life = life
        prompts[dead] = [:]
    }
}
