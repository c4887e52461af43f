// Messages count by what they carry, too: eight thousand long chains would be gigabytes, and seconds of work before the next look-up
// is heard.

import Synchronization

/// Keys and places of messages that were posted and have not been heard; any thread adds, the agent's removes.
package final class MessageWeight: Sendable {
    private let waiting = Atomic<Int>(0)
    private let itemsMax: Int

    /// - Parameter itemsMax: Keys and places that may wait. Hints get a quarter of it.
    package init(itemsMax: Int) { self.itemsMax = itemsMax }

    /// Whether there is room for a message, which then counts. One alone always has room.
    package func add(_ message: EngineMessage) -> Bool {
        let count = message.itemCount
        guard count > 0 else { return true }
        let sum = waiting.add(count, ordering: .relaxed).newValue
        if sum <= (message.isHint ? itemsMax / 4 : itemsMax) || sum == count { return true }
        waiting.subtract(count, ordering: .relaxed)
        return false
    }

    /// A message counts no more.
    package func remove(_ message: EngineMessage) {
        let count = message.itemCount
        if count > 0 { waiting.subtract(count, ordering: .relaxed) }
    }
}
