// The slots' table against one that recounts everything each time.

import KVMemory
import KVModel
import Testing

@Suite struct ArenaSlotsTests {
    /// What is known of each slot, in the plainest form.
    private struct Model {
        struct Slot {
            var state = ArenaSlots.State.unready
            var loans = 0
            var pins = 0
        }
        var slots: [Slot]

        var counts: SlotCounts {
            func count(_ rule: (Slot) -> Bool) -> Int { slots.filter(rule).count }
            return SlotCounts(
                unready: count { $0.state == .unready }, free: count { $0.state == .free },
                filling: count { $0.state == .filling }, visible: count { $0.state == .visible },
                quarantined: count { $0.state == .quarantined }, lent: count { $0.loans > 0 },
                pinned: count { $0.pins > 0 })
        }

        func any(_ source: inout RandomSource, _ rule: (Slot) -> Bool) -> Int? {
            let fitting = slots.indices.filter { rule(slots[$0]) }
            return fitting.isEmpty ? nil : fitting[source.below(fitting.count)]
        }
    }

    @Test(arguments: 1...8) func countsAreThoseOfARecount(seed: UInt64) {
        var source = RandomSource(seed: seed)
        let count = 1 + source.below(40)
        var slots = ArenaSlots(count: count)
        var model = Model(slots: [Model.Slot](repeating: Model.Slot(), count: count))
        var ready = 0
        for _ in 0..<4000 {
            switch source.below(10) {
            case 0:
                ready = min(count, ready + source.below(3))
                slots.admit(upTo: ready)
                for slot in 0..<ready where model.slots[slot].state == .unready { model.slots[slot].state = .free }
            case 1, 2, 3:
                let taken = slots.take()
                #expect((taken == nil) == !model.slots.contains { $0.state == .free })
                guard let slot = taken.map(Int.init) else { continue }
                #expect(model.slots[slot].state == .free)
                model.slots[slot].state = .filling
            case 4:
                guard let slot = model.any(&source, { $0.state == .filling }) else { continue }
                slots.publish(UInt32(slot))
                model.slots[slot].state = .visible
            case 5:
                guard let slot = model.any(&source, { $0.state == .filling || $0.state == .visible }) else { continue }
                slots.lend(UInt32(slot))
                model.slots[slot].loans += 1
            case 6:
                guard let slot = model.any(&source, { $0.loans > 0 }) else { continue }
                slots.giveBack(UInt32(slot))
                model.slots[slot].loans -= 1
                if model.slots[slot].loans == 0, model.slots[slot].state == .quarantined {
                    model.slots[slot].state = .free
                }
            case 7:
                guard let slot = model.any(&source, { $0.state == .visible }) else { continue }
                slots.pin(UInt32(slot))
                model.slots[slot].pins += 1
            case 8:
                guard let slot = model.any(&source, { $0.pins > 0 }) else { continue }
                slots.unpin(UInt32(slot))
                model.slots[slot].pins -= 1
            default:
                guard let slot = model.any(&source, { ($0.state == .filling || $0.state == .visible) && $0.pins == 0 })
                else { continue }
                let isFree = slots.remove(UInt32(slot))
                #expect(isFree == (model.slots[slot].loans == 0))
                model.slots[slot].state = isFree ? .free : .quarantined
            }
            #expect(slots.counts == model.counts)
            for slot in 0..<count { #expect(slots.state(of: UInt32(slot)) == model.slots[slot].state) }
        }
        // Everybody lets go: every slot that is ready is free again.
        for slot in model.slots.indices {
            for _ in 0..<model.slots[slot].pins { slots.unpin(UInt32(slot)) }
            if [.filling, .visible].contains(model.slots[slot].state) { slots.remove(UInt32(slot)) }
            for _ in 0..<model.slots[slot].loans { slots.giveBack(UInt32(slot)) }
        }
        #expect(slots.counts == SlotCounts(unready: count - ready, free: ready))
    }

    @Test func aSlotThatATransferHoldsIsNotGivenOutAgain() throws {
        var slots = ArenaSlots(count: 1)
        slots.admit(upTo: 1)
        let taken = slots.take()
        let slot = try #require(taken)
        slots.publish(slot)
        slots.lend(slot)
        let isFree = slots.remove(slot)
        #expect(!isFree)
        let none = slots.take()
        #expect(none == nil)
        #expect(slots.counts == SlotCounts(quarantined: 1, lent: 1))
        slots.giveBack(slot)
        let again = slots.take()
        #expect(again == slot)
    }

    @Test func slotsBecomeUsableAsTheyBecomeReadyLowestFirst() {
        var slots = ArenaSlots(count: 6)
        var taken = [slots.take()]
        slots.admit(upTo: 2)
        taken += [slots.take(), slots.take(), slots.take()]
        slots.admit(upTo: 6)
        taken += [slots.take(), slots.take()]
        #expect(taken == [nil, 0, 1, nil, 2, 3])
        slots.admit(upTo: 1)
        #expect(slots.counts == SlotCounts(free: 2, filling: 4))
    }
}
