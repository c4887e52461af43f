// One piece of the block table: groups of eight hashes and eight numbers. Only `BlockTable` uses it.

import CProcessor
import KVModel

/// A line of memory with up to eight entries: eight hashes, of which 0 is a free place, then the eight blocks' numbers. It is
/// filled from its start.
///
/// The top bits of the numbers are its marks: one for each distance to a second group, set while an entry whose first group
/// this is stands so far behind it. Safe as long as its segment's memory is.
@safe
struct IndexGroup {
    private let words: UnsafeMutablePointer<UInt32>

    /// Entries of a group.
    static var size: Int { 8 }
    static var wordCount: Int { 16 }
    private static var mark: UInt32 { 1 << 31 }
    /// All numbers are below this.
    static var numberLimit: BlockNumber { mark }

    @inline(__always)
    init(_ words: UnsafeMutablePointer<UInt32>) { unsafe self.words = words }

    @inline(__always)
    func willUse() { unsafe hf_will_use(words) }

    /// The places with this hash, a bit each. Those of hash 0 are free.
    @inline(__always)
    func places(of hash: UInt32) -> UInt32 { unsafe hf_equal_words(words, hash) }

    @inline(__always)
    func hash(at place: Int) -> UInt32 { unsafe words[place] }

    @inline(__always)
    func number(at place: Int) -> BlockNumber { unsafe words[Self.size &+ place] & ~Self.mark }

    /// Sets an entry. Marks stay.
    @inline(__always)
    func put(_ hash: UInt32, _ number: BlockNumber, at place: Int) {
        unsafe words[place] = hash
        unsafe words[Self.size &+ place] = words[Self.size &+ place] & Self.mark | number
    }

    /// Sets an entry of a group without marks.
    @inline(__always)
    func putUnmarked(_ hash: UInt32, _ number: BlockNumber, at place: Int) {
        unsafe words[place] = hash
        unsafe words[Self.size &+ place] = number
    }

    /// Takes an entry out; the last one takes its place.
    func close(_ place: Int) {
        let last = (places(of: 0) | 1 << Self.size).trailingZeroBitCount - 1
        put(hash(at: last), number(at: last), at: place)
        unsafe words[last] = 0
    }

    /// Whether an entry of this group may stand as far behind it as one of this hash would.
    @inline(__always)
    func isMarked(for hash: UInt32) -> Bool { unsafe words[Self.size &+ Self.distanceClass(of: hash)] >= Self.mark }

    @inline(__always)
    func setMark(for hash: UInt32) { unsafe words[Self.size &+ Self.distanceClass(of: hash)] |= Self.mark }

    func clearMark(for hash: UInt32) { unsafe words[Self.size &+ Self.distanceClass(of: hash)] &= ~Self.mark }

    /// How many groups behind its first the second group of a hash is: 1, 3, 5, … 15.
    @inline(__always)
    static func distance(of hash: UInt32) -> UInt32 { hash >> 20 & 15 | 1 }

    @inline(__always)
    private static func distanceClass(of hash: UInt32) -> Int { Int(hash >> 21 & 7) }
}

