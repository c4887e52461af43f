// What can be wrong with a device, in words an operator can act on.

import KVModel
import KVSystem

/// A device cannot be formatted, opened or used.
public enum FlashError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The kernel refused something.
    case system(SystemError)
    /// Formatting would overwrite something that is not ours, or a drive of a store.
    case foreignData(path: String, found: String)
    /// No copy of the superblock is there.
    case notADrive(path: String, found: String)
    /// There is a superblock, and it cannot be believed.
    case damagedSuperblock(path: String, why: String)
    /// A later program formatted it.
    case unknownVersion(path: String, version: UInt32)
    /// The device ends before its drive does.
    case truncated(path: String, drive: ByteCount, device: ByteCount)
    /// The file system has fewer bytes free than a file of this size would take.
    case noRoom(path: String, wanted: ByteCount, free: ByteCount)
    /// A size or an extent size that no drive can have.
    case geometry(String)
    /// Someone else has it open, or it is mounted.
    case busy(path: String)
    /// It answers no read.
    case silent(path: String, seconds: Int)
    /// Drives that do not make up one store.
    case mixedDrives(String)
    /// The kernel gives this process no ring.
    case noRing(SystemError)

    /// Bytes, as this error speaks of them.
    public typealias ByteCount = Int

    /// What, where, and what to do.
    public var operatorError: OperatorError {
        switch self {
        case .system(let error):
            OperatorError(error.description)
        case .foreignData(let path, let found):
            OperatorError(
                "it holds \(found), which formatting would destroy", at: path,
                remedy: "name another device, or say --force to format it")
        case .notADrive(let path, let found):
            OperatorError("it is not a Holdfast drive: it holds \(found)", at: path, remedy: "format it first")
        case .damagedSuperblock(let path, let why):
            OperatorError(
                "its superblock is damaged: \(why)", at: path,
                remedy: "replace the device, or say --force to format it and lose its blocks")
        case .unknownVersion(let path, let version):
            OperatorError(
                "it has format version \(version), this program knows version \(Superblock.version)", at: path,
                remedy: "use the program that formatted it, or a newer one")
        case .truncated(let path, let drive, let device):
            OperatorError(
                "it was formatted with \(drive) bytes and now has \(device)", at: path,
                remedy: "give it its size back, or say --force to format it and lose its blocks")
        case .noRoom(let path, let wanted, let free):
            OperatorError(
                "a file of \(ByteSize.text(wanted)) has no room: \(ByteSize.text(free)) are free", at: path,
                remedy: "ask for less, or free room")
        case .geometry(let what):
            OperatorError(what)
        case .busy(let path):
            OperatorError(
                "another process uses it, or it is mounted", at: path, remedy: "stop the other user, or unmount it")
        case .silent(let path, let seconds):
            OperatorError(
                "it has answered no read for \(seconds) s", at: path,
                remedy: "look for it in the kernel's log, and replace the device")
        case .mixedDrives(let what):
            OperatorError(what, remedy: "name all drives of one store, each once")
        case .noRing(let error):
            OperatorError(
                "io_uring is refused (\(error.reason))", at: "",
                remedy: "set kernel.io_uring_disabled to 0, and allow io_uring_setup in the container's seccomp profile"
            )
        }
    }

    /// The sentence.
    public var description: String { operatorError.description }
}

/// The result of something that fails with a `SystemError`, failing with a `FlashError`.
func system<Result: ~Copyable>(_ body: @autoclosure () throws(SystemError) -> Result) throws(FlashError) -> Result {
    do { return try body() } catch { throw .system(error) }
}
