// The whole store: real drives on files, the real catalogue, TCP on a port of the kernel's choice, the real client.

import Foundation
import KVFlash
import KVModel
import KVStore
import KVSystem
import KVTransport
import Logging
import Synchronization
import Testing

extension StoreBench {
    fileprivate func client(_ tenant: String = "admin", secret: [UInt8]? = nil) throws -> Client {
        let key = secret ?? tenants.byName[tenant]?.secret ?? []
        return try Client(port: port, tenant: tenant, secret: key)
    }
}

/// A client with one slot.
private struct Client {
    let client: StoreClient
    let memory: BlockMemory
    static let limit = KVModel.Duration(seconds: 10)

    init(port: UInt16, tenant: String, secret: [UInt8]) throws {
        memory = try BlockMemory(byteCount: 2 << 20)
        client = try StoreClient(
            StoreClientConfiguration(
                routes: [.tcp(host: "127.0.0.1", port: port)], tenant: tenant, secret: secret), memory: memory,
            sink: { _ in })
    }

    func ask(
        _ request: Request, slot: MemorySlice? = nil, within limit: KVModel.Duration = Self.limit
    ) async -> Response {
        await client.call(request, slot: slot, within: limit)
    }

    /// The store's own account, as of now.
    func status() async throws -> StoreStatus {
        guard case .text(let json) = await ask(.stat).body else { throw OperatorError("stat without an answer") }
        return try JSONDecoder().decode(StoreStatus.self, from: Data(json))
    }

    func open(_ name: String) async throws -> NamespaceHandle {
        let response = await ask(.openNamespace(name: name))
        guard case .namespace(let handle) = response.body else {
            throw OperatorError("openNamespace says \(response.status)")
        }
        return handle
    }

    func put(_ handle: NamespaceHandle, _ number: UInt64, bytes count: Int, parent: UInt64? = nil) async -> Status {
        let slice = MemorySlice(offset: 0, count: count)
        let bytes = unsafe memory[slice]
        unsafe fill(bytes, number)
        let checksum = unsafe BlockChecksum.of(name(number), UnsafeRawBufferPointer(bytes))
        let metadata = ObjectMetadata(parent: parent.map { name($0).key } ?? .none)
        return await ask(.put(handle, name(number), metadata, payloadBytes: count, checksum: checksum), slot: slice)
            .status
    }

    /// Gets an object; whether it came and every byte is right. Wrong bytes are an error.
    func get(_ handle: NamespaceHandle, _ number: UInt64, bytes count: Int) async throws -> Status {
        let room = MemorySlice(offset: 0, count: 1 << 20)
        let response = await ask(.get(handle, name(number)), slot: room)
        guard response.status == .ok, case .object(let length, _, _) = response.body else { return response.status }
        #expect(length == count)
        let expected = try BlockMemory(byteCount: count)
        let wanted = unsafe expected[MemorySlice(offset: 0, count: count)]
        unsafe fill(wanted, number)
        let got = unsafe memory[room.prefix(count)]
        let isEqual = unsafe wanted.elementsEqual(got)
        #expect(isEqual, "object \(number) came with wrong bytes")
        return .ok
    }

    private func fill(_ bytes: UnsafeMutableRawBufferPointer, _ number: UInt64) {
        for index in bytes.indices {
            unsafe bytes[index] = UInt8(truncatingIfNeeded: mixBits(number &+ UInt64(index / 8)))
        }
    }
}

private func name(_ number: UInt64) -> ObjectName {
    ObjectName(FullKey(mixBits(number), mixBits(number &+ 1000), number, 5))
}

@Suite(.serialized) struct WholeStoreTests {
    @Test func whatWasAcknowledgedIsThereAfterARestart() async throws {
        let bench = try StoreBench()
        let lengths = [1, 4096, 65_536, 65_537, 200_000, 1 << 20]
        do {
            let client = try bench.client()
            let handle = try await client.open("a")
            for (number, count) in lengths.enumerated() {
                #expect(await client.put(handle, UInt64(number), bytes: count) == .ok)
                #expect(await client.put(handle, UInt64(number), bytes: count) == .alreadyPresent)
                #expect(try await client.get(handle, UInt64(number), bytes: count) == .ok)
            }
            #expect(try await client.get(handle, 99, bytes: 1) == .absent)
        }
        bench.stop()
        try bench.start()
        let client = try bench.client()
        let handle = try await client.open("a")
        for (number, count) in lengths.enumerated() {
            #expect(try await client.get(handle, UInt64(number), bytes: count) == .ok)
        }
        guard case .presence(let bits) = await client.ask(.lookUp(handle, (0..<70).map { name(UInt64($0)) })).body
        else {
            Issue.record("a look-up without an answer")
            return
        }
        #expect(bits == [0b111111, 0])
    }

