// The agent's socket in the file system: made with its permissions, taken over only from a dead agent, removed at the end.

import CKernel
import Glibc
import KVModel
import KVSystem

/// A listening local socket and its file.
final class EngineListener: Sendable {
    /// The longest path that the kernel takes.
    static let pathBytesMax = 107
    /// How long another agent may hold the folder at a start: it makes a socket in it, which takes microseconds.
    static let folderLimit = Duration(seconds: 5)

    let descriptor: Int32
    private let path: String
    private let file: (device: dev_t, inode: ino_t)?

    /// Listens at a path. A socket file there is removed if nobody answers it.
    ///
    /// - Parameters:
    ///   - isShared: Whether users other than the agent's own may connect; who really may is asked of the kernel at each
    ///     connection.
    ///   - patience: How long it waits for another agent that holds the folder.
    init(path: String, isShared: Bool, patience: Duration = folderLimit) throws(OperatorError) {
        let option = "--socket"
        guard path.utf8.count <= Self.pathBytesMax else {
            throw OperatorError(
                "`\(path)` has \(path.utf8.count) bytes, more than the \(Self.pathBytesMax) of a socket's path",
                at: option, remedy: "choose a shorter one")
        }
        let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let place = folder.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : folder
        // Two agents that start at once must not take each other's socket for a dead one.
        let held = unsafe open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard held >= 0 else {
            throw OperatorError(
                "the folder `\(place)` cannot be opened: \(unsafe String(cString: strerror(errno)))", at: option,
                remedy: "make it for this user (sudo install -d -o $USER \(place)), or name another path with --socket")
        }
        defer { close(held) }
        let deadline = MonotonicClock.now + patience
        while flock(held, LOCK_EX | LOCK_NB) != 0 {
            guard MonotonicClock.now < deadline else {
                throw OperatorError(
                    "the folder `\(place)` is held by another process", at: option,
                    remedy: "see who has it open (fuser \(place)), or name another path")
            }
            usleep(10_000)
        }
        try Self.makeWay(path, option)
        let made = unsafe hf_unix_listen(path, 128, isShared ? 0o666 : 0o600)
        guard made >= 0 else {
            throw OperatorError(
                "`\(path)` cannot be listened on: \(unsafe String(cString: strerror(-made)))", at: option)
        }
        descriptor = made
        self.path = path
        file = Self.identity(path)
    }

    private static func makeWay(_ path: String, _ option: String) throws(OperatorError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw OperatorError(
                "`\(path)` is there and is no socket", at: option, remedy: "remove it, or choose another path")
        }
        let probe = unsafe hf_unix_connect(path)
        if probe >= 0 { hf_close(probe) }
        guard probe == -ECONNREFUSED else {
            throw OperatorError(
                "another process listens on `\(path)`", at: option, remedy: "stop it, or choose another path")
        }
        unsafe unlink(path)
    }

    private static func identity(_ path: String) -> (dev_t, ino_t)? {
        var status = stat()
        return unsafe lstat(path, &status) == 0 ? (status.st_dev, status.st_ino) : nil
    }

    /// Whether the path leads here: the file may be removed by whoever may write to its folder.
    var isInPlace: Bool {
        guard let file, let now = Self.identity(path) else { return false }
        return now == file
    }

    /// Stops listening and removes the file, if it is still ours.
    func end() {
        if isInPlace { unsafe unlink(path) }
        hf_close(descriptor)
    }
}
