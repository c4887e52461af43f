// An engine of a paced live replay: several requests under way, rows of memory lent to them, and every byte of every block that
// a load brings compared. One thread drives it; what its agent answers comes to that thread through an inbox.

import Foundation
import KVAgent
import KVModel
import KVReport
import KVSimulation
import KVSystem
import Synchronization

/// What an agent answered, with the engine of which life was asked.
enum PacedEvent: Sendable {
    case found(Int, EngineFound, at: Instant)
    case loaded(Int, EngineLoaded, at: Instant)
    case saved(Int, at: Instant)
    /// Blocks of a request lie in slots of the device, its engine's to read; nil: none do.
    case taken(Int, EngineLease?, at: Instant)
    /// Slots of the device are an engine's to write into; nil: none are.
    case reserved(Int, EngineReservation?)
}

/// Answers on their way to the driving thread.
final class PacedInbox: Sendable {
    struct Entry: Sendable {
        var engine: ObjectIdentifier
        var life: Int
        var event: PacedEvent
    }

    private let entries = Mutex<[Entry]>([])
    private let signal = DispatchSemaphore(value: 0)

    func post(_ entry: Entry) {
        entries.withLock { $0.append(entry) }
        signal.signal()
    }

    /// Everything that has come; waits for the first no longer than this.
    func take(within limit: KVModel.Duration) -> [Entry] {
        if limit > .zero { _ = signal.wait(timeout: .now() + limit.seconds) }
        return entries.withLock { entries in
            defer { entries = [] }
            return entries
        }
    }
}

/// An engine with several requests under way.
final class PacedEngine {
    /// A request at it.
    struct Open {
        var request: LockStepRequest
        var ticket: EngineTicket
        var asked: Instant
        var found = EngineFound()
        /// The rows of the load or save under way, and what waits for rows.
        var rows: Range<Int>?
        var loadEnd: Int32?
        var isSaved = false
        var isEnded = false
        var waitsSince: Instant?
        /// Of an engine without memory of its own: what it holds of the device, and how far its blocks were taken.
        var lease: EngineLease?
        var reservation: EngineReservation?
        var takenEnd: Int32 = 0
    }

    private let make: () throws -> LiveEngine
    private let rowCount: Int
    private let inbox: PacedInbox
    /// Whether blocks lie in slots of the agent's device, not in rows of the engine's own.
    private let ownsDevice: Bool
    private var engine: LiveEngine
    private var pool: RowPool
    private(set) var life = 0
    private(set) var open: [Int: Open] = [:]
    /// Requests that wait for rows, in order.
    private var queue: [Int] = []
    var counts = LiveCounts()
    /// Loads and saves that waited for room in the engine's memory for longer than `PacedReplay.lateness`.
    private(set) var delayed = 0
    /// Blocks that no slot of the device was free for.
    private(set) var unplaced = 0

    init(rowCount: Int, inbox: PacedInbox, ownsDevice: Bool, make: @escaping () throws -> LiveEngine) throws {
        (self.rowCount, self.inbox, self.ownsDevice, self.make) = (rowCount, inbox, ownsDevice, make)
        engine = try make()
        pool = RowPool(count: rowCount)
    }

    var isQuiet: Bool { open.isEmpty }

    /// Leaves an answer, and when it came, in the inbox, as one to this life of the engine.
    private func poster<Answer>(
        _ event: @escaping @Sendable (Answer, Instant) -> PacedEvent
    ) -> @Sendable (Answer) -> Void {
        let (inbox, life, name) = (inbox, life, ObjectIdentifier(self))
        return { inbox.post(PacedInbox.Entry(engine: name, life: life, event: event($0, MonotonicClock.now))) }
    }

    func lookUp(_ request: LockStepRequest) {
        let index = request.index
        var entry = Open(request: request, ticket: 0, asked: MonotonicClock.now)
        entry.ticket = engine.client.lookUp(
            request.path.map(LiveBlocks.name), promptTokens: request.promptTokens, engineBlocks: request.engineBlocks,
            session: UInt64(UInt32(bitPattern: request.session)) + 1, turn: request.turn,
            done: poster { .found(index, $0, at: $1) })
        open[index] = entry
    }

