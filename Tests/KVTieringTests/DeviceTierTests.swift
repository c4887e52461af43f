// HBM slots that are the agent's: what an engine reads or writes there nobody else writes, what it wrote is found there, what
// leaves is in node memory, and the device's bytes are never exceeded.

import KVModel
import KVTiering
import Testing

/// An engine without memory of its own: it reads and writes slots of the device.
struct DeviceEngine: ~Copyable {
    var manager: TieringManager
    var world: ScriptedWorld
    /// Slots that engines hold, by request and by reservation.
    var lent: [RequestNumber: [SlotIndex]] = [:]
    var reserved: [UInt32: [SlotIndex]] = [:]
    /// What each slot must hold as long as somebody reads it.
    var expected: [SlotIndex: BlockKey] = [:]

    init(
        hbmBlocks: Int, dramBlocks: Int = 32, nvmeBlocks: Int = 0, storeBlocks: Int = 0,
        script: WorldScript = WorldScript(),
        policy: PolicyName = .lru, inclusion: InclusionMode = .keep, spill: SpillRule = .onSave
    ) {
        var configuration = smallConfiguration(
            dramBlocks: dramBlocks, nvmeBlocks: nvmeBlocks, hasStore: storeBlocks > 0, policy: policy,
            inclusion: inclusion, spill: spill)
        configuration.hbmBytes = hbmBlocks * 1000
        configuration.ownership = .full
        manager = TieringManager(configuration)
        world = ScriptedWorld(script, store: storeBlocks > 0 ? smallStore(blocks: storeBlocks) : nil, hasDevice: true)
    }

    mutating func arrive(_ keys: [BlockKey], request: RequestNumber) {
        world.chains[request] = keys
        world.ready[request] = nil
        manager.handle(
            .arrived(Arrival(request: request, chain: keys[...], promptTokens: Int32(keys.count * 16))), in: &world)
        settle(&manager, &world)
    }

    /// Takes what can be had of a chain.
    mutating func take(_ keys: [BlockKey], request: RequestNumber) -> Ready {
        var load = LoadRequest(request: request, engineBlocks: 0, links: fastLinks)
        load.isLease = true
        manager.handle(.load(load), in: &world)
        settle(&manager, &world)
        let ready = world.ready[request] ?? Ready(request: request, first: 0, end: 0)
        lent[request] = ready.slots
        for (index, slot) in ready.slots.enumerated() { expected[slot] = keys[Int(ready.first) + index] }
        return ready
    }

    mutating func reserve(_ count: Int, as reservation: UInt32) -> [SlotIndex] {
        manager.handle(.reserve(ReserveRequest(reservation: reservation, count: Int32(count))), in: &world)
        let slots = world.reservedSlots[reservation] ?? []
        for slot in slots {
            if reserved.values.joined().contains(slot) || lent.values.joined().contains(slot) {
                world.broken.append("a slot is given away that an engine holds")
            }
            world.content[.hbm]?[slot] = nil
        }
        reserved[reservation] = slots
        return slots
    }

    /// Writes the last blocks of a chain into reserved slots and makes them blocks.
    mutating func commit(_ keys: [BlockKey], _ slots: [SlotIndex], of reservation: UInt32, for request: RequestNumber) {
        let first = keys.count - slots.count
        for (index, slot) in slots.enumerated() {
            world.content[.hbm]?[slot] = keys[first + index]
            expected[slot] = keys[first + index]
        }
        let save = request + 100_000
        world.chains[save] = keys
        manager.handle(
            .arrived(
                Arrival(
                    request: save, chain: keys[...], promptTokens: Int32(keys.count * 16),
                    engineBlocks: Int32(keys.count))), in: &world)
        var computed = Computed(request: save, parts: .kept, firstHeld: Int32(first))
        computed.adopted = Adoption(reservation: reservation, slots: slots)
        computed.adopted?.holder = request
        manager.handle(.computed(computed), in: &world)
        manager.handle(.ended(request: save, reason: .unknown), in: &world)
        lent[request, default: []] += slots
        settle(&manager, &world)
    }

