// `calibrate` writes what `replay` reads, and leaves nothing else behind.

import Foundation
import Testing

@Suite struct CalibrateCommandTests {
    @Test func replayTakesTheProfileThatCalibrateWrites() throws {
        let scratch = try Scratch()
        let profile = scratch.folder.appendingPathComponent("profile.json").path
        let run = try CommandRun.holdfast(
            ["calibrate", "--quick", "--data", scratch.folder.path, "-o", profile, "--json"], seconds: 120)
        #expect(run.exitCode == 0, "\(run.errors)")
        let flash = try #require(try run.object["nvme"] as? [String: Double])
        #expect(flash.keys.sorted() == ["latencySeconds", "readBytesPerSecond", "writeBytesPerSecond"])
        #expect((try run.object["points"] as? [Any])?.count == 4)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.folder.path) == ["profile.json"])
        let trace = try scratch.path("by-hand.jsonl", CacheOnlyCommandTests.trace)
        let replay = try CommandRun.holdfast(["replay", trace, "--profile", profile, "--json"], seconds: 120)
        #expect(replay.exitCode == 0, "\(replay.errors)")
    }

    @Test func aSmallStoreIsMeasuredWithAsManyBlocksAsFit() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch, ["--size", "256MiB", "--payload-max", "2MiB", "--dram", "16MiB"])
        let run = try CommandRun.holdfast(
            ["calibrate", "--quick", "--store", store.address, "--keys", store.keys, "-o", scratch.folder.path + "/p"],
            seconds: 120)
        #expect(run.exitCode == 0, "\(run.errors)")
        let status = try store.ctl("status", "--json").object
        #expect(status["objects"] as? Int == 0)
        let totals = try #require(status["totals"] as? [String: Int])
        #expect(totals["evicted_total"] == 0, "nothing had to leave")
        #expect((totals["gets_total"] ?? 0) > 100)
        #expect(totals["get_memory_hits_total"] == 0, "what is measured of a store is measured of its drives")
        #expect(!run.errors.contains("may have come from its memory"))
    }

    @Test func aStoreWithoutRoomForAsMuchAsItsMemoryHoldsIsMeasuredAsItIs() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch, ["--size", "256MiB", "--payload-max", "2MiB", "--dram", "128MiB"])
        let run = try CommandRun.holdfast(
            ["calibrate", "--quick", "--store", store.address, "--keys", store.keys, "-o", scratch.folder.path + "/p"],
            seconds: 120)
        #expect(run.exitCode == 0, "\(run.errors)")
        #expect(run.errors.contains("may have come from its memory"), "\(run.errors)")
        let status = try store.ctl("status", "--json").object
        #expect(status["objects"] as? Int == 0)
        #expect((status["totals"] as? [String: Int])?["evicted_total"] == 0, "nothing had to leave")
    }

    @Test func aStoreWithTooLittleRoomIsLeftAsItIs() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        let run = try CommandRun.holdfast([
            "calibrate", "--quick", "--store", store.address, "--keys", store.keys, "-o", "-",
        ])
        #expect(run.exitCode == 1)
        #expect(run.errors.contains("calibrating takes "), "\(run.errors)")
        #expect(run.errors.contains(" extents of 64 KiB, "))
        #expect(try store.ctl("status", "--json").object["objects"] as? Int == 0)
        #expect(try store.ctl("namespace", "ls").output.isEmpty)
    }

    @Test func aFolderThatIsNotThereIsNamed() throws {
        let run = try CommandRun.holdfast(["calibrate", "--quick", "--data", "/no/such/folder", "-o", "-"])
        #expect(run.exitCode == 1)
        #expect(run.errors.contains("/no/such/folder"))
    }
}
