// Load or recompute: for one request, which of the blocks that were found are loaded. Prices come from the paths as
// they look now and from the engine's prefill curve; the plan minimises TTFT + λ · GPU-seconds.

import KVModel

/// A run of found blocks with one source.
package struct SourceRun: Equatable {
    package var tier: Tier
    /// One past its last block.
    package var end: Int32

    package init(tier: Tier, end: Int32) {
        self.tier = tier
        self.end = end
    }
}

/// What the planner must know of one request.
package struct LoadQuestion {
    /// Leading blocks that the engine has itself.
    package var start: Int32
    /// The found blocks behind them, in chain order, nearest source of each; empty when nothing was found.
    package var runs: [SourceRun]
    package var promptTokens: Int32
    package var blockTokens: Int
    package var blockBytes: Int
    /// Blocks in one transfer: what comes from below needs one more such step into the engine.
    package var sliceBlocks: Int
    package var computeWait: Duration
    package var links: LinkView

    package init(
        start: Int32, runs: [SourceRun], promptTokens: Int32, blockTokens: Int, blockBytes: Int, sliceBlocks: Int,
        computeWait: Duration, links: LinkView
    ) {
        self.start = start
        self.runs = runs
        self.promptTokens = promptTokens
        self.blockTokens = blockTokens
        self.blockBytes = blockBytes
        self.sliceBlocks = sliceBlocks
        self.computeWait = computeWait
        self.links = links
    }
}

/// What to load.
package struct LoadChoice: Equatable {
    /// First block to load; the engine computes the blocks between its own and this one.
    package var first: Int32
    /// One past the last block to load; equal to `first`: nothing.
    package var end: Int32
    /// Seconds until the loaded blocks are in the engine.
    package var loadSeconds: Double
}

/// The rule by which loads are chosen.
package struct Planner {
    let configuration: PlannerConfiguration

    package init(_ configuration: PlannerConfiguration) { self.configuration = configuration }

    /// Seconds to load all that was found, and to compute it.
    package func appraise(_ question: LoadQuestion) -> (load: Double, compute: Double) {
        guard let found = question.runs.last?.end, found > question.start else { return (0, 0) }
        let pricing = Pricing(question, configuration)
        return (pricing.load(question.start, found), pricing.prefill(from: question.start, to: found))
    }

    /// Seconds that a load may take: what was planned for it, and its grace. Where that plan rests on a path that is not steady,
    /// the grace alone, or as long as the engine would have had to wait anyway.
    package func limit(_ choice: LoadChoice, of question: LoadQuestion) -> Double {
        Pricing(question, configuration).limit(choice)
    }

    /// Chooses what to load.
    package func choose(_ question: LoadQuestion) -> LoadChoice {
        let pricing = Pricing(question, configuration)
        let nothing = LoadChoice(first: question.start, end: question.start, loadSeconds: 0)
        guard let found = question.runs.last?.end, found > question.start else { return nothing }
        let all = pricing.choice(question.start, found)
        switch configuration.rule {
        case .always:
            return all
        case .threshold:
            let compute = pricing.prefill(from: question.start, to: found)
            return all.loadSeconds < compute && pricing.isWithinLimit(all) ? all : nothing
        case .split:
            var best = nothing
            var bestCost = pricing.cost(nothing)
            func consider(_ choice: LoadChoice) {
                guard pricing.isWithinLimit(choice) else { return }
                let cost = pricing.cost(choice)
                // On a tie the longer load wins: it leaves the GPU to others.
                if cost < bestCost || (cost == bestCost && choice.end - choice.first > best.end - best.first) {
                    best = choice
                    bestCost = cost
                }
            }
            for run in question.runs { consider(pricing.choice(question.start, run.end)) }
            if !configuration.prefixOnly {
                // The cost is convex in the split point within a run, so bisection on its slope finds the least.
                var start = question.start
                for run in question.runs {
                    if start + 1 < run.end {
                        consider(pricing.leastSplit(from: start + 1, through: run.end - 1, end: found))
                    }
                    if run.end < found { consider(pricing.choice(run.end, found)) }
                    start = run.end
                }
            }
            return best
        }
    }
}

