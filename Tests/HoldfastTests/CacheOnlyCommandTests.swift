// `replay --cache-only` as other programs and people read it.

import Foundation
import Testing

@Suite struct CacheOnlyCommandTests {
    /// Two prompts of a conversation, another one between them, and the first conversation again.
    static let trace = """
        {"timestamp": 0, "input_length": 1024, "output_length": 10, "hash_ids": [7, 8]}
        {"timestamp": 1000, "input_length": 600, "output_length": 10, "hash_ids": [20, 21]}
        {"timestamp": 2000, "input_length": 1300, "output_length": 10, "hash_ids": [7, 8, 9]}
        {"timestamp": 3000, "input_length": 600, "output_length": 10, "hash_ids": [20, 21]}

        """

    func run(_ arguments: String...) throws -> CommandRun {
        let scratch = try Scratch()
        let path = try scratch.path("by-hand.jsonl", Self.trace)
        return try CommandRun.holdfast(["replay", path, "--cache-only"] + arguments)
    }

    @Test func jsonIsOneObjectWithTraceAndResults() throws {
        let run = try run("--policy", "lru,infinite", "--capacity", "2,100%", "--json")
        #expect(run.exitCode == 0)
        #expect(run.errors.isEmpty)
        let trace = try #require(try run.object["trace"] as? [String: Any])
        #expect(trace["name"] as? String == "by-hand")
        #expect(trace["requests"] as? Int == 4)
        #expect(trace["inputTokens"] as? Int == 3524)
        #expect(trace["blockReferences"] as? Int == 9)
        #expect(trace["uniqueBlocks"] as? Int == 5)
        let results = try #require(try run.object["results"] as? [[String: Any]])
        #expect(results.map { $0["policy"] as? String } == ["lru", "lru", "infinite"])
        #expect(results.map { $0["capacityBlocks"] as? Int } == [2, 5, nil])
        #expect(results[2]["capacityBlocks"] is NSNull)
        #expect(results.map { $0["hitBlocks"] as? Int } == [0, 4, 4])
        // 2 blocks of 512 tokens, and a prompt whose second block holds 88.
        #expect(results.map { $0["hitTokens"] as? Int } == [0, 1624, 1624])
        #expect(abs(try #require(results[1]["hitRatio"] as? Double) - 1624.0 / 3524.0) < 1e-12)
    }

