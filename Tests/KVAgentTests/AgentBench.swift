// A whole agent for tests: real memory, a real drive on a file, a real store over TCP in this process, and engines that
// make each block's bytes from its name and check every byte they get back.

import Foundation
import KVAgent
import KVFlash
import KVModel
import KVStore
import KVSystem
import KVTiering
import KVTransport
import Logging
import Synchronization
import Testing

let blockBytes = 64 << 10
let waitLimit = KVModel.Duration(seconds: 20)

func quietLogger() -> Logger {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    return logger
}

/// A folder that goes with its owner.
final class Folder: Sendable {
    let url: URL
    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("hf-agent-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(at: url) }
    func path(_ name: String) -> String { url.appendingPathComponent(name).path }
}

/// Paths much faster than computing.
let fastLinks = LinkView(
    dram: LinkState(bandwidth: 1e10), nvme: LinkState(bandwidth: 1e9), flash: LinkState(bandwidth: 1e9))

/// Decisions in small: 16-token blocks of 64 KiB, LRU everywhere, every hit loaded.
func smallTiering(
    dramBlocks: Int = 64, nvme: Bool = false, hasStore: Bool = false, spill: SpillRule = .onSave,
    policy: PolicyName = .lru, isSubscribed: Bool = false, prefetch: PrefetchConfiguration? = nil
) -> TieringConfiguration {
    TieringConfiguration(
        blockTokens: 16, blockBytes: blockBytes, ownership: .engine,
        dram: TierConfiguration(bytes: dramBlocks * blockBytes, stagingShare: 0.25) {
            policy.makePolicy(capacity: $0)!
        },
        nvme: nvme
            ? TierConfiguration(bytes: blockBytes, stagingShare: 0) { policy.makePolicy(capacity: $0)! } : nil,
        inclusion: .keep, nvmeWriteBudget: nil, hasStore: hasStore, spill: spill,
        directory: DirectoryConfiguration(
            presentAge: Duration(seconds: 3600), absentAge: Duration(milliseconds: 1),
            askDeadline: Duration(milliseconds: 2000), isSubscribed: isSubscribed),
        planner: PlannerConfiguration(
            rule: .always, prefixOnly: true, prefill: PrefillCost(base: 0, linear: 1e-2, quadratic: 0),
            gpuSecondWeight: 0, gpusPerEngine: 1, overlap: .none, layers: 32,
            loadGraceMin: Duration(milliseconds: 5000), loadGraceMax: Duration(milliseconds: 10_000)),
        prefetch: prefetch, pinBudgetBytes: [32 * blockBytes],
        limits: TieringLimits(
            requestsMax: 256, transfersMax: 512, knownBlocksMax: 1 << 16, pinsMax: 64, sliceBlocks: 8))
}

/// The chain of a conversation.
func chain(_ range: Range<Int>, of conversation: UInt64) -> [ObjectName] {
    range.map { position in
        let number = conversation &* 1_000_003 &+ UInt64(position)
        return ObjectName(FullKey(mixBits(number), mixBits(number &+ 77), number, 1))
    }
}

/// What a block's bytes are.
func fill(_ bytes: UnsafeMutableRawBufferPointer, _ name: ObjectName) {
    let words = unsafe bytes.bindMemory(to: UInt64.self)
    let seed = name.key[0] ^ name.key[2] ^ UInt64(name.shard) << 48
    for index in words.indices { unsafe words[index] = mixBits(seed &+ UInt64(index)) }
}

func holds(_ bytes: UnsafeMutableRawBufferPointer, _ name: ObjectName) -> Bool {
    let words = unsafe bytes.bindMemory(to: UInt64.self)
    let seed = name.key[0] ^ name.key[2] ^ UInt64(name.shard) << 48
    for index in words.indices where unsafe words[index] != mixBits(seed &+ UInt64(index)) { return false }
    return true
}

/// Replies to one engine.
final class Replies: Sendable {
    private let waiting = Mutex<[EngineReply]>([])
    private let signal: WakeSignal
    init() throws { signal = try WakeSignal() }

    func add(_ reply: EngineReply) {
        waiting.withLock { $0.append(reply) }
        signal.wake()
    }

    var count: Int { waiting.withLock { $0.count } }

