// What the fuzzer calls: one page, read as a superblock and as a block's header. The first byte chooses whether the page
// is sealed before it is read, because a checksum would keep nearly every input from the rules behind it.

import KVFlash
import KVModel
import KVSystem

private let drive = FlashUUID(1, 2)
private let geometry = try? FlashGeometry(totalBytes: 64 << 20, extentBytes: 64 << 10)

/// libFuzzer's entry. A crash, a trap, a sanitizer's finding or a result that breaks its promise is a failure.
@_cdecl("LLVMFuzzerTestOneInput")
public func readAsPage(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = UnsafeBufferPointer(start: start, count: count)
    guard let choice = input.first, let geometry else { return 0 }
    let page = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { page.deallocate() }
    page.initializeMemory(as: UInt8.self, repeating: 0)
    page.copyBytes(from: input.dropFirst().prefix(4096))
    if choice & 1 != 0 {
        let sum = headerChecksum(UnsafeRawBufferPointer(rebasing: page[0..<4092]))
        page.storeBytes(of: sum.littleEndian, toByteOffset: 4092, as: UInt32.self)
    }
    if case .superblock(let superblock) = Superblock.decode(UnsafeRawBufferPointer(page)) {
        precondition(superblock.geometry.extentsOffset < superblock.geometry.totalBytes, "the extents lie outside")
        precondition(superblock.identity.number < superblock.identity.count, "more drives than there are")
    }
    let extent = UInt32(choice >> 1)
    let content = BlockHeader.decode(UnsafeRawBufferPointer(page), extent: extent, drive: drive, geometry: geometry)
    if case .object(let object) = content {
        precondition(object.extents[0] == extent, "a header speaks of another extent")
        precondition(object.payloadBytes <= object.extents.count * geometry.extentBytes, "more bytes than room")
    }
    return 0
}
