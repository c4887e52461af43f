// Connections that carry nothing any more and never end, beside slow links and slow drives, which must not be taken for them.

import KVModel
import KVSystem
import KVTransport
import Synchronization
import Testing

@Suite struct SilenceTests {
    /// A client that looks for life so often; what comes over its connections passes `tamper`, with the connection's number.
    private func client(
        of stage: ConformanceStage, silence: Duration,
        _ tamper: @escaping @Sendable (_ connection: Int) -> Tampering = { _ in .pass }
    ) throws -> TestClient {
        let route = try stage.route()
        let count = Mutex(0)
        let way = StoreRoute(carrier: route.carrier, address: route.address) { memory, signal throws(SystemError) in
            let number = count.withLock { count in
                count += 1
                return count
            }
            let inner = try route.connect(memory, signal)
            return TamperingLink(inner, showsLife: true) { _, _ in tamper(number) }
        }
        return try stage.client(routes: [way]) { $0.silenceLimit = silence }
    }

    @Test func aConnectionThatCarriesNothingIsLeftForAnother() async throws {
        let stage = try ConformanceStage(.tcp)
        let dead = Mutex(0)
        let client = try client(of: stage, silence: Duration(milliseconds: 200)) { number in
            dead.withLock { number <= $0 } ? .silence : .pass
        }
        try await client.open("n")
        client.fill(client.slot(0), 1)
        #expect(try await client.persist(client.putRequest(1, client.slot(0)), slot: client.slot(0)).status.isThere)
        // All connections of this moment; new ones are well.
        let before = client.connections.count
        dead.withLock { $0 = before }
        // Long before the request's own deadline, and before that of its cancel.
        let tag = try client.submit(.get(1, TestClient.name(1)), slot: client.slot(1), within: 300)
        #expect(try await client.end(of: tag, within: 60).status == .disconnected)
        #expect(client.end(of: tag)?.slotIsFree == true)
        let response = try await client.persist(.get(1, TestClient.name(1)), slot: client.slot(1))
        #expect(response.status == .ok && client.holds(client.slot(1), 1))
        #expect(client.connections.count > before)
        await stage.end()
    }

    /// A store that takes its time still says that it is there. A machine that stands still for longer than the client waits
    /// for that may cost a connection; it does not do so five times.
    @Test func aSlowAnswerIsNoSilence() async throws {
        for _ in 0..<5 {
            let stage = try ConformanceStage(.tcp)
            let client = try client(of: stage, silence: Duration(milliseconds: 100))
            try await client.open("n")
            client.fill(client.slot(0), 1)
            #expect(try await client.persist(client.putRequest(1, client.slot(0)), slot: client.slot(0)).status.isThere)
            stage.host.set { $0.holdsGets = true }
            let before = client.connections.count
            let tag = try client.submit(.get(1, TestClient.name(1)), slot: client.slot(1), within: 300)
            // Longer than it would take to be given up.
            #expect(await eventually { stage.host.requests.count { $0 == "cancel" } >= 6 })
            let isKept = client.connections.count == before
            stage.host.releaseHeld()
            let response = try await client.end(of: tag, within: 60)
            await stage.end()
            if isKept, response.status == .ok { return }
        }
        Issue.record("a connection whose store answers probes is given up")
    }

    @Test func whatIsTakenCountsOnlyWhileSomethingWaits() {
        func signs(_ received: UInt64, _ taken: UInt64, _ isTaking: Bool) -> LifeSigns {
            LifeSigns(received: received, taken: taken, isTaking: isTaking)
        }
        // Bytes trickle in, or out of what waits: a slow link.
        #expect(signs(11, 50, false).differs(from: signs(10, 50, false)))
        #expect(signs(10, 51, true).differs(from: signs(10, 50, true)))
        // Only the probe was taken, by the peer's kernel.
        #expect(!signs(10, 90, false).differs(from: signs(10, 50, false)))
        #expect(!signs(10, 50, true).differs(from: signs(10, 50, true)))
    }
}

extension Status {
    /// Whether a put left the object in the store: its first try may have, before its connection ended.
    fileprivate var isThere: Bool { self == .ok || self == .alreadyPresent }
}