    mutating func end(_ request: RequestNumber, reservation: UInt32?) {
        lent[request] = nil
        if let reservation {
            reserved[reservation] = nil
            manager.handle(.unreserve(reservation: reservation), in: &world)
        }
        manager.handle(.ended(request: request, reason: .endTurn), in: &world)
        settle(&manager, &world)
    }

    /// One request from its arrival to its end. How many leading blocks came, and the rest that was written.
    @discardableResult
    mutating func serve(_ keys: [BlockKey], request: RequestNumber) -> (answer: Answer?, ready: Ready, written: Int) {
        arrive(keys, request: request)
        let answer = world.answers[request]
        let ready = take(keys, request: request)
        let left = keys.count - Int(ready.end)
        let slots = left > 0 ? reserve(left, as: request) : []
        manager.handle(.computed(Computed(request: request, parts: .booked)), in: &world)
        if !slots.isEmpty {
            commit(Array(keys[..<(Int(ready.end) + slots.count)]), slots, of: request, for: request)
        }
        check()
        end(request, reservation: left > 0 ? request : nil)
        return (answer, ready, slots.count)
    }

    /// What engines hold is what they were given.
    mutating func check() {
        for slot in lent.values.joined() where world.content[.hbm]?[slot] != expected[slot] {
            world.broken.append("a slot changed under its engine")
        }
    }

    var broken: [String] { manager.audit() + world.broken }
}

