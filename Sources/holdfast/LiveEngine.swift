// An engine of a live replay: memory that it shares with its agent, blocks whose bytes follow from their names, and the
// ordinary client at the agent's door.

import Foundation
import KVAgent
import KVMemory
import KVModel
import KVSystem
import KVTiering
import Synchronization

/// What an engine says of itself, and what its blocks are.
enum LiveBlocks {
    /// The hello of every engine of a replay.
    static func hello(
        blockTokens: Int, blockBytes: Int, ownership: Ownership = .host, namespace: String = "replay"
    ) -> EngineHello {
        let fields = [
            "model": "replay", "tokenizer": "none", "engine": "replay", "hash_scheme": "trace", "hash_seed": "0",
            "block_tokens": "\(blockTokens)", "kv_dtype": "u64", "kv_scales": "", "layers": "1", "kv_heads": "1",
            "head_size": "\(blockBytes)", "memory_order": "words", "tenant_salt": "",
        ]
        return EngineHello(
            kind: "replay", process: 0, ownership: ownership, namespace: fields, storeNamespace: namespace,
            blockTokens: Int32(blockTokens), blockBytes: blockBytes)
    }

    /// A name's bytes, in memory of a block's size.
    static func fill(_ bytes: UnsafeMutableRawBufferPointer, as name: ObjectName) {
        let words = unsafe bytes.bindMemory(to: UInt64.self)
        let seed = name.key[0] ^ name.key[2]
        for index in words.indices { unsafe words[index] = mixBits(seed &+ UInt64(index)) }
    }

    /// Whether these are a name's bytes, every one of them.
    static func are(_ bytes: UnsafeRawBufferPointer, of name: ObjectName) -> Bool {
        let words = unsafe bytes.bindMemory(to: UInt64.self)
        let seed = name.key[0] ^ name.key[2]
        for index in words.indices where unsafe words[index] != mixBits(seed &+ UInt64(index)) { return false }
        return true
    }

    /// The name of a block of a trace: the same in every engine, 32 bytes, all different for different numbers.
    static func name(_ block: BlockNumber) -> ObjectName {
        let number = UInt64(block)
        return ObjectName(
            FullKey(
                mixBits(number &+ 0x1F), mixBits(number &+ 0x632B_E59B), mixBits(number ^ 0x9E37_79B9_7F4A_7C15),
                mixBits(~number)))
    }
}

/// One engine.
final class LiveEngine {
    /// How long anything may take before the replay gives up.
    static let limit = KVModel.Duration(seconds: 60)

    let client: EngineClient
    /// The request in hand.
    var request: EngineTicket = 0
    private let arena: MemoryArena
    private let region: Int32
    private let ownership: Ownership
    let blockBytes: Int

    /// - Parameters:
    ///   - rows: Blocks that its memory holds.
    ///   - ownership: `full`: its blocks lie in slots of the agent's device, and its rows are none.
    ///   - namespace: Of its blocks at the store.
    ///   - limit: How long it waits for its agent; then a look-up is a miss and a job is cancelled.
    init(
        socket: String, blockTokens: Int, blockBytes: Int, rows: Int, ownership: Ownership = .host,
        namespace: String = "replay", limit: KVModel.Duration = limit
    ) throws {
        self.blockBytes = blockBytes
        self.ownership = ownership
        var memory = ArenaConfiguration(slotBytes: blockBytes, slotCount: max(1, rows))
        memory.wantsHugePages = false
        memory.wantsPinning = false
        memory.name = "holdfast-replay-engine"
        arena = try MemoryArena(memory)
        var configuration = EngineClientConfiguration(
            path: socket,
            hello: LiveBlocks.hello(
                blockTokens: blockTokens, blockBytes: blockBytes, ownership: ownership, namespace: namespace))
        if ownership == .full { configuration.arena = .writing }
        configuration.client = "holdfast replay"
        configuration.lookUpLimit = limit
        configuration.jobLimit = limit
        configuration.backoff = Duration(milliseconds: 20)
        configuration.backoffMax = Duration(milliseconds: 200)
        client = try EngineClient(configuration)
        region = client.addRegion(descriptor: arena.descriptor, byteCount: arena.byteCount)
        try waitUntilOpen(endsAtRefusal: true)
    }

    /// Waits until the agent has taken it on.
    ///
    /// - Parameter endsAtRefusal: An agent that has just started refuses for good. One that comes back after its death may
    ///   refuse while the kernel still holds what the dead one had.
    func waitUntilOpen(endsAtRefusal: Bool = false) throws {
        let deadline = MonotonicClock.now + Self.limit
        while !client.waitUntilOpen(within: KVModel.Duration(milliseconds: 20)) {
            let refusal = client.refusal
            guard refusal == nil || !endsAtRefusal, MonotonicClock.now < deadline else {
                throw OperatorError(
                    "an agent does not take an engine on: \(refusal?.description ?? "no answer")",
                    at: client.welcome?.program ?? "live replay")
            }
        }
        guard ownership == .full else { return }
        while client.arena == nil {
            guard MonotonicClock.now < deadline else {
                throw OperatorError("an agent does not show its device's slots", at: "live replay")
            }
            usleep(2_000)
        }
    }

    /// Places for blocks in given rows.
    func places(_ rows: Range<Int>) -> EnginePlaces {
        EnginePlaces(slices: rows.map { MemorySlice(region: region, offset: $0 * blockBytes, count: blockBytes) })
    }

    /// Rows hold nothing that could be taken for a block.
    func clear(_ rows: Range<Int>) {
        let slice = MemorySlice(offset: rows.lowerBound * blockBytes, count: rows.count * blockBytes)
        _ = unsafe arena.memory[slice].initializeMemory(as: UInt8.self, repeating: 0xEE)
    }

    /// A row becomes what a name's bytes are.
    func fill(_ name: ObjectName, row: Int) { unsafe LiveBlocks.fill(bytes(of: row), as: name) }

    /// Whether a row holds a name's bytes, every one of them.
    func holds(_ name: ObjectName, row: Int) -> Bool {
        unsafe LiveBlocks.are(UnsafeRawBufferPointer(bytes(of: row)), of: name)
    }

    private func bytes(of row: Int) -> UnsafeMutableRawBufferPointer {
        unsafe arena.memory[MemorySlice(offset: row * blockBytes, count: blockBytes)]
    }
}

/// What comes later, on another thread.
final class LiveAnswer<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    private let signal = DispatchSemaphore(value: 0)

    func set(_ value: Value) {
        self.value.withLock { $0 = value }
        signal.signal()
    }

    /// Waits for it.
    func wait(_ what: String) throws -> Value {
        guard signal.wait(timeout: .now() + 2 * LiveEngine.limit.seconds) == .success,
            let value = value.withLock({ $0 })
        else { throw OperatorError("\(what) did not come", at: "live replay") }
        return value
    }
}
