// What a client may ask of a store and what it answers, whatever carries it: loopback, TCP, TLS or verbs. How these
// become bytes is in `Frame` and the wire document.

import KVModel
import KVSystem

/// How a request ended. The raw values are the wire's.
public enum Status: UInt16, Sendable {
    /// Done.
    case ok = 0
    /// No such object (or namespace, pin, subscription): a miss.
    case absent = 1
    /// Present already; the first writer wins and nothing was written.
    case alreadyPresent = 2
    /// Not worth its place, by the store's policy.
    case notAdmitted = 3
    /// The namespace's quota, the pin budget or the flash-wear budget is spent.
    case overBudget = 4
    /// No room now: queues or buffers are full. Try later.
    case busy = 5
    /// The payload failed its checksum, or an object was found damaged.
    case corrupt = 6
    /// The store shuts down or takes no writes.
    case unavailable = 7
    /// The peer may not do this.
    case forbidden = 8
    /// The request makes no sense here (unknown operation, wrong length, volatile pin).
    case invalid = 9
    /// The device failed.
    case failed = 10
    /// It did not end before its deadline.
    case deadlinePassed = 11
    /// It was cancelled.
    case cancelled = 12
    /// The connection ended first. Never sent; made by the client.
    case disconnected = 13
}

/// A namespace as one session knows it, given by `openNamespace`.
public typealias NamespaceHandle = UInt16

/// What a client asks. Batches are arrays: one allocation a batch, none a block.
public enum Request: Sendable {
    /// Names a namespace for this session.
    case openNamespace(name: String)
    /// Which of these objects are present?
    case lookUp(NamespaceHandle, [ObjectName])
    /// The payload of an object, into the slot that the client named when it sent this.
    case get(NamespaceHandle, ObjectName)
    /// A payload of `payloadBytes` follows (TCP) or lies in the client's slot (verbs).
    case put(NamespaceHandle, ObjectName, ObjectMetadata, payloadBytes: Int, checksum: UInt64)
    /// Keeps objects until `lifetimeSeconds` have passed (0 = until unpinned), for `owner`.
    case pin(NamespaceHandle, [ObjectName], owner: String, lifetimeSeconds: UInt32)
    /// Ends pins of `owner`.
    case unpin(NamespaceHandle, [ObjectName], owner: String)
    /// Forgets objects.
    case delete(NamespaceHandle, [ObjectName])
    /// Objects of the namespace, a page of at most `countMax` after `cursor` (0 = from the start).
    case list(NamespaceHandle, cursor: UInt64, countMax: UInt32)
    /// The state of one object, as text for a person and JSON for a program.
    case describe(NamespaceHandle, ObjectName)
    /// The state of the store as JSON.
    case stat
    /// From now on, notify of keys added and removed in the namespace.
    case subscribe(NamespaceHandle)
    /// An object came with a wrong checksum: re-read it and quarantine it if it is bad.
    case reportCorrupt(NamespaceHandle, ObjectName)
    /// An order of an operator (admin tenants only): a verb and a JSON object of arguments, answered in JSON.
    case administer(verb: String, arguments: [UInt8])
    /// Forget the request with this number of the same session, if it has not ended. It is always acknowledged, after
    /// the cancelled request's own reply.
    case cancel(requestNumber: UInt32)
}

/// What a store answers.
public struct Response: Sendable {
    /// How it ended.
    public var status: Status
    /// What came beside the status.
    public var body: ResponseBody

    /// An answer of its parts.
    public init(_ status: Status, _ body: ResponseBody = .none) {
        self.status = status
        self.body = body
    }
}

/// What comes beside the status.
public enum ResponseBody: Sendable {
    /// Nothing.
    case none
    /// Of `openNamespace`.
    case namespace(NamespaceHandle)
    /// Of `lookUp`: bit i % 64 of word i / 64 for object i.
    case presence([UInt64])
    /// Of `get`: the object's length, its checksum as put, what is kept beside it. The payload travels apart.
    case object(payloadBytes: Int, checksum: UInt64, ObjectMetadata)
    /// Of `pin`, `unpin`, `delete`: one status an object.
    case statuses([Status])
    /// Of `list`: names with lengths, and the cursor of the next page (0 = no more).
    case page([ListedObject], next: UInt64)
    /// Of `stat`, `describe`, `administer`: JSON. With a status other than `ok`: why, as plain UTF-8 text.
    case text([UInt8])
}

/// One line of a listing.
public struct ListedObject: Sendable, Equatable {
    /// Its name.
    public var name: ObjectName
    /// Bytes of its payload.
    public var payloadBytes: UInt32
    /// 1 = pinned, 2 = restart-safe.
    public var flags: UInt32

    /// A line of its parts.
    public init(name: ObjectName, payloadBytes: UInt32, flags: UInt32) {
        self.name = name
        self.payloadBytes = payloadBytes
        self.flags = flags
    }
}

/// What a store tells its subscribers on its own.
public enum Notification: Sendable {
    /// Blocks that can be found from now on.
    case added(NamespaceHandle, [ObjectName])
    /// Blocks that are gone.
    case removed(NamespaceHandle, [ObjectName])
    /// The stream had no room and lost something: forget what it told so far.
    case overflow(NamespaceHandle)
}
