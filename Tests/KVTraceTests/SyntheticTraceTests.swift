// Synthetic traffic: the same bytes everywhere, and the shape that its parameters promise.

import KVModel
import KVTrace
import Testing

@Suite struct SyntheticTraceTests {
    private func make(
        _ workload: SyntheticWorkload, seed: UInt64 = 5, rate: Double = 1, seconds: Double = 600, lead: Double = 0,
        blockTokens: Int = 64
    ) throws(OperatorError) -> Trace {
        try SyntheticTrace.make(
            SyntheticSpecification(
                seed: seed, durationSeconds: seconds, leadSeconds: lead, blockTokens: blockTokens,
                parts: [.init(workload, sessionsPerSecond: rate)]))
    }

    /// The commands that made the committed traces, from `Traces/README.md`, as specifications.
    static let committed: [(String, SyntheticSpecification)] = {
        func part(_ kind: String, _ perSecond: Double, _ changes: [String: Double] = [:]) -> SyntheticSpecification.Part
        {
            var workload = SyntheticWorkload(kind: kind)!
            for (name, value) in changes { try? workload.set(name, to: value) }
            return .init(workload, sessionsPerSecond: perSecond)
        }
        // As the command computes them: rate = sessions / duration, shared out by weight.
        let mix = 4125.0 / 3600
        return [
            (
                "default",
                SyntheticSpecification(
                    seed: 7, durationSeconds: 3600, leadSeconds: 1200, burstiness: 1.3,
                    parts: [
                        part(
                            "chat", mix * 1400 / 4125, ["chat.first": 6000, "chat.multiTurn": 0.73, "chat.turns": 5.75]),
                        part("agent", mix * 25 / 4125),
                        part("rag", mix * 1200 / 4125), part("templates", mix * 1500 / 4125),
                    ])
            ),
            (
                "chat",
                SyntheticSpecification(
                    seed: 11, durationSeconds: 1800, leadSeconds: 900, parts: [part("chat", 400.0 / 1800)])
            ),
            ("agent", SyntheticSpecification(seed: 12, durationSeconds: 3600, parts: [part("agent", 12.0 / 3600)])),
            (
                "rag",
                SyntheticSpecification(
                    seed: 13, durationSeconds: 900, parts: [part("rag", 600.0 / 900, ["rag.documents": 300])])
            ),
            (
                "templates",
                SyntheticSpecification(
                    seed: 14, durationSeconds: 600, burstiness: 2,
                    parts: [part("templates", 3000.0 / 600, ["templates.skew": 1.2])])
            ),
        ]
    }()

