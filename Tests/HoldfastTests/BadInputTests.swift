// Bad input gets one clear sentence and an exit code that is not 0; nothing crashes, nothing is half written.

import Foundation
import Testing

@Suite struct BadInputTests {
    /// A Mooncake trace of three requests; the bad ones are made from it.
    static let good = """
        {"timestamp": 0, "input_length": 1024, "output_length": 10, "hash_ids": [0, 1]}
        {"timestamp": 10, "input_length": 1500, "output_length": 10, "hash_ids": [0, 1, 2]}
        {"timestamp": 20, "input_length": 600, "output_length": 10, "hash_ids": [0, 3]}

        """

    /// What is wrong, the file's content, and words the error must hold.
    static let badTraces: [(name: String, content: String, words: [String])] = [
        ("empty.jsonl", "", ["empty"]),
        ("negative.jsonl", good.replacing("1500", with: "-1500"), [":2", "input_length"]),
        ("unsorted.jsonl", good.replacing("\"timestamp\": 20", with: "\"timestamp\": 5"), [":3"]),
        ("truncated.jsonl", String(good.dropLast(30)), [":3"]),
        ("count.jsonl", good.replacing("[0, 3]", with: "[0, 3, 4, 5]"), [":3"]),
        ("type.jsonl", good.replacing("1500", with: "\"many\""), [":2", "input_length"]),
        ("missing.jsonl", good.replacing("\"input_length\": 1500, ", with: ""), [":2", "input_length"]),
        ("unknown.csv", "colour,shape\nred,round\n", ["unknown.csv"]),
        ("parquet.parquet", "PAR1\u{15}\u{04}", ["parquet.parquet"]),
    ]

    @Test(arguments: badTraces.indices)
    func badTraceIsRefusedInOneSentence(index: Int) throws {
        let bad = Self.badTraces[index]
        let scratch = try Scratch()
        let path = try scratch.path(bad.name, bad.content)
        for verb in [["trace", "info", path], ["replay", path, "--cache-only", "--capacity", "1"]] {
            try expectRefusal(verb, words: bad.words)
        }
    }

    @Test func skipBadCountsInsteadOfRefusing() throws {
        let scratch = try Scratch()
        let path = try scratch.path("bad.jsonl", Self.good.replacing("1500", with: "-1500"))
        let run = try CommandRun.holdfast(["trace", "info", path, "--skip-bad", "--json"])
        #expect(run.exitCode == 0)
        let info = try run.object
        #expect(info["requests"] as? Int == 2)
        #expect(info["skippedLines"] as? Int == 1)
    }

    @Test func truncatedGzipIsRefused() throws {
        let scratch = try Scratch()
        let path = try scratch.path("trace.jsonl", String(repeating: Self.good, count: 1))
        let gzip = Process()
        gzip.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        gzip.arguments = ["gzip", "-k", path]
        try gzip.run()
        gzip.waitUntilExit()
        let whole = try Data(contentsOf: URL(fileURLWithPath: path + ".gz"))
        let cut = try scratch.file("cut.jsonl.gz", whole.dropLast(12))
        try expectRefusal(["trace", "info", cut.path], words: ["cut.jsonl.gz"])
        let info = try CommandRun.holdfast(["trace", "info", path + ".gz", "--json"]).object
        #expect(info["requests"] as? Int == 3)
    }

    @Test func folderAndMissingFileAreRefused() throws {
        let scratch = try Scratch()
        try expectRefusal(["trace", "info", scratch.folder.path], words: [scratch.folder.lastPathComponent])
        try expectRefusal(["trace", "info", "no-such-file.jsonl"], words: ["no-such-file.jsonl"])
    }

    @Test(arguments: ["0", "-1", "0%", "nan", "1.5", "many", "", "-3%", "99999999999999999999"])
    func impossibleCapacityIsRefused(capacity: String) throws {
        let scratch = try Scratch()
        let path = try scratch.path("good.jsonl", Self.good)
        try expectRefusal(["replay", path, "--cache-only", "--policy", "lru", "--capacity=\(capacity)"], words: [])
    }

