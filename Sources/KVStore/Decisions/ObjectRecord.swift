// What memory keeps of an object: 48 bytes at the number of its first extent.

import KVModel

/// The part of a name that is not the block's key: it is compared exactly, so that no tenant, group or shard can ever
/// be given another's bytes.
struct ObjectScope: Hashable, Sendable {
    var namespace: UInt16
    var group: UInt16
    var shard: UInt16
    var shardCount: UInt16

    init(namespace: UInt16, _ name: ObjectName) {
        self.namespace = namespace
        group = name.group
        shard = name.shard
        shardCount = name.shardCount
    }
}

/// An object, or one extent of it. The number of an object is that of its first extent, counted over all drives.
struct ObjectRecord {
    enum State: UInt8 {
        /// Nobody's. Zero, so that fresh memory is free.
        case free = 0
        /// A further extent of an object.
        case continuation
        /// Reserved: a put brings or writes its payload. In the index, and not to be found by a reader.
        case writing
        /// In the index, complete, to be found.
        case present
        /// Out of the index; its tombstone is not durable yet, or somebody still reads it.
        case leaving
        /// Found damaged: out of the index, and its extents stay out of use until the next start.
        case quarantined
    }

    struct Flags: OptionSet {
        var rawValue: UInt8
        /// No header on flash: it is gone after a restart.
        static let isVolatile = Flags(rawValue: 1)
        /// A shared prefix, kept apart from per-user state.
        static let isShared = Flags(rawValue: 2)
        /// Somebody pinned it.
        static let isPinned = Flags(rawValue: 4)
        /// Found by a scan: its payload has not been read since.
        static let isUnverified = Flags(rawValue: 8)
        /// Its tombstone is durable, or it never had a header: only readers keep its extents.
        static let isErased = Flags(rawValue: 16)
        /// Its payload was found wrong: when its tombstone is durable its extents are not used again.
        static let isDamaged = Flags(rawValue: 32)
        /// Its extents are counted among those that will be free soon.
        static let isAwaited = Flags(rawValue: 64)
    }

    var key: BlockKey
    /// Of the payload alone; see `ChecksumAlgebra`.
    var payloadChecksum: UInt64
    var payloadBytes: UInt32
    /// The next extent of the same object, or `none`.
    var next: UInt32
    /// The second of its last use.
    var touched: UInt32
    /// Which `ObjectScope`.
    var scope: UInt32
    /// Its place in its chain, at most 65,535.
    var depth: UInt16
    /// Reads and writes of it, halved when it rests long.
    var uses: UInt8
    var state: State
    var flags: Flags
    /// Commands to its drive that read it now.
    var readers: UInt8

    static let none = UInt32.max
}
