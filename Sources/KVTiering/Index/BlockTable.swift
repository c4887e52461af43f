// Records by key: a hash table over raw memory, and dense numbers for what it holds. It promises that keys are compared
// in full, that no single insert pays for the whole table, and that removals leave nothing behind. What a record says of
// its block is its owner's matter.

import CProcessor
import KVModel
import Synchronization

/// What a `BlockTable` keeps of a block.
protocol KeyedRecord: BitwiseCopyable {
    /// What is kept of a block that was just named.
    init(key: BlockKey)
    var key: BlockKey { get }
    /// Of a record in use by nobody: the number that was freed before it.
    var freedBefore: BlockNumber { get set }
}

/// Keys to dense block numbers, and from a number to what is kept of its block.
///
/// The table is cut into segments of about a thousand entries. Each grows alone, by two fifths, and when the table
/// holds a thousand entries a segment, the next segment in turn is split in two (linear hashing; Litwin, VLDB 1980).
/// The longest pause is therefore one segment's: microseconds, whatever the size of the table.
///
/// In a segment an entry is 32 bits of the key's hash and the block's number, in one of two groups that the hash names, in
/// the first if it can. A group is a line of memory; it says whether a search has to go on in the second, as few
/// have to. A search compares the eight hashes of a group at once; growing, splitting and removing never look at a key. The
/// keys themselves lie with the records, by number.
///
/// Memory: a record and about 11 bytes of entry.
@safe
struct BlockTable<Record: KeyedRecord>: ~Copyable {
    /// How many blocks it holds.
    private(set) var count = 0
    /// All numbers given so far are below this.
    private(set) var numberLimit: BlockNumber = 0

    private var segments: UnsafeMutablePointer<IndexSegment>
    private var segmentRoom: Int
    /// The groups of the segments that it began with, in one piece.
    private let firstGroups: UnsafeMutablePointer<UInt8>
    private let firstGroupBytes: Int
    private(set) var segmentCount = 1
    /// The mask of the hash bits that all segments have been split by.
    private var splitMask: UInt32 = 0

    private var chunks: UnsafeMutablePointer<UnsafeMutablePointer<Record>>
    private var chunkRoom: Int
    private var chunkCount: Int
    /// The records that it began with, in one piece.
    private let firstRecords: UnsafeMutablePointer<Record>
    private let firstChunkCount: Int
    /// The number that was freed last, the head of a list through the freed records.
    private var freed = none
    /// Blocks for whose hash there is no place however large its segment: more than sixteen of one hash. Nearly always none.
    private var crowded: [BlockNumber] = []

    /// What goes into every hash: one that chose keys, and knew how they are hashed, could give thousands the same place.
    private let seed: (UInt64, UInt64)

    /// A number that no block has.
    private static var none: BlockNumber { .max }
    /// Records are allocated 1,024 at a time.
    private static var chunkShift: Int { 10 }
    /// Entries a segment may hold on average before the next one is split.
    private static var segmentTarget: Int { 1024 }

    /// What holds an atomic has an address of its own. Without one the compiler copies all words of the table, and of whatever
    /// it is part of, for each call that only reads it.
    private let addressed = Atomic<Bool>(true)

