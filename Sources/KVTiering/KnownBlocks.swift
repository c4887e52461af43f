// Every block a node knows by its key: where it is, who its parent is, and what became of it. One cache line a block,
// nothing allocated per block after the start. It promises dense numbers that live as long as anybody uses them.
// Which blocks are worth keeping is not decided here.

import KVModel

/// What is known of one block. A number stands for one key until `KnownBlocks` recycles it.
struct BlockRecord {
    var key = BlockKey(high: 0, low: 0)
    /// The block before it, or `noBlock` for a root.
    var parent = BlockRecord.noBlock
    /// The child that was used last: the next block of a chain is there far more often than not, and then a chain is
    /// walked through memory in order, without a probe.
    var lastChild = BlockRecord.noBlock
    var dramSlot = BlockRecord.noSlot
    var nvmeSlot = BlockRecord.noSlot
    /// When the shared store was last heard of this block, in milliseconds since the clock's origin, wrapping.
    var flashHeard: UInt32 = 0
    /// The running number of its eviction from node memory, to tell whether predictions displaced it.
    var evictionOrdinal: UInt32 = 0
    /// Distance from the root.
    var depth: Int32 = 0
    /// Who must not lose the bytes in node memory: transfers, offers and requests.
    var dramReaders: UInt32 = 0
    var nvmeReaders: UInt16 = 0
    /// Requests in flight that hold this number.
    var users: UInt16 = 0
    /// Known children: a parent is not forgotten before them.
    var children: UInt16 = 0
    /// Requests that used it, saturating.
    var uses: UInt16 = 0
    var dram = Presence.absent
    var nvme = Presence.absent
    var flash = Hearsay.unknown
    var flags = Flags()
    var fate = Fate.none

    static let noBlock = BlockNumber.max
    static let noSlot = SlotIndex.max

    /// Whether a tier of the node has the bytes.
    enum Presence: UInt8 {
        case absent
        /// On their way; not to be found by anybody.
        case filling
        case present
        /// Known to be wrong: not to be found, but somebody still reads the slot.
        case spoiled
    }

    /// What the shared store last said.
    enum Hearsay: UInt8 { case unknown, absent, present }

    /// What last happened to a block that is nowhere now.
    enum Fate: UInt8 { case none, evicted, refused, lost, corrupt, quota, noTier }

    struct Flags: OptionSet {
        let rawValue: UInt8
        /// The policy of node memory keeps it.
        static let keptInDRAM = Flags(rawValue: 1)
        /// The policy of local flash keeps it.
        static let keptOnNVMe = Flags(rawValue: 2)
        /// Brought up on a prediction and not used yet.
        static let predicted = Flags(rawValue: 4)
        /// The store holds a place for it; it goes there once it is in node memory.
        static let promised = Flags(rawValue: 8)
        /// More than one request waits for its filling.
        static let awaited = Flags(rawValue: 16)
        /// Written to local flash as soon as it is in node memory.
        static let writeThrough = Flags(rawValue: 32)
        /// In use: the number stands for its key.
        static let named = Flags(rawValue: 64)
    }
}

/// All blocks by number and by key.
struct KnownBlocks: ~Copyable {
    private(set) var records: [BlockRecord] = []
    /// Open addressing with linear probing: number + 1, or 0 for an empty place. At most half full.
    private var table: [UInt32]
    private var mask: Int
    private let countMax: Int
    /// Numbers that stand for nothing.
    private var unused: [BlockNumber] = []
    /// Where the search for a number to recycle goes on; it runs downwards, to meet leaves before their parents.
    private var hand = 0
    /// Numbers taken from one key for another.
    private(set) var recycledCount = 0

    /// How many numbers a search for one to recycle looks at before it gives up.
    private static let searchLength = 256

    init(countMax: Int) {
        precondition(countMax > 0, "a node that may know no block")
        precondition(countMax < Int(UInt32.max) / 4, "more blocks than numbers")
        self.countMax = countMax
        table = [UInt32](repeating: 0, count: 1024)
        mask = 1023
    }

    var count: Int { records.count - unused.count }

    @inline(__always)
    subscript(_ block: BlockNumber) -> BlockRecord {
        get { records[Int(block)] }
        _modify { yield &records[Int(block)] }
    }

    /// The number of a key that is known.
    func find(_ key: BlockKey) -> BlockNumber? {
        var place = Int(truncatingIfNeeded: key.low) & mask
        while table[place] != 0 {
            let number = table[place] - 1
            if records[Int(number)].key == key { return number }
            place = (place + 1) & mask
        }
        return nil
    }

