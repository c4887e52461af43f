// The end of another process, waited for without asking again and again.

import CKernel

/// Waits until a process has ended; at once where there is none of that number.
///
/// - Returns: False where the kernel cannot tell (before Linux 5.3, or a filter refuses `pidfd_open`).
public func waitForEnd(ofProcess number: Int32) -> Bool { hf_wait_for_end(number) == 0 }
