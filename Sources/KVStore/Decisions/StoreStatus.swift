// What the store tells people and programs of itself: the shapes of its JSON.

import KVModel

/// The state of a store.
public struct StoreStatus: Codable, Sendable, Equatable {
    /// One drive.
    public struct Drive: Codable, Sendable, Equatable {
        /// How many extents it has.
        public var extents: Int
        /// Of those, free.
        public var freeExtents: Int
        /// `healthy`, `read-only` or `failed`.
        public var state: String
        /// Commands it has not answered.
        public var commandsUnanswered: Int
    }

    /// One namespace.
    public struct Namespace: Codable, Sendable, Equatable {
        /// Its name; `?` and its digest when only headers know it.
        public var name: String
        /// Its settings.
        public var policy: NamespacePolicy
        /// Blocks that can be found.
        public var objects: Int
        /// Bytes of payload.
        public var payloadBytes: Int
        /// Bytes of its extents that are not free.
        public var usedBytes: Int
        /// Bytes of its pinned extents.
        public var pinnedBytes: Int
    }

    /// `serving` or `draining`.
    public var state: String
    /// Bytes of an extent.
    public var extentBytes: Int
    /// Blocks that can be found.
    public var objects: Int
    /// The drives; operators only.
    public var drives: [Drive]
    /// The namespaces that the asker may see, or the first page of them.
    public var namespaces: [Namespace]
    /// How many there are.
    public var namespaceCount: Int
    /// The cursor of their next page; 0 = all are here.
    public var nextNamespace: Int
    /// Bytes of the memory tier.
    public var memoryBytes: Int
    /// Blocks with a copy in it.
    public var memoryCopies: Int
    /// Bytes of it that requests use.
    public var memoryLentBytes: Int
    /// Requests that hold a buffer or wait for one.
    public var requestsInFlight: Int
    /// Of those, waiting.
    public var requestsWaiting: Int
    /// Sessions open.
    public var sessions: Int
    /// Pins, dangling ones included.
    public var pins: Int
    /// Pins whose block is not there.
    public var danglingPins: Int
    /// Full passes of the scrubber.
    public var scrubPasses: Int
    /// Since the start.
    public var uptimeSeconds: Double
    /// Counts since the start, named as the metrics are.
    public var totals: [String: Int]

    /// Bytes of extents on all drives.
    public var capacityBytes: Int { drives.reduce(0) { $0 + $1.extents } * extentBytes }
    /// Of those, free.
    public var freeBytes: Int { drives.reduce(0) { $0 + $1.freeExtents } * extentBytes }
}

/// The state of one object.
public struct ObjectStatus: Codable, Sendable, Equatable {
    /// The 64 hex digits of its key; the store remembers the first half, the other half is zeros.
    public var key: String
    /// The namespace.
    public var namespace: String
    /// The group of layers.
    public var group: Int
    /// The shard.
    public var shard: Int
    /// Of how many shards.
    public var shardCount: Int
    /// Bytes of payload.
    public var payloadBytes: Int
    /// CRC-64/XZ of the payload alone, hex.
    public var payloadChecksum: String
    /// Its place in its chain.
    public var indexInChain: Int
    /// The number of its drive.
    public var drive: Int
    /// Its extents there, in the order of its bytes.
    public var extents: [Int]
    /// Whether it survives a restart.
    public var durability: Durability
    /// Whether it is kept apart as a shared prefix.
    public var isShared: Bool
    /// Whether the memory tier has a copy.
    public var isInMemory: Bool
    /// Whether its payload was read or written since the start.
    public var isVerified: Bool
    /// How often it was written or read lately.
    public var uses: Int
    /// Since it was used last.
    public var secondsSinceUse: Int
    /// Who keeps it.
    public var pins: [PinStatus]
}

/// One pin.
public struct PinStatus: Codable, Sendable, Equatable {
    /// The namespace.
    public var namespace: String
    /// The 64 hex digits of its key.
    public var key: String
    /// The group of layers.
    public var group: Int
    /// The shard.
    public var shard: Int
    /// Of how many shards.
    public var shardCount: Int
    /// Who asked for it.
    public var owner: String
    /// Wall-clock second, 0 = none.
    public var expires: Int64
    /// Its block is not there.
    public var isDangling: Bool
}

/// What an operator's order did.
public struct OrderResult: Codable, Sendable, Equatable {
    /// Blocks removed.
    public var removed: Int?
    /// Full passes of the scrubber so far.
    public var scrubPasses: Int?
    /// The pass that a `verify` waits for.
    public var scrubPassesWanted: Int?
    /// Extents that the pass under way has behind it.
    public var scrubbedExtents: Int?
    /// Extents of all drives.
    public var extents: Int?
    /// Damaged blocks found since the start.
    public var damagedFound: Int?
    /// Whether nothing is in flight.
    public var isQuiet: Bool?
    /// Requests in flight.
    public var requestsInFlight: Int?
    /// The namespace as it is now.
    public var namespace: StoreStatus.Namespace?
    /// A page of namespaces.
    public var namespaces: [StoreStatus.Namespace]?
    /// A page of pins.
    public var pins: [PinStatus]?
    /// The cursor of the next page; 0 = that was the last.
    public var next: Int?

    /// Nothing yet.
    public init() {}
}

/// The arguments of an operator's order.
public struct OrderArguments: Codable, Sendable, Equatable {
    /// Which namespace.
    public var namespace: String?
    /// What changes of its settings.
    public var policy: PolicyChange?
    /// Of `namespace-delete`: also when it still has blocks.
    public var force: Bool?
    /// Where a page begins; 0 or none = at the start.
    public var cursor: Int?

    /// Arguments of their parts.
    public init(
        namespace: String? = nil, policy: PolicyChange? = nil, force: Bool? = nil, cursor: Int? = nil
    ) {
        self.namespace = namespace
        self.policy = policy
        self.force = force
        self.cursor = cursor
    }
}

extension PinStatus {
    init(_ namespace: String, _ pin: StorePin, isDangling: Bool) {
        self.init(
            namespace: namespace, key: pin.name.key.text, group: Int(pin.name.group), shard: Int(pin.name.shard),
            shardCount: Int(pin.name.shardCount), owner: pin.owner, expires: pin.expires, isDangling: isDangling)
    }
}

extension StoreNamespace {
    /// What people see of it; one that only headers know is shown by its digest.
    var status: StoreStatus.Namespace {
        StoreStatus.Namespace(
            name: name.isEmpty ? "?" + hexadecimal(digest) : name, policy: policy, objects: presentCount,
            payloadBytes: presentBytes, usedBytes: usedBytes, pinnedBytes: pinnedBytes)
    }
}
