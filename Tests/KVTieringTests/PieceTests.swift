// A turn whose blocks are handed over piece by piece is the turn that it is whole: one use, one end, the same blocks kept.

import KVModel
import KVTiering
import Testing

/// How a turn's blocks leave its engine.
private enum Cut: Equatable {
    /// With the prompt, as a replay has it.
    case replay
    /// By a request of their own, as an agent makes of one save.
    case whole
    /// The same in pieces of so many blocks.
    case pieces(Int)
}

/// A node and its engine.
private struct Node: ~Copyable {
    var manager: TieringManager
    var world: ScriptedWorld
    let cut: Cut
    private var turns: RequestNumber = 0

    init(_ configuration: TieringConfiguration, storeBlocks: Int = 0, _ cut: Cut) {
        manager = TieringManager(configuration)
        var script = WorldScript()
        script.transferSeconds = 0
        world = ScriptedWorld(script, store: storeBlocks > 0 ? smallStore(blocks: storeBlocks) : nil)
        self.cut = cut
    }

    mutating func advance(to time: Instant) {
        while world.now < time {
            let event = world.next(until: min(time, manager.nextDeadline))
            manager.handle(event, in: &world)
        }
    }

    private mutating func tell(_ event: Event) {
        manager.handle(event, in: &world)
        settle(&manager, &world)
    }

    /// One turn: what was found is loaded, the rest computed and handed over with the answer's blocks. Returns the blocks loaded.
    mutating func serve(
        _ keys: [BlockKey], answer: [BlockKey] = [], tokens: Int? = nil, session: Int32 = -1, turn: Int32 = -1,
        reason: StopReason = .endTurn, pause: Duration = .zero
    ) -> Int {
        // A number of a request is used again after its end.
        turns = (turns + 1) % 7
        let number = 10 * turns
        world.chains[number] = keys
        let promptTokens = Int32(tokens ?? keys.count * 16)
        tell(
            .arrived(
                Arrival(request: number, chain: keys[...], promptTokens: promptTokens, session: session, turn: turn)))
        tell(.load(LoadRequest(request: number, engineBlocks: 0, links: fastLinks)))
        let end = Int(world.ready.removeValue(forKey: number)?.end ?? 0)
        world.delivered[number] = nil
        let chain = keys + answer
        if cut == .replay || end == chain.count {
            tell(.computed(Computed(request: number, firstHeld: Int32(end))))
        } else {
            tell(.computed(Computed(request: number, parts: .booked)))
            var first = end
            while first < chain.count {
                var last = chain.count
                if case .pieces(let size) = cut { last = min(last, first + size) }
                if first > end { advance(to: world.now + pause) }
                save(Array(chain[..<last]), from: first, of: number, session: session)
                first = last
            }
        }
        tell(.ended(request: number, reason: reason))
        return end
    }

    mutating func save(_ keys: [BlockKey], from first: Int, of turn: RequestNumber, session: Int32 = -1) {
        let count = Int32(keys.count)
        tell(
            .arrived(
                Arrival(
                    request: turn + 1, chain: keys[...], promptTokens: count * 16, engineBlocks: count,
                    session: session, pieceOf: turn)))
        tell(.computed(Computed(request: turn + 1, parts: .kept, firstHeld: Int32(first))))
        tell(.ended(request: turn + 1, reason: .unknown))
    }

    func uses(_ keys: [BlockKey]) -> [Int] { keys.map { manager.story(of: $0)?.uses ?? 0 } }
}

@Suite struct PieceTests {
    /// A path's keys. Numbers of blocks name whole prefixes.
    private func keys(_ path: [BlockNumber]) -> [BlockKey] { path.map { BlockKey(traceBlock: UInt64($0)) } }

