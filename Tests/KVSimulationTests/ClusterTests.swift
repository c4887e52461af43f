// The modelled cluster from the outside: books that add up whatever is drawn, the same bytes every time, and answers
// that theory knows.

import KVModel
import KVReport
import KVServing
import KVSimulation
import KVTrace
import Testing

/// A trace of conversations that grow turn by turn, some of them behind a shared prompt.
func conversations(
    count: Int, turns: Int, blockTokens: Int = 64, gap: Double = 20, spacing: Double = 2, seed: UInt64
) -> Trace {
    var random = RandomSource(seed: seed)
    var drafts: [(arrival: Double, session: Int32, turn: Int32, path: [BlockNumber], output: Int32)] = []
    var next: BlockNumber = 40
    for session in 0..<count {
        var path: [BlockNumber] = session % 3 == 0 ? Array(0..<BlockNumber(8 + 8 * (session % 4))) : []
        var time = spacing * Double(session) + random.exponential(mean: spacing)
        for turn in 0..<1 + random.below(turns) {
            for _ in 0..<1 + random.below(40) {
                path.append(next)
                next += 1
            }
            drafts.append((time, Int32(session), Int32(turn), path, Int32(1 + random.below(120))))
            time += random.exponential(mean: gap)
        }
    }
    drafts.sort { ($0.arrival, $0.session) < ($1.arrival, $1.session) }
    var blocks: [BlockNumber] = []
    var requests: [TraceRequest] = []
    for draft in drafts {
        requests.append(
            TraceRequest(
                arrival: Instant(seconds: draft.arrival),
                inputTokens: Int32(draft.path.count * blockTokens - random.below(blockTokens)),
                outputTokens: draft.output, firstReference: blocks.count, blockCount: Int32(draft.path.count),
                session: draft.session, turn: draft.turn))
        blocks += draft.path
    }
    return Trace(
        name: "conversations", format: .holdfast, sha256: "", blockTokens: blockTokens, requests: requests,
        blocks: blocks, uniqueBlockCount: Int(next))
}

/// What is counted beside the modelled systems.
@Suite struct CountedCurveTests {
    private let trace = conversations(count: 60, turns: 5, seed: 4)

