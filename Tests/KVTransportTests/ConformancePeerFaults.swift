// Clients that vanish, stall or come in crowds, and stores that end while clients ask: nothing hangs, nothing leaks.

import KVModel
import KVSystem
import KVTransport
import Testing

extension ConformanceCase {
    static let peerFaults: [ConformanceCase] = [
        ConformanceCase("a client that vanishes in a get leaves nothing", clientsVanishInGets),
        ConformanceCase("a client that vanishes in a put leaves nothing", clientsVanishInPuts),
        ConformanceCase("a client that vanishes while the store has no room leaves nothing", clientsVanishWhenFull),
        ConformanceCase("who says nothing is put out in time", silentPeersArePutOut),
        ConformanceCase("who fills the places keeps nobody out", crowdsKeepNobodyOut),
        ConformanceCase("a session beyond those that the store takes is told so", sessionsBeyondAreRefused),
        ConformanceCase("guessing keys gets slower", guessingGetsSlower),
        ConformanceCase("a slow subscriber loses the stream and hears so", slowSubscribersHearSo),
        ConformanceCase("a reader that stops is put out", for: \.isStream, stoppedReadersArePutOut),
        ConformanceCase("the store's farewell arrives", farewellsArrive),
        ConformanceCase("64 clients at 64 KiB are served at once", manyClientsAreServed),
        ConformanceCase("a store that ends with requests under way loses no buffer", storesEndInTheMiddle),
        ConformanceCase("a store that answers after its end is heard out", lateStoresAreHeardOut),
    ]