    /// An empty table.
    ///
    /// - Parameters:
    ///   - expectedCount: Blocks for which it has places from the start.
    ///   - hashSeed: A number that those who choose keys cannot know. Nothing but places depends on it.
    init(expectedCount: Int = 0, hashSeed: UInt64) {
        seed = (hashSeed, mixBits(hashSeed &+ 0x9E37_79B9_7F4A_7C15))
        while segmentCount * Self.segmentTarget < expectedCount { segmentCount *= 2 }
        splitMask = UInt32(segmentCount - 1)
        segmentRoom = segmentCount
        unsafe segments = .allocate(capacity: segmentRoom)
        let entries = expectedCount / segmentCount
        let groups = max(IndexSegment.leastGroupCount, entries * 4 / 3 / IndexGroup.size + 1)
        let segmentBytes = IndexSegment.byteCount(groupCount: groups)
        firstGroupBytes = segmentCount * segmentBytes
        unsafe firstGroups = LargeRoom.allocate(firstGroupBytes)
        for index in 0..<segmentCount {
            let memory = unsafe UnsafeMutableRawPointer(firstGroups + index * segmentBytes)
            unsafe (segments + index).initialize(to: IndexSegment(groupCount: groups, lent: memory))
        }
        firstChunkCount = (expectedCount + (1 << Self.chunkShift) - 1) >> Self.chunkShift
        unsafe firstRecords = LargeRoom.allocate(firstChunkCount << Self.chunkShift)
        chunkCount = firstChunkCount
        chunkRoom = max(1, chunkCount)
        unsafe chunks = .allocate(capacity: chunkRoom)
        for index in 0..<chunkCount {
            unsafe (chunks + index).initialize(to: firstRecords + (index << Self.chunkShift))
        }
    }

    deinit {
        for index in 0..<segmentCount { unsafe segments[index].free() }
        unsafe segments.deallocate()
        unsafe firstGroups.deallocate()
        for index in firstChunkCount..<chunkCount { unsafe chunks[index].deallocate() }
        unsafe firstRecords.deallocate()
        unsafe chunks.deallocate()
    }

    /// Bytes it has allocated, all told.
    var byteCount: Int {
        var bytes = segmentRoom * MemoryLayout<IndexSegment>.stride + chunkRoom * MemoryLayout<Int>.stride
        bytes += chunkCount << Self.chunkShift * MemoryLayout<Record>.stride
        bytes += firstGroupBytes + crowded.capacity * MemoryLayout<BlockNumber>.stride
        for index in 0..<segmentCount { bytes += unsafe segments[index].byteCount }
        return bytes
    }

    /// How many blocks are outside their groups, where each search walks past all of them.
    var crowdedCount: Int { crowded.count }

    // MARK: Looking up

    /// The number of the block with this key.
    func find(_ key: BlockKey) -> BlockNumber? { find(key, search(for: key)) }

    /// How many leading keys of a chain are known. Their numbers are appended to `numbers`, root first.
    ///
    /// The memory is asked ahead, so that it answers for many keys at once: a key's group 24 keys before it is compared, and
    /// its record twelve before.
    func longestRun(_ keys: Span<BlockKey>, into numbers: inout [BlockNumber]) -> Int {
        let start = numbers.count
        numbers.append(contentsOf: repeatElement(0, count: keys.count))
        var found = numbers.mutableSpan
        var searches = searches()
        for next in 0..<min(24, keys.count) { searches[next] = begin(keys[next]) }
        for next in 0..<min(12, keys.count) { meet(&searches[next]) }
        var known = keys.count
        for next in keys.indices {
            if next + 24 < keys.count { searches[next + 24] = begin(keys[next + 24]) }
            if next + 12 < keys.count { meet(&searches[next + 12]) }
            guard let number = find(keys[next], searches[next]) else {
                known = next
                break
            }
            found[start + next] = number
        }
        numbers.removeLast(keys.count - known)
        return known
    }

    /// A search that has begun: where its key can be. It holds until the next change of the table.
    struct Search {
        fileprivate var hash: UInt32
        /// Where its hash is in its first group.
        fileprivate var places: UInt32
        fileprivate var group: IndexGroup
    }

    /// The last 32 of a chain's searches, by their key's place in it.
    struct Searches {
        fileprivate var searches: InlineArray<32, Search>

        /// How many are kept.
        static var count: Int { 32 }

        subscript(place: Int) -> Search {
            @inline(__always) get { searches[place & 31] }
            @inline(__always) _modify { yield &searches[place & 31] }
        }
    }

    /// Room for a chain's searches, none of which has begun.
    @inline(__always)
    func searches() -> Searches {
        let none = unsafe Search(hash: 0, places: 0, group: segments[0].group(for: 0))
        return Searches(searches: InlineArray(repeating: none))
    }

