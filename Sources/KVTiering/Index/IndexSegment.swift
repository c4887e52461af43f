// One piece of the block table: groups of eight hashes and eight numbers. Only `BlockTable` uses it.

import CProcessor
import KVModel

/// Groups of eight entries, a line of memory each: eight hashes, then the eight blocks' numbers. An entry stands in one of the
/// two groups that its hash names, in the one that had more room when it came. So a search reads two lines, at once and
/// always, found or not, and a removal leaves nothing behind.
///
/// A group is filled from its start; a hash of 0 ends it. Safe as long as its one owner frees it last: groups are named by
/// `groups(of:)` only, which stays below `groupCount`.
@safe
struct IndexSegment {
    /// Eight hashes and eight numbers for each group.
    private var words: UnsafeMutablePointer<UInt32>
    private(set) var groupCount: UInt32
    /// Entries; the top bit says that the words are part of a larger piece of memory, which is its owner's to free.
    private var countAndLent: UInt32

    /// Entries of a group.
    static var groupSize: Int { 8 }
    private static var groupWords: Int { 16 }
    /// A group is a line of memory.
    static var alignment: Int { 64 }
    /// An entry's second group is at most 15 behind the first.
    static var leastGroupCount: Int { 16 }
    private static var lentBit: UInt32 { 1 << 31 }

    /// A segment of so many groups, at least the least.
    init(groupCount: Int) {
        let words = UnsafeMutableRawPointer.allocate(
            byteCount: Self.byteCount(groupCount: groupCount), alignment: Self.alignment)
        unsafe self.init(groupCount: groupCount, words: words, lent: 0)
    }

    /// A segment in memory that is lent to it: `byteCount(groupCount:)` bytes, aligned.
    init(groupCount: Int, lent memory: UnsafeMutableRawPointer) {
        unsafe self.init(groupCount: groupCount, words: memory, lent: Self.lentBit)
    }

    private init(groupCount: Int, words memory: UnsafeMutableRawPointer, lent: UInt32) {
        self.groupCount = UInt32(groupCount)
        countAndLent = lent
        let wordCount = groupCount * Self.groupWords
        unsafe words = memory.initializeMemory(as: UInt32.self, repeating: 0, count: wordCount)
    }

    /// Bytes of a segment of so many groups.
    static func byteCount(groupCount: Int) -> Int { groupCount * groupWords * MemoryLayout<UInt32>.stride }

    func free() { if !isLent { unsafe words.deallocate() } }

    private var isLent: Bool { countAndLent & Self.lentBit != 0 }
    private var count: Int { Int(countAndLent & ~Self.lentBit) }
    /// Bytes of its own.
    var byteCount: Int { isLent ? 0 : Self.byteCount(groupCount: Int(groupCount)) }
    /// Whether seven of eight places are taken.
    var isFull: Bool { count >= Int(groupCount) * 7 }

    // MARK: Searching

    /// The two groups of a hash. The upper bits name the first, multiplied out so that any count will do;
    /// four bits below them say how far behind it, or around the end, the second is: mostly in the same page.
    struct Groups {
        var first: UInt32
        var second: UInt32
    }

    @inline(__always)
    func groups(of hash: UInt32) -> Groups {
        let first = UInt32(truncatingIfNeeded: (UInt64(hash) &* UInt64(groupCount)) >> 32)
        let behind = first &+ (hash >> 20 & 15 | 1)
        return Groups(first: first, second: behind < groupCount ? behind : behind &- groupCount)
    }

    @inline(__always)
    private func group(_ index: UInt32) -> UnsafeMutablePointer<UInt32> {
        unsafe words + Int(index) &* Self.groupWords
    }

    /// Asks for the memory of both groups.
    @inline(__always)
    func willUse(_ groups: Groups) {
        unsafe hf_will_use(group(groups.first))
        unsafe hf_will_use(group(groups.second))
    }

