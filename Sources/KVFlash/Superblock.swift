// What a drive says about itself: who it is, and its layout. The byte offsets are those of the on-flash format document.

import CKernel
import KVSystem

/// 128 random bits that name a drive or a store.
public struct FlashUUID: Hashable, Sendable, CustomStringConvertible {
    /// Bytes 0–7 and 8–15, each read little-endian.
    public var words: (low: UInt64, high: UInt64)

    /// A name of two words.
    public init(_ low: UInt64, _ high: UInt64) { words = (low, high) }

    /// A new name from the kernel's random source.
    public static func random() throws(SystemError) -> FlashUUID {
        var words: (UInt64, UInt64) = (0, 0)
        let result = unsafe withUnsafeMutableBytes(of: &words) { unsafe hf_random($0.baseAddress, $0.count) }
        _ = try checked(result, "read random bytes")
        return FlashUUID(words.0, words.1)
    }

    /// Word by word.
    public static func == (left: FlashUUID, right: FlashUUID) -> Bool { left.words == right.words }

    /// Both words.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(words.low)
        hasher.combine(words.high)
    }

    /// 32 hexadecimal digits, in the order of the bytes.
    public var description: String {
        [words.low, words.high].map { word in
            let digits = String(word.byteSwapped, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}

/// Who a drive is.
public struct DriveIdentity: Sendable, Equatable {
    /// The most drives that a store may have.
    public static let countMax = 255

    /// The drive: new at every formatting, and in every header, so that what an earlier formatting left is not taken
    /// for ours, nor what belongs to another drive.
    public var drive: FlashUUID
    /// The store it belongs to.
    public var store: FlashUUID
    /// Which of the store's drives it is, from 0.
    public var number: Int
    /// How many drives the store has.
    public var count: Int

    /// An identity of its parts.
    public init(drive: FlashUUID, store: FlashUUID, number: Int = 0, count: Int = 1) {
        self.drive = drive
        self.store = store
        self.number = number
        self.count = count
    }
}

/// The first page of a drive, kept twice.
public struct Superblock: Sendable, Equatable {
    /// The version of the format that this program writes and reads.
    public static let version: UInt32 = 1
    /// `HFDRIVE1` as a little-endian word.
    static let magic: UInt64 = 0x3145_5649_5244_4648

    /// Who the drive is.
    public var identity: DriveIdentity
    /// How it is laid out.
    public var geometry: FlashGeometry

    /// A superblock of its parts.
    public init(identity: DriveIdentity, geometry: FlashGeometry) {
        self.identity = identity
        self.geometry = geometry
    }

    /// Writes it as a page of 4 KiB.
    package func encode(into bytes: UnsafeMutableRawBufferPointer) {
        let page = unsafe PageWriter(bytes)
        page.put(Self.magic, at: 0)
        page.put(Self.version, at: 8)
        page.put(identity.drive.words.low, at: 16)
        page.put(identity.drive.words.high, at: 24)
        page.put(identity.store.words.low, at: 32)
        page.put(identity.store.words.high, at: 40)
        page.put(UInt32(identity.number), at: 48)
        page.put(UInt32(identity.count), at: 52)
        page.put(UInt32(FlashGeometry.headerBytes), at: 56)
        page.put(UInt32(geometry.extentBytes), at: 60)
        page.put(UInt64(geometry.extentCount), at: 64)
        page.put(UInt64(FlashGeometry.headerAreaOffset), at: 72)
        page.put(UInt64(geometry.extentsOffset), at: 80)
        page.put(UInt64(geometry.totalBytes), at: 88)
        page.seal()
    }

    /// What a page says.
    package enum Content: Equatable {
        /// A superblock.
        case superblock(Superblock)
        /// No superblock: the magic is missing.
        case absent
        /// One of a later format.
        case unknownVersion(UInt32)
        /// One that cannot be believed, and why.
        case damaged(String)
    }

    /// Reads a page of 4 KiB.
    package static func decode(_ bytes: UnsafeRawBufferPointer) -> Content {
        let page = unsafe PageReader(bytes)
        guard page.get(UInt64.self, at: 0) == magic else { return .absent }
        guard page.isSealed else { return .damaged("its checksum does not match") }
        let version = page.get(UInt32.self, at: 8)
        guard version == Self.version else { return .unknownVersion(version) }
        let identity = DriveIdentity(
            drive: FlashUUID(page.get(UInt64.self, at: 16), page.get(UInt64.self, at: 24)),
            store: FlashUUID(page.get(UInt64.self, at: 32), page.get(UInt64.self, at: 40)),
            number: Int(page.get(UInt32.self, at: 48)), count: Int(page.get(UInt32.self, at: 52)))
        guard identity.number < identity.count, identity.count <= DriveIdentity.countMax else {
            return .damaged("drive \(identity.number) of \(identity.count)")
        }
        let geometry: FlashGeometry
        do {
            geometry = try FlashGeometry(
                totalBytes: Int(clamping: page.get(UInt64.self, at: 88)),
                extentBytes: Int(page.get(UInt32.self, at: 60)))
        } catch { return .damaged("\(error)") }
        guard
            page.get(UInt32.self, at: 56) == UInt32(FlashGeometry.headerBytes),
            page.get(UInt64.self, at: 64) == UInt64(geometry.extentCount),
            page.get(UInt64.self, at: 72) == UInt64(FlashGeometry.headerAreaOffset),
            page.get(UInt64.self, at: 80) == UInt64(geometry.extentsOffset)
        else { return .damaged("its layout does not follow from its size") }
        return .superblock(Superblock(identity: identity, geometry: geometry))
    }

    /// Checks that drives make up one store: none of another store, none missing, none twice.
    ///
    /// - Parameter needsAll: Whether a drive that is missing is an error.
    /// - Returns: The numbers of the drives that are missing.
    @discardableResult
    public static func check(
        _ drives: [(path: String, superblock: Superblock)], needsAll: Bool = true
    ) throws(FlashError) -> [Int] {
        guard let first = drives.first else { throw .mixedDrives("no drives are named") }
        let wanted = first.superblock.identity
        var owners = [String?](repeating: nil, count: wanted.count)
        for (path, superblock) in drives {
            let identity = superblock.identity
            guard identity.store == wanted.store else {
                throw .mixedDrives(
                    "\(path) belongs to store \(identity.store), \(first.path) to store \(wanted.store)")
            }
            guard identity.count == wanted.count else {
                throw .mixedDrives("\(path) is of \(identity.count) drives, \(first.path) of \(wanted.count)")
            }
            if let other = owners[identity.number] {
                throw .mixedDrives("\(path) and \(other) both are drive \(identity.number) of the store")
            }
            owners[identity.number] = path
        }
        let missing = owners.indices.filter { owners[$0] == nil }
        guard missing.isEmpty || !needsAll else {
            let numbers = missing.map(String.init).joined(separator: ", ")
            throw .mixedDrives("drive \(numbers) of the store's \(wanted.count) is missing")
        }
        return missing
    }
}
