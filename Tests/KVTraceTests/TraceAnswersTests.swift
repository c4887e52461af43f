// Known answers of the committed traces, of real ones where there are any, and of random ones by brute force.

import KVModel
import KVTrace
import Testing

@Suite struct TraceAnswersTests {
    struct Answer: Sendable, CustomTestStringConvertible {
        var file: String
        var requests: Int
        var inputTokens: Int
        var uniqueBlocks: Int
        var references: Int
        var hitTokens: Int
        var testDescription: String { file }
    }

    /// The table of `Traces/README.md`.
    static let committed = [
        Answer(
            file: "default", requests: 8681, inputTokens: 151_292_065, uniqueBlocks: 484_646, references: 2_359_685,
            hitTokens: 120_002_496),
        Answer(
            file: "chat", requests: 609, inputTokens: 5_080_713, uniqueBlocks: 46_559, references: 79_091,
            hitTokens: 2_082_048),
        Answer(
            file: "agent", requests: 327, inputTokens: 21_223_314, uniqueBlocks: 9369, references: 331_460,
            hitTokens: 20_613_824),
        Answer(
            file: "rag", requests: 596, inputTokens: 5_050_244, uniqueBlocks: 38_421, references: 78_616,
            hitTokens: 2_572_480),
        Answer(
            file: "templates", requests: 3130, inputTokens: 6_455_341, uniqueBlocks: 18_628, references: 99_342,
            hitTokens: 5_165_696),
        Answer(
            file: "mooncake", requests: 1208, inputTokens: 23_107_355, uniqueBlocks: 9461, references: 45_730,
            hitTokens: 18_569_728),
    ]

    @Test(arguments: committed)
    func committedTracesHaveTheirAnswers(_ answer: Answer) throws {
        let path = "\(committedTraces)/\(answer.file).jsonl.gz"
        let info = TraceStatistics(try Trace.read(from: path))
        #expect(info.requests == answer.requests)
        #expect(info.inputTokens == answer.inputTokens)
        #expect(info.uniqueBlocks == answer.uniqueBlocks)
        #expect(info.blockReferences == answer.references)
        #expect(info.infiniteHitTokens == answer.hitTokens)
        #expect(try TraceCheck.run(path: path).findings.isEmpty)
    }

    @Test(.enabled(if: realTraces != nil, "HOLDFAST_TRACES is not set: real traces are not tested"))
    func realTracesHaveTheirAnswers() throws {
        let folder = try #require(realTraces)
        let conversation = TraceStatistics(try Trace.read(from: folder + "/mooncake_conversation.jsonl.gz"))
        #expect(conversation.requests == 12_031)
        #expect(conversation.inputTokens == 144_793_823)
        #expect(conversation.outputTokens == 4_122_048)
        #expect(conversation.blockReferences == 288_500)
        #expect(conversation.uniqueBlocks == 182_790)
        #expect((conversation.infiniteHitRatio! * 10_000).rounded() == 3736)
        #expect(conversation.sessions == nil)
        let agent = TraceStatistics(try Trace.read(from: folder + "/claudecode_a.jsonl.gz"))
        #expect(agent.requests == 18_237)
        #expect(agent.inputTokens == 2_135_847_642)
        #expect(agent.outputTokens == 7_951_806)
        #expect(agent.blockReferences == 33_363_699)
        #expect(agent.uniqueBlocks == 1_279_475)
        #expect((agent.infiniteHitRatio! * 10_000).rounded() == 9614)
        #expect(agent.sessions == 362)
        let small = TraceStatistics(try Trace.read(from: folder + "/agent_miniswe_taubench.jsonl.gz"))
        #expect(small.blockReferences == 38_562)
        #expect(small.uniqueBlocks == 2508)
        let azure = TraceStatistics(try Trace.read(from: folder + "/azure2023_conv.csv.gz"))
        #expect(azure.requests == 19_366)
        #expect(azure.infiniteHitRatio == nil)
        #expect(azure.prefixNote?.contains("arrivals and lengths only") == true)
    }

