// An open descriptor of a device or file, with the few synchronous transfers that formatting and opening need.

import CKernel
import Glibc
import KVModel
import KVSystem

/// A descriptor that is closed with its owner. Memory given to it is page-aligned, offsets and counts are multiples of
/// 4 KiB, as direct transfers want it.
package final class DeviceFile: Sendable {
    /// What is wanted of it.
    package enum Access {
        /// To look only.
        case readOnly
        /// To write behind the back of whoever has it: for campaigns that damage a drive.
        case unlocked
        /// To write, with nobody else; a mounted device is refused.
        case exclusive
        /// The same, and a file that is missing is created.
        case creating
    }

    package let path: String
    package let descriptor: Int32
    package let isBlockDevice: Bool
    package let isDirect: Bool
    /// Bytes of the device or file when it was opened.
    package let byteCount: Int

    /// Opens a path.
    ///
    /// - Parameter patience: How long to wait for another user to go.
    package init(
        path: String, access: Access, patience: Duration = Duration(seconds: 1)
    ) throws(FlashError) {
        let deadline = MonotonicClock.now + patience
        let opened = try DeviceFile.open(path, access, by: deadline)
        var isAccepted = false
        defer { if !isAccepted { hf_close(opened.descriptor) } }
        let isBlock = hf_is_block_device(opened.descriptor)
        guard isBlock >= 0 else {
            throw .geometry("\(path) is neither a block device nor a regular file")
        }
        if access != .readOnly, access != .unlocked,
            !DeviceFile.isSoon(by: deadline, { hf_lock_exclusive(opened.descriptor) == 0 })
        {
            throw .busy(path: path)
        }
        let sector = hf_logical_block_bytes(opened.descriptor)
        guard sector <= FlashGeometry.headerBytes else {
            throw .geometry("\(path) has sectors of \(sector) bytes; at most 4096")
        }
        let size = hf_size(opened.descriptor)
        byteCount = try system(Int(checked(size, "find the size of \(path)")))
        self.path = path
        descriptor = opened.descriptor
        isDirect = opened.isDirect
        isBlockDevice = isBlock == 1
        isAccepted = true
    }

    deinit { hf_close(descriptor) }

    private static func open(
        _ path: String, _ access: Access, by deadline: Instant
    ) throws(FlashError) -> (descriptor: Int32, isDirect: Bool) {
        var flags: UInt32 = access == .readOnly ? HF_OPEN_READ_ONLY : 0
        if access == .creating { flags |= HF_OPEN_CREATING }
        // Exclusive means "not mounted" for a block device only; for a file the word has another meaning.
        if access != .readOnly, access != .unlocked, isBlockDevice(path) { flags = HF_OPEN_EXCLUSIVE }
        var isDirect = true
        var descriptor: Int32 = 0
        _ = isSoon(by: deadline) {
            descriptor = unsafe hf_open_direct(path, flags)
            return descriptor != -EBUSY
        }
        if descriptor == -EINVAL {
            isDirect = false
            descriptor = unsafe hf_open_direct(path, flags | HF_OPEN_CACHED)
        }
        if descriptor == -EBUSY { throw .busy(path: path) }
        let result = descriptor
        return (try system(checked(result, "open \(path)")), isDirect)
    }

    /// Tries until the deadline. The kernel takes the ring of a killed process down a moment after the process is gone, and
    /// until then its device has a user; a restart must not fail for that.
    private static func isSoon(by deadline: Instant, _ attempt: () -> Bool) -> Bool {
        while !attempt() {
            guard MonotonicClock.now < deadline else { return false }
            usleep(10_000)
        }
        return true
    }

    private static func isBlockDevice(_ path: String) -> Bool {
        let descriptor = unsafe hf_open_direct(path, HF_OPEN_READ_ONLY | HF_OPEN_CACHED)
        defer { if descriptor >= 0 { hf_close(descriptor) } }
        return descriptor >= 0 && hf_is_block_device(descriptor) == 1
    }

    /// Fills `bytes` from `offset` on, all of them.
    package func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(SystemError) {
        let count = unsafe try readToEnd(into: bytes, at: offset)
        guard count == bytes.count else { throw SystemError(number: EIO, doing: "read \(path)") }
    }

    /// Fills `bytes` from `offset` on, as far as the file goes; returns how many there are.
    package func readToEnd(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(SystemError) -> Int {
        var done = 0
        while done < bytes.count {
            let count = unsafe pread(descriptor, bytes.baseAddress! + done, bytes.count - done, offset + done)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SystemError(number: errno, doing: "read \(path)") }
            done += count
            // A direct read that ends between two sectors has met the end, and may not be gone on with.
            if count == 0 || done % 512 != 0 { break }
        }
        return done
    }

    /// Writes `bytes` from `offset` on.
    package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let count = unsafe pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, offset + done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw SystemError(number: count == 0 ? EIO : errno, doing: "write \(path)") }
            done += count
        }
    }

    /// Makes what was written durable.
    package func flush() throws(SystemError) { _ = try checked(hf_sync_data(descriptor), "flush \(path)") }
}
