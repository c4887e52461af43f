// The rules of a node's decisions, one by one.

import KVModel
import KVTiering
import Testing

@Suite struct TieringManagerTests {
    @Test func secondRequestHitsWhatTheFirstSaved() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<6, of: 1)
        #expect(serve(keys, request: 1, known: 0, &manager, &world)?.end == 0)
        #expect(serve(keys, request: 2, known: 6, &manager, &world)?.end == 6)
        #expect(manager.ledger[.firstSeen] == 96)
        #expect(manager.ledger[.dram] == 95)
        #expect(manager.ledger[.alwaysComputed] == 1)
        #expect(manager.ledger.total == 192)
        #expect(manager.residentRun(keys[...]) == 6)
        #expect(world.broken == [])
        #expect(manager.audit() == [])
    }

    /// A key names all that is before it. One that stands twice in a chain is no chain, and would be counted once for each.
    @Test func aChainEndsWhereItNamesAKeyAgain() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let key = chain(0..<1, of: 1)[0]
        for request in RequestNumber(0)..<5 {
            let keys = [BlockKey](repeating: key, count: 16_384)
            manager.handle(.arrived(Arrival(request: request, chain: keys[...], promptTokens: 262_144)), in: &world)
        }
        #expect(manager.counters.chainsCut == 5)
        let keys = chain(0..<6, of: 2)
        serve(keys, request: 10, &manager, &world)
        for (request, path, end) in [
            (RequestNumber(11), [0, 1, 2, 3, 1, 2], Int32(4)), (12, [2, 3, 4, 2, 3], 3), (13, [5, 1, 4, 5], 3),
            (14, [0, 0], 1),
            (15, [2, 0, 1, 2, 3], 3), (16, [5, 4, 3, 2, 1, 0], 6), (17, [0, 1, 2, 3, 4, 5], 6),
        ] {
            #expect(serve(path.map { keys[$0] }, request: request, &manager, &world)?.end == end, "\(path)")
        }
        #expect(manager.audit() + world.broken == [])
    }

    /// The tail of a conversation may come as a chain of its own before the whole is known, and the other way round.
    @Test func aChainGoesOnWithBlocksThatWereNamedWithoutWhatIsBeforeThem() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<8, of: 1)
        serve(Array(keys[5...]), request: 1, &manager, &world)
        #expect(serve(keys, request: 2, &manager, &world)?.end == 0)
        #expect(serve(keys, request: 3, &manager, &world)?.end == 8)
        #expect(serve(Array(keys[2...]), request: 4, &manager, &world)?.end == 6)
        #expect(manager.counters.chainsCut == 0)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func anotherNodesBlocksComeFromTheSharedStore() {
        var first = TieringManager(smallConfiguration(hasStore: true))
        var second = TieringManager(smallConfiguration(hasStore: true))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 64))
        let keys = chain(0..<10, of: 1)
        serve(keys, request: 1, known: 0, &first, &world)
        #expect(first.counters.flashWrites == 10)
        world.content = [.dram: [:], .nvme: [:]]
        #expect(serve(keys, request: 2, known: 10, &second, &world)?.end == 10)
        #expect(second.ledger[.flash] == 159)
        #expect(second.ledger[.alwaysComputed] == 1)
        #expect(world.broken == [])
    }

    @Test func noBlockIsFoundBeforeItsTransferEnded() {
        var manager = TieringManager(smallConfiguration(hasStore: true))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 64))
        let keys = chain(0..<4, of: 1)
        manager.handle(.arrived(Arrival(request: 1, chain: keys[...], promptTokens: 64)), in: &world)
        settle(&manager, &world)
        manager.handle(.load(LoadRequest(request: 1, engineBlocks: 0, links: fastLinks)), in: &world)
        manager.handle(.computed(Computed(request: 1)), in: &world)
        #expect(!world.inFlight.isEmpty)
        #expect(manager.residentRun(keys[...]) == 0)
        #expect(world.store?.present(keys, at: world.now) == [0])
        settle(&manager, &world)
        #expect(manager.residentRun(keys[...]) == 4)
        #expect(world.store?.present(keys, at: world.now) == [15])
    }

    @Test func aPieceThatTheEngineHandsOverIsKeptBeforeItsPromptIsBooked() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<8, of: 1)
        // The front piece, then the whole chain, of which the engine holds only the back for us.
        for (request, end, first) in [(RequestNumber(7), 3, 0), (8, 8, 3)] {
            let arrival = Arrival(
                request: request, chain: keys[..<end], promptTokens: Int32(end * 16), engineBlocks: Int32(end))
            manager.handle(.arrived(arrival), in: &world)
            let piece = Computed(request: request, parts: .kept, firstHeld: Int32(first))
            manager.handle(.computed(piece), in: &world)
            settle(&manager, &world)
            manager.handle(.ended(request: request, reason: .endTurn), in: &world)
            #expect(manager.residentRun(keys[...]) == end)
        }
        #expect(manager.ledger.total == 0)
        // The request itself, of which nothing is held any more.
        manager.handle(.arrived(Arrival(request: 1, chain: keys[...], promptTokens: 128)), in: &world)
        manager.handle(.computed(Computed(request: 1, parts: .booked)), in: &world)
        #expect(manager.ledger.total == 128)
        #expect(manager.counters.dramWrites == 8)
        #expect(world.broken == [])
    }

    @Test func whatTheEngineDoesNotHoldIsNotBroughtOutOfIt() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<8, of: 1)
        manager.handle(
            .arrived(Arrival(request: 1, chain: keys[...], promptTokens: 128, engineBlocks: 8)), in: &world)
        manager.handle(.computed(Computed(request: 1, firstHeld: 5)), in: &world)
        settle(&manager, &world)
        #expect(manager.counters.dramWrites == 3)
        #expect(manager.residentRun(keys[...]) == 0)
        #expect(world.broken == [])
    }

    @Test(arguments: [PolicyName.lru, .holdfast])
    func aPromptThatWasOnlyLookedUpTakesNoPlace(policy: PolicyName) {
        var manager = TieringManager(smallConfiguration(policy: policy))
        var world = ScriptedWorld(WorldScript())
        let saved = chain(0..<20, of: 1)
        serve(saved, request: 1, known: 0, &manager, &world)
        #expect(manager.residentRun(saved[...]) == 20)
        // Its engine computed it, and kept it to itself.
        for number in 2..<40 {
            let request = RequestNumber(number)
            let keys = chain(0..<20, of: UInt64(number))
            manager.handle(.arrived(Arrival(request: request, chain: keys[...], promptTokens: 320)), in: &world)
            manager.handle(.computed(Computed(request: request, firstHeld: 20)), in: &world)
            settle(&manager, &world)
            manager.handle(.ended(request: request, reason: .endTurn), in: &world)
        }
        #expect(manager.residentRun(saved[...]) == 20)
        let more = chain(0..<4, of: 100)
        serve(more, request: 100, known: 0, &manager, &world)
        #expect(manager.residentRun(more[...]) == 4)
        #expect(manager.residentRun(saved[...]) == 20)
        #expect(world.broken == [])
        #expect(manager.audit() == [])
    }

    @Test func numbersOfBlocksThatNobodyKeepsServeNewOnes() {
        var manager = TieringManager(smallConfiguration(policy: .holdfast))
        var world = ScriptedWorld(WorldScript())
        // Five times as many blocks as there are numbers, in chains: those of the second round get theirs in reverse.
        for number in 1..<200 {
            let request = RequestNumber(number)
            let keys = chain(0..<100, of: UInt64(number))
            manager.handle(.arrived(Arrival(request: request, chain: keys[...], promptTokens: 1600)), in: &world)
            manager.handle(.computed(Computed(request: request, firstHeld: 100)), in: &world)
            settle(&manager, &world)
            manager.handle(.ended(request: request, reason: .endTurn), in: &world)
        }
        #expect(manager.counters.chainsCut == 0)
        let saved = chain(0..<20, of: 500)
        serve(saved, request: 500, known: 0, &manager, &world)
        #expect(manager.residentRun(saved[...]) == 20)
        #expect(world.broken == [])
        #expect(manager.audit() == [])
    }

    @Test func aLoadIsRememberedWithItsReasons() {
        var manager = TieringManager(smallConfiguration(rule: .threshold))
        manager.remembersLoads = true
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<8, of: 1)
        serve(keys, request: 1, session: 5, &manager, &world)
        serve(keys, request: 2, session: 5, &manager, &world)
        let stories = manager.loads(ofSession: 5, at: manager.time)
        #expect(stories.map(\.foundInMemory) == [8, 0])
        #expect(stories.map(\.came) == [8, 0])
        // 8,000 bytes at 1 GB/s; 128 tokens at 1 ms and 100 ns a pair.
        #expect(abs(stories[0].loadSeconds - 8e-6) < 1e-9)
        #expect(abs(stories[0].computeSeconds - (0.128 + 1e-7 * 8192)) < 1e-9)
        #expect(stories[0].sentence.hasSuffix("8 were loaded"))
        #expect(manager.loads(of: keys[3], at: manager.time).count == 1)
        #expect(manager.loads(ofSession: 6, at: manager.time) == [])
        // A path on which loading takes longer than computing.
        let slow = LinkView(
            dram: LinkState(bandwidth: 1e4), nvme: LinkState(bandwidth: 1e8), flash: LinkState(bandwidth: 1e8))
        manager.handle(.arrived(Arrival(request: 3, chain: keys[...], promptTokens: 129, session: 5)), in: &world)
        manager.handle(.load(LoadRequest(request: 3, engineBlocks: 0, links: slow)), in: &world)
        let refused = manager.loads(ofSession: 5, at: manager.time)[0]
        #expect(refused.planned == 0 && refused.foundInMemory == 8)
        #expect(refused.sentence.contains("none was loaded, because computing was cheaper"), "\(refused.sentence)")
        // The ring keeps the last of them.
        for number in 10..<400 { serve(keys, request: RequestNumber(number), session: 6, &manager, &world) }
        #expect(manager.loads(ofSession: nil, at: manager.time).count == 256)
        #expect(manager.loads(ofSession: 5, at: manager.time) == [])
    }

    @Test func aPromptWithoutALoadIsRememberedWithItsMisses() {
        var manager = TieringManager(smallConfiguration())
        manager.remembersLoads = true
        var world = ScriptedWorld(WorldScript())
        func ask(_ keys: [BlockKey], request: RequestNumber, session: Int32) {
            let arrival = Arrival(
                request: request, chain: keys[...], promptTokens: Int32(keys.count * 16 + 5), session: session)
            manager.handle(.arrived(arrival), in: &world)
            manager.handle(.computed(Computed(request: request)), in: &world)
            settle(&manager, &world)
            manager.handle(.ended(request: request, reason: .unknown), in: &world)
        }
        let keys = chain(0..<20, of: 1)
        ask(keys, request: 1, session: 5)
        for other in 2..<6 { ask(chain(0..<20, of: UInt64(other)), request: 2, session: 6) }
        ask(keys + chain(20..<24, of: 1), request: 1, session: 5)
        let stories = manager.loads(ofSession: 5, at: manager.time)
        #expect(
            stories.map(\.sentence) == [
                "0 of 24 blocks found, none loaded; 320 tokens evicted since they were kept, 64 tokens never seen before, "
                    + "5 tokens always computed",
                "0 of 20 blocks found, none loaded; 320 tokens never seen before, 5 tokens always computed",
            ])
        #expect(stories.first?.miss?.tokens == ["evicted": 320, "firstSeen": 64, "alwaysComputed": 5])
        // A block of the prompt tells of them, too.
        #expect(manager.loads(of: keys[3], at: manager.time).count == 2)
        #expect(manager.ledger[.evicted] == 320)
        #expect(world.broken == [])
    }

    @Test func twoRequestsForOneChainMoveItsBytesOnce() {
        var first = TieringManager(smallConfiguration(hasStore: true))
        var manager = TieringManager(smallConfiguration(hasStore: true))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 64))
        let keys = chain(0..<8, of: 1)
        serve(keys, request: 1, &first, &world)
        world.content = [.dram: [:], .nvme: [:]]
        for request in [RequestNumber(2), 3] {
            manager.handle(.arrived(Arrival(request: request, chain: keys[...], promptTokens: 128)), in: &world)
        }
        settle(&manager, &world)
        for request in [RequestNumber(2), 3] {
            manager.handle(.load(LoadRequest(request: request, engineBlocks: 0, links: fastLinks)), in: &world)
        }
        settle(&manager, &world)
        #expect(world.ready[2]?.end == 8)
        #expect(world.ready[3]?.end == 8)
        #expect(manager.counters.flashReads == 8)
        #expect(world.broken == [])
    }

    @Test func aLoadLargerThanItsSlotsGoesThroughThem() {
        // 40 blocks out of the store through 2 staging slots, while the policy keeps all other slots full.
        var first = TieringManager(smallConfiguration(dramBlocks: 64, hasStore: true))
        var configuration = smallConfiguration(dramBlocks: 8, hasStore: true)
        configuration.planner.loadGraceMax = Duration(milliseconds: 60_000)
        configuration.planner.prefill.linear = 1
        var manager = TieringManager(configuration)
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 200))
        let keys = chain(0..<40, of: 1)
        serve(keys, request: 1, &first, &world)
        world.content = [.dram: [:], .nvme: [:]]
        serve(chain(0..<8, of: 2), request: 2, &manager, &world)
        #expect(serve(keys, request: 3, known: 40, &manager, &world)?.end == 40)
        #expect(manager.ledger[.flash] == 639)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func evictionSkipsPinnedBlocksUntilThePinEnds() {
        var manager = TieringManager(smallConfiguration(dramBlocks: 16))
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, &manager, &world)
        let end = world.now + Duration(milliseconds: 1000)
        manager.handle(.pin(PinRequest(pin: 7, owner: 0, chain: keys[...], expires: end)), in: &world)
        #expect(world.pinAnswers[7]?.outcome == .granted)
        #expect(world.pinAnswers[7]?.blocks == 4)
        #expect(manager.pinnedBytes(of: 0) == 4000)
        for other in 2..<12 { serve(chain(0..<10, of: UInt64(other)), request: RequestNumber(other), &manager, &world) }
        #expect(manager.residentRun(keys[...]) == 4)
        manager.handle(world.next(until: end), in: &world)
        #expect(manager.pinnedBytes(of: 0) == 0)
        for other in 12..<32 {
            serve(chain(0..<10, of: UInt64(other)), request: RequestNumber(other), &manager, &world)
        }
        #expect(manager.residentRun(keys[...]) == 0)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func whatAPolicyPutsOffHasATurnOfItsOwn() {
        var manager = TieringManager(smallConfiguration(dramBlocks: 16, policy: .holdfast))
        var world = ScriptedWorld(WorldScript())
        var turns = 0
        for request in 1..<200 {
            serve(chain(0..<10, of: UInt64(request % 30)), request: RequestNumber(request), &manager, &world)
            guard manager.nextDeadline <= world.now else { continue }
            turns += 1
            manager.handle(.deadline, in: &world)
            #expect(manager.nextDeadline > world.now)
        }
        // `serve` has met most of them, between what it waited for.
        #expect(turns > 0)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func pinsAreRefusedWithTheReason() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, &manager, &world)
        func ask(_ pin: UInt32, owner: Int32, _ keys: [BlockKey], after seconds: Double = 10) -> PinAnswer.Outcome? {
            let expires = world.now + Duration(seconds: seconds)
            manager.handle(.pin(PinRequest(pin: pin, owner: owner, chain: keys[...], expires: expires)), in: &world)
            return world.pinAnswers[pin]?.outcome
        }
        #expect(ask(1, owner: 1, keys) == .overBudget)
        #expect(ask(2, owner: 9, keys) == .invalid)
        #expect(ask(3, owner: 0, chain(0..<4, of: 2)) == .nothingHere)
        #expect(ask(4, owner: 0, keys, after: -0.001) == .expired)
        for pin in UInt32(10)..<26 { #expect(ask(pin, owner: 1, Array(keys[..<0])) == .nothingHere) }
        #expect(ask(5, owner: 0, keys) == .granted)
        #expect(ask(6, owner: 0, keys) == .granted)
        #expect(ask(7, owner: 0, keys) == .overBudget)
        manager.handle(.unpin(pin: 5), in: &world)
        manager.handle(.unpin(pin: 5), in: &world)
        #expect(ask(8, owner: 0, keys) == .granted)
    }

    @Test func anAnswerAfterTheDeadlineIsAMiss() {
        var first = TieringManager(smallConfiguration(hasStore: true))
        var manager = TieringManager(smallConfiguration(hasStore: true))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 64))
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, &first, &world)
        world.content = [.dram: [:], .nvme: [:]]
        world.script.lateAnswerShare = 1
        #expect(serve(keys, request: 2, known: 4, &manager, &world)?.end == 0)
        #expect(manager.counters.storeQuestionsLate == 1)
        #expect(manager.ledger.served == 0)
        world.script.lateAnswerShare = 0
        #expect(serve(keys, request: 3, known: 4, &manager, &world)?.end == 4)
    }

    /// What only the store may have is computed again while the store is away. Nothing of it was late.
    @Test func whatAStoreThatIsAwayMayHaveIsInNoTier() {
        var manager = TieringManager(smallConfiguration(dramBlocks: 8, hasStore: true))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 64))
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, known: 0, &manager, &world)
        for seed in 2..<6 as Range<UInt64> {
            serve(chain(0..<4, of: seed), request: RequestNumber(seed), known: 0, &manager, &world)
        }
        #expect(manager.residentRun(keys[...]) == 0)
        manager.handle(.storeForgotten, in: &world)
        world.script.fullShare = 1
        #expect(serve(keys, request: 6, known: 4, &manager, &world)?.end == 0)
        #expect(manager.ledger[.noTier] == 4 * 16 && manager.ledger[.late] == 0)
        world.script.fullShare = 0
        #expect(serve(keys, request: 7, known: 4, &manager, &world)?.end == 4)
    }

    @Test func aFullWorldCostsRecomputationAndNothingElse() {
        var manager = TieringManager(smallConfiguration(nvmeBlocks: 32, hasStore: true, inclusion: .inclusive))
        var world = ScriptedWorld(WorldScript(fullShare: 1), store: smallStore(blocks: 64))
        for request in 0..<20 {
            #expect(serve(chain(0..<6, of: 1), request: RequestNumber(request), &manager, &world)?.end == 0)
        }
        #expect(manager.counters.commandsRefused > 20)
        #expect(manager.inFlight().leases == 0)
        #expect(manager.inFlight().transfers == 0)
        #expect(world.store?.usedCount == 0)
        #expect(manager.audit() == [])
        world.script.fullShare = 0
        serve(chain(0..<6, of: 1), request: 50, &manager, &world)
        #expect(serve(chain(0..<6, of: 1), request: 51, &manager, &world)?.end == 6)
    }

    @Test func aCorruptBlockIsAMissAndNotFoundAgain() {
        var manager = TieringManager(smallConfiguration())
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, known: 0, &manager, &world)
        manager.handle(.arrived(Arrival(request: 2, chain: keys[...], promptTokens: 64)), in: &world)
        manager.handle(.load(LoadRequest(request: 2, engineBlocks: 0, links: fastLinks)), in: &world)
        guard case .transferEnded(var end) = world.queue.first?.event else {
            Issue.record("no load under way")
            return
        }
        end.lost = [LostMove(move: 2, cause: .corrupt)]
        world.queue[0].event = .transferEnded(end)
        settle(&manager, &world)
        #expect(world.ready[2]?.end == 2)
        #expect(manager.residentRun(keys[...]) == 2)
        manager.handle(.computed(Computed(request: 2, knownBlocks: 4)), in: &world)
        #expect(manager.ledger[.corrupt] == 32)
        #expect(manager.ledger[.dram] == 32)
        #expect(manager.counters.blocksCorrupt == 1)
        settle(&manager, &world)
        #expect(manager.residentRun(keys[...]) == 4, "the computed block took its place")
        #expect(manager.audit() + world.broken == [])
    }

    @Test func aBlockGoneBetweenLookUpAndLoadIsLost() {
        var first = TieringManager(smallConfiguration(hasStore: true))
        var manager = TieringManager(smallConfiguration(hasStore: true))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 8))
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, &first, &world)
        world.content = [.dram: [:], .nvme: [:]]
        manager.handle(.arrived(Arrival(request: 2, chain: keys[...], promptTokens: 64)), in: &world)
        settle(&manager, &world)
        #expect(world.answers[2]?.flashBlocks == 4)
        for key in keys { world.store?.reportCorrupt(key) }
        manager.handle(.load(LoadRequest(request: 2, engineBlocks: 0, links: fastLinks)), in: &world)
        settle(&manager, &world)
        #expect(world.ready[2]?.end == 0)
        manager.handle(.computed(Computed(request: 2, knownBlocks: 4)), in: &world)
        #expect(manager.ledger[.lostAfterLookUp] == 64)
        #expect(manager.counters.blocksLost == 4)
    }

    @Test(arguments: InclusionMode.allCases)
    func lowerTierFollowsTheInclusionMode(_ mode: InclusionMode) {
        var manager = TieringManager(smallConfiguration(dramBlocks: 16, nvmeBlocks: 64, inclusion: mode))
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, &manager, &world)
        #expect(manager.counters.nvmeWrites == (mode == .inclusive ? 4 : 0))
        for other in 2..<8 { serve(chain(0..<6, of: UInt64(other)), request: RequestNumber(other), &manager, &world) }
        #expect(keys.allSatisfy { manager.slot(of: $0, in: .nvme) != nil })
        let writes = manager.counters.nvmeWrites
        #expect(serve(keys, request: 9, known: 4, &manager, &world)?.end == 4)
        #expect(manager.ledger[.nvme] == 63)
        let stillBelow = keys.allSatisfy { manager.slot(of: $0, in: .nvme) != nil }
        #expect(stillBelow == (mode != .exclusive))
        for other in 2..<8 {
            serve(chain(0..<6, of: UInt64(other)), request: RequestNumber(90 + other), &manager, &world)
        }
        if mode == .keep { #expect(manager.counters.nvmeWrites - writes <= 16, "what is below is not written again") }
        #expect(keys.allSatisfy { manager.slot(of: $0, in: .nvme) != nil })
        #expect(manager.audit() + world.broken == [])
    }

    @Test func writesToLocalFlashStayWithinTheBudget() {
        var configuration = smallConfiguration(dramBlocks: 16, nvmeBlocks: 64, inclusion: .inclusive)
        configuration.nvmeWriteBudget = WriteBudgetConfiguration(bytesPerDay: 0, burstBytes: 5000)
        var manager = TieringManager(configuration)
        var world = ScriptedWorld(WorldScript())
        for other in 0..<8 { serve(chain(0..<6, of: UInt64(other)), request: RequestNumber(other), &manager, &world) }
        #expect(manager.counters.nvmeWrites == 5)
        #expect(manager.counters.demotionsDropped > 0)
    }

    @Test func spillingOnEvictionWritesWhatLeaves() {
        var manager = TieringManager(smallConfiguration(dramBlocks: 16, hasStore: true, spill: .onEviction))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 200))
        let keys = chain(0..<4, of: 1)
        serve(keys, request: 1, known: 0, &manager, &world)
        #expect(manager.counters.flashWrites == 0)
        for other in 2..<8 { serve(chain(0..<6, of: UInt64(other)), request: RequestNumber(other), &manager, &world) }
        #expect(world.store?.present(keys, at: world.now) == [15])
        #expect(manager.residentRun(keys[...]) == 0)
        #expect(serve(keys, request: 9, known: 4, &manager, &world)?.end == 4)
        #expect(manager.ledger[.flash] == 63)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func requestsBeyondTheLimitAreMisses() {
        var configuration = smallConfiguration()
        configuration.limits.requestsMax = 2
        var manager = TieringManager(configuration)
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<2, of: 1)
        for request in 0..<3 {
            manager.handle(
                .arrived(Arrival(request: RequestNumber(request), chain: keys[...], promptTokens: 32)), in: &world)
        }
        #expect(manager.counters.requestsRefused == 1)
        manager.handle(.load(LoadRequest(request: 2, engineBlocks: 1, links: fastLinks)), in: &world)
        #expect(world.ready[2]?.first == 1)
        #expect(world.ready[2]?.end == 1)
        manager.handle(.ended(request: 2, reason: .unknown), in: &world)
        manager.handle(.ended(request: 0, reason: .unknown), in: &world)
        manager.handle(.arrived(Arrival(request: 4, chain: keys[...], promptTokens: 32)), in: &world)
        #expect(manager.counters.requestsRefused == 1)
    }

    @Test func numbersOfForgottenBlocksAreUsedAgain() {
        var configuration = smallConfiguration(hasStore: true)
        configuration.limits.knownBlocksMax = 80
        var manager = TieringManager(configuration)
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 64))
        for other in 0..<200 {
            serve(chain(0..<9, of: UInt64(other)), request: RequestNumber(other), &manager, &world)
            #expect(manager.audit() + world.broken == [])
        }
        #expect(serve(chain(0..<9, of: 199), request: 999, &manager, &world)?.end == 9)
        #expect(manager.counters.chainsCut == 0)
    }

    @Test func chainsBeyondTheTableAreBookedWhole() {
        var configuration = smallConfiguration()
        configuration.limits.knownBlocksMax = 40
        var manager = TieringManager(configuration)
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<60, of: 1)
        manager.handle(
            .arrived(Arrival(request: 1, chain: keys[...], promptTokens: 955, engineBlocks: 50)), in: &world)
        manager.handle(.load(LoadRequest(request: 1, engineBlocks: 50, links: fastLinks)), in: &world)
        manager.handle(.computed(Computed(request: 1, knownBlocks: 55)), in: &world)
        #expect(manager.counters.chainsCut == 1)
        #expect(manager.ledger[.hbm] == 800)
        #expect(manager.ledger[.refused] == 80)
        #expect(manager.ledger[.firstSeen] == 75)
    }

    @Test func anEngineThatCanSplitComputesTheFrontAndLoadsTheBack() {
        var configuration = smallConfiguration(rule: .split)
        configuration.planner.prefixOnly = false
        var manager = TieringManager(configuration)
        var world = ScriptedWorld(WorldScript())
        let keys = chain(0..<20, of: 1)
        serve(keys, request: 1, known: 0, &manager, &world)
        manager.handle(.arrived(Arrival(request: 2, chain: keys[...], promptTokens: 320)), in: &world)
        // As long to load a block as to compute one: half and half.
        let links = LinkView(dram: LinkState(bandwidth: 62_500), nvme: fastLinks.nvme, flash: fastLinks.flash)
        manager.handle(.load(LoadRequest(request: 2, engineBlocks: 0, links: links)), in: &world)
        settle(&manager, &world)
        #expect(world.ready[2]?.first == 10)
        #expect(world.ready[2]?.end == 20)
        manager.handle(.computed(Computed(request: 2, knownBlocks: 20)), in: &world)
        #expect(manager.ledger[.recomputeCheaper] == 160)
        #expect(manager.ledger[.dram] == 159)
    }

    @Test func theSameInputsGiveTheSameCommands() {
        // A run with faults is recorded, then its events and submissions are given to a fresh manager.
        let stress = StressCase.all[7]
        var manager = TieringManager(stress.configuration)
        var world = ScriptedWorld(stress.script, store: smallStore(blocks: 100))
        var client = RandomClient(seed: 3)
        for _ in 0..<4000 {
            if client.random.below(3) == 0, !world.isQuiet {
                manager.handle(world.next(until: manager.nextDeadline), in: &world)
            } else {
                let event = client.step(&world)
                world.journal.append((event, world.now))
                manager.handle(event, in: &world)
            }
        }
        var again = TieringManager(stress.configuration)
        var next = 0
        for (event, time) in world.journal {
            again.handle(event, at: time)
            while let command = again.nextCommand() {
                #expect(command == world.commands[next])
                if world.submissions[next] == .full { again.refused(command) }
                next += 1
            }
        }
        #expect(next == world.commands.count)
        #expect(next > 2000)
        #expect(again.ledger == manager.ledger)
        #expect(again.counters == manager.counters)
    }

    @Test func aKnownBlockTakesAtMost64BytesAllTold() {
        var configuration = smallConfiguration(dramBlocks: 64)
        configuration.limits.knownBlocksMax = 200_000
        var manager = TieringManager(configuration)
        var world = ScriptedWorld(WorldScript())
        for request in 0..<500 {
            serve(chain(0..<100, of: UInt64(request)), request: RequestNumber(request), known: 0, &manager, &world)
        }
        #expect(manager.knownSize.blocks == 50_000)
        #expect(Double(manager.knownSize.bytes) / 50_000 <= 64)
    }
}
