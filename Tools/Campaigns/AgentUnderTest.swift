// A real `holdfast agent` in a process of its own, and an engine at its door that knows what each of its blocks must hold.

import Foundation
import KVAgent
import KVMemory
import KVModel
import KVSystem
import KVTiering
import Synchronization

/// An agent that reaches its store over a wire of ours.
final class AgentUnderTest: Sendable {
    /// Where engines come.
    let socket: String
    let identifier: Int32
    private let process: Process
    private let http: UInt16

    /// Starts it and waits until it serves.
    init(_ folder: ScratchFolder, settings: [String]) throws {
        socket = folder.path + "/agent.sock"
        let configuration = folder.path + "/agent.yaml"
        let lines = settings + ["socket: \(socket)", "http: 127.0.0.1:0"]
        try (lines.joined(separator: "\n") + "\n").write(toFile: configuration, atomically: false, encoding: .utf8)
        let started = try ServingProcess(
            "holdfast", ["agent", "--config", configuration], log: folder.path + "/agent.log", says: "listening on ")
        (process, http, identifier) = (started.process, started.port, started.process.processIdentifier)
    }

    deinit {
        guard process.isRunning else { return }
        Glibc.kill(identifier, SIGKILL)
        process.waitUntilExit()
    }

    /// How it is doing. Nil: it does not answer.
    func status() -> AgentStatus? {
        guard
            let answer = try? plainGet(host: "127.0.0.1", port: http, path: "/status", within: Duration(seconds: 5)),
            answer.status == 200
        else { return nil }
        return (try? JSONDecoder().decode(SidecarStatus.self, from: Data(answer.body)))?.agent
    }

    /// How the last request of a conversation was served, in the agent's own words.
    func explain(session: UInt64) -> String {
        let path = "/explain?session=\(session)"
        let answer = try? plainGet(host: "127.0.0.1", port: http, path: path, within: Duration(seconds: 5))
        let told = answer.flatMap { try? JSONDecoder().decode(Explanation.self, from: Data($0.body)) }
        return told?.sentences.first ?? "it does not say"
    }
}

/// One request of an engine, as it went.
struct EngineTurn {
    var began: Instant
    /// From asking to the answer of the look-up, and to the end of the load, seconds.
    var lookUpSeconds = 0.0
    var readySeconds = 0.0
    /// Leading blocks that were found, those of them in the store, and blocks that came.
    var found = 0
    var inStore = 0
    var came = 0
    /// Blocks whose bytes were not their name's.
    var wrongBlocks = 0
    /// An answer did not come at all.
    var hung = false
}

/// An engine: memory shared with its agent, and the ordinary client.
final class EngineUnderTest: Sendable {
    /// The longest that anything may take before it counts as hung.
    static let limit = Duration(seconds: 40)
    let blockTokens: Int
    let blockBytes: Int
    private let client: EngineClient
    private let arena: MemoryArena
    private let region: Int32

    /// - Parameter rows: Blocks that its memory holds.
    init(socket: String, blockTokens: Int, blockBytes: Int, rows: Int) throws {
        (self.blockTokens, self.blockBytes) = (blockTokens, blockBytes)
        var memory = ArenaConfiguration(slotBytes: blockBytes, slotCount: rows)
        memory.wantsHugePages = false
        memory.wantsPinning = false
        arena = try MemoryArena(memory)
        let fields = [
            "model": "campaign", "tokenizer": "none", "engine": "campaign", "hash_scheme": "number", "hash_seed": "0",
            "block_tokens": "\(blockTokens)", "kv_dtype": "u64", "kv_scales": "", "layers": "1", "kv_heads": "1",
            "head_size": "\(blockBytes)", "memory_order": "words", "tenant_salt": "",
        ]
        var configuration = EngineClientConfiguration(
            path: socket,
            hello: EngineHello(
                kind: "campaign", process: 0, ownership: .host, namespace: fields, storeNamespace: "campaign",
                blockTokens: Int32(blockTokens), blockBytes: blockBytes))
        configuration.client = "holdfast campaign"
        // The agent's own deadlines are on trial, not the client's.
        configuration.lookUpLimit = Self.limit
        configuration.jobLimit = Self.limit
        client = try EngineClient(configuration)
        region = client.addRegion(descriptor: arena.descriptor, byteCount: arena.byteCount)
        guard client.waitUntilOpen(within: Duration(seconds: 60)) else {
            throw OperatorError("the agent takes no engine on: \(client.refusal?.description ?? "no answer")")
        }
    }

