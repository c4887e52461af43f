// What engines say of a turn reaches the policies: once, whole, with the reason of its end.

import KVAgent
import KVModel
import KVTiering
import Synchronization
import Testing

/// What a policy was told.
private final class Told: Sendable {
    struct Word: Equatable {
        var request: UInt32
        /// Blocks of the path, and how many of them it had been shown before.
        var blocks = 0
        var shown = 0
        var session: Int32 = -1
        var reason: StopReason?
    }
    private let words = Mutex<[Word]>([])
    func add(_ word: Word) { words.withLock { $0.append(word) } }
    var all: [Word] { words.withLock { $0 } }
}

/// LRU that notes what it is told.
private struct ListeningPolicy: TierPolicy {
    var inner: LRUPolicy
    let told: Told

    var capacity: Int { inner.capacity }
    var residentCount: Int { inner.residentCount }
    func isResident(_ block: BlockNumber) -> Bool { inner.isResident(block) }
    func hitRun(_ path: Span<BlockNumber>) -> Int { inner.hitRun(path) }
    mutating func access(_ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]) {
        told.add(.init(request: context.request, blocks: path.count, session: context.session))
        inner.access(path, context, evicted: &evicted)
    }
    mutating func extend(
        _ path: Span<BlockNumber>, from shown: Int, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        told.add(.init(request: context.request, blocks: path.count, shown: shown, session: context.session))
        inner.extend(path, from: shown, context, evicted: &evicted)
    }
    mutating func turnEnded(request: UInt32, reason: StopReason, at time: Instant) {
        told.add(.init(request: request, reason: reason))
    }
    mutating func pin(_ block: BlockNumber) { inner.pin(block) }
    mutating func unpin(_ block: BlockNumber) { inner.unpin(block) }
    mutating func remove(_ block: BlockNumber) { inner.remove(block) }
}

@Suite(.serialized) struct TurnTests {
    private func bench(_ told: Told) throws -> AgentBench {
        var tiering = smallTiering()
        tiering.dram?.makePolicy = { ListeningPolicy(inner: LRUPolicy(capacity: $0), told: told) }
        return try AgentBench(
            AgentSettings(tiering: tiering, links: .measured(first: fastLinks)), folder: try Folder())
    }