    @Test(arguments: [0.4, 1, 3]) func aCurveIsOfTheLoadThatIsReplayed(load: Double) async throws {
        let record = try await replay(
            trace, [("arrivals.load", "\(load)"), ("sweep.loads", "[1]"), ("sweep.replicas", "[1]")], keys: ["Z"],
            sweeps: true)
        let curve = try #require(record.missRatioCurve)
        let ceiling = try #require(record.systems.first { $0.key == "Z" })
        // The cluster computes the last token of each prompt; the count does not.
        let served = Double(ceiling.ledger.served) / Double(ceiling.ledger.total)
        let last = Double(record.trace.requests) / Double(record.trace.inputTokens)
        #expect(served <= 1 - curve.infinite + 1e-12)
        #expect(1 - curve.infinite - served <= last, "\(1 - curve.infinite) and \(served)")
        #expect(record.trace.uniqueBlocks <= record.trace.blockReferences)
        let block = record.configuration.kvBytesPerToken * Double(record.trace.blockTokens)
        if load != 1 { #expect(curve.bytes.last == Double(record.trace.uniqueBlocks) * block) }
    }

    @Test func aCurveReachesHalfOfWhatIsConfigured() async throws {
        let record = try await replay(
            conversations(count: 600, turns: 5, seed: 4),
            [
                ("replicas", "1"), ("tiers.dram.use", "false"), ("sweep.capacities", "2"), ("sweep.loads", "[1]"),
                ("sweep.replicas", "[1]"),
            ], sweeps: true)
        let curve = try #require(record.missRatioCurve)
        let mark = try #require(curve.marks.map(\.bytes).max())
        #expect(curve.bytes.count > 2)
        #expect(curve.bytes[0] <= mark / 2)
        #expect(curve.bytes[1] > mark / 2, "no more points than that takes")
    }
}

/// One prompt of whole blocks of 64 tokens, asked again and again, so many seconds apart.
private func onePrompt(blocks: Int, times: Int, apart seconds: Double) -> Trace {
    let requests = (0..<times).map {
        TraceRequest(
            arrival: Instant(seconds: Double($0) * seconds), inputTokens: Int32(blocks * 64), outputTokens: 4,
            firstReference: $0 * blocks, blockCount: Int32(blocks))
    }
    return Trace(
        name: "one prompt", format: .holdfast, sha256: "", blockTokens: 64, requests: requests,
        blocks: (0..<times * blocks).map { BlockNumber($0 % blocks) }, uniqueBlockCount: blocks)
}

/// Replays a trace with a few keys of the default scenario changed.
func replay(
    _ trace: Trace, _ overrides: [(key: String, value: String)], keys: Set<String> = ["1"], sweeps: Bool = false,
    threads: Int = 1
) async throws -> Record {
    let scenario = try Scenario.read(yaml: nil, file: "default.yaml", overrides: overrides)
    let modelled = try ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
    return await modelled.record(
        .init(keys: keys.union(["1"]), sweeps: sweeps, countsCurve: sweeps), version: "test", command: "test",
        overrides: [:],
        threads: threads
    ) { _, _ in }
}

private let all = Set(ModelledReplay.systemKeys)

/// Small tiers, so that everything overflows.
private let tight: [(key: String, value: String)] = [
    ("model.name", "Llama-3.1-8B"), ("tensorParallel", "1"), ("replicas", "3"), ("gpu.perNode", "2"),
    ("engine.memoryShare", "0.17"), ("tiers.dram.perNode", "2 GB"), ("tiers.nvme.perNode", "4 GB"),
    ("tiers.flash.perServer", "6 GB"),
]

@Suite struct ClusterBooksTests {
    @Test(arguments: 1...12) func everythingAddsUpOnRandomScenarios(seed: UInt64) async throws {
        var random = RandomSource(seed: seed)
        func any(_ words: String...) -> String { words[random.below(words.count)] }
        let ownership = any("host", "engine")
        let planner =
            ownership == "engine"
            ? any("always", "threshold", "boundary") : any("always", "threshold", "boundary", "split")
        let overrides =
            tight + [
                ("seed", "\(seed)"), ("replicas", "\(1 + random.below(5))"),
                ("router.policy", any("random", "roundRobin", "leastLoaded", "sticky", "cacheAware", "stateless")),
                ("router.staleness", any("0 s", "1 s")), ("engine.overlap", any("none", "layerwise", "prefetch")),
                ("engine.preemption", any("recompute", "swap")), ("engine.memoryShare", any("0.17", "0.2", "0.3")),
                ("planner.policy", planner), ("links.discipline", any("fair", "fifo")),
                ("tiers.policy", any("holdfast", "lru", "s3fifo", "arc")), ("tiers.nvme.use", any("true", "false")),
                ("tiers.inclusion", any("keep", "inclusive", "exclusive")), ("prefetch.use", any("true", "false")),
                ("arrivals.mode", any("open", "sessions")), ("ownership", ownership),
                ("tiers.flash.servers", any("1", "3")), ("engine.maxSequences", any("4", "256")),
            ]
        let trace = conversations(count: 60, turns: 8, seed: seed)
        let record = try await replay(trace, overrides, keys: all)
        for check in record.checks { #expect(check.passed, "\(check) with \(overrides)") }
        #expect(record.systems.count == all.count)
        let input = trace.requests.reduce(0) { $0 + Int($1.inputTokens) }
        for system in record.systems {
            #expect(system.ledger.total == input)
            #expect(system.completedRequests == trace.requests.count)
            for link in system.links { #expect(link.p99Second <= link.practical * 1.000_001, "\(link.name)") }
        }
    }

    /// Answers that outgrow HBM throw out who came last: it is computed again, or waits in host memory and goes on.
    @Test func whoIsThrownOutOfHBMComesBack() async throws {
        let requests = (0..<150).map {
            TraceRequest(
                arrival: Instant(seconds: Double($0) * 0.01), inputTokens: 256,
                outputTokens: Int32(800 + 7 * ($0 % 100)), firstReference: $0 * 4, blockCount: 4)
        }
        let trace = Trace(
            name: "long answers", format: .holdfast, sha256: "", blockTokens: 64, requests: requests,
            blocks: (0..<600).map { BlockNumber($0) }, uniqueBlockCount: 600)
        var recomputed: [Double] = []
        for preemption in ["recompute", "swap"] {
            let record = try await replay(
                trace, tight + [("replicas", "1"), ("engine.preemption", preemption)], keys: all)
            for check in record.checks { #expect(check.passed, "\(check)") }
            for system in record.systems {
                #expect(system.preemptions > 0 && system.completedRequests == 150)
                #expect(system.ledger.total == 150 * 256 && system.ledger.served == 0)
            }
            recomputed.append(record.systems[0].gpuSeconds.prefillRecomputed)
        }
        // Who was away goes on with the one token whose KV nobody had yet.
        #expect(recomputed[1] > 0 && recomputed[1] * 50 < recomputed[0], "\(recomputed)")
    }

    /// Without think times every load of single requests is the same one, and a record says nothing of other loads.
    @Test func withoutLiveSessionsNoLoadIsSwept() async throws {
        let changes = [("arrivals.thinkTime", "0 s"), ("sweep.replicas", "[1]"), ("sweep.capacities", "3")]
        let record = try await replay(conversations(count: 6, turns: 1, seed: 5), changes, sweeps: true)
        #expect(record.loadSweep == nil)
        #expect(try Record(decoding: record.encoded(), at: "r.hfr") == record)
    }

    @Test func sameTraceScenarioAndSeedGiveTheSameBytes() async throws {
        let trace = conversations(count: 40, turns: 6, seed: 3)
        let changes = tight + [("router.policy", "random"), ("sweep.loads", "[0.5, 1]"), ("sweep.replicas", "[1, 4]")]
        let first = try await replay(trace, changes, keys: all, sweeps: true, threads: 1).encoded()
        let second = try await replay(trace, changes, keys: all, sweeps: true, threads: 2).encoded()
        #expect(first == second)
        let other = try await replay(trace, changes + [("seed", "43")], keys: all).encoded()
        #expect(first != other)
    }

    @Test func aWholeRecordCanSayWhatWouldChangeItsConclusion() async throws {
        // Node memory overflows into the store, so prefetch has something to do.
        let trace = conversations(count: 60, turns: 6, seed: 11)
        let changes: [(key: String, value: String)] = [
            ("tiers.dram.perNode", "10 GB"), ("sweep.loads", "[0.25, 0.5, 1]"), ("sweep.replicas", "[1, 2, 4, 16]"),
        ]
        let record = try await replay(trace, changes, keys: all, sweeps: true, threads: 2)
        #expect(record.sloSearch.contains { $0.key == "A" })
        let comparison = try Comparison([record])
        let table = try #require(comparison.sections[3].tables.first { $0.title.contains("what would change") })
        let reuse = try #require(table.rows.first { $0.name.hasPrefix("half the reuse") })
        #expect(reuse.cells[0].hasPrefix("$"), "\(reuse.cells)")
        // The same replay without prefetch ran beside it.
        let prefetch = try #require(record.systems.first { $0.key == "1" }?.prefetch)
        let net = try #require(prefetch.ttftSecondsBySecondRun)
        let without = try await replay(trace, changes + [("prefetch.use", "false")]).systems[0].ttft
        let with = try #require(record.systems.first { $0.key == "1" }).ttft
        #expect(abs(net - (without.mean - with.mean) * Double(with.count)) < 1e-9 * max(1, abs(net)))
        // Checks compare what was counted apart.
        let names = Set(record.checks.map(\.name))
        #expect(names.contains("a larger LRU cache never misses more"))
        #expect(names.contains("1: drives carried the bytes ordered of them"))
        #expect(names.contains("1: NICs carried the bytes ordered of them"))
        #expect(record.checks.filter { !$0.passed }.isEmpty)
        let carried = try #require(record.checks.first { $0.name == "1: drives carried the bytes ordered of them" })
        #expect(carried.left > 0)
    }

    @Test func everySystemRunsWithoutPrefixCaching() async throws {
        let changes = tight + [("engine.prefixCaching", "false")]
        let record = try await replay(conversations(count: 30, turns: 5, seed: 5), changes, keys: all)
        #expect(record.systems.count > 4)
        #expect(record.checks.filter { !$0.passed }.isEmpty)
        #expect(try #require(record.systems.first { $0.key == "Z" }).ledger.served > 0)
    }

    @Test func aPromptsLastTokenIsNotComputedTwice() async throws {
        // One prompt of whole blocks, again and again: all that is computed of it later is the token before its answer.
        let run = try #require(try await replay(onePrompt(blocks: 16, times: 20, apart: 30), []).systems.first)
        #expect(run.ledger.served == 19 * (16 * 64 - 1) && run.ledger.alwaysComputed == 19)
        #expect(run.gpuSeconds.prefillRecomputed == 0 && run.gpuSeconds.prefillUseful > 0)
    }

    @Test func whatIsJustBeingComputedWasNotEvicted() async throws {
        // The second comes while the first is computed: nothing has left any memory.
        let trace = onePrompt(blocks: 200, times: 2, apart: 0.01)
        let record = try await replay(trace, [("replicas", "1")], keys: all)
        for system in record.systems {
            #expect(system.ledger.evicted == 0, "\(system.key)")
            // Without a cache there is no tier; ceilings have it at once.
            #expect(system.ledger.late > 0 || ["A", "Y", "Z"].contains(system.key), "\(system.key)")
        }
    }

    @Test func firstSeenIsTheSameForEverySystem() async throws {
        let record = try await replay(conversations(count: 50, turns: 6, seed: 5), tight, keys: all)
        let firstSeen = Set(record.systems.map { $0.ledger.firstSeen })
        #expect(firstSeen.count == 1, "\(record.systems.map { ($0.key, $0.ledger.firstSeen) })")
    }

    @Test func withoutACacheNothingIsServedAndEverythingKnownIsComputedAgain() async throws {
        let record = try await replay(conversations(count: 50, turns: 6, seed: 5), tight, keys: ["A", "Z"])
        let none = try #require(record.systems.first { $0.key == "A" })
        let infinite = try #require(record.systems.first { $0.key == "Z" })
        #expect(none.ledger.served == 0)
        #expect(none.ledger.noTier > 0)
        #expect(none.gpuSeconds.prefillRecomputed > infinite.gpuSeconds.prefillRecomputed)
        #expect(none.ledger.noTier >= infinite.ledger.served - infinite.ledger.alwaysComputed)
    }

    @Test func roomyTiersServeAllThatWasComputedBefore() async throws {
        // One replica and room for all: only what two requests compute at the same time is computed twice.
        let trace = conversations(count: 30, turns: 5, gap: 60, spacing: 30, seed: 7)
        let record = try await replay(trace, [("replicas", "1"), ("planner.policy", "always")], keys: ["Z"])
        let run = try #require(record.systems.first { $0.key == "1" })
        let infinite = try #require(record.systems.first { $0.key == "Z" })
        #expect(run.ledger.served == infinite.ledger.served)
    }
}

@Suite struct ClusterTimeTests {
    /// Equal prompts that share nothing, at random times.
    private func poisson(count: Int, rate: Double, tokens: Int, seed: UInt64) -> Trace {
        var random = RandomSource(seed: seed)
        var time = 0.0
        var requests: [TraceRequest] = []
        for _ in 0..<count {
            time += random.exponential(mean: 1 / rate)
            requests.append(
                TraceRequest(
                    arrival: Instant(seconds: time), inputTokens: Int32(tokens), outputTokens: 1, firstReference: 0,
                    blockCount: 0))
        }
        return Trace(
            name: "poisson", format: .azure, sha256: "", blockTokens: 64, requests: requests, blocks: [],
            uniqueBlockCount: 0)
    }

    @Test(arguments: [0.4, 0.8]) func oneReplicaOneAtATimeWaitsAsMD1(load: Double) async throws {
        let model = try ServingModel(
            try Catalogue.builtIn.model(named: "Llama-3.1-8B"), gpu: try Catalogue.builtIn.gpu(named: "H100"),
            tensorParallel: 1, weights: .fp8, kv: .fp8, engine: try Catalogue.builtIn.engine(named: "vllm"))
        let service = model.prefillSeconds(tokens: 1000, after: 0)
        let trace = poisson(count: 200_000, rate: load / service, tokens: 1000, seed: 21)
        let record = try await replay(
            trace,
            [
                ("model.name", "Llama-3.1-8B"), ("tensorParallel", "1"), ("replicas", "1"),
                ("engine.maxSequences", "1"), ("tiers.dram.use", "false"), ("tiers.flash.use", "false"),
            ])
        let run = try #require(record.systems.first)
        let wait = run.ttft.mean - service
        let expected = load * service / (2 * (1 - load))
        #expect((wait / expected - 1).magnitude < 0.03, "\(wait) against \(expected)")
        #expect(record.notice != nil, "a trace without prefix identity must say so")
    }

    @Test func sessionsWaitForTheirAnswers() async throws {
        // A cluster far too slow for the trace: in open loop turns pile up, in sessions each waits for the one before.
        let trace = conversations(count: 20, turns: 8, gap: 0.01, spacing: 0.01, seed: 9)
        let slow = tight + [("replicas", "1"), ("arrivals.thinkTime", "5 s")]
        let open = try await replay(trace, slow + [("arrivals.mode", "open")])
        let sessions = try await replay(trace, slow + [("arrivals.mode", "sessions")])
        #expect(sessions.systems[0].ttft.p90 < open.systems[0].ttft.p90)
        #expect(sessions.systems[0].gpuSeconds.total > open.systems[0].gpuSeconds.total)
        #expect(sessions.systems[0].completedRequests == trace.requests.count)
    }

    @Test func everyOverlapIsNoSlowerThanLoadingBeforeComputing() async throws {
        let trace = conversations(count: 40, turns: 6, seed: 13)
        let slowLinks =
            tight + [("links.hostToGPU", "2 GB/s"), ("planner.policy", "always"), ("prefetch.use", "false")]
        var service: [String: Double] = [:]
        for overlap in ["none", "layerwise", "prefetch"] {
            let record = try await replay(trace, slowLinks + [("engine.overlap", overlap)])
            service[overlap] = record.systems[0].serviceTTFT.mean
            #expect(record.systems[0].ledger.dram + record.systems[0].ledger.flash > 0)
        }
        let none = try #require(service["none"])
        #expect(try #require(service["layerwise"]) <= none * 1.02)
        #expect(try #require(service["prefetch"]) <= none * 1.02)
    }

    @Test func stallsShowWhereLoadingBlocksTheEngine() async throws {
        let trace = conversations(count: 30, turns: 6, spacing: 6, seed: 14)
        let record = try await replay(
            trace, tight + [("links.hostToGPU", "50 MB/s"), ("engine.overlap", "none"), ("planner.policy", "always")])
        #expect(record.systems[0].gpuSeconds.stalledOnLoad > 0)
    }

    @Test func thresholdDoesNotLoadWhatComputesFaster() async throws {
        let trace = conversations(count: 30, turns: 6, seed: 15)
        let slow = tight + [("links.hostToGPU", "40 MB/s"), ("engine.hostRegion", "0")]
        let always = try await replay(trace, slow + [("planner.policy", "always")]).systems[0]
        let threshold = try await replay(trace, slow + [("planner.policy", "threshold")]).systems[0]
        #expect(threshold.ledger.recomputeCheaper > 0)
        #expect(threshold.ledger.dram < always.ledger.dram, "\(threshold.ledger) \(always.ledger)")
        #expect(threshold.ttft.mean < always.ttft.mean)
    }

    @Test func splitComputesTheFrontWhileTheBackLoads() async throws {
        // Loading takes about as long as computing: both at once take less than either.
        let trace = conversations(count: 30, turns: 6, spacing: 6, seed: 15)
        let even = tight + [("links.hostToGPU", "6 GB/s"), ("prefetch.use", "false")]
        var means: [String: Double] = [:]
        for policy in ["always", "threshold", "boundary", "split"] {
            let record = try await replay(trace, even + [("planner.policy", policy)], keys: ["1"])
            for check in record.checks { #expect(check.passed, "\(check) with \(policy)") }
            means[policy] = record.systems[0].ttft.mean
            if policy == "split" { #expect(record.systems[0].ledger.recomputeCheaper > 0) }
        }
        let split = try #require(means["split"])
        for (policy, mean) in means where policy != "split" { #expect(split < mean, "\(means)") }
    }

    @Test func splitIsRefusedWhereTheEngineOwnsItsHostTier() async throws {
        await #expect(throws: OperatorError.self) {
            try await replay(
                conversations(count: 2, turns: 2, seed: 1), [("planner.policy", "split"), ("ownership", "engine")],
                keys: ["A"])
        }
    }

    @Test func moreCapacityNeverRecomputesMore() async throws {
        // One tier under LRU, one replica, no load decisions: the classic case of inclusion.
        let trace = conversations(count: 60, turns: 8, seed: 16)
        var before = Int.max
        for size in ["1 GB", "2 GB", "4 GB", "8 GB", "16 GB"] {
            let record = try await replay(
                trace,
                tight + [
                    ("replicas", "1"), ("tiers.policy", "lru"), ("tiers.dram.perNode", size),
                    ("tiers.flash.use", "false"), ("prefetch.use", "false"), ("planner.policy", "always"),
                ])
            let recomputed = record.systems[0].ledger.recomputed
            #expect(Double(recomputed) <= Double(before) * 1.02 + 64)
            before = recomputed
        }
    }

    @Test func sharedTierServesWhatAnotherNodeComputed() async throws {
        let trace = conversations(count: 60, turns: 6, seed: 17)
        let spread =
            tight + [
                ("replicas", "4"), ("gpu.perNode", "1"), ("router.policy", "roundRobin"),
                ("tiers.flash.perServer", "100 GB"), ("planner.policy", "always"),
            ]
        let shared = try await replay(trace, spread).systems[0]
        let alone = try await replay(trace, spread + [("tiers.flash.use", "false")]).systems[0]
        #expect(shared.ledger.flash > 0)
        #expect(alone.ledger.heldElsewhere > shared.ledger.heldElsewhere)
        #expect(shared.ledger.served > alone.ledger.served)
    }
}

@Suite struct ClusterRefusalTests {
    @Test func requestLongerThanKVMemoryIsNamed() async throws {
        let trace = conversations(count: 3, turns: 2, seed: 1)
        let error = await #expect(throws: OperatorError.self) {
            _ = try await replay(trace, [("tensorParallel", "1"), ("replicas", "1"), ("model.weights", "bf16")])
        }
        #expect(error?.description.isEmpty == false)
    }

    @Test func unknownModelNamesTheKnownOnes() async throws {
        let trace = conversations(count: 3, turns: 2, seed: 1)
        let error = await #expect(throws: OperatorError.self) {
            _ = try await replay(trace, [("model.name", "Llama-9")])
        }
        #expect(error?.description.contains("Llama-3.1-70B") == true)
    }
}
