// Records by key: a hash table over raw memory, and dense numbers for what it holds. It promises that keys are compared
// in full, that no single insert pays for the whole table, and that removals leave nothing behind. What a record says of
// its block is its owner's matter.

import KVModel

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
/// The table is cut into segments of about a thousand entries. Each grows alone, by a quarter, and when the table
/// holds a thousand entries a segment, the next segment in turn is split in two (linear hashing; Litwin, VLDB 1980).
/// The longest pause is therefore one segment's: microseconds, whatever the size of the table.
///
/// In a segment a slot is one word: 32 bits of the key above, the block's number below. Slots are kept in rising
/// order, each at or behind the place its bits ask for, so a search stops at the first larger word, found or not, and
/// growing, splitting and removing never look at a key. The keys themselves lie with the records, by number.
///
/// Memory: a record and about 10 bytes of slot an entry.
@safe
struct BlockTable<Record: KeyedRecord>: ~Copyable {
    /// How many blocks it holds.
    private(set) var count = 0
    /// All numbers given so far are below this.
    private(set) var numberLimit: BlockNumber = 0

    private var segments: UnsafeMutablePointer<IndexSegment>
    private var segmentRoom: Int
    /// The slots of the segments that it began with, in one piece.
    private let firstSlots: UnsafeMutablePointer<IndexSlot>
    private let firstSlotCount: Int
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

    /// What goes into every hash: one that chose keys, and knew how they are hashed, could give thousands the same place.
    private let seed: (UInt64, UInt64)

    /// A number that no block has.
    private static var none: BlockNumber { .max }
    /// Records are allocated 2,048 at a time.
    private static var chunkShift: Int { 11 }
    /// Entries a segment may hold on average before the next one is split.
    private static var segmentTarget: Int { 1024 }

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
        let places = max(8, expectedCount / segmentCount * 4 / 3)
        let slotCount = IndexSegment.slotCount(places)
        firstSlotCount = segmentCount * slotCount
        unsafe firstSlots = LargeRoom.allocate(firstSlotCount)
        for index in 0..<segmentCount {
            unsafe (segments + index).initialize(
                to: IndexSegment(capacity: places, lent: firstSlots + index * slotCount))
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
        unsafe firstSlots.deallocate()
        for index in firstChunkCount..<chunkCount { unsafe chunks[index].deallocate() }
        unsafe firstRecords.deallocate()
        unsafe chunks.deallocate()
    }

    /// Bytes it has allocated, all told.
    var byteCount: Int {
        var bytes = segmentRoom * MemoryLayout<IndexSegment>.stride + chunkRoom * MemoryLayout<Int>.stride
        bytes += chunkCount << Self.chunkShift * MemoryLayout<Record>.stride
        bytes += firstSlotCount * MemoryLayout<IndexSlot>.stride
        for index in 0..<segmentCount { bytes += unsafe segments[index].byteCount }
        return bytes
    }

    /// How many places behind its home an entry stands on average: what a search walks beyond its first slot.
    var meanDisplacement: Double {
        var sum = 0
        for index in 0..<segmentCount { sum += unsafe segments[index].displacement }
        return count == 0 ? 0 : Double(sum) / Double(count)
    }

    // MARK: Looking up

    /// The number of the block with this key.
    func find(_ key: BlockKey) -> BlockNumber? {
        let hash = hash(of: key)
        let segment = unsafe segments[segmentIndex(of: hash)]
        var place = segment.firstPlace(of: hash)
        while unsafe segment.slots[place].hash == hash {
            let number = unsafe segment.slots[place].number
            if number == Self.none { return nil }
            if unsafe record(number).pointee.key == key { return number }
            place += 1
        }
        return nil
    }

    /// How many leading keys of a chain are known. Their numbers are appended to `numbers`, root first.
    ///
    /// The keys are taken sixteen at a time: first the slots of all sixteen are touched, then compared, so that the
    /// memory answers for sixteen keys at once instead of one after another.
    func longestRun(_ keys: Span<BlockKey>, into numbers: inout [BlockNumber]) -> Int {
        var done = 0
        while done < keys.count {
            let batch = min(Self.batch, keys.count - done)
            let places = places(of: keys.extracting(done..<done + batch))
            for offset in 0..<batch {
                let key = keys[done + offset]
                guard let number = find(key, from: places[offset]) else { return done + offset }
                numbers.append(number)
            }
            done += batch
        }
        return done
    }

    /// Keys whose searches are begun together.
    static var batch: Int { 16 }

