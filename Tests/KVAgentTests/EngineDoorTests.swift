// The door with real clients and a scripted core behind it: what engines ask reaches the core and is answered, whoever ends
// in the middle.

import CKernel
import Foundation
import KVAgent
import KVModel
import KVSystem
import KVTiering
import Synchronization
import Testing

@Suite struct EngineDoorTests {
    /// A door with a scripted core behind it, closed at the end.
    private func withDoor(
        _ change: (inout EngineDoorConfiguration) -> Void = { _ in },
        _ body: (EngineDoor, ScriptedCore, String) throws -> Void
    ) throws {
        try Sample.inFolder { folder in
            var configuration = EngineDoorConfiguration(path: folder + "/s")
            change(&configuration)
            let core = ScriptedCore()
            let door = try core.open(configuration)
            defer {
                core.release()
                door.stop()
            }
            try body(door, core, configuration.path)
        }
    }

    private func client(
        _ path: String, change: (inout EngineClientConfiguration) -> Void = { _ in }
    ) throws -> EngineClient {
        var configuration = Sample.patient(path)
        change(&configuration)
        return try EngineClient(configuration)
    }

    private func save(
        _ client: EngineClient, _ names: [ObjectName], rows: [Int], request: EngineTicket = 0
    ) -> EngineSaved? {
        let saved = Box<EngineSaved>()
        client.save(names, first: 0, places: Sample.rows(rows), request: request) { saved.set($0) }
        return saved.wait()
    }

    private func load(_ client: EngineClient, _ names: [ObjectName], rows: [Int]) -> EngineLoaded? {
        let loaded = Box<EngineLoaded>()
        client.load(names, first: 0, places: Sample.rows(rows)) { loaded.set($0) }
        return loaded.wait()
    }

    private func lookUp(_ client: EngineClient, _ names: [ObjectName]) -> (EngineTicket, EngineFound?) {
        let found = Box<EngineFound>()
        let ticket = client.lookUp(names, promptTokens: Int32(names.count * 16)) { found.set($0) }
        return (ticket, found.wait())
    }

    /// A worker names the connection that asked in two bytes.
    @Test func numbersOfConnectionsGoRoundAndAreNobodyElses() {
        var numbers = EngineNumbers()
        let first = (0..<2).map { _ in numbers.next { _ in false } }
        #expect(first == [1, 2])
        numbers = EngineNumbers(after: 65_534)
        let taken: Set<EngineNumber> = [1, 2, 4]
        let next = (0..<3).map { _ in numbers.next { taken.contains($0) } }
        #expect(next == [65_535, 3, 5])
    }

    /// Whoever took it over would close it once more.
    @Test func aDoorThatIsClosedIsHandedToNobody() throws {
        try Sample.inFolder { folder in
            let core = ScriptedCore()
            let door = try core.open(EngineDoorConfiguration(path: folder + "/s"))
            core.release()
            door.stop()
            #expect(door.takeFromItsThread() == nil)
        }
    }

