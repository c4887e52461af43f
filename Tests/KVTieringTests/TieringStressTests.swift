// Thousands of random requests with faults, cancellations, full queues and late answers: the world checks every byte
// that moves, the audit every slot, the ledger every token.

import KVModel
import KVTiering
import Testing

/// One way to run a node.
struct StressCase: CustomTestStringConvertible, Sendable {
    var seed: UInt64
    var policy: PolicyName
    var inclusion: InclusionMode
    var spill: SpillRule
    var nvmeBlocks: Int
    var hasStore: Bool
    var rule: PlannerRule
    var faults: Bool
    var predicts: Bool

    var testDescription: String {
        "seed \(seed) \(policy) \(inclusion) \(spill) nvme \(nvmeBlocks) store \(hasStore) \(rule) faults \(faults) predicts \(predicts)"
    }

    static let all: [StressCase] = {
        var random = RandomSource(seed: 2026)
        func pick<T>(_ all: [T]) -> T { all[random.below(all.count)] }
        var cases: [StressCase] = []
        for index in 0..<48 {
            let stress = StressCase(
                seed: UInt64(index), policy: pick(PolicyName.deployable), inclusion: pick(InclusionMode.allCases),
                spill: pick(SpillRule.allCases), nvmeBlocks: pick([0, 12, 80]), hasStore: index % 3 != 0,
                rule: pick(PlannerRule.allCases), faults: index % 2 == 1, predicts: index % 4 >= 2)
            cases.append(stress)
        }
        return cases
    }()

    var configuration: TieringConfiguration {
        var configuration = smallConfiguration(
            nvmeBlocks: nvmeBlocks, hasStore: hasStore, policy: policy, inclusion: inclusion, spill: spill,
            prefetch: predicts
                ? PrefetchConfiguration(
                    reasons: Set(PrefetchReason.allCases), bytesInFlightMax: 6000, linkShare: 0.5, stagingShare: 0.5,
                    probabilityMin: 0.2, sessionsMax: 8) : nil,
            rule: rule)
        configuration.planner.prefixOnly = seed % 2 == 0
        configuration.planner.overlap = Overlap.allCases[Int(seed) % 3]
        configuration.limits.knownBlocksMax = 600
        configuration.limits.transfersMax = 24
        configuration.limits.requestsMax = 12
        configuration.nvmeWriteBudget = WriteBudgetConfiguration(bytesPerDay: 86_400 * 2000, burstBytes: 20_000)
        return configuration
    }

    var script: WorldScript {
        WorldScript(
            seed: seed, failureShare: faults ? 0.1 : 0, blockFaultShare: faults ? 0.05 : 0,
            fullShare: faults ? 0.05 : 0,
            lateAnswerShare: faults ? 0.2 : 0, transferSeconds: 0.02)
    }
}

/// A client that sends random requests of some conversations, overlapping and sometimes given up.
struct RandomClient {
    var random: RandomSource
    /// Whether an engine uses blocks of its own meanwhile.
    var touches: RandomSource
    var open: [(request: RequestNumber, stage: Int, session: Int)] = []
    var nextRequest: RequestNumber = 0
    var lengths = [Int](repeating: 0, count: 12)
    var computedTokens = 0
    var tokensOf: [RequestNumber: Int] = [:]

    init(seed: UInt64) {
        random = RandomSource(seed: seed &+ 77)
        touches = RandomSource(seed: seed &+ 7700)
    }

    /// The next thing a client or engine does.
    mutating func step(_ world: inout ScriptedWorld) -> Event {
        if nextRequest > 0, touches.below(12) == 0 {
            let keys = world.chains[RequestNumber(touches.below(Int(nextRequest)))] ?? []
            return .touched(chain: keys[...])
        }
        let choice = random.below(10)
        if open.count < 14, choice < 3 || open.isEmpty { return arrive(&world) }
        if choice == 9, random.below(40) == 0 { return .unpin(pin: 1) }
        let index = random.below(open.count)
        let request = open[index].request
        if random.below(30) == 0 {
            open.remove(at: index)
            return .cancelled(request: request)
        }
        switch open[index].stage {
        case 0:
            open[index].stage = 1
            return .load(
                LoadRequest(
                    request: request, engineBlocks: Int32(random.below(3)),
                    computeWait: Duration(milliseconds: Int64(random.below(20))), links: fastLinks))
        case 1:
            guard world.ready[request] != nil else { return .deadline }
            open[index].stage = 2
            computedTokens += tokensOf[request] ?? 0
            return .computed(Computed(request: request, knownBlocks: Int32(random.below(14))))
        default:
            open.remove(at: index)
            return .ended(request: request, reason: random.below(2) == 0 ? .toolUse : .endTurn)
        }
    }

    private mutating func arrive(_ world: inout ScriptedWorld) -> Event {
        let session = random.below(lengths.count)
        if lengths[session] > 12 { lengths[session] = 0 }
        lengths[session] += 1 + random.below(3)
        let request = nextRequest
        nextRequest += 1
        var keys = chain(0..<2, of: 0)
        keys += chain(2..<2 + lengths[session], of: UInt64(1 + session))
        let tokens = keys.count * 16 - random.below(15)
        world.chains[request] = keys
        tokensOf[request] = tokens
        open.append((request, 0, session))
        return .arrived(
            Arrival(
                request: request, chain: keys[...], promptTokens: Int32(tokens), session: Int32(session),
                turn: Int32(lengths[session])))
    }
}

@Suite struct TieringStressTests {
    @Test(arguments: StressCase.all)
    func nothingLeaksAndNoByteIsWrong(_ stress: StressCase) {
        var manager = TieringManager(stress.configuration)
        var world = ScriptedWorld(stress.script, store: stress.hasStore ? smallStore(blocks: 100) : nil)
        var client = RandomClient(seed: stress.seed)
        for step in 0..<3000 {
            if client.random.below(3) == 0, !world.isQuiet || manager.nextDeadline < .distantFuture {
                let limit = min(manager.nextDeadline, world.now + Duration(milliseconds: 200))
                manager.handle(world.next(until: limit), in: &world)
            } else {
                let event = client.step(&world)
                world.journal.append((event, world.now))
                let refusedBefore = manager.counters.requestsRefused
                manager.handle(event, in: &world)
                if manager.counters.requestsRefused > refusedBefore, let last = client.open.last {
                    client.tokensOf[last.request] = 0
                }
            }
            if step % 16 == 0 {
                let broken = manager.audit() + world.broken
                #expect(broken == [], "step \(step) of \(stress.testDescription)")
                if !broken.isEmpty { return }
            }
        }
        for open in client.open { manager.handle(.cancelled(request: open.request), in: &world) }
        settle(&manager, &world)
        while manager.nextDeadline < .distantFuture {
            manager.handle(world.next(until: manager.nextDeadline), in: &world)
        }
        settle(&manager, &world)
        #expect(manager.audit() + world.broken == [])
        let inFlight = manager.inFlight()
        #expect(inFlight.leases == 0)
        #expect(inFlight.transfers == 0)
        #expect(inFlight.offers == 0)
        #expect(inFlight.predictions == 0)
        #expect(inFlight.users == 0)
        #expect(manager.ledger.total == client.computedTokens)
        #expect(manager.ledger.served > 0)
        if let store = world.store { #expect(store.usedCount == store.presentCount) }
    }
}
