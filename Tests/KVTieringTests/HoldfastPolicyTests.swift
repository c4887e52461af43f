// The rules the `holdfast` policy keeps whatever the traffic, checked against a plain set of blocks after every step
// of thousands of random ones.

import KVModel
import KVTiering
import Testing

/// Random traffic over a small tree of prefixes, with the parent of every block.
struct RandomTree {
    var random: RandomSource
    var parents: [BlockNumber?] = []
    var paths: [[BlockNumber]] = []
    var now = Instant.zero

    init(seed: UInt64) { random = RandomSource(seed: seed) }

    /// A path that forks from a known one somewhere, or a new one.
    mutating func nextPath() -> [BlockNumber] {
        now = now + Duration(seconds: random.exponential(mean: 3))
        var path: [BlockNumber] = []
        if !paths.isEmpty, random.below(4) > 0 {
            let known = paths[random.below(paths.count)]
            path = Array(known.prefix(random.below(known.count + 1)))
            if random.below(3) == 0 { path = known }
        }
        for _ in 0..<random.below(6) + (path.isEmpty ? 1 : 0) {
            parents.append(path.last)
            path.append(BlockNumber(parents.count - 1))
        }
        paths.append(path)
        return path
    }
}

@Suite struct HoldfastPolicyTests {
    @Test(arguments: [(1, 1), (2, 3), (3, 10), (4, 40), (5, 200), (6, 10), (7, 25), (8, 64)])
    func whatItHoldsIsClosedBoundedAndTold(seed: UInt64, capacity: Int) {
        var tree = RandomTree(seed: seed)
        var policy = HoldfastPolicy(capacity: capacity)
        var model: Set<BlockNumber> = []
        var pins: [BlockNumber: Int] = [:]
        for request in 0..<1500 {
            let path = tree.nextPath()
            var evicted: [BlockNumber] = []
            let hits = policy.hitRun(path.span)
            #expect(hits == path.prefix { model.contains($0) }.count)
            policy.access(path.span, RequestContext(request: UInt32(request), now: tree.now), evicted: &evicted)
            // A request takes in a leading run of its path; what it drops was here and is not of its own path.
            for block in evicted {
                #expect(model.remove(block) != nil, "block \(block) left without having been here")
                #expect(pins[block] == nil, "a pinned block left")
            }
            model.formUnion(path.prefix(policy.hitRun(path.span)))
            #expect(policy.hitRun(path.span) >= hits)
            if tree.random.below(3) == 0 {
                let reason = [StopReason.toolUse, .endTurn, .unknown][tree.random.below(3)]
                let end = tree.now + Duration(seconds: tree.random.uniform() * 2)
                policy.turnEnded(request: UInt32(request), reason: reason, at: end)
                tree.now = end
            }
            shufflePins(&policy, &pins, model: model, random: &tree.random)
            if tree.random.below(40) == 0, let block = model.sorted().randomElement(using: &tree.random) {
                removeAndCheck(block, &policy, &model, parents: tree.parents)
                pins = pins.filter { model.contains($0.key) }
            }
            check(policy, against: model, parents: tree.parents)
        }
    }

    private func shufflePins(
        _ policy: inout HoldfastPolicy, _ pins: inout [BlockNumber: Int], model: Set<BlockNumber>,
        random: inout RandomSource
    ) {
        if random.below(5) == 0, let block = model.sorted().randomElement(using: &random) {
            policy.pin(block)
            pins[block, default: 0] += 1
        }
        if random.below(4) == 0, let (block, count) = pins.sorted(by: { $0.key < $1.key }).randomElement(using: &random)
        {
            policy.unpin(block)
            pins[block] = count > 1 ? count - 1 : nil
        }
    }

    /// A removal drops the block and exactly what hangs under it.
    private func removeAndCheck(
        _ block: BlockNumber, _ policy: inout HoldfastPolicy, _ model: inout Set<BlockNumber>,
        parents: [BlockNumber?]
    ) {
        var dropped: [BlockNumber] = []
        policy.remove(block, evicted: &dropped)
        func hangs(_ other: BlockNumber) -> Bool {
            var way: BlockNumber? = other
            while let here = way {
                if here == block { return true }
                way = parents[Int(here)]
            }
            return false
        }
        #expect(Set(dropped) == model.filter(hangs))
        #expect(dropped.count == Set(dropped).count)
        model.subtract(dropped)
    }

    private func check(_ policy: HoldfastPolicy, against model: Set<BlockNumber>, parents: [BlockNumber?]) {
        #expect(policy.residentCount == model.count)
        #expect(policy.residentCount <= policy.capacity)
        for block in parents.indices {
            let isHere = policy.isResident(BlockNumber(block))
            #expect(isHere == model.contains(BlockNumber(block)))
            if isHere, let parent = parents[block] { #expect(policy.isResident(parent), "a block without its parent") }
        }
    }
}