    @Test func whatIsSavedComesBack() throws {
        try withDoor { door, core, path in
            let client = try client(path)
            defer { client.close() }
            #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
            let memory = try EngineMemory(blocks: 16)
            #expect(client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount) == 0)
            let names = Sample.names(1, 6)
            #expect(lookUp(client, names).1?.hitBlocks == 0)
            let saved = save(client, names, rows: [0, 1, 2, 3, 4, 5])
            #expect(saved?.keptCount == 6 && saved?.bytes == UInt64(6 * Sample.blockBytes))
            #expect(lookUp(client, names).1?.hitBlocks == 6)
            let loaded = load(client, names, rows: [15, 14, 13, 12, 11, 10])
            #expect(loaded?.end == 6)
            for block in 0..<6 { #expect(memory.holds(UInt8(block + 1), at: 15 - block)) }
            #expect(Sample.wait { door.view.counters.engines.blocksLoaded == 6 })
            #expect(Sample.wait { door.view.engines.map(\.kind) == ["replay"] })
        }
    }

    @Test func pythonsClientKeepsEveryRule() throws {
        try withDoor { _, core, path in
            let said = try runPython(["Tools/python/tests/conformance.py", path])
            #expect(said.split(separator: "\n").count == 8, "\(said)")
            #expect(core.state.withLock { $0.ends.contains { $0.reason == .endTurn && $0.cachedTokens == 0 } })
        }
    }

    @Test func pythonsClientSurvivesItsAgent() throws {
        let said = try runPython(["-m", "unittest", "-q", "Tools/python/tests/test_client.py"])
        #expect(said.contains("OK"), "\(said)")
    }

    @Test func busyDecisionsMeanNoCache() throws {
        try withDoor { door, core, path in
            let client = try client(path)
            defer { client.close() }
            #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
            let memory = try EngineMemory(blocks: 4)
            _ = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
            let names = Sample.names(1, 2)
            #expect(save(client, names, rows: [0, 1])?.keptCount == 2)
            core.change { $0.isFull = true }
            let (ticket, found) = lookUp(client, names)
            #expect(found == EngineFound())
            #expect(load(client, names, rows: [2, 3])?.end == 0)
            #expect(save(client, names, rows: [0, 1])?.keptCount == 0)
            // A pin must be heard, and with it everything behind it; it waits.
            let pinned = Box<Int>()
            client.pin(names, lifetime: Duration(seconds: 5)) { pinned.set($0?.blocks ?? -1) }
            client.finished(EngineRequestEnd(ticket: ticket))
            #expect(Sample.wait { door.view.counters.engines.busy >= 3 })
            #expect(pinned.value == nil)
            core.change { $0.isFull = false }
            #expect(pinned.wait() == 2)
            #expect(lookUp(client, names).1?.hitBlocks == 2)
        }
    }

    @Test func cancelledPlacesComeBackOnlyWithTheAcknowledgement() throws {
        try withDoor { _, core, path in
            let client = try client(path)
            defer { client.close() }
            #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
            let memory = try EngineMemory(blocks: 4)
            _ = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
            let names = Sample.names(2, 2)
            let (ticket, _) = lookUp(client, names)
            core.change { ($0.holds, $0.holdsEnds) = (true, true) }
            let loaded = Box<EngineLoaded>(), done = Box<Bool>()
            client.load(first: 0, places: Sample.rows([0, 1]), request: ticket, limit: Duration(milliseconds: 20)) {
                loaded.set($0)
            }
            client.cancel(ticket) { done.set(true) }
            #expect(Sample.wait { core.heard.filter { $0 == "cancel" }.count == 2 })
            #expect(loaded.value == nil && done.value == nil && client.openJobs == 1)
            core.change { $0.heldJobs = [] }
            core.release()
            #expect(done.wait() == true)
            #expect(loaded.wait()?.end == 0)
        }
    }

    @Test func anEngineThatIsGoneIsForgottenBeforeItComesBack() throws {
        try withDoor { door, core, path in
            let memory = try EngineMemory(blocks: 4)
            let first = try client(path)
            #expect(first.waitUntilOpen(within: Duration(seconds: 10)))
            _ = first.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
            core.change { ($0.holds, $0.holdsEnds) = (true, true) }
            let loaded = Box<EngineLoaded>()
            first.load(Sample.names(1, 1), first: 0, places: Sample.rows([0]), limit: Duration(seconds: 60)) {
                loaded.set($0)
            }
            #expect(Sample.wait { core.state.withLock { $0.heldJobs.count } == 1 })
            // Its own close does not pretend that the job's place is free.
            #expect(!first.close(within: Duration(milliseconds: 30)))
            #expect(loaded.value == nil)
            #expect(Sample.wait { core.heard.contains("gone") && door.view.leaving == 1 })
            let second = try client(path)
            defer { second.close() }
            #expect(!second.waitUntilOpen(within: Duration(milliseconds: 50)))
            core.release()
            #expect(second.waitUntilOpen(within: Duration(seconds: 10)))
        }
    }

    @Test func placesOfALostConnectionComeBackWithTheNextWelcome() throws {
        try withDoor { door, core, path in
            let memory = try EngineMemory(blocks: 4, sealed: false)
            let client = try client(path)
            defer { client.close() }
            #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
            _ = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
            core.change { ($0.holds, $0.holdsEnds) = (true, true) }
            let loaded = Box<EngineLoaded>()
            client.load(Sample.names(1, 1), first: 0, places: Sample.rows([0])) { loaded.set($0) }
            #expect(Sample.wait { core.state.withLock { $0.heldJobs.count } == 1 })
            // The decisions end the engine; its connection is refused and closed.
            core.post(.refused(1, reason: "tests end it"))
            #expect(Sample.wait { !client.isOpen && core.heard.contains("gone") })
            #expect(loaded.value == nil && client.openJobs == 1)
            core.change { $0.heldJobs = [] }
            core.release()
            #expect(loaded.wait()?.end == 0)
            #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
            #expect(client.refusal == nil && Sample.wait { door.view.counters.refused[.layout] == 1 })
            // Regions were added again by themselves.
            #expect(save(client, Sample.names(3, 1), rows: [2])?.keptCount == 1)
        }
    }

    @Test func aFileCutShortEndsItsEngineAndNotTheAgent() throws {
        try withDoor { door, core, path in
            let client = try client(path)
            defer { client.close() }
            #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
            let memory = try EngineMemory(blocks: 64, sealed: false)
            _ = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
            let names = Sample.names(4, 2)
            #expect(save(client, names, rows: [0, 1])?.keptCount == 2)
            #expect(Sample.wait { door.view.counters.regionsUnsealed == 1 })
            #expect(ftruncate(memory.descriptor, 8 * Sample.blockBytes) == 0)
            // The save reads pages that are gone: nothing of them is kept, and the engine is let go.
            let lost = Sample.names(5, 2)
            #expect(save(client, lost, rows: [40, 41])?.keptCount == 0)
            #expect(Sample.wait { door.view.counters.regionsLost == 1 })
            #expect(core.state.withLock { $0.blocks[lost[0]] } == nil)
            #expect(Sample.wait { (door.view.counters.refused[.region] ?? 0) >= 1 })
        }
    }

    @Test func aSealedFileCannotBeCutShort() throws {
        let descriptor = unsafe hf_memory_file("tests", 1 << 20, HF_MEMORY_UNSEALED)
        defer { hf_close(descriptor) }
        let region = try SharedRegion(descriptor: descriptor, byteCount: 1 << 20)
        #expect(region.isSealed)
        #expect(ftruncate(descriptor, 4096) != 0)
        #expect(throws: SystemError.self) { try SharedRegion(descriptor: descriptor, byteCount: (1 << 20) + 1) }
    }

    @Test func anEngineThatDoesNotReadIsLetGo() throws {
        try withDoor({ $0.limits.outputBytesMax = 1 << 20 }) { door, core, path in
            let descriptor = unsafe hf_unix_connect(path)
            #expect(descriptor >= 0)
            let stream = EngineStream(descriptor)
            stream.queue(.hello(try Sample.greeting()), at: .zero)
            stream.queue(.subscribe, at: .zero)
            #expect(stream.flush())
            #expect(Sample.wait { core.heard.contains("subscribe") })
            // Changes alone are dropped for it, and counted.
            for _ in 0..<200 { core.post(.changed(1, added: Sample.names(1, 1_000), removed: [])) }
            #expect(Sample.wait { door.view.counters.changesDropped > 0 })
            #expect(Sample.wait { door.view.engines.count == 1 })
            // Answers cannot be dropped.
            for number in 0..<40_000 {
                core.post(.pinned(1, EngineTicket(number + 1), PinAnswer(pin: 0, outcome: .granted, blocks: 1)))
            }
            #expect(Sample.wait { core.heard.contains("gone") })
            #expect(Sample.wait { door.view.counters.refused[.slow] == 1 })
        }
    }

    @Test func aDeadAgentsSocketIsTakenOverAndALivingOnesIsNot() throws {
        try Sample.inFolder { folder in
            let path = folder + "/s"
            // A socket file that nobody listens on.
            let dead = unsafe hf_unix_listen(path, 1, 0o600)
            #expect(dead >= 0)
            hf_close(dead)
            let core = ScriptedCore(), other = ScriptedCore()
            let door = try core.open(EngineDoorConfiguration(path: path))
            #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o600)
            do {
                _ = try other.open(EngineDoorConfiguration(path: path))
                Issue.record("a living agent's socket was taken")
            } catch { #expect("\(error)".contains("another process listens on")) }
            door.stop()
            #expect(!FileManager.default.fileExists(atPath: path))
            try "mine".write(toFile: path, atomically: false, encoding: .utf8)
            #expect(throws: OperatorError.self) { try other.open(EngineDoorConfiguration(path: path)) }
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "mine")
            #expect(throws: OperatorError.self) {
                try other.open(EngineDoorConfiguration(path: "/" + String(repeating: "x", count: 200)))
            }
        }
    }

