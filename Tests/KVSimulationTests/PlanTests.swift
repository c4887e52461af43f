// What a plan concludes: each rule forced once, on the choices that a real plan tried with other results put into them.

import Foundation
import KVModel
import KVReport
import KVServing
import KVSimulation
import KVTrace
import Testing

/// One kind of choice: how many GPUs it needs (nil: no size meets the SLO) and what a million tokens cost then.
private typealias Price = (gpus: Int?, cost: Double)

/// A plan of a small trace: what it tried is what every plan tries.
private let tried = Task {
    let scenario = try Scenario.read(
        yaml: nil, file: "default.yaml", overrides: [("sweep.replicas", "[1, 2]"), ("sweep.capacities", "3")])
    let trace = conversations(count: 6, turns: 3, seed: 5)
    return try await ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn).plan(threads: 1) { _, _ in }
}

@Suite struct PlanTests {
    /// A plan in which the kinds of choices have these prices; of several sizes the larger ones are taken to cost the same.
    private func plan(
        hbm: Price, dram: Price, nvme: Price, flash: Price, infinite: Double = 0.8, storeHour: Double? = nil
    ) async throws -> Plan {
        var plan = try await tried.value
        for index in plan.choices.indices {
            let choice = plan.choices[index]
            let price =
                choice.flashBytes > 0
                ? flash : choice.nvmeBytesPerNode > 0 ? nvme : choice.dramBytesPerNode > 0 ? dram : hbm
            plan.choices[index].gpus = price.gpus
            plan.choices[index].costPerMillionTokens = price.cost
            plan.choices[index].savesPerMillionTokens = price.gpus == nil ? nil : hbm.cost - price.cost
        }
        plan.reuse.infinite = infinite
        plan.reuse.hbm = 0.2
        plan.breakEven.storeHour = storeHour
        plan.picks = ModelledReplay.picks(plan.choices)
        plan.verdict = Plan.verdict(plan)
        return plan
    }

    private func expect(_ plan: Plan, _ rule: String, _ words: String...) {
        let sentence = plan.verdict.sentence.replacing(thinSpace, with: " ")
        #expect(plan.verdict.rule == rule, "\(sentence)")
        for words in words { #expect(sentence.contains(words), "\(sentence)") }
        #expect(sentence.hasSuffix("."))
    }

    @Test func everyKindOfTierIsTried() async throws {
        let plan = try await plan(hbm: (8, 1), dram: (8, 1), nvme: (8, 1), flash: (8, 1))
        #expect(plan.choices[0].name == "HBM only")
        #expect(plan.choices.contains { $0.nvmeBytesPerNode > 0 && $0.flashBytes == 0 })
        #expect(plan.choices.contains { $0.flashBytes > 0 && $0.nvmeBytesPerNode == 0 })
        #expect(
            plan.prices.map(\.key)
                == ["gpuHour", "storeHour", "switchHour", "nvmeHour", "dramHour"].map { "prices.\($0)" })
    }

    @Test(arguments: [("hostToGPU", 2 * 3e9), ("hostNIC", 3e9 * 0.5)])
    func thePathFromFlashIsItsSlowestPart(link: String, bytesPerSecond: Double) async throws {
        let scenario = try Scenario.read(
            yaml: nil, file: "default.yaml",
            overrides: [
                ("sweep.replicas", "[1]"), ("sweep.capacities", "3"), ("tensorParallel", "2"),
                ("links.efficiency", "0.5"), ("links.\(link)", "3 GB/s"),
            ])
        let trace = conversations(count: 2, turns: 2, seed: 5)
        let plan = try await ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
            .plan(threads: 1) { _, _ in }
        // A line's rate is not reached; that of the GPU's link, one per GPU, is said as reached.
        #expect(plan.breakEven.pathBytesPerSecond == bytesPerSecond)
    }

    @Test func nothingIsBoughtWhereGPUMemoryHasAll() async throws {
        let plan = try await plan(hbm: (8, 1), dram: (8, 1), nvme: (8, 1), flash: (8, 1), infinite: 0.21)
        expect(plan, "plan.noreuse", "an endless cache would serve 21 % of prompt tokens", "already serves 20 %")
    }

    @Test func anSLOThatNothingMeetsIsSaid() async throws {
        let plan = try await plan(hbm: (nil, 1), dram: (nil, 1), nvme: (nil, 1), flash: (nil, 1))
        expect(plan, "plan.noslo", "No cluster of up to 4 GPUs meets 2 s to the first token")
        #expect(plan.picks.best == nil)
    }

    @Test func anSLOThatNothingMeetsIsSaidWhereThereIsNothingToGainAsWell() async throws {
        let plan = try await plan(hbm: (nil, 1), dram: (nil, 1), nvme: (nil, 1), flash: (nil, 1), infinite: 0.21)
        expect(plan, "plan.noreuse", "Buy nothing: an endless cache", "No cluster of up to 4 GPUs meets 2 s to the")
    }

    @Test func promptsTooShortForABlockLeaveNothingToCache() async throws {
        let requests = (0..<3).map {
            TraceRequest(
                arrival: Instant(seconds: Double($0)), inputTokens: 20, outputTokens: 5, firstReference: 0,
                blockCount: 0)
        }
        let trace = Trace(
            name: "short", format: .extents, sha256: "", blockTokens: 64, requests: requests, blocks: [],
            uniqueBlockCount: 0)
        let scenario = try Scenario.read(
            yaml: nil, file: "default.yaml", overrides: [("sweep.replicas", "[1, 2]"), ("sweep.capacities", "3")])
        let plan = try await ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
            .plan(threads: 1) { _, _ in }
        expect(
            plan, "plan.empty", "no prompt is as long as a block of 64 tokens, so there is nothing to cache")
        #expect(plan.sizes.allSatisfy { $0.bytes.isEmpty })
        // The least size of a tier, once.
        #expect(Set(plan.choices.map(\.name)).count == plan.choices.count)
        #expect(plan.choices.count { $0.flashBytes > 0 } == 2)
    }

