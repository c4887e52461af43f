// A live node of a lock-step replay: an agent of its own process and engines at its door. Every byte of every block that
// the agent brings is compared with what its name says.

import KVAgent
import KVModel
import KVReport
import KVSimulation
import KVSystem
import KVTiering

/// What live nodes found out beside the ledger.
struct LiveCounts {
    /// Bytes that came back and were compared.
    var bytesCompared = 0
    /// Blocks whose bytes were not their name's. Must stay 0.
    var wrongBlocks = 0
    /// Bytes that engines offered.
    var bytesOffered = 0
    /// Loads that came whole.
    var loads: [LiveLoad] = []
}

/// One load that came whole.
struct LiveLoad {
    /// Blocks by the tier they came from.
    var found: EngineFound
    var seconds: Double
}

/// A live node.
final class LiveNode: LockStepNode {
    private(set) var counts = LiveCounts()
    let agent: AgentProcess
    private let makeEngine: () throws -> LiveEngine
    private var engines: [LiveEngine]
    private let blockBytes: Int
    /// What is to die in the middle of the next load.
    private let takeKilling: () -> LiveKilling?
    private let killStore: () -> Void
    /// What the agent had booked when it was asked last.
    private var booked = Ledger()
    private var found = EngineFound()
    /// Whether engines read and write their blocks in slots of the agent's device; then what they hold of the request in hand.
    private let ownsDevice: Bool
    private var lease: EngineLease?
    private var reservation: EngineReservation?

    /// - Parameter rows: Blocks of the longest prompt.
    init(
        _ agent: AgentProcess, engineCount: Int, blockTokens: Int, blockBytes: Int, rows: Int, ownsDevice: Bool,
        takeKilling: @escaping () -> LiveKilling?, killStore: @escaping () -> Void
    ) throws {
        self.agent = agent
        self.blockBytes = blockBytes
        self.takeKilling = takeKilling
        self.killStore = killStore
        self.ownsDevice = ownsDevice
        makeEngine = {
            try LiveEngine(
                socket: agent.socket, blockTokens: blockTokens, blockBytes: blockBytes, rows: rows,
                ownership: ownsDevice ? .full : .host)
        }
        engines = try (0..<engineCount).map { [makeEngine] _ in try makeEngine() }
    }

    func lookUp(_ request: LockStepRequest) throws -> Int32 {
        let engine = engines[request.engine]
        try agent.rest(at: request.time)
        let answer = LiveAnswer<EngineFound>()
        engine.request = engine.client.lookUp(
            request.path.map(LiveBlocks.name), promptTokens: request.promptTokens, engineBlocks: request.engineBlocks,
            session: UInt64(UInt32(bitPattern: request.session)) + 1, turn: request.turn
        ) { answer.set($0) }
        found = try answer.wait("an answer to a look-up")
        try agent.rest(at: request.time)
        return max(request.engineBlocks, Int32(clamping: found.hitBlocks))
    }

    func load(_ request: LockStepRequest, upTo end: Int32) throws -> LockStepLoad {
        let engine = engines[request.engine]
        if !ownsDevice { engine.clear(Int(request.engineBlocks)..<Int(end)) }
        let begin = MonotonicClock.now
        let finish = ownsDevice ? beginTake(request, end, engine) : beginLoad(request, end, engine)
        if let killing = takeKilling() {
            switch killing.what {
            case .store: killStore()
            case .agent: agent.kill()
            case .engine:
                engine.client.abandon()
                engines[request.engine] = try makeEngine()
                return LockStepLoad(end: request.engineBlocks, engineDied: true)
            }
        }
        let loaded = try finish()
        let seconds = (MonotonicClock.now - begin).seconds
        for position in loaded.blocks {
            counts.bytesCompared += blockBytes
            let name = LiveBlocks.name(request.path[request.path.startIndex + Int(position)])
            if !loaded.holds(name, position) { counts.wrongBlocks += 1 }
        }
        if loaded.blocks.upperBound == end { counts.loads.append(LiveLoad(found: found, seconds: seconds)) }
        if !agent.isRunning {
            try agent.start()
            booked = Ledger()
            for engine in engines { try engine.waitUntilOpen() }
        }
        try agent.rest(at: request.time)
        return LockStepLoad(end: max(loaded.blocks.upperBound, request.engineBlocks), seconds: seconds)
    }

