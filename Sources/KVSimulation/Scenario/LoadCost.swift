// What loads cost on a machine, one at a time, as an engine sees them. `calibrate` measures them, a device profile carries them,
// and what planners believe of paths before bytes have moved follows from them.

import KVModel
import KVTiering

/// Loads of blocks of one size from one tier: so much for a load, and so much for each block of it, its bytes included.
///
/// Costs are kept per size of block because they are no line in it: small blocks cost thread hops and frames, larger ones
/// bytes, and those of 64 KiB and more go past the caches.
public struct LoadCost: Codable, Sendable, Equatable {
    /// Of such blocks.
    public var blockBytes: Int
    /// A load: asking, deciding, waking who moves the bytes, telling its end.
    public var latencySeconds: Double
    /// Each block.
    public var blockSeconds: Double

    /// A cost of its parts.
    public init(blockBytes: Int, latencySeconds: Double, blockSeconds: Double) {
        self.blockBytes = blockBytes
        self.latencySeconds = latencySeconds
        self.blockSeconds = blockSeconds
    }

    /// The line that is closest to loads of so many blocks each, by squares of relative errors: a load of one block counts as
    /// much as one of a hundred.
    ///
    /// - Parameter loads: At least one, all of more than no time; of at least two counts of blocks, or all is the blocks'.
    public init(blockBytes: Int, fitting loads: [(blocks: Int, seconds: Double)]) {
        precondition(!loads.isEmpty, "a line through no load")
        var (s0, s1, s2, y0, y1) = (0.0, 0.0, 0.0, 0.0, 0.0)
        for load in loads {
            let (count, weight) = (Double(load.blocks), 1 / load.seconds)
            s0 += weight * weight
            s1 += count * weight * weight
            s2 += count * count * weight * weight
            y0 += weight
            y1 += count * weight
        }
        let determinant = s0 * s2 - s1 * s1
        var (latency, each) = (0.0, y1 / s2)
        if determinant > 1e-9 * s0 * s2 {
            latency = (y0 * s2 - y1 * s1) / determinant
            each = (s0 * y1 - s1 * y0) / determinant
            // Nothing takes less than no time.
            if latency < 0 { (latency, each) = (0, y1 / s2) }
            if each < 0 { (latency, each) = (y0 / s0, 0) }
        }
        self.init(blockBytes: blockBytes, latencySeconds: latency, blockSeconds: each)
    }

    /// A load of so many blocks.
    public func seconds(blocks: Int) -> Double { latencySeconds + Double(blocks) * blockSeconds }
}

/// What loads cost from each tier, for a few sizes of blocks each.
public struct LoadCosts: Codable, Sendable, Equatable {
    /// From node memory into the engine.
    public var dram: [LoadCost]?
    /// From local flash into node memory, a thread's hops to the engine and back included.
    public var nvme: [LoadCost]?
    /// From the shared store, likewise.
    public var flash: [LoadCost]?

    /// Costs of no tier yet.
    public init() {}

    /// What blocks of any size cost: between two sizes that were measured along the line between them. Smaller ones cost what the
    /// smallest do, larger ones for each byte what the largest do. Nil: nothing was measured.
    ///
    /// - Parameter measured: In any order.
    static func cost(of blockBytes: Int, _ measured: [LoadCost]) -> LoadCost? {
        let sizes = measured.sorted { $0.blockBytes < $1.blockBytes }
        guard let first = sizes.first, let last = sizes.last else { return nil }
        var cost = first
        if blockBytes >= last.blockBytes {
            cost = last
            cost.blockSeconds *= Double(blockBytes) / Double(last.blockBytes)
        } else if let above = sizes.firstIndex(where: { $0.blockBytes > blockBytes }), above > 0 {
            let (low, high) = (sizes[above - 1], sizes[above])
            let share = Double(blockBytes - low.blockBytes) / Double(high.blockBytes - low.blockBytes)
            cost.latencySeconds = low.latencySeconds + share * (high.latencySeconds - low.latencySeconds)
            cost.blockSeconds = low.blockSeconds + share * (high.blockSeconds - low.blockSeconds)
        }
        cost.blockBytes = blockBytes
        return cost
    }

