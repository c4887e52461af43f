// The bytes of a trace, from a file, a pipe or memory, decompressed on the way. Read once, in pieces of bounded size,
// while the digest of the content runs along: the same trace has the same digest, however it is compressed.

import Crypto
import Glibc
import KVModel

/// How far the reading of a trace has come.
public struct TraceProgress: Sendable {
    /// Bytes read so far, as stored.
    public var bytesRead: Int
    /// Bytes of the file as stored; `nil` for a pipe.
    public var bytesTotal: Int?
}

/// A stream of decompressed bytes. `~Copyable`, because it owns a descriptor and perhaps a child process.
struct ByteSource: ~Copyable {
    private static let pieceSize = 256 << 10

    /// What errors call the source.
    let place: String
    private var descriptor: CInt
    private let ownsDescriptor: Bool
    private var digest = SHA256()
    /// Stored bytes that were read and not yet handed on.
    private var stored: [UInt8]
    private var storedRange: Range<Int>
    private var storedEnded = false
    private var started = false
    private var filter: FilterProcess?
    private(set) var progress: TraceProgress

    /// Opens the file at `path`; `-` is standard input.
    init(path: String) throws(OperatorError) {
        stored = Array(repeating: 0, count: Self.pieceSize)
        storedRange = 0..<0
        progress = TraceProgress(bytesRead: 0, bytesTotal: nil)
        if path == "-" {
            (place, descriptor, ownsDescriptor) = ("standard input", STDIN_FILENO, false)
            return
        }
        (place, descriptor) = Self.opened(path)
        ownsDescriptor = true
        if descriptor < 0 {
            throw OperatorError("cannot be opened (\(systemMessage(errno)))", at: path, remedy: openRemedy(errno))
        }
        var status = stat()
        if unsafe fstat(descriptor, &status) == 0 {
            let kind = status.st_mode & S_IFMT
            if kind == S_IFDIR {
                throw OperatorError("is a directory", at: path, remedy: "give the trace file in it")
            }
            if kind == S_IFREG { progress.bytesTotal = Int(status.st_size) }
        }
    }

    /// The file, or else the same compressed: what is said of a trace leaves out how it happens to be stored, and what is
    /// said must be found again.
    private static func opened(_ path: String) -> (place: String, descriptor: CInt) {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor < 0, errno == ENOENT else { return (path, descriptor) }
        for suffix in TraceCompression.suffixes {
            let compressed = unsafe open(path + suffix, O_RDONLY | O_CLOEXEC)
            if compressed >= 0 { return (path + suffix, compressed) }
        }
        errno = ENOENT
        return (path, descriptor)
    }

    /// A source of bytes that are in memory already.
    init(bytes: [UInt8], place: String) {
        self.place = place
        stored = bytes
        storedRange = 0..<bytes.count
        (descriptor, ownsDescriptor) = (-1, false)
        storedEnded = true
        progress = TraceProgress(bytesRead: bytes.count, bytesTotal: bytes.count)
    }

    deinit {
        if ownsDescriptor, descriptor >= 0 { close(descriptor) }
    }

    /// SHA-256 of the content, decompressed. Complete once `read` has returned 0.
    var sha256: String { digest.finalize().map { String(hexadecimal($0).dropFirst(2)).lowercased() }.joined() }

    /// Fills `buffer` from its start with at least one byte, and says with how many; 0 at the end.
    mutating func read(into buffer: UnsafeMutableRawBufferPointer) throws(OperatorError) -> Int {
        let count = unsafe try fill(buffer)
        unsafe digest.update(bufferPointer: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        return count
    }

    private mutating func fill(_ buffer: UnsafeMutableRawBufferPointer) throws(OperatorError) -> Int {
        if !started { try start() }
        if filter == nil {
            if storedRange.isEmpty { try refill() }
            let count = min(storedRange.count, buffer.count)
            unsafe stored.withUnsafeBytes { bytes in
                let piece = unsafe UnsafeRawBufferPointer(rebasing: bytes[storedRange.prefix(count)])
                unsafe buffer.copyMemory(from: piece)
            }
            storedRange = storedRange.dropFirst(count)
            return count
        }
        while true {
            if storedRange.isEmpty { try refill() }
            switch unsafe try filterStep(into: buffer) {
            case .took(let count): storedRange = storedRange.dropFirst(count)
            case .gave(let count): return count
            case .ended:
                // What follows the last compressed member was fed as well, so nothing stored is left unread.
                return 0
            }
        }
    }

    /// Throws when the rest of a compressed stream, as far as 64 MiB of it, is damaged: what came of it before that may be wrong,
    /// too, and a line that makes no sense is then the stream's fault.
    mutating func checkRest() throws(OperatorError) {
        guard filter != nil else { return }
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.pieceSize, alignment: 16)
        defer { unsafe piece.deallocate() }
        var left = 64 << 20
        while left > 0 {
            let count = unsafe try read(into: piece)
            if count == 0 { return }
            left -= count
        }
    }

    private mutating func filterStep(into buffer: UnsafeMutableRawBufferPointer) throws(OperatorError)
        -> FilterProcess.Step
    {
        let isLast = storedEnded
        let range = storedRange
        var outcome = Result<FilterProcess.Step, OperatorError>.success(.ended)
        unsafe stored.withUnsafeBytes { bytes in
            do throws(OperatorError) {
                let offered = unsafe UnsafeRawBufferPointer(rebasing: bytes[range])
                outcome = .success(unsafe try filter!.step(offered: offered, isLast: isLast, into: buffer))
            } catch {
                outcome = .failure(error)
            }
        }
        return try outcome.get()
    }

    /// Reads the first piece and, if it is compressed, starts the command that decompresses it.
    private mutating func start() throws(OperatorError) {
        started = true
        while storedRange.count < 4, !storedEnded { try refill(keeping: true) }
        let compression = TraceCompression.recognised(in: stored.span.extracting(storedRange))
        switch compression {
        case .gzip: filter = try FilterProcess.start(["gzip", "-dc"], place: place)
        case .zstd: filter = try FilterProcess.start(["zstd", "-dcq", "--long=31"], place: place)
        case nil: break
        }
    }

    /// Reads the next piece of stored bytes; behind what is there if `keeping`.
    private mutating func refill(keeping: Bool = false) throws(OperatorError) {
        if storedEnded { return }
        let first = keeping ? storedRange.upperBound : 0
        var count = 0
        repeat {
            count = unsafe stored.withUnsafeMutableBytes { bytes in
                unsafe Glibc.read(descriptor, bytes.baseAddress! + first, bytes.count - first)
            }
        } while count < 0 && errno == EINTR
        if count < 0 { throw OperatorError("reading failed (\(systemMessage(errno)))", at: place) }
        if count == 0 { storedEnded = true }
        storedRange = (keeping ? storedRange.lowerBound : 0)..<(first + count)
        progress.bytesRead += count
    }
}

private func openRemedy(_ number: CInt) -> String {
    switch number {
    case ENOENT: "check the path; `-` reads standard input"
    case EACCES: "make the file readable for this user"
    default: ""
    }
}
