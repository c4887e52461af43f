// Extents that hold nothing and whose device has not been told.

import KVModel

/// The extents to be trimmed: a bit an extent, so that a late hint can be taken back when the extent is used again.
struct DiscardList {
    private var bits: [UInt64]
    private let extentCount: Int
    /// The longest run of one request. A write to what is being discarded waits for all of it, and devices differ by a thousand in
    /// how fast they discard.
    private let runMax: Int
    /// How many wait, those that the device is discarding included.
    private(set) var count = 0
    private var cursor = 0
    private var underWay: Range<UInt32>?
    private var began = Instant.zero
    /// Whether the device has not ended a discard in time; it gets no further hints.
    private(set) var isOverdue = false
    /// Which way of discarding the device is believed to know; there are two.
    private(set) var way: Int32 = 0
    private static let wayCount: Int32 = 2
    private static let bytesMax = 1 << 30

    /// None. A device that takes no hints has room for none.
    init(extentCount: Int, extentBytes: Int) {
        self.extentCount = extentCount
        runMax = max(1, Self.bytesMax / extentBytes)
        bits = [UInt64](repeating: 0, count: (extentCount + 63) / 64)
    }

    /// Whether so many wait that they go out before the drive is idle.
    var isLong: Bool { count > max(64, extentCount / 16) }

    /// Whether the device is discarding.
    var isUnderWay: Bool { underWay != nil }

    /// Whether the device is discarding one of these.
    func isUnderWay(_ extents: ExtentList) -> Bool {
        guard let underWay else { return false }
        for index in 0..<extents.count where underWay.contains(extents[index]) { return true }
        return false
    }

    mutating func add(_ extents: ExtentList) {
        guard extentCount > 0, way < Self.wayCount else { return }
        for index in 0..<extents.count {
            let extent = Int(extents[index])
            precondition(extent < extentCount, "an extent past the end of its drive")
            if bits[extent / 64] >> UInt64(extent % 64) & 1 == 0 { count += 1 }
            bits[extent / 64] |= 1 << UInt64(extent % 64)
        }
    }

    mutating func remove(_ extents: ExtentList) {
        guard count > 0 else { return }
        for index in 0..<extents.count { remove(Int(extents[index])) }
    }

    private mutating func remove(_ extent: Int) {
        guard bits[extent / 64] >> UInt64(extent % 64) & 1 == 1 else { return }
        bits[extent / 64] &= ~(1 << UInt64(extent % 64))
        count -= 1
    }

    mutating func removeAll() {
        for word in bits.indices { bits[word] = 0 }
        count = 0
    }

    /// The next run of neighbours, for the device. They stay in the list until it has ended, so that those of them that are used
    /// again meanwhile are not discarded once more when the device could not.
    mutating func begin(at now: Instant) -> (first: UInt32, count: Int)? {
        guard count > 0, underWay == nil else { return nil }
        while bits[cursor / 64] == 0 { cursor = (cursor / 64 + 1) % bits.count * 64 }
        var extent = cursor / 64 * 64 + bits[cursor / 64].trailingZeroBitCount
        let first = extent
        while extent < extentCount, extent - first < runMax, bits[extent / 64] >> UInt64(extent % 64) & 1 == 1 {
            extent += 1
        }
        cursor = extent < extentCount ? extent : 0
        underWay = UInt32(first)..<UInt32(extent)
        began = now
        return (UInt32(first), extent - first)
    }

    /// Gives up a discard that the device does not end.
    mutating func expire(at now: Instant, timeout: Duration) {
        guard underWay != nil, !isOverdue, began + timeout <= now else { return }
        isOverdue = true
        way = Self.wayCount
        removeAll()
    }

    /// The device has ended. One that knows neither way gets no further hints.
    mutating func end(result: Int32) {
        guard let run = underWay else { preconditionFailure("the end of a discard that was not begun") }
        underWay = nil
        guard result < 0, way < Self.wayCount else { return run.forEach { remove(Int($0)) } }
        way += 1
        if way == Self.wayCount { removeAll() }
    }
}
