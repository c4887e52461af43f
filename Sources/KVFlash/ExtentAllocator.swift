// Which extents of a drive are free. A value its owner's thread holds; it decides nothing about what goes where, except
// that extents of one object lie side by side where they can, so that they travel in one transfer.

/// The free extents of one drive: a bit an extent, and above it a bit for each word that has any, up to a single word.
///
/// Reserving and releasing cost a few words whatever the drive's size: three levels find a free extent among 262,144,
/// four among 16 million. A stack of free numbers would be as fast and forgets which extents are neighbours; a list of
/// runs remembers, and its length is bounded by nothing.
public struct ExtentAllocator: Sendable {
    /// How many extents the drive has.
    public let count: Int
    /// How many of them are free.
    public private(set) var freeCount: Int
    /// `levels[0]`: extent e is free when bit e is set. `levels[k]`: bit i is set when word i of the level below is not 0.
    private var levels: [[UInt64]]
    /// Where the search begins: behind what was reserved last, so that wear and age go round the drive.
    private var cursor = 0

    /// How many runs that are too short a search passes before it takes extents one by one.
    private static let runTriesMax = 16

    /// A drive of free extents.
    public init(count: Int) {
        precondition(count > 0, "a drive without extents")
        self.count = count
        freeCount = count
        levels = []
        var bits = count
        repeat {
            let words = (bits + 63) / 64
            var level = [UInt64](repeating: .max, count: words)
            if bits % 64 != 0 { level[words - 1] = (1 << UInt64(bits % 64)) - 1 }
            levels.append(level)
            bits = words
        } while bits > 1
    }

    /// Bytes of memory it takes.
    public var byteCount: Int { levels.reduce(0) { $0 + $1.count * 8 } }

    /// Whether an extent is free.
    public func isFree(_ extent: UInt32) -> Bool {
        precondition(extent < count, "an extent past the end of its drive")
        return levels[0][Int(extent) / 64] >> UInt64(extent % 64) & 1 == 1
    }

    /// Takes extents for one object, side by side where a run is found soon. Nil, and nothing taken, when fewer are free.
    public mutating func reserve(_ wanted: Int) -> ExtentList? {
        precondition(wanted >= 1 && wanted <= ExtentList.countMax, "an object of no extents, or of more than 64")
        guard wanted <= freeCount else { return nil }
        var list = ExtentList()
        if wanted > 1, let start = findRun(of: wanted) {
            for extent in start..<(start + wanted) {
                take(extent)
                list.append(UInt32(extent))
            }
            cursor = start + wanted
            return list
        }
        for _ in 0..<wanted {
            guard let extent = firstFree(from: cursor) ?? firstFree(from: 0) else {
                preconditionFailure("the count of free extents is not that of free bits")
            }
            take(extent)
            list.append(UInt32(extent))
            cursor = extent + 1
        }
        return list
    }

    /// Takes the extents of an object that a scan found. False, and nothing taken, when one of them is taken already.
    public mutating func claim(_ list: ExtentList) -> Bool {
        for index in 0..<list.count where !isFree(list[index]) { return false }
        for index in 0..<list.count { take(Int(list[index])) }
        return true
    }

    /// Gives the extents of an object back.
    public mutating func release(_ list: ExtentList) {
        for index in 0..<list.count { release(list[index]) }
    }

    /// Gives one extent back.
    public mutating func release(_ extent: UInt32) {
        precondition(!isFree(extent), "an extent freed twice")
        var position = Int(extent)
        for level in levels.indices {
            let before = levels[level][position / 64]
            levels[level][position / 64] = before | 1 << UInt64(position % 64)
            if before != 0 { break }
            position /= 64
        }
        freeCount += 1
    }

    private mutating func take(_ extent: Int) {
        var position = extent
        for level in levels.indices {
            levels[level][position / 64] &= ~(1 << UInt64(position % 64))
            if levels[level][position / 64] != 0 { break }
            position /= 64
        }
        freeCount -= 1
    }

    /// The start of `wanted` free neighbours, looked for from the cursor on and once from the beginning.
    private func findRun(of wanted: Int) -> Int? {
        var position = cursor
        var hasWrapped = false
        for _ in 0..<Self.runTriesMax {
            guard let start = firstFree(from: position) else {
                if hasWrapped { return nil }
                hasWrapped = true
                position = 0
                continue
            }
            let run = runLength(from: start)
            if run >= wanted { return start }
            position = start + run
        }
        return nil
    }

    /// How many extents from `start` on are free, at most 64.
    private func runLength(from start: Int) -> Int {
        let word = start / 64
        let shift = UInt64(start % 64)
        var window = levels[0][word] >> shift
        if shift > 0, word + 1 < levels[0].count { window |= levels[0][word + 1] << (64 - shift) }
        return (~window).trailingZeroBitCount
    }

    /// The first free extent at or after `start`: up until a word has a bit at or after the place, then down.
    private func firstFree(from start: Int) -> Int? {
        var position = start
        for level in levels.indices {
            let word = position / 64
            guard word < levels[level].count else { return nil }
            let bits = levels[level][word] & (UInt64.max << UInt64(position % 64))
            guard bits == 0 else {
                var found = word * 64 + bits.trailingZeroBitCount
                for below in stride(from: level - 1, through: 0, by: -1) {
                    found = found * 64 + levels[below][found].trailingZeroBitCount
                }
                return found
            }
            position = word + 1
        }
        return nil
    }
}
