// Gives the block ids of a file dense numbers in order of first appearance. An id that names its whole prefix is held to
// that: the block before it is always the same. An id that names what its own block holds becomes one number for each prefix
// it ends.

import KVModel

/// The ids of a trace and the numbers they were given.
///
/// Traces that were numbered by first appearance already, as most published ones are, need no table at all: as long
/// as every new id is the next number, an id is its number. The first id that breaks this builds the table.
struct PathInterner {
    /// By number: the number of the block before it, or `root`.
    private var parents: [BlockNumber] = []
    private var table: IdTable?
    /// Where ids name the content of blocks.
    private var chains = ChainTable()
    /// Ids that are text, by first appearance.
    private var textIds: [String: UInt64] = [:]
    private var hasNumberIds = false

    static let root = BlockNumber.max

    /// How many different blocks there are so far.
    var count: Int { parents.count }

    /// A 64-bit id for an id that is text. A file's ids are all texts or all numbers, or they might collide.
    mutating func id(ofText text: String) throws(LineProblem) -> UInt64 {
        if hasNumberIds { throw Self.mixedIds }
        if let known = textIds[text] { return known }
        let fresh = UInt64(textIds.count)
        textIds[text] = fresh
        return fresh
    }

    @inline(__always)
    mutating func id(ofNumber number: UInt64) throws(LineProblem) -> UInt64 {
        if !textIds.isEmpty { throw Self.mixedIds }
        hasNumberIds = true
        return number
    }

    private static let mixedIds = LineProblem(.wrongType, "block ids are numbers in some places and texts in others")

    /// Appends the numbers of one request's path to `blocks`. When an id contradicts what is known of it, nothing
    /// changes and the problem is thrown.
    mutating func append(_ ids: [UInt64], to blocks: inout [BlockNumber]) throws(LineProblem) {
        let firstReference = blocks.count
        let firstFresh = parents.count
        try checkRoom(ids.count)
        blocks.reserveCapacityForGrowth(ids.count)
        table?.reserve(parents.count + ids.count)
        var parent = Self.root
        for index in ids.indices {
            let id = ids[index]
            var number = find(id)
            if number == Self.root {
                number = insert(id, parent: parent, room: ids.count)
            } else if parents[Int(number)] != parent {
                let problem = contradiction(id, number: number, at: index, in: ids, fresh: firstFresh)
                forget(ids, from: firstFresh, references: firstReference, in: &blocks)
                throw problem
            }
            blocks.append(number)
            parent = number
        }
    }

    /// The same for ids that name what a block holds. KV depends on all that comes before, so behind another block the same id
    /// is another number, and nothing can contradict what is known.
    mutating func appendContents(_ ids: [UInt64], to blocks: inout [BlockNumber]) throws(LineProblem) {
        try checkRoom(ids.count)
        blocks.reserveCapacityForGrowth(ids.count)
        chains.reserve(ids.count, parents)
        var parent = Self.root
        for id in ids {
            let number = chains.number(of: id, behind: parent, &parents)
            blocks.append(number)
            parent = number
        }
    }

    private func checkRoom(_ count: Int) throws(LineProblem) {
        if parents.count + count >= Int(Self.root) {
            throw LineProblem(.outOfRange, "the trace has more than \(Self.root) different blocks")
        }
    }

    @inline(__always)
    private func find(_ id: UInt64) -> BlockNumber {
        if table != nil { return table!.find(id) }
        return id < UInt64(parents.count) ? BlockNumber(truncatingIfNeeded: id) : Self.root
    }

    private mutating func insert(_ id: UInt64, parent: BlockNumber, room: Int) -> BlockNumber {
        let number = BlockNumber(parents.count)
        if table == nil, id != UInt64(number) {
            var built = IdTable(capacity: parents.count + room)
            for known in 0..<number { built.insert(UInt64(known), known) }
            table = built
        }
        if table != nil { table!.insert(id, number) }
        parents.append(parent)
        return number
    }

    /// Takes back what a refused path has added. Only blocks numbered `from` and above are new, and they were added
    /// in path order.
    private mutating func forget(_ ids: [UInt64], from: Int, references: Int, in blocks: inout [BlockNumber]) {
        if table != nil {
            // Last in, first out leaves every probe chain as it was; room was made before, so nothing moved since.
            for reference in blocks.indices[references...].reversed() where Int(blocks[reference]) >= from {
                table!.removeLatest(ids[reference - references])
            }
        }
        parents.removeSubrange(from...)
        blocks.removeSubrange(references...)
    }

