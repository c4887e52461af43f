// Callers who wait for answers read them themselves: one for all, and nobody's is lost when it changes who reads.

import Foundation
import KVAgent
import KVModel
import KVSystem
import Synchronization
import Testing

@Suite struct EngineClientWaitingTests {
    private func withClient(
        lookUpLimit: KVModel.Duration = Duration(seconds: 15), watch: KVModel.Duration = Duration(nanoseconds: 100_000),
        _ body: (EngineClient, ScriptedCore, EngineDoor) throws -> Void
    ) throws {
        try Sample.inFolder { folder in
            let core = ScriptedCore()
            let door = try core.open(EngineDoorConfiguration(path: folder + "/s"))
            defer {
                core.release()
                door.stop()
            }
            var configuration = EngineClientConfiguration(path: folder + "/s", hello: Sample.hello())
            configuration.lookUpLimit = lookUpLimit
            configuration.watch = watch
            let client = try EngineClient(configuration)
            defer { client.abandon() }
            #expect(client.waitUntilOpen(within: Duration(seconds: 15)))
            try body(client, core, door)
        }
    }

    private func found(_ client: EngineClient, _ names: [ObjectName]) -> UInt32 {
        var ticket: EngineTicket = 0
        let found = client.answer { ticket = client.lookUp(names, promptTokens: Int32(names.count * 16), done: $0) }
        client.finished(EngineRequestEnd(ticket: ticket))
        return found.hitBlocks
    }

    private func keep(_ chain: UInt64, _ count: Int, in core: ScriptedCore) -> [ObjectName] {
        let names = Sample.names(chain, count)
        core.change { state in for name in names { state.blocks[name] = [] } }
        return names
    }

    @Test func whoWaitsInVainSleepsThroughTwiceAsManyAnswers() {
        var patience = AnswerPatience()
        func slept() -> Int {
            var count = 0
            while !patience.begin() { count += 1 }
            return count
        }
        #expect(slept() == 0)
        let rests = (0..<10).map { _ in
            patience.end(isInTime: false)
            return slept()
        }
        #expect(rests == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256])
        patience.end(isInTime: true)
        #expect(slept() == 0)
        patience.end(isInTime: false)
        #expect(slept() == 1)
    }

    @Test(arguments: [0, 100_000])
    func manyCallersWaitAtOnceAndEachHearsItsOwn(watch: Int64) throws {
        try withClient(watch: Duration(nanoseconds: watch)) { client, core, _ in
            let chains = (1...4).map { keep(UInt64($0), 2 * $0, in: core) }
            let wrong = Atomic<Int>(0)
            let done = DispatchGroup()
            for chain in chains {
                done.enter()
                Thread.detachNewThread { [self] in
                    for _ in 0..<300 where found(client, chain) != UInt32(chain.count) {
                        wrong.wrappingAdd(1, ordering: .relaxed)
                    }
                    done.leave()
                }
            }
            #expect(done.wait(timeout: .now() + 60) == .success)
            #expect(wrong.load(ordering: .relaxed) == 0)
        }
    }

    @Test func whoOnlyGaveACallIsHeardWhileAnotherWaits() throws {
        try withClient { client, core, _ in
            let names = keep(1, 5, in: core)
            for _ in 0..<200 {
                let called = Box<EngineFound>()
                let ticket = client.lookUp(names, promptTokens: 80) { called.set($0) }
                #expect(found(client, names) == 5)
                #expect(called.wait()?.hitBlocks == 5)
                client.finished(EngineRequestEnd(ticket: ticket))
            }
        }
    }

    @Test func aLateAnswerIsAMissForWhoWaits() throws {
        try withClient(lookUpLimit: Duration(milliseconds: 20)) { client, core, _ in
            let names = keep(1, 5, in: core)
            core.change { $0.holds = true }
            #expect(found(client, names) == 0)
        }
    }

    @Test func whoWaitsHearsThatTheAgentIsGone() throws {
        try withClient { client, core, door in
            let names = keep(1, 5, in: core)
            core.change { $0.holds = true }
            Thread.detachNewThread {
                _ = Sample.wait { core.state.withLock { !$0.heldJobs.isEmpty } }
                door.stop()
            }
            #expect(found(client, names) == 0)
        }
    }
}