    @Test func allNamesEveryPolicyOnce() throws {
        let results = try #require(
            try run("--policy", "all", "--capacity", "50%", "--json").object["results"] as? [[String: Any]])
        #expect(
            results.map { $0["policy"] as? String } == [
                "lru", "fifo", "lfu", "s3fifo", "sieve", "arc", "holdfast", "clairvoyant", "infinite",
            ])
    }

    @Test func blanksBesideACommaAreNobodys() throws {
        let results = try #require(
            try run("--policy", "lru, fifo", "--capacity", "1, 50%", "--json").object["results"] as? [[String: Any]])
        #expect(results.map { $0["policy"] as? String } == ["lru", "lru", "fifo", "fifo"])
        let tiers = try #require(
            try run("--dram", "2", "--flash", "4", "--inclusion", "keep, exclusive,keep", "--json").object["results"]
                as? [[String: Any]])
        #expect(tiers.map { $0["inclusion"] as? String } == ["keep", "exclusive"])
        let all = try #require(
            try run("--dram", "2", "--flash", "4", "--inclusion", "all", "--json").object["results"] as? [[String: Any]]
        )
        #expect(Set(all.compactMap { $0["inclusion"] as? String }) == ["exclusive", "inclusive", "keep"])
        #expect(all.count == 3)
    }

    @Test func twoTiersTellWhatFlashCost() throws {
        let run = try run("--dram", "2", "--flash", "4", "--inclusion", "exclusive", "--json")
        let results = try #require(try run.object["results"] as? [[String: Any]])
        #expect(results.count == 1)
        #expect(results[0]["policy"] as? String == "lru")
        #expect(results[0]["inclusion"] as? String == "exclusive")
        #expect(results[0]["dramBlocks"] as? Int == 2)
        #expect(results[0]["flashBlocks"] as? Int == 4)
        #expect(results[0]["dramHitBlocks"] as? Int == 0)
        #expect(results[0]["flashHitBlocks"] as? Int == 4)
        #expect(results[0]["flashWrites"] as? Int == 7)
        #expect(results[0]["flashReads"] as? Int == 4)
    }

    @Test func tablesFitAHundredColumns() throws {
        let table = try run("--capacity", "1,2,3,4,5,50%,10,20,30,1234567890")
        #expect(table.exitCode == 0)
        #expect(table.output.contains("clairvoyant"))
        let tiers = try run("--dram", "1,2", "--flash", "3,123456789", "--inclusion", "exclusive,inclusive,keep")
        #expect(tiers.exitCode == 0)
        for line in (table.output + tiers.output).split(separator: "\n") { #expect(line.count <= 100, "\(line)") }
    }

    @Test func whereSeveralFindAsMuchNoneIsPraised() throws {
        let all = try run("--policy", "lru,fifo,infinite", "--capacity", "1")
        #expect(all.output.contains("With 1 block all find the same, 0.00 %."), "\(all.output)")
        let most = try run("--policy", "lru,fifo,lfu", "--capacity", "5")
        #expect(most.output.contains("With 5 blocks all find the same, 46.08 %"), "\(most.output)")
        #expect(most.output.contains("by-hand: 4 requests, 3,524 prompt tokens\n"))
        #expect(most.output.contains("\n9 references to 5 blocks of 512 tokens"))
    }

    @Test func aNameThatIsMoreThanANameIsMasked() throws {
        let scratch = try Scratch()
        let name = "evil\n\u{1B}[31mred" + String(repeating: "x", count: 120)
        let path = try scratch.path(name + ".jsonl", Self.trace)
        for verb in [
            ["replay", path, "--cache-only", "--capacity", "5"], ["trace", "info", path],
            ["plan", path, "--set", "sweep.replicas=[1]"],
        ] {
            let run = try CommandRun.holdfast(verb)
            #expect(run.exitCode == 0, "\(run.errors)")
            #expect(run.output.contains("evil??[31mredxx"), "\(run.output)")
            #expect(!run.output.contains("\u{1B}"))
            for line in run.output.split(separator: "\n") { #expect(line.count <= 100, "\(line)") }
        }
        let check = try CommandRun.holdfast(["trace", "check", path])
        #expect(check.exitCode == 0)
        #expect(check.output.contains("4 requests are good"))
        #expect(!check.output.contains("\u{1B}"))
    }

    @Test func theTraceMayComeFromStandardInput() throws {
        let run = try CommandRun.holdfast(
            ["replay", "-", "--cache-only", "--policy", "infinite", "--json"], input: Data(Self.trace.utf8))
        #expect(run.exitCode == 0)
        #expect((try run.object["results"] as? [[String: Any]])?.first?["hitBlocks"] as? Int == 4)
    }

    @Test(arguments: [
        (["--capacity", "0"], "--capacity: a cache of 0 holds nothing"),
        (["--capacity", "-1"], "--capacity: a cache of -1 holds nothing"),
        (["--dram", "-5%", "--flash", "5"], "--dram: a cache of -5% holds nothing"),
        (["--capacity", "10,000"], "'000' in '10,000' is not a size of its own"),
        (["--capacity", "five"], "'five' is not a capacity"),
        (["--capacity", "1%,"], "'' is not a capacity"),
        (["--policy", "lru,mru"], "'mru' is not a policy"),
        (["--policy", ""], "'' is not a policy"),
        (["--dram", "5"], "two tiers need both --dram and --flash"),
        (["--inclusion", "keep"], "two tiers need both --dram and --flash"),
        (["--dram", "5", "--flash", "5", "--policy", "arc"], "two tiers run lru in both, not 'arc'"),
        (["--dram", "5", "--flash", "5", "--capacity", "5"], "--capacity is the size of a single tier"),
        (["--dram", "5", "--flash", "5", "--inclusion", "some"], "'some' is not a way to share blocks"),
    ])
    func impossibleQuestionsAreRefused(_ arguments: [String], _ message: String) throws {
        // The file is not there: what is asked is checked before anything is read.
        let run = try CommandRun.holdfast(["replay", "no-such-file", "--cache-only"] + arguments)
        #expect(run.exitCode == 1)
        #expect(run.output.isEmpty)
        #expect(run.errors.contains(message), "\(run.errors)")
    }

    @Test(arguments: [
        (["--policy", "lru"], "--policy is for --cache-only"),
        (["--capacity", "5%"], "--capacity is for --cache-only"),
        (["--dram", "1%", "--flash", "5%"], "--dram is for --cache-only"),
        (["--inclusion", "keep"], "--inclusion is for --cache-only"),
        (["--cache-only", "-o", "x.hfr"], "--output has no part in --cache-only"),
        (["--cache-only", "--scenario", "x.yaml"], "--scenario has no part in --cache-only"),
        (["--cache-only", "--set", "seed=1"], "--set has no part in --cache-only"),
        (["--cache-only", "--live"], "--live has no part in --cache-only"),
        (["--cache-only", "--threads", "2"], "--threads has no part in --cache-only"),
        (["--agents", "2"], "--agents is for --lockstep or --live"),
        (["--route", "sticky"], "--route is for --lockstep or --live"),
        (["--block-bytes", "4KiB"], "--block-bytes is for --lockstep or --live"),
        (["--lockstep", "--only", "1"], "--only is for a modelled replay"),
        (["--live", "--no-sweep"], "--no-sweep is for a modelled replay"),
    ])
    func anOptionOfAnotherModeIsRefused(_ arguments: [String], _ message: String) throws {
        let run = try CommandRun.holdfast(["replay", "no-such-file"] + arguments)
        #expect(run.exitCode != 0)
        #expect(run.output.isEmpty)
        #expect(run.errors.contains(message), "\(run.errors)")
    }

    @Test func aConvertedAzureTraceIsRefusedAsWell() throws {
        let scratch = try Scratch()
        let path = try scratch.path(
            "plain.jsonl",
            """
            {"schema":"holdfast-trace-1","blockTokens":64}
            {"arrival":0,"input":4808,"output":10,"blocks":[]}
            {"arrival":1000000,"input":4808,"output":10,"blocks":[]}

            """)
        for verb in [["replay", path, "--cache-only"], ["plan", path]] {
            let run = try CommandRun.holdfast(verb)
            #expect(run.exitCode == 1)
            #expect(run.errors.contains("does not say which prompts share a prefix"), "\(run.errors)")
        }
        let run = try CommandRun.holdfast(["replay", path, "--no-sweep", "--only", "1", "--json"])
        #expect((try run.object["notice"] as? String)?.contains("every prompt is taken as unique") == true)
    }

    @Test func promptsTooShortForABlockHitNothing() throws {
        let scratch = try Scratch()
        let path = try scratch.path(
            "short.jsonl", "{\"timestamp\":0,\"input_length\":20,\"output_length\":5,\"hash_extents\":[]}\n")
        for more in [["--policy", "all"], ["--dram", "1", "--flash", "2"]] {
            let run = try CommandRun.holdfast(["replay", path, "--cache-only", "--json"] + more)
            #expect(run.exitCode == 0, "\(run.errors)")
            let results = try #require(try run.object["results"] as? [[String: Any]])
            #expect(!results.isEmpty)
            #expect(results.allSatisfy { $0["hitTokens"] as? Int == 0 && $0["hitRatio"] as? Double == 0 })
            #expect(try CommandRun.holdfast(["replay", path, "--cache-only"] + more).exitCode == 0)
        }
        let info = try CommandRun.holdfast(["trace", "info", path, "--json"]).object
        for key in ["blockReferences", "uniqueBlocks", "infiniteHitTokens"] {
            #expect(info[key] as? Int == 0, "\(key)")
        }
        #expect(info["infiniteHitRatio"] as? Double == 0)
        let table = try CommandRun.holdfast(["trace", "info", path])
        #expect(table.output.contains("no prompt fills a block of 64 tokens"))
        let plan = try CommandRun.holdfast(["plan", path, "--set", "sweep.replicas=[1]"])
        #expect(plan.exitCode == 0, "\(plan.errors)")
        #expect(plan.output.contains("nothing to cache"))
        #expect(plan.output.contains("50 % of its hits                       -"), "\(plan.output)")
    }

    @Test func anAzureTraceIsRefused() throws {
        let scratch = try Scratch()
        let path = try scratch.path(
            "azure.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n")
        let run = try CommandRun.holdfast(["replay", path, "--cache-only"])
        #expect(run.exitCode == 1)
        #expect(run.errors.contains("does not say which prompts share a prefix"))
        // The keys are there all the same: not known is not none.
        let info = try CommandRun.holdfast(["trace", "info", path, "--json"]).object
        for key in ["blockReferences", "uniqueBlocks", "infiniteHitTokens", "infiniteHitRatio"] {
            #expect(info[key] is NSNull, "\(key)")
        }
    }
}
