// Every block a node knows by its key: where it is, who its parent is, and what became of it. One record a block in the
// block table, nothing allocated per block and no pause for growth. It promises dense numbers that live as long as
// anybody uses them. Which blocks are worth keeping is not decided here.

import KVModel

/// What is known of one block, in 52 bytes. A number stands for one key until `KnownBlocks` recycles it.
///
/// Only four-byte words and shorter, or the record would be rounded up to 56 bytes; small values share words.
struct BlockRecord: KeyedRecord {
    private var keyWords: (UInt32, UInt32, UInt32, UInt32)
    /// The block before it, or `noBlock` for a root.
    var parent = BlockRecord.noBlock
    /// The child that was used last: the next block of a chain is there far more often than not, and then a chain is
    /// walked through memory in order, without a probe.
    var lastChild = BlockRecord.noBlock
    var dramSlot = BlockRecord.noSlot
    var nvmeSlot = BlockRecord.noSlot
    /// When the shared store was last heard of this block, in milliseconds since the clock's origin, wrapping.
    var flashHeard: UInt32 = 0
    /// Eviction's ordinal above, readers on local flash in the lowest eight bits.
    private var evictionAndReaders: UInt32 = 0
    /// Depth above, children in the lowest twelve bits.
    private var depthAndChildren: UInt32 = 0
    /// Who must not lose the bytes in node memory: transfers, offers and requests.
    var dramReaders: UInt16 = 0
    /// Requests in flight that hold this number.
    var users: UInt16 = 0
    /// Requests that used it, saturating.
    var uses: UInt16 = 0
    /// From the lowest bit: flags 7, DRAM 2, NVMe 2, flash 2, fate 3.
    private var states: UInt16 = 0

    /// One more request holds its number.
    ///
    /// - Returns: Whether some request used it before, and whether node memory has it.
    @inline(__always)
    mutating func beginUse() -> (isMet: Bool, isInMemory: Bool) {
        users += 1
        return (uses > 0, dram == .present)
    }

    init(key: BlockKey) {
        keyWords = (
            UInt32(truncatingIfNeeded: key.high >> 32), UInt32(truncatingIfNeeded: key.high),
            UInt32(truncatingIfNeeded: key.low >> 32), UInt32(truncatingIfNeeded: key.low)
        )
    }

    @inline(__always) var key: BlockKey {
        BlockKey(
            high: UInt64(keyWords.0) << 32 | UInt64(keyWords.1), low: UInt64(keyWords.2) << 32 | UInt64(keyWords.3))
    }

    var freedBefore: BlockNumber {
        get { parent }
        set { parent = newValue }
    }

    /// The running number of its eviction from node memory, to tell whether predictions displaced it; 0 for none. It
    /// wraps after 16 million evictions.
    var evictionOrdinal: UInt32 {
        get { evictionAndReaders >> 8 }
        set { evictionAndReaders = newValue << 8 | evictionAndReaders & 0xFF }
    }

    /// How many evictions ago the one with the ordinal was, given how many there have been.
    func evictionsSince(_ count: Int) -> Int {
        Int((UInt32(truncatingIfNeeded: count) &- evictionOrdinal) & 0xFF_FFFF)
    }

    /// Transfers that read its bytes on local flash.
    var nvmeReaders: Int {
        get { Int(evictionAndReaders & 0xFF) }
        set {
            precondition(newValue <= 0xFF, "a block of local flash is read by more transfers than a record can count")
            evictionAndReaders = evictionAndReaders & ~0xFF | UInt32(newValue)
        }
    }

    /// Distance from the root, saturating.
    var depth: Int32 {
        get { Int32(truncatingIfNeeded: depthAndChildren >> 12) }
        set { depthAndChildren = UInt32(min(newValue, 0xF_FFFF)) << 12 | depthAndChildren & BlockRecord.childrenMax }
    }

    /// Known children: a parent is not forgotten before them. Up to `childrenMax`; a parent with so many stays.
    var children: UInt32 {
        get { depthAndChildren & BlockRecord.childrenMax }
        set { depthAndChildren = depthAndChildren & ~BlockRecord.childrenMax | newValue }
    }

    static let childrenMax: UInt32 = 0xFFF

    @inline(__always) var flags: Flags {
        get { Flags(rawValue: UInt8(truncatingIfNeeded: states & 0x7F)) }
        set { states = states & ~0x7F | UInt16(newValue.rawValue) }
    }

    /// Whether node memory has the bytes.
    @inline(__always) var dram: Presence {
        get { Presence(rawValue: UInt8(truncatingIfNeeded: states >> 7 & 3)) ?? .absent }
        set { states = states & ~(3 << 7) | UInt16(newValue.rawValue) << 7 }
    }

    /// Whether local flash has the bytes.
    @inline(__always) var nvme: Presence {
        get { Presence(rawValue: UInt8(truncatingIfNeeded: states >> 9 & 3)) ?? .absent }
        set { states = states & ~(3 << 9) | UInt16(newValue.rawValue) << 9 }
    }

