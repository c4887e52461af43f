// What is predicted, and what it costs.

import KVModel
import KVTiering
import Testing

@Suite struct PredictionTests {
    @Test func windowsHoldMostReturnsAndLittleElse() {
        // Tool calls return within 4 to 12 s in 95 of 100 cases, people within 60 to 400 s in 70 of 100.
        var random = RandomSource(seed: 5)
        var predictor = ReturnPredictor()
        let tool = TurnClass(reason: .toolUse, turn: 6, gapBefore: 5)
        let person = TurnClass(reason: .endTurn, turn: 6, gapBefore: 100)
        #expect(predictor.window(tool) == nil)
        for _ in 0..<2000 {
            predictor.turnEnded(tool)
            if random.uniform() < 0.95 { predictor.returned(tool, gap: 4 + 8 * random.uniform()) }
            predictor.turnEnded(person)
            if random.uniform() < 0.7 { predictor.returned(person, gap: 60 + 340 * random.uniform()) }
        }
        for (turn, share, low, high) in [(tool, 0.95, 4.0, 12.0), (person, 0.7, 60.0, 400.0)] {
            guard let window = predictor.window(turn) else {
                Issue.record("no window for a class of 2,000 turns")
                continue
            }
            #expect(abs(window.probability - share) < 0.03)
            // Bins are √2 wide: the window may be a bin wider than the truth on both sides, not more.
            #expect(window.opens >= low / 1.5 && window.opens <= low + (high - low) * 0.15)
            #expect(window.closes >= low + (high - low) * 0.85 && window.closes <= high * 1.5)
        }
    }

    @Test func rareClassesFallBackToTheReasonAlone() {
        var predictor = ReturnPredictor()
        for _ in 0..<ReturnPredictor.evidence {
            let seen = TurnClass(reason: .toolUse, turn: 9, gapBefore: 1)
            predictor.turnEnded(seen)
            predictor.returned(seen, gap: 5)
        }
        let rare = TurnClass(reason: .toolUse, turn: 0, gapBefore: nil)
        #expect(predictor.window(rare)?.probability == 1)
        #expect(predictor.window(TurnClass(reason: .endTurn, turn: 0, gapBefore: nil)) == nil)
    }

    private func predicting(_ reasons: Set<PrefetchReason>, dramBlocks: Int = 40) -> TieringConfiguration {
        smallConfiguration(
            dramBlocks: dramBlocks, hasStore: true,
            prefetch: PrefetchConfiguration(
                reasons: reasons, bytesInFlightMax: 20_000, linkShare: 0.5, stagingShare: 0.9, probabilityMin: 0.4,
                sessionsMax: 64))
    }

    /// Advances to a time, meeting every deadline and event on the way.
    private func advance(to time: Instant, _ manager: inout TieringManager, _ world: inout ScriptedWorld) {
        while world.now < time {
            let event = world.next(until: min(time, manager.nextDeadline))
            manager.handle(event, in: &world)
        }
    }

