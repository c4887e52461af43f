// The cache that never evicts: what an endless tier would hit. It is a ceiling, not a tier one can buy.

// What `TierPolicy` documents is not documented again at each policy.
// swift-format-ignore-file: AllPublicDeclarationsHaveDocumentation

import KVModel

/// Keeps every block it has seen.
public struct InfinitePolicy: TierPolicy {
    private var seen: [Bool] = []
    public private(set) var residentCount = 0

    /// An empty cache without end.
    public init() {}

    /// More blocks than any number can name.
    public var capacity: Int { Int.max }

    public func isResident(_ block: BlockNumber) -> Bool { Int(block) < seen.count && seen[Int(block)] }

    public mutating func access(
        _ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        for position in path.indices {
            let block = Int(path[position])
            seen.extend(to: block + 1, with: false)
            if !seen[block] {
                seen[block] = true
                residentCount += 1
            }
        }
    }

    /// Nothing is ever evicted, so nothing needs a pin.
    public mutating func pin(_ block: BlockNumber) {}
    public mutating func unpin(_ block: BlockNumber) {}

    public mutating func remove(_ block: BlockNumber) {
        guard isResident(block) else { return }
        seen[Int(block)] = false
        residentCount -= 1
    }
}