    @Test func aDrainingAgentTellsItsEnginesAndLetsJobsEnd() throws {
        try withDoor { door, core, path in
            let client = try client(path)
            defer { client.close() }
            #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
            let memory = try EngineMemory(blocks: 4)
            _ = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
            core.change { $0.holds = true }
            let saved = Box<EngineSaved>()
            client.save(Sample.names(1, 1), first: 0, places: Sample.rows([0])) { saved.set($0) }
            #expect(Sample.wait { core.state.withLock { $0.heldJobs.count } == 1 })
            door.drain(reason: "tests")
            #expect(lookUp(client, Sample.names(9, 1)).1 == EngineFound())
            core.release()
            #expect(saved.wait()?.keptCount == 1)
            #expect(Sample.wait { !client.isOpen })
        }
    }

    /// Whoever cleans the folder up takes the socket's file with it.
    @Test func aSocketThatWasRemovedIsMadeAnew() throws {
        try withDoor { door, _, path in
            let before = try client(path)
            defer { before.close() }
            #expect(before.waitUntilOpen(within: Duration(seconds: 10)))
            try FileManager.default.removeItem(atPath: path)
            #expect(Sample.wait { FileManager.default.fileExists(atPath: path) })
            let after = try client(path)
            defer { after.close() }
            #expect(after.waitUntilOpen(within: Duration(seconds: 10)))
            // Who was connected noticed nothing.
            #expect(lookUp(before, Sample.names(1, 2)).1?.hitBlocks == 0)
            #expect(Sample.wait { door.view.engines.count == 2 && door.view.counters.connections == 2 })
            door.stop()
            #expect(!FileManager.default.fileExists(atPath: path))
        }
    }

