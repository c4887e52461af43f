// Whether an agent that cannot be reached has ended. Only then are places free that it may still have mapped.

import KVModel
import KVTransport

/// What failed tries to connect say of an agent.
///
/// A socket on which nobody listens is that of an agent that ended: it listens as long as it has anything mapped. No socket
/// may be one that somebody removed: a living agent makes it anew within a second.
package struct AgentAbsence {
    /// How long there must be no socket.
    private let limit: Duration
    /// Whether the agent was ever there. Before, it has nothing mapped.
    private var wasThere = false
    private var missingSince: Instant?

    package init(limit: Duration) { self.limit = limit }

    /// There was a connection.
    package mutating func connected() {
        wasThere = true
        missingSince = nil
    }

    /// A try failed with an error number; whether by it nobody has anything mapped.
    package mutating func isCertain(_ error: Int32, at now: Instant) -> Bool {
        guard error == KernelError.noSuchFile else {
            missingSince = nil
            return error == KernelError.connectionRefused
        }
        let since = missingSince ?? now
        missingSince = since
        return !wasThere || now - since >= limit
    }
}
