// Cuts a stream into lines, in a buffer that grows to the longest line and never beyond a stated limit.

import Glibc
import KVModel

/// The lines of a stream, one at a time.
struct LineReader: ~Copyable {
    var source: ByteSource
    /// Holds the current line; valid until the next call of `next`.
    private(set) var buffer: [UInt8]
    private var filled = 0..<0
    private var ended = false
    private let lineByteLimit: Int
    /// The number of the current line, from 1.
    private(set) var lineNumber = 0

    /// What `next` found.
    enum Line {
        /// The line is in `buffer` there, without its line ending.
        case bytes(Range<Int>)
        /// A line longer than the limit was passed over.
        case tooLong
        case end
    }

    init(source: consuming ByteSource, lineByteLimit: Int) {
        self.source = source
        self.lineByteLimit = lineByteLimit
        buffer = Array(repeating: 0, count: min(1 << 20, lineByteLimit))
    }

    /// The next line. A line over the limit is reported at once when `stopsAtLongLine`, before its end is looked for.
    mutating func next(stopsAtLongLine: Bool) throws(OperatorError) -> Line {
        lineNumber += 1
        var searched = 0
        var isTooLong = false
        while true {
            if let newline = find(0x0A, in: filled.dropFirst(searched)) {
                let line = filled.lowerBound..<newline
                filled = (newline + 1)..<filled.upperBound
                return isTooLong ? .tooLong : .bytes(withoutCarriageReturn(line))
            }
            if ended {
                let line = filled
                filled = filled.upperBound..<filled.upperBound
                if isTooLong { return .tooLong }
                if line.isEmpty { return .end }
                return .bytes(withoutCarriageReturn(line))
            }
            searched = filled.count
            if searched >= lineByteLimit {
                isTooLong = true
                if stopsAtLongLine { return .tooLong }
                filled = 0..<0
                searched = 0
            }
            try fill()
        }
    }

    private func withoutCarriageReturn(_ line: Range<Int>) -> Range<Int> {
        !line.isEmpty && buffer[line.upperBound - 1] == 0x0D ? line.dropLast() : line
    }

    private func find(_ byte: UInt8, in range: Range<Int>) -> Int? {
        if range.isEmpty { return nil }
        return unsafe buffer.withUnsafeBytes { bytes in
            let first = unsafe bytes.baseAddress! + range.lowerBound
            guard let found = unsafe memchr(first, CInt(byte), range.count) else { return nil }
            return unsafe UnsafeRawPointer(found) - bytes.baseAddress!
        }
    }

    /// Reads more behind what is there, making room first.
    private mutating func fill() throws(OperatorError) {
        if filled.lowerBound > 0 {
            unsafe buffer.withUnsafeMutableBytes { bytes in
                let start = bytes.baseAddress!
                _ = unsafe memmove(start, start + filled.lowerBound, filled.count)
            }
            filled = 0..<filled.count
        }
        if filled.count == buffer.count {
            buffer.append(contentsOf: repeatElement(0, count: min(buffer.count, max(lineByteLimit - buffer.count, 1))))
        }
        let first = filled.upperBound
        var outcome = Result<Int, OperatorError>.success(0)
        unsafe buffer.withUnsafeMutableBytes { bytes in
            do throws(OperatorError) {
                outcome = .success(
                    unsafe try source.read(into: UnsafeMutableRawBufferPointer(rebasing: bytes[first...])))
            } catch {
                outcome = .failure(error)
            }
        }
        let count = try outcome.get()
        if count == 0 { ended = true }
        filled = filled.lowerBound..<(first + count)
    }
}