    /// Lanes, drive and the store's own thread take turns at deciding: nothing may be left lying between two turns.
    @Test func clientsOnFourLanesAreAllAnswered() async throws {
        let bench = try StoreBench(lanes: 4)
        let blocks = UInt64(24)
        let stored = try await withThrowingTaskGroup(of: Int.self) { group in
            for number in UInt64(0)..<8 {
                let client = try bench.client()
                group.addTask {
                    let handle = try await client.open("n\(number % 3)")
                    var count = 0
                    for block in number * blocks..<(number + 1) * blocks {
                        guard await client.put(handle, block, bytes: 65_536) == .ok else { continue }
                        if try await client.get(handle, block, bytes: 65_536) == .ok { count += 1 }
                    }
                    return count
                }
            }
            return try await group.reduce(0, +)
        }
        #expect(stored == Int(8 * blocks))
        let status = try await bench.client().status()
        #expect(status.namespaces.reduce(0) { $0 + $1.objects } == Int(8 * blocks))
    }

    /// Over all transports together: a client beyond them is refused, and comes in when another has gone.
    @Test func noMoreSessionsAreOpenedThanTheStoreHasRoomFor() async throws {
        let bench = try StoreBench { $0.sessions = 3 }
        let first = try bench.client()
        #expect(await first.ask(.stat).status == .ok)
        let store = try #require(bench.store)
        let others = (1...3).map { SessionID(transport: 9, number: $0) }
        let peer = Peer(tenant: "guest", carrier: .verbs, address: "elsewhere")
        #expect(others.map { store.deliver(.opened($0, peer)) } == [.accepted, .accepted, .full])
        let late = try bench.client()
        #expect(await late.ask(.stat, within: KVModel.Duration(milliseconds: 100)).status != .ok)
        #expect(store.deliver(.closed(others[0])) == .accepted)
        var last = Status.disconnected
        while last == .disconnected || last == .unavailable { last = await late.ask(.stat).status }
        #expect(last == .ok)
        #expect(store.deliver(.opened(others[2], peer)) == .full)
        #expect(store.deliver(.closed(others[1])) == .accepted)
    }

    @Test func aTenantCannotSeeAnothersBlocks() async throws {
        let bench = try StoreBench()
        let admin = try bench.client()
        let handle = try await admin.open("a")
        #expect(await admin.put(handle, 1, bytes: 5000) == .ok)
        let guest = try bench.client("guest")
        let own = try await guest.open("b")
        #expect(try await guest.get(own, 1, bytes: 5000) == .absent)
        #expect(await guest.put(own, 1, bytes: 5000) == .ok)
        #expect(await guest.ask(.administer(verb: "pins", arguments: [])).status == .forbidden)
    }

    @Test func aWrongKeyGetsNothing() async throws {
        let bench = try StoreBench()
        let stranger = try bench.client("admin", secret: Array(repeating: 1, count: 32))
        let response = await stranger.client.call(
            .openNamespace(name: "a"), within: KVModel.Duration(milliseconds: 1500))
        #expect(response.status == .disconnected || response.status == .deadlinePassed)
    }

    @Test func pinsSurviveARestartAndHoldTheirBlocks() async throws {
        let bench = try StoreBench()
        do {
            let client = try bench.client()
            let handle = try await client.open("a")
            #expect(await client.put(handle, 1, bytes: 60_000) == .ok)
            let response = await client.ask(.pin(handle, [name(1), name(2)], owner: "me", lifetimeSeconds: 0))
            guard case .statuses(let statuses) = response.body else {
                Issue.record("a pin without an answer: \(response.status)")
                return
            }
            #expect(statuses == [.ok, .absent])
        }
        bench.stop()
        try bench.start()
        let client = try bench.client()
        let handle = try await client.open("a")
        // Twice what the drive holds goes by; what is pinned stays.
        for number in 100..<1000 as Range<UInt64> { _ = await client.put(handle, number, bytes: 65_536) }
        #expect(try await client.get(handle, 1, bytes: 60_000) == .ok)
        #expect(try await client.status().pins == 1)
        #expect(try await client.get(handle, 100, bytes: 65_536) == .absent)
    }

