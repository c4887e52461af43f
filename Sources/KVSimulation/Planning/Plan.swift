// What to buy for a trace: the facts that `holdfast plan` found, and the sentence they add up to. Facts of reuse are
// counted on the trace; clusters and times are modelled; money follows from given prices.

import KVModel
import KVReport

/// The answer to "how much DRAM and flash, how many GPUs, and is it worth it?".
public struct Plan: Codable, Sendable, Equatable {
    /// Always `holdfast-plan-1`.
    public var schema = "holdfast-plan-1"
    /// What is planned for.
    public var trace: TraceSummary
    /// What a request must reach, and the share of requests that must.
    public var slo: SLO
    /// The model, GPU and prices that the plan holds for.
    public var model: String
    /// The GPU of the cluster.
    public var gpu: String
    /// GPUs of one replica.
    public var gpusPerReplica: Int
    /// What was given: prices, each with the scenario key that changes it.
    public var prices: [Price]
    /// What there is to gain, counted.
    public var reuse: Reuse
    /// Prompt tokens missed against bytes kept, counted.
    public var missRatioCurve: MissRatioCurve
    /// Bytes that reach a share of what an endless cache hits, counted.
    public var sizes: [Size]
    /// Every choice tried, cheapest tiers first.
    public var choices: [Choice]
    /// Names of the choices that the verdict speaks of; absent where no choice meets the SLO.
    public var picks: Picks
    /// How fast a link must be for loading to beat computing.
    public var breakEven: BreakEven
    /// What to conclude.
    public var verdict: Verdict

    /// What there is to gain.
    public struct Reuse: Codable, Sendable, Equatable {
        /// Share of prompt tokens that an endless cache serves.
        public var infinite: Double
        /// Share that the HBM of one replica serves, LRU, if all requests came to it.
        public var hbm: Double
        /// Bytes of KV of all different blocks.
        public var distinctBytes: Double
        /// Bytes of KV that the HBM of one replica holds.
        public var hbmBytes: Double
    }

    /// A size read off the curve.
    public struct Size: Codable, Sendable, Equatable {
        /// The share of the endless cache's hits to reach.
        public var shareOfCeiling: Double
        /// The fewest bytes that reach it, per policy; absent where no size short of everything does.
        public var bytes: [String: Double]
    }

    /// One thing that could be bought.
    public struct Choice: Codable, Sendable, Equatable {
        /// "HBM only", "DRAM", "DRAM + NVMe", "DRAM + flash", with sizes.
        public var name: String
        /// Bytes of DRAM for KV, per node; 0 is none.
        public var dramBytesPerNode: Double
        /// Bytes of local NVMe for KV, per node; 0 is none.
        public var nvmeBytesPerNode: Double
        /// Bytes of the shared flash; 0 is none.
        public var flashBytes: Double
        /// Flash servers that hold them.
        public var flashServers: Int
        /// GPUs of the smallest cluster that meets the SLO; absent when none that was tried does.
        public var gpus: Int?
        /// GPUs of all clusters tried.
        public var triedGPUs: [Int]
        /// Results at that cluster, or at the largest tried.
        public var ttftP50Seconds: Double
        /// Time to first token that 99 % of requests stay below.
        public var ttftP99Seconds: Double
        /// Share of requests that met the SLO.
        public var metSLO: Double
        /// Share of prompt tokens that came out of a tier.
        public var served: Double
        /// USD an hour for everything.
        public var costPerHour: Double
        /// USD per million tokens, prompt and answer.
        public var costPerMillionTokens: Double
        /// USD per million tokens less than with GPU memory alone; absent where either misses the SLO.
        public var savesPerMillionTokens: Double?
    }

    /// The choices that matter.
    public struct Picks: Codable, Sendable, Equatable {
        /// Cheapest that meets the SLO.
        public var best: String?
        /// Cheapest without shared flash.
        public var bestWithoutFlash: String?
        /// Of the choices without any flash, the smallest DRAM that costs as much as the cheapest of them.
        public var smallestDRAM: String?
        /// Of the choices with local NVMe, the fewest bytes that cost as much as the cheapest of them.
        public var smallestNVMe: String?
        /// Of the choices with shared flash, the fewest bytes that cost as much as the cheapest of them.
        public var smallestFlash: String?
    }

    /// Loading against computing.
    public struct BreakEven: Codable, Sendable, Equatable {
        /// Mean length of a hit in an endless cache, tokens.
        public var hitTokens: Double
        /// Seconds to compute that many tokens on one replica.
        public var computeSeconds: Double
        /// Bytes a second per replica above which loading them is faster.
        public var bytesPerSecond: Double
        /// Bytes a second that the scenario's path from the flash store gives one replica, others idle.
        public var pathBytesPerSecond: Double
        /// USD an hour of one flash server at which flash costs as much as it saves; absent without such a comparison.
        public var storeHour: Double?
    }

    /// What to conclude.
    public struct Verdict: Codable, Sendable, Equatable {
        /// Which rule spoke.
        public var rule: String
        /// The conclusion in a sentence or two.
        public var sentence: String
    }
}

extension Plan {
    /// A choice by its name.
    public func choice(_ name: String?) -> Choice? { choices.first { $0.name == name } }

