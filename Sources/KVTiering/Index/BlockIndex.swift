// Which blocks are known, by key, and where they are: the block table with one word of location a block, as small as an index
// can be that says so. What tests and benchmarks hold the table to; a node knows more of a block (`KnownBlocks`).

import KVModel

/// Keys to dense block numbers, and from a number back to its key and location.
///
/// Memory: 24 bytes of record and about 11 of entry a block; with the 8 bytes of a list policy's links, about 43. How it
/// grows without a pause is told at `BlockTable`.
public struct BlockIndex: ~Copyable {
    private var table: BlockTable<LocatedBlock>

    /// What is kept of a block: 24 bytes.
    private struct LocatedBlock: KeyedRecord {
        var key: BlockKey
        /// The owner's; of a freed record, the number freed before it.
        var location: UInt64 = 0

        init(key: BlockKey) { self.key = key }

        var freedBefore: BlockNumber {
            get { BlockNumber(truncatingIfNeeded: location) }
            set { location = UInt64(newValue) }
        }
    }

    /// An empty index.
    ///
    /// - Parameter hashSeed: A number that those who choose keys cannot know.
    public init(hashSeed: UInt64 = 0) { table = BlockTable(hashSeed: hashSeed) }

    /// One with room for some blocks from the start; it grows beyond. For tests of the table below it.
    package init(expectedCount: Int) { table = BlockTable(expectedCount: expectedCount, hashSeed: 0) }

    /// How many blocks it holds.
    public var count: Int { table.count }
    /// All numbers given so far are below this.
    public var numberLimit: BlockNumber { table.numberLimit }
    /// Bytes it has allocated, all told.
    public var byteCount: Int { table.byteCount }
    /// How many blocks are outside their groups, where each search walks past all of them: keys of one hash.
    package var crowdedCount: Int { table.crowdedCount }
    package var segmentCount: Int { table.segmentCount }

    /// The number of the block with this key.
    public func find(_ key: BlockKey) -> BlockNumber? { table.find(key) }

    /// How many leading keys of a chain are known. Their numbers are appended to `numbers`, root first.
    public func longestRun(_ keys: Span<BlockKey>, into numbers: inout [BlockNumber]) -> Int {
        table.longestRun(keys, into: &numbers)
    }

    /// The key of a block that is held.
    public func key(of number: BlockNumber) -> BlockKey { table[number].key }

    /// What the owner keeps with a block: where it is, in words only the owner reads.
    public subscript(location number: BlockNumber) -> UInt64 {
        get { table[number].location }
        set { table[number].location = newValue }
    }

    /// The number of the block with this key, given now if the key is new. A new block's location is 0.
    public mutating func insert(_ key: BlockKey) -> (number: BlockNumber, isNew: Bool) { table.insert(key) }

    /// Appends the numbers of a chain's blocks to `numbers`, root first, given now where a key is new.
    public mutating func insert(_ keys: Span<BlockKey>, into numbers: inout [BlockNumber]) {
        table.insert(keys, into: &numbers)
    }

    /// Forgets a block; its number may be given again.
    public mutating func remove(_ number: BlockNumber) { table.remove(number) }
}
