// Memory that engines may be given once and refer to by offset: rings register it as fixed buffers, queue pairs as
// memory regions, sockets receive straight into it.

/// A part of a `BlockMemory`.
@frozen
public struct MemorySlice: Hashable, Sendable {
    /// Which region.
    public var region: Int32
    /// Where in the region, bytes.
    public var offset: Int
    /// How many bytes.
    public var count: Int

    /// A slice of its parts.
    @inlinable public init(region: Int32 = 0, offset: Int, count: Int) {
        self.region = region
        self.offset = offset
        self.count = count
    }

    /// The first `count` bytes of it.
    @inlinable public func prefix(_ count: Int) -> MemorySlice {
        precondition(count <= self.count, "a prefix longer than its slice")
        return MemorySlice(region: region, offset: offset, count: count)
    }
}

/// A few large regions that never move while the value lives.
///
/// It hands out addresses, not exclusive access: who may touch which slice when is the business of its owner, whose
/// tables say who holds a slot. That is why it is `@unchecked Sendable`.
@safe
public final class BlockMemory: @unchecked Sendable {
    /// The regions, page-aligned.
    public let regions: [UnsafeMutableRawBufferPointer]
    private let release: @Sendable () -> Void

    /// Regions owned by someone else, who is told when nobody uses them any more.
    public init(regions: [UnsafeMutableRawBufferPointer], release: @escaping @Sendable () -> Void) {
        unsafe self.regions = regions
        self.release = release
    }

    /// One region of private memory, on huge pages where there are any.
    public convenience init(byteCount: Int, wantsHugePages: Bool = true) throws(SystemError) {
        let pages = try PageMemory(byteCount: byteCount, wantsHugePages: wantsHugePages)
        let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: pages.bytes[0..<byteCount])
        let holder = Holder(pages)
        unsafe self.init(regions: [bytes], release: { _ = holder })
    }

    deinit { release() }

    /// The bytes of a slice.
    public subscript(slice: MemorySlice) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            rebasing: regions[Int(slice.region)][slice.offset..<(slice.offset + slice.count)])
    }

    private final class Holder: Sendable {
        let pages: PageMemory
        init(_ pages: consuming PageMemory) { self.pages = pages }
    }
}