    /// A path that another process listens on is not taken from it; the door says so, and comes back when the other is gone.
    @Test func aSocketThatBecameAnothersIsLeftToIt() throws {
        try Sample.inFolder { folder in
            let told = Mutex<[String?]>([])
            let path = folder + "/s"
            let door = try EngineDoor(
                EngineDoorConfiguration(path: path), socketChanged: { trouble in told.withLock { $0.append(trouble) } }
            ) { _ in .accepted }
            defer { door.stop() }
            let other = unsafe hf_unix_listen(folder + "/other", 8, 0o600)
            #expect(other >= 0)
            #expect(unsafe rename(folder + "/other", path) == 0)
            #expect(Sample.wait { !told.withLock { $0.isEmpty } })
            #expect(told.withLock { $0.first??.contains("another process listens") } == true)
            // Its file stays behind, as after a kill.
            hf_close(other)
            #expect(Sample.wait { told.withLock { $0.count } == 2 })
            #expect(told.withLock { $0.last } == .some(nil))
            let probe = unsafe hf_unix_connect(path)
            #expect(probe >= 0)
            hf_close(probe)
        }
    }

    @Test func descriptorsDoNotLeak() throws {
        try withDoor { door, core, path in
            func round() throws {
                let client = try client(path)
                #expect(client.waitUntilOpen(within: Duration(seconds: 10)))
                let memory = try EngineMemory(blocks: 2, name: leakName)
                let number = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
                let dropped = Box<Bool>()
                client.dropRegion(number) { dropped.set(true) }
                #expect(dropped.wait() == true)
                client.close()
            }
            try round()
            #expect(Sample.wait { door.view.engines.isEmpty })
            let before = mappingCount()
            for _ in 0..<20 { try round() }
            #expect(Sample.wait { door.view.engines.isEmpty && door.view.leaving == 0 })
            #expect(mappingCount() <= before, "regions stay mapped")
        }
    }

    /// A name of its own: other suites map and unmap engines' memory at the same time.
    private let leakName = "engine-leak"

    /// Mappings of this test's memory files in this process.
    private func mappingCount() -> Int {
        let maps = (try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8)) ?? ""
        return maps.split(separator: "\n").count { $0.contains("memfd:" + leakName) }
    }
}
