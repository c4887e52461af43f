// The agent as its engines meet it: blocks saved come back byte for byte, from whichever tier has them.

import Foundation
import KVAgent
import KVFlash
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite(.serialized) struct AgentTests {
    @Test(arguments: [1, 4]) func whatWasSavedComesBackByteForByte(segments: Int) throws {
        let bench = try AgentBench(
            AgentSettings(tiering: smallTiering(), links: .measured(first: fastLinks)), folder: try Folder())
        let engine = try TestEngine(bench.agent, segments: segments)
        let names = chain(0..<20, of: 1)
        #expect(try engine.serve(names) == 0)
        #expect(try engine.serve(names) == 20)
        let longer = names + chain(100..<105, of: 1)
        #expect(try engine.serve(longer) == 20)
        #expect(try engine.serve(longer) == 25)
        let status = try bench.status()
        #expect(status.ledger["dram"] == (20 + 20 + 25) * 16)
        #expect(status.ledger["firstSeen"] == 25 * 16)
        #expect(status.promptTokens == 20 * 16 + 1 + 20 * 16 + 1 + 25 * 16 + 1 + 25 * 16 + 1)
        #expect(status.openRequests == 0 && status.transfers == 0)
        try engine.leave()
    }

    @Test func decisionsThatDifferFromTheJournalsAreTold() throws {
        var settings = AgentSettings(tiering: smallTiering(), links: .measured(first: fastLinks))
        settings.journal = JournalSettings(path: nil, bytesMax: journalBytesMax)
        let agent = try Agent(settings, logger: quietLogger())
        let engine = try TestEngine(agent)
        #expect(try engine.serve(chain(0..<20, of: 1)) == 0)
        try engine.leave()
        agent.shutDown()
        var other = try settings.effectiveTiering()
        other.limits.sliceBlocks = 1
        var journal = try Journal(agent.journalBytes)
        var decisions = TieringManager(other)
        let verdict = try journal.replay(into: &decisions)
        #expect(verdict.difference?.contains("another command than") == true, "\(verdict)")
        // Its policy is a test's own.
        #expect(throws: OperatorError.self) { try journal.head.tiering() }
    }

    /// The end of the one piece under way is all that can begin the next.
    @Test func aTransferGoesOnWhereThereIsRoomForOnePiece() throws {
        var settings = AgentSettings(tiering: smallTiering(), links: .measured(first: fastLinks))
        settings.limits.copyWorkers = 1
        settings.limits.copyDepth = 1
        settings.limits.copyBytesMax = blockBytes
        let bench = try AgentBench(settings, folder: try Folder())
        let engine = try TestEngine(bench.agent)
        let names = chain(0..<20, of: 3)
        #expect(try engine.serve(names) == 0)
        #expect(try engine.serve(names) == 20)
        try engine.leave()
    }

    /// Whoever asks for rest hears of it, also when the agent has just gone to sleep.
    @Test func restIsToldToWhoeverAsks() throws {
        var settings = AgentSettings(tiering: smallTiering(), links: .given(fastLinks))
        settings.clock = .given
        let agent = try Agent(settings, logger: quietLogger())
        for step in 1...2000 {
            #expect(agent.advance(to: Instant(nanoseconds: Int64(step))) == .accepted)
            guard agent.waitUntilQuiet(within: waitLimit) else {
                Issue.record("no rest at step \(step)")
                break
            }
        }
        agent.shutDown()
    }

    @Test func aLoadWithoutARequestServesWhatIsThere() throws {
        let bench = try AgentBench(
            AgentSettings(tiering: smallTiering(), links: .measured(first: fastLinks)), folder: try Folder())
        let engine = try TestEngine(bench.agent)
        let names = chain(0..<10, of: 2)
        #expect(try engine.save(names) == [Bool](repeating: true, count: 10))
        engine.clear(0..<10)
        #expect(try engine.load(names, first: 4, row: 20) == 4..<10)
        for position in 4..<10 { #expect(engine.has(names[position], row: 20 + position - 4)) }
        // Places for two blocks only: no third may be written.
        let (ticket, answer) = try engine.lookUp(names)
        #expect(answer.dramBlocks == 10)
        engine.clear(40..<50)
        #expect(try engine.load(names, request: ticket, count: 2, row: 40) == 0..<2)
        #expect(!engine.has(names[2], row: 42))
        engine.finish(ticket)
        let status = try bench.status()
        #expect(status.ledger["dram"] == 2 * 16)
        #expect(status.ledger["recomputeCheaper"] == 8 * 16)
    }

    @Test func blocksComeBackFromLocalFlash() throws {
        let folder = try Folder()
        var settings = AgentSettings(
            tiering: smallTiering(dramBlocks: 16, nvme: true), links: .measured(first: fastLinks))
        settings.localFlash = LocalFlash(path: folder.path("local.flash"), byteCount: 8 << 20, extentBytes: 64 << 10)
        let bench = try AgentBench(settings, folder: folder)
        let engine = try TestEngine(bench.agent)
        let chains = (0..<6).map { chain(0..<10, of: UInt64(10 + $0)) }
        for names in chains {
            #expect(try engine.serve(names) == 0)
            _ = try bench.status()
        }
        for names in chains {
            #expect(try engine.serve(names) > 0)
            _ = try bench.status()
        }
        let status = try bench.status()
        #expect(status.ledger["nvme"]! > 0)
        #expect(status.totals["corrupt_flash_read"] == 0)
        // The file is exactly as large as it may be.
        let bytes = try FileManager.default.attributesOfItem(atPath: folder.path("local.flash"))[.size] as? Int
        #expect(bytes == 8 << 20)
    }

    @Test func anotherAgentHitsAllThatOneSpilled() throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder)
        func agent() throws -> AgentBench {
            var settings = AgentSettings(
                tiering: smallTiering(hasStore: true), links: .measured(first: fastLinks))
            settings.store = store.access
            return try AgentBench(settings, folder: folder)
        }
        let names = chain(0..<30, of: 5)
        do {
            let first = try agent()
            let engine = try TestEngine(first.agent)
            _ = try first.status()
            #expect(try engine.serve(names) == 0)
            let status = try first.status()
            #expect(status.totals["blocks_store_put"] == 30)
        }
        let second = try agent()
        let engine = try TestEngine(second.agent)
        _ = try second.status()
        #expect(try engine.serve(names) == 30)
        let status = try second.status()
        #expect(status.ledger["flash"] == 30 * 16)
        #expect(status.totals["blocks_store_get"] == 30)
    }
}
