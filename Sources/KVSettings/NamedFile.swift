// Files that an operator named, read and written whole. What goes wrong is said in the kernel's words: Foundation's hide them
// behind a number.

import Glibc
import KVModel

/// A file by its path; a pipe or a device does as well.
public struct NamedFile {
    private let path: String
    private var isStandardInput = false

    /// The file at a path.
    public init(_ path: String) { self.path = path }

    /// What came through a pipe, or whatever standard input is.
    public static var standardInput: NamedFile {
        var file = NamedFile("standard input")
        file.isStandardInput = true
        return file
    }

    /// All bytes, at most `limit`. `remedy` says what to do where there is no such file.
    public func bytes(atMost limit: Int = 1 << 30, remedy: String = "") throws(OperatorError) -> [UInt8] {
        let descriptor = isStandardInput ? dup(STDIN_FILENO) : unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("read", errno, remedy: remedy) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = unsafe piece.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("read", errno) }
            guard count > 0 else { return bytes }
            guard bytes.count + count <= limit else {
                throw OperatorError("is longer than \(ByteSize.text(limit))", at: path, remedy: "is it the right file?")
            }
            bytes += piece[..<count]
        }
    }

    /// All of it as text, which must be UTF-8.
    public func text(atMost limit: Int = 16 << 20) throws(OperatorError) -> String {
        guard let text = String(validating: try bytes(atMost: limit), as: UTF8.self) else {
            throw OperatorError("is not text in UTF-8", at: path, remedy: "is it the right file?")
        }
        return text
    }

    /// Makes the file, with at most these permissions, or replaces it: it holds all of these bytes or what it held before. A pipe or
    /// a device gets them as they are.
    public func write(_ bytes: [UInt8], permissions: mode_t = 0o666) throws(OperatorError) {
        var status = stat()
        let isReplaced = unsafe stat(path, &status) != 0 || status.st_mode & S_IFMT == S_IFREG
        let written = isReplaced ? path + ".partial" : path
        let descriptor = unsafe open(written, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, permissions)
        guard descriptor >= 0 else { throw failure("written", errno) }
        var reason = writeAll(bytes, to: descriptor) ? 0 : errno
        if close(descriptor) != 0, reason == 0 { reason = errno }
        if isReplaced, reason == 0, unsafe rename(written, path) != 0 { reason = errno }
        guard reason == 0 else {
            if isReplaced { unsafe unlink(written) }
            throw failure("written", reason)
        }
    }

    /// Throws when the file could not be written now: before long work whose result would have no place.
    public func checkCanWrite() throws(OperatorError) {
        var status = stat()
        if unsafe stat(path, &status) == 0 {
            guard status.st_mode & S_IFMT != S_IFDIR else { throw failure("written", EISDIR) }
            guard unsafe access(path, W_OK) == 0 else { throw failure("written", errno) }
            return
        }
        let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        guard unsafe access(folder, W_OK) == 0 else { throw failure("written", errno) }
    }

    private func failure(_ what: String, _ number: CInt, remedy: String = "") -> OperatorError {
        switch (number, what) {
        case (ENOENT, "read"): OperatorError("there is no such file", at: path, remedy: remedy)
        case (ENOENT, _): OperatorError("the folder is not there", at: path, remedy: "make it, or choose another place")
        case (EISDIR, _): OperatorError("is a folder, not a file", at: path, remedy: "name a file in it")
        default: OperatorError("cannot be \(what): \(unsafe String(cString: strerror(number)))", at: path)
        }
    }
}

/// Writes all bytes to a descriptor; false: it takes no more, and `errno` says why.
public func writeAll(_ bytes: [UInt8], to descriptor: CInt) -> Bool {
    var rest = bytes[...]
    while !rest.isEmpty {
        let count = unsafe rest.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        if count <= 0 { return false }
        rest = rest.dropFirst(count)
    }
    return true
}
