// Writes a trace to a file, whole or not at all, compressed as the file's name asks.

import Glibc
import KVModel

extension Trace {
    /// Writes the trace as `format` to `path`, compressed by gzip or zstd when the name ends so; `-` is standard
    /// output. The file appears under its name only when it is complete.
    ///
    /// Throws when the format cannot hold the trace (see `losses`), unless `allowsLoss`.
    public func write(
        to path: String, as format: TraceFormat = .holdfast, allowsLoss: Bool = false,
        progress: ((Double) -> Void)? = nil
    ) throws(OperatorError) {
        let losses = losses(as: format)
        if !losses.isEmpty, !allowsLoss {
            throw OperatorError(
                "\(format.rawValue) cannot hold \(losses.joined(separator: ", "))", at: path,
                remedy: "--lossy leaves that out; --to holdfast keeps everything")
        }
        let shaped = losses.isEmpty ? self : try shaped(for: format)
        var file = try OutputFile(path: path)
        try TraceLineWriter(trace: shaped, format: format).write { (piece, requestsDone) throws(OperatorError) in
            try file.write(piece)
            progress?(Double(requestsDone) / Double(shaped.requests.count))
        }
        try file.finish()
    }

    /// The trace with the blocks that the format wants.
    private func shaped(for format: TraceFormat) throws(OperatorError) -> Trace {
        guard let size = format.fixedBlockTokens else { return self }
        return try reblocked(to: size, partialLast: format == .mooncake)
    }

    /// What would be lost if the trace were written as `format`; empty when nothing.
    public func losses(as format: TraceFormat) -> [String] {
        var losses: [String] = []
        if format == .holdfast { return [] }
        if blocks.isEmpty { losses.append("a trace without block ids") }
        if let size = format.fixedBlockTokens, size != blockTokens {
            losses.append("blocks of \(blockTokens) tokens (it has \(size))")
        } else if format == .extents, requests.contains(where: { $0.blockCount > Int($0.inputTokens) / blockTokens }) {
            losses.append("partial last blocks")
        } else if format == .mooncake, requests.contains(where: { Int($0.blockCount) != fullAndPartial($0) }) {
            losses.append("prompts whose last tokens have no block")
        }
        if format == .mooncake, requests.contains(where: { $0.session >= 0 }) { losses.append("conversations") }
        if format == .mooncake, requests.contains(where: { $0.serviceTime != nil || $0.thinkTime != nil }) {
            losses.append("service and think times")
        }
        if requests.contains(where: { $0.arrival.nanoseconds % 1_000_000 != 0 }) {
            losses.append("times finer than a millisecond")
        }
        if origin != nil { losses.append("how the trace was made") }
        return losses
    }

    private func fullAndPartial(_ request: TraceRequest) -> Int {
        (Int(request.inputTokens) + blockTokens - 1) / blockTokens
    }
}

extension TraceFormat {
    /// The block size that other tools expect of the format; `nil` when the file says it.
    var fixedBlockTokens: Int? {
        switch self {
        case .mooncake: LineFormat.mooncake.blockTokens
        case .extents: LineFormat.extents.blockTokens
        case .bailian: LineFormat.bailian.blockTokens
        case .azure, .holdfast: nil
        }
    }
}

/// A file that appears under its name when it is complete, and never otherwise. What is no file (a device, a pipe) is written
/// as it is, and a link leads to the file that is meant.
private struct OutputFile: ~Copyable {
    private let path: String
    /// Where the bytes go until they are complete; the name itself where nothing can be put in its place.
    private let partialPath: String
    private let descriptor: CInt
    private var filter: FilterProcess?
    private var isFinished = false

    init(path: String) throws(OperatorError) {
        let filter: FilterProcess? =
            switch TraceCompression.forFile(named: path) {
            // No name and no time in the header: the same trace, the same bytes.
            case .gzip: try FilterProcess.start(["gzip", "-9nc"], place: path)
            case .zstd: try FilterProcess.start(["zstd", "-19qc"], place: path)
            case nil: nil
            }
        var status = stat()
        let isFile = unsafe stat(path, &status) != 0 || status.st_mode & S_IFMT == S_IFREG
        let target = isFile ? Self.resolved(path) : path
        let partial = isFile ? target + ".partial" : path
        let opened = path == "-" ? STDOUT_FILENO : unsafe open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        if opened < 0 { throw OperatorError("cannot be written (\(systemMessage(errno)))", at: path) }
        self.path = path == "-" ? path : target
        partialPath = partial
        descriptor = opened
        self.filter = filter
    }

    deinit {
        if path == "-" { return }
        close(descriptor)
        if !isFinished, partialPath != path { unsafe unlink(partialPath) }
    }

    mutating func write(_ bytes: [UInt8]) throws(OperatorError) {
        if filter == nil { return try store(bytes[...]) }
        var rest = bytes[...]
        while !rest.isEmpty { if try !pump(&rest, isLast: false) { return } }
    }

    mutating func finish() throws(OperatorError) {
        if filter != nil {
            var nothing: ArraySlice<UInt8> = []
            while try pump(&nothing, isLast: true) {}
        }
        if path != "-" {
            if fsync(descriptor) != 0, errno != EINVAL {
                throw OperatorError("cannot be written (\(systemMessage(errno)))", at: path)
            }
            if partialPath != path, unsafe rename(partialPath, path) != 0 {
                throw OperatorError("cannot be put in place (\(systemMessage(errno)))", at: path)
            }
        }
        isFinished = true
    }

    /// The file that a link leads to; the name itself where there is none.
    private static func resolved(_ path: String) -> String {
        guard let real = unsafe realpath(path, nil) else { return path }
        defer { unsafe free(real) }
        return unsafe String(cString: real)
    }

    /// One step of the compressing command. False when it has ended.
    private mutating func pump(_ rest: inout ArraySlice<UInt8>, isLast: Bool) throws(OperatorError) -> Bool {
        var output = [UInt8](repeating: 0, count: 64 << 10)
        var outcome = Result<FilterProcess.Step, OperatorError>.success(.ended)
        unsafe rest.withUnsafeBytes { offered in
            unsafe output.withUnsafeMutableBytes { buffer in
                do throws(OperatorError) {
                    outcome = .success(unsafe try filter!.step(offered: offered, isLast: isLast, into: buffer))
                } catch {
                    outcome = .failure(error)
                }
            }
        }
        switch try outcome.get() {
        case .took(let count): rest = rest.dropFirst(count)
        case .gave(let count): try store(output[..<count])
        case .ended: return false
        }
        return true
    }

    private func store(_ bytes: ArraySlice<UInt8>) throws(OperatorError) {
        var rest = bytes
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            if count < 0 { throw OperatorError("cannot be written (\(systemMessage(errno)))", at: path) }
            rest = rest.dropFirst(count)
        }
    }
}
