// `trace` as its users meet it: JSON that other programs read, exit codes, files that appear whole or not at all.

import Foundation
import Testing

@Suite struct TraceCommandTests {
    private let traces = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Traces").path

    @Test func infoHasTheKeysThatProgramsRead() throws {
        let run = try CommandRun.holdfast(["trace", "info", traces + "/chat.jsonl.gz", "--json"])
        #expect(run.exitCode == 0)
        let object = try run.object
        #expect(object["requests"] as? Int == 609)
        #expect(object["inputTokens"] as? Int == 5_080_713)
        #expect(object["outputTokens"] as? Int != nil)
        #expect(object["blockReferences"] as? Int == 79_091)
        #expect(object["uniqueBlocks"] as? Int == 46_559)
        #expect(object["infiniteHitTokens"] as? Int == 2_082_048)
        #expect((object["infiniteHitRatio"] as? Double).map { abs($0 - 0.40979) < 1e-5 } == true)
        #expect((object["spanSeconds"] as? Double).map { $0 > 1700 && $0 < 1800 } == true)
    }

    @Test func infoOfStandardInputFitsATerminal() throws {
        let file = try Data(contentsOf: URL(filePath: traces + "/agent.jsonl.gz"))
        let run = try CommandRun.holdfast(["trace", "info", "-"], input: file)
        #expect(run.exitCode == 0)
        #expect(run.errors.isEmpty)
        #expect(!run.output.contains("\u{1B}"))
        #expect(run.output.contains("an unlimited cache hits"))
        let longest = run.output.split(separator: "\n").filter { !$0.hasPrefix("made by") }.map(\.count).max()
        #expect(longest! <= 100)
    }

    @Test func infoKnowsNoRateOfRequestsThatComeAtOnce() throws {
        let scratch = try Scratch()
        func info(_ times: Int...) throws -> String {
            let lines = times.map {
                "{\"timestamp\": \($0), \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1]}\n"
            }
            let run = try CommandRun.holdfast(["trace", "info", try scratch.path("few.jsonl", lines.joined())])
            #expect(run.exitCode == 0)
            return run.output
        }
        #expect(try info(7, 7).contains("2  all at the same time"))
        #expect(!(try info(7)).contains("/s"))
        #expect(try info(7, 10).contains("2  over 3.0 ms, 666.67/s"))
        #expect(try info(7, 1007).contains("2  over 1.0 s, 2.00/s"))
    }

    @Test func checkEndsWithOneWhenSomethingIsWrong() throws {
        let scratch = try Scratch()
        let good = "{\"timestamp\": 5, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1]}\n"
        let path = try scratch.path("bad.jsonl", good + good.replacing("5,", with: "4,") + "{\n" + good)
        let run = try CommandRun.holdfast(["trace", "check", path])
        #expect(run.exitCode == 1)
        #expect(run.output.contains("time order: 1  (line 2)"))
        #expect(run.output.contains("syntax: 1  (line 3)"))
        #expect(try CommandRun.holdfast(["trace", "check", traces + "/rag.jsonl.gz"]).exitCode == 0)
        let told = try CommandRun.holdfast(["trace", "check", path, "--json"])
        #expect(told.exitCode == 1)
        let object = try told.object
        #expect(object["requests"] as? Int == 2 && object["format"] as? String == "mooncake")
        let findings = object["findings"] as? [[String: Any]] ?? []
        #expect(findings.map { $0["kind"] as? String } == ["time order", "syntax"])
        #expect(findings.map { $0["lines"] as? [Int] } == [[2], [3]])
        let info = try CommandRun.holdfast(["trace", "info", path])
        #expect(info.exitCode == 1)
        #expect(info.errors == "Error: \(path):2: timestamp runs backwards; sort the file by timestamp\n")
        let skipping = try CommandRun.holdfast(["trace", "info", path, "--skip-bad"])
        #expect(skipping.exitCode == 0)
        #expect(skipping.errors == "\(path): left out 2 lines that cannot be read\n")
    }

    @Test func synthRepeatsItselfAndConvertRefusesLosses() throws {
        let scratch = try Scratch()
        let make = [
            "trace", "synth", "chat=2", "rag", "--sessions", "40", "--duration", "60", "--seed", "3", "-o", "-",
        ]
        let first = try CommandRun.holdfast(make)
        #expect(first.exitCode == 0)
        #expect(first.errors.isEmpty)
        #expect(
            first.output.hasPrefix(
                "{\"schema\":\"holdfast-trace-1\",\"blockTokens\":64,\"generator\":\"holdfast trace synth"))
        #expect(try CommandRun.holdfast(make).output == first.output)
        let path = try scratch.path("made.jsonl", first.output)
        let target = path + ".mooncake.gz"
        let refused = try CommandRun.holdfast(["trace", "convert", path, "--to", "mooncake", "-o", target])
        #expect(refused.exitCode == 1)
        #expect(refused.errors.contains("--lossy"))
        #expect(!FileManager.default.fileExists(atPath: target))
        let done = try CommandRun.holdfast(["trace", "convert", path, "--to", "mooncake", "--lossy", "-o", target])
        #expect(done.exitCode == 0)
        #expect(try CommandRun.holdfast(["trace", "check", target]).exitCode == 0)
        let back = try CommandRun.holdfast(["trace", "convert", path, "-o", "-"])
        #expect(back.output == first.output)
    }

    @Test(arguments: [
        (["synth"], "no file to write"), (["synth", "-o", "x"], "no kind of traffic"),
        (["synth", "poems", "-o", "x"], "no kind of traffic “poems”"),
        (["synth", "chat", "--set", "chat.turns=0", "-o", "x"], "expected 1 to 1000"),
        (["synth", "chat", "--set", "rag.skew=1", "-o", "x"], "of no kind that is made"),
        (["convert", "x", "-o", "y", "--to", "azure"], "can be read, not written"),
        (["synth", "rag", "--set", "rag.documents=1.5", "-o", "x"], "rag.documents is 1.5, expected a whole number"),
        (["synth", "chat", "--rate", "1", "--sessions", "5", "-o", "x"], "--rate and --sessions both say"),
        (["info", "/"], "is a directory"), (["info", "/holdfast-nothing-here"], "cannot be opened"),
        (["info", "x", "--format", "parquet"], "no trace format “parquet”"),
    ])
    func whatCannotBeDoneIsSaid(arguments: [String], message: String) throws {
        let run = try CommandRun.holdfast(["trace"] + arguments)
        #expect(run.exitCode == 1)
        #expect(run.errors.contains(message))
    }

    @Test func everyParameterNamesItsSource() throws {
        let run = try CommandRun.holdfast(["trace", "synth", "--parameters"])
        #expect(run.exitCode == 0)
        let rows = run.output.split(separator: "\n").dropFirst()
        #expect(rows.count > 40)
        #expect(rows.allSatisfy { $0.hasSuffix(")") })
    }
}
