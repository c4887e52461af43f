// A named thread of the operating system, for loops that own a ring, a poller or the decisions. No tasks, no actors: a
// loop that must not be delayed must not share a pool.

import CKernel
import Glibc
import KVModel
import Synchronization

/// One thread that runs one function. One of the two `join`s is called, exactly once.
public final class EngineThread: Sendable {
    private final class Start {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Set when the function has returned. It is waited for by a clock that nobody sets; a join with a limit has the wall clock's.
    private let hasEnded = OneTimeFlag()
    private let handle: Mutex<pthread_t?>

    /// Starts the thread. The kernel keeps 15 bytes of the name.
    public init(_ name: String, body: @escaping @Sendable () -> Void) throws(SystemError) {
        var thread = pthread_t()
        let hasEnded = hasEnded
        let start = unsafe Unmanaged.passRetained(
            Start(name: name) {
                body()
                hasEnded.set()
            })
        let error = unsafe pthread_create(
            &thread, nil,
            { raw in
                let start = unsafe Unmanaged<Start>.fromOpaque(raw!).takeRetainedValue()
                unsafe hf_name_thread(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        guard error == 0 else {
            unsafe start.release()
            throw SystemError(number: error, doing: "start the thread \(name)")
        }
        handle = Mutex(thread)
    }

    /// Waits until the function has returned.
    public func join() { pthread_join(take(), nil) }

    /// Waits until the function has returned, but not longer than this. A thread that still runs then goes on by itself.
    ///
    /// - Returns: Whether it has ended.
    @discardableResult
    public func join(atMost limit: Duration) -> Bool {
        let thread = take()
        guard hasEnded.wait(within: limit) else {
            pthread_detach(thread)
            return false
        }
        pthread_join(thread, nil)
        return true
    }

    private func take() -> pthread_t {
        let thread = handle.withLock { handle -> pthread_t? in
            defer { handle = nil }
            return handle
        }
        guard let thread else { preconditionFailure("a thread joined twice") }
        return thread
    }
}