    /// What the shared store last said.
    @inline(__always) var flash: Hearsay {
        get { Hearsay(rawValue: UInt8(truncatingIfNeeded: states >> 11 & 3)) ?? .unknown }
        set { states = states & ~(3 << 11) | UInt16(newValue.rawValue) << 11 }
    }

    /// What last happened to it.
    @inline(__always) var fate: Fate {
        get { Fate(rawValue: UInt8(truncatingIfNeeded: states >> 13)) ?? .none }
        set { states = states & ~(7 << 13) | UInt16(newValue.rawValue) << 13 }
    }

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
    private var table: BlockTable<BlockRecord>
    private let countMax: Int
    /// Where the search for a number to recycle goes on.
    private var hand: BlockNumber = 0
    /// The parent of the block whose number was recycled last: often nobody uses it either.
    private var upwards = BlockRecord.noBlock

    /// The numbers of the chain in hand, while it is watched for one that comes twice.
    private var marked = PositionSet()
    private var isMarking = false

    /// How many blocks a search for a number to recycle looks at before it gives up: more than a long chain has.
    private static let searchLength = 1 << 14

    init(countMax: Int, expectedCount: Int = 0, hashSeed: UInt64 = 0) {
        table = BlockTable(expectedCount: min(expectedCount, countMax), hashSeed: hashSeed)
        precondition(countMax > 0, "a node that may know no block")
        precondition(countMax <= Int(IndexGroup.numberLimit), "more blocks than numbers")
        self.countMax = countMax
    }

    var count: Int { table.count }
    /// All numbers given so far are below this.
    var numberLimit: BlockNumber { table.numberLimit }
    /// Bytes allocated for all of them, the table of keys included.
    var byteCount: Int { table.byteCount }

    @inline(__always)
    subscript(_ block: BlockNumber) -> BlockRecord {
        get { table[block] }
        _modify { yield &table[block] }
    }

    /// Asks for the memory of a block's record, which will be needed soon.
    @inline(__always)
    func willUse(_ block: BlockNumber) { table.willUse(block) }

    /// The number of a key that is known.
    func find(_ key: BlockKey) -> BlockNumber? { table.find(key) }

    /// The number of a key that is known, looked for first behind `parent`.
    @inline(__always)
    func find(_ key: BlockKey, after parent: BlockNumber) -> BlockNumber? { child(of: parent, key) ?? find(key) }

    /// Looks keys of a chain up, in its order, and says which number each has, up to the first that is not known: a chain is
    /// named from its root and forgotten from its end, so nothing behind that is known either.
    @inline(__always)
    func findLeading(_ chain: Span<BlockKey>, _ body: (Int, BlockNumber) -> Void) {
        var parent = BlockRecord.noBlock
        // Searches go ahead together, the more of them the more have found something: most chains end at the first.
        var begunEnd = 0
        var together = 1
        var searches = table.searches()
        for index in chain.indices {
            var block = child(of: parent, chain[index])
            if block == nil {
                if index >= begunEnd {
                    begunEnd = min(index + together, chain.count)
                    together = min(4 * together, BlockTable<BlockRecord>.Searches.count)
                    for place in index..<begunEnd { searches[place] = table.begin(chain[place]) }
                    for place in index..<begunEnd { table.meet(&searches[place]) }
                }
                block = table.find(chain[index], searches[index])
            }
            guard let block else { return }
            body(index, block)
            parent = block
        }
    }

    /// The child of a block that was used last, if it has this key.
    @inline(__always)
    private func child(of parent: BlockNumber, _ key: BlockKey) -> BlockNumber? {
        guard parent != BlockRecord.noBlock else { return nil }
        let guess = table[parent].lastChild
        return guess != BlockRecord.noBlock && table[guess].key == key ? guess : nil
    }

    /// What a chain was found to be while it was named.
    struct NamedChain {
        /// Whether there was a number for each of its blocks.
        var isWhole = true
        /// Leading blocks that some request had used before.
        var metCount = 0
        /// Leading blocks that node memory has.
        var memoryCount = 0
    }

