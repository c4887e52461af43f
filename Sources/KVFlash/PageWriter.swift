// Little-endian fields of a 4 KiB page, the form of superblocks and headers.

import KVSystem

/// A page that is written field by field. It lies over memory that its maker keeps alive.
@safe
struct PageWriter {
    private let bytes: UnsafeMutableRawBufferPointer

    /// A page of zeros over `bytes`.
    init(_ bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == FlashGeometry.headerBytes, "a page that is not 4 KiB")
        unsafe self.bytes = bytes
        _ = unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    func put<Word: FixedWidthInteger>(_ word: Word, at offset: Int) {
        unsafe bytes.storeBytes(of: word.littleEndian, toByteOffset: offset, as: Word.self)
    }

    /// Closes the page: the last four bytes become the CRC32C of all before them.
    func seal() {
        let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[0..<(bytes.count - 4)])
        unsafe put(headerChecksum(covered), at: bytes.count - 4)
    }
}

/// A page that is read field by field.
@safe
struct PageReader {
    private let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == FlashGeometry.headerBytes, "a page that is not 4 KiB")
        unsafe self.bytes = bytes
    }

    func get<Word: FixedWidthInteger>(_: Word.Type, at offset: Int) -> Word {
        unsafe Word(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Word.self))
    }

    /// Whether the last four bytes are the CRC32C of all before them.
    var isSealed: Bool {
        let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[0..<(bytes.count - 4)])
        return unsafe headerChecksum(covered) == get(UInt32.self, at: bytes.count - 4)
    }
}
