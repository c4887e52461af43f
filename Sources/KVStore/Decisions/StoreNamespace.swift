// What an operator may say about a namespace, and what the store counts for it.

import Crypto
import Foundation
import KVModel

/// What a namespace promises after a crash.
public enum Durability: String, Sendable, Codable, CaseIterable {
    /// Acknowledged when its bytes are on a drive; gone after any restart.
    case volatile
    /// Acknowledged when it would survive kill -9 and a power cut.
    case restartSafe = "restart-safe"
}

/// How the blocks of a namespace stand against others when room is needed.
public enum EvictionClass: String, Sendable, Codable, CaseIterable {
    /// Each block says itself whether it is a shared prefix.
    case mixed
    /// All are per-user state.
    case perUser = "per-user"
    /// All are shared prefixes.
    case shared
}

/// A namespace's settings.
public struct NamespacePolicy: Sendable, Codable, Equatable {
    /// Bytes of extents it may take, reserved and leaving ones included; 0 = as the store has.
    public var quotaBytes = 0
    /// Bytes of extents that may be pinned; 0 = none.
    public var pinQuotaBytes = 0
    /// What it promises.
    public var durability = Durability.restartSafe
    /// A block nobody used for so many seconds goes; 0 = never for that reason.
    public var retentionSeconds = 0
    /// Whether its blocks are kept apart as shared prefixes.
    public var evictionClass = EvictionClass.mixed
    /// Whether sessions whose payload travels in clear are refused.
    public var requiresEncryption = false
    /// Who may open it, besides operators.
    public var tenants: [String] = []

    /// The default: restart-safe, no quota, nobody but operators.
    public init() {}
}

/// What an operator changes of a namespace's settings: what is nil stays as it is.
public struct PolicyChange: Sendable, Codable, Equatable {
    /// Bytes of extents it may take; 0 = as the store has.
    public var quotaBytes: Int?
    /// Bytes of extents that may be pinned; 0 = none.
    public var pinQuotaBytes: Int?
    /// What it promises.
    public var durability: Durability?
    /// A block nobody used for so many seconds goes; 0 = never for that reason.
    public var retentionSeconds: Int?
    /// Whether its blocks are kept apart as shared prefixes.
    public var evictionClass: EvictionClass?
    /// Whether sessions whose payload travels in clear are refused.
    public var requiresEncryption: Bool?
    /// Who may open it, besides operators.
    public var tenants: [String]?

    /// No change.
    public init() {}

    /// A change to exactly these settings.
    public init(_ policy: NamespacePolicy) {
        quotaBytes = policy.quotaBytes
        pinQuotaBytes = policy.pinQuotaBytes
        durability = policy.durability
        retentionSeconds = policy.retentionSeconds
        evictionClass = policy.evictionClass
        requiresEncryption = policy.requiresEncryption
        tenants = policy.tenants
    }

    /// The settings after the change.
    public func applied(to policy: NamespacePolicy) -> NamespacePolicy {
        var changed = policy
        changed.quotaBytes = quotaBytes ?? policy.quotaBytes
        changed.pinQuotaBytes = pinQuotaBytes ?? policy.pinQuotaBytes
        changed.durability = durability ?? policy.durability
        changed.retentionSeconds = retentionSeconds ?? policy.retentionSeconds
        changed.evictionClass = evictionClass ?? policy.evictionClass
        changed.requiresEncryption = requiresEncryption ?? policy.requiresEncryption
        changed.tenants = tenants ?? policy.tenants
        return changed
    }
}

/// One namespace as the store runs it.
struct StoreNamespace {
    let number: UInt16
    /// Tells it from a deleted one that had the same number.
    let incarnation: UInt32
    /// Empty for one that is known from headers alone, because the catalogue was lost.
    var name: String
    let digest: UInt64
    var policy: NamespacePolicy
    /// It cannot be used any more. Its name is free again when the catalogue has forgotten it, its number when nothing of
    /// it is left.
    var isDeleted = false
    /// The catalogue has forgotten it.
    var isForgotten = false

    /// Bytes of all extents that are not free.
    var usedBytes = 0
    var pinnedBytes = 0
    var presentCount = 0
    var presentBytes = 0
    /// Bytes of the extents of what can be found.
    var presentExtentBytes = 0
    /// Of `usedBytes`, those that will be free soon.
    var leavingBytes = 0
    /// Victims of the last sweep for its quota, the least worth last, and the second of that sweep.
    var victims: [UInt32] = []
    var victimsBefore: UInt32 = 0
    /// When a sweep found nothing to evict, it is not tried again before this time.
    var sweepAgain = Instant.zero

    init(number: UInt16, name: String, digest: UInt64, policy: NamespacePolicy, incarnation: UInt32 = 0) {
        self.number = number
        self.incarnation = incarnation
        self.name = name
        self.digest = digest
        self.policy = policy
    }

    /// The first 8 bytes of the SHA-256 of a name, little-endian: what headers carry.
    static func digest(of name: String) -> UInt64 {
        var digest: UInt64 = 0
        for (index, byte) in SHA256.hash(data: Data(name.utf8)).prefix(8).enumerated() {
            digest |= UInt64(byte) << UInt64(8 * index)
        }
        return digest
    }
}

/// A pin as the catalogue keeps it.
public struct PinRecord: Sendable, Hashable, Codable {
    /// The namespace's name.
    public var namespace: String
    /// The object: 64 hex digits of its key.
    public var key: String
    /// The layer group.
    public var group: UInt16
    /// The shard.
    public var shard: UInt16
    /// Of how many.
    public var shardCount: UInt16
    /// Who asked for it.
    public var owner: String
    /// Wall-clock seconds at which it ends, 0 = when it is taken away.
    public var expires: Int64

    /// A record of its parts.
    public init(
        namespace: String, key: String, group: UInt16, shard: UInt16, shardCount: UInt16, owner: String, expires: Int64
    ) {
        self.namespace = namespace
        self.key = key
        self.group = group
        self.shard = shard
        self.shardCount = shardCount
        self.owner = owner
        self.expires = expires
    }
}
