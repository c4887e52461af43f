// The named policies against their naive twins, and the promises that every policy makes.

import KVModel
import KVTiering
import Testing

@Suite struct NamedPolicyTests {
    /// Feeds the same random requests to both and compares what they hold after each.
    func agrees<Naive: NaiveCache>(_ name: PolicyName, with type: Naive.Type, seeds: ClosedRange<UInt64>) throws {
        for seed in seeds {
            var source = RandomSource(seed: seed)
            let capacity = 1 + source.below(source.below(4) == 0 ? 80 : 25)
            let paths = randomPaths(requests: 150, longest: 30, source: &source)
            var policy = try #require(name.makePolicy(capacity: capacity))
            var naive = Naive(capacity: capacity)
            var evicted: [BlockNumber] = []
            for (index, path) in paths.enumerated() {
                let run = path.prefix { naive.held.contains($0) }.count
                #expect(policy.hitRun(path.span) == run, "seed \(seed), request \(index)")
                let before = naive.held
                policy.access(path.span, RequestContext(request: UInt32(index), now: .zero), evicted: &evicted)
                for block in path.reversed() { naive.access(block) }
                let numbers = 0...(paths.joined().max() ?? 0)
                let held = Set(numbers.filter { policy.isResident($0) })
                #expect(held == naive.held, "\(name), seed \(seed), capacity \(capacity), request \(index)")
                #expect(policy.residentCount == held.count)
                #expect(held.count <= capacity)
                #expect(before.subtracting(held).isSubset(of: evicted), "an eviction was not reported")
                evicted.removeAll()
            }
        }
    }

    @Test func lruEvictsWhatTheNaiveListEvicts() throws { try agrees(.lru, with: NaiveLRU.self, seeds: 1...60) }
    @Test func fifoEvictsWhatTheNaiveListEvicts() throws { try agrees(.fifo, with: NaiveFIFO.self, seeds: 1...60) }
    @Test func lfuEvictsWhatTheNaiveCountsEvict() throws { try agrees(.lfu, with: NaiveLFU.self, seeds: 1...60) }
    @Test func s3fifoEvictsWhatThePaperEvicts() throws { try agrees(.s3fifo, with: NaiveS3FIFO.self, seeds: 1...60) }
    @Test func sieveEvictsWhatThePaperEvicts() throws { try agrees(.sieve, with: NaiveSIEVE.self, seeds: 1...60) }
    @Test func arcEvictsWhatThePaperEvicts() throws { try agrees(.arc, with: NaiveARC.self, seeds: 1...60) }

    @Test func lruHitsWhatItsStackDistancesSay() throws {
        // Mattson's stack: at any capacity, a block is resident exactly if fewer than that many different blocks
        // were accessed since its own last access.
        for seed in UInt64(1)...20 {
            var source = RandomSource(seed: seed)
            let paths = randomPaths(requests: 120, longest: 20, source: &source)
            let capacities = [1, 2, 3, 5, 8, 13, 21, 34]
            var policies = capacities.map { LRUPolicy(capacity: $0) }
            var stream: [BlockNumber] = []
            var evicted: [BlockNumber] = []
            for path in paths {
                for (capacity, policy) in zip(capacities, policies) {
                    let run = path.prefix { block in
                        guard let last = stream.lastIndex(of: block) else { return false }
                        return Set(stream[(last + 1)...]).count < capacity
                    }
                    #expect(policy.hitRun(path.span) == run.count, "seed \(seed), capacity \(capacity)")
                }
                for index in policies.indices {
                    policies[index].access(path.span, RequestContext(request: 0, now: .zero), evicted: &evicted)
                }
                stream.append(contentsOf: path.reversed())
            }
        }
    }

    /// Whether a block lies on the way to another, or is it.
    func isAncestor(_ block: BlockNumber, of other: BlockNumber, in paths: [[BlockNumber]]) -> Bool {
        guard let path = paths.first(where: { $0.contains(other) }) else { return false }
        return path[...path.firstIndex(of: other)!].contains(block)
    }

