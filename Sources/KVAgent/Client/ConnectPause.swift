// How long a client waits before it connects again.

import KVModel

/// Pauses between tries to connect: none, then a first one, each next twice as long up to the longest.
///
/// Being taken on does not begin them anew, having lived for a while does: an agent that takes an engine on and breaks off
/// each time would be asked again without a pause.
package struct ConnectPause {
    private let first: Duration
    private let longest: Duration
    private var next = Duration.zero

    package init(first: Duration, longest: Duration) {
        self.first = first
        self.longest = longest
    }

    /// A connection has ended on which the engine had been taken on for so long.
    package mutating func ended(after life: Duration) {
        if life >= first { next = .zero }
    }

    /// The pause before the next try.
    package mutating func take() -> Duration {
        defer {
            let doubled = Duration(nanoseconds: min(longest.nanoseconds, 2 * next.nanoseconds))
            next = max(first, doubled)
        }
        return next
    }
}
