// The name of a block while it is in memory.

/// A block's key in memory: the first 128 bits of its SHA-256 identity. Equal keys name equal prefixes.
///
/// Keys are compared in full wherever they are stored, and their bits are already uniformly spread, so a table
/// may take any of them as its hash.
@frozen
public struct BlockKey: Hashable, Comparable, Sendable {
    /// The first eight bytes, big-endian.
    public var high: UInt64
    /// The next eight bytes, big-endian.
    public var low: UInt64

    /// A key of two halves.
    @inlinable public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// The key that stands for block `number` of a trace that carries numbers instead of hashes: a fixed bijective
    /// mix of the number, so that different numbers of one `space` never collide.
    @inlinable public init(traceBlock number: UInt64, space: UInt64 = 0) {
        high = mixBits(number ^ (space &* 0x9E37_79B9_7F4A_7C15))
        low = mixBits(number &+ 0x632B_E59B_D9B4_E019 &+ space)
    }

    /// The order of the bytes.
    @inlinable public static func < (left: BlockKey, right: BlockKey) -> Bool {
        left.high != right.high ? left.high < right.high : left.low < right.low
    }
}

/// A bijection of 64-bit words whose every output bit depends on every input bit: the finaliser of SplitMix64
/// (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
@inlinable
public func mixBits(_ word: UInt64) -> UInt64 {
    var mixed = word
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
}

/// The dense number of a block in its owner's table: 0, 1, 2, … in order of first appearance. Arrays of per-block
/// state are indexed by it.
public typealias BlockNumber = UInt32
