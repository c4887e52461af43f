// How long the loads of a live replay took beside what a device profile says of them: by tier, and within a tier by how many
// blocks they had, so that a profile that is right of the one and wrong of the other shows. Loads from several tiers stand
// apart: their price takes it that no path waits for another, which is not the profile's to say.

import KVModel

/// Loads of one tier, one at a time, beside what the device profile says of them.
public struct LoadTimes: Codable, Sendable, Equatable {
    /// What stands in place of a tier for loads that came from more than one.
    public static let several = "several tiers"

    /// `dram`, `nvme` or `flash`, from which all blocks came, or `several`.
    public var tier: String
    /// Of loads of at least so many blocks, and at most so many. Nil: of all.
    public var blocksMin: Int?
    /// See `blocksMin`.
    public var blocksMax: Int?
    /// How many loads.
    public var count: Int
    /// The median of what they should have taken.
    public var predictedSeconds: Double
    /// The median of what they took.
    public var measuredSeconds: Double
    /// The median of measured ÷ predicted, load by load.
    public var ratio: Double

    /// Each argument is the property of that name.
    public init(
        tier: String, blocksMin: Int? = nil, blocksMax: Int? = nil, count: Int, predictedSeconds: Double,
        measuredSeconds: Double, ratio: Double
    ) {
        self.tier = tier
        self.blocksMin = blocksMin
        self.blocksMax = blocksMax
        self.count = count
        self.predictedSeconds = predictedSeconds
        self.measuredSeconds = measuredSeconds
        self.ratio = ratio
    }

    /// In words: "63 loads of 5 to 16 blocks took 1.20 ms at the median, 1.1 times the profile's 1.10 ms".
    public var words: String {
        let took = Printed.seconds(measuredSeconds, .table)
        let predicted = Printed.seconds(predictedSeconds, .table)
        let times = (ratio * 100).rounded() / 100
        var sizes = ""
        if let blocksMin, let blocksMax {
            sizes = blocksMin == blocksMax ? " of \(blocksMin) blocks" : " of \(blocksMin) to \(blocksMax) blocks"
        }
        return "\(count) load\(count == 1 ? "" : "s")\(sizes) took \(took.text) at the median, \(times) times the "
            + "profile's \(predicted.text)"
    }
}

/// One load, and what was said of it.
public struct PredictedLoad: Sendable {
    /// The tier that all blocks came from; nil: from several.
    public var tier: Tier?
    /// Blocks of it, from whatever tier.
    public var blocks: Int
    /// What it should have taken.
    public var predictedSeconds: Double
    /// What it took.
    public var measuredSeconds: Double

    /// Each argument is the property of that name.
    public init(tier: Tier?, blocks: Int, predictedSeconds: Double, measuredSeconds: Double) {
        self.tier = tier
        self.blocks = blocks
        self.predictedSeconds = predictedSeconds
        self.measuredSeconds = measuredSeconds
    }
}

extension LoadTimes {
    /// Fewer loads than these are no group of their own.
    private static let groupMin = 5

    /// Loads by tier, those from several last; each tier's whole first, then its loads by size: up to 4 blocks, 16, 64 and more.
    public static func rows(of loads: [PredictedLoad]) -> [LoadTimes] {
        var rows: [LoadTimes] = []
        for tier in [Tier.dram, .nvme, .flash, nil] {
            let all = loads.filter { $0.tier == tier && $0.predictedSeconds > 0 }
            guard !all.isEmpty else { continue }
            rows.append(LoadTimes(tier, all))
            let groups = [1...4, 5...16, 17...64, 65...Int.max].map { sizes in
                all.filter { sizes.contains($0.blocks) }
            }
            for group in groups where group.count >= groupMin && group.count < all.count {
                var row = LoadTimes(tier, group)
                row.blocksMin = group.map(\.blocks).min()
                row.blocksMax = group.map(\.blocks).max()
                rows.append(row)
            }
        }
        return rows
    }

    private init(_ tier: Tier?, _ loads: [PredictedLoad]) {
        func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
        self.init(
            tier: tier?.name ?? Self.several, count: loads.count,
            predictedSeconds: median(loads.map(\.predictedSeconds)),
            measuredSeconds: median(loads.map(\.measuredSeconds)),
            ratio: median(loads.map { $0.measuredSeconds / $0.predictedSeconds }))
    }
}
