// The real client with its slots and everything it told, for the conformance suite.

import KVModel
import KVSystem
import KVTransport
import Synchronization
import Testing

/// A request got no end although its deadline is long over.
struct Hang: Error, CustomStringConvertible {
    var request: String
    var description: String { "no end of \(request)" }
}

final class TestClient: Sendable {
    private struct State {
        var ended: [UInt64: (response: Response, slotIsFree: Bool)] = [:]
        var returned: Set<UInt64> = []
        var notifications: [KVTransport.Notification] = []
        var connections: [Carrier] = []
        var losses: [String] = []
        var twice: [UInt64] = []
        var nextTag: UInt64 = 1
    }

    let client: StoreClient
    let memory: BlockMemory
    let slotBytes: Int
    /// The first namespace that it opens has this handle, for the life of the client.
    let namespace: NamespaceHandle = 1
    private let state: Log

    private final class Log: Sendable {
        let state = Mutex(State())

        func take(_ event: StoreEvent) {
            state.withLock { state in
                switch event {
                case .completed(let tag, let response, let slotIsFree):
                    if state.ended.updateValue((response, slotIsFree), forKey: tag) != nil { state.twice.append(tag) }
                case .slotReturned(let tag): if !state.returned.insert(tag).inserted { state.twice.append(tag) }
                case .notified(let notification): state.notifications.append(notification)
                case .connected(let carrier): state.connections.append(carrier)
                case .lost(let reason): state.losses.append(reason)
                }
            }
        }
    }

    init(_ configuration: StoreClientConfiguration, slotBytes: Int, slotCount: Int) throws {
        memory = try BlockMemory(byteCount: slotBytes * slotCount, wantsHugePages: false)
        self.slotBytes = slotBytes
        let log = Log()
        state = log
        client = try StoreClient(configuration, memory: memory) { log.take($0) }
    }

    // MARK: What it told

    var notifications: [KVTransport.Notification] { state.state.withLock { $0.notifications } }
    var connections: [Carrier] { state.state.withLock { $0.connections } }
    var losses: [String] { state.state.withLock { $0.losses } }
    /// Requests whose end, or whose slot's return, was told twice.
    var toldTwice: [UInt64] { state.state.withLock { $0.twice } }
    func end(of tag: UInt64) -> (response: Response, slotIsFree: Bool)? { state.state.withLock { $0.ended[tag] } }
    func isReturned(_ tag: UInt64) -> Bool { state.state.withLock { $0.returned.contains(tag) } }

    // MARK: Asking

    func slot(_ index: Int, _ count: Int? = nil) -> MemorySlice {
        MemorySlice(offset: index * slotBytes, count: count ?? slotBytes)
    }

    /// Hands a request in; `end(of:)` says how it ended.
    func submit(_ request: Request, slot: MemorySlice? = nil, within seconds: Double = 30) throws -> UInt64 {
        let tag = state.state.withLock { state in
            defer { state.nextTag += 1 }
            return state.nextTag
        }
        let deadline = MonotonicClock.now + Duration(seconds: seconds)
        try #require(client.submit(request, tag: tag, slot: slot, deadline: deadline) == .accepted)
        return tag
    }

    func end(of tag: UInt64, within seconds: Double = 40) async throws -> Response {
        guard await eventually(within: seconds, { end(of: tag) != nil }), let (response, _) = end(of: tag) else {
            throw Hang(request: "request \(tag)")
        }
        return response
    }

    func ask(_ request: Request, slot: MemorySlice? = nil, within seconds: Double = 30) async throws -> Response {
        try await end(of: try submit(request, slot: slot, within: seconds), within: seconds + 20)
    }

    /// Opens a namespace, waiting for the connection.
    @discardableResult
    func open(_ name: String) async throws -> NamespaceHandle {
        let response = try await persist(.openNamespace(name: name))
        guard response.status == .ok, case .namespace(let handle) = response.body else {
            throw Hang(request: "opening: \(response)")
        }
        return handle
    }

    /// Asks again and again while there is no connection.
    func persist(_ request: Request, slot: MemorySlice? = nil) async throws -> Response {
        let deadline = MonotonicClock.now + Duration(seconds: 60)
        while MonotonicClock.now < deadline {
            let response = try await ask(request, slot: slot)
            if response.status != .disconnected, response.status != .unavailable { return response }
        }
        throw Hang(request: "\(request)")
    }

    // MARK: Blocks

    static func name(_ index: Int) -> ObjectName { ObjectName(FullKey(UInt64(index), 11, 12, 13)) }

    /// What stands in a block: bytes that follow from its number and its length.
    func fill(_ slot: MemorySlice, _ index: Int) {
        let words = unsafe memory[slot].bindMemory(to: UInt64.self)
        for place in words.indices { unsafe words[place] = Self.word(index, place) }
    }

    func holds(_ slot: MemorySlice, _ index: Int) -> Bool {
        let words = unsafe memory[slot].bindMemory(to: UInt64.self)
        return words.indices.allSatisfy { unsafe words[$0] == Self.word(index, $0) }
    }

    private static func word(_ index: Int, _ place: Int) -> UInt64 {
        (UInt64(place) &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15) &* 0x2545_F491_4F6C_DD1D
    }

    func putRequest(
        _ index: Int, _ slot: MemorySlice, in handle: NamespaceHandle? = nil, checksum: UInt64? = nil
    ) -> Request {
        let name = Self.name(index)
        let right = unsafe BlockChecksum.of(name, UnsafeRawBufferPointer(memory[slot]))
        return .put(
            handle ?? namespace, name, ObjectMetadata(indexInChain: UInt32(index), session: 7),
            payloadBytes: slot.count, checksum: checksum ?? right)
    }

    func put(_ index: Int, _ slot: MemorySlice) async throws -> Status {
        fill(slot, index)
        return try await ask(putRequest(index, slot), slot: slot).status
    }

    func get(_ index: Int, _ slot: MemorySlice) async throws -> Response {
        try await ask(.get(namespace, Self.name(index)), slot: slot)
    }
}
