// Who may send how much over a queue pair, so that a message always meets a posted receive. Pure arithmetic: both ends
// run it, and the test runs both against each other.

/// Credits of one end: receives that the peer has posted and we have not used, and receives that we have posted again
/// and the peer does not know of.
///
/// Every message takes one credit and carries the receives posted again since the last one. The last credit is kept for
/// messages that carry nothing else. Without it two ends could use up all they have in the same moment and wait for each
/// other for ever: whoever has only the last credit left has been promised, with it, that the other can tell him more.
package struct VerbsCredits: Equatable {
    /// Receives the peer has posted and no message of ours is on the way to.
    package private(set) var available: Int
    /// Receives we posted again that the peer has not heard of.
    package private(set) var owed = 0
    /// Receives the peer posts altogether; more than these it cannot grant.
    private let granted: Int
    /// We tell by a message of its own when so many are owed.
    private let reportAt: Int

    /// The start: all receives of both ends are posted.
    package init(granted: Int, own: Int) {
        available = granted
        self.granted = granted
        reportAt = max(1, own / 2)
    }

    /// Whether a message with content may go now.
    package var maySend: Bool { available > 1 }

    /// Whether a message without content must go now: much is owed, and nothing else may carry it.
    package func mustReport(whileWaiting hasContent: Bool) -> Bool {
        owed >= reportAt && available > 0 && !(hasContent && maySend)
    }

    /// Takes the credit for one message; returns what it has to carry.
    package mutating func take() -> Int {
        precondition(available > 0, "a message without a credit")
        available -= 1
        defer { owed = 0 }
        return owed
    }

    /// A message has come, and its receive is posted again.
    package mutating func repost() { owed += 1 }

    /// The peer says that it posted so many again. False: more than it ever granted, so it counts wrong.
    package mutating func receive(_ count: Int) -> Bool {
        guard count <= granted - available else { return false }
        available += count
        return true
    }
}
