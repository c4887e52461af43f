// Every input of the decisions, written down: each event with its time, and what became of each command. The same inputs
// give a fresh manager the same commands, byte for byte; that is what makes a replay worth believing.

import Foundation
import KVModel
import KVSystem
import KVTiering
import Synchronization

/// Where a journal goes.
public struct JournalSettings: Sendable {
    /// The file, made anew. Nil: memory, for tests.
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
/// killed agent leaves can be read up to its last whole piece, and nothing that was damaged is taken for a decision.
struct JournalWriter {
    private static let pieceBytes = 256 << 10

    private var encoder = JournalEncoder()
    private var written = 0
    private(set) var isFull = false
    private let bytesMax: Int
    private let output: JournalOutput

    init(_ output: JournalOutput, bytesMax: Int, head: JournalHead) {
        self.output = output
        self.bytesMax = bytesMax
        encoder.bytes.reserveCapacity(2 * Self.pieceBytes)
        write(JournalHead.magic + JournalPieces.piece(head.bytes))
    }

    /// Bytes so far.
    var byteCount: Int { written + encoder.bytes.count }

    mutating func record(_ event: Event, at time: Instant) {
        guard !isFull else { return }
        // An entry is written whole or not at all, and with it what the event led to.
        if byteCount >= bytesMax {
            isFull = true
            return flush()
        }
        encoder.byte(1)
        encoder.word(UInt64(bitPattern: time.nanoseconds))
        encoder.encode(event)
        if encoder.bytes.count >= Self.pieceBytes { flush() }
    }

    mutating func record(_ command: Command, _ submission: Submission) {
        guard !isFull else { return }
        encoder.byte(2)
        encoder.byte(submission.rawValue)
        encoder.word(JournalEncoder.digest(command))
    }

    mutating func flush() {
        guard !encoder.bytes.isEmpty else { return }
        let piece = JournalPieces.piece(encoder.bytes)
        encoder.bytes.removeAll(keepingCapacity: true)
        write(piece)
    }

    private mutating func write(_ piece: [UInt8]) {
        written += piece.count
        // A disk that cannot keep up ends the journal, not the agent.
        if !output.write(piece) { isFull = true }
    }
}

/// Takes pieces of a journal, in memory or on a thread that writes them to a file.
final class JournalOutput: Sendable {
    private let memory = Mutex<[UInt8]>([])
    private let pieces: Mailbox<[UInt8]>
    private let signal: WakeSignal
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<EngineThread?>(nil)
    private let descriptor: Int32

    init(path: String?) throws(OperatorError) {
        do {
            signal = try WakeSignal()
            pieces = Mailbox(capacity: 16, waking: signal)
            guard let path else {
                descriptor = -1
                return
            }
            descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw SystemError(number: errno, doing: "create the journal \(path)") }
            let started = try EngineThread("hf-journal") { [self] in run() }
            thread.withLock { $0 = started }
        } catch { throw OperatorError("\(error)", at: path ?? "the journal") }
    }

    /// Takes a piece; `false` when it could not be taken.
    func write(_ piece: [UInt8]) -> Bool {
        guard descriptor >= 0 else {
            memory.withLock { $0 += piece }
            return true
        }
        return pieces.post(piece) == .accepted
    }

    /// What was written to memory.
    var contents: [UInt8] { memory.withLock { $0 } }

    func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        thread.withLock { $0.take() }?.join()
        if descriptor >= 0 { close(descriptor) }
    }

    private func run() {
        var batch: [[UInt8]] = []
        while true {
            pieces.drain(into: &batch)
            for piece in batch {
                var start = 0
                while start < piece.count {
                    let count = unsafe piece.withUnsafeBytes { bytes in
                        unsafe Glibc.write(descriptor, bytes.baseAddress! + start, piece.count - start)
                    }
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { return }
                    start += count
                }
            }
            guard batch.isEmpty else { continue }
            if isStopping.load(ordering: .sequentiallyConsistent) { return }
            signal.prepareToSleep()
            if pieces.isEmpty, !isStopping.load(ordering: .sequentiallyConsistent) { signal.wait(atMost: nil) }
            signal.awake()
        }
    }
}
