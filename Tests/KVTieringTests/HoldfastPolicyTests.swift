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

    /// A request's path goes on: the way of another, or by new blocks.
    mutating func grow(_ request: Int) -> (path: [BlockNumber], shown: Int) {
        var path = paths[request]
        let shown = path.count
        let others = paths.filter { $0.count > shown && $0.starts(with: path) }
        if !others.isEmpty, random.below(2) == 0 {
            let other = others[random.below(others.count)]
            path = Array(other.prefix(shown + 1 + random.below(other.count - shown)))
        }
        for _ in 0..<random.below(3) + (path.count == shown ? 1 : 0) {
            parents.append(path.last)
            path.append(BlockNumber(parents.count - 1))
        }
        paths[request] = path
        return (path, shown)
    }
}

@Suite struct HoldfastPolicyTests {
    @Test(arguments: [(1, 1), (2, 3), (3, 10), (4, 40), (5, 200), (6, 10), (7, 25), (8, 64)])
    func whatItHoldsIsClosedBoundedAndTold(seed: UInt64, capacity: Int) {
        var tree = RandomTree(seed: seed)
        var policy = HoldfastPolicy(capacity: capacity)
        var model: Set<BlockNumber> = []
        var pins: [BlockNumber: Int] = [:]
        var touches = RandomSource(seed: seed &+ 900)
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
            if tree.random.below(3) == 0 { growAndCheck(request, &policy, &model, pins, &tree) }
            if tree.random.below(3) == 0 {
                let reason = [StopReason.toolUse, .endTurn, .unknown][tree.random.below(3)]
                let end = tree.now + Duration(seconds: tree.random.uniform() * 2)
                policy.turnEnded(request: UInt32(request), reason: reason, at: end)
                tree.now = end
            }
            if touches.below(4) == 0 {
                let used = tree.paths[touches.below(tree.paths.count)]
                policy.touch(used.span, at: tree.now)
            }
            shufflePins(&policy, &pins, model: model, random: &tree.random)
            if tree.random.below(40) == 0, let block = model.sorted().randomElement(using: &tree.random) {
                removeAndCheck(block, &policy, &model, parents: tree.parents)
                pins = pins.filter { model.contains($0.key) }
            }
            check(policy, against: model, parents: tree.parents)
        }
    }

    /// A path grows, mostly the latest: what it adds is taken in or not, and nothing leaves untold.
    private func growAndCheck(
        _ latest: Int, _ policy: inout HoldfastPolicy, _ model: inout Set<BlockNumber>, _ pins: [BlockNumber: Int],
        _ tree: inout RandomTree
    ) {
        let request = tree.random.below(2) == 0 ? latest : tree.random.below(latest + 1)
        let (path, shown) = tree.grow(request)
        var evicted: [BlockNumber] = []
        policy.extend(
            path.span, from: shown, RequestContext(request: UInt32(request), now: tree.now), evicted: &evicted)
        for block in evicted {
            #expect(model.remove(block) != nil, "block \(block) left without having been here")
            #expect(pins[block] == nil, "a pinned block left")
        }
        model.formUnion(path.prefix(policy.hitRun(path.span)))
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
        let here = parents.indices.filter { policy.isResident(BlockNumber($0)) }.map { BlockNumber($0) }
        #expect(Set(here) == model)
        let orphans = here.filter { block in parents[Int(block)].map { !policy.isResident($0) } ?? false }
        #expect(orphans.isEmpty, "blocks without their parents")
    }

    /// The hits of each request, and the policy afterwards.
    private func replay(
        _ traffic: HoldfastTraffic, first count: Int, capacity: Int, isSteady: Bool = false
    ) -> ([Int], HoldfastPolicy) {
        var policy = HoldfastPolicy(capacity: capacity, isSteady: isSteady)
        var evicted: [BlockNumber] = []
        var hits: [Int] = []
        for (index, path) in traffic.paths.prefix(count).enumerated() {
            if index > 0, index % 3 == 0 {
                policy.turnEnded(request: UInt32(index - 1), reason: .endTurn, at: traffic.times[index - 1])
            }
            hits.append(policy.hitRun(path.span))
            let context = RequestContext(request: UInt32(index), now: traffic.times[index])
            policy.access(path.span, context, evicted: &evicted)
            #expect(policy.rememberedCount <= 8 * capacity)
        }
        return (hits, policy)
    }

    @Test func theFutureChangesNothing() {
        let traffic = HoldfastTraffic.phases(of: 300, requests: 3000, seed: 9)
        let (whole, _) = replay(traffic, first: 3000, capacity: 700)
        let (part, _) = replay(traffic, first: 2000, capacity: 700)
        #expect(Array(whole.prefix(2000)) == part)
        let (again, _) = replay(traffic, first: 3000, capacity: 700)
        #expect(again == whole)
    }

    @Test func theShadowsHitWhatTheirPoliciesHit() {
        func hits(_ traffic: HoldfastTraffic, _ alone: some TierPolicy) -> Int {
            var policy = alone
            var hits = 0
            var evicted: [BlockNumber] = []
            for path in traffic.paths {
                hits += policy.hitRun(path.span)
                policy.access(path.span, RequestContext(request: 0, now: .zero), evicted: &evicted)
            }
            return hits
        }
        for (seed, capacity) in [(1, 30), (2, 200), (3, 1000), (4, 5000)] {
            let traffic = HoldfastTraffic.chat(pause: 20, turns: 4, requests: 1500, seed: UInt64(seed))
            let (_, policy) = replay(traffic, first: traffic.paths.count, capacity: capacity)
            // The largest begins its shadows when it is full.
            #expect(policy.residentCount == capacity)
            #expect(policy.hitBlocks(of: .lru) == hits(traffic, LRUPolicy(capacity: capacity)))
            #expect(policy.hitBlocks(of: .s3fifo) == hits(traffic, S3FIFOPolicy(capacity: capacity)))
            #expect(policy.hitBlocks(of: .arc) == hits(traffic, ARCPolicy(capacity: capacity)))
        }
    }

    @Test func aLargeTierKeepsTheSameWhetherItRanksFromTheStartOrNot() {
        for traffic in [
            HoldfastTraffic.chat(pause: 20, turns: 4, requests: 3000, seed: 5),
            .templates(3000, skew: 1, drift: 500, requests: 3000, seed: 6),
        ] {
            let (late, policy) = replay(traffic, first: 3000, capacity: HoldfastPolicy.largeTier)
            let (steady, _) = replay(traffic, first: 3000, capacity: HoldfastPolicy.largeTier, isSteady: true)
            #expect(policy.residentCount == HoldfastPolicy.largeTier)
            #expect(late == steady)
        }
    }

    /// Tables are made as often whether somebody keeps the policy up between requests or not, and hits are about the same.
    @Test func keptUpBetweenRequestsNoRequestMakesTables() {
        let traffic = HoldfastTraffic.chat(pause: 20, turns: 4, requests: 3000, seed: 5)
        let (alone, _) = replay(traffic, first: 3000, capacity: 700)
        var policy = HoldfastPolicy(capacity: 700)
        var evicted: [BlockNumber] = []
        var (hits, upkeeps, worst) = (0, 0, 0)
        var sinceUpkeep = 0
        for (index, path) in traffic.paths.enumerated() {
            hits += policy.hitRun(path.span)
            let context = RequestContext(request: UInt32(index), now: traffic.times[index])
            if index > 0, index % 3 == 0 {
                policy.turnEnded(request: UInt32(index - 1), reason: .endTurn, at: traffic.times[index - 1])
            }
            policy.access(path.span, context, evicted: &evicted)
            sinceUpkeep += 1
            guard policy.wantsUpkeep else { continue }
            policy.keepUp()
            #expect(!policy.wantsUpkeep)
            upkeeps += 1
            worst = max(worst, sinceUpkeep)
            sinceUpkeep = 0
        }
        // Every 8 requests at first, every 19 after 3,000, counted anew where a request brings a class that has no tables yet.
        #expect((150...400).contains(upkeeps) && worst < 2 * 19, "\(upkeeps) \(worst)")
        let hitsAlone = alone.reduce(0, +)
        #expect(abs(hits - hitsAlone) * 50 < hitsAlone, "\(hits) \(hitsAlone)")
    }

    @Test func whereOnlyRecencyPredictsItIsFollowed() {
        let traffic = HoldfastTraffic.chat(pause: 60, turns: 4, requests: 12_000, seed: 4)
        let (_, policy) = replay(traffic, first: 12_000, capacity: traffic.uniqueBlocks / 10)
        #expect(policy.leader == .lru)
    }

    @Test func whereConversationsGoOnTheIndexLeadsFromTheStart() {
        var policy = HoldfastPolicy(capacity: 40)
        var evicted: [BlockNumber] = []
        var paths = (0..<8).map { [BlockNumber($0)] }
        var next: BlockNumber = 8
        for request in 0..<400 {
            let turn = request % 8
            paths[turn] += [next, next + 1, next + 2]
            next += 3
            let path = paths[turn]
            let now = Instant(seconds: Double(request))
            policy.access(path.span, RequestContext(request: UInt32(request), now: now), evicted: &evicted)
            #expect(policy.leader == .index)
        }
    }

    @Test func whereBeginningsAreSharedAnotherLeadsAtFirst() {
        let traffic = HoldfastTraffic.templates(50, skew: 1, requests: 60, seed: 3)
        let (_, policy) = replay(traffic, first: 60, capacity: 200)
        #expect(policy.leader == .arc)
    }

    @Test func forgottenNumbersAreToldAndCanBeGivenAway() {
        var random = RandomSource(seed: 12)
        var policy = HoldfastPolicy(capacity: 20, reportsForgotten: true)
        var free: [BlockNumber] = []
        var next: BlockNumber = 0
        var evicted: [BlockNumber] = []
        var told: [BlockNumber] = []
        for request in 0..<2000 {
            var path: [BlockNumber] = []
            for _ in 0..<1 + random.below(12) {
                if let number = free.popLast() {
                    path.append(number)
                } else {
                    path.append(next)
                    next += 1
                }
            }
            let context = RequestContext(request: UInt32(request), now: Instant(seconds: Double(request)))
            policy.access(path.span, context, evicted: &evicted)
            #expect(policy.residentCount <= 20)
            policy.takeForgotten(into: &told)
            for number in told {
                #expect(!policy.remembers(number))
                #expect(!policy.isResident(number))
            }
            free += told
            told.removeAll()
        }
        // Eight times the capacity, the tier itself, what S3-FIFO and ARC know (twice the capacity each) and the request
        // in progress: no more numbers are ever needed.
        #expect(next <= 13 * 20 + 12)
    }

    @Test func aNumberUnderAnotherParentEndsThePath() {
        var policy = HoldfastPolicy(capacity: 10)
        var evicted: [BlockNumber] = []
        func access(_ path: [BlockNumber]) {
            policy.access(path.span, RequestContext(request: 0, now: .zero), evicted: &evicted)
        }
        access([0, 1, 2])
        access([0, 2, 3])
        #expect(policy.residentCount == 3, "block 2 belongs under block 1, so neither it nor block 3 can come here")
        access([4, 5, 4, 6])
        #expect(policy.isResident(5))
        #expect(!policy.isResident(6))
        access([7, 8, 9, 8])
        #expect(policy.residentCount == 8)
        access([])
        #expect(evicted.isEmpty)
    }
}
