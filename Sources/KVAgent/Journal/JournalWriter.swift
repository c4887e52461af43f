// Every input of the decisions, written down: each event with its time, and what became of each command. The same inputs
// give a fresh manager the same commands, byte for byte; that is what makes a replay worth believing.

import Foundation
import KVModel
import KVSettings
import KVSystem
import KVTiering
import Synchronization

/// Where a journal goes.
public struct JournalSettings: Sendable {
    /// The file, made anew; the one before it is kept as FILE.1. Nil: memory, for tests.
    public var path: String?
    /// It ends here. A journal that ended is still one of the beginning.
    public var bytesMax: Int
    /// The policy of the tiers, for who reads it. Nil: a test's own.
    public var policy: PolicyName?

    /// A journal in a file, or in memory.
    public init(path: String?, bytesMax: Int, policy: PolicyName? = nil) {
        self.path = path
        self.bytesMax = bytesMax
        self.policy = policy
    }
}

/// Writes a journal. It lives on the agent's thread; a thread of its own does the writing.
///
/// A head (`JournalHead`), then pieces of whole entries, each behind its length in four bytes and its checksum in eight: what a
/// killed agent leaves can be read up to its last whole piece, and nothing that was damaged is taken for a decision. A piece is
/// handed over when it is long enough or a second old.
struct JournalWriter {
    private static let pieceBytes = 256 << 10
    /// What a killed agent's journal lacks at most: the decisions of so long before its end are those that somebody will ask for.
    private static let pieceAge = Duration(seconds: 1)

    private var encoder = JournalEncoder()
    private var handedOver = 0
    private(set) var isFull = false
    /// When what was recorded is to be handed over, if nothing is recorded before.
    private(set) var flushAt = Instant.distantFuture
    private let bytesMax: Int
    private let output: JournalOutput

    init(_ output: JournalOutput, bytesMax: Int, head: JournalHead) {
        self.output = output
        self.bytesMax = bytesMax
        encoder.bytes.reserveCapacity(2 * Self.pieceBytes)
        write(JournalHead.magic + JournalPieces.piece(head.bytes))
    }

    /// Bytes that were written.
    var byteCount: Int { output.byteCount }

    mutating func record(_ event: Event, at time: Instant) {
        guard !isFull else { return }
        // An entry is written whole or not at all, and with it what the event led to.
        if handedOver + encoder.bytes.count >= bytesMax {
            isFull = true
            return flush()
        }
        if encoder.bytes.count >= Self.pieceBytes || flushAt <= time { flush() }
        if encoder.bytes.isEmpty { flushAt = time + Self.pieceAge }
        encoder.byte(1)
        encoder.word(UInt64(bitPattern: time.nanoseconds))
        encoder.encode(event)
    }

    mutating func record(_ command: Command, _ submission: Submission) {
        guard !isFull else { return }
        encoder.byte(2)
        encoder.byte(submission.rawValue)
        encoder.word(JournalEncoder.digest(command))
    }

    mutating func flush() {
        flushAt = .distantFuture
        guard !encoder.bytes.isEmpty else { return }
        let piece = JournalPieces.piece(encoder.bytes)
        encoder.bytes.removeAll(keepingCapacity: true)
        write(piece)
    }

    private mutating func write(_ piece: [UInt8]) {
        handedOver += piece.count
        // A disk that is full or cannot keep up ends the journal, not the agent.
        if !output.write(piece) { isFull = true }
    }
}

/// Takes pieces of a journal, in memory or on a thread that writes them to a file.
final class JournalOutput: Sendable {
    private let memory = Mutex<[UInt8]>([])
    private let pieces: Mailbox<[UInt8]>
    private let signal: WakeSignal
    private let isStopping = Atomic<Bool>(false)
    /// Whether the file takes no more.
    private let hasEnded = Atomic<Bool>(false)
    private let writtenBytes = Atomic<Int>(0)
    private let thread = Mutex<EngineThread?>(nil)
    private let descriptor: Int32
    private let ended: @Sendable (String) -> Void

    /// - Parameter ended: Told once why the journal ends before the agent does, if it does.
    init(path: String?, ended: @escaping @Sendable (String) -> Void = { _ in }) throws(OperatorError) {
        self.ended = ended
        do {
            signal = try WakeSignal()
            pieces = Mailbox(capacity: 16, waking: signal)
            guard let path else {
                descriptor = -1
                return
            }
            Self.keepPrevious(path)
            descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw SystemError(number: errno, doing: "create the journal \(path)") }
            let started = try EngineThread("hf-journal") { [self] in run() }
            thread.withLock { $0 = started }
        } catch { throw OperatorError("\(error)", at: path ?? "the journal") }
    }

    /// After a crash the journal that somebody wants is that of the agent before this one. Where it cannot be kept, because the
    /// folder is another's, it is written over.
    private static func keepPrevious(_ path: String) {
        var status = stat()
        guard unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size > 0 else { return }
        _ = unsafe rename(path, path + ".1")
    }

    /// Takes a piece; `false` when it could not be taken.
    func write(_ piece: [UInt8]) -> Bool {
        guard descriptor >= 0 else {
            memory.withLock { $0 += piece }
            writtenBytes.add(piece.count, ordering: .relaxed)
            return true
        }
        guard !hasEnded.load(ordering: .acquiring) else { return false }
        if pieces.post(piece) == .accepted { return true }
        end("the disk does not keep up")
        return false
    }

    /// What was written to memory.
    var contents: [UInt8] { memory.withLock { $0 } }

    /// Bytes that were written.
    var byteCount: Int { writtenBytes.load(ordering: .relaxed) }

    func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        thread.withLock { $0.take() }?.join()
        if descriptor >= 0 { close(descriptor) }
    }

    private func end(_ why: String) {
        guard !hasEnded.exchange(true, ordering: .acquiringAndReleasing) else { return }
        ended(why)
    }

    private func run() {
        var batch: [[UInt8]] = []
        while true {
            pieces.drain(into: &batch)
            for piece in batch {
                guard !writeAll(piece, to: descriptor) else {
                    writtenBytes.add(piece.count, ordering: .relaxed)
                    continue
                }
                let reason = unsafe String(cString: strerror(errno))
                // What was written of the piece is none.
                _ = ftruncate(descriptor, byteCount)
                return end(reason)
            }
            guard batch.isEmpty else { continue }
            if isStopping.load(ordering: .sequentiallyConsistent) { return }
            signal.prepareToSleep()
            if pieces.isEmpty, !isStopping.load(ordering: .sequentiallyConsistent) { signal.wait(atMost: nil) }
            signal.awake()
        }
    }
}