    @Test func aFullDriveGoesOnByEvicting() async throws {
        let bench = try StoreBench { $0.size = 8 << 20 }
        let client = try bench.client()
        let handle = try await client.open("a")
        for number in 0..<400 as Range<UInt64> {
            let status = await client.put(handle, number, bytes: 65_536)
            #expect(status == .ok || status == .notAdmitted, "put \(number) says \(status)")
        }
        let status = try await client.status()
        #expect(status.freeBytes >= 0)
        #expect(status.objects <= status.capacityBytes / status.extentBytes)
        #expect((status.totals["evicted_total"] ?? 0) > 0)
    }

    @Test func aDamagedBlockIsAMissAndIsQuarantined() async throws {
        let bench = try StoreBench()
        do {
            let client = try bench.client()
            let handle = try await client.open("a")
            for number in 0..<8 as Range<UInt64> { #expect(await client.put(handle, number, bytes: 65_536) == .ok) }
        }
        bench.stop()
        // Flip one bit in every extent of the file's data.
        let path = bench.configuration.data[0]
        let geometry = try FlashDevice.inspect(path: path).geometry
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        for extent in 0..<geometry.extentCount {
            try file.seek(toOffset: UInt64(geometry.extentsOffset + extent * geometry.extentBytes + 17))
            let byte = try #require(try file.read(upToCount: 1)?.first)
            try file.seek(toOffset: UInt64(geometry.extentsOffset + extent * geometry.extentBytes + 17))
            try file.write(contentsOf: Data([byte ^ 4]))
        }
        try file.close()
        try bench.start()
        let client = try bench.client()
        let handle = try await client.open("a")
        for number in 0..<8 as Range<UInt64> {
            let status = try await client.get(handle, number, bytes: 65_536)
            #expect(status == .corrupt || status == .absent, "a damaged block gives \(status)")
        }
        #expect(try await client.status().totals["damaged_found_total"] == 8)
    }

    @Test func aDrainedStoreStopsQuietly() async throws {
        let bench = try StoreBench()
        let client = try bench.client()
        let handle = try await client.open("a")
        #expect(await client.put(handle, 1, bytes: 4096) == .ok)
        #expect(bench.store?.drain(within: KVModel.Duration(seconds: 5)) == true)
        bench.stop()
    }

    @Test func twoDrivesShareTheBlocksAndBelongTogether() async throws {
        let second = FileManager.default.temporaryDirectory.appendingPathComponent("hf-\(UUID().uuidString).flash")
        defer { try? FileManager.default.removeItem(at: second) }
        let bench = try StoreBench { $0.data.append(second.path) }
        do {
            let client = try bench.client()
            let handle = try await client.open("a")
            for number in 0..<40 as Range<UInt64> { #expect(await client.put(handle, number, bytes: 65_536) == .ok) }
            #expect(try await client.status().drives.allSatisfy { $0.freeExtents < $0.extents })
        }
        bench.stop()
        bench.configuration.data.removeLast()
        #expect(throws: OperatorError.self) { try bench.start() }
        bench.configuration.data.append(second.path)
        try bench.start()
        let client = try bench.client()
        let handle = try await client.open("a")
        for number in 0..<40 as Range<UInt64> { #expect(try await client.get(handle, number, bytes: 65_536) == .ok) }
    }

    @Test func aStoreGoesOnWithoutADriveAndTakesABlankOneInItsPlace() async throws {
        let second = FileManager.default.temporaryDirectory.appendingPathComponent("hf-\(UUID().uuidString).flash")
        defer { try? FileManager.default.removeItem(at: second) }
        let bench = try StoreBench { $0.data.append(second.path) }
        do {
            let client = try bench.client()
            let handle = try await client.open("a")
            for number in 0..<40 as Range<UInt64> { #expect(await client.put(handle, number, bytes: 65_536) == .ok) }
        }
        bench.stop()
        try FileManager.default.removeItem(at: second)
        bench.configuration.missing = .accept
        try bench.start()
        var kept = Set<UInt64>()
        do {
            let client = try bench.client()
            let handle = try await client.open("a")
            for number in 0..<40 as Range<UInt64> {
                let status = try await client.get(handle, number, bytes: 65_536)
                #expect(status == .ok || status == .absent)
                if status == .ok { kept.insert(number) }
            }
            #expect(!kept.isEmpty && kept.count < 40)
        }
        bench.stop()
        bench.configuration.missing = .replace
        try bench.start()
        do {
            let client = try bench.client()
            let handle = try await client.open("a")
            for number in 0..<40 as Range<UInt64> {
                let status = try await client.get(handle, number, bytes: 65_536)
                #expect(status == (kept.contains(number) ? .ok : .absent))
                #expect(await client.put(handle, number, bytes: 65_536) == (status == .ok ? .alreadyPresent : .ok))
            }
            #expect(try await client.status().drives.allSatisfy { $0.freeExtents < $0.extents })
        }
        bench.stop()
        bench.configuration.missing = .refuse
        try bench.start()
        let client = try bench.client()
        let handle = try await client.open("a")
        for number in 0..<40 as Range<UInt64> { #expect(try await client.get(handle, number, bytes: 65_536) == .ok) }
    }

    @Test func aRevokedKeyEndsItsSessionsAndANewTenantComesIn() async throws {
        let bench = try StoreBench()
        let guest = try bench.client("guest")
        #expect(await guest.ask(.stat).status == .ok)
        var tenants = bench.tenants
        tenants.byName["guest"]?.secret = Array(repeating: 8, count: 32)
        tenants.byName["late"] = Tenant(secret: Array(repeating: 5, count: 32), isOperator: true)
        bench.store?.setTenants(tenants)
        // The client comes again with the old key, and is refused until its deadline.
        var last = Status.ok
        for _ in 0..<1000 where last == .ok {
            last = await guest.ask(.stat, within: KVModel.Duration(milliseconds: 500)).status
        }
        #expect(last != .ok)
        #expect(await guest.ask(.stat, within: KVModel.Duration(milliseconds: 200)).status != .ok)
        let late = try bench.client("late", secret: Array(repeating: 5, count: 32))
        #expect(await late.ask(.administer(verb: "flush", arguments: [])).status == .ok)
        let renewed = try bench.client("guest", secret: Array(repeating: 8, count: 32))
        #expect(await renewed.ask(.stat).status == .ok)
    }

    /// A session opens with a key that is revoked before the store has looked at either: it is at another's answer.
    @Test func aSessionThatOpensWhileItsKeyIsRevokedEnds() throws {
        let bench = try StoreBench()
        let store = try #require(bench.store)
        let transport = HeldTransport()
        store.serve(transport, transport: 9)
        let sessions = (1...2).map { SessionID(transport: 9, number: UInt32($0)) }
        let peers = ["admin", "guest"].map { Peer(tenant: $0, carrier: .tcp, address: "here") }
        #expect(store.deliver(.opened(sessions[0], peers[0])) == .accepted)
        Thread.detachNewThread { _ = store.deliver(.request(RequestID(session: sessions[0], number: 1), .stat)) }
        try #require(transport.holds.wait(within: KVModel.Duration(seconds: 30)))
        #expect(store.deliver(.opened(sessions[1], peers[1])) == .accepted)
        var tenants = bench.tenants
        tenants.byName["guest"] = nil
        store.setTenants(tenants)
        transport.letsGo.set()
        #expect(transport.hasEnded.wait(within: KVModel.Duration(seconds: 30)))
        #expect(transport.ended == sessions[1])
        for session in sessions { #expect(store.deliver(.closed(session)) == .accepted) }
    }
}

/// A transport that stands still at the first answer, and with it whoever decides.
private final class HeldTransport: SessionServer {
    let holds = OneTimeFlag()
    let letsGo = OneTimeFlag()
    let hasEnded = OneTimeFlag()
    private let session = Mutex<SessionID?>(nil)
    let address = "held"

    /// The session that was ended first.
    var ended: SessionID? { session.withLock { $0 } }

    func post(_ command: SessionCommand) -> Acceptance {
        switch command {
        case .reply:
            holds.set()
            _ = letsGo.wait(within: KVModel.Duration(seconds: 30))
        case .disconnect(let ended, _):
            session.withLock { $0 = $0 ?? ended }
            hasEnded.set()
        case .receive, .send, .notify: break
        }
        return .accepted
    }

    func shutDown() {}
}
