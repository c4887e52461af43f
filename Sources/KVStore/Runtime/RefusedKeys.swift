// Who failed to prove a key, for the log: a line a second at most, however many try.

import KVModel

/// Failed proofs since the last line about them.
package struct RefusedKeys {
    private var count = 0
    private var spokeAt: Instant?

    /// Nobody failed yet.
    package init() {}

    /// Notes one. How many there were since the last line, when it is time for another.
    package mutating func note(at now: Instant) -> Int? {
        count += 1
        if let spokeAt, now - spokeAt < Duration(seconds: 1) { return nil }
        spokeAt = now
        defer { count = 0 }
        return count
    }
}
