// The two checksums of the project. A block's guards against accident, not malice.

import CChecksum
import KVModel

/// CRC-64/XZ (reflected ECMA-182), taken over several pieces in turn: the checksum of blocks.
@frozen
public struct BlockChecksum: Sendable, Equatable {
    /// The checksum of what was added so far.
    public private(set) var value: UInt64 = 0

    /// Of nothing yet.
    public init() {}

    /// Goes on over `bytes`.
    public mutating func add(_ bytes: UnsafeRawBufferPointer) {
        guard let start = bytes.baseAddress else { return }
        value = unsafe hf_crc64(value, start, bytes.count)
    }

    /// Copies `source` to `target` (as long) and goes on over the source, piece by piece while it is in the cache. A
    /// long block goes past the cache to its target, which makes the copy faster than one without a checksum that does
    /// not. Bytes that somebody changes meanwhile may be copied as they were and summed as they are: such a block fails
    /// when it is next verified.
    public mutating func copy(_ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer) {
        precondition(source.count == target.count, "a copy between different lengths")
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        value = unsafe hf_copy_crc64(value, to, from, source.count)
    }

    /// The start of an object's checksum: key ‖ group ‖ shard ‖ shard count ‖ length, so that a misplaced, stale or
    /// truncated object fails even if its bytes are intact. The payload's bytes follow.
    public static func begin(_ name: ObjectName, payloadBytes: Int) -> BlockChecksum {
        var checksum = BlockChecksum()
        var words = (
            name.key[0].littleEndian, name.key[1].littleEndian, name.key[2].littleEndian, name.key[3].littleEndian,
            (UInt64(name.group) | UInt64(name.shard) << 16 | UInt64(name.shardCount) << 32).littleEndian,
            UInt64(payloadBytes).littleEndian
        )
        unsafe withUnsafeBytes(of: &words) { unsafe checksum.add($0) }
        return checksum
    }

    /// The checksum of a whole object.
    public static func of(_ name: ObjectName, _ payload: UnsafeRawBufferPointer) -> UInt64 {
        var checksum = begin(name, payloadBytes: payload.count)
        unsafe checksum.add(payload)
        return checksum.value
    }
}

/// Copies `source` to `target` (as long), past the cache where it is long.
public func copyBlock(_ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer) {
    precondition(source.count == target.count, "a copy between different lengths")
    guard let from = source.baseAddress, let to = target.baseAddress else { return }
    unsafe hf_copy(to, from, source.count)
}

/// CRC32C (Castagnoli) of small headers.
public func headerChecksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    guard let start = bytes.baseAddress else { return 0 }
    return unsafe hf_crc32c(0, start, bytes.count)
}

/// Whether ISA-L does the checksums; without it they are right and about a tenth as fast.
public var checksumsAreAccelerated: Bool { hf_checksum_is_accelerated() == 1 }