    /// Where the search for a key starts, and the word that was there.
    struct SlotPlace {
        fileprivate var segment: UInt32 = 0
        fileprivate var place: UInt32 = 0
        fileprivate var slot: UInt64 = 0
    }

    /// Begins the searches for up to `batch` keys. Places hold until the next change of the table.
    @inline(__always)
    func places(of keys: Span<BlockKey>) -> InlineArray<16, SlotPlace> {
        var places = InlineArray<16, SlotPlace>(repeating: SlotPlace())
        for index in keys.indices {
            let hash = hash(of: keys[index])
            let segment = segmentIndex(of: hash)
            let home = unsafe segments[segment].home(of: hash)
            let slot = unsafe segments[segment].slots[home].word
            places[index] = SlotPlace(segment: UInt32(segment), place: UInt32(home), slot: slot)
        }
        return places
    }

    /// Reads where the searches for some keys will begin, so that the memory answers for all of them at once. What it
    /// returns says nothing: it must only be kept, or the compiler leaves the reading out.
    func touch(_ keys: Span<BlockKey>) -> UInt64 {
        var sum: UInt64 = 0
        for index in keys.indices {
            let hash = hash(of: keys[index])
            let segment = segmentIndex(of: hash)
            sum &+= unsafe segments[segment].slots[segments[segment].home(of: hash)].word
        }
        return sum
    }

    /// The number of a key whose search has begun.
    @inline(__always)
    func find(_ key: BlockKey, from start: SlotPlace) -> BlockNumber? {
        let hash = hash(of: key)
        let segment = unsafe segments[Int(start.segment)]
        var place = Int(start.place)
        var slot = IndexSlot(word: start.slot)
        while slot.hash <= hash {
            if slot.hash == hash {
                if slot.number == Self.none { return nil }
                if unsafe record(slot.number).pointee.key == key { return slot.number }
            }
            place += 1
            slot = unsafe segment.slots[place]
        }
        return nil
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

    // MARK: Changing

    /// Whether a number that was given before is free.
    var hasFreed: Bool { freed != Self.none }

    /// The number of the block with this key, given now if the key is new.
    mutating func insert(_ key: BlockKey) -> (number: BlockNumber, isNew: Bool) {
        let hash = hash(of: key)
        let index = segmentIndex(of: hash)
        // One search for both questions: where the key is, and where it would stand.
        let first = unsafe segments[index].firstPlace(of: hash)
        var place = first
        while unsafe segments[index].slots[place].hash == hash {
            let number = unsafe segments[index].slots[place].number
            if number == Self.none { break }
            if unsafe record(number).pointee.key == key { return (number, false) }
            place += 1
        }
        let number = takeNumber()
        unsafe record(number).initialize(to: Record(key: key))
        let slot = IndexSlot(hash: hash, number: number)
        if unsafe !segments[index].insert(slot, from: first) {
            repeat {
                unsafe segments[index].grow()
            } while unsafe !segments[index].insert(slot, from: segments[index].firstPlace(of: hash))
        }
        count += 1
        if count > segmentCount * Self.segmentTarget { splitNext() }
        return (number, true)
    }

    /// Forgets a block; its number may be given again.
    mutating func remove(_ number: BlockNumber) {
        precondition(number < numberLimit, "a number that was never given")
        let hash = hash(of: unsafe record(number).pointee.key)
        let removed = unsafe segments[segmentIndex(of: hash)].remove(IndexSlot(hash: hash, number: number))
        precondition(removed, "a block is removed that the index does not hold")
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
        precondition(numberLimit < Self.none, "more blocks than a 32-bit number can name")
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
        unsafe (segments + segmentCount).initialize(to: segments[index].split(by: bit))
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
    /// bits have products in step with each other; the last multiplication spreads those.
    @inline(__always)
    private func hash(of key: BlockKey) -> UInt32 {
        let product = (key.low ^ seed.0).multipliedFullWidth(by: key.high ^ seed.1)
        return UInt32(truncatingIfNeeded: ((product.high ^ product.low) &* 0x9E37_79B9_7F4A_7C15) >> 32)
    }

    /// The segment for a hash: by one bit more where the split has passed.
    @inline(__always)
    private func segmentIndex(of hash: UInt32) -> Int {
        let wide = Int(hash & (splitMask << 1 | 1))
        return wide < segmentCount ? wide : Int(hash & splitMask)
    }

    @inline(__always)
    private func record(_ number: BlockNumber) -> UnsafeMutablePointer<Record> {
        let chunk = unsafe chunks[Int(number) >> Self.chunkShift]
        return unsafe chunk + (Int(number) & ((1 << Self.chunkShift) - 1))
    }
}
