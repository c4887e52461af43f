// How a client reaches its store, what it dares, and what it tells its owner.

import KVModel
import KVSystem

/// A way to a store.
public struct StoreRoute: Sendable {
    /// What carries sessions on this way.
    public let carrier: Carrier
    /// Where it leads, for people: `tcp 10.0.0.7:9460`.
    public let address: String
    /// Begins a connection; `signal` wakes the client's thread.
    package let connect: @Sendable (BlockMemory, WakeSignal) throws(SystemError) -> any ClientLink

    /// A way of its parts; carriers of other files make theirs by it.
    package init(
        carrier: Carrier, address: String,
        connect: @escaping @Sendable (BlockMemory, WakeSignal) throws(SystemError) -> any ClientLink
    ) {
        self.carrier = carrier
        self.address = address
        self.connect = connect
    }
}

/// Everything a client must be told.
public struct StoreClientConfiguration: Sendable {
    /// The ways to the store, the best first. It takes the first that works, and climbs back to a better one.
    public var routes: [StoreRoute]
    /// Who it is.
    public var tenant: String
    /// The key it shares with the store: 32 bytes from a random source.
    public var secret: [UInt8]
    /// Requests that may be under way at once, from `submit` to the return of their slot.
    public var inFlightMax: Int
    /// From the begin of a connection to its welcome.
    public var connectLimit: Duration
    /// From a cancel to its acknowledgement; a store that is slower loses the connection, so that slots come back.
    public var cancelLimit: Duration
    /// How long a connection may show no sign of life while requests are under way before it is asked for one, and how long it
    /// may take to answer before a second connection is begun beside it. The first of them that speaks is kept.
    public var silenceLimit: Duration
    /// The pause before a second try to connect; each further one twice as long.
    public var backoff: Duration
    /// The longest such pause.
    public var backoffMax: Duration
    /// How often a better way is tried while a worse one works.
    public var climbInterval: Duration
    /// When a sick store is left alone.
    public var breaker: CircuitBreaker.Configuration

    /// A configuration of its parts.
    public init(
        routes: [StoreRoute], tenant: String, secret: [UInt8], inFlightMax: Int = 256,
        connectLimit: Duration = Duration(seconds: 5), cancelLimit: Duration = Duration(seconds: 5),
        silenceLimit: Duration = Duration(seconds: 1),
        backoff: Duration = Duration(milliseconds: 50), backoffMax: Duration = Duration(seconds: 5),
        climbInterval: Duration = Duration(seconds: 5),
        breaker: CircuitBreaker.Configuration = .init(
            failureCountMax: 8, pause: Duration(milliseconds: 500), pauseMax: Duration(seconds: 10))
    ) {
        self.routes = routes
        self.tenant = tenant
        self.secret = secret
        self.inFlightMax = inFlightMax
        self.connectLimit = connectLimit
        self.cancelLimit = cancelLimit
        self.silenceLimit = silenceLimit
        self.backoff = backoff
        self.backoffMax = backoffMax
        self.climbInterval = climbInterval
        self.breaker = breaker
    }
}

/// What a client tells its owner, on the client's thread: post it to your own mailbox.
public enum StoreEvent: Sendable {
    /// A request ended. `slotIsFree`: nobody touches its slot any more; otherwise `slotReturned` follows, when the
    /// store has answered, acknowledged a cancel, or the connection is closed: never by time alone.
    case completed(tag: UInt64, Response, slotIsFree: Bool)
    /// The slot of a request that had ended at its deadline is free.
    case slotReturned(tag: UInt64)
    /// Something of a subscription.
    case notified(Notification)
    /// It talks to the store from now on.
    case connected(Carrier)
    /// It does not any more, or could not.
    case lost(reason: String)
}