    /// The places with this hash: bits 0 to 7 of the first group's, 8 to 15 of the second's. Those of hash 0 are free.
    @inline(__always)
    func places(of hash: UInt32, in groups: Groups) -> UInt32 {
        unsafe hf_equal_words(group(groups.first), group(groups.second), hash)
    }

    /// The number at a place, 0 to 15.
    @inline(__always)
    func number(at place: Int, in groups: Groups) -> BlockNumber {
        let group = unsafe group(place < Self.groupSize ? groups.first : groups.second)
        return unsafe group[Self.groupSize + place & 7]
    }

    // MARK: Changing

    /// Adds an entry if there is room for it in its groups, or if one that stands there can move to its other group.
    mutating func insert(_ hash: UInt32, _ number: BlockNumber) -> Bool {
        let groups = groups(of: hash)
        let free = places(of: 0, in: groups)
        if free != 0 {
            // Free places are the last of a group, so the larger mask has more. Nothing branches on which it is: that would
            // make each insert wait for its memory.
            let isSecond: UInt32 = free >> 8 > free & 0xFF ? 1 : 0
            let group = groups.first &+ isSecond &* (groups.second &- groups.first)
            unsafe put(hash, number, in: self.group(group), (free >> (isSecond &* 8)).trailingZeroBitCount)
        } else if let freed = movedAway(from: groups) {
            unsafe put(hash, number, in: group(freed.group), freed.place)
        } else {
            return false
        }
        countAndLent += 1
        return true
    }

    @inline(__always)
    private func put(_ hash: UInt32, _ number: BlockNumber, in group: UnsafeMutablePointer<UInt32>, _ place: Int) {
        unsafe group[place] = hash
        unsafe group[Self.groupSize + place] = number
    }

    /// Moves an entry of two full groups to its other one, and says which place that leaves, and where the entry is now.
    private func movedAway(from full: Groups) -> (group: UInt32, place: Int, other: UInt32)? {
        let both: InlineArray<2, UInt32> = [full.first, full.second]
        for side in both.indices {
            let index = both[side]
            for place in 0..<Self.groupSize {
                let hash = unsafe group(index)[place]
                let own = groups(of: hash)
                let other = own.first == index ? own.second : own.first
                let free = places(of: 0, in: Groups(first: other, second: other)) & 0xFF
                if free == 0 { continue }
                unsafe put(
                    hash, group(index)[Self.groupSize + place], in: group(other), free.trailingZeroBitCount)
                return (index, place, other)
            }
        }
        return nil
    }

    /// Takes an entry out; the last of its group takes its place. False when it is not there.
    mutating func remove(_ hash: UInt32, _ number: BlockNumber) -> Bool {
        let groups = groups(of: hash)
        var found = places(of: hash, in: groups)
        while found != 0 {
            let place = found.trailingZeroBitCount
            if self.number(at: place, in: groups) == number {
                close(place & 7, in: place < Self.groupSize ? groups.first : groups.second)
                countAndLent -= 1
                return true
            }
            found &= found &- 1
        }
        return false
    }

    private func close(_ place: Int, in index: UInt32) {
        let group = unsafe group(index)
        let free = places(of: 0, in: Groups(first: index, second: index)) & 0xFF
        let last = (free | 0x100).trailingZeroBitCount - 1
        unsafe put(group[last], group[Self.groupSize + last], in: group, place)
        unsafe group[last] = 0
    }

    // MARK: Growing

    /// Whether so little is in it that more room would not help an entry that found none.
    var isHalfEmpty: Bool { count < Int(groupCount) * 4 }

    /// Makes room for a quarter more. Entries that have no place in any segment are added to `leftOver`.
    mutating func grow(leftOver: inout [BlockNumber]) {
        let larger = Int(groupCount) + Int(groupCount) / 4
        let copies = copies(by: 0, counts: [count], groupCounts: [larger], leftOver: &leftOver)
        free()
        self = copies[0]
    }

