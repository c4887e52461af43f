// What programs read from the command: JSON shapes and the known answers of the real traces.

import Foundation
import Testing

/// The folder of the real traces, when there is one.
let realTraces = ProcessInfo.processInfo.environment["HOLDFAST_TRACES"]

@Suite struct KnownAnswerTests {
    @Test func cacheOnlyJSONHasItsShape() throws {
        let scratch = try Scratch()
        let path = try scratch.path("good.jsonl", BadInputTests.good)
        let run = try CommandRun.holdfast([
            "replay", path, "--cache-only", "--policy", "all", "--capacity", "2,50%", "--json",
        ])
        let object = try run.object
        let trace = try #require(object["trace"] as? [String: Any])
        #expect(trace["requests"] as? Int == 3)
        #expect(trace["inputTokens"] as? Int == 3124)
        #expect(trace["blockReferences"] as? Int == 7)
        #expect(trace["uniqueBlocks"] as? Int == 4)
        let results = try #require(object["results"] as? [[String: Any]])
        let names = ["lru", "fifo", "lfu", "s3fifo", "sieve", "arc", "holdfast", "clairvoyant", "infinite"]
        #expect(Set(results.compactMap { $0["policy"] as? String }) == Set(names))
        for result in results {
            let isInfinite = result["policy"] as? String == "infinite"
            #expect((result["capacityBlocks"] is NSNull) == isInfinite)
            if !isInfinite { #expect(result["capacityBlocks"] as? Int == 2) }
            #expect(result["hitBlocks"] is Int)
            #expect(result["hitTokens"] is Int)
            #expect(result["hitRatio"] is Double)
        }
        // An endless cache hits blocks 0 and 1 of the second request and 0 of the third.
        let infinite = try #require(results.first { $0["policy"] as? String == "infinite" })
        #expect(infinite["hitBlocks"] as? Int == 3)
        #expect(infinite["hitTokens"] as? Int == 1536)
    }

    @Test func standardInputIsATrace() throws {
        let run = try CommandRun.holdfast(["trace", "info", "-", "--json"], input: Data(BadInputTests.good.utf8))
        #expect(try run.object["requests"] as? Int == 3)
    }

    @Test(.enabled(if: realTraces != nil, "HOLDFAST_TRACES is not set"))
    func conversationTraceHasItsKnownAnswers() throws {
        let path = try #require(realTraces) + "/mooncake_conversation.jsonl.gz"
        let info = try CommandRun.holdfast(["trace", "info", path, "--json"]).object
        #expect(info["requests"] as? Int == 12_031)
        #expect(info["inputTokens"] as? Int == 144_793_823)
        #expect(info["outputTokens"] as? Int == 4_122_048)
        #expect(info["blockReferences"] as? Int == 288_500)
        #expect(info["uniqueBlocks"] as? Int == 182_790)
        let results = try #require(
            try CommandRun.holdfast([
                "replay", path, "--cache-only", "--policy", "lru,clairvoyant", "--capacity", "10%", "--json",
            ]).object["results"] as? [[String: Any]])
        #expect(results.map { $0["hitBlocks"] as? Int } == [80_466, 105_710])
        let tiers = try #require(
            try CommandRun.holdfast([
                "replay", path, "--cache-only", "--dram", "1827", "--flash", "9139", "--inclusion", "keep", "--json",
            ]).object["results"] as? [[String: Any]])
        #expect(tiers.first?["inclusion"] as? String == "keep")
        #expect(tiers.first?["dramHitBlocks"] as? Int == 15_136)
        #expect(tiers.first?["flashHitBlocks"] as? Int == 47_598)
        #expect(tiers.first?["flashWrites"] as? Int == 224_549)
        #expect(tiers.first?["flashReads"] as? Int == 47_405)
    }

    @Test func planSaysWhatToBuyAndTheSameTwice() throws {
        let scratch = try Scratch()
        let path = try scratch.path("good.jsonl", BadInputTests.good)
        let first = try CommandRun.holdfast(["plan", path, "--json", "--threads", "1"])
        #expect(first.exitCode == 0, "\(first.errors)")
        #expect(try CommandRun.holdfast(["plan", path, "--json", "--threads", "2"]).output == first.output)
        let plan = try first.object
        #expect(plan["schema"] as? String == "holdfast-plan-1")
        let choices = try #require(plan["choices"] as? [[String: Any]])
        #expect(choices.first?["name"] as? String == "HBM only")
        // Three requests that all fit in GPU memory: no tier can make them cheaper.
        let verdict = try #require(plan["verdict"] as? [String: Any])
        #expect(verdict["rule"] as? String == "plan.noreuse")
        #expect(try CommandRun.holdfast(["plan", path]).output.hasPrefix("Buy nothing"))
    }
}
