// What is asked of a client that has ended.

import KVModel
import KVSystem
import KVTransport
import Synchronization
import Testing

@Suite struct ClientEndTests {
    private func client(_ sink: @escaping @Sendable (StoreEvent) -> Void = { _ in }) throws -> StoreClient {
        let routes: [StoreRoute] = [.tcp(host: "127.0.0.1", port: 1)]
        return try StoreClient(
            StoreClientConfiguration(routes: routes, tenant: "tenant", secret: [1]),
            memory: try BlockMemory(byteCount: 4096), sink: sink)
    }

    @Test func whatIsSubmittedBehindTheEndFails() throws {
        let ends = Mutex<[UInt64: Status]>([:])
        let client = try client { event in
            if case .completed(let tag, let response, true) = event { ends.withLock { $0[tag] = response.status } }
        }
        client.shutDown()
        for tag in 1...3 as ClosedRange<UInt64> {
            #expect(client.submit(.stat, tag: tag, deadline: .distantFuture) == .accepted)
        }
        #expect(ends.withLock { $0 } == [1: .disconnected, 2: .disconnected, 3: .disconnected])
        #expect(client.inFlightCount == 0)
    }

    /// Whoever submits while the client ends is told of each end, once.
    @Test func nothingIsLostBetweenTheLastTurnAndTheEnd() throws {
        for _ in 0..<50 {
            let ended = Atomic<Int>(0)
            let client = try client { event in
                if case .completed = event { ended.add(1, ordering: .relaxed) }
            }
            let accepted = Atomic<Int>(0)
            let asking = try EngineThread("asks") {
                for tag in 1...200 as ClosedRange<UInt64>
                where client.submit(.stat, tag: tag, deadline: .distantFuture) == .accepted {
                    accepted.add(1, ordering: .relaxed)
                }
            }
            client.shutDown()
            asking.join()
            #expect(ended.load(ordering: .relaxed) == accepted.load(ordering: .relaxed))
            #expect(client.inFlightCount == 0)
        }
    }
}
