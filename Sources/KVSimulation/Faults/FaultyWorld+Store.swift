// The shared store of the faulty world: the real decisions of a store over content that may be wrong, behind a
// connection that may be late, silent or gone.

import KVModel
import KVTiering

extension FaultyWorld {
    /// How long a word to the store and back takes.
    private mutating func roundTrip() -> Int64 {
        isActive(.lateStore) ? 8_000_000 + Int64(random.below(900_000_000)) : 100_000 + Int64(random.below(2_000_000))
    }

    mutating func ask(_ question: StoreQuestion) {
        if question.keys.isEmpty { broken.append("the store is asked for nothing") }
        if isActive(.blackHole) || isActive(.lostPeer) {
            let silence = StoreAnswer(question: question.question, present: [], isSilent: true)
            let wait = isActive(.blackHole) ? SimulationShape.transportTimeout : 1_000_000
            return tell(node, .storeAnswered(silence), at: clock + wait)
        }
        let time = now
        var present = store?.present(question.keys, at: time) ?? []
        if isActive(.wrongDirectory) {
            for index in present.indices { present[index] ^= random.next() }
        }
        tell(node, .storeAnswered(StoreAnswer(question: question.question, present: present)), at: clock + roundTrip())
    }

    mutating func take(_ offer: StoreOffer) {
        let nothing = StoreWant(
            offer: offer.offer, wanted: [], presentBlocks: 0, refusedFrom: Int32(truncatingIfNeeded: offer.chain.count))
        if isActive(.blackHole) || isActive(.lostPeer) {
            let wait = isActive(.blackHole) ? SimulationShape.transportTimeout : 1_000_000
            return tell(node, .storeWants(nothing), at: clock + wait)
        }
        let time = now
        let want = store?.offer(offer, at: time) ?? nothing
        for range in want.wanted {
            for position in range { nodes[node].promised.insert(offer.chain[Int(position)]) }
        }
        hearChanges()
        tell(node, .storeWants(want), at: clock + roundTrip())
    }

    mutating func withdraw(_ keys: [BlockKey]) {
        // A node can only take back what it was promised itself.
        let mine = keys.filter { nodes[node].promised.remove($0) != nil }
        store?.withdraw(mine)
    }

    mutating func endStoreRead(_ flight: Flight, _ lost: [LostMove]) {
        guard flight.storeLife == storeLife else { return }
        store?.endRead(flight.order.moves, lost: flight.absent)
        for loss in lost where loss.cause == .corrupt { store?.reportCorrupt(flight.order.moves[Int(loss.move)].key) }
        if !spoiledContent.isEmpty {
            for move in flight.order.moves where store?.isSpoiled(move.key) != true { spoiledContent[move.key] = nil }
        }
        hearChanges()
    }

    mutating func endStoreWrite(_ flight: Flight, _ lost: [LostMove]) {
        let moves = flight.order.moves
        let mine = moves.indices.filter { nodes[flight.node].promised.remove(moves[$0].key) != nil }
        guard flight.storeLife == storeLife else { return }
        // A place that is another's by now is not this writer's to fill.
        let taken = mine.map { moves[$0] }
        var places: [LostMove] = []
        for (place, index) in mine.enumerated() where lost.contains(where: { Int($0.move) == index }) {
            places.append(LostMove(move: Int32(truncatingIfNeeded: place), cause: .refused))
        }
        store?.endWrite(taken, lost: places, failed: flight.outcome != .done)
        hearChanges()
    }

    /// What a dead node said it would write will not come.
    mutating func forgetPromises(of dead: Int) {
        store?.withdraw(nodes[dead].promised.sorted())
        nodes[dead].promised = []
    }

    /// Everything in flight to or from the store fails soon.
    mutating func cutConnections(of node: Int) {
        for slot in flights.indices where flights[slot].isOpen && (node < 0 || flights[slot].node == node) {
            guard flights[slot].order.from == .flash || flights[slot].order.to == .flash else { continue }
            flights[slot].outcome = .failed
            moveEnd(of: slot, to: clock + Int64(random.below(2_000_000)))
        }
    }

    /// The store starts again with nothing in it.
    mutating func emptyStore() {
        cutConnections(of: -1)
        storeLife &+= 1
        store = shape.makeStore()
        storeContent = [:]
        spoiledContent = [:]
        for index in nodes.indices { nodes[index].promised = [] }
    }

    /// What came and went in the store: its content changes, and who listens is told.
    private mutating func hearChanges() {
        guard let (added, removed) = store?.takeChanges(), !added.isEmpty || !removed.isEmpty else { return }
        for key in added { storeContent[key] = !(isActive(.lyingStore) && random.uniform() < 0.5) }
        // One step of the store may write a block and let it go again, never the reverse.
        for key in removed {
            let content = storeContent.removeValue(forKey: key)
            if store?.isSpoiled(key) == true { spoiledContent[key] = content }
        }
        guard shape.isSubscribed else { return }
        for listener in nodes.indices {
            if isActive(.forgetfulStream, on: listener), random.uniform() < 0.5 { continue }
            if isActive(.lostPeer, on: listener) || isActive(.blackHole, on: listener) { continue }
            tell(listener, .storeChanged(added: added, removed: removed), at: clock + Int64(random.below(3_000_000)))
        }
    }

    /// What must hold of the store at any time.
    mutating func checkStore() {
        let counts = (store?.usedCount ?? 0, store?.capacity ?? 0, store?.presentCount ?? 0)
        if counts.0 > counts.1 { broken.append("the store holds more than its bytes") }
        if counts.2 != storeContent.count {
            broken.append("the store finds what it does not hold, or the reverse")
        }
    }
}