    /// Begins a search and asks for the memory of its first group.
    @inline(__always)
    func begin(_ key: BlockKey) -> Search {
        let hash = hash(of: key)
        let group = segment(of: hash).group(for: hash)
        group.willUse()
        return Search(hash: hash, places: 0, group: group)
    }

    /// Looks into the group of a search that has begun, and asks for the memory that is needed next: a record, mostly.
    @inline(__always)
    func meet(_ search: inout Search) {
        search.places = search.group.places(of: search.hash)
        if search.places != 0 {
            unsafe hf_will_use(record(search.group.number(at: search.places.trailingZeroBitCount)))
        } else if search.group.isMarked(for: search.hash) {
            segment(of: search.hash).secondGroup(for: search.hash).willUse()
        }
    }

    /// The number of a key whose group was met.
    @inline(__always)
    func find(_ key: BlockKey, _ search: Search) -> BlockNumber? {
        if let number = number(of: key, at: search.places, in: search.group) { return number }
        return search.group.isMarked(for: search.hash) || !crowded.isEmpty ? findBehind(key, search.hash) : nil
    }

    /// A search whose group was met, for a key that nobody waited for.
    @inline(__always)
    private func search(for key: BlockKey) -> Search {
        let hash = hash(of: key)
        let group = segment(of: hash).group(for: hash)
        return Search(hash: hash, places: group.places(of: hash), group: group)
    }

    /// The number of a key at one of some places of a group.
    @inline(__always)
    private func number(of key: BlockKey, at places: UInt32, in group: IndexGroup) -> BlockNumber? {
        var places = places
        while places != 0 {
            let number = group.number(at: places.trailingZeroBitCount)
            if unsafe record(number).pointee.key == key { return number }
            places &= places &- 1
        }
        return nil
    }

    /// The number of a key that is not in its first group.
    @inline(never)
    private func findBehind(_ key: BlockKey, _ hash: UInt32) -> BlockNumber? {
        let second = segment(of: hash).secondGroup(for: hash)
        if let number = number(of: key, at: second.places(of: hash), in: second) { return number }
        return crowded.first { unsafe record($0).pointee.key == key }
    }

    /// What is kept of a block.
    subscript(number: BlockNumber) -> Record {
        @inline(__always)
        get {
            precondition(number < numberLimit, "a number that was never given")
            return unsafe record(number).pointee
        }
        @inline(__always)
        _modify {
            precondition(number < numberLimit, "a number that was never given")
            yield unsafe &record(number).pointee
        }
    }

    /// Asks for the memory of a record that will be needed soon.
    @inline(__always)
    func willUse(_ number: BlockNumber) { unsafe hf_will_use(record(number)) }

    // MARK: Changing

    /// Whether a number that was given before is free.
    var hasFreed: Bool { freed != Self.none }

    /// The number of the block with this key, given now if the key is new.
    mutating func insert(_ key: BlockKey) -> (number: BlockNumber, isNew: Bool) {
        let search = search(for: key)
        if let number = find(key, search) { return (number, false) }
        let number = takeNumber()
        unsafe record(number).initialize(to: Record(key: key))
        enter(number, search.hash)
        count += 1
        if count > segmentCount * Self.segmentTarget { splitNext() }
        return (number, true)
    }

    /// Appends the numbers of the blocks with these keys to `numbers`, given now where a key is new. Groups are asked for 24
    /// keys ahead, as for a run.
    mutating func insert(_ keys: Span<BlockKey>, into numbers: inout [BlockNumber]) {
        for next in 0..<min(24, keys.count) { _ = begin(keys[next]) }
        for next in keys.indices {
            if next + 24 < keys.count { _ = begin(keys[next + 24]) }
            numbers.append(insert(keys[next]).number)
        }
    }

