// One word for each loan, in memory that engines may read: who has read a slot looks here whether it was still the engine's to read.

import CKernel
import KVModel
import KVSystem
import Synchronization

/// The words, in a memory file of their own.
///
/// A word holds the generation of the loan in force, and is raised before anything else happens when that loan ends. The agent
/// alone writes; engines get a descriptor that is for reading only.
@safe
final class LoanWords: @unchecked Sendable {
    let count: Int
    /// For engines: reading only.
    let descriptor: Int32
    private let address: UnsafeMutableRawPointer
    private let byteCount: Int

    init(count: Int) throws(SystemError) {
        self.count = count
        byteCount = (count * 8).roundedUp(toMultipleOf: 4096)
        let file = try checked(unsafe hf_memory_file("holdfast-loans", Int64(byteCount), 0), "make the loan words")
        defer { hf_close(file) }
        var mapped: UnsafeMutableRawPointer?
        _ = try checked(unsafe hf_map_shared(file, byteCount, 1, &mapped), "map the loan words")
        guard let mapped = unsafe mapped else { preconditionFailure("a mapping without an address") }
        unsafe address = mapped
        descriptor = hf_reopen(file, 0)
        guard descriptor >= 0 else {
            unsafe hf_unmap(mapped, byteCount)
            throw SystemError(number: -descriptor, doing: "open the loan words for reading")
        }
    }

    deinit {
        _ = unsafe hf_unmap(address, byteCount)
        hf_close(descriptor)
    }

    subscript(_ loan: UInt32) -> UInt64 {
        get { unsafe hf_load_word(address, Int(loan)) }
        set { unsafe hf_store_word(address, Int(loan), newValue) }
    }
}
