// The store's order of worth as the replay's policy: who leaves first, and what keeps a block.

import KVModel
import KVTiering
import Testing

@Suite struct RankedPolicyTests {
    private func context(_ seconds: Int64) -> RequestContext {
        RequestContext(request: UInt32(seconds), now: Instant(nanoseconds: seconds * 1_000_000_000))
    }

    private func access(
        _ policy: inout RankedPolicy, _ blocks: Range<BlockNumber>, at seconds: Int64
    ) -> [BlockNumber] {
        var evicted: [BlockNumber] = []
        let path = Array(blocks)
        policy.access(path.span, context(seconds), evicted: &evicted)
        return evicted
    }

    @Test func theDeepestOfTheChainThatRestedLongestLeavesFirstAndAheadOfNeed() {
        var policy = RankedPolicy(capacity: 128)
        #expect(access(&policy, 0..<64, at: 1).isEmpty)
        #expect(access(&policy, 64..<126, at: 2).isEmpty)
        // Two of 128 places stay free: what comes drives out as many, the end of the older chain.
        #expect(access(&policy, 126..<129, at: 3) == [63, 62, 61])
        #expect(policy.residentCount == 126)
    }

    /// Ten blocks every ten seconds, of which 128 places hold two minutes' worth.
    @Test func whatIsReadAgainStaysLonger() {
        var policy = RankedPolicy(capacity: 128)
        for chain in 0..<100 as Range<BlockNumber> {
            _ = access(&policy, chain * 10..<chain * 10 + 10, at: Int64(chain * 10))
        }
        for block in 990..<1000 as Range<BlockNumber> {
            for _ in 0..<8 { policy.read(block, at: Instant(nanoseconds: 990_000_000_000)) }
        }
        var left: [BlockNumber] = []
        for chain in 100..<116 as Range<BlockNumber> {
            left += access(&policy, chain * 10..<chain * 10 + 10, at: Int64(chain * 10))
            // To be asked for renews a block as well.
            for block in 1000..<1010 as Range<BlockNumber> {
                policy.asked(for: block, at: Instant(nanoseconds: Int64(chain) * 10_000_000_000))
            }
        }
        #expect(left.contains(1010) && !left.contains { (990..<1010).contains($0) })
    }

    @Test func aPinnedBlockStaysAndWhatHasNoPlaceStaysOut() {
        var policy = RankedPolicy(capacity: 16)
        _ = access(&policy, 0..<14, at: 1)
        for block in 0..<14 as Range<BlockNumber> { policy.pin(block) }
        // Each newcomer makes room for the next.
        #expect(access(&policy, 20..<24, at: 2) == [20, 21, 22])
        #expect((0..<14).allSatisfy { policy.isResident($0) })
        for block in 0..<14 as Range<BlockNumber> { policy.unpin(block) }
        #expect(access(&policy, 30..<32, at: 3).allSatisfy { $0 < 14 })
        policy.remove(30)
        #expect(!policy.isResident(30) && policy.residentCount <= 16)
    }

    /// A store that ranks hears of what is offered, asked for and read, and of nothing else of a path.
    @Test func theStoreOfAReplayTellsItsPolicyWhatAStoreSees() {
        var store = StoreManager(
            StoreManagerConfiguration(
                blockBytes: 1, bytes: 128, makePolicy: { RankedPolicy(capacity: $0) }, writeBudget: nil,
                knownBlocksMax: 1024))
        func chain(_ number: Int, _ count: Int) -> [BlockKey] {
            (0..<count).map { BlockKey(high: UInt64(number) << 8 | UInt64($0), low: 7) }
        }
        func moves(of keys: [BlockKey]) -> [BlockMove] {
            keys.map { BlockMove(key: $0, block: 0, position: 0, source: 0, destination: 0) }
        }
        func save(_ keys: [BlockKey], from first: Int = 0, at seconds: Int64) {
            let offer = StoreOffer(
                offer: 1, chain: keys, firstOffered: Int32(first), context: context(seconds))
            let want = store.offer(offer, at: context(seconds).now)
            store.endWrite(want.wanted.flatMap { moves(of: Array(keys[Int($0.lowerBound)..<Int($0.upperBound)])) })
        }
        for number in 0..<12 { save(chain(number, 10), at: Int64(10 * number)) }
        // The first chain is asked for, the second is read, the third goes on: its blocks before that were not asked for.
        let now = context(200).now
        #expect(store.present(chain(0, 10), at: now) == [0x3FF])
        _ = store.beginRead(moves(of: chain(1, 10)), at: now)
        store.endRead(moves(of: chain(1, 10)))
        save(chain(2, 12), from: 10, at: 200)
        save(chain(20, 14), at: 201)
        #expect(store.present(chain(0, 10), at: now) == [0x3FF])
        #expect(store.present(chain(1, 10), at: now) == [0x3FF])
        #expect(store.present(chain(2, 10), at: now) != [0x3FF])
    }
}
