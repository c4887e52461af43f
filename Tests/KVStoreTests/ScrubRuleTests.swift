// The scrubber: quick over empty space, slow over blocks, at rest between passes, and at full speed when it is asked.

import Foundation
import KVModel
import KVStore
import KVTransport
import Testing

@Suite struct ScrubRuleTests {
    private func name(_ number: Int) -> ObjectName { StoreModelTests.name(number) }

    private func ask(_ world: inout ScriptedStore, _ verb: String) throws -> OrderResult {
        let asked = world.request(.administer(verb: verb, arguments: []))
        guard case .text(let json)? = world.responses[asked]?.body else { return OrderResult() }
        return try JSONDecoder().decode(OrderResult.self, from: Data(json))
    }

    @Test func emptySpaceTakesNoTime() throws {
        var world = try ScriptedStore(seed: 1, driveExtents: 100_000)
        let before = world.now
        let wanted = try ask(&world, "verify").scrubPassesWanted
        #expect(try ask(&world, "progress").scrubPasses == wanted)
        #expect(world.now == before)
    }

    @Test func aDrainingStoreIsVerifiedToo() throws {
        var world = try ScriptedStore(seed: 2)
        let handle = world.open("n")
        for number in 0..<10 { _ = world.put(handle, name(number), token: UInt64(number)) }
        world.runUntilQuiet()
        _ = try ask(&world, "drain")
        let wanted = try ask(&world, "verify").scrubPassesWanted
        world.runUntilQuiet()
        #expect(try ask(&world, "progress").scrubPasses == wanted)
        #expect(world.store.status().totals["scrubbed_total"] == 10)
        #expect(world.complaint == nil)
    }

    @Test func aHurriedPassReadsFromAllDrivesAtOnce() throws {
        var world = try ScriptedStore(seed: 3, driveCount: 3) { $0.scrubBytesPerSecond = 0 }
        let handle = world.open("n")
        for number in 0..<12 { _ = world.put(handle, name(number), token: UInt64(number)) }
        world.runUntilQuiet()
        let wanted = try ask(&world, "verify").scrubPassesWanted
        #expect(world.store.status().drives.map(\.commandsUnanswered) == [1, 1, 1])
        world.runUntilQuiet()
        #expect(try ask(&world, "progress").scrubPasses == wanted)
        #expect(world.store.status().totals["scrubbed_total"] == 12)
        #expect(world.store.nextDeadline == .distantFuture, "without a rate it rests again")
    }

    @Test func aSmallBlockIsChargedItsReadAndThePassIsNotRepeatedAtOnce() throws {
        var world = try ScriptedStore(seed: 4)
        let handle = world.open("n")
        for number in 0..<32 {
            _ = world.put(handle, name(number), token: UInt64(number), bytes: 8)
            world.runUntilQuiet()
        }
        while world.store.status().totals["scrubbed_total"] == 0 { world.step() }
        let first = world.now
        while world.store.status().scrubPasses == 0 { world.step() }
        #expect(world.store.status().totals["scrubbed_total"] == 32)
        #expect((world.now - first).seconds >= 7.7, "31 times 256 KiB at a mebibyte a second")
        #expect((world.store.nextDeadline - world.now).seconds > 23 * 3600)
        #expect(world.complaint == nil)
    }
}