    /// Appends the numbers of a chain's keys to `blocks`, naming those that are new, and counts a user of each. Records are met
    /// here once for all that a look-up asks of them: in a large node each time is a walk through memory.
    ///
    /// - Parameter mayRecycle: Asked before a number is taken from a key nobody uses.
    @inline(__always)
    mutating func name(
        _ chain: Span<BlockKey>, into blocks: inout [BlockNumber], mayRecycle: (BlockNumber) -> Bool
    ) -> NamedChain {
        var named = NamedChain()
        var parent = BlockRecord.noBlock
        var awaitedEnd = 0
        for index in chain.indices {
            var number = child(of: parent, chain[index])
            if number == nil {
                // What is new comes in a row: their places in the table are looked at together.
                if index >= awaitedEnd {
                    awaitedEnd = min(index + BlockTable<BlockRecord>.Searches.count, chain.count)
                    for place in index..<awaitedEnd { _ = table.begin(chain[place]) }
                }
                number = name(chain[index], after: parent, mayRecycle: mayRecycle)
                if let number, parent != BlockRecord.noBlock { table[parent].lastChild = number }
            }
            guard let number, isFirst(number, after: parent, in: blocks) else {
                named.isWhole = false
                break
            }
            let (isMet, isInMemory) = table[number].beginUse()
            if isMet, named.metCount == index { named.metCount = index + 1 }
            if isInMemory, named.memoryCount == index { named.memoryCount = index + 1 }
            blocks.append(number)
            parent = number
        }
        if isMarking {
            for block in blocks { marked.remove(Int(block)) }
            isMarking = false
        }
        return named
    }

    /// Whether a number stands in the chain in hand for the first time: a key names all that is before it, so one that comes again
    /// is no chain's, and would count as many users as places.
    ///
    /// Where each block follows the one that it followed when it was named, none comes twice. From the first that does not, as in a
    /// chain whose tail was named before it, numbers are marked.
    @inline(__always)
    private mutating func isFirst(
        _ number: BlockNumber, after parent: BlockNumber, in blocks: [BlockNumber]
    ) -> Bool {
        isMarking || table[number].parent != parent ? mark(number, in: blocks) : true
    }

    private mutating func mark(_ number: BlockNumber, in blocks: [BlockNumber]) -> Bool {
        if marked.count < Int(table.numberLimit) { marked.clear(count: countMax) }
        if !isMarking {
            isMarking = true
            for block in blocks { marked.insert(Int(block)) }
        }
        guard !marked.contains(Int(number)) else { return false }
        marked.insert(Int(number))
        return true
    }

    private mutating func name(
        _ key: BlockKey, after parent: BlockNumber, mayRecycle: (BlockNumber) -> Bool
    ) -> BlockNumber? {
        if !hasUnusedNumber {
            // A block without known children has none of this key; what is new is most often behind what is new.
            let mayBeKnown = parent == BlockRecord.noBlock || table[parent].children > 0
            if mayBeKnown, let known = find(key) { return known }
            guard hasFreeNumber(keeping: parent, mayRecycle) else { return nil }
        }
        let (number, isNew) = table.insert(key)
        guard isNew else { return number }
        table[number].parent = parent
        table[number].flags = .named
        if parent != BlockRecord.noBlock {
            table[number].depth = table[parent].depth + 1
            if table[parent].children < BlockRecord.childrenMax { table[parent].children += 1 }
        }
        return number
    }

    private var hasUnusedNumber: Bool { table.hasFreed || Int(table.numberLimit) < countMax }

    /// Whether there is a number for another key, perhaps one that was just taken from a block nobody uses.
    private mutating func hasFreeNumber(keeping parent: BlockNumber, _ mayRecycle: (BlockNumber) -> Bool) -> Bool {
        if hasUnusedNumber { return true }
        if recycle(upwards, keeping: parent, mayRecycle) { return true }
        var steps = 0
        while steps < Self.searchLength {
            hand = hand == 0 ? table.numberLimit - 1 : hand - 1
            steps += 1
            // A chain goes from its end: whatever the order of its numbers, one walk down it finds all of it.
            var leaf = hand
            while steps < Self.searchLength, table[leaf].lastChild != BlockRecord.noBlock {
                leaf = table[leaf].lastChild
                steps += 1
            }
            if recycle(leaf, keeping: parent, mayRecycle) { return true }
        }
        return false
    }

    /// Frees a number if nobody uses it; its parent is looked at next.
    private mutating func recycle(
        _ block: BlockNumber, keeping parent: BlockNumber, _ mayRecycle: (BlockNumber) -> Bool
    ) -> Bool {
        guard block != BlockRecord.noBlock, block != parent, isIdle(block), mayRecycle(block) else { return false }
        upwards = table[block].parent
        forget(block)
        return true
    }

    /// Whether nothing in the node refers to the number.
    func isIdle(_ block: BlockNumber) -> Bool {
        let record = table[block]
        return record.flags == .named && record.dram == .absent && record.nvme == .absent && record.users == 0
            && record.children == 0 && record.dramReaders == 0 && record.nvmeReaders == 0
    }

    /// Frees a number that `isIdle`.
    mutating func forget(_ block: BlockNumber) {
        precondition(isIdle(block), "a block number is freed that is in use")
        let parent = table[block].parent
        if parent != BlockRecord.noBlock {
            // A saturated count stays: such a parent is never forgotten.
            if table[parent].children < BlockRecord.childrenMax { table[parent].children -= 1 }
            if table[parent].lastChild == block { table[parent].lastChild = BlockRecord.noBlock }
        }
        table.remove(block)
    }
}