    func close() { client.close(within: Duration(seconds: 5)) }

    /// Serves a prompt: looks its blocks up, loads what was found into `rows`, compares every byte, and offers what had to be
    /// computed. The engine computes nothing: what computing would cost, the caller adds.
    func serve(_ names: [ObjectName], rows: Range<Int>, session: UInt64, promptTokens: Int) -> EngineTurn {
        clear(rows.lowerBound..<rows.lowerBound + names.count)
        var turn = EngineTurn(began: MonotonicClock.now)
        let found = Answer<EngineFound>()
        let ticket = client.lookUp(names, promptTokens: Int32(promptTokens), session: session) { found.set($0) }
        let answer = found.wait(Self.limit)
        turn.lookUpSeconds = (MonotonicClock.now - turn.began).seconds
        turn.hung = answer == nil
        turn.found = Int(answer?.hitBlocks ?? 0)
        turn.inStore = Int(answer?.flashBlocks ?? 0)
        if turn.found > 0 {
            let loaded = Answer<EngineLoaded>()
            let wanted = places(rows.lowerBound..<rows.lowerBound + turn.found)
            client.load(first: 0, places: wanted, request: ticket) { loaded.set($0) }
            let end = loaded.wait(Self.limit)
            turn.hung = turn.hung || end == nil
            turn.came = Int(end?.end ?? 0)
        }
        turn.readySeconds = (MonotonicClock.now - turn.began).seconds
        for position in 0..<turn.came where !holds(names[position], row: rows.lowerBound + position) {
            turn.wrongBlocks += 1
        }
        // After a load that hangs its places are not ours.
        guard !turn.hung else { return turn }
        if turn.came < names.count {
            for position in turn.came..<names.count { fill(names[position], row: rows.lowerBound + position) }
            let saved = Answer<EngineSaved>()
            let offered = places(rows.lowerBound + turn.came..<rows.lowerBound + names.count)
            client.save(names, first: Int32(turn.came), places: offered, request: ticket) { saved.set($0) }
            turn.hung = saved.wait(Self.limit) == nil
        }
        client.finished(EngineRequestEnd(ticket: ticket))
        return turn
    }

    /// Looks blocks up and asks for what was found, and hears of it no more: what an engine leaves behind that ends.
    func beginLoad(_ names: [ObjectName]) {
        let found = Answer<EngineFound>()
        let promptTokens = Int32(names.count * blockTokens)
        let ticket = client.lookUp(names, promptTokens: promptTokens, session: 1 << 40) { found.set($0) }
        guard let count = found.wait(Self.limit)?.hitBlocks, count > 0 else { return }
        client.load(first: 0, places: places(0..<Int(count)), request: ticket) { _ in }
    }

    // MARK: Memory

    private func places(_ rows: Range<Int>) -> EnginePlaces {
        EnginePlaces(slices: rows.map { MemorySlice(region: region, offset: $0 * blockBytes, count: blockBytes) })
    }

    private func clear(_ rows: Range<Int>) {
        let slice = MemorySlice(offset: rows.lowerBound * blockBytes, count: rows.count * blockBytes)
        _ = unsafe arena.memory[slice].initializeMemory(as: UInt8.self, repeating: 0xEE)
    }

    private func fill(_ name: ObjectName, row: Int) {
        let words = unsafe words(row)
        for index in words.indices { unsafe words[index] = mixBits(name.key[0] &+ UInt64(index)) }
    }

    private func holds(_ name: ObjectName, row: Int) -> Bool {
        let words = unsafe words(row)
        for index in words.indices where unsafe words[index] != mixBits(name.key[0] &+ UInt64(index)) { return false }
        return true
    }

    private func words(_ row: Int) -> UnsafeMutableBufferPointer<UInt64> {
        unsafe arena.memory[MemorySlice(offset: row * blockBytes, count: blockBytes)].bindMemory(to: UInt64.self)
    }
}

/// What comes later, on another thread.
private final class Answer<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    private let signal = DispatchSemaphore(value: 0)

    func set(_ value: Value) {
        self.value.withLock { $0 = value }
        signal.signal()
    }

    /// Nil: it did not come.
    func wait(_ limit: Duration) -> Value? {
        // A little later than the client gives up by itself.
        _ = signal.wait(timeout: .now() + limit.seconds + 5)
        return value.withLock { $0 }
    }
}
