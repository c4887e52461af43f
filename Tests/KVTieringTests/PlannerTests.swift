// The planner against the plainest search there is: the price of every split of every leading run.

import KVModel
import KVTiering
import Testing

@Suite struct PlannerTests {
    /// A random question with up to five runs of sources.
    private func question(_ random: inout RandomSource) -> LoadQuestion {
        func link(_ rates: [Double]) -> LinkState {
            LinkState(
                bandwidth: rates[random.below(rates.count)], delay: Duration(milliseconds: Int64(random.below(200))))
        }
        let start = Int32(random.below(4))
        var runs: [SourceRun] = []
        var end = start
        for _ in 0..<random.below(6) {
            end += 1 + Int32(random.below(20))
            let tier = [Tier.dram, .nvme, .flash][random.below(3)]
            if runs.last?.tier == tier {
                runs[runs.count - 1].end = end
            } else {
                runs.append(SourceRun(tier: tier, end: end))
            }
        }
        let tokens = Int32(Int(end) * 16 + 1 + random.below(400))
        return LoadQuestion(
            start: start, runs: runs, promptTokens: tokens, blockTokens: 16, blockBytes: 1_000_000,
            sliceBlocks: 1 + random.below(8), computeWait: Duration(milliseconds: Int64(random.below(300))),
            links: LinkView(dram: link([1e8, 1e9]), nvme: link([1e7, 1e8]), flash: link([1e7, 1e8, 1e9])))
    }

    private func planner(
        _ rule: PlannerRule, prefixOnly: Bool, _ overlap: Overlap, weight: Double
    ) -> PlannerConfiguration {
        PlannerConfiguration(
            rule: rule, prefixOnly: prefixOnly, prefill: PrefillCost(base: 0.002, linear: 2e-4, quadratic: 4e-7),
            gpuSecondWeight: weight, gpusPerEngine: 2, overlap: overlap, layers: 32, loadGraceMin: .zero,
            loadGraceMax: .zero)
    }

    @Test func splitIsTheLeastOfAllSplits() {
        var random = RandomSource(seed: 11)
        var kinds = Set<Int>()
        for round in 0..<3000 {
            let question = question(&random)
            let configuration = planner(
                .split, prefixOnly: false, Overlap.allCases[round % 3], weight: [0, 0.5, 2][random.below(3)])
            let pricing = Pricing(question, configuration)
            let found = question.runs.last?.end ?? question.start
            var least = pricing.cost(pricing.choice(question.start, question.start))
            for run in question.runs { least = min(least, pricing.cost(pricing.choice(question.start, run.end))) }
            for first in question.start..<max(question.start, found) {
                least = min(least, pricing.cost(pricing.choice(first, found)))
            }
            let choice = Planner(configuration).choose(question)
            #expect(pricing.cost(choice) <= least * (1 + 1e-12))
            kinds.insert(
                choice.end == choice.first ? 0 : choice.first > question.start ? 1 : choice.end < found ? 2 : 3)
        }
        // Nothing, a split, a boundary and everything must all have been right somewhere, or this test tests little.
        #expect(kinds == [0, 1, 2, 3])
    }

    @Test func prefixOnlyEnginesGetTheBestTierBoundary() {
        var random = RandomSource(seed: 12)
        for round in 0..<2000 {
            let question = question(&random)
            let configuration = planner(.split, prefixOnly: true, Overlap.allCases[round % 3], weight: 0.5)
            let pricing = Pricing(question, configuration)
            var least = pricing.cost(pricing.choice(question.start, question.start))
            for run in question.runs { least = min(least, pricing.cost(pricing.choice(question.start, run.end))) }
            let choice = Planner(configuration).choose(question)
            #expect(choice.first == question.start)
            #expect(pricing.cost(choice) == least)
        }
    }

    @Test func thresholdLoadsTheWholeHitOrNothing() {
        var random = RandomSource(seed: 13)
        for _ in 0..<1000 {
            let question = question(&random)
            guard let found = question.runs.last?.end else { continue }
            let configuration = planner(.threshold, prefixOnly: true, .none, weight: 0)
            let all = Planner(planner(.always, prefixOnly: true, .none, weight: 0)).choose(question)
            #expect(all.first == question.start)
            #expect(all.end == found)
            let start = Double(question.start) * 16
            let compute = configuration.prefill.seconds(count: Double(found) * 16 - start, after: start)
            let choice = Planner(configuration).choose(question)
            #expect(choice.end - choice.first == (all.loadSeconds < compute ? all.end - all.first : 0))
        }
    }

    @Test func aLoadOverAFitfulPathHasItsGraceAndNoMore() {
        var random = RandomSource(seed: 14)
        var kinds = Set<Int>()
        for round in 0..<3000 {
            var question = question(&random)
            var configuration = planner(
                round % 2 == 0 ? .split : .threshold, prefixOnly: round % 3 == 0, .none, weight: 0)
            configuration.loadGraceMin = Duration(milliseconds: 20)
            configuration.loadGraceMax = Duration(seconds: 2)
            let steady = Planner(configuration).choose(question)
            let steadyLimit = Planner(configuration).limit(steady, of: question)
            question.links.flash.isSteady = false
            let choice = Planner(configuration).choose(question)
            let limit = Planner(configuration).limit(choice, of: question)
            let saved = Pricing(question, configuration).prefill(from: choice.first, to: choice.end)
            let grace = min(max(saved / 4, 0.02), 2)
            var flash: Range<Int32> = 0..<0
            var start = question.start
            for run in question.runs {
                let crossing = max(start, choice.first)..<max(start, choice.first, min(run.end, choice.end))
                if run.tier == .flash, !crossing.isEmpty { flash = crossing }
                start = run.end
            }
            // What crosses it is over within the grace, or is not begun; what does not cross it is planned as ever.
            #expect(abs(limit - (flash.isEmpty ? choice.loadSeconds + grace : grace)) < 1e-9)
            #expect(choice.loadSeconds <= limit)
            #expect(steadyLimit >= steady.loadSeconds + 0.02 - 1e-9)
            kinds.insert(flash.isEmpty ? (choice == steady ? 0 : 1) : 2)
        }
        #expect(kinds == [0, 1, 2])
    }

    @Test func breakEvenPositionIsTheFormulas() {
        // With equal marginal prices at x*, tokens before it are computed and tokens behind it are loaded: with λ
        // large and no TTFT term to hide behind, a path slower than computing the first token loads nothing early.
        let cost = PrefillCost(base: 0, linear: 1e-4, quadratic: 1e-8)
        #expect(cost.seconds(count: 0, after: 500) == 0)
        let whole = cost.seconds(count: 3000, after: 0)
        let parts = cost.seconds(count: 1000, after: 0) + cost.seconds(count: 2000, after: 1000)
        #expect(abs(whole - parts) < 1e-12)
    }
}
