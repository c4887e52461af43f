// Clients and engines of a simulation: conversations that grow, branch off each other, roam between nodes and are given
// up; engines with memory of their own that load, compute and generate.

import KVModel
import KVTiering

/// What a request does next.
enum SimulatedStep {
    /// The engine has room for it.
    case load
    /// Its prompt is computed.
    case computed
    /// Its answer is out.
    case ended
    /// Its client is gone.
    case cancelled
}

/// A request of a simulation.
struct SimulatedRequest {
    enum State { case waiting, loading, computing, generating, over }

    var state = State.waiting
    var node: Int
    var life: UInt32
    var engine: Int
    var number: RequestNumber
    var session: Int
    var turn: Int32
    var path: [BlockNumber]
    var tokens: Int32
    /// Whether the node had no room for it.
    var isRefused = false
    var arrived: Int64
    var isAnswered = false
    /// When it must have been answered.
    var answerDue: Int64
    /// When its load must be over, once it began.
    var readyDue = Int64.max
    var loadBegan: Int64 = 0
    var engineBlocks: Int32 = 0
    var computeWait: Int64 = 0
    /// Whether the engine reads its blocks where they lie, and the slots that it reads now.
    var isLease = false
    var lentSlots: [SlotIndex] = []
    var plan: LoadPlan?
    /// Slots of the device that its engine reads, and those that it may write into.
    var lent: [SlotIndex] = []
    /// See `lent`.
    var reserved: [SlotIndex] = []
    /// Leading blocks that it found on the device.
    var found: Int32 = 0
    /// The prompt's leading blocks that had been computed before anywhere.
    var knownBlocks: Int32 = 0
}

/// A conversation of a simulation.
struct SimulatedSession {
    var path: [BlockNumber] = []
    var turn: Int32 = 0
    var node = 0
    var isOpen = false
}

/// The clients: who asks for what.
struct SimulatedClients {
    var random: RandomSource
    var sessions: [SimulatedSession]
    private var prefixes: [[BlockNumber]] = []
    private(set) var blockCount: BlockNumber = 0
    private let shape: SimulationShape

    init(_ shape: SimulationShape) {
        self.shape = shape
        random = RandomSource(seed: shape.seed &+ 0xC11E)
        sessions = Array(repeating: SimulatedSession(), count: shape.sessions)
        for _ in 0..<3 { prefixes.append(fresh(1 + random.below(5))) }
    }

    private mutating func fresh(_ count: Int) -> [BlockNumber] {
        defer { blockCount += BlockNumber(count) }
        return (0..<count).map { blockCount + BlockNumber($0) }
    }

    /// A conversation that is not waiting for an answer goes on; nil when all wait.
    mutating func next() -> Int? {
        let start = random.below(sessions.count)
        for offset in sessions.indices {
            let index = (start + offset) % sessions.count
            if sessions[index].isOpen { continue }
            goOn(index)
            return index
        }
        return nil
    }

    private mutating func goOn(_ index: Int) {
        let room = SimulationShape.chainMax - sessions[index].path.count
        if sessions[index].path.isEmpty || room < 4 || random.below(12) == 0 {
            sessions[index].turn = 0
            let other = sessions[random.below(sessions.count)].path
            if random.below(4) == 0, other.count > 1, other.count < SimulationShape.chainMax - 4 {
                // It branches off another conversation.
                sessions[index].path = Array(other.prefix(1 + random.below(other.count)))
            } else {
                sessions[index].path = prefixes[random.below(prefixes.count)]
            }
            sessions[index].path += fresh(1 + random.below(3))
        } else {
            sessions[index].turn += 1
            // Now and then the same prompt again.
            if random.below(8) > 0 { sessions[index].path += fresh(1 + random.below(3)) }
        }
        if random.uniform() < shape.roamShare || sessions[index].turn == 0 {
            sessions[index].node = random.below(shape.nodes)
        }
        sessions[index].isOpen = true
    }
}

/// One engine's own memory.
struct SimulatedEngine {
    var cache: PrefixCache

    init(blocks: Int) { cache = PrefixCache(capacity: blocks) }

    /// Leading blocks of a path that are in it.
    func run(_ path: [BlockNumber]) -> Int { cache.filledRun(path.span) }

    /// A prompt was computed in it and its request let go.
    mutating func keep(_ path: [BlockNumber]) {
        cache.acquire(path.span)
        cache.fillLeading(path.span, path.count)
        cache.release(path.span)
    }
}
