// One engine at the door: its stream, its session, its memory.

import KVModel
import KVSystem

/// One engine's connection. Belongs to the door's thread.
final class EngineConnection {
    let stream: EngineStream
    var session: EngineSession
    var regions: [Int32: SharedRegion] = [:]
    /// What the decisions must hear before anything more is read.
    var waiting: EngineMessage?
    /// A hello that must wait until earlier connections of its process are forgotten.
    var heldHello: EngineMessage?
    /// Whether the decisions were told of it.
    var isKnown = false
    var isQueued = false
    /// Whether the poller tells of room in its socket.
    var awaitsRoom = false
    /// Whether changes were lost that the next ones must own up to.
    var missedChanges = false
    var openedAt: Instant
    /// Set when nothing more is read and it goes once its output has gone.
    var closesBy: Instant?

    init(_ stream: EngineStream, session: EngineSession, at now: Instant) {
        self.stream = stream
        self.session = session
        openedAt = now
    }

    /// Whether the next frame may be read.
    var mayRead: Bool {
        closesBy == nil && waiting == nil && heldHello == nil && session.phase != .attaching && !session.isDone
    }
}

extension EngineReply {
    /// Whom it is for.
    var engine: EngineNumber {
        switch self {
        case .attached(let engine), .refused(let engine, _, _), .regionAdded(let engine, _),
            .regionDropped(let engine, _), .found(let engine, _, _), .loaded(let engine, _, _, _),
            .saved(let engine, _, _), .cancelled(let engine, _), .pinned(let engine, _, _),
            .changed(let engine, _, _), .forgotten(let engine),
            .taken(let engine, _, _), .reserved(let engine, _, _), .released(let engine, _, _):
            engine
        }
    }
}
