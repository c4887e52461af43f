// The border between the store and whatever carries its sessions. A server transport owns sockets or queue pairs and moves
// payloads to and from the store's memory; the store owns that memory, decides, and answers. Both sides are mailboxes:
// neither ever waits for the other.

import KVModel
import KVSystem

/// One session of one client, unique while the process lives.
@frozen
public struct SessionID: Hashable, Sendable {
    /// The transport that carries it.
    public var transport: UInt16
    /// Counts sessions of that transport from 1.
    public var number: UInt32

    /// A session's name.
    @inlinable public init(transport: UInt16, number: UInt32) {
        self.transport = transport
        self.number = number
    }
}

/// One request of one session.
@frozen
public struct RequestID: Hashable, Sendable {
    /// The session.
    public var session: SessionID
    /// The client's number for it, unique among its requests in flight.
    public var number: UInt32

    /// A request's name.
    @inlinable public init(session: SessionID, number: UInt32) {
        self.session = session
        self.number = number
    }
}

/// What carries a session.
public enum Carrier: String, Sendable {
    case loopback, tcp, tls, verbs
}

/// Who is at the other end, known only after authentication.
public struct Peer: Sendable {
    /// The tenant whose key it proved.
    public var tenant: String
    /// What carries the session.
    public var carrier: Carrier
    /// Its address, for people.
    public var address: String

    /// A peer of its parts.
    public init(tenant: String, carrier: Carrier, address: String) {
        self.tenant = tenant
        self.carrier = carrier
        self.address = address
    }

    /// Whether what it sends and gets is encrypted.
    public var isEncrypted: Bool { carrier == .tls || carrier == .loopback }
}

/// How a payload's way ended.
public enum PayloadOutcome: Sendable, Equatable {
    /// It is there, whole. Of a put: its checksum was verified against name, length and bytes.
    case whole
    /// It is there and its checksum is wrong.
    case corrupt
    /// The session ended first, or the client cancelled. The buffer is no longer touched by anybody.
    case aborted
}

/// What a server transport tells the store. Events of one session come in order; between `opened` and `closed`.
public enum SessionEvent: Sendable {
    /// A client proved who it is.
    case opened(SessionID, Peer)
    /// The session is over, and every payload of it has ended.
    case closed(SessionID)
    /// A request. Every one is answered by exactly one `reply` or `send`; a put that is wanted first by `receive`.
    case request(RequestID, Request)
    /// The end of a put's payload, after `receive`.
    case received(RequestID, PayloadOutcome)
    /// The end of a get's payload, after `send`: the buffer is the store's again.
    case sent(RequestID, PayloadOutcome)
}

/// What the store tells a server transport.
public enum SessionCommand: Sendable {
    /// Go on with a put: bring the payload here, verify its checksum, then say `received`.
    case receive(RequestID, into: MemorySlice)
    /// The answer to a request without a payload to send. A put that is refused before `receive` ends here, too: the
    /// transport throws the payload away.
    case reply(RequestID, Response)
    /// The answer to a get, with its payload; then say `sent`.
    case send(RequestID, Response, from: MemorySlice)
    /// Something for a subscriber.
    case notify(SessionID, Notification)
    /// Ends a session; `closed` follows.
    case disconnect(SessionID, reason: String)
}

/// The store, as a server transport sees it. Called on the transport's threads; must not block.
public protocol SessionHost: AnyObject, Sendable {
    /// The memory that payloads come to and go from; transports register it once.
    var memory: BlockMemory { get }
    /// The secret of a tenant, or `nil`. Must take the same time for known and unknown ones.
    func secret(ofTenant tenant: String) -> [UInt8]?
    /// Someone failed to prove a tenant's key. The name is what he says: any text.
    func refused(tenant: String, at address: String, by carrier: Carrier)
    /// Takes an event. `full` only for `request`: the transport then stops reading from that session for a while; and for
    /// `opened`, when there are as many sessions as the host takes, over all transports: the client is told so.
    func deliver(_ event: SessionEvent) -> Acceptance
}

extension SessionHost {
    /// Nobody is told.
    public func refused(tenant: String, at address: String, by carrier: Carrier) {}
}

/// A server transport, as the store sees it.
public protocol SessionServer: AnyObject, Sendable {
    /// Takes a command. The transport's mailbox has room for all requests that its sessions may have in flight.
    func post(_ command: SessionCommand) -> Acceptance
    /// Where it listens, for people: `tcp 0.0.0.0:9460`.
    var address: String { get }
    /// Stops accepting, ends all sessions, joins its threads.
    func shutDown()
}