    @Test(arguments: ["0.3", "2"]) func whatIsToBeGainedIsOfTheLoadThatIsTried(load: String) async throws {
        let scenario = try Scenario.read(
            yaml: nil, file: "default.yaml",
            overrides: [("sweep.replicas", "[4]"), ("sweep.capacities", "3"), ("arrivals.load", load)])
        let trace = conversations(count: 12, turns: 6, seed: 5)
        let plan = try await ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
            .plan(threads: 1) { _, _ in }
        #expect(plan.choices.allSatisfy { $0.served <= plan.reuse.infinite + 1e-12 })
        #expect(plan.missRatioCurve.bytes.last == plan.reuse.distinctBytes)
    }

    @Test func sharedFlashIsBoughtWhereItIsCheapest() async throws {
        let plan = try await plan(hbm: (32, 0.8), dram: (24, 0.5), nvme: (20, 0.4), flash: (16, 0.3), storeHour: 12)
        expect(
            plan, "plan.flash", "of shared flash and give KV", "16 GPUs meet", "at $0.30 a million tokens",
            "the cheapest without it, DRAM 125 GB + NVMe", "takes 20 and costs $0.40",
            "pays while a server costs less than $12 an hour")
        let alone = try await self.plan(hbm: (nil, 1), dram: (nil, 1), nvme: (nil, 1), flash: (16, 0.3))
        expect(alone, "plan.flash", "without shared flash no cluster that was tried meets it")
    }

    @Test func localFlashIsBoughtWhereASharedStoreEarnsNothingMore() async throws {
        let plan = try await plan(hbm: (32, 0.8), dram: (12, 0.24), nvme: (8, 0.16), flash: (8, 0.19), storeHour: 0.4)
        expect(
            plan, "plan.nvme", "of local NVMe and 130 GB of DRAM a node: 8 GPUs meet", "at $0.16 a million tokens",
            "without drives it takes 12 and costs $0.24",
            "Shared flash is not worth buying: a million tokens would cost $0.19 instead of $0.16. It would pay below $0.40"
        )
        let same = try await self.plan(hbm: (nil, 1), dram: (nil, 1), nvme: (8, 0.16), flash: (8, 0.157))
        expect(
            same, "plan.nvme", "without drives no cluster that was tried meets it",
            "Shared flash is not worth buying: a million tokens would cost as much")
    }

    @Test func memoryIsBoughtWhereDrivesEarnNothingMore() async throws {
        let plan = try await plan(hbm: (32, 0.8), dram: (12, 0.24), nvme: (12, 0.235), flash: (12, 0.29), storeHour: -3)
        expect(
            plan, "plan.dram", "Keep KV in 130 GB of DRAM a node: 12 GPUs meet", "instead of 32 and $0.80",
            "Shared flash is not worth buying at any price: it takes 12 GPUs as well")
    }

    @Test func anEighthLessThanWhatIsBoughtDoesNotDoAsWell() async throws {
        let scenario = try Scenario.read(
            yaml: nil, file: "default.yaml",
            overrides: [
                ("sweep.replicas", "[6]"), ("sweep.capacities", "3"), ("arrivals.load", "6"), ("slo.ttft", "1s"),
            ])
        let traces = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Traces").path
        let trace = try Trace.read(from: traces + "/rag.jsonl.gz")
        let plan = try await ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
            .plan(threads: 1) { _, _ in }
        #expect(plan.verdict.rule == "plan.flash")
        let flashChoices = plan.choices.filter { $0.flashBytes > 0 }
        let cheapest = try #require(flashChoices.filter { $0.gpus != nil }.map(\.costPerMillionTokens).min())
        let bought = try #require(plan.choice(plan.picks.smallestFlash))
        // Less than the least of the first round, and hardly more than what was found too little, or the last to be tried.
        let firstLeast = (plan.reuse.distinctBytes / 8).rounded(.up)
        #expect(bought.flashBytes < firstLeast)
        let smaller =
            flashChoices
            .filter { $0.dramBytesPerNode == bought.dramBytesPerNode && $0.flashBytes < bought.flashBytes }
            .max { $0.flashBytes < $1.flashBytes }
        if let smaller {
            #expect(smaller.gpus == nil || !areAlike(smaller.costPerMillionTokens, cheapest))
            #expect(bought.flashBytes <= 1.125 * smaller.flashBytes + 1)
        } else {
            #expect(bought.flashBytes <= firstLeast / 16 + 1)
        }
        let bytes = flashChoices.map(\.flashBytes)
        #expect(Array(bytes.prefix { $0 <= firstLeast }) == bytes.prefix { $0 <= firstLeast }.sorted())
    }

    @Test func nothingIsBoughtWhereNoTierIsCheaper() async throws {
        let plan = try await plan(hbm: (8, 0.16), dram: (8, 0.158), nvme: (8, 0.16), flash: (nil, 1))
        expect(
            plan, "plan.nothing", "Buy nothing: 8 GPUs meet", "no tier makes that cheaper",
            "With shared flash no cluster that was tried meets the SLO")
        #expect(plan.picks.smallestDRAM == "HBM only")
    }
}
