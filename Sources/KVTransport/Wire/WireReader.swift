// Bodies as they are read: each field by name, so that an error says which one and where. Nothing is believed: every
// length is checked against what is there before anything is reserved for it.

import KVModel
import KVSystem

/// Reads the fields of one body in order. It borrows the bytes: it must not outlive the call it was made in.
@safe
@usableFromInline
package struct WireReader {
    @usableFromInline let bytes: UnsafeRawBufferPointer
    @usableFromInline let headerBytes: Int
    @usableFromInline var offset = 0

    /// A reader at the start of a body, which stands behind a header.
    package init(_ bytes: UnsafeRawBufferPointer, behind headerBytes: Int = WireLimit.headerBytes) {
        unsafe self.bytes = bytes
        self.headerBytes = headerBytes
    }

    @usableFromInline var place: Int { headerBytes + offset }

    /// Bytes that were not read yet.
    package var remainingBytes: Int { unsafe bytes.count - offset }

    /// An error at the field that comes next.
    @usableFromInline
    package func error(_ kind: FrameError.Kind) -> FrameError { FrameError(kind, at: place) }

    @inlinable
    mutating func take(_ count: Int, _ field: String) throws(FrameError) -> UnsafeRawBufferPointer {
        guard unsafe count <= bytes.count - offset else { throw error(.truncated(field)) }
        defer { offset += count }
        return unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + count)])
    }

    /// A whole number, little-endian. Compiled where it is called, for the width at hand.
    @inlinable
    package mutating func integer<Word: FixedWidthInteger>(
        _: Word.Type = Word.self, _ field: String
    ) throws(FrameError) -> Word {
        let part = unsafe try take(MemoryLayout<Word>.size, field)
        return Word(littleEndian: unsafe part.loadUnaligned(as: Word.self))
    }

    /// That many bytes.
    package mutating func raw(_ count: Int, _ field: String) throws(FrameError) -> [UInt8] {
        unsafe Array(try take(count, field))
    }

    /// All bytes that are left.
    package mutating func rest() -> [UInt8] {
        defer { offset = unsafe bytes.count }
        return unsafe Array(bytes[offset...])
    }

    /// A length in two bytes and UTF-8.
    package mutating func text(
        _ field: String, bytesMax: Int = WireLimit.textBytesMax
    ) throws(FrameError) -> String {
        let count = try integer(UInt16.self, field)
        guard count <= bytesMax else { throw error(.tooLong(field, UInt64(count))) }
        let part = unsafe try take(Int(count), field)
        guard let text = unsafe String(validating: part, as: UTF8.self) else {
            offset -= Int(count)
            throw error(.text(field))
        }
        return text
    }

    /// A key in 32 bytes.
    package mutating func key(_ field: String) throws(FrameError) -> FullKey {
        let part = unsafe try take(32, field)
        return unsafe Self.key(part, 0)
    }

    /// The names of objects of one group and shard, by their keys of 32 bytes each.
    package mutating func names(
        _ count: Int, group: UInt16, shard: UInt16, shardCount: UInt16, _ field: String
    ) throws(FrameError) -> [ObjectName] {
        let part = unsafe try take(32 * count, field)
        return unsafe Array(unsafeUninitializedCapacity: count) { names, named in
            for index in 0..<count {
                let name = ObjectName(
                    unsafe Self.key(part, 32 * index), group: group, shard: shard, shardCount: shardCount)
                unsafe names.initializeElement(at: index, to: name)
            }
            named = count
        }
    }

    @inline(__always)
    private static func key(_ part: UnsafeRawBufferPointer, _ start: Int) -> FullKey {
        func word(_ index: Int) -> UInt64 {
            UInt64(littleEndian: unsafe part.loadUnaligned(fromByteOffset: start + 8 * index, as: UInt64.self))
        }
        return FullKey(word(0), word(1), word(2), word(3))
    }

    /// A name in 40 bytes.
    package mutating func name(_ field: String) throws(FrameError) -> ObjectName {
        let part = unsafe try take(40, field)
        let rest = UInt64(littleEndian: unsafe part.loadUnaligned(fromByteOffset: 32, as: UInt64.self))
        let name = ObjectName(
            unsafe Self.key(part, 0), group: UInt16(truncatingIfNeeded: rest),
            shard: UInt16(truncatingIfNeeded: rest >> 16), shardCount: UInt16(truncatingIfNeeded: rest >> 32))
        guard rest >> 48 == 0, name.shard < name.shardCount else {
            offset -= 8
            throw error(.value("\(field)'s shard", rest))
        }
        return name
    }

    /// A count in four bytes and as many of something as it says.
    package mutating func list<Element>(
        _ field: String, bytesEach: Int, _ read: (inout WireReader) throws(FrameError) -> Element
    ) throws(FrameError) -> [Element] {
        let count = Int(try integer(UInt32.self, field))
        guard count <= WireLimit.batchCountMax else { throw error(.tooLong(field, UInt64(count))) }
        guard unsafe count * bytesEach <= bytes.count - offset else { throw error(.truncated(field)) }
        var elements: [Element] = []
        elements.reserveCapacity(count)
        for _ in 0..<count { elements.append(try read(&self)) }
        return elements
    }

    /// A count in four bytes and the names.
    package mutating func names(_ field: String) throws(FrameError) -> [ObjectName] {
        try list(field, bytesEach: 40) { reader throws(FrameError) in try reader.name(field) }
    }

    /// Metadata in 48 bytes.
    package mutating func metadata() throws(FrameError) -> ObjectMetadata {
        let parent = try key("parent")
        let session = try integer(UInt64.self, "session")
        let index = try integer(UInt32.self, "index in chain")
        let evictionClass = try integer(UInt32.self, "eviction class")
        guard let evictionClass = UInt8(exactly: evictionClass) else {
            offset -= 4
            throw error(.value("eviction class", UInt64(evictionClass)))
        }
        return ObjectMetadata(
            parent: parent, indexInChain: index, evictionClass: evictionClass, session: session)
    }

    /// A slot in 16 bytes.
    package mutating func slot() throws(FrameError) -> RemoteSlot {
        RemoteSlot(
            address: try integer(UInt64.self, "slot address"), key: try integer(UInt32.self, "slot key"),
            byteCount: try integer(UInt32.self, "slot length"))
    }

    /// Says that the last field was read.
    package func end() throws(FrameError) {
        guard unsafe offset == bytes.count else { throw error(.trailing(bytes: unsafe bytes.count - offset)) }
    }
}