    private mutating func enter(_ number: BlockNumber, _ hash: UInt32) {
        let index = segmentIndex(of: hash)
        if unsafe segments[index].isFull { unsafe segments[index].grow(leftOver: &crowded) }
        while unsafe !segments[index].insert(hash, number) {
            if unsafe segments[index].isHalfEmpty { return crowded.append(number) }
            unsafe segments[index].grow(leftOver: &crowded)
        }
    }

    /// Forgets a block; its number may be given again.
    mutating func remove(_ number: BlockNumber) {
        precondition(number < numberLimit, "a number that was never given")
        let hash = hash(of: unsafe record(number).pointee.key)
        if unsafe !segments[segmentIndex(of: hash)].remove(hash, number) {
            let place = crowded.firstIndex(of: number)
            precondition(place != nil, "a block is removed that the index does not hold")
            if let place { crowded.swapAt(place, crowded.count - 1) }
            crowded.removeLast()
        }
        unsafe record(number).pointee = Record(key: BlockKey(high: 0, low: 0))
        unsafe record(number).pointee.freedBefore = freed
        freed = number
        count -= 1
    }

    private mutating func takeNumber() -> BlockNumber {
        if freed != Self.none {
            let number = freed
            unsafe freed = record(number).pointee.freedBefore
            return number
        }
        precondition(numberLimit < IndexGroup.numberLimit, "more blocks than an index can number")
        let number = numberLimit
        if Int(number) >> Self.chunkShift == chunkCount { addChunk() }
        numberLimit += 1
        return number
    }

    private mutating func addChunk() {
        if chunkCount == chunkRoom {
            unsafe chunks = Self.grown(chunks, from: chunkRoom)
            chunkRoom *= 2
        }
        unsafe chunks[chunkCount] = .allocate(capacity: 1 << Self.chunkShift)
        chunkCount += 1
    }

    /// Splits the next segment in turn by one more bit of the hash.
    private mutating func splitNext() {
        if segmentCount == segmentRoom {
            unsafe segments = Self.grown(segments, from: segmentRoom)
            segmentRoom *= 2
        }
        let bit = splitMask + 1
        let index = segmentCount - Int(bit)
        unsafe (segments + segmentCount).initialize(to: segments[index].split(by: bit, leftOver: &crowded))
        segmentCount += 1
        if segmentCount == Int(bit) * 2 { splitMask = splitMask << 1 | 1 }
    }

    /// The same elements in an array of twice the room.
    private static func grown<Element>(
        _ old: UnsafeMutablePointer<Element>, from room: Int
    ) -> UnsafeMutablePointer<Element> {
        let new = UnsafeMutablePointer<Element>.allocate(capacity: room * 2)
        unsafe new.moveInitialize(from: old, count: room)
        unsafe old.deallocate()
        return unsafe new
    }

    // MARK: Addresses

    /// Both halves of the product of both halves of the key, each with its half of the seed. Keys that differ in a few
    /// bits have products in step with each other; the last multiplication spreads those. Never 0.
    @inline(__always)
    private func hash(of key: BlockKey) -> UInt32 {
        let product = (key.low ^ seed.0).multipliedFullWidth(by: key.high ^ seed.1)
        let hash = UInt32(truncatingIfNeeded: ((product.high ^ product.low) &* 0x9E37_79B9_7F4A_7C15) >> 32)
        return hash == 0 ? 1 : hash
    }

    /// The segment for a hash: by one bit more where the split has passed.
    @inline(__always)
    private func segmentIndex(of hash: UInt32) -> Int {
        let wide = Int(hash & (splitMask << 1 | 1))
        return wide < segmentCount ? wide : Int(hash & splitMask)
    }

    @inline(__always)
    private func segment(of hash: UInt32) -> IndexSegment { unsafe segments[segmentIndex(of: hash)] }

    @inline(__always)
    private func record(_ number: BlockNumber) -> UnsafeMutablePointer<Record> {
        let chunk = unsafe chunks[Int(number) >> Self.chunkShift]
        return unsafe chunk + (Int(number) & ((1 << Self.chunkShift) - 1))
    }
}
