// What a pass over all headers of a drive adds up to. Fed with pages in any order; finds the headers that outlived
// their data.

import KVModel

/// Sorts headers into kinds, and finds valid ones whose extents a newer one claims. That cannot come from a crash: it
/// takes a device that lost a tombstone it had acknowledged, or a header that could not be read at one restart, was
/// thought gone, and can be read at the next.
///
/// An object is void when any of its extents is also claimed by a header of a higher generation, whether that one is void
/// itself or not: its writer has written there later. So each extent remembers the highest claim, and the order in which
/// headers come does not matter.
package struct HeaderCensus {
    private let superblock: Superblock
    private var summary = ScanSummary()
    /// For each extent, the first extent of the object with the highest claim, plus one; 0 for none.
    private var claims: [UInt32]
    /// For each extent that is the first of an object, its generation.
    private var generations: [UInt64]
    private var voids: Set<UInt32> = []

    /// Nothing seen yet.
    package init(superblock: Superblock) {
        self.superblock = superblock
        let count = superblock.geometry.extentCount
        claims = [UInt32](repeating: 0, count: count)
        generations = [UInt64](repeating: 0, count: count)
    }

    /// A page that cannot be read.
    mutating func unreadable(_ extent: UInt32, _ body: (ScanEvent) -> Void) {
        summary.damagedCount += 1
        body(.damaged(extent: extent))
    }

    /// Takes consecutive pages, the first of which is the header of `first`.
    package mutating func add(_ bytes: UnsafeRawBufferPointer, from first: UInt32, _ body: (ScanEvent) -> Void) {
        let pageBytes = FlashGeometry.headerBytes
        for index in 0..<(bytes.count / pageBytes) {
            let page = unsafe UnsafeRawBufferPointer(rebasing: bytes[(index * pageBytes)..<((index + 1) * pageBytes)])
            let extent = first + UInt32(index)
            let content = unsafe BlockHeader.decode(
                page, extent: extent, drive: superblock.identity.drive, geometry: superblock.geometry)
            switch content {
            case .blank: summary.blankCount += 1
            case .damaged: unreadable(extent, body)
            case .tombstone(let generation):
                summary.tombstoneCount += 1
                summary.generationMax = max(summary.generationMax, generation)
            case .object(let object): add(object, body)
            }
        }
    }

    private mutating func add(_ object: FlashObject, _ body: (ScanEvent) -> Void) {
        let first = object.extents[0]
        summary.objectCount += 1
        summary.generationMax = max(summary.generationMax, object.generation)
        generations[Int(first)] = object.generation
        for index in 0..<object.extents.count {
            let extent = Int(object.extents[index])
            guard claims[extent] != 0 else {
                claims[extent] = first + 1
                continue
            }
            let other = claims[extent] - 1
            let otherGeneration = generations[Int(other)]
            // Of two equal generations neither can be believed; no store writes them.
            if otherGeneration >= object.generation { voids.insert(first) }
            if otherGeneration <= object.generation { voids.insert(other) }
            if otherGeneration < object.generation { claims[extent] = first + 1 }
        }
        if !voids.contains(first) { body(.object(object)) }
    }

    /// Tells of the void headers, and what was counted.
    package mutating func finish(_ body: (ScanEvent) -> Void) -> ScanSummary {
        for extent in voids.sorted() { body(.void(firstExtent: extent)) }
        summary.objectCount -= voids.count
        summary.voidCount = voids.count
        return summary
    }
}
