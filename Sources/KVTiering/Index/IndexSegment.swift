// One piece of the block table: a sorted run of words with gaps. Only `BlockTable` uses it.

import KVModel

/// An entry of the index: hash bits above, the block's number below. An empty slot is larger than any entry.
struct IndexSlot {
    var word: UInt64

    static let empty = IndexSlot(word: .max)

    @inline(__always) init(word: UInt64) { self.word = word }
    @inline(__always) init(hash: UInt32, number: BlockNumber) { word = UInt64(hash) << 32 | UInt64(number) }

    @inline(__always) var hash: UInt32 { UInt32(truncatingIfNeeded: word >> 32) }
    @inline(__always) var number: BlockNumber { BlockNumber(truncatingIfNeeded: word) }
    @inline(__always) var isEmpty: Bool { word == .max }
}

/// Slots in rising order. An entry stands at its home, the place its upper hash bits point to, or behind it with no
/// gap between. Safe as long as its one owner frees it last: every search starts at a home and stops at the empty
/// slot behind the end.
@safe
struct IndexSegment {
    /// `capacity` homes, then an overhang for entries pushed past the last home up to `end`, where one slot stays
    /// empty and ends every search.
    private(set) var slots: UnsafeMutablePointer<IndexSlot>
    private var capacity: UInt32
    private var overhang: UInt32
    private var count: UInt32 = 0

    /// With at most 7/8 of the homes taken an entry stands some four places behind its home; so many behind the last
    /// one is rare.
    private static let usualOverhang = 32

    /// Whether the slots are part of a larger piece of memory, which is its owner's to free.
    private let isLent: Bool

    init(capacity: Int, overhang: Int = Self.usualOverhang) {
        unsafe self.init(
            capacity: capacity, overhang: overhang, slots: .allocate(capacity: capacity + overhang + 1), isLent: false)
    }

    /// A segment of `capacity` homes in memory that is lent to it: `slotCount(capacity)` slots.
    init(capacity: Int, lent slots: UnsafeMutablePointer<IndexSlot>) {
        unsafe self.init(capacity: capacity, overhang: Self.usualOverhang, slots: slots, isLent: true)
    }

    private init(capacity: Int, overhang: Int, slots: UnsafeMutablePointer<IndexSlot>, isLent: Bool) {
        self.capacity = UInt32(capacity)
        self.overhang = UInt32(overhang)
        self.isLent = isLent
        unsafe self.slots = slots
        unsafe slots.initialize(repeating: .empty, count: capacity + overhang + 1)
    }

    /// Slots of a segment with so many homes.
    static func slotCount(_ capacity: Int) -> Int { capacity + usualOverhang + 1 }

    func free() { if !isLent { unsafe slots.deallocate() } }

    private var end: Int { Int(capacity + overhang) }
    /// Bytes of its own.
    var byteCount: Int { isLent ? 0 : (end + 1) * MemoryLayout<IndexSlot>.stride }

    /// The upper bits of the hash as a place: multiplied out, so that any capacity will do and order is kept.
    @inline(__always)
    func home(of hash: UInt32) -> Int { Self.home(of: hash, capacity) }

    @inline(__always)
    private static func home(of hash: UInt32, _ capacity: UInt32) -> Int {
        Int(truncatingIfNeeded: (UInt64(hash) &* UInt64(capacity)) >> 32)
    }

    /// Where entries with this hash start, or would stand.
    @inline(__always)
    func firstPlace(of hash: UInt32) -> Int {
        let first = UInt64(hash) << 32
        var place = home(of: hash)
        while unsafe slots[place].word < first { place += 1 }
        return place
    }

    /// Places between the entries and their homes, summed: what searches walk.
    var displacement: Int {
        (0..<end).reduce(0) { sum, place in
            let slot = unsafe slots[place]
            return slot.isEmpty ? sum : sum + place - home(of: slot.hash)
        }
    }

    /// Adds an entry; the search for its place starts at `start`, which is `firstPlace(of:)` its hash or behind it.
    /// False, and nothing done, when the segment must grow first.
    mutating func insert(_ slot: IndexSlot, from start: Int) -> Bool {
        if count * 8 >= capacity * 7 { return false }
        var place = start
        while unsafe slots[place].word < slot.word { place += 1 }
        var gap = place
        while unsafe !slots[gap].isEmpty { gap += 1 }
        if gap == end { return false }
        while gap > place {
            unsafe slots[gap] = slots[gap - 1]
            gap -= 1
        }
        unsafe slots[place] = slot
        count += 1
        return true
    }

    /// Takes an entry out and closes the gap. False when it is not there.
    mutating func remove(_ slot: IndexSlot) -> Bool {
        var place = firstPlace(of: slot.hash)
        while unsafe slots[place].word < slot.word { place += 1 }
        guard unsafe slots[place].word == slot.word else { return false }
        // What stands behind its home moves up; the first that is at home, or a gap, ends the run.
        while unsafe !slots[place + 1].isEmpty, unsafe home(of: slots[place + 1].hash) <= place {
            unsafe slots[place] = slots[place + 1]
            place += 1
        }
        unsafe slots[place] = .empty
        count -= 1
        return true
    }

    /// Makes room for a quarter more.
    mutating func grow() {
        // Full, or with so many equal hashes at its end that only a longer overhang can hold them.
        let isFull = count * 8 >= capacity * 7
        let larger = copy(
            capacity: Int(capacity) + max(8, Int(capacity) / 4), overhang: Int(isFull ? overhang : 2 * overhang)
        ) { _ in true }
        free()
        self = larger
    }

    /// Moves the entries that have this bit of the hash into a new segment. Both get the room they need.
    mutating func split(by bit: UInt32) -> IndexSegment {
        var leavingCount = 0
        for place in 0..<end where unsafe !slots[place].isEmpty {
            if unsafe slots[place].hash & bit != 0 { leavingCount += 1 }
        }
        let leaving = copy(capacity: Self.capacity(for: leavingCount)) { $0.hash & bit != 0 }
        let staying = copy(capacity: Self.capacity(for: Int(count) - leavingCount)) { $0.hash & bit == 0 }
        free()
        self = staying
        return leaving
    }

    /// Room for so many entries and a quarter more.
    private static func capacity(for count: Int) -> Int { max(8, count + count / 4) }

    /// The chosen entries in a segment of that capacity, with a longer overhang if they need one.
    private func copy(
        capacity: Int, overhang: Int = Self.usualOverhang, where isChosen: (IndexSlot) -> Bool
    ) -> IndexSegment {
        var copy = IndexSegment(capacity: capacity, overhang: overhang)
        let target = unsafe copy.slots
        let limit = copy.end
        var copied: UInt32 = 0
        var next = 0
        for place in 0..<end {
            let slot = unsafe slots[place]
            if slot.isEmpty || !isChosen(slot) { continue }
            next = max(next, Self.home(of: slot.hash, UInt32(capacity)))
            if next == limit {
                copy.free()
                return self.copy(capacity: capacity, overhang: 2 * overhang, where: isChosen)
            }
            unsafe target[next] = slot
            copied += 1
            next += 1
        }
        copy.count = copied
        return copy
    }
}
