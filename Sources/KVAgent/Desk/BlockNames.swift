// From the short keys that decisions use to the full names that stores use. A bounded memory: a name that was pushed out
// is a miss, and every use compares the short key.

import KVModel
import KVTransport

extension ObjectName {
    /// The name under which the decisions know this object: the block's short key, into which group and shard are mixed
    /// where the engine has more than one, because each is a block of its own.
    package var blockKey: BlockKey {
        let short = key.short
        guard group != 0 || shard != 0 || shardCount != 1 else { return short }
        let part = UInt64(group) | UInt64(shard) << 16 | UInt64(shardCount) << 32
        return BlockKey(high: short.high ^ mixBits(part), low: short.low ^ mixBits(part &+ 0x9E37_79B9_7F4A_7C15))
    }

    /// Stands for no name: no object has no shards.
    static let none = ObjectName(.none, shardCount: 0)
}

/// Names by short key, in sets of four; the one that was used longest ago leaves its set first.
///
/// A chain of a thousand names touches a thousand places of a large memory, twice as long as it takes to look the chain up. So what
/// ended in the same block a short while ago is not touched again: a conversation costs the names of its last turn. And nobody
/// waits for the rest: chains are put aside and remembered piece by piece when their owner has nothing else to do, or, once many
/// wait, nothing that anybody waits for; all of them before any name is looked for.
struct BlockNames {
    /// Where a chain ended that was put aside, and how many names had been moved by then.
    private struct Tail {
        var key = BlockKey(high: 0, low: 0)
        var moved: Int?
    }

    private static let ways = 4
    /// Chains that may be put aside.
    private static let chainsMax = 64
    private static let tailCount = 4096
    private var chains = Queue<ArraySlice<ObjectName>>()
    /// Names of the first of them that are remembered already.
    private var caughtUp = 0
    /// The ends of recent chains, each in the one place that its key names.
    private var tails = [Tail](repeating: Tail(), count: BlockNames.tailCount)
    /// Names that were not the last of their sets when they were remembered.
    private var movedCount = 0
    private var entries: [ObjectName]
    private let mask: UInt64

    /// Room for at least `count` names.
    init(countMax count: Int) {
        var sets = 1
        while sets * Self.ways < count { sets *= 2 }
        mask = UInt64(sets - 1)
        entries = [ObjectName](repeating: .none, count: sets * Self.ways)
    }

    /// Bytes it takes.
    var byteCount: Int { entries.count * MemoryLayout<ObjectName>.stride }

    /// Whether a chain waits to be remembered.
    var isBehind: Bool { !chains.isEmpty }
    /// Whether so many wait that the next ones may have to be remembered at once.
    var isFarBehind: Bool { chains.count >= Self.chainsMax / 2 }

    /// Puts a chain aside, as far as it was not there a short while ago. Without room, the oldest is remembered first.
    mutating func put(_ names: [ObjectName]) {
        var start = names.count
        while start > 0, !isRecent(names[start - 1].blockKey) { start -= 1 }
        guard start < names.count else { return }
        while chains.count >= Self.chainsMax { catchUp(by: .max) }
        chains.append(names[start...])
        // A chain is as old as the part of it that was not touched.
        let moved = start == 0 ? movedCount : tails[Self.place(of: names[start - 1].blockKey)].moved
        let last = names[names.count - 1].blockKey
        tails[Self.place(of: last)] = Tail(key: last, moved: moved)
    }

    /// Whether a chain ended with this block so lately that its names cannot have become the oldest of their sets: an eighth of
    /// all has not been moved since.
    private func isRecent(_ key: BlockKey) -> Bool {
        let tail = tails[Self.place(of: key)]
        guard let moved = tail.moved, tail.key == key else { return false }
        return movedCount - moved < entries.count / 8
    }

    private static func place(of tail: BlockKey) -> Int {
        Int(truncatingIfNeeded: tail.low ^ tail.high) & (tailCount - 1)
    }

    /// Remembers up to `count` names of the chain that was put aside first.
    mutating func catchUp(by count: Int) {
        guard let chain = chains.first else { return }
        let start = chain.startIndex + caughtUp
        let end = start + min(count, chain.endIndex - start)
        remember(chain[start..<end])
        caughtUp = end - chain.startIndex
        guard end == chain.endIndex else { return }
        _ = chains.removeFirst()
        caughtUp = 0
    }

    /// The full name, if it is still known.
    mutating func find(_ key: BlockKey) -> ObjectName? {
        while isBehind { catchUp(by: .max) }
        let first = start(of: key)
        for way in first..<first + Self.ways where entries[way].shardCount != 0 && entries[way].blockKey == key {
            return entries[way]
        }
        return nil
    }

    /// Remembers the names of a chain.
    ///
    /// Most are the last of their sets already. Sixteen at a time are looked at before any is moved, so that the memory
    /// answers for sixteen at once.
    private mutating func remember(_ names: ArraySlice<ObjectName>) {
        var done = names.startIndex
        while done < names.endIndex {
            let batch = min(16, names.endIndex - done)
            var moves: UInt32 = 0
            for offset in 0..<batch {
                let name = names[done + offset]
                moves |= (entries[start(of: name.blockKey)] == name ? 0 : 1) << UInt32(offset)
            }
            while moves != 0 {
                remember(names[done + moves.trailingZeroBitCount])
                moves &= moves - 1
            }
            done += batch
        }
    }

    /// Remembers a name, as the one of its set that was used last.
    private mutating func remember(_ name: ObjectName) {
        movedCount += 1
        let first = start(of: name.blockKey)
        var way = first
        while way < first + Self.ways - 1, entries[way] != name, entries[way].shardCount != 0 { way += 1 }
        while way > first {
            entries[way] = entries[way - 1]
            way -= 1
        }
        entries[first] = name
    }

    private func start(of key: BlockKey) -> Int { Int(mixBits(key.low ^ key.high) & mask) * Self.ways }
}