    /// Brings blocks from `request.engineBlocks` up to `end`, as soon as there is room.
    func load(_ request: LockStepRequest, end: Int32) {
        open[request.index]?.request = request
        open[request.index]?.loadEnd = end
        open[request.index]?.asked = MonotonicClock.now
        if ownsDevice { beginTake(request.index, end) } else { enqueue(request.index) }
    }

    func save(_ request: LockStepRequest) {
        if request.path.isEmpty {
            open[request.index]?.isSaved = true
        } else if ownsDevice {
            beginReserve(request)
        } else {
            enqueue(request.index)
        }
    }

    func end(_ request: LockStepRequest) {
        open[request.index]?.isEnded = true
        finishIfDone(request.index)
    }

    private func enqueue(_ index: Int) {
        open[index]?.waitsSince = MonotonicClock.now
        queue.append(index)
        serveQueue()
    }

    private func serveQueue() {
        while let index = queue.first, let entry = open[index] {
            let count =
                entry.loadEnd.map { Int($0 - entry.request.engineBlocks) } ?? entry.request.path.count
            guard let rows = pool.take(count) else { return }
            queue.removeFirst()
            let waited = (MonotonicClock.now - (entry.waitsSince ?? MonotonicClock.now)).seconds
            if waited > PacedReplay.lateness { delayed += 1 }
            open[index]?.rows = rows
            if let end = entry.loadEnd { beginLoad(index, entry, rows, end) } else { beginSave(index, entry, rows) }
        }
    }

    private func beginLoad(_ index: Int, _ entry: Open, _ rows: Range<Int>, _ end: Int32) {
        engine.clear(rows)
        engine.client.load(
            first: entry.request.engineBlocks, places: engine.places(rows), request: entry.ticket,
            done: poster { .loaded(index, $0, at: $1) })
    }

    private func beginSave(_ index: Int, _ entry: Open, _ rows: Range<Int>) {
        let names = entry.request.path.map(LiveBlocks.name)
        for (place, block) in names.enumerated() { engine.fill(block, row: rows.lowerBound + place) }
        counts.bytesOffered += names.count * engine.blockBytes
        engine.client.save(
            names, first: 0, places: engine.places(rows), request: entry.ticket,
            done: poster { _, time in .saved(index, at: time) })
    }

    /// Asks for blocks where they lie on the device. They stay there until the request ends.
    private func beginTake(_ index: Int, _ end: Int32) {
        guard let entry = open[index] else { return }
        engine.client.take(
            first: 0, count: Int(end), request: entry.ticket, done: poster { .taken(index, $0, at: $1) })
    }

    /// Asks for slots of the device for what was computed.
    private func beginReserve(_ request: LockStepRequest) {
        let index = request.index
        let left = request.path.count - Int(open[index]?.takenEnd ?? 0)
        guard left > 0 else {
            open[index]?.isSaved = true
            return
        }
        engine.client.reserve(left, done: poster { reservation, _ in .reserved(index, reservation) })
    }

    /// Writes blocks into the slots that were granted, and has them kept.
    private func commit(_ index: Int, _ reservation: EngineReservation?) {
        guard let entry = open[index] else { return }
        let (first, count) = (Int(entry.takenEnd), reservation?.reserved.slots.count ?? 0)
        unplaced += entry.request.path.count - first - count
        guard let reservation, count > 0 else {
            open[index]?.isSaved = true
            return finishIfDone(index)
        }
        open[index]?.reservation = reservation
        let names = entry.request.path.prefix(first + count).map(LiveBlocks.name)
        for offset in 0..<count {
            let block = names[first + offset]
            _ = unsafe reservation.fill(offset) { unsafe LiveBlocks.fill($0, as: block) }
        }
        counts.bytesOffered += count * engine.blockBytes
        reservation.commit(
            0..<count, as: names, request: entry.ticket, done: poster { _, time in .saved(index, at: time) })
    }

