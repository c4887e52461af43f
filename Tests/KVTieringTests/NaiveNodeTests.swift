// A node with one tier against the plainest model of it: lists searched from end to end.

import KVModel
import KVTiering
import Testing

/// Node memory under LRU with staging slots, by the rules in words: the most recent `kept` blocks stay, deepest
/// first; what they push out waits in the rest of the slots, first in, first out.
private struct NaiveNode {
    let slots: Int
    let keptMax: Int
    /// Oldest first.
    var kept: [BlockKey] = []
    var idle: [BlockKey] = []
    /// Blocks with bytes.
    var present = Set<BlockKey>()
    var seen = Set<BlockKey>()
    var served = 0
    var firstSeen = 0
    var evicted = 0

    func has(_ key: BlockKey) -> Bool { present.contains(key) }

    mutating func serve(_ chain: [BlockKey], tokens: Int) {
        let hits = chain.prefix { has($0) }.count
        let known = chain.prefix { seen.contains($0) }.count
        seen.formUnion(chain)
        func tokensBefore(_ block: Int) -> Int { min(block * 16, tokens) }
        served += tokensBefore(hits) - (tokensBefore(hits) == tokens ? 1 : 0)
        evicted += tokensBefore(known) - tokensBefore(hits)
        firstSeen += tokens - tokensBefore(max(known, hits))
        // Loaded blocks were held while they were read, and fall idle after.
        for key in chain[..<hits] where idle.contains(key) {
            idle.removeAll { $0 == key }
            idle.append(key)
        }
        var pushed: [BlockKey] = []
        for key in chain.reversed() {
            kept.removeAll { $0 == key }
            if kept.count == keptMax { pushed.append(kept.removeFirst()) }
            kept.append(key)
        }
        // A block may have been pushed out and come in again within the request; only its place now counts.
        for key in pushed where !kept.contains(key) && present.contains(key) && !idle.contains(key) { idle.append(key) }
        for key in chain where kept.contains(key) {
            idle.removeAll { $0 == key }
            if !present.contains(key) {
                if present.count == slots, let oldest = idle.first {
                    idle.removeFirst()
                    present.remove(oldest)
                }
                present.insert(key)
            }
        }
    }
}

@Suite struct NaiveNodeTests {
    @Test(arguments: [UInt64(1), 2, 3, 4])
    func oneTierAgreesWithItsNaiveTwin(seed: UInt64) {
        var random = RandomSource(seed: seed)
        var manager = TieringManager(smallConfiguration(dramBlocks: 32))
        var world = ScriptedWorld(WorldScript(seed: seed))
        var naive = NaiveNode(slots: 32, keptMax: 24)
        for request in 0..<1500 {
            let conversation = UInt64(random.below(6))
            let length = 1 + random.below(20)
            let shared = random.below(4)
            let keys = chain(0..<shared, of: 99) + chain(shared..<shared + length, of: conversation)
            let tokens = keys.count * 16 - random.below(16)
            let known = Int32(keys.prefix { naive.seen.contains($0) }.count)
            naive.serve(keys, tokens: tokens)
            serve(keys, request: RequestNumber(request), tokens: tokens, known: known, &manager, &world)
            #expect(manager.ledger[.dram] == naive.served)
            #expect(manager.ledger[.firstSeen] == naive.firstSeen)
            #expect(manager.ledger[.evicted] == naive.evicted)
            for key in naive.seen {
                #expect((manager.slot(of: key, in: .dram) != nil) == naive.has(key), "request \(request)")
            }
            if manager.ledger[.dram] != naive.served { return }
        }
        #expect(naive.served > 1000)
        #expect(naive.evicted > 1000)
        #expect(world.broken == [])
    }
}
