// How work crosses from any thread to the one that owns some state. Bounded: a full mailbox is told by value.

import KVModel
import Synchronization

/// Whether a mailbox, a ring or a session took something on.
public enum Acceptance: Sendable, Equatable {
    /// It will be handled.
    case accepted
    /// There is no room; nothing was taken.
    case full
}

/// A bounded queue from any number of threads to one.
///
/// The capacity is stated once and its room is taken at once; posting allocates nothing. The owner drains in batches: one
/// lock a batch, not one a message. Ends of effects must never be refused, so a mailbox that carries them has a
/// capacity of at least the effects that may be in flight.
///
/// Its functions are compiled where they are called, for the message at hand: without that each turn of an owner looks up, for each of
/// its mailboxes, what the message is, which took as long as a tenth of a look-up of 1,000 blocks.
public final class Mailbox<Message: Sendable>: Sendable {
    @usableFromInline
    struct Queue {
        @usableFromInline var messages: [Message] = []
    }

    @usableFromInline let queue: Mutex<Queue>
    @usableFromInline let capacity: Int
    @usableFromInline let signal: WakeSignal

    /// An empty mailbox whose owner sleeps on `signal` (several mailboxes of one owner share one).
    public init(capacity: Int, waking signal: WakeSignal) {
        precondition(capacity > 0, "a mailbox without room")
        self.capacity = capacity
        self.signal = signal
        var empty = Queue()
        empty.messages.reserveCapacity(capacity)
        queue = Mutex(empty)
    }

    /// Leaves a message and wakes the owner.
    @inlinable
    public func post(_ message: sending Message) -> Acceptance {
        let result = leave(message)
        if result == .accepted { signal.wake() }
        return result
    }

    /// Leaves a message and wakes nobody: for who takes the owner's turn, or sees to it that somebody does.
    @inlinable
    public func leave(_ message: sending Message) -> Acceptance {
        queue.withLock { queue -> Acceptance in
            guard queue.messages.count < capacity else { return .full }
            queue.messages.append(message)
            return .accepted
        }
    }

    /// Takes all messages, oldest first, in exchange for the (emptied) array of the previous turn, so that two arrays
    /// serve for ever.
    @inlinable
    public func drain(into batch: inout [Message]) {
        batch.removeAll(keepingCapacity: true)
        if batch.capacity < capacity { batch.reserveCapacity(capacity) }
        // `swap` across the lock would send one region into another; the exchange happens inside.
        var taken = batch
        batch = []
        queue.withLock { queue in
            let waiting = queue.messages
            queue.messages = taken
            taken = waiting
        }
        batch = taken
    }

    /// Wakes the owner without leaving anything: something that it looks at has changed.
    public func wakeOwner() { signal.wake() }

    /// Whether nothing waits. The owner asks between `prepareToSleep` and sleeping.
    @inlinable public var isEmpty: Bool { queue.withLock { $0.messages.isEmpty } }
}
