// Frames as they are written: one growing buffer a connection, kept from frame to frame, so that a frame costs no
// allocation.

import KVModel
import KVSystem

/// A buffer of whole frames, and the primitives that bodies are written with.
@usableFromInline
package struct FrameWriter: Sendable {
    /// What was written and not yet taken away.
    @usableFromInline package internal(set) var bytes: [UInt8] = []

    /// An empty buffer.
    package init() {}

    /// Appends a frame: its header with lengths and checksums filled in, and the body that the closure writes.
    package mutating func frame(_ header: FrameHeader, body: (inout FrameWriter) -> Void) {
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: WireLimit.headerBytes))
        body(&self)
        var header = header
        let bodyStart = start + WireLimit.headerBytes
        header.bodyBytes = UInt32(bytes.count - bodyStart)
        precondition(header.bodyBytes <= WireLimit.bodyBytesMax, "a frame longer than the protocol allows")
        unsafe bytes.withUnsafeMutableBytes { all in
            header.bodyChecksum = unsafe headerChecksum(UnsafeRawBufferPointer(rebasing: all[bodyStart...]))
            unsafe header.write(to: UnsafeMutableRawBufferPointer(rebasing: all[start..<bodyStart]))
        }
    }

    /// Appends a frame of another protocol: room for its header, the body that the closure writes, then the header.
    package mutating func frame(
        headerBytes: Int, body: (inout FrameWriter) -> Void,
        header: (UnsafeMutableRawBufferPointer, _ bodyBytes: Int) -> Void
    ) {
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: headerBytes))
        body(&self)
        let bodyBytes = bytes.count - start - headerBytes
        unsafe bytes.withUnsafeMutableBytes { all in
            unsafe header(UnsafeMutableRawBufferPointer(rebasing: all[start..<(start + headerBytes)]), bodyBytes)
        }
    }

    /// Forgets everything, keeps the memory (up to `keptBytesMax`: one long listing must not stay for ever).
    package mutating func removeAll(keptBytesMax: Int = 1 << 18) {
        bytes.removeAll(keepingCapacity: bytes.capacity <= keptBytesMax)
    }

    /// Forgets the oldest bytes.
    package mutating func removeFirst(_ count: Int) { bytes.removeFirst(count) }

    /// A whole number, little-endian. Compiled where it is called, for the width at hand.
    @inlinable
    package mutating func integer<Word: FixedWidthInteger>(_ value: Word) {
        unsafe withUnsafeBytes(of: value.littleEndian) { unsafe bytes.append(contentsOf: $0) }
    }

    /// Bytes as they are.
    package mutating func raw(_ more: some Sequence<UInt8>) { bytes.append(contentsOf: more) }

    /// A length in two bytes and UTF-8.
    package mutating func text(_ text: String, bytesMax: Int = WireLimit.textBytesMax) {
        precondition(text.utf8.count <= bytesMax, "a name longer than the protocol allows")
        integer(UInt16(text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }

    /// A key in 32 bytes.
    package mutating func key(_ key: FullKey) {
        let words = (
            key.words.0.littleEndian, key.words.1.littleEndian, key.words.2.littleEndian, key.words.3.littleEndian
        )
        unsafe withUnsafeBytes(of: words) { unsafe bytes.append(contentsOf: $0) }
    }

    /// The keys of names, 32 bytes each.
    package mutating func keys(of names: [ObjectName]) {
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: 32 * names.count))
        unsafe bytes.withUnsafeMutableBytes { all in
            var place = unsafe all.baseAddress! + start
            for name in names {
                let words = (
                    name.key.words.0.littleEndian, name.key.words.1.littleEndian, name.key.words.2.littleEndian,
                    name.key.words.3.littleEndian
                )
                unsafe place.storeBytes(of: words, as: (UInt64, UInt64, UInt64, UInt64).self)
                unsafe place += 32
            }
        }
    }

    /// A name in 40 bytes.
    package mutating func name(_ name: ObjectName) {
        let rest = UInt64(name.group) | UInt64(name.shard) << 16 | UInt64(name.shardCount) << 32
        let words = (
            name.key.words.0.littleEndian, name.key.words.1.littleEndian, name.key.words.2.littleEndian,
            name.key.words.3.littleEndian, rest.littleEndian
        )
        unsafe withUnsafeBytes(of: words) { unsafe bytes.append(contentsOf: $0) }
    }

    /// A count in four bytes and the names.
    package mutating func names(_ names: [ObjectName]) {
        precondition(names.count <= WireLimit.batchCountMax, "more names than the protocol allows")
        integer(UInt32(names.count))
        bytes.reserveCapacity(bytes.count + 40 * names.count)
        for name in names { self.name(name) }
    }

    /// Metadata in 48 bytes.
    package mutating func metadata(_ metadata: ObjectMetadata) {
        key(metadata.parent)
        integer(metadata.session)
        integer(metadata.indexInChain)
        integer(UInt32(metadata.evictionClass))
    }

    /// A slot in 16 bytes.
    package mutating func slot(_ slot: RemoteSlot) {
        integer(slot.address)
        integer(slot.key)
        integer(slot.byteCount)
    }
}

/// Where in a client's memory a payload goes to or comes from. Over a stream only the length means something; where
/// the store moves payloads itself, the address and the key of the client's registration say where.
public struct RemoteSlot: Sendable, Equatable {
    /// The address as the client registered it.
    public var address: UInt64
    /// The registration's remote key.
    public var key: UInt32
    /// Bytes there are.
    public var byteCount: UInt32

    /// A slot of its parts.
    public init(address: UInt64 = 0, key: UInt32 = 0, byteCount: UInt32) {
        self.address = address
        self.key = key
        self.byteCount = byteCount
    }

    /// No slot.
    public static let none = RemoteSlot(byteCount: 0)
}
