// Which blocks of a workload something is true of: one bit each.

import KVModel

/// A set of block numbers below a fixed count.
package struct BlockSet {
    private var words: [UInt64]

    package init(count: Int) { words = Array(repeating: 0, count: (count + 63) / 64) }

    package func contains(_ block: BlockNumber) -> Bool { words[Int(block >> 6)] & (1 << UInt64(block & 63)) != 0 }

    /// Makes room for block numbers below `count`.
    package mutating func reserve(_ count: Int) {
        while words.count * 64 < count { words.append(0) }
    }

    /// Adds the blocks of the path from one place on.
    package mutating func insert(_ path: Span<BlockNumber>, from first: Int) {
        for index in first..<path.count { words[Int(path[index] >> 6)] |= 1 << UInt64(path[index] & 63) }
    }

    /// How many leading blocks of the path are in a set that only ever took whole paths.
    package func run(_ path: Span<BlockNumber>) -> Int { PrefixCache.run(path.count) { contains(path[$0]) } }
}