    /// The number of a key that is known, looked for first behind `parent`.
    @inline(__always)
    func find(_ key: BlockKey, after parent: BlockNumber) -> BlockNumber? {
        if parent != BlockRecord.noBlock {
            let guess = records[Int(parent)].lastChild
            if guess != BlockRecord.noBlock, records[Int(guess)].key == key { return guess }
        }
        return find(key)
    }

    /// The number of the key that follows `parent`, naming it if it is new.
    ///
    /// - Parameter mayRecycle: Asked before a number is taken from a key nobody uses.
    /// - Returns: `nil` when all numbers are in use.
    @inline(__always)
    mutating func number(
        of key: BlockKey, after parent: BlockNumber, mayRecycle: (BlockNumber) -> Bool
    ) -> BlockNumber? {
        if parent != BlockRecord.noBlock {
            let guess = records[Int(parent)].lastChild
            if guess != BlockRecord.noBlock, records[Int(guess)].key == key { return guess }
        }
        var found = find(key)
        if found == nil { found = name(key, after: parent, mayRecycle: mayRecycle) }
        if let found, parent != BlockRecord.noBlock { records[Int(parent)].lastChild = found }
        return found
    }

    private mutating func name(
        _ key: BlockKey, after parent: BlockNumber, mayRecycle: (BlockNumber) -> Bool
    ) -> BlockNumber? {
        guard let number = freeNumber(keeping: parent, mayRecycle) else { return nil }
        var record = BlockRecord()
        record.key = key
        record.parent = parent
        record.flags = .named
        if parent != BlockRecord.noBlock {
            record.depth = records[Int(parent)].depth + 1
            if records[Int(parent)].children < .max { records[Int(parent)].children += 1 }
        }
        records[Int(number)] = record
        insert(number)
        return number
    }

    private mutating func freeNumber(keeping parent: BlockNumber, _ mayRecycle: (BlockNumber) -> Bool) -> BlockNumber? {
        if let number = unused.popLast() { return number }
        if records.count < countMax {
            records.append(BlockRecord())
            if 2 * records.count > table.count { growTable() }
            return BlockNumber(truncatingIfNeeded: records.count - 1)
        }
        for _ in 0..<min(Self.searchLength, records.count) {
            hand = hand == 0 ? records.count - 1 : hand - 1
            let number = BlockNumber(truncatingIfNeeded: hand)
            if number != parent, isIdle(number), mayRecycle(number) {
                forget(number)
                recycledCount += 1
                return unused.popLast()
            }
        }
        return nil
    }

    /// Whether nothing in the node refers to the number.
    func isIdle(_ block: BlockNumber) -> Bool {
        let record = records[Int(block)]
        return record.flags == .named && record.dram == .absent && record.nvme == .absent && record.users == 0
            && record.children == 0 && record.dramReaders == 0 && record.nvmeReaders == 0
    }

    /// Frees a number that `isIdle`.
    mutating func forget(_ block: BlockNumber) {
        precondition(isIdle(block), "a block number is freed that is in use")
        remove(block)
        let parent = records[Int(block)].parent
        if parent != BlockRecord.noBlock {
            // A saturated count stays: such a parent is never forgotten.
            if records[Int(parent)].children < .max { records[Int(parent)].children -= 1 }
            if records[Int(parent)].lastChild == block { records[Int(parent)].lastChild = BlockRecord.noBlock }
        }
        records[Int(block)] = BlockRecord()
        unused.append(block)
    }

    // MARK: The table of keys

    private mutating func insert(_ number: BlockNumber) {
        var place = Int(truncatingIfNeeded: records[Int(number)].key.low) & mask
        while table[place] != 0 { place = (place + 1) & mask }
        table[place] = number + 1
    }

    private mutating func remove(_ number: BlockNumber) {
        var hole = Int(truncatingIfNeeded: records[Int(number)].key.low) & mask
        while table[hole] != number + 1 { hole = (hole + 1) & mask }
        // Later entries of the run move into the hole unless that would put them before their home.
        var place = (hole + 1) & mask
        while table[place] != 0 {
            let home = Int(truncatingIfNeeded: records[Int(table[place] - 1)].key.low) & mask
            if (place &- home) & mask >= (place &- hole) & mask {
                table[hole] = table[place]
                hole = place
            }
            place = (place + 1) & mask
        }
        table[hole] = 0
    }

    private mutating func growTable() {
        let numbers = table
        table = [UInt32](repeating: 0, count: 2 * numbers.count)
        mask = table.count - 1
        for entry in numbers where entry != 0 { insert(entry - 1) }
    }
}