    /// Moves the entries that have this bit of the hash into a new segment. Both get the room they need. Entries that have no
    /// place in any segment are added to `leftOver`.
    mutating func split(by bit: UInt32, leftOver: inout [BlockNumber]) -> IndexSegment {
        var leaving = 0
        forEach { hash, _ in leaving += hash & bit == 0 ? 0 : 1 }
        let counts: InlineArray<2, Int> = [count - leaving, leaving]
        let copies = copies(
            by: bit, counts: counts, groupCounts: [Self.groupCount(for: counts[0]), Self.groupCount(for: leaving)],
            leftOver: &leftOver)
        free()
        self = copies[0]
        return copies[1]
    }

    /// Groups for so many entries and a quarter more.
    private static func groupCount(for count: Int) -> Int {
        max(leastGroupCount, (count + count / 4 + groupSize - 1) / groupSize)
    }

    /// The entries in one new segment, or in two, the second for those with `bit` in their hash: `counts` entries in
    /// `groupCounts` groups, or more if one finds no place.
    private func copies<let segmentCount: Int>(
        by bit: UInt32, counts: InlineArray<segmentCount, Int>, groupCounts: InlineArray<segmentCount, Int>,
        leftOver: inout [BlockNumber]
    ) -> InlineArray<segmentCount, IndexSegment> {
        var copies = InlineArray<segmentCount, IndexSegment> { IndexSegment(groupCount: groupCounts[$0]) }
        // Filled groups are not searched: how full each is, is counted beside them, as long as there are not too many.
        let most = max(groupCounts[0], groupCounts[segmentCount - 1])
        let isCounted = most * segmentCount <= Fill.count
        var fill = Fill(repeating: 0)
        var late: [(hash: UInt32, number: BlockNumber)] = []
        forEach { hash, number in
            // Every second entry moves, so nothing branches on whether this one does.
            let index = hash & bit == 0 ? 0 : 1
            let isAdded =
                isCounted
                ? copies[index].add(hash, number, &fill, from: index &* most) : copies[index].insert(hash, number)
            if !isAdded { late.append((hash, number)) }
        }
        for index in 0..<segmentCount { copies[index].countAndLent = UInt32(counts[index]) }
        for (hash, number) in late {
            let index = hash & bit == 0 ? 0 : 1
            copies[index].countAndLent -= 1
            while !copies[index].insert(hash, number) {
                if copies[index].isHalfEmpty {
                    leftOver.append(number)
                    break
                }
                copies[index].grow(leftOver: &leftOver)
            }
        }
        return copies
    }

    /// Entries in each group of one or two segments that are being filled: on the stack, as most have some 200 groups.
    private typealias Fill = InlineArray<2048, UInt8>

    /// Adds an entry to a segment whose groups hold as many entries as `fill` says from `start` on. It is not counted.
    @inline(__always)
    private func add(_ hash: UInt32, _ number: BlockNumber, _ fill: inout Fill, from start: Int) -> Bool {
        let groups = groups(of: hash)
        let first = fill[start &+ Int(groups.first)]
        let second = fill[start &+ Int(groups.second)]
        let place = min(first, second)
        if place == Self.groupSize { return addMoving(hash, number, &fill, from: start) }
        let isSecond: UInt32 = second < first ? 1 : 0
        let index = groups.first &+ isSecond &* (groups.second &- groups.first)
        unsafe put(hash, number, in: group(index), Int(place))
        fill[start &+ Int(index)] = place + 1
        return true
    }

    /// The same where both groups are full and an entry of theirs can move.
    private func addMoving(_ hash: UInt32, _ number: BlockNumber, _ fill: inout Fill, from start: Int) -> Bool {
        guard let freed = movedAway(from: groups(of: hash)) else { return false }
        unsafe put(hash, number, in: group(freed.group), freed.place)
        fill[start &+ Int(freed.other)] += 1
        return true
    }

    @inline(__always)
    private func forEach(_ body: (UInt32, BlockNumber) -> Void) {
        for index in 0..<groupCount {
            let group = unsafe group(index)
            for place in 0..<Self.groupSize {
                let hash = unsafe group[place]
                if hash == 0 { break }
                body(hash, unsafe group[Self.groupSize + place])
            }
        }
    }
}
