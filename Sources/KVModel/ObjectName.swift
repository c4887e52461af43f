// The full name of what a store keeps, and what is known about it beside its bytes.

/// A block's whole identity: the 32 bytes of its SHA-256, as four little-endian words in byte order.
@frozen
public struct FullKey: Hashable, Sendable {
    /// Bytes 0–7, 8–15, 16–23, 24–31, each read little-endian.
    public var words: (UInt64, UInt64, UInt64, UInt64)

    /// A key of four words.
    @inlinable public init(_ first: UInt64, _ second: UInt64, _ third: UInt64, _ fourth: UInt64) {
        words = (first, second, third, fourth)
    }

    /// No block's key: stands for "no parent".
    public static let none = FullKey(0, 0, 0, 0)

    /// The first 128 bits, the name of a block in memory.
    @inlinable public var short: BlockKey { BlockKey(high: words.0.byteSwapped, low: words.1.byteSwapped) }

    /// The words by number, for code that walks them.
    @inlinable public subscript(index: Int) -> UInt64 {
        switch index {
        case 0: words.0
        case 1: words.1
        case 2: words.2
        default: words.3
        }
    }

    /// Word by word.
    @inlinable public static func == (left: FullKey, right: FullKey) -> Bool { left.words == right.words }

    /// All of it: keys come from peers, which may choose those that share a word.
    @inlinable public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
        hasher.combine(words.2)
        hasher.combine(words.3)
    }
}

/// An object: one shard (a rank's part) of one group of layers of one block.
@frozen
public struct ObjectName: Hashable, Sendable {
    /// The block.
    public var key: FullKey
    /// The group of layers, 0 where the engine has one.
    public var group: UInt16
    /// Which part this is, 0 ..< shardCount.
    public var shard: UInt16
    /// Into how many parts the engine cuts a block; 1 where one row holds all ranks.
    public var shardCount: UInt16

    /// A name of its parts.
    @inlinable public init(_ key: FullKey, group: UInt16 = 0, shard: UInt16 = 0, shardCount: UInt16 = 1) {
        self.key = key
        self.group = group
        self.shard = shard
        self.shardCount = shardCount
    }
}

/// What is kept with an object but is not its identity: used for leaf-first eviction, prediction and the ledger. A
/// missing parent degrades policy, never correctness.
@frozen
public struct ObjectMetadata: Hashable, Sendable {
    /// The block before it in its chain, `.none` for the first.
    public var parent: FullKey
    /// Its place in the chain, from 0.
    public var indexInChain: UInt32
    /// The eviction class its writer gave it: `perUserClass`, `sharedPrefixClass`, others as namespaces define them.
    public var evictionClass: UInt8
    /// One conversation's own state.
    public static let perUserClass: UInt8 = 0
    /// A prefix that many share: a system prompt, a template, a document.
    public static let sharedPrefixClass: UInt8 = 1
    /// The session that wrote it, 0 when unknown.
    public var session: UInt64

    /// Metadata of its parts.
    @inlinable public init(
        parent: FullKey = .none, indexInChain: UInt32 = 0, evictionClass: UInt8 = 0, session: UInt64 = 0
    ) {
        self.parent = parent
        self.indexInChain = indexInChain
        self.evictionClass = evictionClass
        self.session = session
    }
}