    @Test func countsAgreeWithBruteForce() throws {
        for seed in 100..<140 as Range<UInt64> {
            let trace = try read(text(randomTrace(seed: seed, requests: 150), .holdfast))
            let info = TraceStatistics(trace)
            var users: [BlockNumber: [Int32]] = [:]
            var (hits, unique, sharedHits) = (0, 0, 0)
            for request in trace.requests {
                var runs = true
                for (place, block) in trace.path(of: request).enumerated() {
                    let tokens = min(16, Int(request.inputTokens) - place * 16)
                    if users[block] == nil {
                        runs = false
                        unique += tokens
                    } else if runs {
                        hits += tokens
                        if Set(users[block]!) != [request.session] { sharedHits += tokens }
                    }
                    users[block, default: []].append(request.session)
                }
            }
            #expect(info.infiniteHitTokens == hits)
            #expect(info.uniqueTokens == unique)
            #expect(info.uniqueBlocks == users.count)
            #expect(info.usedOnceShare == Double(users.values.count { $0.count == 1 }) / Double(users.count))
            #expect(info.sharedBlockShare == Double(users.values.count { Set($0).count > 1 }) / Double(users.count))
            #expect(abs(info.sharedHitShare! - Double(sharedHits) / Double(max(hits, 1))) < 1e-12)
            #expect(info.depths!.reduce(0) { $0 + $1.blockReferences } == trace.blocks.count)
            #expect(info.depths!.reduce(0) { $0 + $1.uniqueBlocks } == users.count)
        }
    }

    @Test func percentilesAreNearestRanks() {
        let values = TraceStatistics.Distribution((1...100).map(Double.init).reversed())
        #expect(
            [values.p10, values.p50, values.p90, values.p99, values.max, values.mean] == [10, 50, 90, 99, 100, 50.5])
        let none = TraceStatistics.Distribution([])
        #expect([none.p50, none.max, none.mean] == [0, 0, 0])
    }

    @Test func copiesShareNothing() throws {
        let trace = try Trace.read(from: "\(committedTraces)/chat.jsonl.gz")
        let threefold = try trace.repeated(times: 3)
        let (one, three) = (TraceStatistics(trace), TraceStatistics(threefold))
        #expect(three.requests == 3 * one.requests)
        #expect(three.uniqueBlocks == 3 * one.uniqueBlocks!)
        #expect(three.infiniteHitTokens == 3 * one.infiniteHitTokens!)
        #expect(three.sessions == 3 * one.sessions!)
        #expect(three.sha256 != one.sha256)
        #expect(zip(threefold.requests, threefold.requests.dropFirst()).allSatisfy { $0.arrival <= $1.arrival })
        #expect(try trace.repeated(times: 1).requests == trace.requests)
        #expect(throws: OperatorError.self) { try trace.repeated(times: 0) }
        #expect(throws: OperatorError.self) { try trace.repeated(times: 100_000) }
    }

    @Test func blocksOfAnotherSizeKeepWhatIsKnown() throws {
        let fine = try Trace.read(from: "\(committedTraces)/rag.jsonl.gz")
        let coarse = try fine.reblocked(to: 512)
        #expect(coarse.requests.allSatisfy { Int($0.blockCount) == Int($0.inputTokens) / 512 })
        let (fineHits, coarseHits) = (
            TraceStatistics(fine).infiniteHitTokens!, TraceStatistics(coarse).infiniteHitTokens!
        )
        #expect(coarseHits <= fineHits)
        #expect(coarseHits > fineHits * 9 / 10)
        // Splitting large blocks changes no hit of whole blocks.
        let split = try coarse.reblocked(to: 64)
        #expect(TraceStatistics(split).infiniteHitTokens == coarseHits)
        #expect(try split.reblocked(to: 512).blocks == coarse.blocks)
        #expect(throws: OperatorError.self) { try fine.reblocked(to: 100) }
        let partial = try fine.reblocked(to: 512, partialLast: true)
        #expect(partial.requests.allSatisfy { Int($0.blockCount) == (Int($0.inputTokens) + 511) / 512 })
        #expect(TraceStatistics(partial).infiniteHitTokens == coarseHits)
    }

    @Test func conversionsThatLoseAreRefused() throws {
        let trace = try Trace.read(from: "\(committedTraces)/agent.jsonl.gz")
        let folder = try TemporaryFolder()
        let error = #expect(throws: OperatorError.self) { try trace.write(to: folder.path + "/x.jsonl", as: .mooncake) }
        #expect(error?.what.contains("conversations") == true)
        #expect(error?.remedy.contains("--lossy") == true)
        #expect(trace.losses(as: .holdfast).isEmpty)
        #expect(trace.losses(as: .extents) == ["how the trace was made"])
        // A lossless conversion is one: the bytes come back.
        let mooncake = try Trace.read(from: "\(committedTraces)/mooncake.jsonl.gz")
        #expect(mooncake.losses(as: .mooncake).isEmpty)
        let there = try read(text(mooncake, .holdfast))
        #expect(try text(there, .mooncake) == text(mooncake, .mooncake))
    }
}
