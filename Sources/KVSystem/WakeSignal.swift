// How one thread wakes another that sleeps in a poll, an epoll or a ring.

import CKernel
import KVModel
import Synchronization

/// An event descriptor with a flag before it, so that waking a thread that is awake costs one atomic exchange and no
/// call into the kernel.
///
/// The sleeper calls `prepareToSleep`, looks once more at what it waits for, and only then sleeps on `descriptor`;
/// after waking it calls `awake`. Whoever has work for it publishes the work first and then calls `wake`.
public final class WakeSignal: Sendable {
    /// Readable while somebody has called `wake` and the sleeper has not yet called `awake`.
    public let descriptor: Int32
    private let isAsleep = Atomic<Bool>(false)

    /// A signal nobody has given.
    public init() throws(SystemError) {
        descriptor = try checked(hf_event_create(), "create an event descriptor")
    }

    deinit { hf_close(descriptor) }

    /// Says that the owner is about to sleep: from here on `wake` writes to the descriptor.
    public func prepareToSleep() { isAsleep.store(true, ordering: .sequentiallyConsistent) }

    /// Says that the owner is awake, and clears the descriptor. An owner who has seen that the descriptor was not readable
    /// saves the call into the kernel; a signal that came since ends its next sleep at once.
    public func awake(wasSignalled: Bool = true) {
        isAsleep.store(false, ordering: .sequentiallyConsistent)
        if wasSignalled { hf_event_clear(descriptor) }
    }

    /// Wakes the owner if it sleeps or is about to.
    public func wake() {
        if isAsleep.exchange(false, ordering: .sequentiallyConsistent) { hf_event_signal(descriptor) }
    }
}

extension WakeSignal {
    /// Sleeps on the descriptor until somebody wakes the owner or the time is over (nil: for ever).
    public func wait(atMost limit: Duration?) {
        hf_event_wait(descriptor, limit.map { max(0, $0.nanoseconds) } ?? -1)
    }
}
