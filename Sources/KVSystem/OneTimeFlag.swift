// Something that happens once, and threads that wait for it.

import CKernel
import KVModel

/// A flag that is set once, from any thread, and waited for with an end. Setting it while nobody waits, and waiting when it is set,
/// cost no call into the kernel.
@safe
public final class OneTimeFlag: @unchecked Sendable {
    /// 0: not set; 1: not set, and somebody waits; 2: set.
    private let word: UnsafeMutablePointer<UInt32>

    /// A flag that is not set.
    public init() {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: 0)
    }

    deinit { unsafe word.deallocate() }

    /// Sets it. What was written before is seen by whoever waited.
    public func set() { unsafe hf_flag_set(word) }

    /// Whether it is set.
    public var isAlreadySet: Bool { unsafe hf_flag_is_set(word) != 0 }

    /// Waits until it is set. `false`: the time was over first.
    public func wait(within limit: Duration) -> Bool {
        unsafe hf_flag_wait(word, max(0, limit.nanoseconds)) != 0
    }
}