    private static func clientsVanishInGets(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        for round in 1...3 {
            stage.host.set { $0.holdsGets = true }
            let raw = try stage.raw()
            #expect(try raw.open() == nil)
            raw.send(.openNamespace(name: "n"), number: 1)
            #expect(try raw.reply(to: 1)?.status == .ok)
            for number in 2...5 as ClosedRange<UInt32> {
                raw.send(
                    .get(1, TestClient.name(1)), number: number,
                    slot: MemorySlice(offset: Int(number) * 65_536, count: 65_536))
            }
            #expect(await eventually { stage.host.heldCount == 4 })
            raw.close()
            // The session is over for the store only after it has answered everything.
            if round > 1 { #expect(stage.host.closedCount == round - 1) }
            stage.host.releaseHeld()
            #expect(await eventually { stage.host.closedCount == round })
            #expect(stage.host.isAccounted)
        }
        // A stream's kernel takes a few before it knows; a slot of a client that is gone is never written.
        #expect(carrier.isStream || stage.host.abortedCount == 12)
        #expect(try await client.get(1, client.slot(1)).status == .ok)
        await stage.end()
    }

    private static func clientsVanishInPuts(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        for round in 1...3 {
            stage.host.set { $0.holdsPuts = true }
            let client = try await stage.openClient()
            client.fill(client.slot(0), round)
            let tag = try client.submit(client.putRequest(round, client.slot(0)), slot: client.slot(0))
            #expect(await eventually { stage.host.heldCount == 1 })
            client.client.shutDown()
            #expect(client.end(of: tag)?.response.status == .disconnected)
            #expect(client.end(of: tag)?.slotIsFree == true)
            stage.host.releaseHeld()
            #expect(await eventually { stage.host.closedCount == round })
            #expect(stage.host.isAccounted)
        }
        // What a stream has carried whole is whole, whether or not anybody hears of it.
        #expect(carrier.isStream || (stage.host.objectCount == 0 && stage.host.abortedCount == 3))
        await stage.end()
    }

    private static func clientsVanishWhenFull(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        stage.host.set { $0.fullCount = .max }
        raw.send(.stat, number: 1)
        raw.send(.stat, number: 2)
        #expect(await eventually { stage.host.offeredCount > 2 })
        raw.close()
        // A stream is not read while the store has no room, so its end is seen when there is some again.
        if carrier.isStream { stage.host.set { $0.fullCount = 0 } }
        #expect(await eventually { stage.host.closedCount == 1 })
        stage.host.set { $0.fullCount = 0 }
        #expect(carrier.isStream || stage.host.requests.isEmpty)
        await stage.end()
    }

    private static func silentPeersArePutOut(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.helloLimit = Duration(milliseconds: 300)
        let stage = try ConformanceStage(carrier, limits: limits)
        let raw = try stage.raw()
        #expect(raw.ends())
        let half = try stage.raw()
        half.send(FrameHeader(.hello), Hello(versions: 1...1, nonce: .init(repeating: 1, count: 32), tenant: "t").body)
        #expect(try half.next()?.header.operation == .challenge)
        #expect(half.ends())
        #expect(await eventually { stage.counters.connectionsOpen == 0 })
        #expect(stage.counters.deadlinesPassed >= 1 && stage.host.openedCount == 0)
        await stage.end()
    }

    private static func crowdsKeepNobodyOut(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.unauthenticatedMax = 4
        let stage = try ConformanceStage(carrier, limits: limits)
        var crowd: [RawSession] = []
        for _ in 0..<12 {
            let raw = try stage.raw()
            raw.turn(waiting: Duration(milliseconds: 1))
            crowd.append(raw)
        }
        let client = try await stage.openClient()
        #expect(try await client.ask(.stat).status == .ok)
        for raw in crowd { raw.close() }
        await stage.end()
    }

    private static func sessionsBeyondAreRefused(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        stage.host.set { $0.sessionsMax = 1 }
        let first = try stage.raw()
        #expect(try first.open() == nil)
        for count in 1...3 {
            #expect(try stage.raw().open() == "the store has as many sessions as it takes, of all or of this tenant")
            #expect(await eventually { stage.counters.connectionsRefused == count })
        }
        first.send(.stat, number: 1)
        #expect(try first.reply(to: 1)?.status == .ok)
        first.close()
        #expect(await eventually { stage.host.closedCount == 1 })
        let next = try stage.raw()
        #expect(try next.open() == nil)
        next.close()
        await stage.end()
    }

    private static func guessingGetsSlower(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.failureDelay = Duration(milliseconds: 20)
        limits.failureDelayMax = Duration(milliseconds: 80)
        let stage = try ConformanceStage(carrier, limits: limits)
        let began = MonotonicClock.now
        for _ in 0..<5 { #expect(try stage.raw().open(secret: [0]) == "unknown tenant or wrong key") }
        // 20 + 40 + 80 + 80 + 80 ms at least, whichever thread of the server each try came to.
        #expect(MonotonicClock.now - began >= Duration(milliseconds: 300))
        await stage.end()
    }

    private static func slowSubscribersHearSo(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.outputBytesMax = 256 << 10
        let stage = try ConformanceStage(carrier, limits: limits)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        raw.send(.openNamespace(name: "n"), number: 1)
        raw.send(.subscribe(1), number: 2)
        #expect(try raw.reply(to: 2)?.status == .ok)
        // It does not read: buffers of the kernel fill, then the session's own, and what comes then is dropped.
        let names = (0..<512).map(TestClient.name)
        let overflowed = await eventually {
            stage.host.announce("n") { .added($0, names) }
            return stage.counters.notificationsDropped > 0
        }
        #expect(overflowed)
        #expect(stage.host.closedCount == 0)
        // It reads again: what was told before, and that something is missing.
        var hasHeard = false
        while !hasHeard, let (header, _) = try raw.next() { hasHeard = header.operation == .overflow }
        #expect(hasHeard)
        raw.send(.stat, number: 3)
        #expect(try raw.reply(to: 3)?.status == .ok)
        raw.close()
        await stage.end()
    }

    private static func stoppedReadersArePutOut(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.stallLimit = Duration(milliseconds: 300)
        let stage = try ConformanceStage(carrier, limits: limits, slotBytes: 8 << 20, slotCount: 2)
        let client = try await stage.openClient(slotCount: 1)
        #expect(try await client.put(1, client.slot(0)) == .ok)
        let raw = try RawSession(try stage.route(), memory: BlockMemory(byteCount: 8 << 20))
        #expect(try raw.open() == nil)
        raw.send(.openNamespace(name: "n"), number: 1)
        #expect(try raw.reply(to: 1)?.status == .ok)
        for number in 2...6 as ClosedRange<UInt32> {
            raw.send(.get(1, TestClient.name(1)), number: number, slot: MemorySlice(offset: 0, count: 8 << 20))
        }
        // Nothing is read from here on. The buffers of the store are its own again when the session has ended.
        #expect(await eventually { stage.host.closedCount == 1 })
        #expect(stage.host.isAccounted)
        // The kernel's limit is as long as the store's: where the store's thread is late, the kernel ends the connection.
        #expect(await eventually { stage.counters.deadlinesPassed + stage.counters.connectionsBroken == 1 })
        raw.close()
        await stage.end()
    }

    private static func farewellsArrive(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        stage.host.disconnectAll("your key was taken back")
        #expect(await eventually { client.losses.contains { $0.contains("your key was taken back") } })
        // It comes back by itself.
        #expect(try await client.persist(.stat).status == .ok)
        #expect(client.connections.count == 2)
        await stage.end()
    }

    private static func manyClientsAreServed(_ carrier: TestCarrier) async throws {
        let bytes = 64 << 10
        let stage = try ConformanceStage(carrier, slotBytes: bytes, slotCount: 200)
        var clients: [TestClient] = []
        for _ in 0..<64 { clients.append(try stage.client(slotCount: 4)) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (number, client) in clients.enumerated() {
                group.addTask {
                    try await client.open("n")
                    for round in 0..<3 {
                        let index = number * 3 + round
                        #expect(try await client.put(index, client.slot(0)) == .ok)
                        let tags = try (1...3).map {
                            try client.submit(.get(client.namespace, TestClient.name(index)), slot: client.slot($0))
                        }
                        for (place, tag) in tags.enumerated() {
                            #expect(try await client.end(of: tag).status == .ok)
                            #expect(client.holds(client.slot(place + 1), index))
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(stage.host.objectCount == 192 && stage.host.openedCount == 64)
        #expect(clients.allSatisfy { $0.losses.isEmpty && $0.toldTwice.isEmpty })
        await stage.end()
    }

    private static func storesEndInTheMiddle(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier, slotBytes: 1 << 20, slotCount: 8)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        var tags: [UInt64] = []
        for index in 1...6 {
            tags.append(try client.submit(.get(client.namespace, TestClient.name(1)), slot: client.slot(index)))
        }
        client.fill(client.slot(7), 2)
        tags.append(try client.submit(client.putRequest(2, client.slot(7)), slot: client.slot(7)))
        stage.stopServer()
        for tag in tags {
            let status = try await client.end(of: tag).status
            #expect(status == .ok || status == .disconnected || status == .unavailable, "\(status)")
        }
        #expect(stage.host.openedCount == stage.host.closedCount && stage.host.isAccounted)
        await stage.end()
    }

    private static func lateStoresAreHeardOut(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.stallLimit = Duration(milliseconds: 300)
        let stage = try ConformanceStage(carrier, limits: limits)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set { $0.holdsGets = true }
        let tag = try client.submit(.get(client.namespace, TestClient.name(1)), slot: client.slot(1))
        #expect(await eventually { stage.host.heldCount == 1 })
        let server = try #require(stage.server)
        server.shutDown()
        #expect(try await client.end(of: tag).status == .disconnected)
        // The store answers what it was asked, and its buffer comes back although the server is gone.
        #expect(stage.host.closedCount == 0)
        stage.host.releaseHeld()
        #expect(await eventually { stage.host.closedCount == 1 && stage.host.isAccounted })
        stage.stopServer()
        await stage.end()
    }
}
