// What the client's thread passes to a connection, and what a connection tells it.

import KVModel
import KVSystem

/// A request on its way through the client.
struct Errand: Sendable {
    /// Who hears of its end.
    enum Owner: Sendable {
        /// The sink, by tag.
        case tag(UInt64)
        /// A task that waits, once the slot is free.
        case task(@Sendable (Response) -> Void)
        /// The client itself: it names namespaces again after a reconnect, cancels, reports damage.
        case client
    }
    /// The tag of a request of the sink.
    var tag: UInt64? { if case .tag(let tag) = owner { tag } else { nil } }
    var request: Request
    var owner: Owner
    var slot: MemorySlice?
    var deadline: Instant
}

/// What a connection tells the client's loop.
protocol ClientConnectionOwner: AnyObject {
    /// The present time.
    var now: Instant { get }
    /// An errand ended with an answer of the store, or failed.
    func completed(_ errand: Errand, _ response: Response, slotIsFree: Bool, over connection: ClientConnection)
    /// The slot of an errand that had ended before is free.
    func slotReturned(_ errand: Errand)
    /// Something for subscribers; the handle is the session's.
    func notified(_ notification: Notification, over connection: ClientConnection)
    /// A get came with a wrong checksum.
    func sawCorrupt(_ request: Request)
}