/// Prices of one question. All bytes but those that lie on the device already cross the path into the engine; those of lower tiers cross theirs before, slice
/// behind slice, so that a load takes as long as its slowest path and one slice more.
package struct Pricing {
    private let question: LoadQuestion
    private let configuration: PlannerConfiguration
    private let promptTokens: Double
    private let blockTokens: Double

    package init(_ question: LoadQuestion, _ configuration: PlannerConfiguration) {
        self.question = question
        self.configuration = configuration
        promptTokens = Double(question.promptTokens)
        blockTokens = Double(question.blockTokens)
    }

    /// Tokens before block `block`.
    private func tokens(before block: Int32) -> Double { min(Double(block) * blockTokens, promptTokens) }

    /// Seconds to compute blocks `from ..< to`.
    package func prefill(from: Int32, to: Int32) -> Double {
        let start = tokens(before: from)
        return configuration.prefill.seconds(count: tokens(before: to) - start, after: start)
    }

    /// Seconds to compute everything from `block` on; the last token always is.
    func prefillRest(from block: Int32) -> Double {
        let start = min(tokens(before: block), promptTokens - 1)
        return configuration.prefill.seconds(count: promptTokens - start, after: start)
    }

    /// Seconds to load blocks `first ..< end`.
    func load(_ first: Int32, _ end: Int32) -> Double {
        guard end > first else { return 0 }
        var there = 0
        var nvme = 0
        var flash = 0
        var belowInAll = 0
        var start = question.start
        for run in question.runs {
            let count = Int(max(0, min(run.end, end) - max(start, first)))
            if run.tier == .hbm { there += count }
            if run.tier == .nvme { nvme += count }
            if run.tier == .flash { flash += count }
            if run.tier > .dram { belowInAll += Int(run.end - start) }
            start = run.end
        }
        let bytes = Double(question.blockBytes)
        func seconds(_ blocks: Int, _ link: LinkState) -> Double {
            blocks == 0 ? 0 : link.delay.seconds + Double(blocks) * bytes / link.bandwidth
        }
        let below = max(seconds(nvme, question.links.nvme), seconds(flash, question.links.flash))
        let slice = nvme + flash > 0 ? min(belowInAll, question.sliceBlocks) : 0
        let last = Double(slice) * bytes / question.links.dram.bandwidth
        return max(seconds(Int(end - first) - there, question.links.dram), below + last)
    }

    /// See `Planner.limit`.
    func limit(_ choice: LoadChoice) -> Double {
        let grace = configuration.grace(of: choice.first..<choice.end, blockTokens: question.blockTokens)
        let wait = configuration.overlap == .prefetch ? question.computeWait.seconds : 0
        return grace + (isPlanned(choice) ? max(choice.loadSeconds, wait) : wait)
    }

    /// Whether a load can be over before its time is.
    func isWithinLimit(_ choice: LoadChoice) -> Bool { isPlanned(choice) || choice.loadSeconds <= limit(choice) }

    /// Whether the price of a load says when it ends: all paths that it crosses are steady, or nobody asks for the price.
    private func isPlanned(_ choice: LoadChoice) -> Bool {
        guard configuration.rule != .always else { return true }
        var isSteady = question.links.dram.isSteady || choice.end == choice.first
        var start = question.start
        for run in question.runs {
            if run.tier > .dram, min(run.end, choice.end) > max(start, choice.first) {
                isSteady = isSteady && (run.tier == .nvme ? question.links.nvme : question.links.flash).isSteady
            }
            start = run.end
        }
        return isSteady
    }

    /// A choice with its price.
    package func choice(_ first: Int32, _ end: Int32) -> LoadChoice {
        LoadChoice(first: first, end: end, loadSeconds: load(first, end))
    }

    /// TTFT from now + λ · GPU-seconds. Seconds.
    package func cost(_ choice: LoadChoice) -> Double {
        let rest = prefillRest(from: choice.end)
        let front = prefill(from: question.start, to: choice.first)
        let gpu = configuration.gpuSecondWeight * configuration.gpusPerEngine * (front + rest)
        // The front is computed while the back is loaded; neither waits for the other.
        let together = max(front, choice.loadSeconds)
        let first: Double
        switch configuration.overlap {
        case .none: first = together + rest
        case .prefetch: first = max(question.computeWait.seconds, choice.loadSeconds - front) + front + rest
        case .layerwise:
            let layers = Double(configuration.layers)
            first = front > 0 ? together + rest : max(together / layers + rest, together + rest / layers)
        }
        return first + gpu
    }

    /// The cheapest split with its first loaded block in `low ... high`.
    func leastSplit(from low: Int32, through high: Int32, end: Int32) -> LoadChoice {
        var low = low
        var high = high
        while low < high {
            let middle = low + (high - low) / 2
            if cost(choice(middle + 1, end)) < cost(choice(middle, end)) { low = middle + 1 } else { high = middle }
        }
        return choice(low, end)
    }
}