    @Test(arguments: [(Int.max, StopReason.toolUse), (3, .endTurn)])
    func aTurnIsToldOnceWithTheReasonOfItsEnd(pieces: Int, reason: StopReason) throws {
        let told = Told()
        let bench = try bench(told)
        let engine = try TestEngine(bench.agent)
        let names = chain(0..<10, of: 1)
        #expect(try engine.serve(names, session: 7, pieces: pieces, reason: reason) == 0)
        _ = try bench.status()
        let request = try #require(told.all.first?.request)
        #expect(
            told.all == [
                .init(request: request, blocks: 10, session: 0), .init(request: request, reason: reason),
            ])
        let explanation = try #require(bench.agent.explain(names[0]))
        #expect(explanation.sentences.contains("block 0 of its chain, used by 1 request"), "\(explanation.sentences)")
        try engine.leave()
    }

    /// One process looks up, another saves, the last piece when the turn is over: still one turn.
    @Test func whoSavesNeedNotBeWhoAsked() throws {
        let told = Told()
        let bench = try bench(told)
        let scheduler = try TestEngine(bench.agent, number: 1)
        let worker = try TestEngine(bench.agent, number: 2)
        let names = chain(0..<10, of: 1)
        let (ticket, _) = try scheduler.lookUp(names, session: 7)
        #expect(try worker.save(Array(names[..<4]), request: ticket, asker: 1) == [true, true, true, true])
        try worker.save(Array(names[..<8]), first: 4, request: ticket, asker: 1)
        scheduler.finish(ticket, reason: .toolUse)
        _ = try bench.status()
        #expect(try worker.save(names, first: 8, request: ticket, asker: 1) == [true, true])
        _ = try bench.status()
        let request = try #require(told.all.first?.request)
        #expect(
            told.all == [
                .init(request: request, blocks: 10, session: 0), .init(request: request, reason: .toolUse),
                .init(request: noRequest, blocks: 10, shown: 8),
            ])
        #expect(try scheduler.lookUp(names).answer.dramBlocks == 10)
        let explanation = try #require(bench.agent.explain(names[9]))
        #expect(explanation.sentences.contains("block 9 of its chain, used by 1 request"), "\(explanation.sentences)")
        try worker.leave()
        try scheduler.leave()
    }

    /// A client that says when it goes on is believed, though no other conversation ever came back.
    @Test(arguments: [(StopReason.toolUse, true), (.branchEnded, false)])
    func aHintBringsASpilledConversationBack(reason: StopReason, comesBack: Bool) throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder)
        let tiering = smallTiering(
            dramBlocks: 40, hasStore: true,
            prefetch: PrefetchConfiguration(
                reasons: [.session], bytesInFlightMax: 64 * blockBytes, linkShare: 0.5, stagingShare: 0.9,
                probabilityMin: 0.4, sessionsMax: 64))
        var settings = AgentSettings(tiering: tiering, links: .given(fastLinks))
        settings.clock = .given
        settings.store = store.access
        let bench = try AgentBench(settings, folder: folder)
        let engine = try TestEngine(bench.agent)
        engine.time = Instant(seconds: 1)
        // The paths are known from a load.
        for _ in 0..<2 { try engine.serve(chain(0..<4, of: 9)) }
        let names = chain(0..<6, of: 1)
        let (ticket, _) = try engine.lookUp(names, session: 7)
        try engine.save(names, request: ticket)
        let end = EngineRequestEnd(ticket: ticket, reason: reason, resumesAfter: Duration(seconds: 20))
        engine.post(.finished(engine.number, end))
        let others = chain(0..<6, of: 2)
        try engine.serve(others, session: 8)
        for other in 10..<16 { try engine.serve(chain(0..<10, of: UInt64(other))) }
        _ = try bench.status()
        func isHere(_ names: [ObjectName]) throws -> [Bool] {
            let keys = names.map(\.blockKey)
            return try #require(bench.agent.inspect { manager in keys.map { manager.whereabouts($0).contains(.dram) } })
        }
        let nowhere = [Bool](repeating: false, count: 6)
        #expect(try isHere(names) == nowhere && isHere(others) == nowhere)
        // It is expected from half of the time on.
        for seconds in [10.0, 12.0] {
            #expect(bench.agent.advance(to: Instant(seconds: seconds)) == .accepted)
            _ = try bench.status()
            let isDue = comesBack && seconds > 11
            #expect(try isHere(names) == [Bool](repeating: isDue, count: 6), "at \(seconds) s")
        }
        #expect(try isHere(others) == nowhere, "nobody said anything of it")
        let sheet = try #require(bench.agent.inspect { $0.prefetchSheet })
        #expect(sheet[.session].started == (comesBack ? 6 : 0))
        try engine.leave()
    }

    @Test func anAnswersBlocksMakeItsTurnLonger() throws {
        let told = Told()
        let bench = try bench(told)
        let engine = try TestEngine(bench.agent)
        let names = chain(0..<6, of: 1)
        let (ticket, _) = try engine.lookUp(names, session: 7)
        try engine.save(names, request: ticket)
        for count in 7...8 { try engine.save(chain(0..<count, of: 1), first: count - 1, request: ticket) }
        engine.finish(ticket)
        _ = try bench.status()
        let request = try #require(told.all.first?.request)
        #expect(
            told.all == [
                .init(request: request, blocks: 6, session: 0),
                .init(request: request, blocks: 7, shown: 6, session: 0),
                .init(request: request, blocks: 8, shown: 7, session: 0),
                .init(request: request, reason: .endTurn),
            ])
        try engine.leave()
    }
}