    @Test func conversationsComeBackToBlocksThatWereBroughtUp() {
        // One conversation returns every 20 s; in between, others push it out of node memory.
        var manager = TieringManager(predicting([.session]))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 2000))
        var served = 0
        for turn in 0..<60 {
            let start = Instant(seconds: Double(turn) * 20)
            advance(to: start, &manager, &world)
            let before = manager.ledger[.dram]
            serve(
                chain(0..<6, of: 1), request: RequestNumber(10 * turn), session: 1, turn: 5, reason: .toolUse, &manager,
                &world)
            if turn >= 40, manager.ledger[.dram] > before { served += 1 }
            for other in 1..<6 {
                serve(
                    chain(0..<8, of: UInt64(100 + turn * 8 + other)), request: RequestNumber(10 * turn + other),
                    &manager,
                    &world)
            }
        }
        let account = manager.prefetchSheet[.session]
        #expect(served >= 18, "of 20 turns")
        #expect(Double(account.used) >= 0.9 * Double(account.started), "precision")
        #expect(
            account.used + account.late + account.neverUsed + account.cancelled + account.failed + account.held
                == account.started)
        #expect(manager.audit() + world.broken == [])
    }

    /// Engines say when conversations go on, and may say far too much: what waits for long ago ended turns makes room.
    @Test func deadlinesThatMatterToNobodyMakeRoom() {
        var manager = TieringManager(predicting([.session]))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 100))
        let keys = chain(0..<4, of: 1)
        for request in RequestNumber(0)..<10_000 {
            world.chains[request] = keys
            let arrival = Arrival(request: request, chain: keys[...], promptTokens: 64, session: 1, turn: 1)
            manager.handle(.arrived(arrival), in: &world)
            manager.handle(.computed(Computed(request: request)), in: &world)
            settle(&manager, &world)
            let far = Duration(seconds: 1e8)
            manager.handle(.ended(request: request, reason: .toolUse, resumesAfter: far), in: &world)
        }
        #expect(serve(keys, request: 20_000, &manager, &world)?.end == 4)
        #expect(serve(chain(0..<4, of: 9), request: 20_001, &manager, &world)?.end == 0)
        #expect(manager.counters.storeQuestions > 0 && manager.counters.loadsCutShort == 0)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func waitingRequestsAreStagedAndLoadsFindThem() {
        var manager = TieringManager(predicting([.queue]))
        var other = TieringManager(predicting([]))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 100))
        serve(chain(0..<8, of: 1), request: 1, &other, &world)
        world.content = [.dram: [:], .nvme: [:]]
        let keys = chain(0..<8, of: 1)
        manager.handle(.arrived(Arrival(request: 5, chain: keys[...], promptTokens: 128)), in: &world)
        settle(&manager, &world)
        #expect(manager.prefetchSheet[.queue].started == 8)
        #expect(manager.counters.flashReads == 8)
        manager.handle(.load(LoadRequest(request: 5, engineBlocks: 0, links: fastLinks)), in: &world)
        settle(&manager, &world)
        #expect(world.ready[5]?.end == 8)
        #expect(manager.counters.flashReads == 8, "nothing is read twice")
        #expect(manager.prefetchSheet[.queue].used == 8)
        manager.handle(.cancelled(request: 5), in: &world)
        #expect(manager.inFlight().leases == 0)
    }

    @Test func loadsTakeBackWhatPredictionsHold() {
        // All staging slots are held for a prediction; a load of as many blocks still gets them.
        var manager = TieringManager(predicting([.session], dramBlocks: 16))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 2000))
        for turn in 0..<30 {
            advance(to: Instant(seconds: Double(turn) * 20), &manager, &world)
            serve(
                chain(0..<3, of: 1), request: RequestNumber(10 * turn), session: 1, turn: 5, reason: .toolUse, &manager,
                &world)
            for other in 1..<4 {
                serve(
                    chain(0..<12, of: UInt64(100 + other)), request: RequestNumber(10 * turn + other), &manager, &world)
            }
        }
        advance(to: world.now + Duration(milliseconds: 18_500), &manager, &world)
        #expect(manager.inFlight().predictions > 0)
        serve(chain(0..<12, of: 102), request: 9999, &manager, &world)
        #expect(manager.counters.loadsCutShort == 0)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func popularBlocksAndSuccessorsComeBack() {
        var manager = TieringManager(predicting([.popularity, .successor], dramBlocks: 24))
        var world = ScriptedWorld(WorldScript(), store: smallStore(blocks: 2000))
        for round in 0..<120 {
            let root = chain(0..<2, of: 0)
            serve(root + chain(2..<4, of: 7), request: RequestNumber(3 * round), &manager, &world)
            serve(chain(0..<22, of: UInt64(10 + round % 5)), request: RequestNumber(3 * round + 2), &manager, &world)
            serve(root, request: RequestNumber(3 * round + 1), &manager, &world)
        }
        #expect(manager.prefetchSheet[.popularity].started > 0)
        #expect(manager.prefetchSheet[.successor].started > 0)
        #expect(manager.prefetchSheet[.successor].used > 0)
        #expect(manager.audit() + world.broken == [])
    }

    @Test func writeBudgetsFillEvenlyAndNeverOverflow() {
        var budget = WriteBudget(WriteBudgetConfiguration(bytesPerDay: 86_400 * 100, burstBytes: 1000))
        var granted = 0
        for second in 0...1000 {
            while budget.take(30, at: Instant(seconds: Double(second))) { granted += 30 }
            #expect(granted <= 1000 + 100 * second)
        }
        #expect(granted >= 1000 + 100 * 1000 - 30)
        #expect(budget.refusedBytes > 0)
    }
}
