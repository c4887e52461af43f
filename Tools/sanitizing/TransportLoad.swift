// What a sanitizer watches in the quick form: a server with two lanes and clients one after another, over TCP, with all
// threads that a store and an agent have between them. It checks no rule of its own; the tests do.

import Foundation
import KVModel
import KVSystem
import KVTransport
import Synchronization

/// A store that takes everything and keeps nothing but the last payload.
final class EmptyHost: SessionHost {
    let memory: BlockMemory
    private let server = Mutex<TCPServer?>(nil)

    init() throws { memory = try BlockMemory(byteCount: 4 << 20) }

    func attach(_ server: TCPServer) { self.server.withLock { $0 = server } }
    func secret(ofTenant tenant: String) -> [UInt8]? { [1] }

    func deliver(_ event: SessionEvent) -> Acceptance {
        switch event {
        case .opened, .closed, .sent: .accepted
        case .received(let request, _): post(.reply(request, Response(.ok)))
        case .request(let request, .openNamespace): post(.reply(request, Response(.ok, .namespace(1))))
        case .request(let request, .put(_, _, _, let count, _)):
            post(.receive(request, into: MemorySlice(offset: 0, count: count)))
        case .request(let request, .get):
            post(
                .send(
                    request, Response(.ok, .object(payloadBytes: 65536, checksum: 0, ObjectMetadata())),
                    from: MemorySlice(offset: 0, count: 65536)))
        case .request(let request, .lookUp(_, let names)):
            post(.reply(request, Response(.ok, .presence([UInt64](repeating: 5, count: (names.count + 63) / 64)))))
        case .request(let request, .stat): post(.reply(request, Response(.ok, .text([123, 125]))))
        case .request(let request, _): post(.reply(request, Response(.ok)))
        }
    }

    private func post(_ command: SessionCommand) -> Acceptance {
        server.withLock { $0?.post(command) ?? .accepted }
    }
}

@main struct TransportLoad {
    static func main() async throws {
        let host = try EmptyHost()
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: 2, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: host)
        host.attach(server)
        var answered = 0
        for round in 0..<8 { answered += try await load(server.port, seed: UInt64(round)) }
        server.shutDown()
        guard answered == 8 * 600, server.counters.sessionsClosed == 8 else {
            print("TransportLoad: \(answered) answers, \(server.counters)")
            exit(1)
        }
    }

    /// Four tasks ask at once over one client; how many answers came.
    private static func load(_ port: UInt16, seed: UInt64) async throws -> Int {
        let memory = try BlockMemory(byteCount: 1 << 20)
        let client = try StoreClient(
            StoreClientConfiguration(routes: [.tcp(host: "127.0.0.1", port: port)], tenant: "t", secret: [1]),
            memory: memory, sink: { _ in })
        defer { client.shutDown() }
        let limit = KVModel.Duration(seconds: 60)
        _ = await client.call(.openNamespace(name: "n"), within: limit)
        return await withTaskGroup(of: Int.self) { group in
            for task in 0..<4 {
                group.addTask {
                    let slot = MemorySlice(offset: task * 65536, count: 65536)
                    let name = ObjectName(FullKey(seed, UInt64(task), 2, 3))
                    let sum = unsafe BlockChecksum.of(name, UnsafeRawBufferPointer(memory[slot]))
                    var answered = 0
                    for _ in 0..<50 {
                        let put = Request.put(1, name, ObjectMetadata(), payloadBytes: 65536, checksum: sum)
                        for (request, slot) in [(put, slot), (.get(1, name), slot), (.lookUp(1, [name]), nil)] {
                            let response = await client.call(request, slot: slot, within: limit)
                            // What comes back carries no right checksum: that way is walked, too.
                            if response.status == .ok || response.status == .corrupt { answered += 1 }
                        }
                    }
                    return answered
                }
            }
            var sum = 0
            for await answered in group { sum += answered }
            return sum
        }
    }
}
