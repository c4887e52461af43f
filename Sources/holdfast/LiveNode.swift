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
    /// Loads that came whole, with the tier that most of their blocks came from.
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

    /// - Parameter rows: Blocks of the longest prompt.
    init(
        _ agent: AgentProcess, engineCount: Int, blockTokens: Int, blockBytes: Int, rows: Int,
        takeKilling: @escaping () -> LiveKilling?, killStore: @escaping () -> Void
    ) throws {
        self.agent = agent
        self.blockBytes = blockBytes
        self.takeKilling = takeKilling
        self.killStore = killStore
        makeEngine = {
            try LiveEngine(socket: agent.socket, blockTokens: blockTokens, blockBytes: blockBytes, rows: rows)
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
        let rows = Int(request.engineBlocks)..<Int(end)
        engine.clear(rows)
        let answer = LiveAnswer<EngineLoaded>()
        let begin = MonotonicClock.now
        engine.client.load(first: request.engineBlocks, places: engine.places(rows), request: engine.request) {
            answer.set($0)
        }
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
        let loaded = try answer.wait("the end of a load")
        let seconds = (MonotonicClock.now - begin).seconds
        for position in Int(loaded.first)..<Int(max(loaded.first, loaded.end)) {
            counts.bytesCompared += blockBytes
            let name = LiveBlocks.name(request.path[request.path.startIndex + position])
            if !engine.holds(name, row: position) { counts.wrongBlocks += 1 }
        }
        if loaded.end == end { counts.loads.append(LiveLoad(found: found, seconds: seconds)) }
        if !agent.isRunning {
            try agent.start()
            booked = Ledger()
            for engine in engines { try engine.waitUntilOpen() }
        }
        try agent.rest(at: request.time)
        return LockStepLoad(end: max(loaded.end, request.engineBlocks), seconds: seconds)
    }

    func save(_ request: LockStepRequest) throws {
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