@Suite struct DeviceTierTests {
    @Test func whatAnEngineWroteIsFoundOnTheDeviceAndInNodeMemory() {
        var engine = DeviceEngine(hbmBlocks: 16)
        let keys = chain(0..<6, of: 1)
        #expect(engine.serve(keys, request: 1).written == 6)
        for key in keys { #expect(engine.manager.whereabouts(key) == [.hbm, .dram]) }
        let again = engine.serve(keys, request: 2)
        #expect(again.answer?.hbmBlocks == 6 && again.ready.end == 6 && again.ready.slots.count == 6)
        // Nothing moved for it, and the ledger names the tier.
        #expect(engine.manager.ledger[.hbm] == 6 * 16 - 1 && engine.manager.ledger[.dram] == 0)
        #expect(engine.manager.counters.hbmWrites == 6 && engine.manager.counters.dramWrites == 6)
        #expect(engine.broken == [])
    }

    @Test func aFullDeviceForgetsWhatIsIdleAndNodeMemoryBringsItBack() {
        var engine = DeviceEngine(hbmBlocks: 8, dramBlocks: 64)
        let keys = chain(0..<6, of: 1)
        engine.serve(keys, request: 1)
        engine.serve(chain(0..<8, of: 2), request: 2)
        #expect(engine.manager.counters.hbmEvictions == 6)
        for key in keys { #expect(engine.manager.whereabouts(key) == [.dram]) }
        let again = engine.serve(keys, request: 3)
        #expect(again.answer?.dramBlocks == 6 && again.ready.end == 6)
        #expect(engine.manager.ledger[.dram] == 6 * 16 - 1)
        for key in keys { #expect(engine.manager.slot(of: key, in: .hbm) != nil) }
        #expect(engine.manager.deviceSlots.used <= 8 && engine.broken == [])
    }

    @Test func aLeafLeavesTheDeviceBeforeItsParent() {
        var engine = DeviceEngine(hbmBlocks: 8, dramBlocks: 64)
        let keys = chain(0..<6, of: 1)
        engine.serve(keys, request: 1)
        engine.serve(chain(0..<4, of: 2), request: 2)
        #expect(keys.map { engine.manager.slot(of: $0, in: .hbm) != nil } == [true, true, true, true, false, false])
        #expect(engine.broken == [])
    }

    @Test func whatIsReadOnTheDeviceStaysUntilItsRequestEnds() {
        var engine = DeviceEngine(hbmBlocks: 8, dramBlocks: 64)
        let keys = chain(0..<4, of: 1)
        engine.arrive(keys, request: 1)
        #expect(engine.take(keys, request: 1).end == 0)
        let slots = engine.reserve(4, as: 1)
        engine.commit(keys, slots, of: 1, for: 1)
        #expect(engine.reserve(8, as: 2).count == 4)
        engine.check()
        #expect(keys.map { engine.manager.slot(of: $0, in: .hbm) } == slots.map { $0 })
        // A second reader of the same slots.
        engine.arrive(keys, request: 3)
        #expect(engine.take(keys, request: 3).slots == slots)
        engine.end(1, reservation: 1)
        #expect(engine.reserve(1, as: 4).isEmpty)
        engine.end(3, reservation: nil)
        #expect(engine.reserve(8, as: 5).count == 4)
        #expect(engine.broken == [])
    }

    @Test func aBlockThatIsThereAlreadyLeavesItsWriterTheSlot() {
        var engine = DeviceEngine(hbmBlocks: 12, dramBlocks: 64)
        let keys = chain(0..<3, of: 1)
        for request in [RequestNumber(1), 2] {
            engine.arrive(keys, request: request)
            _ = engine.take(keys, request: request)
        }
        let (first, second) = (engine.reserve(3, as: 1), engine.reserve(3, as: 2))
        engine.commit(keys, first, of: 1, for: 1)
        engine.commit(keys, second, of: 2, for: 2)
        #expect(keys.map { engine.manager.slot(of: $0, in: .hbm) } == first.map { $0 })
        // The other goes on reading what it wrote: its slots are nobody else's until it gives them back.
        #expect(engine.manager.loanedSlots.reserved == 3)
        #expect(Set(engine.reserve(12, as: 3)).isDisjoint(with: first + second))
        engine.check()
        engine.end(2, reservation: 2)
        #expect(engine.manager.loanedSlots.reserved == 6)
        #expect(engine.broken == [])
    }

    @Test func aLoadComesFromAllTiersAtOnce() {
        var engine = DeviceEngine(
            hbmBlocks: 24, dramBlocks: 24, nvmeBlocks: 60, storeBlocks: 200, inclusion: .inclusive)
        let keys = chain(0..<20, of: 1)
        engine.serve(keys, request: 1)
        for other in 2..<8 {
            engine.serve(chain(0..<20, of: UInt64(other)), request: RequestNumber(other))
        }
        // Its front is read again, so that each tier has a part.
        engine.serve(Array(keys[..<4]), request: 20)
        let again = engine.serve(keys, request: 21)
        #expect(again.ready.end == 20 && again.ready.slots.count == 20)
        #expect((again.answer?.hbmBlocks ?? 0) == 4)
        #expect((again.answer?.nvmeBlocks ?? 0) + (again.answer?.flashBlocks ?? 0) > 0)
        #expect(engine.broken == [])
    }

    @Test func twoLoadsOfOneBlockBringItUpOnce() {
        var engine = DeviceEngine(hbmBlocks: 8, dramBlocks: 64)
        let keys = chain(0..<4, of: 1)
        engine.serve(keys, request: 1)
        engine.serve(chain(0..<8, of: 2), request: 2)
        for request in [RequestNumber(3), 4] { engine.arrive(keys, request: request) }
        var load = LoadRequest(request: 3, engineBlocks: 0, links: fastLinks)
        load.isLease = true
        engine.manager.handle(.load(load), in: &engine.world)
        load.request = 4
        engine.manager.handle(.load(load), in: &engine.world)
        // One gives up in the middle: the other goes on.
        engine.manager.handle(.cancelled(request: 3), in: &engine.world)
        settle(&engine.manager, &engine.world)
        #expect(engine.world.ready[4]?.slots.count == 4)
        #expect(engine.manager.counters.hbmWrites == 4 + 8 + 4)
        #expect(engine.broken == [])
    }

    @Test func aBlockThatProvedWrongOnItsWayUpIsAMiss() {
        var engine = DeviceEngine(hbmBlocks: 8, dramBlocks: 64)
        let keys = chain(0..<4, of: 1)
        engine.serve(keys, request: 1)
        engine.serve(chain(0..<8, of: 2), request: 2)
        engine.world.script.blockFaultShare = 1
        engine.arrive(keys, request: 3)
        #expect(engine.take(keys, request: 3).end == 0)
        engine.world.script.blockFaultShare = 0
        engine.end(3, reservation: nil)
        #expect(engine.manager.deviceSlots.used <= 8)
        #expect(keys.map { engine.manager.slot(of: $0, in: .hbm) } == [nil, nil, nil, nil])
        #expect(engine.broken == [])
    }

    @Test func whatOnlyTheDeviceHasIsWrittenDownBeforeItsPlaceIsTaken() {
        var engine = DeviceEngine(hbmBlocks: 64, dramBlocks: 64)
        // The copies fail at first: only the device has them.
        engine.world.script.failureShare = 1
        let keys = chain(0..<6, of: 1)
        engine.serve(keys, request: 1)
        for key in keys { #expect(engine.manager.whereabouts(key) == [.hbm]) }
        engine.world.script.failureShare = 0
        engine.serve(chain(0..<52, of: 2), request: 2)
        engine.serve(chain(0..<8, of: 3), request: 3)
        #expect(engine.manager.whereabouts(keys[5]).contains(.dram))
        #expect(engine.broken == [])
    }

    /// Everything at once, with faults, against the world's own knowledge of who holds which slot.
    @Test(arguments: 1...24) func nobodyWritesWhatAnEngineHoldsOnTheDevice(seed: UInt64) {
        var random = RandomSource(seed: seed)
        func pick<Value>(_ all: [Value]) -> Value { all[random.below(all.count)] }
        let isFaulty = seed % 2 == 1
        var script = WorldScript(seed: seed, transferSeconds: 0.02)
        if isFaulty {
            (script.failureShare, script.blockFaultShare, script.fullShare) = (0.1, 0.05, 0.05)
        }
        var engine = DeviceEngine(
            hbmBlocks: pick([10, 24, 60]), dramBlocks: pick([16, 40]), nvmeBlocks: pick([0, 40]),
            storeBlocks: pick([0, 120]), script: script, policy: pick(PolicyName.deployable),
            inclusion: pick(InclusionMode.allCases), spill: pick(SpillRule.allCases))
        var open: [(request: RequestNumber, keys: [BlockKey], end: Int, stage: Int)] = []
        var next: RequestNumber = 1
        var (served, written) = (0, 0)
        for step in 0..<600 {
            if open.count < 6, random.below(3) == 0 || open.isEmpty {
                next += 1
                let keys = chain(0..<2, of: 0) + chain(2..<(3 + random.below(7)), of: UInt64(1 + random.below(9)))
                engine.arrive(keys, request: next)
                open.append((next, keys, 0, 0))
            } else {
                let index = random.below(open.count)
                let (request, keys, end, stage) = open[index]
                switch stage {
                case 0:
                    let ready = engine.take(keys, request: request)
                    served += Int(ready.end)
                    open[index].end = Int(ready.end)
                case 1:
                    engine.manager.handle(.computed(Computed(request: request, parts: .booked)), in: &engine.world)
                    let slots = end < keys.count ? engine.reserve(keys.count - end, as: request) : []
                    if !slots.isEmpty {
                        engine.commit(Array(keys[..<(end + slots.count)]), slots, of: request, for: request)
                        written += slots.count
                    }
                default:
                    engine.end(request, reservation: engine.reserved[request] == nil ? nil : request)
                    open.remove(at: index)
                }
                if stage < 2 { open[index].stage += 1 }
            }
            engine.check()
            #expect(engine.broken == [], "step \(step)")
            if !engine.broken.isEmpty { return }
        }
        for left in open {
            engine.end(left.request, reservation: engine.reserved[left.request] == nil ? nil : left.request)
        }
        settle(&engine.manager, &engine.world)
        let inFlight = engine.manager.inFlight()
        #expect(inFlight.leases == 0 && inFlight.users == 0 && inFlight.transfers == 0 && engine.broken == [])
        #expect(served > 0 && written > 0)
        #expect(engine.manager.loanedSlots.all == 0)
    }
}