    /// Takes the first reply that `pick` understands.
    func take<Value: Sendable>(_ what: String, _ pick: (EngineReply) -> Value?) throws -> Value {
        let deadline = MonotonicClock.now + waitLimit
        while true {
            signal.prepareToSleep()
            let found = waiting.withLock { waiting -> Value? in
                for index in waiting.indices {
                    guard let value = pick(waiting[index]) else { continue }
                    waiting.remove(at: index)
                    return value
                }
                return nil
            }
            if let found { return found }
            let left = deadline - MonotonicClock.now
            guard left > .zero else { throw OperatorError("no reply came: \(what)") }
            signal.wait(atMost: left)
            signal.awake()
        }
    }
}

/// An engine of an agent, with one region of rows.
final class TestEngine {
    let agent: Agent
    let number: EngineNumber
    let memory: BlockMemory
    let replies: Replies
    let segments: Int
    private var ticket: EngineTicket = 0

    init(_ agent: Agent, number: EngineNumber = 0, rows: Int = 256, segments: Int = 1, namespace: String = "test")
        throws
    {
        self.agent = agent
        self.number = number
        self.segments = segments
        memory = try BlockMemory(byteCount: rows * blockBytes, wantsHugePages: false)
        let replies = try Replies()
        self.replies = replies
        agent.connect(engine: number) { replies.add($0) }
        let hello = EngineHello(
            kind: "replay", process: 1, ownership: .engine, namespace: ["model": "m"], storeNamespace: namespace,
            blockTokens: 16, blockBytes: blockBytes)
        post(.attach(number, hello))
        post(.addRegion(number, EngineRegion(number: 3, memory: memory)))
        _ = try replies.take("regionAdded") { if case .regionAdded = $0 { true } else { nil } }
    }

    /// The time of the messages, in lock step.
    var time: Instant?

    func post(_ message: EngineMessage) {
        while agent.post(message, at: time) == .full {}
    }

    func next() -> EngineTicket {
        ticket += 1
        return ticket
    }

    /// Row `row`, as one slice or as segments that lie apart in reverse order.
    func places(_ rows: Range<Int>) -> EnginePlaces {
        let part = blockBytes / segments
        var slices: [MemorySlice] = []
        for row in rows {
            for segment in 0..<segments {
                slices.append(
                    MemorySlice(region: 3, offset: row * blockBytes + (segments - 1 - segment) * part, count: part))
            }
        }
        return EnginePlaces(segmentsPerBlock: segments, slices: slices)
    }

