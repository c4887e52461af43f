// Which objects there are: a flat table over raw memory, sized once for all extents of all drives. It promises that
// names are compared by 128 bits of key and the whole scope, that nothing is allocated for a block, and at most 64 bytes an
// extent all told. It decides nothing.

import KVModel
import KVSystem

/// Records by number, and numbers by name.
///
/// An object's number is that of its first extent, so there is no list of places beside the records, and a table for
/// a store's extents never grows. Names lead to numbers through open addressing: 8 bytes a slot (32 bits of hash, the
/// number), five slots for four extents, linear probing, and removal by moving back what follows, so that nothing is
/// left behind. Both lie in lazily mapped zero pages, huge where there are any.
///
/// Memory: 48 bytes of record and 10 of slots an extent; the allocators of the drives add an eighth of a byte.
@safe
struct ObjectTable: ~Copyable {
    /// Extents of all drives.
    let extentCount: Int
    /// Names in the index: objects written or being written.
    private(set) var count = 0

    private let recordMemory: PageMemory
    private let slotMemory: PageMemory
    private let records: UnsafeMutablePointer<ObjectRecord>
    /// Hash above, number + 1 below; 0 is empty, as fresh memory is.
    private let slots: UnsafeMutablePointer<UInt64>
    private let slotCount: Int
    /// What goes into every hash. Keys come from peers: one that chose them, and knew how they are hashed, could give
    /// thousands the same place, and every look-up of every tenant would walk past them.
    private let seed: (UInt64, UInt64)

    init(extentCount: Int, hashSeed: UInt64) throws(SystemError) {
        precondition(extentCount > 0 && extentCount < Int(ObjectRecord.none), "a store of no extents, or of 2^32")
        let slotCount = max(16, extentCount + extentCount / 4)
        let recordMemory = try PageMemory(byteCount: extentCount * MemoryLayout<ObjectRecord>.stride)
        let slotMemory = try PageMemory(byteCount: slotCount * MemoryLayout<UInt64>.stride)
        self.extentCount = extentCount
        self.slotCount = slotCount
        seed = (hashSeed, mixBits(hashSeed &+ 0x9E37_79B9_7F4A_7C15))
        unsafe records = unsafe recordMemory.bytes.baseAddress!.assumingMemoryBound(to: ObjectRecord.self)
        unsafe slots = unsafe slotMemory.bytes.baseAddress!.assumingMemoryBound(to: UInt64.self)
        self.recordMemory = recordMemory
        self.slotMemory = slotMemory
    }

    /// Bytes it has mapped.
    var byteCount: Int { unsafe recordMemory.bytes.count + slotMemory.bytes.count }

    /// The record with a number.
    subscript(number: UInt32) -> ObjectRecord {
        @inline(__always) get {
            precondition(number < extentCount, "a number past the last extent")
            return unsafe records[Int(number)]
        }
        @inline(__always) _modify {
            precondition(number < extentCount, "a number past the last extent")
            // By a pointer of its own: what is changed lies behind it, not in the table.
            let records = unsafe records
            yield unsafe &records[Int(number)]
        }
    }

    // MARK: Names

    /// The number of the object with this name.
    @inline(__always)
    func find(_ key: BlockKey, scope: UInt32) -> UInt32? {
        let hash = hash(key, scope)
        return find(key, scope: scope, hash: hash, from: home(of: hash))
    }