    /// The conclusion: the first rule that holds speaks.
    package static func verdict(_ plan: Plan) -> Verdict {
        let cheapest = plan.choice(plan.picks.best)
        guard plan.trace.uniqueBlocks > 0 else {
            return Verdict(
                rule: "plan.empty",
                sentence: "Buy nothing: no prompt is as long as a block of \(plan.trace.blockTokens) tokens, so there "
                    + "is nothing to cache." + (cheapest == nil ? " " + noSLO(plan) : ""))
        }
        let left = plan.reuse.infinite - plan.reuse.hbm
        guard left >= 0.02 else {
            return Verdict(
                rule: "plan.noreuse",
                sentence: "Buy nothing: an endless cache would serve \(percent(plan.reuse.infinite)) of prompt tokens "
                    + "and the GPU memory of one replica already serves \(percent(plan.reuse.hbm))."
                    + (cheapest == nil ? " " + noSLO(plan) : ""))
        }
        guard let best = cheapest, let gpus = best.gpus else {
            return Verdict(rule: "plan.noslo", sentence: noSLO(plan))
        }
        let without = plan.choice(plan.picks.bestWithoutFlash)
        if let flash = plan.choice(plan.picks.smallestFlash), best.flashBytes > 0 {
            return Verdict(rule: "plan.flash", sentence: buyFlash(plan, flash, without))
        }
        if let nvme = plan.choice(plan.picks.smallestNVMe), best.nvmeBytesPerNode > 0 {
            return Verdict(
                rule: "plan.nvme", sentence: buyNVMe(plan, nvme) + " " + noFlash(plan, without: without))
        }
        let dram = plan.choice(plan.picks.smallestDRAM) ?? best
        let flashSays = noFlash(plan, without: without)
        guard dram.dramBytesPerNode > 0 else {
            return Verdict(
                rule: "plan.nothing",
                sentence: "Buy nothing: \(gpus) GPUs meet \(limits(plan.slo)) with their own memory, at "
                    + "\(dollars(best.costPerMillionTokens)) a million tokens, and no tier makes that cheaper. "
                    + flashSays)
        }
        return Verdict(
            rule: "plan.dram",
            sentence: "Keep KV in \(bytes(dram.dramBytesPerNode)) of DRAM a node: \(dram.gpus ?? gpus) GPUs meet "
                + "\(limits(plan.slo)) at \(dollars(dram.costPerMillionTokens)) a million tokens"
                + saving(plan, dram) + ". " + flashSays)
    }

    private static func noSLO(_ plan: Plan) -> String {
        let most = plan.choices.flatMap(\.triedGPUs).max() ?? 0
        return "No cluster of up to \(most) GPUs meets \(limits(plan.slo)): raise `sweep.replicas`, or lower the SLO. "
            + "The table shows how near each choice comes."
    }

    private static func buyFlash(_ plan: Plan, _ flash: Choice, _ without: Choice?) -> String {
        var sentence =
            "Buy \(bytes(flash.flashBytes)) of shared flash and give KV \(bytes(flash.dramBytesPerNode)) of DRAM a "
            + "node: \(flash.gpus ?? 0) GPUs meet \(limits(plan.slo)) at \(dollars(flash.costPerMillionTokens)) a "
            + "million tokens"
        if let without, let gpus = without.gpus {
            sentence +=
                "; the cheapest without it, \(without.name), takes \(gpus) and costs "
                + "\(dollars(without.costPerMillionTokens))."
        } else {
            sentence += "; without shared flash no cluster that was tried meets it."
        }
        if let price = plan.breakEven.storeHour {
            sentence += " Flash pays while a server costs less than \(dollars(price)) an hour."
        }
        return sentence
    }

    private static func buyNVMe(_ plan: Plan, _ nvme: Choice) -> String {
        let sentence =
            "Give KV \(bytes(nvme.nvmeBytesPerNode)) of local NVMe and \(bytes(nvme.dramBytesPerNode)) of DRAM a node: "
            + "\(nvme.gpus ?? 0) GPUs meet \(limits(plan.slo)) at \(dollars(nvme.costPerMillionTokens)) a million tokens"
        guard let dram = plan.choice(plan.picks.smallestDRAM), let gpus = dram.gpus else {
            return sentence + "; without drives no cluster that was tried meets it."
        }
        return sentence + "; without drives it takes \(gpus) and costs \(dollars(dram.costPerMillionTokens))."
    }

    private static func noFlash(_ plan: Plan, without: Choice?) -> String {
        guard let flash = plan.choice(plan.picks.smallestFlash), let without else {
            return "With shared flash no cluster that was tried meets the SLO."
        }
        if areAlike(flash.costPerMillionTokens, without.costPerMillionTokens) {
            return "Shared flash is not worth buying: a million tokens would cost as much."
        }
        if let price = plan.breakEven.storeHour, price > 0 {
            return "Shared flash is not worth buying: a million tokens would cost "
                + "\(dollars(flash.costPerMillionTokens)) instead of \(dollars(without.costPerMillionTokens)). It would "
                + "pay below \(dollars(price)) an hour for a server."
        }
        return "Shared flash is not worth buying at any price: it takes \(flash.gpus ?? 0) GPUs as well."
    }

    private static func saving(_ plan: Plan, _ choice: Choice) -> String {
        guard let saved = choice.savesPerMillionTokens, let hbm = plan.choices.first, let gpus = hbm.gpus else {
            return ""
        }
        let isCheaper = saved > 0 && !areAlike(choice.costPerMillionTokens, hbm.costPerMillionTokens)
        return isCheaper ? ", instead of \(gpus) and \(dollars(hbm.costPerMillionTokens)) with GPU memory alone" : ""
    }

    private static func percent(_ share: Double) -> String { Printed.percent(share).text }
    private static func bytes(_ bytes: Double) -> String { Printed.bytes(bytes).text }
    private static func dollars(_ dollars: Double) -> String { Printed.dollars(dollars).text }
    private static func limits(_ slo: SLO) -> String {
        "\(Printed.seconds(slo.ttftSeconds, .given)) to the first token and "
            + "\(Printed.seconds(slo.tpotSeconds, .given)) a token for \(Printed.percent(slo.requiredShare)) of requests"
    }
}
