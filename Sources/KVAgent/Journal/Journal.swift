// A journal as it was written: its inputs go to fresh decisions once more, and whatever these decide is compared.

import Foundation
import KVModel
import KVTiering

/// A journal as it was written.
public struct Journal {
    /// By which settings its decisions were made.
    public let head: JournalHead
    private var pieces: JournalPieces
    private var decoder = JournalDecoder([], from: 0)

    /// Reads a journal from its bytes.
    public init(_ bytes: [UInt8]) throws(OperatorError) { try self.init(Data(bytes)) }

    /// Reads a journal from its file, a piece at a time.
    public init(path: String) throws(OperatorError) {
        let file: Data
        do { file = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped) } catch {
            throw OperatorError("it cannot be read: \(error.localizedDescription)")
        }
        try self.init(file)
    }

    private init(_ file: Data) throws(OperatorError) {
        let magic = JournalHead.magic
        guard file.starts(with: magic) else {
            let start = file.prefix(magic.count)
            guard start.count == magic.count, start.starts(with: magic.dropLast(2)) else {
                throw OperatorError("it is not a journal of an agent")
            }
            let versions = [start.suffix(2), Data(magic.suffix(2))].map { String(decoding: $0, as: UTF8.self) }
            throw OperatorError("it is a journal of version \(versions[0]), and this program reads \(versions[1])")
        }
        pieces = JournalPieces(file, from: magic.count)
        guard let bytes = try pieces.next() else {
            throw OperatorError("it is cut short in its head: nothing can be read")
        }
        do { head = try JSONDecoder().decode(JournalHead.self, from: Data(bytes)) } catch {
            throw OperatorError("its head is not that of this program's journals")
        }
    }

    /// What a fresh manager made of the journal's inputs.
    public struct Verdict: Equatable, Sendable {
        /// Events given to it.
        public var events = 0
        /// Commands that came.
        public var commands = 0
        /// Both, by their kinds.
        public var eventKinds: [String: Int] = [:]
        /// See `eventKinds`.
        public var commandKinds: [String: Int] = [:]
        /// Commands that the world had no room for.
        public var refused = 0
        /// From the first event to the last.
        public var span = Duration.zero
        /// Whether the file ends in the middle of something: of a killed agent, or of a copy that was cut.
        public var isCutShort = false
        /// The first thing that differed, in words; nil: nothing did.
        public var difference: String?
    }

    /// Gives all inputs to a manager made with the configuration of the one that was recorded (`head`).
    ///
    /// - Throws: Where the journal is damaged.
    public mutating func replay(into manager: inout TieringManager) throws(OperatorError) -> Verdict {
        var verdict = Verdict()
        var first: Instant?
        while let kind = try nextKind() {
            guard kind == 1 else {
                verdict.difference = "event \(verdict.events): a command was recorded that does not come now"
                break
            }
            _ = decoder.optionalByte()
            let time = Instant(nanoseconds: Int64(bitPattern: try decoder.word()))
            guard time >= manager.time else {
                throw OperatorError("event \(verdict.events) comes before the one in front of it")
            }
            let event = try decoder.event()
            verdict.events += 1
            verdict.eventKinds[event.kind, default: 0] += 1
            first = first ?? time
            verdict.span = time - (first ?? time)
            manager.handle(event, at: time)
            guard try compareCommands(of: &manager, &verdict) else { break }
        }
        verdict.isCutShort = pieces.isCutShort
        return verdict
    }

    /// Compares what an event led to. False: there is nothing more to compare.
    private mutating func compareCommands(
        of manager: inout TieringManager, _ verdict: inout Verdict
    ) throws(OperatorError) -> Bool {
        while let command = manager.nextCommand() {
            guard try nextKind() == 2 else {
                // A journal that was cut at its end lacks the last event's commands.
                guard decoder.peek() != nil else { return false }
                verdict.difference = "event \(verdict.events): \(command) was not recorded"
                return false
            }
            _ = decoder.optionalByte()
            let submission = try decoder.byte()
            let digest = try decoder.word()
            guard digest == JournalEncoder.digest(command) else {
                verdict.difference = "event \(verdict.events): another command than \(command) was recorded"
                return false
            }
            verdict.commands += 1
            verdict.commandKinds[command.kind, default: 0] += 1
            if submission == Submission.full.rawValue {
                verdict.refused += 1
                manager.refused(command)
            }
        }
        return true
    }

    /// What comes next: 1 for an event, 2 for a command.
    private mutating func nextKind() throws(OperatorError) -> UInt8? {
        while decoder.peek() == nil {
            guard let piece = try pieces.next() else { return nil }
            decoder = JournalDecoder(piece, from: 0)
        }
        return decoder.peek()
    }
}

extension Event {
    fileprivate var kind: String {
        switch self {
        case .arrived: "arrived"
        case .load: "load"
        case .computed: "computed"
        case .ended: "ended"
        case .touched: "touched"
        case .cancelled: "cancelled"
        case .transferEnded: "transfer ended"
        case .storeAnswered: "store answered"
        case .storeWants: "store wants"
        case .storeChanged: "store changed"
        case .storeForgotten: "store forgotten"
        case .pin: "pin"
        case .unpin: "unpin"
        case .reserve: "reserve"
        case .unreserve: "unreserve"
        case .released: "released"
        case .deadline: "deadline"
        case .deviceLost: "device lost"
        }
    }
}

extension Command {
    fileprivate var kind: String {
        switch self {
        case .answer: "answer"
        case .loading: "loading"
        case .ready: "ready"
        case .transfer(let order): order.kind.word
        case .cancel: "cancel"
        case .askStore: "ask store"
        case .offer: "offer"
        case .withdraw: "withdraw"
        case .pinned: "pinned"
        case .reserved: "reserved"
        }
    }
}

extension TransferKind {
    fileprivate var word: String {
        switch self {
        case .load: "move for a load"
        case .save: "move for a save"
        case .stage: "move for a waiting request"
        case .prefetch: "move for a prediction"
        case .demote: "move to local flash"
        case .spill: "move to the store"
        }
    }
}