    /// The bytes of a row, in the order of the block.
    private func visit(_ row: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void, writes: Bool) {
        let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: blockBytes, alignment: 64)
        defer { unsafe whole.deallocate() }
        let part = blockBytes / segments
        func copy(_ out: Bool) {
            for segment in 0..<segments {
                let slice = MemorySlice(offset: row * blockBytes + (segments - 1 - segment) * part, count: part)
                let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: whole[segment * part..<(segment + 1) * part])
                if out {
                    unsafe piece.copyMemory(from: UnsafeRawBufferPointer(memory[slice]))
                } else {
                    unsafe memory[slice].copyMemory(from: UnsafeRawBufferPointer(piece))
                }
            }
        }
        if !writes { copy(true) }
        unsafe body(whole)
        if writes { copy(false) }
    }

    func write(_ name: ObjectName, row: Int) { unsafe visit(row, { unsafe fill($0, name) }, writes: true) }

    func has(_ name: ObjectName, row: Int) -> Bool {
        var isEqual = false
        unsafe visit(row, { isEqual = unsafe holds($0, name) }, writes: false)
        return isEqual
    }

    func clear(_ rows: Range<Int>) {
        let slice = MemorySlice(offset: rows.lowerBound * blockBytes, count: rows.count * blockBytes)
        unsafe memory[slice].initializeMemory(as: UInt8.self, repeating: 0)
    }

    // MARK: Whole turns

    /// Fills rows with blocks and offers them. Returns which were kept.
    @discardableResult
    func save(
        _ names: [ObjectName], first: Int = 0, row: Int = 0, request: EngineTicket = 0, asker: UInt16 = 0
    ) throws -> [Bool] {
        for (index, name) in names[first...].enumerated() { write(name, row: row + index) }
        let job = next()
        let count = names.count - first
        post(
            .save(
                number,
                EngineSave(
                    job: job, request: request, asker: asker, names: names, first: Int32(first),
                    places: places(row..<row + count), evictionClass: 0)))
        let kept = try replies.take("saved") { reply -> [UInt64]? in
            if case .saved(_, job, let kept) = reply { kept } else { nil }
        }
        return (0..<count).map { kept[$0 / 64] >> UInt64($0 % 64) & 1 == 1 }
    }

    func lookUp(
        _ names: [ObjectName], tokens: Int? = nil, engineBlocks: Int = 0, session: UInt64 = 0
    ) throws -> (ticket: EngineTicket, answer: Answer) {
        let ticket = next()
        post(
            .lookUp(
                number,
                EngineLookUp(
                    ticket: ticket, names: names, promptTokens: Int32(tokens ?? names.count * 16 + 1),
                    engineBlocks: Int32(engineBlocks), session: session, turn: -1)))
        let answer = try replies.take("found") { reply -> Answer? in
            if case .found(_, ticket, let answer) = reply { answer } else { nil }
        }
        return (ticket, answer)
    }

    @discardableResult
    func load(
        _ names: [ObjectName], request: EngineTicket = 0, asker: UInt16 = 0, first: Int = 0, count: Int? = nil,
        row: Int = 0
    ) throws -> Range<Int> {
        let job = postLoad(names, request: request, asker: asker, first: first, count: count, row: row)
        return try loaded(job)
    }

    func postLoad(
        _ names: [ObjectName], request: EngineTicket = 0, asker: UInt16 = 0, first: Int = 0, count: Int? = nil,
        row: Int = 0, deadline: Instant = .distantFuture
    ) -> EngineTicket {
        let job = next()
        let count = count ?? names.count - first
        let isNamed = request == 0 || asker != 0
        post(
            .load(
                number,
                EngineLoad(
                    job: job, request: request, asker: asker, names: isNamed ? Array(names.prefix(first + count)) : [],
                    first: Int32(first), places: places(row..<row + count), computeWait: .zero, deadline: deadline)))
        return job
    }

    func loaded(_ job: EngineTicket) throws -> Range<Int> {
        try replies.take("loaded") { reply -> Range<Int>? in
            if case .loaded(_, job, let first, let end) = reply { Int(first)..<Int(end) } else { nil }
        }
    }

    func finish(_ ticket: EngineTicket, reason: StopReason = .endTurn, cachedTokens: Int32 = -1) {
        post(
            .finished(
                number,
                EngineRequestEnd(
                    ticket: ticket, reason: reason, cachedTokens: cachedTokens, timeToFirstToken: .zero,
                    resumesAfter: .zero,
                    answerTokens: 1)))
    }

    /// One request from look-up to end: loads what is found, checks every byte of it, computes and saves the rest, in pieces of
    /// so many blocks.
    @discardableResult
    func serve(
        _ names: [ObjectName], tokens: Int? = nil, session: UInt64 = 0, pieces: Int = .max,
        reason: StopReason = .endTurn
    ) throws -> Int {
        let (ticket, answer) = try lookUp(names, tokens: tokens, session: session)
        var end = 0
        if answer.hitBlocks > 0 {
            clear(0..<names.count)
            end = try load(names, request: ticket).upperBound
            for position in 0..<end {
                #expect(has(names[position], row: position), "block \(position) came with wrong bytes")
            }
        }
        for first in stride(from: end, to: names.count, by: pieces) {
            let last = min(names.count - first, pieces) + first
            try save(Array(names[..<last]), first: first, row: first, request: ticket)
        }
        finish(ticket, reason: reason)
        return end
    }

    func leave() throws {
        post(.gone(number))
        _ = try replies.take("forgotten") { if case .forgotten = $0 { true } else { nil } }
    }
}

/// An agent with what it needs, shut down at the end.
final class AgentBench {
    let folder: Folder
    let agent: Agent
    private let tiering: TieringConfiguration

    init(_ settings: AgentSettings, folder: Folder) throws {
        self.folder = folder
        var settings = settings
        settings.journal = JournalSettings(path: nil, bytesMax: journalBytesMax)
        tiering = try settings.effectiveTiering()
        agent = try Agent(settings, logger: quietLogger())
    }

    /// An agent of a store, with its first engine. It has found the store when it is here.
    ///
    /// - Parameter change: What its settings have beyond that.
    static func beside(
        _ store: StoreBench, _ tiering: TieringConfiguration = smallTiering(dramBlocks: 16, hasStore: true),
        _ change: (inout AgentSettings) -> Void = { _ in }
    ) throws -> (bench: AgentBench, engine: TestEngine) {
        var settings = AgentSettings(tiering: tiering, links: .measured(first: fastLinks))
        settings.store = store.access
        change(&settings)
        let bench = try AgentBench(settings, folder: store.folder)
        let engine = try TestEngine(bench.agent)
        _ = try bench.status()
        return (bench, engine)
    }

    deinit {
        agent.shutDown()
        checkJournal(agent.journalBytes, tiering)
    }

    /// Serves other conversations, one after another: what node memory had of those before them it loses.
    func pushOut(by engine: TestEngine, _ conversations: Range<UInt64>) throws {
        for conversation in conversations {
            try engine.serve(chain(0..<10, of: conversation))
            _ = try status()
        }
    }

    func status() throws -> AgentStatus {
        guard agent.waitUntilQuiet(within: waitLimit) else { throw OperatorError("the agent does not come to rest") }
        return agent.status
    }
}
