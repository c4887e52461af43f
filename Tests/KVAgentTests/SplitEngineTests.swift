// An engine of several processes: one looks prompts up, others load and save, each over a connection of its own. The ledger says
// where the prompt's tokens came from all the same, each once; so does the balance sheet of what was fetched ahead.

import KVAgent
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite(.serialized) struct SplitEngineTests: SidecarBench {
    /// A scheduler and two workers of one agent; the classes of the ledger that are not zero.
    private final class Engines {
        let bench: AgentBench
        let scheduler: TestEngine
        let workers: [TestEngine]

        init(_ tiering: TieringConfiguration = smallTiering()) throws {
            bench = try AgentBench(
                AgentSettings(tiering: tiering, links: .measured(first: fastLinks)), folder: try Folder())
            scheduler = try TestEngine(bench.agent, number: 1)
            workers = [try TestEngine(bench.agent, number: 2), try TestEngine(bench.agent, number: 3)]
        }

        /// What of a chain's look-up one of the workers loads, as blocks of a request of the scheduler's.
        @discardableResult
        func load(
            _ worker: Int, _ names: [ObjectName], of ticket: EngineTicket, first: Int = 0, count: Int? = nil
        ) throws -> Range<Int> {
            workers[worker].clear(0..<names.count)
            let came = try workers[worker].load(names, request: ticket, asker: 1, first: first, count: count)
            for (row, position) in came.enumerated() {
                #expect(workers[worker].has(names[position], row: row), "block \(position) came with wrong bytes")
            }
            return came
        }

        /// The prompt's tokens by class, as it is booked when it ends.
        func booked(_ ticket: EngineTicket, cachedTokens: Int32 = -1) throws -> [String: Int] {
            scheduler.finish(ticket, cachedTokens: cachedTokens)
            return try ledger()
        }

        func ledger() throws -> [String: Int] {
            let status = try bench.status()
            let broken = try #require(bench.agent.inspect { $0.audit() })
            #expect(broken == [])
            return status.ledger.filter { $0.value > 0 }
        }

        func leave() throws { for engine in workers + [scheduler] { try engine.leave() } }
    }

    /// Ten blocks that were saved without a request, so that nothing of them is in the ledger.
    private func saved(_ engines: Engines, shard: UInt16 = 0, of shards: UInt16 = 1) throws -> [ObjectName] {
        var names = chain(0..<10, of: 1)
        if shards > 1 { names = names.map { ObjectName($0.key, group: 0, shard: shard, shardCount: shards) } }
        try engines.workers[Int(shard)].save(names)
        return names
    }

    @Test func whatAWorkerLoadsIsServedToItsSchedulersPrompt() throws {
        let engines = try Engines()
        let names = try saved(engines)
        let requests = try #require(engines.bench.agent.inspect { $0.counters.requests })
        let (ticket, found) = try engines.scheduler.lookUp(names, tokens: 165, session: 7)
        #expect(found.dramBlocks == 10)
        #expect(try engines.load(0, names, of: ticket) == 0..<10)
        #expect(try engines.booked(ticket) == ["dram": 160, "alwaysComputed": 5])
        // One prompt, and one story of it: that of the load.
        #expect(try #require(engines.bench.agent.inspect { $0.counters.requests }) == requests + 1)
        let told = try #require(engines.bench.agent.explain(names[3])).sentences.joined(separator: "\n")
        #expect(told.contains("10 were loaded") && !told.contains("none loaded"), "\(told)")
        try engines.leave()
    }

    /// Workers of tensor parallelism load shards of their own, each by a look-up of its own; one carries the tokens.
    @Test func shardsOfAPromptCountOnce() throws {
        let engines = try Engines()
        let shards = try (0..<2).map { try saved(engines, shard: $0, of: 2) }
        let tickets = try shards.enumerated().map {
            try engines.scheduler.lookUp($0.element, tokens: $0.offset == 0 ? 161 : 0).ticket
        }
        // The one that carries the tokens is not the first to load.
        for worker in [1, 0] { #expect(try engines.load(worker, shards[worker], of: tickets[worker]) == 0..<10) }
        // Who names another's look-up by mistake brings nothing of it.
        try engines.load(1, shards[1], of: tickets[0])
        engines.scheduler.finish(tickets[1])
        #expect(try engines.booked(tickets[0]) == ["dram": 160, "alwaysComputed": 1])
        try engines.leave()
    }

    /// Where every rank holds the same bytes, each loads them all, by the one look-up there is.
    @Test func whatSeveralWorkersLoadCountsOnce() throws {
        let engines = try Engines()
        let names = try saved(engines)
        let (ticket, _) = try engines.scheduler.lookUp(names, tokens: 161)
        for worker in 0..<2 { #expect(try engines.load(worker, names, of: ticket) == 0..<10) }
        #expect(try engines.booked(ticket) == ["dram": 160, "alwaysComputed": 1])
        try engines.leave()
    }

    /// Through few places a load goes piece by piece; what lies before and between them the engine has itself.
    @Test(arguments: [true, false])
    func piecesOfALoadAreOneLoad(isAnothers: Bool) throws {
        let engines = try Engines()
        let names = try saved(engines)
        let (ticket, _) = try engines.scheduler.lookUp(names, tokens: 161)
        for range in [6..<9, 2..<4, 4..<5] {
            let (first, count) = (range.lowerBound, range.count)
            let came =
                try isAnothers
                ? engines.load(0, names, of: ticket, first: first, count: count)
                : engines.scheduler.load(names, request: ticket, first: first, count: count)
            #expect(came == range)
        }
        // Blocks 0, 1 and 5 are the engine's; the last was found, and nobody asked for it.
        #expect(try engines.booked(ticket) == ["hbm": 48, "dram": 96, "recomputeCheaper": 16, "alwaysComputed": 1])
        try engines.leave()
    }

    @Test func whatDidNotComeHasItsCause() throws {
        let engines = try Engines()
        let names = try saved(engines)
        let key = names[7].blockKey
        let slot = try #require(engines.bench.agent.inspect { $0.slot(of: key, in: .dram) } ?? nil)
        let place = MemorySlice(offset: Int(slot) * blockBytes + 5000, count: 1)
        unsafe engines.bench.agent.memory[place][0] ^= 4
        let (ticket, _) = try engines.scheduler.lookUp(names, tokens: 161)
        #expect(try engines.load(0, names, of: ticket) == 0..<7)
        #expect(try engines.booked(ticket) == ["dram": 112, "corrupt": 48, "alwaysComputed": 1])
        try engines.leave()
    }

    /// The prompt is booked when its first block is saved, behind the loads.
    @Test func aSaveBehindTheLoadBooksThePrompt() throws {
        let engines = try Engines()
        let names = try saved(engines)
        let longer = names + chain(10..<12, of: 1)
        let (ticket, _) = try engines.scheduler.lookUp(longer, tokens: 193)
        try engines.load(0, names, of: ticket)
        try engines.workers[0].save(longer, first: 10, request: ticket, asker: 1)
        let booked = ["dram": 160, "firstSeen": 32, "alwaysComputed": 1]
        #expect(try engines.ledger() == booked)
        #expect(try engines.booked(ticket) == booked)
        try engines.leave()
    }

    /// What was found and not asked for was not lost: the engine had it, or computed it of its own accord.
    @Test(arguments: [true, false])
    func whatNobodyAskedForWasNotLost(saves: Bool) throws {
        let engines = try Engines()
        let names = try saved(engines)
        let longer = names + chain(10..<12, of: 1)
        let (ticket, found) = try engines.scheduler.lookUp(longer, tokens: 193)
        #expect(found.hitBlocks == 10)
        if saves {
            // Saved is what lies behind that which the engine has.
            try engines.workers[0].save(longer, first: 11, request: ticket, asker: 1)
            #expect(try engines.booked(ticket) == ["hbm": 176, "firstSeen": 16, "alwaysComputed": 1])
        } else {
            #expect(
                try engines.booked(ticket, cachedTokens: 100)
                    == ["hbm": 96, "recomputeCheaper": 64, "firstSeen": 32, "alwaysComputed": 1])
        }
        try engines.leave()
    }

    /// A load may come when its turn is over, or name one that never was: it brings its bytes and is in no ledger.
    @Test func aLoadOfATurnThatIsOverIsNoPromptOfItsOwn() throws {
        let engines = try Engines()
        let names = try saved(engines)
        let (ticket, _) = try engines.scheduler.lookUp(names, tokens: 161)
        let booked = try engines.booked(ticket)
        let requests = try #require(engines.bench.agent.inspect { $0.counters.requests })
        for named in [ticket, 999] { #expect(try engines.load(0, names, of: named) == 0..<10) }
        #expect(try engines.ledger() == booked)
        #expect(try #require(engines.bench.agent.inspect { $0.counters.requests }) == requests)
        try engines.leave()
    }

    /// A request that is given up takes its workers' loads with it, and is over behind them.
    @Test func aCancelReachesTheLoadsOfWorkers() throws {
        let engines = try Engines(smallTiering(dramBlocks: 200))
        let names = chain(0..<120, of: 6)
        try engines.workers[0].save(names)
        for _ in 0..<10 {
            let (ticket, _) = try engines.scheduler.lookUp(names)
            let before = engines.workers.map(\.replies.count)
            let jobs = engines.workers.map { $0.postLoad(names, request: ticket, asker: 1) }
            engines.scheduler.post(.cancel(1, ticket))
            _ = try engines.scheduler.replies.take("cancelled") { reply -> Bool? in
                if case .cancelled(_, ticket) = reply { true } else { nil }
            }
            // By then they were told of their ends.
            #expect(zip(engines.workers, before).allSatisfy { $0.replies.count == $1 + 1 })
            for (worker, job) in zip(engines.workers, jobs) { #expect(try worker.loaded(job).lowerBound == 0) }
        }
        #expect(try engines.bench.status().openRequests == 0)
        try engines.leave()
    }

    /// What was brought up while a prompt waited was used, whoever's load took it.
    @Test func whatWasFetchedForThePromptCountsAsUsed() throws {
        let store = try StoreBench(folder: try Folder())
        let tiering = smallTiering(
            dramBlocks: 40, hasStore: true,
            prefetch: PrefetchConfiguration(
                reasons: [.queue], bytesInFlightMax: 64 * blockBytes, linkShare: 0.5, stagingShare: 0.9,
                probabilityMin: 0.4, sessionsMax: 64))
        let (bench, first) = try AgentBench.beside(store, tiering)
        let scheduler = try TestEngine(bench.agent, number: 1)
        let worker = try TestEngine(bench.agent, number: 2)
        let names = chain(0..<4, of: 1)
        try first.serve(names)
        _ = try bench.status()
        try bench.pushOut(by: first, 10..<16)
        let (ticket, found) = try scheduler.lookUp(names, tokens: 65)
        #expect(found.flashBlocks == 4)
        _ = try bench.status()
        #expect(try worker.load(names, request: ticket, asker: 1) == 0..<4)
        scheduler.finish(ticket)
        _ = try bench.status()
        let sheet = try #require(bench.agent.inspect { $0.prefetchSheet })
        #expect(sheet[.queue].started == 4)
        #expect(sheet[.queue].used + sheet[.queue].late == 4 && sheet[.queue].neverUsed == 0, "\(sheet[.queue])")
        try worker.leave()
        try scheduler.leave()
    }

    // MARK: Over the door

    /// The same by frames: the worker loads and takes in place for the connection that looked up, by its number.
    @Test func aWorkersConnectionNamesItsSchedulers() throws {
        try withSidecar(of: .host, secret: [], device: nil, { _ in }) { sidecar in
            let scheduler = try engine(sidecar, kind: "vllm-connector", .host, .none)
            let worker = try engine(sidecar, kind: "vllm-connector", .host, .writing)
            defer { _ = (worker.close(), scheduler.close()) }
            #expect(Sample.wait { worker.arena != nil && scheduler.isOpen })
            let asker = UInt16(try #require(scheduler.welcome?.engine))
            let memory = try EngineMemory(blocks: 8)
            let region = worker.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
            let names = Sample.names(1, 8)
            let saved = Box<EngineSaved>()
            worker.save(names, first: 0, places: Sample.rows(Array(0..<8), region: region)) { saved.set($0) }
            #expect(saved.wait()?.keptCount == 8)
            let found = Box<EngineFound>()
            let ticket = scheduler.lookUp(names, promptTokens: 129) { found.set($0) }
            #expect(found.wait()?.hitBlocks == 8)
            let lent = Box<EngineLease?>()
            worker.take(Array(names[..<4]), first: 0, count: 4, request: ticket, asker: asker) { lent.set($0) }
            let lease = try #require(lent.wait() ?? nil)
            for index in 0..<4 { #expect(holds(lease, index, UInt8(index + 1))) }
            let loaded = Box<EngineLoaded>()
            worker.load(
                names, first: 4, places: Sample.rows([3, 2, 1, 0], region: region), request: ticket, asker: asker
            ) { loaded.set($0) }
            #expect(loaded.wait()?.end == 8)
            #expect(memory.holds(5, at: 3) && memory.holds(8, at: 0))
            // The lease is the worker's, not the request's.
            scheduler.finished(EngineRequestEnd(ticket: ticket, cachedTokens: 128))
            let status = try status(sidecar)
            #expect(status.ledger.filter { $0.value > 0 } == ["dram": 128, "alwaysComputed": 1], "\(status.ledger)")
            #expect(lease.isInForce)
            let released = Box<Bool?>()
            lease.release { released.set($0) }
            #expect(released.wait() == true)
        }
    }
}
