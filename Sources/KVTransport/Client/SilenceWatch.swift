// Whether the other end of a connection shows any sign of life while something is asked of it. Pure: the connection looks,
// asks and tells the time.

import KVModel

/// What was seen of a peer, and when.
package struct SilenceWatch {
    private let limit: Duration
    /// What was seen last, and when that was news, or nothing was under way before.
    private var last: LifeSigns?
    private var heardAt = Instant.zero
    private var wasProbed = false
    /// Whether the peer answers neither what it was asked nor whether it is there.
    package private(set) var isSilent = false

    /// - Parameter limit: So long without a sign, and the peer is asked for one.
    package init(limit: Duration) { self.limit = limit }

    /// When to look. An answer to a probe may take longer than a store with full buffers lets a put wait.
    package var dueAt: Instant {
        if isSilent { return .distantFuture }
        return heardAt + Duration(nanoseconds: limit.nanoseconds * (wasProbed ? 4 : 1))
    }

    /// Something is under way, and nothing was before.
    package mutating func begins(at now: Instant) { heardAt = now }

    /// A frame came. Only after a probe does that need to be known at once: each look sees what came before it.
    package mutating func heardAnswer(at now: Instant) {
        if wasProbed { heard(at: now) }
    }

    /// The peer lives.
    package mutating func heard(at now: Instant) {
        heardAt = now
        wasProbed = false
        isSilent = false
    }

    /// Notes what the peer did since the last look; whether it must be asked for a sign of life now. Slow links are alive as
    /// long as bytes trickle, either way.
    package mutating func look(at signs: LifeSigns, _ now: Instant) -> Bool {
        let isNews = last.map { signs.differs(from: $0) } ?? true
        last = signs
        if isNews {
            heard(at: now)
            return false
        }
        isSilent = wasProbed
        defer { wasProbed = true }
        return !wasProbed
    }
}