    /// Whether every figure is a time between none and `limit` seconds, and every size is one; else which is not.
    func problem(limit: Double) -> String? {
        for (tier, costs) in [("dram", dram), ("nvme", nvme), ("flash", flash)] {
            for cost in costs ?? [] {
                guard cost.blockBytes > 0, cost.blockBytes <= 1 << 30 else {
                    return "`loads.\(tier)` has a block of \(cost.blockBytes) bytes"
                }
                for seconds in [cost.latencySeconds, cost.blockSeconds]
                where !seconds.isFinite || seconds < 0 || seconds > limit {
                    return "`loads.\(tier)` has \(seconds) seconds for blocks of \(cost.blockBytes) bytes"
                }
            }
        }
        return nil
    }
}

extension DeviceProfile {
    /// What paths look like before bytes have moved: what loads cost where that was measured, else the devices' rates, else
    /// cautious figures.
    ///
    /// - Parameter blockBytes: Of which blocks. Nil: of the largest that were measured.
    public func links(blockBytes: Int?) -> LinkView {
        var view = LinkView.cautious
        if let rate = hostMemory?.bytesPerSecond { view.dram.bandwidth = rate }
        if let rate = dram?.readBytesPerSecond { view.dram.bandwidth = rate }
        if let seconds = dram?.latencySeconds { view.dram.delay = Duration(seconds: seconds) }
        if let rate = nvme?.readBytesPerSecond { view.nvme.bandwidth = rate }
        if let seconds = nvme?.latencySeconds { view.nvme.delay = Duration(seconds: seconds) }
        let rates = [flash?.readBytesPerSecond, flash?.nicBytesPerSecond, hostNIC?.bytesPerSecond]
        if let rate = rates.compactMap({ $0 }).min() { view.flash.bandwidth = rate }
        if let seconds = flash?.latencySeconds { view.flash.delay = Duration(seconds: seconds) }
        func take(_ costs: [LoadCost]?, _ link: inout LinkState) {
            guard let costs, let largest = costs.map(\.blockBytes).max(),
                let cost = LoadCosts.cost(of: blockBytes ?? largest, costs), cost.blockSeconds > 0
            else { return }
            link.bandwidth = Double(cost.blockBytes) / cost.blockSeconds
            link.delay = Duration(seconds: cost.latencySeconds)
        }
        take(loads?.dram, &view.dram)
        take(loads?.nvme, &view.nvme)
        take(loads?.flash, &view.flash)
        return view
    }
}

extension LinkView {
    /// What is believed of a machine that nobody has measured.
    public static let cautious = LinkView(
        dram: LinkState(bandwidth: 5e9, delay: Duration(nanoseconds: 15_000)),
        nvme: LinkState(bandwidth: 2e9, delay: Duration(nanoseconds: 100_000)),
        flash: LinkState(bandwidth: 1e9, delay: Duration(nanoseconds: 300_000)))

    /// How long a load should take that has nothing beside it, as a planner with these paths prices it.
    ///
    /// - Parameters:
    ///   - blocks: Of it, by the tier that they lie in.
    ///   - sliceBlocks: Blocks of one transfer at most.
    public func seconds(
        of blocks: (dram: Int, nvme: Int, flash: Int), blockBytes: Int, sliceBlocks: Int
    ) -> Double {
        var (runs, end): ([SourceRun], Int32) = ([], 0)
        for (tier, count) in [(Tier.dram, blocks.dram), (.nvme, blocks.nvme), (.flash, blocks.flash)] where count > 0 {
            end += Int32(count)
            runs.append(SourceRun(tier: tier, end: end))
        }
        let question = LoadQuestion(
            start: 0, runs: runs, promptTokens: end, blockTokens: 1, blockBytes: blockBytes, sliceBlocks: sliceBlocks,
            computeWait: .zero, links: self)
        let planner = Planner(
            PlannerConfiguration(
                rule: .always, prefixOnly: true, prefill: PrefillCost(base: 0, linear: 0, quadratic: 0),
                gpuSecondWeight: 0, gpusPerEngine: 1, overlap: .none, layers: 1, loadGraceMin: .zero,
                loadGraceMax: .zero))
        return planner.appraise(question).load
    }
}

extension LoadCost {
    /// What blocks of one size cost on their way up to node memory: whole loads, less what the price of a load adds for the last
    /// slice's way on into the engine.
    ///
    /// - Parameter dram: What blocks of that size cost from node memory.
    public init(
        blockBytes: Int, fittingWhole loads: [(blocks: Int, seconds: Double)], dram: LoadCost, sliceBlocks: Int
    ) {
        self.init(
            blockBytes: blockBytes,
            fitting: loads.map { load in
                let last = Double(min(load.blocks, sliceBlocks)) * dram.blockSeconds
                return (load.blocks, max(load.seconds - last, load.seconds / 16))
            })
    }
}
