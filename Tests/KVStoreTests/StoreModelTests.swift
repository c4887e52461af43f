// The store's decisions against a dictionary, over thousands of random operations with faults and crashes.

import KVModel
import KVStore
import KVTransport
import Testing

@Suite struct StoreModelTests {
    static func name(_ number: Int) -> ObjectName {
        ObjectName(FullKey(mixBits(UInt64(number) + 1), mixBits(UInt64(number) + 1_000_003), 7, 9))
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8])
    func randomOperationsWithFaultsAndCrashesKeepEveryPromise(seed: UInt64) throws {
        var faults = StoreFaults()
        if seed % 2 == 0 {
            faults = StoreFaults(
                badPayloads: 0.05, failedWrites: 0.01, failedReads: 0.005, failedErasures: 0.01, overdue: 0.01,
                overdueReads: 0.01, overdueErasures: 0.01, failedCatalogue: 0.1, damagedBlocks: 0.02)
        }
        var world = try ScriptedStore(seed: seed, driveCount: seed % 3 == 0 ? 2 : 1)
        var policy = NamespacePolicy()
        policy.quotaBytes = 24 * ScriptedStore.extentBytes
        policy.pinQuotaBytes = 6 * ScriptedStore.extentBytes
        world.set("small", policy)
        var volatilePolicy = NamespacePolicy()
        volatilePolicy.durability = .volatile
        world.set("volatile", volatilePolicy)
        world.set("large", NamespacePolicy())
        // What is refused is not in force; the model needs its settings, so nothing fails before.
        world.faults = faults

        var random = RandomSource(seed: seed &* 77)
        // Of each namespace and name: the payloads that may be served.
        var known: [[Int: Set<UInt64>]] = [[:], [:], [:]]
        var gets: [RequestID: (Int, Int)] = [:]
        var puts: [RequestID: (Int, Int, UInt64)] = [:]
        var pins: [RequestID: (Int, Bool)] = [:]
        var pinned: Set<Int> = []
        var token: UInt64 = 1 << 40
        var hits = 0
        var handles = [world.open("small"), world.open("volatile"), world.open("large")]

        for turn in 0..<3000 {
            let place = random.below(3)
            let number = random.below(40)
            let name = Self.name(number)
            switch random.below(20) {
            case 0..<8:
                token += 2
                let id = world.put(
                    handles[place], name, token: token, extents: 1 + random.below(3),
                    metadata: ObjectMetadata(
                        indexInChain: UInt32(random.below(9)), evictionClass: UInt8(random.below(2))),
                    isVolatile: place == 1)
                puts[id] = (place, number, token)
            case 8..<15: gets[world.request(.get(handles[place], name))] = (place, number)
            case 15: _ = world.request(.delete(handles[place], [name]))
            case 16:
                pins[world.request(.pin(handles[0], [name], owner: "me", lifetimeSeconds: 0))] = (number, true)
            case 17: pins[world.request(.unpin(handles[0], [name], owner: "me"))] = (number, false)
            case 18: _ = world.request(.lookUp(handles[place], (0..<40).map(Self.name)))
            default: _ = world.request(.reportCorrupt(handles[place], name))
            }
            for _ in 0..<random.below(4) { world.step() }

            // Whatever ended is held against the model.
            for (id, put) in puts {
                guard let response = world.responses[id] else { continue }
                if response.status == .ok {
                    // A tombstone that failed may leave an older payload of the same name for a restart to find.
                    if faults.failedErasures == 0 { known[put.0][put.1] = nil }
                    known[put.0][put.1, default: []].insert(put.2)
                }
                puts[id] = nil
            }
            for (id, pin) in pins {
                guard let response = world.responses[id] else { continue }
                pins[id] = nil
                guard case .statuses(let statuses) = response.body, statuses == [.ok] else { continue }
                if pin.1 { pinned.insert(pin.0) } else { pinned.remove(pin.0) }
            }
            for (id, get) in gets {
                guard let response = world.responses[id] else { continue }
                gets[id] = nil
                guard response.status == .ok, case .object(let bytes, let checksum, _) = response.body else { continue }
                hits += 1
                let content = world.received[id] ?? 0
                // A client that checks what it got sees the damage itself.
                let expected = world.algebra.payloadChecksum(
                    of: Self.name(get.1), payloadBytes: bytes, checksum: checksum)
                if content != expected, faults.damagedBlocks > 0 { continue }
                let may = known[get.0][get.1] ?? []
                #expect(
                    may.contains(content), "seed \(seed), turn \(turn): a block is served that was not stored there")
            }
            if turn % 700 == 699 {
                // Puts under way may have become durable without an answer.
                for (_, put) in puts { known[put.0][put.1, default: []].insert(put.2) }
                puts = [:]
                gets = [:]
                pins = [:]
                try world.crash()
                handles = [world.open("small"), world.open("volatile"), world.open("large")]
                pinned = pinned.filter { number in
                    world.cataloguePins.contains { $0.key == Self.name(number).key.text }
                }
                known[1] = [:]
            }
            if let complaint = world.complaint {
                Issue.record("seed \(seed), turn \(turn): \(complaint)")
                return
            }
        }
        world.runUntilQuiet()
        #expect(world.complaint == nil)
        #expect(hits > 100, "the test must see hits")
        // Nothing that somebody pinned was evicted; damage alone may take it.
        if faults.damagedBlocks == 0 {
            for number in pinned {
                let id = world.request(.get(handles[0], Self.name(number)))
                world.runUntilQuiet()
                #expect(world.responses[id]?.status == .ok, "seed \(seed): a pinned block is gone")
            }
        }
    }
}
