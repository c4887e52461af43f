// Why a block is, or is not, where it is: for operators who ask.

import KVModel

/// What a node knows of one block.
public struct BlockStory: Sendable, Codable, Equatable {
    /// Tiers in which it can be found; of the shared store, what it last said.
    public var tiers: [String]
    /// What last happened to it when it left: `evicted`, `refused`, `lost`, `corrupt`, `quota`, `noTier` or `none`.
    public var fate: String
    /// Whether the policies of node memory and of local flash keep it.
    public var isKeptInMemory: Bool
    /// See `isKeptInMemory`.
    public var isKeptOnFlash: Bool
    /// Whether it is on its way into node memory or local flash, was brought up on a prediction, or is promised to the store.
    public var isFilling: Bool
    /// See `isFilling`.
    public var isPredicted: Bool
    /// See `isFilling`.
    public var isPromised: Bool
    /// Transfers, offers and requests that hold its slot in node memory.
    public var holders: Int
    /// Requests that used it.
    public var uses: Int
    /// Its place in its chain.
    public var depth: Int
    /// How long ago the store was last heard of it, or −1.
    public var storeHeardSeconds: Double
}

extension TieringManager {
    /// What is known of a block; nil when nothing is, or not any more.
    public func story(of key: BlockKey) -> BlockStory? {
        guard let block = known.find(key) else { return nil }
        let record = known[block]
        let heard = record.flash == .unknown ? -1 : Double(milliseconds &- record.flashHeard) / 1000
        return BlockStory(
            tiers: whereabouts(key).map(\.name), fate: "\(record.fate)",
            isKeptInMemory: record.flags.contains(.keptInDRAM), isKeptOnFlash: record.flags.contains(.keptOnNVMe),
            isFilling: record.dram == .filling || record.nvme == .filling,
            isPredicted: record.flags.contains(.predicted), isPromised: record.flags.contains(.promised),
            holders: Int(record.dramReaders), uses: Int(record.uses), depth: Int(record.depth),
            storeHeardSeconds: heard)
    }
}
