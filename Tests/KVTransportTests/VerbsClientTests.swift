// The real client over verbs: many requests at once, the way down to TCP and back up.

import KVModel
import KVSystem
import KVTransport
import Synchronization
import Testing

/// A store in memory that takes everything: what was put can be got.
private final class SmallStore: SessionHost {
    private struct State {
        var places: [ObjectName: (slice: MemorySlice, checksum: UInt64)] = [:]
        var pending: [RequestID: (ObjectName, MemorySlice, UInt64)] = [:]
        var used = 0
        var servers: [UInt16: any SessionServer] = [:]
        var served: [Carrier: Int] = [:]
        var carriers: [SessionID: Carrier] = [:]
    }

    let memory: BlockMemory
    private let state = Mutex(State())

    init(bytes: Int) throws { memory = try BlockMemory(byteCount: bytes) }

    func attach(_ server: any SessionServer, transport: UInt16) { state.withLock { $0.servers[transport] = server } }
    func served(over carrier: Carrier) -> Int { state.withLock { $0.served[carrier] ?? 0 } }

    func secret(ofTenant tenant: String) -> [UInt8]? { Array("key".utf8) }

    func deliver(_ event: SessionEvent) -> Acceptance {
        state.withLock { state in
            switch event {
            case .opened(let session, let peer): state.carriers[session] = peer.carrier
            case .closed, .sent: break
            case .request(let id, let request):
                state.served[state.carriers[id.session]!, default: 0] += 1
                _ = state.servers[id.session.transport]!.post(answer(id, request, &state))
            case .received(let id, let outcome):
                let (name, slice, checksum) = state.pending.removeValue(forKey: id)!
                if outcome == .whole { state.places[name] = (slice, checksum) }
                let response = Response(outcome == .whole ? .ok : .corrupt)
                _ = state.servers[id.session.transport]!.post(.reply(id, response))
            }
        }
        return .accepted
    }

    private func answer(_ id: RequestID, _ request: Request, _ state: inout State) -> SessionCommand {
        switch request {
        case .openNamespace: return .reply(id, Response(.ok, .namespace(1)))
        case .put(_, let name, _, let payloadBytes, let checksum):
            let slice = MemorySlice(offset: state.used, count: payloadBytes)
            state.used += payloadBytes
            state.pending[id] = (name, slice, checksum)
            return .receive(id, into: slice)
        case .get(_, let name):
            guard let (slice, checksum) = state.places[name] else { return .reply(id, Response(.absent)) }
            let body = ResponseBody.object(payloadBytes: slice.count, checksum: checksum, ObjectMetadata())
            return .send(id, Response(.ok, body), from: slice)
        case .stat: return .reply(id, Response(.ok, .text(Array("{}".utf8))))
        default: return .reply(id, Response(.ok))
        }
    }
}

extension VerbsTests {
    @Suite(.serialized) struct ClientTests {
        private static func name(_ index: Int) -> ObjectName { ObjectName(FullKey(UInt64(index), 1, 2, 3)) }

        private func server(_ host: SmallStore, port: UInt16 = 0) throws -> VerbsServer {
            let server = try VerbsServer(
                VerbsServerConfiguration(
                    place: VerbsPlace(device: VerbsDevice.names.last!), address: "0.0.0.0", port: port, settings: .lab,
                    limits: .standard), transport: 4, host: host)
            host.attach(server, transport: 4)
            return server
        }

        private func client(
            _ routes: [StoreRoute], _ memory: BlockMemory, climb: Duration = Duration(seconds: 5)
        ) throws -> StoreClient {
            try StoreClient(
                StoreClientConfiguration(
                    routes: routes, tenant: "tenant", secret: Array("key".utf8), climbInterval: climb),
                memory: memory, sink: { _ in })
        }

        private func route(_ server: VerbsServer) -> StoreRoute {
            .verbs(
                host: server.devicePort.addressText, port: server.port,
                place: VerbsPlace(device: VerbsDevice.names.first!), settings: .lab)
        }

        /// An answer other than that there is no connection now, asked for until `isRight`.
        private func ask(_ client: StoreClient, until isRight: () -> Bool = { true }) async throws -> Status {
            let deadline = MonotonicClock.now + Duration(seconds: 60)
            var last = Response(.disconnected)
            while MonotonicClock.now < deadline {
                last = await client.call(.stat, within: Duration(seconds: 30))
                if last.status != .disconnected, last.status != .unavailable, isRight() { return last.status }
            }
            throw Hang(request: "a request for the state: \(last)")
        }

        @Test func whatManyRequestsPutTheyGet() async throws {
            let before = VerbsLiveObjects.now
            do {
                let host = try SmallStore(bytes: 8 << 20)
                let server = try server(host)
                let bytes = 64 << 10
                let rounds = 20
                let memory = try BlockMemory(byteCount: 32 * 2 * bytes)
                let client = try client([route(server)], memory)
                #expect(try await ask(client) == .ok)
                let response = await client.call(.openNamespace(name: "n"), within: Duration(seconds: 30))
                guard case .namespace(let namespace) = response.body else {
                    Issue.record("no namespace: \(response)")
                    return
                }
                await withTaskGroup(of: Bool.self) { group in
                    for index in 0..<32 {
                        group.addTask {
                            let slot = MemorySlice(offset: index * bytes, count: bytes)
                            fill(memory, slot, with: UInt8(index + 1))
                            let name = Self.name(index)
                            let checksum = unsafe BlockChecksum.of(name, UnsafeRawBufferPointer(memory[slot]))
                            let put = await client.call(
                                .put(namespace, name, ObjectMetadata(), payloadBytes: bytes, checksum: checksum),
                                slot: slot, within: Duration(seconds: 60))
                            guard put.status == .ok else { return false }
                            let room = MemorySlice(offset: (32 + index) * bytes, count: bytes)
                            // Many rounds: an answer that comes just before the client's thread sleeps must not be lost.
                            for _ in 0..<rounds {
                                fill(memory, room, with: 0)
                                let got = await client.call(
                                    .get(namespace, name), slot: room, within: Duration(seconds: 60))
                                guard got.status == .ok, holds(memory, room, only: UInt8(index + 1)) else {
                                    return false
                                }
                            }
                            return true
                        }
                    }
                    for await isRight in group { #expect(isRight) }
                }
                #expect(host.served(over: .verbs) == 2 + 32 * (1 + rounds))
                client.shutDown()
                server.shutDown()
            }
            #expect(VerbsLiveObjects.now == before)
        }

        @Test func aFailedPathFallsToTCPAndClimbsBack() async throws {
            let host = try SmallStore(bytes: 1 << 20)
            let tcp = try TCPServer(
                TCPServerConfiguration(
                    address: "0.0.0.0", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
                transport: 1, host: host)
            host.attach(tcp, transport: 1)
            var server = try server(host)
            let port = server.port
            let memory = try BlockMemory(byteCount: 1 << 20)
            let client = try client(
                [route(server), .tcp(host: "127.0.0.1", port: tcp.port)], memory, climb: Duration(milliseconds: 20))
            #expect(try await ask(client) == .ok)
            #expect(host.served(over: .verbs) == 1)
            for _ in 1...2 {
                server.shutDown()
                let tcpBefore = host.served(over: .tcp)
                #expect(try await ask(client) { host.served(over: .tcp) > tcpBefore } == .ok)
                server = try self.server(host, port: port)
                let verbsBefore = host.served(over: .verbs)
                #expect(try await ask(client) { host.served(over: .verbs) > verbsBefore } == .ok)
            }
            client.shutDown()
            server.shutDown()
            tcp.shutDown()
        }
    }
}
