// The hinge between the store's decisions and everything outside them: what happened, and what to do.

import KVFlash
import KVModel
import KVSystem
import KVTiering
import KVTransport

/// What happened.
public enum StoreInput: Sendable {
    /// A server transport says something.
    case session(SessionEvent)
    /// The drive with this number says something.
    case drive(Int, FlashEvent)
    /// A change of the catalogue is durable, or failed.
    case catalogued(ticket: UInt64, succeeded: Bool)
    /// A payload's checksum was taken.
    case verified(tag: UInt64, isWhole: Bool)
    /// Time passed.
    case tick
    /// These tenants may administer from now on, and the sessions of those that were revoked end.
    case tenants(operators: Set<String>, revoked: Set<String>)
    /// Take no new requests and finish those in flight.
    case drain
}

/// A change of the catalogue; durable as a whole or not at all.
public enum CatalogueChange: Sendable, Equatable {
    /// A namespace with its settings, new or changed.
    case setNamespace(name: String, NamespacePolicy)
    /// No such namespace any more, nor its pins.
    case removeNamespace(name: String)
    /// New or renewed pins.
    case addPins([PinRecord])
    /// Pins that ended.
    case removePins([PinRecord])
}

/// What to do.
public enum StoreOutput: Sendable {
    /// To the transport that carries the session.
    case session(SessionCommand)
    /// To a drive.
    case drive(Int, FlashCommand)
    /// To the catalogue's thread.
    case catalogue(ticket: UInt64, CatalogueChange)
    /// Take the checksum of a payload and compare it, away from this thread.
    case verify(tag: UInt64, MemorySlice, expected: UInt64)
    /// Something a person should know.
    case log(StoreNote)
}

/// What a person should know.
public struct StoreNote: Sendable, Equatable {
    /// Whether something is wrong.
    public var isWarning: Bool
    /// A sentence without a final full stop.
    public var text: String
}

/// What a drive is to the decisions.
public struct StoreDrive: Sendable, Equatable {
    /// How many extents it has.
    public var extentCount: Int

    /// A drive of so many extents.
    public init(extentCount: Int) { self.extentCount = extentCount }
}

/// The settings of the decisions. Every field is required; the defaults live in `StoreConfiguration`.
public struct StoreSettings: Sendable {
    /// Bytes of an extent, the same on all drives.
    public var extentBytes: Int
    /// The drives, in order.
    public var drives: [StoreDrive]
    /// Bytes of the memory tier, a multiple of the extent's.
    public var memoryBytes: Int
    /// The largest payload.
    public var payloadBytesMax: Int
    /// Requests in flight that hold a buffer, an extent or a place in a queue.
    public var operationCountMax: Int
    /// Commands a drive may have unanswered.
    public var driveCommandCountMax: Int
    /// How long a request waits for a buffer or for room.
    public var waitLimit: Duration
    /// Share of all extents under which shared prefixes are never evicted for per-user state.
    public var sharedShare: Double
    /// Bytes that may be written a day, 0 = no limit.
    public var writeBytesPerDay: Int
    /// What of the bytes that may be written, and of the flash that may be pinned, one tenant who is no operator has at most: a
    /// share of all, 1 = no limit.
    public var tenantShare: Double
    /// Bytes the scrubber reads a second, 0 = it rests.
    public var scrubBytesPerSecond: Int
    /// Tenants that may administer.
    public var operators: Set<String>
    /// Whether a tenant that opens an unknown namespace makes it.
    public var opensUnknownNamespaces: Bool
    /// What a namespace made so gets; its tenant is added.
    public var defaultPolicy: NamespacePolicy
    /// Pins at once.
    public var pinCountMax: Int
    /// Wall-clock seconds at the origin of the clock, to which expiries of pins are held.
    public var wallSecondsAtOrigin: Int64
    /// What the index's hashes begin with: for a store that serves peers, a number they cannot know. No decision depends
    /// on it.
    public var hashSeed: UInt64

    /// Settings of their parts.
    public init(
        extentBytes: Int, drives: [StoreDrive], memoryBytes: Int, payloadBytesMax: Int, operationCountMax: Int,
        driveCommandCountMax: Int, waitLimit: Duration, sharedShare: Double, writeBytesPerDay: Int,
        tenantShare: Double, scrubBytesPerSecond: Int, operators: Set<String>, opensUnknownNamespaces: Bool,
        defaultPolicy: NamespacePolicy, pinCountMax: Int, wallSecondsAtOrigin: Int64, hashSeed: UInt64
    ) {
        self.extentBytes = extentBytes
        self.drives = drives
        self.memoryBytes = memoryBytes
        self.payloadBytesMax = payloadBytesMax
        self.operationCountMax = operationCountMax
        self.driveCommandCountMax = driveCommandCountMax
        self.waitLimit = waitLimit
        self.sharedShare = sharedShare
        self.writeBytesPerDay = writeBytesPerDay
        self.tenantShare = tenantShare
        self.scrubBytesPerSecond = scrubBytesPerSecond
        self.operators = operators
        self.opensUnknownNamespaces = opensUnknownNamespaces
        self.defaultPolicy = defaultPolicy
        self.pinCountMax = pinCountMax
        self.wallSecondsAtOrigin = wallSecondsAtOrigin
        self.hashSeed = hashSeed
    }
}

extension StoreSettings {
    /// A share of what may be written. Nil: no limit.
    func writeBudget(share: Double) -> WriteBudgetConfiguration? {
        guard writeBytesPerDay > 0 else { return nil }
        return WriteBudgetConfiguration(
            bytesPerDay: Double(writeBytesPerDay) * share,
            largestWrite: payloadBytesMax.roundedUp(toMultipleOf: extentBytes))
    }
}
