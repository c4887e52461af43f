// Whether this process gets a ring at all, asked before a store is started.

import CURing
import KVSystem

/// Makes a small ring and destroys it: throws `.noRing` where the kernel or a container's filter refuses io_uring.
public func checkCanMakeRing() throws(FlashError) {
    var ring: OpaquePointer?
    let result = unsafe hf_ring_create(8, &ring)
    guard result >= 0, let ring = unsafe ring else {
        throw .noRing(SystemError(number: -result, doing: "set up a ring"))
    }
    unsafe hf_ring_destroy(ring)
}