    @Test(arguments: PolicyName.deployable, [InclusionMode.keep, .exclusive, .inclusive])
    func whatIsKeptDoesNotDependOnTheCut(policy: PolicyName, inclusion: InclusionMode) {
        let configuration = smallConfiguration(
            dramBlocks: 64, nvmeBlocks: 40, policy: policy, inclusion: inclusion)
        var replayed = Node(configuration, .replay)
        var whole = Node(configuration, .whole)
        var cut = Node(configuration, .pieces(2))
        var tree = RandomTree(seed: 11)
        for request in 0..<500 {
            let path = keys(tree.nextPath())
            let tokens = path.count * 16 - tree.random.below(3)
            let reason = [StopReason.toolUse, .endTurn, .unknown][tree.random.below(3)]
            replayed.advance(to: tree.now)
            whole.advance(to: tree.now)
            cut.advance(to: tree.now)
            let end = replayed.serve(path, tokens: tokens, reason: reason)
            #expect(whole.serve(path, tokens: tokens, reason: reason) == end, "request \(request)")
            let endInPieces = cut.serve(path, tokens: tokens, reason: reason)
            #expect(endInPieces == end || inclusion == .exclusive, "request \(request)")
        }
        let all = keys(tree.parents.indices.map { BlockNumber($0) })
        let places = all.map { replayed.manager.whereabouts($0) }
        #expect(all.map { whole.manager.whereabouts($0) } == places)
        #expect(cut.uses(all) == replayed.uses(all))
        if inclusion == .exclusive {
            // A block that leaves node memory finds more or fewer free slots of local flash, as pieces free them one by one.
            let (ours, theirs) = (cut.manager.ledger.served, replayed.manager.ledger.served)
            #expect(abs(ours - theirs) <= replayed.manager.ledger.promptTokens / 200, "\(ours) and \(theirs) tokens")
        } else {
            #expect(all.map { cut.manager.whereabouts($0) } == places)
            #expect(cut.manager.ledger == replayed.manager.ledger)
        }
        #expect(replayed.manager.ledger[.dram] > 0 && replayed.manager.ledger[.evicted] > 0)
        #expect(cut.manager.audit() + cut.world.broken == [])
    }

    /// Blocks behind the prompt that was looked up: each piece makes its turn longer, and the turn is still one.
    @Test(arguments: PolicyName.deployable) func anAnswerThatGrowsIsNoFurtherTurn(policy: PolicyName) {
        let configuration = smallConfiguration(dramBlocks: 256, policy: policy)
        var whole = Node(configuration, .whole)
        var cut = Node(configuration, .pieces(1))
        var random = RandomSource(seed: 3)
        var lengths = [Int](repeating: 0, count: 24)
        var now = Instant.zero
        var loaded = (whole: 0, cut: 0)
        for _ in 0..<600 {
            now = now + Duration(seconds: random.exponential(mean: 4))
            // Some conversations are asked for far more often than others, and each begins anew when it is long.
            let one = min(random.below(24), random.below(24))
            if lengths[one] > 20 { lengths[one] = 0 }
            let begin = UInt64(one) * 40 + UInt64(lengths[one] == 0 ? random.below(2) : 0) * 1000
            let prompt = chain(0..<lengths[one] + 3, of: begin)
            let answer = chain(prompt.count..<prompt.count + 2, of: begin)
            lengths[one] = prompt.count + 2
            whole.advance(to: now)
            cut.advance(to: now)
            loaded.whole += whole.serve(prompt, answer: answer)
            loaded.cut += cut.serve(prompt, answer: answer)
            #expect(cut.uses(prompt + answer) == whole.uses(prompt + answer))
        }
        // LRU renews the whole path: the same. The others see an answer's first blocks enter before its last.
        let blocks = whole.manager.ledger.promptTokens / 16
        let bounds: [PolicyName: Int] = [.lru: 0, .lfu: blocks / 20, .sieve: blocks / 20]
        let bound = bounds[policy] ?? blocks / 50
        #expect(abs(loaded.cut - loaded.whole) <= bound, "\(loaded.cut) and \(loaded.whole) blocks")
        #expect(loaded.whole > 1000)
        #expect(cut.manager.audit() + cut.world.broken == [])
    }