    @Test(arguments: committed)
    func theCommittedTracesAreMadeAgain(_ name: String, _ specification: SyntheticSpecification) throws {
        let stored = try Trace.read(from: "\(committedTraces)/\(name).jsonl.gz")
        var made = try SyntheticTrace.make(specification)
        made.origin = stored.origin
        #expect(made.contentDigest == stored.contentDigest)
        #expect(
            stored.origin?.generator.hasPrefix("holdfast trace synth \(name == "default" ? "chat=1400" : name)") == true
        )
        // What was written is what is read, to the byte.
        #expect(try read(text(stored, .holdfast)).sha256 == stored.contentDigest)
    }

    @Test func onePartIsUntouchedByTheNext() throws {
        let alone = try make(.templates(TemplateWorkload()))
        let mixed = try SyntheticTrace.make(
            SyntheticSpecification(
                seed: 5, durationSeconds: 600,
                parts: [
                    .init(.templates(TemplateWorkload()), sessionsPerSecond: 1),
                    .init(.chat(ChatWorkload()), sessionsPerSecond: 0.1),
                ]))
        let first = mixed.requests.filter { request in
            alone.requests.contains { $0.arrival == request.arrival && $0.inputTokens == request.inputTokens }
        }
        #expect(first.count == alone.requests.count)
        #expect(mixed.requests.count > alone.requests.count)
    }

    @Test func seedsDecide() throws {
        let one = try make(.chat(ChatWorkload()), seed: 1, rate: 0.1)
        #expect(try make(.chat(ChatWorkload()), seed: 1, rate: 0.1).sha256 == one.sha256)
        #expect(try make(.chat(ChatWorkload()), seed: 2, rate: 0.1).sha256 != one.sha256)
        #expect(one.sha256 == one.contentDigest)
    }

    @Test(arguments: SyntheticWorkload.kindNames)
    func everyKindKeepsTheRulesOfATrace(_ kind: String) throws {
        for (seed, blockTokens) in [(1, 64), (2, 16), (3, 512), (4, 1)] as [(UInt64, Int)] {
            let trace = try make(
                SyntheticWorkload(kind: kind)!, seed: seed, rate: 0.05, seconds: 900, lead: 300,
                blockTokens: blockTokens)
            let check = try TraceCheck.run(bytes: Array(text(trace, .holdfast).utf8), name: kind)
            #expect(check.findings.isEmpty, "\(check.findings)")
            #expect(trace.requests.allSatisfy { Int($0.blockCount) == Int($0.inputTokens) / blockTokens })
            #expect(trace.requests.allSatisfy { $0.arrival >= .zero && $0.arrival.seconds < 900 })
            #expect(trace.requests.allSatisfy { $0.serviceTime != nil && $0.stopReason != .unknown })
        }
    }

    @Test func aTurnContinuesTheOneBefore() throws {
        let trace = try make(.agent(AgentWorkload()), rate: 0.02, seconds: 3600)
        var last: [Int32: TraceRequest] = [:]
        var continued = 0
        for request in trace.requests {
            if let before = last[request.session] {
                #expect(request.turn == before.turn + 1)
                let gap = request.arrival - (before.arrival + before.serviceTime! + request.thinkTime!)
                #expect(abs(gap.nanoseconds) <= 2_000_000)
                if request.inputTokens > before.inputTokens {
                    #expect(trace.path(of: request).starts(with: trace.path(of: before)))
                    #expect(request.inputTokens > before.inputTokens + before.outputTokens)
                    continued += 1
                }
            } else {
                #expect(request.turn == 0)
                #expect(request.thinkTime == nil)
            }
            last[request.session] = request
        }
        #expect(continued > 500)
        // All main sessions share their front.
        #expect(trace.requests.first!.blockCount > 234)
        let fronts = Set(last.values.map { trace.path(of: $0).prefix(100).last! })
        #expect(fronts.count <= 2, "main sessions and sub-agents")
    }

    @Test func fullContextsAreSummarised() throws {
        var agent = AgentWorkload()
        agent.contextTokens = 40_000
        agent.nextTurnShare = 0.95
        let trace = try make(.agent(agent), rate: 0.01, seconds: 7200)
        #expect(trace.requests.allSatisfy { $0.inputTokens <= 60_000 })
        let shrinks = zip(trace.requests, trace.requests.dropFirst()).contains {
            $0.session == $1.session && $1.inputTokens < $0.inputTokens
        }
        #expect(shrinks)
    }

    @Test func medianLengthsAreThoseAskedFor() throws {
        let statistics = TraceStatistics(try make(.templates(TemplateWorkload()), rate: 20))
        #expect(abs(statistics.output.p50 - 43) <= 2)
        #expect(abs(Double(statistics.requests) - 12_000) < 400)
        #expect(abs(statistics.burstiness! - 1) < 0.05)
        var chat = ChatWorkload()
        chat.pause = LogNormal(median: 1, spread: 0.5)
        let turns = TraceStatistics(try make(.chat(chat), rate: 2, seconds: 3000)).turns!
        #expect(abs(turns.mean - 2) < 0.1)
    }

    @Test func burstinessIsTheVariationOfGaps() throws {
        for (asked, seed) in [(0.5, 1), (2, 2), (3, 3)] as [(Double, UInt64)] {
            let trace = try SyntheticTrace.make(
                SyntheticSpecification(
                    seed: seed, durationSeconds: 2000, burstiness: asked,
                    parts: [.init(.templates(TemplateWorkload()), sessionsPerSecond: 10)]))
            #expect(abs(TraceStatistics(trace).burstiness! / asked - 1) < 0.1)
        }
    }

    @Test func skewConcentratesTraffic() throws {
        func hitRatio(_ skew: Double) throws -> Double {
            var templates = TemplateWorkload()
            templates.skew = skew
            templates.templates = 2000
            return TraceStatistics(try make(.templates(templates), rate: 5)).infiniteHitRatio!
        }
        let ratios = try [0, 0.6, 1, 1.4].map(hitRatio)
        #expect(ratios == ratios.sorted())
        #expect(ratios[3] > ratios[0] + 0.2)
    }

    @Test func everyParameterCanBeSetWithinItsRange() throws {
        for kind in SyntheticWorkload.kindNames {
            for (parameter, value) in SyntheticWorkload(kind: kind)!.parameters {
                #expect(value == parameter.defaultValue)
                #expect(parameter.range.contains(value))
                #expect(!parameter.source.isEmpty)
                var workload = SyntheticWorkload(kind: kind)!
                try workload.set(parameter.name, to: parameter.range.lowerBound)
                #expect(
                    workload.parameters.first { $0.parameter.name == parameter.name }!.value
                        == parameter.range.lowerBound)
                #expect(throws: OperatorError.self) {
                    try workload.set(parameter.name, to: parameter.range.upperBound * 1.01 + 1)
                }
                #expect(throws: OperatorError.self) { try workload.set(parameter.name, to: .nan) }
            }
        }
        var chat = SyntheticWorkload(kind: "chat")!
        #expect(throws: OperatorError.self) { try chat.set("agent.calls", to: 3) }
        #expect(throws: OperatorError.self) { try chat.set("chat.nonsense", to: 3) }
        #expect(SyntheticWorkload(kind: "nonsense") == nil)
    }

    @Test func extremesAreMadeOrRefused() throws {
        for kind in SyntheticWorkload.kindNames {
            for atUpperEnd in [false, true] {
                for (parameter, _) in SyntheticWorkload(kind: kind)!.parameters {
                    var workload = SyntheticWorkload(kind: kind)!
                    // A million documents are allowed; a test need not make them.
                    let bound = atUpperEnd ? min(parameter.range.upperBound, 5000) : parameter.range.lowerBound
                    try workload.set(parameter.name, to: max(bound, parameter.range.lowerBound))
                    let trace = try make(workload, rate: 0.1, seconds: 60)
                    #expect(!trace.requests.isEmpty, "\(parameter.name) = \(bound)")
                }
            }
        }
        func refused(_ change: (inout SyntheticSpecification) -> Void) -> Bool {
            var specification = SyntheticSpecification(
                seed: 1, durationSeconds: 10, parts: [.init(.chat(ChatWorkload()), sessionsPerSecond: 1)])
            change(&specification)
            do {
                _ = try SyntheticTrace.make(specification)
                return false
            } catch {
                return true
            }
        }
        #expect(!refused { _ in })
        #expect(refused { $0.parts = [] })
        #expect(refused { $0.durationSeconds = 0 })
        #expect(refused { $0.durationSeconds = .infinity })
        #expect(refused { $0.leadSeconds = -1 })
        #expect(refused { $0.blockTokens = 0 })
        #expect(refused { $0.burstiness = 0 })
        #expect(refused { $0.requestLimit = 0 })
        #expect(refused { $0.parts[0].sessionsPerSecond = 0 })
        #expect(refused { $0.parts[0].sessionsPerSecond = 1e9 })
        #expect(
            refused {
                $0.parts[0].workload = .rag(
                    {
                        var rag = RetrievalWorkload(); rag.skew = -1; return rag
                    }())
            })
    }

    @Test func theLimitCutsTheEnd() throws {
        let whole = try make(.templates(TemplateWorkload()))
        let cut = try SyntheticTrace.make(
            SyntheticSpecification(
                seed: 5, durationSeconds: 600, requestLimit: 100,
                parts: [.init(.templates(TemplateWorkload()), sessionsPerSecond: 1)]))
        #expect(cut.requests == Array(whole.requests.prefix(100)))
    }
}
