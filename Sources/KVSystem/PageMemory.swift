// Memory for blocks: page-aligned, on huge pages where the machine has them, given back when its owner goes.

import CKernel

/// A private mapping. Huge pages are worth more to a ring than any choice of engine: one block touches one
/// translation instead of 512.
@safe
public struct PageMemory: ~Copyable, @unchecked Sendable {
    /// The bytes, at least as many as were asked for. Valid while the value lives; zero at first.
    public let bytes: UnsafeMutableRawBufferPointer
    /// Bytes of the pages it lies on: 2 MiB or 4 KiB.
    public let pageBytes: Int

    /// Maps memory.
    ///
    /// - Parameter wantsHugePages: Reserved huge pages first, then transparent ones, then ordinary pages; never an
    ///   error for lack of huge ones.
    public init(byteCount: Int, wantsHugePages: Bool = true) throws(SystemError) {
        precondition(byteCount > 0, "memory of no bytes")
        var address: UnsafeMutableRawPointer?
        var mapped = 0
        var page = 0
        let result = unsafe hf_map_pages(byteCount, wantsHugePages ? 1 : 0, &address, &mapped, &page)
        _ = try checked(result, "map \(byteCount) bytes of memory")
        unsafe bytes = UnsafeMutableRawBufferPointer(start: address, count: mapped)
        pageBytes = page
    }

    deinit { _ = unsafe hf_unmap(bytes.baseAddress!, bytes.count) }
}