    @Test(arguments: PolicyName.deployable)
    func pinsAndRemovalsKeepTheirPromise(_ name: PolicyName) throws {
        for seed in UInt64(1)...40 {
            var source = RandomSource(seed: seed &* 977)
            let capacity = 1 + source.below(20)
            let paths = randomPaths(requests: 200, longest: 24, source: &source)
            let numbers = 0...(paths.joined().max() ?? 0)
            var policy = try #require(name.makePolicy(capacity: capacity))
            var pins: [BlockNumber: Int] = [:]
            var held: Set<BlockNumber> = []
            for (index, path) in paths.enumerated() {
                var evicted: [BlockNumber] = []
                let context = RequestContext(request: UInt32(index), now: Instant(nanoseconds: Int64(index)))
                policy.access(path.span, context, evicted: &evicted)
                let now = Set(numbers.filter { policy.isResident($0) })
                #expect(now.count == policy.residentCount, "\(name), seed \(seed), request \(index)")
                #expect(now.count <= capacity)
                #expect(held.subtracting(now).isSubset(of: evicted), "an eviction was not reported")
                #expect(Set(pins.keys).isSubset(of: now), "\(name) evicted a pinned block, seed \(seed)")
                held = now

                for block in held.sorted() where source.below(6) == 0 {
                    policy.pin(block)
                    pins[block, default: 0] += 1
                }
                for block in pins.keys.sorted() where source.below(4) == 0 {
                    policy.unpin(block)
                    pins[block]! -= 1
                    if pins[block] == 0 { pins[block] = nil }
                }
                let free = held.filter { block in !pins.keys.contains { isAncestor(block, of: $0, in: paths) } }
                if source.below(5) == 0, let block = free.sorted().first {
                    var left: [BlockNumber] = []
                    policy.remove(block, evicted: &left)
                    policy.remove(block, evicted: &left)
                    #expect(left.contains(block))
                    #expect(Set(left).count == left.count, "a block left twice")
                    #expect(left.allSatisfy { held.contains($0) && !policy.isResident($0) })
                    held.subtract(left)
                    #expect(policy.residentCount == held.count)
                }
            }
            // When the last pin is gone, every block can leave again.
            for (block, count) in pins { for _ in 0..<count { policy.unpin(block) } }
            let fresh = (numbers.upperBound + 1)...(numbers.upperBound + BlockNumber(4 * capacity))
            var evicted: [BlockNumber] = []
            for round in 0..<8 {
                let path = Array(fresh.dropFirst(round % 2 * capacity).prefix(capacity))
                policy.access(
                    path.span, RequestContext(request: UInt32(1000 + round), now: Instant(nanoseconds: 10_000)),
                    evicted: &evicted)
            }
            #expect(policy.residentCount <= capacity)
        }
    }

    @Test(arguments: PolicyName.deployable)
    func whenAllIsPinnedNewcomersStayOut(_ name: PolicyName) throws {
        var policy = try #require(name.makePolicy(capacity: 3))
        var evicted: [BlockNumber] = []
        let first: [BlockNumber] = [0, 1, 2]
        policy.access(first.span, RequestContext(request: 0, now: .zero), evicted: &evicted)
        for block in first { policy.pin(block) }
        let second: [BlockNumber] = [3, 4, 5, 6]
        policy.access(second.span, RequestContext(request: 1, now: .zero), evicted: &evicted)
        #expect(policy.hitRun(first.span) == 3)
        #expect(policy.residentCount == 3)
        #expect(second.allSatisfy { !policy.isResident($0) })
        #expect(evicted.isEmpty)
    }

    @Test(arguments: PolicyName.deployable)
    func aNumberIsForgottenOnceAndAnnounced(_ name: PolicyName) throws {
        // What the owner believes from announcements alone is what the policy says when asked.
        for seed in UInt64(1)...20 {
            var source = RandomSource(seed: seed &* 53)
            let capacity = 1 + source.below(20)
            var policy = try #require(name.makePolicy(capacity: capacity, reportsForgotten: true))
            var known: Set<BlockNumber> = []
            for (index, path) in randomPaths(requests: 150, longest: 24, source: &source).enumerated() {
                var left: [BlockNumber] = []
                let context = RequestContext(request: UInt32(index), now: Instant(nanoseconds: Int64(index)))
                policy.access(path.span, context, evicted: &left)
                policy.takeForgotten(into: &left)
                known.formUnion(path.filter { policy.remembers($0) })
                for block in left where !policy.remembers(block) { known.remove(block) }
                #expect(known.allSatisfy { policy.remembers($0) }, "\(name), seed \(seed), request \(index)")
            }
        }
    }

    @Test func infiniteKeepsAllItSaw() {
        var policy = InfinitePolicy()
        var evicted: [BlockNumber] = []
        policy.access([4, 5, 9].span, RequestContext(request: 0, now: .zero), evicted: &evicted)
        #expect(policy.hitRun([4, 5, 6].span) == 2)
        #expect(policy.residentCount == 3)
        policy.remove(5)
        #expect(policy.hitRun([4, 5, 9].span) == 1)
        #expect(evicted.isEmpty)
    }
}