    /// A number with a minus is a value of its option, not another option.
    @Test(arguments: [
        ("--duration", "-5", "0.001"), ("--sessions", "-5", "more than 0"), ("--rate", "-1", "more than 0"),
        ("--requests", "-1", "1 or more"), ("--lead", "-1", "0 to"), ("--burstiness", "-1", "0.1 to 20"),
        ("--block-tokens", "-1", "1 to 65536"),
    ])
    func aNegativeNumberIsRefusedWithWhatIsAllowed(option: String, value: String, allowed: String) throws {
        try expectRefusal(
            ["trace", "synth", "chat", "-o", "-", option, value], words: ["\(option) \(value)", allowed])
    }

    @Test(arguments: ["--seeds", "--seconds", "--threads"])
    func simulateNamesTheNegativeNumber(option: String) throws {
        try expectRefusal(["simulate", option, "-2"], words: ["\(option) -2"])
    }

    @Test func unknownPolicyIsRefusedWithTheKnownOnes() throws {
        let scratch = try Scratch()
        let path = try scratch.path("good.jsonl", Self.good)
        try expectRefusal(
            ["replay", path, "--cache-only", "--policy", "mru", "--capacity", "1"], words: ["mru", "s3fifo"])
    }

    @Test func tracesWithoutPrefixesHaveNoCacheOnlyReplay() throws {
        let scratch = try Scratch()
        let path = try scratch.path(
            "azure.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
        try expectRefusal(["replay", path, "--cache-only", "--policy", "lru", "--capacity", "1"], words: ["prefix"])
        #expect(try CommandRun.holdfast(["trace", "info", path, "--json"]).exitCode == 0)
    }

    @Test(arguments: [
        ("colour: blue\n", "colour"),
        ("replicas: -1\n", "replicas"),
        ("model:\n  name: No-Such-Model\n", "No-Such-Model"),
        ("tiers: [\n", "YAML"),
    ])
    func badScenarioIsRefused(content: String, word: String) throws {
        let scratch = try Scratch()
        let trace = try scratch.path("good.jsonl", Self.good)
        let scenario = try scratch.path("scenario.yaml", "name: mine\n" + content)
        try expectRefusal(["replay", trace, "--scenario", scenario], words: [word])
    }

    @Test func badOverrideIsRefused() throws {
        let scratch = try Scratch()
        let trace = try scratch.path("good.jsonl", Self.good)
        try expectRefusal(["replay", trace, "--set", "no.such.key=1"], words: ["no.such.key"])
        try expectRefusal(["replay", trace, "--set", "replicas"], words: ["replicas"])
    }

    @Test func badRecordIsRefused() throws {
        let scratch = try Scratch()
        for content in ["", "{}", "{\"schema\": \"holdfast-record-99\"}", "not json"] {
            let path = try scratch.path("bad.hfr", content)
            try expectRefusal(["report", path], words: ["bad.hfr"])
        }
        try expectRefusal(["report", "no-such.hfr"], words: ["no-such.hfr"])
    }

    @Test func badPointsAreRefused() throws {
        let scratch = try Scratch()
        for content in ["", "{}", "[]", "{\"points\": 5}", "{\"points\": [{\"kind\": \"closed_loop\"}"] {
            let path = try scratch.path("points.json", content)
            try expectRefusal(["model", "check", path], words: ["points.json"])
        }
    }

    @Test func outputThatCannotBeWrittenIsRefused() throws {
        let scratch = try Scratch()
        let trace = try scratch.path("good.jsonl", Self.good)
        try expectRefusal(["trace", "convert", trace, "-o", "/no/such/folder/out.jsonl"], words: ["/no/such/folder"])
        for verb in [["replay", trace], ["calibrate", "--quick"]] {
            try expectRefusal(verb + ["-o", "/no/such/folder/out"], words: ["/no/such/folder", "not there"])
            try expectRefusal(verb + ["-o", scratch.folder.path], words: ["is a folder"])
        }
        // Of a trace with fewer blocks than the curve has sizes.
        let record = scratch.folder.path + "/a.hfr"
        let replay = try CommandRun.holdfast(["replay", trace, "--only", "A", "-o", record])
        #expect(replay.exitCode == 0 && replay.errors == "\(record): `holdfast report \(record)` shows it\n")
        #expect(try CommandRun.holdfast(["report", record]).exitCode == 0)
        try expectRefusal(["report", record, "--html", scratch.folder.path], words: ["is a folder"])
        try expectRefusal(["report", record, "--html", "/dev/full"], words: ["/dev/full", "No space left on device"])
        let left = try FileManager.default.contentsOfDirectory(atPath: scratch.folder.path)
        #expect(left.sorted() == ["a.hfr", "good.jsonl"])
    }

    /// Each file that an option names, where it is none.
    @Test(arguments: [
        ["replay", "TRACE", "--scenario", "X"], ["replay", "TRACE", "--profile", "X"],
        ["replay", "TRACE", "--catalogue", "X"], ["model", "check", "X"], ["report", "X"], ["store", "--config", "X"],
        ["agent", "--config", "X"], ["ctl", "status", "--keys", "X"], ["ctl", "put", "demo", "X", "--keys", "X"],
    ])
    func aNamedFileThatIsNoneIsRefused(arguments: [String]) throws {
        let scratch = try Scratch()
        let trace = try scratch.path("good.jsonl", Self.good)
        func named(_ path: String) -> [String] { arguments.map { ["TRACE": trace, "X": path][$0] ?? $0 } }
        try expectRefusal(named("/no/such/file"), words: ["/no/such/file: there is no such file"])
        try expectRefusal(named(scratch.folder.path), words: ["\(scratch.folder.path): is a folder, not a file"])
    }

    /// An option that the verb would pass over: whoever gave it would believe that it was heard.
    @Test(arguments: [
        (["report", "--agent", "127.0.0.1:1", "--all"], "--all"),
        (["report", "--agent", "127.0.0.1:1", "--against", "C"], "--against"),
        (["doctor", "--agent-config", "a.yaml", "--data", "store.flash"], "--data"),
        (["doctor", "--engine-region", "1GiB"], "--agent-config"),
        (["calibrate", "-o", "p.json", "--keys", "k"], "--store"),
        (["agent", "--tensor-parallel", "2"], "--model"),
    ])
    func anOptionThatWouldChangeNothingIsRefused(arguments: [String], word: String) throws {
        try expectRefusal(arguments, words: [word])
    }

    @Test func whatIsOutOfRangeIsRefused() throws {
        let scratch = try Scratch()
        let trace = try scratch.path("good.jsonl", Self.good)
        try expectRefusal(["replay", trace, "--threads=-1"], words: ["--threads -1"])
        try expectRefusal(["replay", trace, "--width=-5"], words: ["--width -5"])
        try expectRefusal(["replay", trace, "--set", "seed=-1"], words: ["0 to 4503599627370496\n"])
        try expectRefusal(["trace", "synth", "chat=", "-o", "-"], words: ["chat="])
        try expectRefusal(["ctl", "explain", "zz"], words: ["conversation"])
        try expectRefusal(["ctl", "top", "--count=-1"], words: ["--count"])
        try expectRefusal(["calibrate", "--quick", "--data", trace, "-o", "p.json"], words: ["is not a folder"])
        try expectRefusal(["agent", "--set", "flavour=sweet"], words: ["--print-config lists them"])
    }

    /// Exit code above 0 (no signal), nothing on standard output, one short error that holds all `words`.
    private func expectRefusal(
        _ arguments: [String], words: [String], location: SourceLocation = #_sourceLocation
    ) throws {
        let run = try CommandRun.holdfast(arguments)
        #expect(run.exitCode > 0, "\(arguments) ended with \(run.exitCode)", sourceLocation: location)
        #expect(run.output.isEmpty, "\(arguments) printed \(run.output)", sourceLocation: location)
        #expect(run.errors.hasPrefix("Error: "), "\(arguments): \(run.errors)", sourceLocation: location)
        #expect(run.errors.count < 1000, sourceLocation: location)
        for word in words {
            #expect(run.errors.contains(word), "\(arguments): \(run.errors)", sourceLocation: location)
        }
    }
}