    /// What a load brought, and whether a block of it is its name's.
    private struct Loaded {
        var blocks: Range<Int32>
        var holds: (ObjectName, Int32) -> Bool
    }

    /// Asks for blocks in rows of the engine's own, which are cleared.
    private func beginLoad(_ request: LockStepRequest, _ end: Int32, _ engine: LiveEngine) -> () throws -> Loaded {
        let rows = Int(request.engineBlocks)..<Int(end)
        let answer = LiveAnswer<EngineLoaded>()
        engine.client.load(first: request.engineBlocks, places: engine.places(rows), request: engine.request) {
            answer.set($0)
        }
        return {
            let loaded = try answer.wait("the end of a load")
            return Loaded(blocks: loaded.first..<max(loaded.first, loaded.end)) { engine.holds($0, row: Int($1)) }
        }
    }

    /// Asks for blocks where they lie on the device. They stay there until the request ends.
    private func beginTake(_ request: LockStepRequest, _ end: Int32, _ engine: LiveEngine) -> () throws -> Loaded {
        let answer = LiveAnswer<EngineLease?>()
        engine.client.take(first: 0, count: Int(end), request: engine.request) { answer.set($0) }
        return { [self] in
            lease = try answer.wait("the end of a take")
            guard let lease else { return Loaded(blocks: 0..<0) { _, _ in false } }
            let first = lease.taken.first
            return Loaded(blocks: first..<lease.taken.end) { name, position in
                unsafe lease.read(Int(position - first)) { unsafe LiveBlocks.are($0, of: name) } ?? false
            }
        }
    }

    /// The engine writes what it did not find into slots of the device.
    private func commit(_ request: LockStepRequest) throws {
        let engine = engines[request.engine]
        let left = request.path.count - Int(request.loadedBlocks)
        guard left > 0 else { return }
        let granted = LiveAnswer<EngineReservation?>()
        engine.client.reserve(left) { granted.set($0) }
        reservation = try granted.wait("an answer to a reservation")
        try agent.rest(at: request.time)
        guard let reservation else { return }
        let count = reservation.reserved.slots.count
        let names = request.path.prefix(Int(request.loadedBlocks) + count).map(LiveBlocks.name)
        for index in 0..<count {
            let name = names[Int(request.loadedBlocks) + index]
            _ = unsafe reservation.fill(index) { unsafe LiveBlocks.fill($0, as: name) }
        }
        counts.bytesOffered += count * blockBytes
        let answer = LiveAnswer<EngineSaved>()
        reservation.commit(0..<count, as: names, request: engine.request) { answer.set($0) }
        _ = try answer.wait("the end of a commit")
        try agent.rest(at: request.time)
    }

    func save(_ request: LockStepRequest) throws {
        if ownsDevice { return try commit(request) }
        guard !request.path.isEmpty else { return }
        let engine = engines[request.engine]
        let names = request.path.map(LiveBlocks.name)
        for (row, name) in names.enumerated() { engine.fill(name, row: row) }
        counts.bytesOffered += names.count * blockBytes
        let answer = LiveAnswer<EngineSaved>()
        engine.client.save(names, first: 0, places: engine.places(0..<names.count), request: engine.request) {
            answer.set($0)
        }
        _ = try answer.wait("the end of a save")
        try agent.rest(at: request.time)
    }

    func finish(_ request: LockStepRequest) throws -> Ledger {
        let engine = engines[request.engine]
        engine.client.finished(EngineRequestEnd(ticket: engine.request, reason: request.reason))
        reservation?.release()
        (lease, reservation) = (nil, nil)
        // Frames are heard in their order: what this answers was heard after the end.
        let heard = LiveAnswer<Bool>()
        engine.client.statistics { heard.set(!$0.isEmpty) }
        _ = try heard.wait("an agent's numbers")
        guard let status = try agent.rest(at: request.time) else { return Ledger() }
        let before = booked
        booked = Ledger()
        for tokenClass in TokenClass.allCases { booked.add(status.ledger["\(tokenClass)"] ?? 0, to: tokenClass) }
        return booked - before
    }

    /// Lets engines go in order.
    func end() { for engine in engines { engine.client.close(within: Duration(seconds: 2)) } }
}
