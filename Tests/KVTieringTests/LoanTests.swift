// Slots in engines' hands: what is read in place stays, what is written in place is nobody else's, and there are never too many.

import KVModel
import KVTiering
import Testing

@Suite struct LoanTests {
    /// A node half of whose slots are for staging, and half of these for engines.
    private func configuration(dramBlocks: Int, hasStore: Bool = false) -> TieringConfiguration {
        var configuration = smallConfiguration(dramBlocks: dramBlocks, hasStore: hasStore)
        configuration.dram?.stagingShare = 0.5
        return configuration
    }

    /// Asks for a chain and has it lent; what the engine may read.
    private func lend(
        _ keys: [BlockKey], request: RequestNumber, _ manager: inout TieringManager, _ world: inout ScriptedWorld
    ) -> Ready? {
        manager.handle(
            .arrived(Arrival(request: request, chain: keys[...], promptTokens: Int32(keys.count * 16))), in: &world)
        settle(&manager, &world)
        var load = LoadRequest(request: request, engineBlocks: 0, links: fastLinks)
        load.isLease = true
        manager.handle(.load(load), in: &world)
        settle(&manager, &world)
        return world.ready[request]
    }

    /// Names full slots.
    private func adopt(
        _ keys: [BlockKey], _ adoption: Adoption, request: RequestNumber, _ manager: inout TieringManager,
        _ world: inout ScriptedWorld
    ) {
        let count = Int32(keys.count)
        manager.handle(
            .arrived(Arrival(request: request, chain: keys[...], promptTokens: count * 16, engineBlocks: count)),
            in: &world)
        var computed = Computed(request: request, parts: .kept, firstHeld: count - Int32(adoption.slots.count))
        computed.adopted = adoption
        manager.handle(.computed(computed), in: &world)
        settle(&manager, &world)
        manager.handle(.ended(request: request, reason: .unknown), in: &world)
    }