/// Groups in which an entry stands in one of the two that its hash names: in the first if there was room when it came. What
/// has to stand in its second leaves a mark in its first, as long as it is there. So nearly every search, found or not, reads
/// one line of memory, and a removal leaves nothing behind.
///
/// Safe as long as its one owner frees it last: groups are named by hashes only, which stay below `groupCount`.
@safe
struct IndexSegment {
    private var words: UnsafeMutablePointer<UInt32>
    private(set) var groupCount: UInt32
    /// Entries; the top bit says that the words are part of a larger piece of memory, which is its owner's to free.
    private var countAndLent: UInt32

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
        let wordCount = groupCount * IndexGroup.wordCount
        unsafe words = memory.initializeMemory(as: UInt32.self, repeating: 0, count: wordCount)
    }

    /// Bytes of a segment of so many groups.
    static func byteCount(groupCount: Int) -> Int { groupCount * IndexGroup.wordCount * MemoryLayout<UInt32>.stride }

    func free() { if !isLent { unsafe words.deallocate() } }

    private var isLent: Bool { countAndLent & Self.lentBit != 0 }
    private var count: Int { Int(countAndLent & ~Self.lentBit) }
    /// Bytes of its own.
    var byteCount: Int { isLent ? 0 : Self.byteCount(groupCount: Int(groupCount)) }
    /// Whether 27 of 32 places are taken: beyond that, entries that have to move cost more than room does.
    var isFull: Bool { count * 4 >= Int(groupCount) * 27 }

    // MARK: Groups

    /// The first group of a hash.
    @inline(__always)
    func group(for hash: UInt32) -> IndexGroup { group(firstIndex(of: hash)) }

    /// Its second group.
    @inline(__always)
    func secondGroup(for hash: UInt32) -> IndexGroup { group(secondIndex(of: hash)) }

    /// Named by the upper bits, multiplied out so that any count will do.
    @inline(__always)
    private func firstIndex(of hash: UInt32) -> UInt32 {
        UInt32(truncatingIfNeeded: (UInt64(hash) &* UInt64(groupCount)) >> 32)
    }

    /// A few groups behind the first, or around the end: mostly in the same page.
    @inline(__always)
    private func secondIndex(of hash: UInt32) -> UInt32 {
        let behind = firstIndex(of: hash) &+ IndexGroup.distance(of: hash)
        return behind < groupCount ? behind : behind &- groupCount
    }

    @inline(__always)
    private func group(_ index: UInt32) -> IndexGroup {
        unsafe IndexGroup(words + Int(index) &* IndexGroup.wordCount)
    }

    // MARK: Changing

    /// Adds an entry if there is room for it in its groups, or if there is once others have moved to their other group.
    mutating func insert(_ hash: UInt32, _ number: BlockNumber) -> Bool {
        let first = group(for: hash)
        let free = first.places(of: 0)
        if free != 0 {
            first.put(hash, number, at: free.trailingZeroBitCount)
        } else if !insertMoving(hash, number) {
            return false
        }
        countAndLent += 1
        return true
    }

    /// Adds an entry whose first group is full.
    @inline(never)
    private func insertMoving(_ hash: UInt32, _ number: BlockNumber) -> Bool {
        let first = group(for: hash)
        let second = secondIndex(of: hash)
        var place = freePlace(in: second, moves: 0)
        if place == nil {
            if let place = freePlace(in: firstIndex(of: hash), moves: 2) {
                first.put(hash, number, at: place)
                return true
            }
            place = freePlace(in: second, moves: 2)
        }
        guard let place else { return false }
        group(second).put(hash, number, at: place)
        first.setMark(for: hash)
        return true
    }

    /// A free place of a group: one there is, or one that comes free when an entry moves to its other group, which may take
    /// as many moves as are left.
    private func freePlace(in index: UInt32, moves: Int) -> Int? {
        let group = group(index)
        let free = group.places(of: 0)
        if free != 0 { return free.trailingZeroBitCount }
        // Few moves before many.
        for movesBehind in 0..<moves {
            for place in 0..<IndexGroup.size {
                let hash = group.hash(at: place)
                let first = firstIndex(of: hash)
                let other = first == index ? secondIndex(of: hash) : first
                guard let there = freePlace(in: other, moves: movesBehind) else { continue }
                self.group(other).put(hash, group.number(at: place), at: there)
                if first == index { group.setMark(for: hash) } else { unmark(hash, leaving: place) }
                return place
            }
        }
        return nil
    }

    /// Clears the mark of an entry that leaves its second group, unless another there has the same first one.
    private func unmark(_ hash: UInt32, leaving place: Int) {
        let first = firstIndex(of: hash)
        let second = secondGroup(for: hash)
        for other in 0..<IndexGroup.size where other != place {
            let hash = second.hash(at: other)
            if hash != 0, firstIndex(of: hash) == first { return }
        }
        group(first).clearMark(for: hash)
    }

    /// Takes an entry out. False when it is not there.
    mutating func remove(_ hash: UInt32, _ number: BlockNumber) -> Bool {
        let first = group(for: hash)
        if let place = Self.place(of: hash, number, in: first) {
            first.close(place)
        } else if first.isMarked(for: hash), let place = Self.place(of: hash, number, in: secondGroup(for: hash)) {
            unmark(hash, leaving: place)
            secondGroup(for: hash).close(place)
        } else {
            return false
        }
        countAndLent -= 1
        return true
    }

    private static func place(of hash: UInt32, _ number: BlockNumber, in group: IndexGroup) -> Int? {
        var found = group.places(of: hash)
        while found != 0 {
            let place = found.trailingZeroBitCount
            if group.number(at: place) == number { return place }
            found &= found &- 1
        }
        return nil
    }

    // MARK: Growing

    /// Whether so little is in it that more room would not help an entry that found none.
    var isHalfEmpty: Bool { count < Int(groupCount) * 4 }

    /// Makes room for two fifths more. Entries that have no place in any segment are added to `leftOver`.
    mutating func grow(leftOver: inout [BlockNumber]) {
        let larger = Int(groupCount) * 7 / 5
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

    /// Groups of which so many entries take seven of ten places.
    private static func groupCount(for count: Int) -> Int {
        max(leastGroupCount, (count * 10 / 7 + IndexGroup.size - 1) / IndexGroup.size)
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
            let isAdded = isCounted && copies[index].add(hash, number, &fill, from: index &* most)
            if !isAdded { late.append((hash, number)) }
        }
        for index in 0..<segmentCount { copies[index].countAndLent = UInt32(counts[index]) }
        for (hash, _) in late { copies[hash & bit == 0 ? 0 : 1].countAndLent -= 1 }
        for (hash, number) in late {
            let index = hash & bit == 0 ? 0 : 1
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

    /// Adds an entry, without a move, to a segment that was empty and whose groups hold as many entries as `fill` says from
    /// `start` on. It is not counted.
    @inline(__always)
    private func add(_ hash: UInt32, _ number: BlockNumber, _ fill: inout Fill, from start: Int) -> Bool {
        var index = firstIndex(of: hash)
        if fill[start &+ Int(index)] == IndexGroup.size {
            index = secondIndex(of: hash)
            if fill[start &+ Int(index)] == IndexGroup.size { return false }
            group(for: hash).setMark(for: hash)
        }
        let place = fill[start &+ Int(index)]
        // What is not full has no marks.
        group(index).putUnmarked(hash, number, at: Int(place))
        fill[start &+ Int(index)] = place &+ 1
        return true
    }

    @inline(__always)
    private func forEach(_ body: (UInt32, BlockNumber) -> Void) {
        for index in 0..<groupCount {
            let group = group(index)
            for place in 0..<IndexGroup.size {
                let hash = group.hash(at: place)
                if hash == 0 { break }
                body(hash, group.number(at: place))
            }
        }
    }
}
