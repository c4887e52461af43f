// What a replay says of a full store is what the deployed one does: the decisions of the store and the replay's policy,
// under the same traffic, hold the same blocks.

import KVModel
import KVStore
import KVTiering
import KVTransport
import Testing

@Suite struct RankingTests {
    /// Conversations that grow, come back and are read, over a store for half of them, one in a second. Of two blocks that are
    /// worth the same the store gives up the one in the lower place and the replay that of the lower number: under these seeds
    /// no choice depends on that.
    @Test(arguments: [1, 3, 5, 7, 9, 11, 13, 15, 17, 19] as [UInt64])
    func theReplaysPolicyHoldsWhatTheStoreHolds(seed: UInt64) throws {
        let extents = 256
        var world = try ScriptedStore(seed: seed, driveExtents: extents) {
            $0.payloadBytesMax = ScriptedStore.extentBytes
        }
        let handle = world.open("demo")
        var policy = RankedPolicy(capacity: extents)
        var random = RandomSource(seed: seed &* 31)
        var lengths = [Int](repeating: 0, count: 40)
        var evicted: [BlockNumber] = []

        for step in 1...500 {
            // A pause now and then is longer than blocks usually stay.
            let pause = random.below(50) == 0 ? 400 : 1 + random.below(3)
            world.now = Instant(nanoseconds: (world.now.nanoseconds / 1_000_000_000 + Int64(pause)) * 1_000_000_000)
            let chain = random.below(8) < 5 ? random.below(6) : random.below(lengths.count)
            let numbers = (0..<lengths[chain]).map { chain * 64 + $0 }
            // What a node reads before it computes the rest: the leading blocks that the store has.
            let held = numbers.prefix { policy.isResident(BlockNumber($0)) }
            if random.below(3) > 0 {
                for number in held {
                    _ = world.request(.get(handle, Self.name(number)))
                    policy.read(BlockNumber(number), at: world.now)
                }
                world.runUntilQuiet()
            }
            // The answer, and sometimes what was lost, is saved.
            let first = random.below(4) == 0 ? 0 : held.count
            lengths[chain] = min(14, lengths[chain] + random.below(6))
            let path = (0..<lengths[chain]).map { BlockNumber(chain * 64 + $0) }
            let asked = path[min(first, path.count)...].map { Self.name(Int($0)) }
            if !asked.isEmpty { _ = world.request(.lookUp(handle, asked)) }
            let time = world.now
            for depth in min(first, path.count)..<path.count where !policy.isResident(path[depth]) {
                _ = world.put(
                    handle, Self.name(Int(path[depth])), token: UInt64(step),
                    metadata: ObjectMetadata(indexInChain: UInt32(depth)))
                world.runUntilQuiet()
            }
            try #require(StoreRanking.second(of: world.now) == StoreRanking.second(of: time))
            policy.extend(
                path.span, from: min(first, path.count), RequestContext(request: UInt32(step), now: time),
                evicted: &evicted)

            let durable = Set(world.drives[0].headers.values.map(\.name.key))
            let replayed = Set(
                (0..<lengths.count * 64).filter { policy.isResident(BlockNumber($0)) }.map { Self.key($0) })
            let (more, less) = (durable.subtracting(replayed), replayed.subtracting(durable))
            try #require(more.isEmpty && less.isEmpty, "step \(step): the store alone \(more), the replay \(less)")
        }
        #expect(evicted.count > 200)
        #expect(world.complaint == nil)
    }

    private static func key(_ number: Int) -> FullKey { FullKey(UInt64(number) + 1, 5, 7, 9) }
    private static func name(_ number: Int) -> ObjectName { ObjectName(key(number)) }
}
