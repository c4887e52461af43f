// Streams gzip and zstd through the machine's own commands: one child process, fed and drained by one thread, so that
// neither side can wait for the other for ever.

import Glibc
import KVModel

/// A compression that traces are stored in.
public enum TraceCompression: String, Sendable, CaseIterable {
    /// RFC 1952.
    case gzip
    /// RFC 8878.
    case zstd

    /// The compression whose magic bytes start `bytes`.
    static func recognised(in bytes: Span<UInt8>) -> TraceCompression? {
        if bytes.count >= 2, bytes[0] == 0x1F, bytes[1] == 0x8B { return .gzip }
        if bytes.count >= 4, bytes[0] == 0x28, bytes[1] == 0xB5, bytes[2] == 0x2F, bytes[3] == 0xFD { return .zstd }
        return nil
    }

    /// Suffixes of file names that ask for a compression.
    static let suffixes = [".gz", ".zst", ".zstd"]

    /// The compression that a file name asks for, by its suffix.
    public static func forFile(named name: String) -> TraceCompression? {
        if name.hasSuffix(".gz") { return .gzip }
        if name.hasSuffix(".zst") || name.hasSuffix(".zstd") { return .zstd }
        return nil
    }

    /// The name of what is compressed in the file of that name. A trace can be read by it, too.
    public static func contentName(_ name: String) -> String {
        suffixes.first(where: name.hasSuffix).map { String(name.dropLast($0.count)) } ?? name
    }
}