    @Test func adoptedSlotsAreTheBlocksPlaces() {
        var manager = TieringManager(configuration(dramBlocks: 64))
        var world = ScriptedWorld(WorldScript())
        manager.handle(.reserve(ReserveRequest(reservation: 3, count: 8)), in: &world)
        let slots = world.reservedSlots[3] ?? []
        #expect(slots.count == 8)
        #expect(manager.slotCounts.dramUsed == 8 && manager.loanedSlots.reserved == 8)
        let keys = chain(0..<5, of: 1)
        adopt(keys, Adoption(reservation: 3, slots: Array(slots[1..<6])), request: 1, &manager, &world)
        #expect(manager.residentRun(keys[...]) == 5)
        for (index, key) in keys.enumerated() { #expect(manager.slot(of: key, in: .dram) == slots[index + 1]) }
        #expect(manager.loanedSlots.reserved == 3)
        // The same blocks again: nobody wants them twice.
        adopt(
            Array(keys[..<3]), Adoption(reservation: 3, slots: [slots[0], slots[6], slots[7]]), request: 2, &manager,
            &world)
        #expect(manager.slotCounts.dramUsed == 5 && manager.loanedSlots.all == 0)
        manager.handle(.unreserve(reservation: 3), in: &world)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func whatIsLentStaysUntilItIsReleased() {
        var manager = TieringManager(configuration(dramBlocks: 16))
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, &manager, &world)
        #expect(lend(keys, request: 2, &manager, &world)?.end == 4)
        let slots = keys.map { manager.slot(of: $0, in: .dram) }
        for other in 3..<30 { serve(chain(0..<9, of: UInt64(other)), request: RequestNumber(other), &manager, &world) }
        #expect(keys.map { manager.slot(of: $0, in: .dram) } == slots)
        #expect(manager.inFlight().leases == 4)
        manager.handle(.released(request: 2), in: &world)
        #expect(manager.inFlight().leases == 0 && manager.loanedSlots.all == 0)
        for other in 30..<50 { serve(chain(0..<9, of: UInt64(other)), request: RequestNumber(other), &manager, &world) }
        #expect(manager.residentRun(keys[...]) == 0)
        manager.handle(.ended(request: 2, reason: .endTurn), in: &world)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func enginesNeverHoldMoreThanTheirShare() {
        var manager = TieringManager(configuration(dramBlocks: 64))
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<10, of: 1)
        serve(keys, request: 1, &manager, &world)
        #expect(lend(keys, request: 2, &manager, &world)?.end == 10)
        manager.handle(.reserve(ReserveRequest(reservation: 1, count: 64)), in: &world)
        #expect(world.reservedSlots[1]?.count == 6)
        #expect(lend(keys, request: 3, &manager, &world)?.end == 0)
        manager.handle(.ended(request: 2, reason: .endTurn), in: &world)
        #expect(lend(keys, request: 4, &manager, &world)?.end == 10)
        manager.handle(.reserve(ReserveRequest(reservation: 2, count: 1)), in: &world)
        #expect(world.reservedSlots[2]?.isEmpty == true)
        #expect(manager.audit() + world.broken == [])
    }

    /// Against a model that knows only which slots are in whose hands: nothing else may ever be written there.
    @Test(arguments: 1...12) func nobodyWritesWhatAnEngineHolds(seed: UInt64) {
        var manager = TieringManager(configuration(dramBlocks: 80, hasStore: seed % 2 == 0))
        var world = ScriptedWorld(WorldScript(seed: seed), store: seed % 2 == 0 ? smallStore(blocks: 128) : nil)
        var random = RandomSource(seed: seed)
        var reservations: [UInt32: [SlotIndex]] = [:]
        var leases: [RequestNumber: [(key: BlockKey, slot: SlotIndex)]] = [:]
        var next: RequestNumber = 1
        var (lent, adopted) = (0, 0)
        func some(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
        for step in 0..<400 {
            next += 1
            let keys = chain(0..<(1 + some(8)), of: UInt64(some(12)))
            let seen = world.commands.count
            var isOwn: Set<SlotIndex> = []
            func slotsHeld() -> Set<SlotIndex> {
                Set(reservations.values.joined()).union(leases.values.joined().map(\.slot))
            }
            let before = slotsHeld()
            switch some(7) {
            case 0, 1: serve(keys, request: next, &manager, &world)
            case 2:
                manager.handle(.reserve(ReserveRequest(reservation: next, count: Int32(1 + some(10)))), in: &world)
                reservations[next] = world.reservedSlots[next] ?? []
            case 3:
                guard let (number, slots) = reservations.first(where: { !$0.value.isEmpty }) else { continue }
                let offered = Array(slots.prefix(1 + some(min(slots.count, keys.count))))
                reservations[number] = Array(slots.dropFirst(offered.count))
                isOwn = Set(offered)
                adopt(keys, Adoption(reservation: number, slots: offered), request: next, &manager, &world)
                adopted += offered.count
            case 4:
                guard let number = reservations.keys.first else { continue }
                reservations[number] = nil
                manager.handle(.unreserve(reservation: number), in: &world)
            case 5:
                guard let ready = lend(keys, request: next, &manager, &world) else {
                    Issue.record("a load without an end")
                    continue
                }
                leases[next] = keys[Int(ready.first)..<Int(ready.end)].map {
                    ($0, manager.slot(of: $0, in: .dram) ?? .max)
                }
                lent += Int(ready.end - ready.first)
            default:
                guard let number = leases.keys.first else { continue }
                leases[number] = nil
                if some(2) == 0 { manager.handle(.released(request: number), in: &world) }
                manager.handle(.ended(request: number, reason: .endTurn), in: &world)
            }
            settle(&manager, &world)
            for lease in leases.values {
                for (key, slot) in lease { #expect(manager.slot(of: key, in: .dram) == slot, "step \(step)") }
            }
            // What came up for a new lease was written before it was lent.
            let held = slotsHeld().intersection(before).subtracting(isOwn)
            for case .transfer(let order) in world.commands[seen...] where order.to == .dram {
                for move in order.moves { #expect(!held.contains(move.destination), "step \(step)") }
            }
            let count = reservations.values.reduce(0) { $0 + $1.count } + leases.values.reduce(0) { $0 + $1.count }
            #expect(manager.loanedSlots.all == count)
            #expect(manager.audit() + world.broken == [], "step \(step)")
        }
        #expect(lent > 0 && adopted > 0)
        for number in leases.keys { manager.handle(.ended(request: number, reason: .endTurn), in: &world) }
        for number in reservations.keys { manager.handle(.unreserve(reservation: number), in: &world) }
        settle(&manager, &world)
        #expect(manager.loanedSlots.all == 0 && manager.inFlight().leases == 0 && manager.audit() == [])
    }
}
