// Where a block can be, and why a turn ended.

/// A place that holds KV blocks, nearest to the GPU first.
public enum Tier: UInt8, CaseIterable, Comparable, Sendable, Codable {
    /// GPU memory (G1): a hit needs no copy.
    case hbm
    /// Memory of the node (G2).
    case dram
    /// Flash of the node (G3).
    case nvme
    /// The shared flash store (G3.5), reached over the network.
    case flash

    /// The name used in files, options and reports.
    public var name: String {
        switch self {
        case .hbm: "hbm"
        case .dram: "dram"
        case .nvme: "nvme"
        case .flash: "flash"
        }
    }

    /// Nearer to the GPU comes first.
    public static func < (left: Tier, right: Tier) -> Bool { left.rawValue < right.rawValue }
}

/// Why a turn of a conversation ended, as far as it is known. It is known only after the turn ended.
public enum StopReason: UInt8, Sendable, Codable {
    /// Nobody said.
    case unknown
    /// The model asked for a tool; the next turn usually follows within seconds.
    case toolUse
    /// The model waits for a person.
    case endTurn
    /// Nothing goes on from here: a sub-agent is done, an attempt was thrown away.
    case branchEnded
}