    /// The numbers of up to sixteen names of one scope, `none` for each that is not there. Their slots and records are
    /// touched first and compared then, so that the memory answers for all of them at once instead of one after another.
    func find(_ names: [ObjectName], _ range: Range<Int>, scope: UInt32) -> InlineArray<16, UInt32> {
        precondition(range.count <= 16, "more than sixteen names are looked up at once")
        var numbers = InlineArray<16, UInt32>(repeating: ObjectRecord.none)
        var hashes = InlineArray<16, UInt32>(repeating: 0)
        var sum: UInt64 = 0
        for place in 0..<range.count {
            hashes[place] = hash(names[range.lowerBound + place].key.short, scope)
            numbers[place] = UInt32(truncatingIfNeeded: unsafe slots[home(of: hashes[place])])
        }
        // The sum keeps the reads from being dropped.
        for place in 0..<range.count where numbers[place] != 0 {
            sum &+= unsafe records[Int(numbers[place]) - 1].key.low
        }
        touch(sum)
        for place in 0..<range.count {
            numbers[place] =
                find(
                    names[range.lowerBound + place].key.short, scope: scope, hash: hashes[place],
                    from: home(of: hashes[place])) ?? ObjectRecord.none
        }
        return numbers
    }

    @inline(__always)
    private func find(_ key: BlockKey, scope: UInt32, hash: UInt32, from home: Int) -> UInt32? {
        var place = home
        while true {
            let word = unsafe slots[place]
            if word == 0 { return nil }
            if UInt32(truncatingIfNeeded: word >> 32) == hash {
                let number = UInt32(truncatingIfNeeded: word) - 1
                let record = unsafe records + Int(number)
                if unsafe record.pointee.key == key, unsafe record.pointee.scope == scope { return number }
            }
            place += 1
            if place == slotCount { place = 0 }
        }
    }

    /// Enters the object with this number, whose record has its name already.
    mutating func enter(_ number: UInt32) {
        let record = self[number]
        precondition(find(record.key, scope: record.scope) == nil, "a name is entered twice")
        let hash = hash(record.key, record.scope)
        var place = home(of: hash)
        while unsafe slots[place] != 0 {
            place += 1
            if place == slotCount { place = 0 }
        }
        unsafe slots[place] = UInt64(hash) << 32 | UInt64(number + 1)
        count += 1
    }

    /// Takes the name of the object with this number out; the record stays.
    mutating func leave(_ number: UInt32) {
        let hash = hash(self[number].key, self[number].scope)
        let word = UInt64(hash) << 32 | UInt64(number + 1)
        var gap = home(of: hash)
        while unsafe slots[gap] != word {
            precondition(unsafe slots[gap] != 0, "a name is taken out that is not in the index")
            gap += 1
            if gap == slotCount { gap = 0 }
        }
        // Whoever stands behind the gap and asked for a place at or before it moves into it.
        var place = gap
        while true {
            place += 1
            if place == slotCount { place = 0 }
            let next = unsafe slots[place]
            if next == 0 { break }
            let wish = home(of: UInt32(truncatingIfNeeded: next >> 32))
            let distance = place >= wish ? place - wish : place + slotCount - wish
            let gapDistance = place >= gap ? place - gap : place + slotCount - gap
            if distance >= gapDistance {
                unsafe slots[gap] = next
                gap = place
            }
        }
        unsafe slots[gap] = 0
        count -= 1
    }

    /// How many slots past its home the name of an object stands.
    func distance(of number: UInt32) -> Int {
        let hash = hash(self[number].key, self[number].scope)
        let word = UInt64(hash) << 32 | UInt64(number + 1)
        var distance = 0
        while unsafe slots[(home(of: hash) + distance) % slotCount] != word { distance += 1 }
        return distance
    }

    /// Both halves of the product of both halves of the key, each with its half of the seed; scopes are small numbers,
    /// spread by the golden ratio.
    @inline(__always)
    private func hash(_ key: BlockKey, _ scope: UInt32) -> UInt32 {
        let product = (key.low ^ seed.0).multipliedFullWidth(
            by: key.high ^ seed.1 ^ UInt64(scope) &* 0x9E37_79B9_7F4A_7C15)
        return UInt32(truncatingIfNeeded: mixBits(product.high ^ product.low) >> 32)
    }

    @inline(__always)
    private func home(of hash: UInt32) -> Int { Int((UInt64(hash) &* UInt64(slotCount)) >> 32) }
}

/// Takes a value so that the reads that made it are made.
@inline(never)
private func touch(_ value: UInt64) {}
