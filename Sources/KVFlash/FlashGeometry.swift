// Where things are on a drive. All of it follows from two numbers, the bytes a drive may use and the bytes of an extent,
// so a superblock whose parts disagree is a damaged one.

/// The layout of a drive: superblocks | header area | extents.
///
/// Headers are apart from the extents, so a 2 MiB block takes 2 MiB, and a restart reads one run of 4 KiB an extent.
public struct FlashGeometry: Sendable, Equatable {
    /// Bytes of a header, and of a superblock.
    public static let headerBytes = 4096
    /// Where the two copies of the superblock are. They are apart, so that a stray write of a few sectors hits one.
    public static let superblockOffsets = [0, 64 << 10]
    /// Where the first header is.
    public static let headerAreaOffset = 128 << 10
    /// What the bytes of an extent are a multiple of.
    public static let extentUnit = 64 << 10
    /// The most bytes of an extent.
    public static let extentBytesMax = 16 << 20

    /// The bytes the drive may use; it touches none past them.
    public let totalBytes: Int
    /// Bytes of payload in an extent.
    public let extentBytes: Int
    /// How many extents there are: as many as fit with their headers.
    public let extentCount: Int
    /// Where the first extent is: a multiple of 1 MiB, of 64 KiB when extents are smaller than that.
    public let extentsOffset: Int

    /// The layout of a drive of `totalBytes`. Extents have 64 KiB to 16 MiB, a multiple of 64 KiB.
    public init(totalBytes: Int, extentBytes: Int) throws(FlashError) {
        guard extentBytes >= Self.extentUnit, extentBytes <= Self.extentBytesMax, extentBytes % Self.extentUnit == 0
        else { throw .geometry("extents of \(extentBytes) bytes; from 64 KiB to 16 MiB in steps of 64 KiB") }
        let alignment = extentBytes >= 1 << 20 ? 1 << 20 : Self.extentUnit
        func offset(_ count: Int) -> Int {
            (Self.headerAreaOffset + count * Self.headerBytes + alignment - 1) / alignment * alignment
        }
        var count = max(0, totalBytes - Self.headerAreaOffset) / (extentBytes + Self.headerBytes)
        count = min(count, Int(UInt32.max) / 2)
        while count > 0, offset(count) + count * extentBytes > totalBytes { count -= 1 }
        guard count > 0 else {
            throw .geometry(
                "\(totalBytes) bytes are too few for one extent of \(extentBytes) bytes; at least "
                    + "\(offset(1) + extentBytes)")
        }
        self.totalBytes = totalBytes
        self.extentBytes = extentBytes
        extentCount = count
        extentsOffset = offset(count)
    }

    /// How many extents a payload takes.
    public func extentCount(forPayload bytes: Int) -> Int { (bytes + extentBytes - 1) / extentBytes }

    /// The largest payload of one object.
    public var payloadBytesMax: Int { min(ExtentList.countMax, extentCount) * extentBytes }

    /// Where an extent starts.
    public func offset(ofExtent extent: UInt32) -> Int {
        precondition(extent < extentCount, "an extent past the end of its drive")
        return extentsOffset + Int(extent) * extentBytes
    }

    /// Where the header of an object is whose first extent this is.
    public func headerOffset(ofExtent extent: UInt32) -> Int {
        precondition(extent < extentCount, "an extent past the end of its drive")
        return Self.headerAreaOffset + Int(extent) * Self.headerBytes
    }
}
