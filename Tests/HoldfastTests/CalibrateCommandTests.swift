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

    @Test func aFolderThatIsNotThereIsNamed() throws {
        let run = try CommandRun.holdfast(["calibrate", "--quick", "--data", "/no/such/folder", "-o", "-"])
        #expect(run.exitCode == 1)
        #expect(run.errors.contains("/no/such/folder"))
    }
}
