// The machine's clock. Engines, sockets and the loops that own them read it; decisions never do: they are given a time.

import CKernel
import KVModel

/// The time since the machine started, which never runs back.
public enum MonotonicClock {
    /// Now. Costs about 20 ns (a call without a switch into the kernel).
    public static var now: Instant { Instant(nanoseconds: hf_monotonic_ns()) }
}