    /// Compares what came where it lies; one past the last block that was this engine's while it was read.
    private func took(_ index: Int, _ lease: EngineLease?) -> Int32 {
        guard let entry = open[index], let lease else { return 0 }
        var end = lease.taken.first
        while end < lease.taken.end {
            let name = LiveBlocks.name(entry.request.path[entry.request.path.startIndex + Int(end)])
            let holds = unsafe lease.read(Int(end - lease.taken.first)) { unsafe LiveBlocks.are($0, of: name) }
            guard let holds else { break }
            counts.bytesCompared += engine.blockBytes
            if !holds { counts.wrongBlocks += 1 }
            end += 1
        }
        open[index]?.lease = lease
        open[index]?.takenEnd = end
        return end
    }

    /// Takes an answer of this life; what the replay is to hear of it.
    func take(_ event: PacedEvent) -> PacedAnswer? {
        switch event {
        case .found(let index, let found, let time):
            guard let entry = open[index] else { return nil }
            open[index]?.found = found
            let blocks = max(entry.request.engineBlocks, Int32(clamping: found.hitBlocks))
            return .found(request: index, blocks: blocks, seconds: (time - entry.asked).seconds)
        case .loaded(let index, let loaded, let time):
            guard let entry = open[index], let rows = entry.rows, let wanted = entry.loadEnd else { return nil }
            compare(entry, loaded, rows)
            let seconds = (time - entry.asked).seconds
            if loaded.end == wanted { counts.loads.append(LiveLoad(found: entry.found, seconds: seconds)) }
            release(index, rows)
            open[index]?.loadEnd = nil
            let end = max(loaded.end, entry.request.engineBlocks)
            return .loaded(request: index, end: end, seconds: seconds)
        case .taken(let index, let lease, let time):
            guard let entry = open[index], entry.loadEnd != nil else { return nil }
            let seconds = (time - entry.asked).seconds
            open[index]?.loadEnd = nil
            return .loaded(request: index, end: took(index, lease), seconds: seconds)
        case .reserved(let index, let reservation):
            commit(index, reservation)
            return nil
        case .saved(let index, _):
            guard open[index] != nil else { return nil }
            if let rows = open[index]?.rows { release(index, rows) }
            open[index]?.isSaved = true
            finishIfDone(index)
            return nil
        }
    }

    private func compare(_ entry: Open, _ loaded: EngineLoaded, _ rows: Range<Int>) {
        for position in Int(loaded.first)..<Int(max(loaded.first, loaded.end)) {
            counts.bytesCompared += engine.blockBytes
            let name = LiveBlocks.name(entry.request.path[entry.request.path.startIndex + position])
            let row = rows.lowerBound + position - Int(entry.request.engineBlocks)
            if !engine.holds(name, row: row) { counts.wrongBlocks += 1 }
        }
    }

    private func release(_ index: Int, _ rows: Range<Int>) {
        open[index]?.rows = nil
        pool.giveBack(rows)
        serveQueue()
    }

    /// The prompt is booked when its turn is over and its blocks have been taken.
    private func finishIfDone(_ index: Int) {
        guard let entry = open[index], entry.isSaved, entry.isEnded else { return }
        engine.client.finished(EngineRequestEnd(ticket: entry.ticket, reason: entry.request.reason))
        entry.reservation?.release()
        open[index] = nil
    }

    /// Waits until the agent has heard everything that was said so far.
    func waitUntilHeard() throws {
        let heard = LiveAnswer<Bool>()
        engine.client.statistics { heard.set(!$0.isEmpty) }
        _ = try heard.wait("an agent's numbers")
    }

    func waitUntilOpen() throws { try engine.waitUntilOpen() }

    /// Dies without a word, and another takes its place, with nothing.
    func die() throws {
        life += 1
        engine.client.abandon()
        open = [:]
        queue = []
        engine = try make()
        pool = RowPool(count: rowCount)
    }

    func close() { engine.client.close(within: KVModel.Duration(seconds: 2)) }
}
