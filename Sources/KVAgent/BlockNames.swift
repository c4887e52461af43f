// From the short keys that decisions use to the full names that stores use. A bounded memory: a name that was pushed out
// is a miss, and every use compares the short key.

import KVModel

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
struct BlockNames {
    private static let ways = 4
    private var entries: [ObjectName]
    private let mask: UInt64
    /// Names pushed out by others.
    private(set) var forgottenCount = 0

    /// Room for at least `count` names.
    init(countMax count: Int) {
        var sets = 1
        while sets * Self.ways < count { sets *= 2 }
        mask = UInt64(sets - 1)
        entries = [ObjectName](repeating: .none, count: sets * Self.ways)
    }

    /// Bytes it takes.
    var byteCount: Int { entries.count * MemoryLayout<ObjectName>.stride }

    /// The full name, if it is still known.
    func find(_ key: BlockKey) -> ObjectName? {
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
    mutating func remember(_ names: [ObjectName]) {
        var done = 0
        while done < names.count {
            let batch = min(16, names.count - done)
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
    mutating func remember(_ name: ObjectName) {
        let first = start(of: name.blockKey)
        var way = first
        while way < first + Self.ways - 1, entries[way] != name, entries[way].shardCount != 0 { way += 1 }
        if entries[way].shardCount != 0, entries[way] != name { forgottenCount += 1 }
        while way > first {
            entries[way] = entries[way - 1]
            way -= 1
        }
        entries[first] = name
    }

    private func start(of key: BlockKey) -> Int { Int(mixBits(key.low ^ key.high) & mask) * Self.ways }
}
