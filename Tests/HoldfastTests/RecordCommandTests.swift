// Records as their users compare them: the same trace, scenario and seed are the same bytes, wherever the files lie.

import Foundation
import Testing

@Suite struct RecordCommandTests {
    /// A small trace in two folders, plain and compressed, with the same scenario under the same name.
    private let scratch: Scratch
    private let plain: String
    private let packed: String

    init() throws {
        scratch = try Scratch()
        (plain, packed) = (scratch.folder.path + "/plain", scratch.folder.path + "/packed")
        for (folder, file) in [(plain, "t.jsonl"), (packed, "t.jsonl.gz")] {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            let made = try CommandRun.holdfast([
                "trace", "synth", "chat", "--sessions", "12", "--duration", "60", "--seed", "3",
                "-o", "\(folder)/\(file)",
            ])
            #expect(made.exitCode == 0, "\(made.errors)")
            try Data("replicas: 1\n".utf8).write(to: URL(filePath: folder + "/s.yaml"))
        }
    }

    private func record(_ arguments: [String]) throws -> String {
        let run = try CommandRun.holdfast(["replay"] + arguments + ["--only", "1", "--no-sweep", "--json"])
        #expect(run.exitCode == 0, "\(run.errors)")
        return run.output
    }

    private func command(of record: String) throws -> String {
        let object = try JSONSerialization.jsonObject(with: Data(record.utf8)) as? [String: Any]
        return try #require((object?["configuration"] as? [String: Any])?["command"] as? String)
    }

    @Test func neitherCompressionNorFolderIsInARecord() throws {
        let one = try record([plain + "/t.jsonl", "--scenario", plain + "/s.yaml"])
        #expect(try record([packed + "/t.jsonl.gz", "--scenario", packed + "/s.yaml"]) == one)
        #expect(try record([packed + "/t.jsonl", "--scenario", plain + "/s.yaml", "--threads", "1"]) == one)
        #expect(!one.contains(scratch.folder.lastPathComponent))
        #expect(
            try command(of: one) == "holdfast replay t.jsonl --scenario s.yaml --only 1 --no-sweep -o t.hfr")
    }

    @Test func aRecordGoesThroughAPipe() throws {
        let printed = try record([plain + "/t.jsonl"])
        let piped = try CommandRun.holdfast([
            "replay", plain + "/t.jsonl", "--only", "1", "--no-sweep", "-o", "-",
        ])
        #expect(piped.exitCode == 0, "\(piped.errors)")
        #expect(piped.output == printed)
        #expect(!FileManager.default.fileExists(atPath: "-"))
        let report = try CommandRun.holdfast(["report", "-", "--json"], input: Data(printed.utf8))
        #expect(report.exitCode == 0, "\(report.errors)")
        #expect(try report.object["schema"] as? String == "holdfast-report-1")
        let cut = try CommandRun.holdfast(["report", "-"], input: Data(printed.utf8.prefix(100)))
        #expect(cut.exitCode == 1)
        #expect(cut.errors.contains("standard input: not a record"))
    }

    @Test func aLoadAskedForTwiceMakesARecordThatIsRead() throws {
        let file = scratch.folder.path + "/twice.hfr"
        let made = try CommandRun.holdfast([
            "replay", plain + "/t.jsonl", "--set", "sweep.loads=[1,1]", "--set", "sweep.replicas=[1]", "-o", file,
        ])
        #expect(made.exitCode == 0, "\(made.errors)")
        let shown = try CommandRun.holdfast(["report", file])
        #expect(shown.exitCode == 0, "\(shown.errors)")
    }

    @Test func aCommandIsOneForAShell() throws {
        let name = "it's \"mine\" & $HOME"
        let record = try record([plain + "/t.jsonl", "--set", "name=" + name, "--set", "replicas=1"])
        #expect(
            try command(of: record)
                == "holdfast replay t.jsonl --set 'name=it'\\''s \"mine\" & $HOME' --set replicas=1 --only 1 --no-sweep "
                + "-o t.hfr")
    }

    @Test func aCatalogueIsPartOfWhatTheScenarioIsCalled() throws {
        let catalogue = scratch.folder.path + "/c.yaml"
        func digest(_ watts: Int) throws -> String {
            try Data("gpus:\n  - name: Mine\n    basedOn: H100\n    watts: \(watts)\n".utf8)
                .write(to: URL(filePath: catalogue))
            let record = try record([plain + "/t.jsonl", "--catalogue", catalogue])
            let object = try JSONSerialization.jsonObject(with: Data(record.utf8)) as? [String: Any]
            return try #require((object?["configuration"] as? [String: Any])?["scenarioSHA256"] as? String)
        }
        #expect(try digest(500) != digest(600))
        #expect(try digest(500) == digest(500))
    }
}