/// A command that turns one stream into another: `gzip -dc`, `zstd -c`, …
///
/// The three streams are sockets: a send to a child that has died is an error and not a signal, and close-on-exec is
/// set as they are made, so that a child started by another thread at the same time holds none of them open.
package struct FilterProcess: ~Copyable {
    private let process: pid_t
    private var input: CInt
    private var output: CInt
    private var messages: CInt
    private var messageBytes: [UInt8] = []
    private var isReaped = false
    private let command: String
    private let place: String

    private init(process: pid_t, streams: (CInt, CInt, CInt), command: String, place: String) {
        self.process = process
        (input, output, messages) = streams
        self.command = command
        self.place = place
    }

    /// Starts `arguments[0]`, found on the search path. `place` names the file in errors.
    package static func start(_ arguments: [String], place: String) throws(OperatorError) -> FilterProcess {
        let streams = (try Self.socketPair(), try Self.socketPair(), try Self.socketPair())
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawn_file_actions_adddup2(&actions, streams.0.theirs, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, streams.1.theirs, 1)
        unsafe posix_spawn_file_actions_adddup2(&actions, streams.2.theirs, 2)
        var child: pid_t = 0
        // The texts outlive the call; the child sees plain messages and none of our environment.
        var texts = unsafe arguments.map { unsafe strdup($0) } + [nil]
        var environment = unsafe [strdup("LC_ALL=C"), nil]
        let failure = unsafe posix_spawnp(&child, arguments[0], &actions, nil, &texts, &environment)
        unsafe (texts + environment).forEach { unsafe free($0) }
        unsafe posix_spawn_file_actions_destroy(&actions)
        for stream in [streams.0, streams.1, streams.2] { close(stream.theirs) }
        if failure != 0 {
            for stream in [streams.0, streams.1, streams.2] { close(stream.ours) }
            throw OperatorError(
                "the command `\(arguments[0])`, which this file needs, cannot be started (\(systemMessage(failure)))",
                at: place, remedy: "install \(arguments[0]), or give the file uncompressed")
        }
        return FilterProcess(
            process: child, streams: (streams.0.ours, streams.1.ours, streams.2.ours),
            command: arguments.joined(separator: " "), place: place)
    }

    deinit {
        for stream in [input, output, messages] where stream >= 0 { close(stream) }
        if !isReaped {
            kill(process, SIGKILL)
            var status: CInt = 0
            while unsafe waitpid(process, &status, 0) < 0, errno == EINTR {}
        }
    }

    private static func socketPair() throws(OperatorError) -> (ours: CInt, theirs: CInt) {
        var pair: (CInt, CInt) = (-1, -1)
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        let failed = unsafe withUnsafeMutablePointer(to: &pair) { pointer in
            unsafe pointer.withMemoryRebound(to: CInt.self, capacity: 2) { unsafe socketpair(AF_UNIX, kind, 0, $0) }
        }
        if failed != 0 { throw OperatorError("no stream for a child process (\(systemMessage(errno)))") }
        return (pair.0, pair.1)
    }

    /// What one step did.
    enum Step {
        /// That many bytes of what was offered went in.
        case took(Int)
        /// That many bytes came out into the buffer.
        case gave(Int)
        /// The output has ended, and the command has ended well.
        case ended
    }

    /// Waits until the command takes some of `offered` or gives something, and does that. An empty `offered` with
    /// `isLast` says that its input is complete. Throws when the command fails.
    mutating func step(
        offered: UnsafeRawBufferPointer, isLast: Bool, into buffer: UnsafeMutableRawBufferPointer
    ) throws(OperatorError) -> Step {
        if unsafe offered.isEmpty, isLast { closeInput() }
        while true {
            var polls = [
                pollfd(fd: unsafe offered.isEmpty ? -1 : input, events: Int16(POLLOUT), revents: 0),
                pollfd(fd: output, events: Int16(POLLIN), revents: 0),
                pollfd(fd: messages, events: Int16(POLLIN), revents: 0),
            ]
            if unsafe poll(&polls, 3, -1) < 0 {
                if errno == EINTR { continue }
                throw OperatorError("waiting for `\(command)` failed (\(systemMessage(errno)))", at: place)
            }
            if polls[2].revents != 0 { drainMessages() }
            if polls[1].revents != 0 {
                let count = unsafe read(output, buffer.baseAddress, buffer.count)
                if count > 0 { return .gave(count) }
                if count < 0, errno == EINTR || errno == EAGAIN { continue }
                try finish()
                return .ended
            }
            if polls[0].revents != 0 {
                let count = unsafe send(
                    input, offered.baseAddress, offered.count, CInt(MSG_NOSIGNAL) | CInt(MSG_DONTWAIT))
                if count > 0 { return .took(count) }
                if count < 0, errno == EINTR || errno == EAGAIN { continue }
                // It takes no more: let its end say why.
                closeInput()
                return .took(offered.count)
            }
        }
    }

    private mutating func closeInput() {
        if input >= 0 { close(input) }
        input = -1
    }

    private mutating func drainMessages() {
        var chunk = [UInt8](repeating: 0, count: 1024)
        let count = unsafe read(messages, &chunk, chunk.count)
        if count < 0, errno == EINTR || errno == EAGAIN { return }
        if count <= 0 {
            close(messages)
            messages = -1
        } else if messageBytes.count < 4096 {
            messageBytes += chunk[..<count]
        }
    }

    /// The command has closed its output: waits for its end and asks how it went.
    private mutating func finish() throws(OperatorError) {
        closeInput()
        while messages >= 0 { drainMessages() }
        var status: CInt = 0
        while unsafe waitpid(process, &status, 0) < 0, errno == EINTR {}
        isReaped = true
        if status == 0 { return }
        let lines = String(decoding: messageBytes, as: UTF8.self).split(whereSeparator: \.isNewline)
        let said = lines.map { $0.trimmed() }.first { !$0.isEmpty } ?? "it ended with status \(status >> 8)"
        throw OperatorError(
            "the compressed stream is truncated or damaged (\(command): \(said))", at: place,
            remedy: "fetch the file again")
    }
}

extension Substring {
    /// Without white space at either end.
    fileprivate func trimmed() -> Substring {
        let tail = drop(while: \.isWhitespace)
        return tail[..<(tail.lastIndex { !$0.isWhitespace }.map(tail.index(after:)) ?? tail.startIndex)]
    }
}

/// The system's words for an error number.
func systemMessage(_ number: CInt) -> String {
    unsafe strerror(number).map { unsafe String(cString: $0) } ?? "error \(number)"
}