    private func contradiction(_ id: UInt64, number: BlockNumber, at index: Int, in ids: [UInt64], fresh: Int)
        -> LineProblem
    {
        let remedy = "an id must name its whole prefix: equal ids, equal prefixes"
        if Int(number) >= fresh, let first = ids.firstIndex(of: id), first < index {
            return LineProblem(
                .parentChange, "block id \(id) is at places \(first) and \(index) of one path", remedy: remedy)
        }
        let now = index == 0 ? "starts the path" : "follows \(ids[index - 1])"
        let before = parents[Int(number)] == Self.root ? "started the path" : "followed another block"
        return LineProblem(.parentChange, "block id \(id) \(now), but earlier it \(before)", remedy: remedy)
    }
}

/// From 64-bit ids to numbers: open addressing with linear probing, at most half full.
private struct IdTable {
    private var ids: [UInt64]
    private var numbers: [BlockNumber]

    init(capacity: Int) {
        let size = Self.size(for: capacity)
        ids = Array(repeating: 0, count: size)
        numbers = Array(repeating: PathInterner.root, count: size)
    }

    private static func size(for capacity: Int) -> Int {
        var size = 1024
        while size < capacity * 2 { size *= 2 }
        return size
    }

    @inline(__always)
    func find(_ id: UInt64) -> BlockNumber {
        let mask = ids.count - 1
        var slot = Int(truncatingIfNeeded: mixBits(id)) & mask
        while true {
            let number = numbers[slot]
            if number == PathInterner.root || ids[slot] == id { return number }
            slot = (slot + 1) & mask
        }
    }

    /// `id` is not in the table, and there is room.
    mutating func insert(_ id: UInt64, _ number: BlockNumber) {
        let mask = ids.count - 1
        var slot = Int(truncatingIfNeeded: mixBits(id)) & mask
        while numbers[slot] != PathInterner.root { slot = (slot + 1) & mask }
        ids[slot] = id
        numbers[slot] = number
    }

    /// Room for `count` ids in all.
    mutating func reserve(_ count: Int) {
        if count * 2 > ids.count { rebuild(size: Self.size(for: count)) }
    }

    /// Removes `id`, which is the latest of those in the table to have come in.
    mutating func removeLatest(_ id: UInt64) {
        let mask = ids.count - 1
        var slot = Int(truncatingIfNeeded: mixBits(id)) & mask
        while numbers[slot] == PathInterner.root || ids[slot] != id { slot = (slot + 1) & mask }
        numbers[slot] = PathInterner.root
    }

    private mutating func rebuild(size: Int) {
        let (oldIds, oldNumbers) = (ids, numbers)
        ids = Array(repeating: 0, count: size)
        numbers = Array(repeating: PathInterner.root, count: size)
        for slot in oldIds.indices where oldNumbers[slot] != PathInterner.root {
            insert(oldIds[slot], oldNumbers[slot])
        }
    }
}

/// From an id and the number of the block before it to a number: open addressing with linear probing, at most half full. Who
/// calls keeps the blocks before, by number.
private struct ChainTable {
    /// By number.
    private var ids: [UInt64] = []
    private var slots: [BlockNumber] = []

    /// Room for `count` blocks more.
    mutating func reserve(_ count: Int, _ parents: [BlockNumber]) {
        if (ids.count + count) * 2 <= slots.count { return }
        var size = 1024
        while size < (ids.count + count) * 2 { size *= 2 }
        slots = Array(repeating: PathInterner.root, count: size)
        for number in ids.indices {
            slots[slot(of: ids[number], behind: parents[number], parents)] = BlockNumber(number)
        }
    }

    /// The number of the block `id` behind `parent`, which joins `parents` if it is new. There is room for it.
    mutating func number(of id: UInt64, behind parent: BlockNumber, _ parents: inout [BlockNumber]) -> BlockNumber {
        let slot = slot(of: id, behind: parent, parents)
        if slots[slot] != PathInterner.root { return slots[slot] }
        let number = BlockNumber(ids.count)
        slots[slot] = number
        ids.append(id)
        parents.append(parent)
        return number
    }

    /// Where the block is, or would be.
    private func slot(of id: UInt64, behind parent: BlockNumber, _ parents: [BlockNumber]) -> Int {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: mixBits(id ^ mixBits(UInt64(parent)))) & mask
        while true {
            let number = slots[slot]
            if number == PathInterner.root { return slot }
            if ids[Int(number)] == id, parents[Int(number)] == parent { return slot }
            slot = (slot + 1) & mask
        }
    }
}

extension Array {
    /// Room for `count` more elements, growing geometrically: `reserveCapacity` alone grows to the exact size, which
    /// makes many small reservations quadratic.
    mutating func reserveCapacityForGrowth(_ count: Int) {
        let needed = self.count + count
        if needed > capacity { reserveCapacity(Swift.max(needed, capacity * 2)) }
    }
}
