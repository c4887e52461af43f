// The header of an object: the 4 KiB in the header area that make its extents an object. The byte offsets are those of
// the on-flash format document.

import KVModel

/// What a page of the header area says. The parser believes nothing: any bytes give one of these cases.
package enum HeaderContent: Sendable {
    /// Never written since the drive was formatted, or by an earlier formatting.
    case blank
    /// An object whose first extent this is.
    case object(FlashObject)
    /// An object was here and was erased by this generation.
    case tombstone(generation: UInt64)
    /// A header of this drive that cannot be believed.
    case damaged
}

/// Headers to bytes and back.
package enum BlockHeader {
    /// `HFBLOCK1` as a little-endian word.
    static let magic: UInt64 = 0x314B_434F_4C42_4648
    private static let objectKind: UInt32 = 1
    private static let tombstoneKind: UInt32 = 2
    private static let extentsOffset = 152
    /// No store counts so far: a header that says more was not written by one, and counting on from it would overflow.
    static let generationMax = UInt64(Int64.max)

    /// Writes the header of an object as a page of 4 KiB.
    package static func encode(_ object: FlashObject, drive: FlashUUID, into bytes: UnsafeMutableRawBufferPointer) {
        let page = unsafe PageWriter(bytes)
        begin(page, kind: objectKind, extent: object.extents[0], drive: drive, generation: object.generation)
        for index in 0..<4 {
            page.put(object.name.key[index], at: 40 + 8 * index)
            page.put(object.metadata.parent[index], at: 80 + 8 * index)
        }
        page.put(object.name.group, at: 72)
        page.put(object.name.shard, at: 74)
        page.put(object.name.shardCount, at: 76)
        page.put(object.metadata.evictionClass, at: 78)
        page.put(object.metadata.indexInChain, at: 112)
        page.put(UInt32(object.extents.count), at: 116)
        page.put(object.metadata.session, at: 120)
        page.put(object.namespace, at: 128)
        page.put(UInt64(object.payloadBytes), at: 136)
        page.put(object.checksum, at: 144)
        for index in 0..<object.extents.count { page.put(object.extents[index], at: extentsOffset + 4 * index) }
        page.seal()
    }

    /// Writes a tombstone for the header of `extent`.
    package static func encodeTombstone(
        extent: UInt32, drive: FlashUUID, generation: UInt64, into bytes: UnsafeMutableRawBufferPointer
    ) {
        let page = unsafe PageWriter(bytes)
        begin(page, kind: tombstoneKind, extent: extent, drive: drive, generation: generation)
        page.seal()
    }

    private static func begin(_ page: PageWriter, kind: UInt32, extent: UInt32, drive: FlashUUID, generation: UInt64) {
        page.put(magic, at: 0)
        page.put(kind, at: 8)
        page.put(extent, at: 12)
        page.put(drive.words.low, at: 16)
        page.put(drive.words.high, at: 24)
        page.put(generation, at: 32)
    }

    /// Reads the page at the header of `extent`.
    package static func decode(
        _ bytes: UnsafeRawBufferPointer, extent: UInt32, drive: FlashUUID, geometry: FlashGeometry
    ) -> HeaderContent {
        let page = unsafe PageReader(bytes)
        let hasMagic = page.get(UInt64.self, at: 0) == magic
        let isOurs = FlashUUID(page.get(UInt64.self, at: 16), page.get(UInt64.self, at: 24)) == drive
        // A page with neither is not ours; with one of them it was ours, or is, and something happened to it. A header
        // of an earlier formatting is whole and names another drive.
        guard hasMagic || isOurs else { return .blank }
        guard page.isSealed, hasMagic else { return .damaged }
        guard isOurs else { return .blank }
        guard page.get(UInt32.self, at: 12) == extent else { return .damaged }
        let generation = page.get(UInt64.self, at: 32)
        guard generation <= generationMax else { return .damaged }
        switch page.get(UInt32.self, at: 8) {
        case tombstoneKind: return .tombstone(generation: generation)
        case objectKind: return object(page, extent: extent, generation: generation, geometry: geometry)
        default: return .damaged
        }
    }

    /// The object of a page whose checksum holds. The rules are checked all the same: a checksum says that the bytes
    /// are those that were written, not that they make sense on this drive.
    private static func object(
        _ page: PageReader, extent: UInt32, generation: UInt64, geometry: FlashGeometry
    ) -> HeaderContent {
        let count = Int(page.get(UInt32.self, at: 116))
        let payloadBytes = Int(clamping: page.get(UInt64.self, at: 136))
        guard count >= 1, count <= ExtentList.countMax else { return .damaged }
        guard payloadBytes > (count - 1) * geometry.extentBytes, payloadBytes <= count * geometry.extentBytes
        else { return .damaged }
        var extents = ExtentList()
        for index in 0..<count {
            let number = page.get(UInt32.self, at: extentsOffset + 4 * index)
            guard number < geometry.extentCount, !extents.contains(number) else { return .damaged }
            extents.append(number)
        }
        guard extents[0] == extent else { return .damaged }
        let name = ObjectName(
            key(page, at: 40), group: page.get(UInt16.self, at: 72), shard: page.get(UInt16.self, at: 74),
            shardCount: page.get(UInt16.self, at: 76))
        guard name.shard < name.shardCount else { return .damaged }
        let metadata = ObjectMetadata(
            parent: key(page, at: 80), indexInChain: page.get(UInt32.self, at: 112),
            evictionClass: page.get(UInt8.self, at: 78), session: page.get(UInt64.self, at: 120))
        return .object(
            FlashObject(
                name: name, metadata: metadata, namespace: page.get(UInt64.self, at: 128), payloadBytes: payloadBytes,
                checksum: page.get(UInt64.self, at: 144), generation: generation, extents: extents))
    }

    private static func key(_ page: PageReader, at offset: Int) -> FullKey {
        FullKey(
            page.get(UInt64.self, at: offset), page.get(UInt64.self, at: offset + 8),
            page.get(UInt64.self, at: offset + 16), page.get(UInt64.self, at: offset + 24))
    }
}