    @Test(arguments: [PolicyName.lru, .holdfast]) func whatIsNotHandedOverTakesNoPlace(policy: PolicyName) {
        var node = Node(smallConfiguration(policy: policy), .whole)
        let saved = chain(0..<18, of: 1)
        #expect(node.serve(saved) == 0)
        for number in 2..<40 {
            // Twenty blocks are looked up, one is handed over, and the turn is over, or given up.
            let keys = chain(0..<20, of: UInt64(number))
            node.manager.handle(.arrived(Arrival(request: 1000, chain: keys[...], promptTokens: 320)), in: &node.world)
            node.save(Array(keys[..<1]), from: 0, of: 1000)
            let end = number % 2 == 0 ? Event.ended(request: 1000, reason: .endTurn) : .cancelled(request: 1000)
            node.manager.handle(end, in: &node.world)
            settle(&node.manager, &node.world)
            for key in keys[1...] { #expect(node.manager.story(of: key)?.isKeptInMemory != true) }
        }
        let more = chain(0..<4, of: 100)
        #expect(node.serve(more) == 0)
        #expect(node.manager.residentRun(more[...]) >= 3, "the last may be worth less than what is there")
        #expect(node.manager.audit() + node.world.broken == [])
    }

    /// Pieces that come after their turn, of another chain, or that go on from another request's blocks.
    @Test(arguments: PolicyName.deployable) func piecesThatFitNowhereAreKeptAll(policy: PolicyName) {
        var node = Node(smallConfiguration(dramBlocks: 128, policy: policy), .whole)
        let keys = chain(0..<6, of: 1)
        node.manager.handle(.arrived(Arrival(request: 50, chain: keys[...], promptTokens: 96)), in: &node.world)
        node.save(keys, from: 0, of: 50)
        let other = chain(0..<5, of: 2)
        node.save(other, from: 0, of: 50)
        // Another request goes on where the first is, before the first does.
        let longer = keys + chain(6..<10, of: 1)
        #expect(node.serve(longer) == 6)
        node.save(longer, from: 6, of: 50)
        let longest = longer + chain(10..<12, of: 1)
        node.save(longest, from: 10, of: 50)
        node.manager.handle(.ended(request: 50, reason: .toolUse), in: &node.world)
        let late = longest + chain(12..<14, of: 1)
        node.save(late, from: 12, of: 50)
        #expect(node.manager.residentRun(late[...]) == 14)
        #expect(node.manager.residentRun(other[...]) == 5)
        #expect(node.manager.audit() + node.world.broken == [])
    }

    @Test(arguments: PolicyName.deployable) func aBranchThatEndedGoesFirst(policy: PolicyName) {
        var node = Node(smallConfiguration(dramBlocks: 32, policy: policy), .whole)
        let trunk = chain(0..<6, of: 1)
        let branch = trunk + chain(6..<12, of: 1)
        #expect(node.serve(trunk, session: 1) == 0)
        #expect(node.serve(branch, session: 2, reason: .branchEnded) == 6)
        func kept(_ keys: [BlockKey]) -> Int { keys.count { node.manager.story(of: $0)?.isKeptInMemory == true } }
        #expect(kept(branch) == 6, "the trunk is another's, too")
        #expect(node.manager.residentRun(branch[...]) == 12, "nobody needed the slots yet")
        // As many blocks as there are slots beside the trunk.
        #expect(node.serve(chain(0..<18, of: 3)) == 0)
        #expect(kept(trunk) == 6)
        #expect(node.serve(chain(0..<8, of: 4)) == 0)
        #expect(node.manager.residentRun(branch[...]) < 12)
        #expect(node.manager.audit() + node.world.broken == [])
    }

    @Test func piecesAreNoGapsBetweenTurns() {
        // As in `conversationsComeBackToBlocksThatWereBroughtUp`, each turn in three pieces a fifth of a second apart.
        let configuration = smallConfiguration(
            dramBlocks: 40, hasStore: true,
            prefetch: PrefetchConfiguration(
                reasons: [.session], bytesInFlightMax: 20_000, linkShare: 0.5, stagingShare: 0.9, probabilityMin: 0.4,
                sessionsMax: 64))
        var node = Node(configuration, storeBlocks: 4000, .pieces(2))
        var served = 0
        for turn in 0..<60 {
            node.advance(to: Instant(seconds: Double(turn) * 20))
            let before = node.manager.ledger[.dram]
            // One new block, always, so that each turn has something to hand over.
            let keys = chain(0..<6, of: 1) + chain(0..<3, of: UInt64(1000 + turn))
            _ = node.serve(
                keys, session: 1, turn: 5, reason: .toolUse, pause: Duration(milliseconds: 200))
            if turn >= 40, node.manager.ledger[.dram] > before { served += 1 }
            for other in 1..<6 { _ = node.serve(chain(0..<8, of: UInt64(100 + turn * 8 + other))) }
        }
        let account = node.manager.prefetchSheet[.session]
        #expect(served >= 18, "of 20 turns")
        // The three blocks of the turn before are brought up in vain.
        #expect(Double(account.used) >= 0.6 * Double(account.started), "\(account)")
        #expect(node.manager.audit() + node.world.broken == [])
    }
}
