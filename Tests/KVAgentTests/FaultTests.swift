// What goes wrong around an agent costs a hit, never a byte, never a slot and never a request.

import Foundation
import KVAgent
import KVFlash
import KVModel
import KVSystem
import KVTiering
import Synchronization
import Testing

extension AgentBench {
    /// Nothing leaked: the decisions agree with themselves, and nothing is under way.
    func checkClean(_ comment: Comment = "") throws {
        let status = try status()
        #expect(status.transfers == 0 && status.questions == 0, comment)
        let broken = try #require(agent.inspect { $0.audit() })
        #expect(broken == [], comment)
        let inFlight = try #require(agent.inspect { $0.inFlight() })
        #expect(inFlight.leases == 0 && inFlight.transfers == 0 && inFlight.offers == 0, comment)
    }
}

@Suite(.serialized) struct FaultTests {
    @Test func aBlockThatSpoilsInMemoryIsAMissAndNotFoundAgain() throws {
        let bench = try AgentBench(
            AgentSettings(tiering: smallTiering(), links: .measured(first: fastLinks)), folder: try Folder())
        let engine = try TestEngine(bench.agent)
        let names = chain(0..<12, of: 1)
        try engine.save(names)
        let key = names[7].blockKey
        let slot = try #require(bench.agent.inspect { $0.slot(of: key, in: .dram) } ?? nil)
        let place = MemorySlice(offset: Int(slot) * blockBytes + 5000, count: 1)
        unsafe bench.agent.memory[place][0] ^= 4
        engine.clear(0..<12)
        let (ticket, answer) = try engine.lookUp(names)
        #expect(answer.dramBlocks == 12)
        #expect(try engine.load(names, request: ticket) == 0..<7)
        for position in 0..<7 { #expect(engine.has(names[position], row: position)) }
        engine.finish(ticket)
        #expect(try engine.lookUp(names).answer.hitBlocks == 7)
        #expect(try bench.status().totals["corrupt_into_engine"] == 1)
        #expect(try bench.status().ledger["corrupt"] == 5 * 16)
        try bench.checkClean()
        // Saved again, it is found again.
        try engine.save(names)
        #expect(try engine.serve(names) == 12)
    }

    @Test(arguments: [1, 2, 3, 4])
    func aLyingDriveCostsHitsAndNeverAByte(seed: UInt64) throws {
        let folder = try Folder()
        var settings = AgentSettings(
            tiering: smallTiering(dramBlocks: 24, nvme: true), links: .measured(first: fastLinks))
        settings.localFlash = LocalFlash(
            path: folder.path("local.flash"), byteCount: 8 << 20, extentBytes: 64 << 10,
            makeDrive: { (device, memory, drive, sink) throws(FlashError) in
                var perMille: [DriveFault: Int] = [:]
                for fault in DriveFault.allCases where fault != .dead { perMille[fault] = 40 }
                return try FaultyDrive(
                    seed: seed, perMille: perMille, slowMicroseconds: 200, extentCount: device.geometry.extentCount,
                    memory: memory, sink: sink
                ) { (sink) throws(FlashError) in
                    try FlashDrive(device, memory: memory, configuration: drive, sink: sink)
                }
            })
        let bench = try AgentBench(settings, folder: folder)
        let engine = try TestEngine(bench.agent)
        var random = RandomSource(seed: seed)
        for _ in 0..<120 {
            let names = chain(0..<(1 + random.below(12)), of: UInt64(random.below(9)))
            try engine.serve(names)
            // However slow the disk is, what was pushed out of memory is on it when it is asked for.
            _ = try bench.status()
        }
        let status = try bench.status()
        #expect(status.totals["blocks_flash_read"]! > 0, "\(status.totals) \(status.ledger)")
        #expect(status.totals["corrupt_flash_read"]! > 0)
        #expect(status.totals["failed_flash_write"]! > 0)
        try bench.checkClean()
    }

    @Test func aDeviceThatNeverAnswersKeepsItsSlotsAndNothingElse() throws {
        let folder = try Folder()
        var tiering = smallTiering(dramBlocks: 24, nvme: true)
        tiering.planner.loadGraceMin = Duration(milliseconds: 50)
        tiering.planner.loadGraceMax = Duration(milliseconds: 60)
        var settings = AgentSettings(tiering: tiering, links: .measured(first: fastLinks))
        let box = DriveBox()
        settings.localFlash = LocalFlash(
            path: folder.path("local.flash"), byteCount: 8 << 20, extentBytes: 64 << 10,
            makeDrive: { (device, memory, drive, sink) throws(FlashError) in
                let made = try FaultyDrive(
                    seed: 5, perMille: [.dead: 200], extentCount: device.geometry.extentCount, memory: memory,
                    sink: sink
                ) { (sink) throws(FlashError) in
                    try FlashDrive(device, memory: memory, configuration: drive, sink: sink)
                }
                box.drive.withLock { $0 = made }
                return made
            })
        let bench = try AgentBench(settings, folder: folder)
        let engine = try TestEngine(bench.agent)
        // Turns that need what hangs go on at their deadline.
        for turn in 0..<40 { try engine.serve(chain(0..<8, of: UInt64(turn % 5))) }
        let revived = box.drive.withLock { $0 }
        // What hung is let go, also what hangs while that is done.
        let deadline = MonotonicClock.now + waitLimit
        while !bench.agent.waitUntilQuiet(within: Duration(milliseconds: 20)), MonotonicClock.now < deadline {
            revived?.revive()
        }
        let seen = try bench.status()
        #expect(seen.totals["slots_quarantined"]! > 0, "\(seen.totals) \(seen.ledger)")
        try bench.checkClean()
    }

    @Test func aStoreThatDiesCostsItsHitsAndIsUsedAgainWhenItIsBack() throws {
        let store = try StoreBench(folder: try Folder())
        let (bench, engine) = try AgentBench.beside(store)
        let names = chain(0..<10, of: 3)
        try engine.serve(names)
        _ = try bench.status()
        try bench.pushOut(by: engine, 50..<54)
        let (ticket, answer) = try engine.lookUp(names)
        #expect(answer.flashBlocks == 10)
        store.stop()
        let started = MonotonicClock.now
        #expect(try engine.load(names, request: ticket).isEmpty)
        #expect((MonotonicClock.now - started).seconds < 5)
        engine.finish(ticket)
        // Without a store the agent goes on with what it has.
        let others = chain(0..<6, of: 99)
        try engine.serve(others)
        #expect(try engine.serve(others) == 6)
        try store.start()
        let deadline = MonotonicClock.now + waitLimit
        while try engine.serve(names) < 10, MonotonicClock.now < deadline {
            for other in 0..<2 { try engine.serve(chain(0..<10, of: 70 + UInt64(other))) }
        }
        #expect(try bench.status().totals["store_lost"]! >= 1)
        try bench.checkClean()
    }

    @Test func aBlockThatSpoilsInTheStoreIsAMiss() throws {
        let store = try StoreBench(folder: try Folder())
        let names = chain(0..<10, of: 8)
        do {
            let (bench, engine) = try AgentBench.beside(store)
            try engine.serve(names)
            _ = try bench.status()
        }
        store.stop()
        try spoil(store.folder.path("store.flash"), names[6])
        try store.start()
        let (bench, engine) = try AgentBench.beside(store)
        #expect(try engine.serve(names) == 6)
        #expect(try bench.status().totals["corrupt_store_get"] == 1)
        // It was computed again, and the store takes it again once it has put the bad one away.
        #expect(try engine.serve(names) == 10)
        try bench.checkClean()
    }

    /// Of what a store did not take for its quota, and node memory lost, the ledger says so.
    @Test func whatAStoreHasNoQuotaForIsMissedForThat() async throws {
        let store = try StoreBench(folder: try Folder())
        let (bench, engine) = try AgentBench.beside(store)
        let namespace = try #require(bench.status().store?.namespace)
        // Less than a block.
        try await store.order("namespace-set", #"{"namespace":"\#(namespace)","policy":{"quotaBytes":32768}}"#)
        let names = chain(0..<10, of: 3)
        try engine.serve(names)
        _ = try bench.status()
        try bench.pushOut(by: engine, 50..<54)
        #expect(try engine.serve(names) == 0)
        let over = try bench.status()
        #expect(over.ledger["quota"] == 160 && over.ledger["evicted"] == 0, "\(over.ledger)")
        // With room again, they are in the store when memory loses them.
        try await store.order("namespace-set", #"{"namespace":"\#(namespace)","policy":{"quotaBytes":0}}"#)
        try bench.pushOut(by: engine, 54..<58)
        #expect(try engine.serve(names) == 0)
        try bench.pushOut(by: engine, 58..<62)
        #expect(try engine.serve(names) == 10)
        #expect(try bench.status().ledger["flash"] == 160)
        try bench.checkClean()
    }

    /// Changes one byte of a block in a file.
    private func spoil(_ path: String, _ name: ObjectName) throws {
        let page = UnsafeMutableRawBufferPointer.allocate(byteCount: blockBytes, alignment: 64)
        defer { unsafe page.deallocate() }
        unsafe fill(page, name)
        let wanted = unsafe Data(page.prefix(64))
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        defer { try? file.close() }
        let contents = try file.readToEnd() ?? Data()
        let range = try #require(contents.range(of: wanted))
        try file.seek(toOffset: UInt64(range.lowerBound + 20))
        try file.write(contentsOf: Data([contents[range.lowerBound + 20] ^ 1]))
        try file.synchronize()
    }

    @Test func afterAnEngineIsGoneNothingTouchesItsMemory() throws {
        let bench = try AgentBench(
            AgentSettings(tiering: smallTiering(dramBlocks: 200), links: .measured(first: fastLinks)),
            folder: try Folder())
        let writer = try TestEngine(bench.agent, number: 1)
        let names = chain(0..<150, of: 4)
        try writer.save(names)
        for round in 0..<20 {
            let engine = try TestEngine(bench.agent, number: EngineNumber(10 + round))
            let (ticket, _) = try engine.lookUp(names)
            _ = engine.postLoad(names, request: ticket)
            try engine.leave()
            engine.clear(0..<150)
            try writer.serve(Array(names.prefix(20)))
            let all = MemorySlice(offset: 0, count: 150 * blockBytes)
            let isUntouched = unsafe engine.memory[all].allSatisfy { $0 == 0 }
            #expect(isUntouched)
        }
        try bench.checkClean()
        #expect(try bench.status().engines.count == 1)
        #expect(try bench.status().openRequests == 0)
    }

    @Test func whatIsCancelledIsAcknowledgedOnceAndTouchedNoMore() throws {
        let bench = try AgentBench(
            AgentSettings(tiering: smallTiering(dramBlocks: 200), links: .measured(first: fastLinks)),
            folder: try Folder())
        let engine = try TestEngine(bench.agent)
        let names = chain(0..<120, of: 6)
        try engine.save(names)
        for _ in 0..<20 {
            let (ticket, _) = try engine.lookUp(names)
            let job = engine.postLoad(names, request: ticket)
            engine.post(.cancel(0, job))
            // The job may have ended before it was cancelled; then it has two replies.
            _ = try engine.replies.take("cancelled") { reply -> Bool? in
                if case .cancelled(_, job) = reply { true } else { nil }
            }
            engine.clear(0..<120)
            engine.post(.cancel(0, ticket))
            _ = try engine.replies.take("cancelled") { reply -> Bool? in
                if case .cancelled(_, ticket) = reply { true } else { nil }
            }
            let all = MemorySlice(offset: 0, count: 120 * blockBytes)
            let isUntouched = unsafe engine.memory[all].allSatisfy { $0 == 0 }
            #expect(isUntouched)
        }
        try bench.checkClean()
        #expect(try bench.status().openRequests == 0)
    }

    @Test func aFullMailboxIsToldAndWhatWasTakenIsAnswered() throws {
        var settings = AgentSettings(tiering: smallTiering(), links: .measured(first: fastLinks))
        settings.limits.messagesMax = 8
        let bench = try AgentBench(settings, folder: try Folder())
        let engine = try TestEngine(bench.agent)
        // A sink that holds the agent's thread up, as no sink may, fills the mailbox.
        let gate = DispatchSemaphore(value: 0)
        let answers = Counter()
        bench.agent.connect(engine: 7) { _ in
            if answers.next() == 0 { gate.wait() }
        }
        let names = chain(0..<3, of: 1)
        func post(_ ticket: EngineTicket) -> Bool {
            bench.agent.post(.lookUp(7, EngineLookUp(ticket: ticket, names: names, promptTokens: 49))) == .accepted
        }
        var taken: EngineTicket = 0
        while post(taken + 1) { taken += 1 }
        #expect(taken >= 8 && taken <= 17)
        gate.signal()
        _ = try bench.status()
        #expect(answers.count == Int(taken))
        #expect(try engine.serve(names) == 0)
    }
}

/// A drive to be reached again.
private final class DriveBox: Sendable {
    let drive = Mutex<FaultyDrive?>(nil)
}

private final class Counter: Sendable {
    private let value = Atomic<Int>(0)
    func next() -> Int { value.wrappingAdd(1, ordering: .relaxed).oldValue }
    var count: Int { value.load(ordering: .relaxed) }
}
