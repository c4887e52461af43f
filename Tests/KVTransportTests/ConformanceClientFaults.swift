// Stores that vanish, say nothing or say nonsense: the client loses no slot, tells why, and comes back.

import KVModel
import KVSystem
import KVTransport
import Synchronization
import Testing

extension ConformanceCase {
    static let clientFaults: [ConformanceCase] = [
        ConformanceCase("a store that comes back is found again", restartedStoresAreFound),
        ConformanceCase("a subscription outlives the connection, and says what it missed", subscriptionsOutlive),
        ConformanceCase("a subscription that cannot be renewed is tried again", subscriptionsAreTriedAgain),
        ConformanceCase("more namespaces than credits are opened again", manyNamespacesAreOpenedAgain),
        ConformanceCase("a store that accepts and says nothing is given up", blackHolesAreGivenUp),
        ConformanceCase("a store that falls silent costs the connection, not the slots", silentStoresLoseTheConnection),
        ConformanceCase("an answer to nothing ends the connection", answersToNothing),
        ConformanceCase("a second answer ends the connection", secondAnswers),
        ConformanceCase("an answer of another kind ends the connection", answersOfAnotherKind),
        ConformanceCase("a store that only talks nonsense is not asked in a loop", nonsenseIsNotAskedForInALoop),
        ConformanceCase("a sick store is left alone for a while", sickStoresAreLeftAlone),
        ConformanceCase("what is opened while a better way is found is open there, too", openedWhileClimbing),
        ConformanceCase("a sick way says nothing of a better one", betterWaysBeginWell),
        ConformanceCase("a client that ends hands back everything", endedClientsHandBack),
    ]

    private static func restartedStoresAreFound(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        try await client.open("m")
        #expect(try await client.put(1, client.slot(0)) == .ok)
        for round in 1...3 {
            stage.stopServer()
            #expect(await eventually { client.losses.count >= round })
            #expect(try await client.ask(.stat, within: 5).status != .ok)
            try stage.startServer()
            // Handles stay what they were.
            let response = try await client.persist(.get(client.namespace, TestClient.name(1)), slot: client.slot(1))
            #expect(response.status == .ok && client.holds(client.slot(1), 1), "\(response)")
            #expect(client.connections.count == round + 1)
        }
        await stage.end()
    }

    private static func subscriptionsOutlive(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        try await client.open("m")
        #expect(try await client.ask(.subscribe(1)).status == .ok)
        #expect(try await client.ask(.subscribe(2)).status == .ok)
        stage.stopServer()
        let before = stage.host.requests.count
        try stage.startServer()
        #expect(try await client.persist(.stat).status == .ok)
        // Namespaces and subscriptions come before anything that the owner asks, and the gap is told only when nothing
        // more can be missed.
        let since = Array(stage.host.requests.dropFirst(before))
        #expect(since.prefix(4).sorted() == ["openNamespace", "openNamespace", "subscribe", "subscribe"], "\(since)")
        let overflows = client.notifications.compactMap { if case .overflow(let handle) = $0 { handle } else { nil } }
        #expect(overflows.sorted() == [1, 2])
        #expect(try await client.put(4, client.slot(0)) == .ok)
        #expect(
            await eventually {
                if case .added(1, [TestClient.name(4)])? = client.notifications.last { true } else { false }
            })
        await stage.end()
    }

    private static func subscriptionsAreTriedAgain(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(try await client.ask(.subscribe(1)).status == .ok)
        stage.stopServer()
        stage.host.set { $0.subscribeStatus = .busy }
        try stage.startServer()
        #expect(await eventually { stage.host.requests.count { $0 == "subscribe" } >= 3 })
        #expect(client.notifications.isEmpty)
        stage.host.set { $0.subscribeStatus = .ok }
        #expect(await eventually { if case .overflow(1)? = client.notifications.last { true } else { false } })
        #expect(try await client.persist(.stat).status == .ok)
        await stage.end()
    }

    private static func manyNamespacesAreOpenedAgain(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        let count = 3 * stage.limits.credits
        for number in 2...count { try await client.open("namespace \(number)") }
        #expect(try await client.ask(.subscribe(NamespaceHandle(count))).status == .ok)
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.stopServer()
        try stage.startServer()
        let response = try await client.persist(.get(client.namespace, TestClient.name(1)), slot: client.slot(1))
        #expect(response.status == .ok)
        #expect(stage.counters.creditViolations == 0)
        #expect(try await client.ask(.list(NamespaceHandle(count), cursor: 0, countMax: 1)).status == .ok)
        await stage.end()
    }

    private static func blackHolesAreGivenUp(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try stage.client(
            tampering: { _, _ in .silence }, changing: { $0.connectLimit = Duration(milliseconds: 200) })
        let tag = try client.submit(.stat, within: 30)
        #expect(try await client.end(of: tag).status == .disconnected)
        #expect(await eventually { client.losses.contains { $0.contains("no welcome within the limit") } })
        #expect(client.connections.isEmpty)
        await stage.end()
    }

    private static func silentStoresLoseTheConnection(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let flag = SharedFlag()
        let client = try stage.client(
            tampering: { _, _ in flag.isSet ? .silence : .pass },
            changing: { $0.cancelLimit = Duration(milliseconds: 200) })
        try await client.open("n")
        #expect(try await client.put(1, client.slot(0)) == .ok)
        flag.isSet = true
        let tag = try client.submit(.get(1, TestClient.name(1)), slot: client.slot(1), within: 0.1)
        #expect(try await client.end(of: tag).status == .deadlinePassed)
        #expect(client.end(of: tag)?.slotIsFree == false)
        // No answer to the cancel either: the connection goes, and with it whoever could touch the slot.
        #expect(await eventually { client.isReturned(tag) })
        #expect(await eventually { client.losses.contains { $0.contains("not acknowledged") } })
        flag.isSet = false
        let response = try await client.persist(.get(1, TestClient.name(1)), slot: client.slot(1))
        #expect(response.status == .ok && client.holds(client.slot(1), 1))
        await stage.end()
    }

    /// A client whose first answer to `operation` is tampered with; how that request ended, and that the client goes on.
    private static func tampered(
        _ carrier: TestCarrier, _ operation: Operation, _ request: Request,
        _ tamper: @escaping @Sendable (FrameHeader, [UInt8]) -> Tampering
    ) async throws -> (response: Response, losses: [String]) {
        let stage = try ConformanceStage(carrier)
        let wasDone = SharedFlag()
        let client = try stage.client(tampering: { header, body in
            guard header.operation == operation, header.isReply, !wasDone.isSet else { return .pass }
            wasDone.isSet = true
            return tamper(header, body)
        })
        try await client.open("n")
        let response = try await client.ask(request, slot: client.slot(0))
        #expect(await eventually { !client.losses.isEmpty })
        let losses = client.losses
        #expect(try await client.persist(request, slot: client.slot(0)).status != .disconnected)
        #expect(client.connections.count == 2 && client.toldTwice.isEmpty)
        await stage.end()
        return (response, losses)
    }

    private static func answersToNothing(_ carrier: TestCarrier) async throws {
        let (response, losses) = try await tampered(carrier, .stat, .stat) { header, body in
            var header = header
            header.requestNumber += 1000
            return .replace(header, body)
        }
        #expect(response.status == .disconnected)
        #expect(losses.first?.contains("request number") == true, "\(losses)")
    }

    private static func secondAnswers(_ carrier: TestCarrier) async throws {
        let (response, losses) = try await tampered(carrier, .stat, .stat) { _, _ in .twice }
        #expect(response.status == .ok)
        #expect(losses.first?.contains("request number") == true, "\(losses)")
    }

    private static func answersOfAnotherKind(_ carrier: TestCarrier) async throws {
        let name = TestClient.name(1)
        // A listing for an existence answer, none for a state, too few words for the names, no object for a get.
        let cases: [(Operation, Request, ResponseBody)] = [
            (.lookUp, .lookUp(1, [name]), .page([], next: 0)), (.stat, .stat, .none),
            (.lookUp, .lookUp(1, (0..<200).map(TestClient.name)), .presence([0])),
            (.delete, .delete(1, [name, name]), .statuses([.ok])), (.get, .get(1, name), .none),
            (.list, .list(1, cursor: 0, countMax: 1), .presence([])),
        ]
        for (operation, request, body) in cases {
            let odd = Response(.ok, body)
            let (response, losses) = try await tampered(carrier, operation, request) { header, _ in
                var writer = FrameWriter()
                odd.writeBody(to: &writer)
                return .replace(
                    odd.header(operation, number: header.requestNumber, payloadBytes: 0, isInSlot: false), writer.bytes)
            }
            #expect(response.status == .disconnected, "\(operation)")
            #expect(losses.first?.contains("body kind") == true, "\(operation): \(losses)")
        }
    }

    private static func nonsenseIsNotAskedForInALoop(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let flag = SharedFlag()
        let client = try stage.client(
            tampering: { header, body in
                guard flag.isSet, header.isReply else { return .pass }
                var header = header
                header.requestNumber += 1000
                return .replace(header, body)
            },
            changing: {
                $0.backoff = Duration(milliseconds: 50)
                $0.backoffMax = Duration(milliseconds: 200)
            })
        try await client.open("n")
        flag.isSet = true
        let began = MonotonicClock.now
        _ = try await client.ask(.stat)
        // It names its namespace on each new connection, and each time hears nonsense.
        #expect(await eventually { client.losses.count >= 6 })
        // Half of 50 + 100 + 200 + 200 ms at least.
        #expect(MonotonicClock.now - began >= Duration(milliseconds: 250))
        flag.isSet = false
        #expect(try await client.persist(.stat).status == .ok)
        await stage.end()
    }

    private static func sickStoresAreLeftAlone(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try stage.client {
            $0.breaker = .init(
                failureCountMax: 3, pause: Duration(milliseconds: 300), pauseMax: Duration(milliseconds: 300))
        }
        try await client.open("n")
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set { $0.holdsGets = true }
        for _ in 0..<3 {
            let response = try await client.ask(.get(1, TestClient.name(1)), slot: client.slot(1), within: 0.05)
            #expect(response.status == .deadlinePassed)
        }
        let asked = stage.host.requests.count
        #expect(try await client.ask(.stat).status == .unavailable)
        #expect(stage.host.requests.count <= asked + 3, "only the cancels of what was given up")
        // After the pause one request tries, and when it is answered all may go again.
        stage.host.releaseHeld()
        #expect(try await client.persist(.stat).status == .ok)
        #expect(try await client.get(1, client.slot(1)).status == .ok)
        await stage.end()
    }

    /// Two ways to one store, of which the first is there when the flag says so.
    private static func climber(
        _ stage: ConformanceStage, _ isUp: SharedFlag, _ change: (inout StoreClientConfiguration) -> Void = { _ in }
    ) throws -> TestClient {
        let route = try stage.route()
        let better = StoreRoute(carrier: route.carrier, address: route.address) { memory, signal throws(SystemError) in
            guard isUp.isSet else { throw SystemError(number: KernelError.connectionRefused, doing: "connect") }
            return try route.connect(memory, signal)
        }
        return try stage.client(routes: [better, route]) {
            $0.climbInterval = Duration(milliseconds: 5)
            change(&$0)
        }
    }

    private static func openedWhileClimbing(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        for (operation, request) in [
            (Operation.openNamespace, Request.openNamespace(name: "m")), (.subscribe, .subscribe(1)),
        ] {
            let isUp = SharedFlag()
            let client = try climber(stage, isUp)
            try await client.open("n")
            stage.host.set { $0.heldOperation = operation }
            let late = try client.submit(request)
            #expect(await eventually { stage.host.heldCount == 1 })
            isUp.isSet = true
            #expect(await eventually { client.connections.count == 2 })
            stage.host.releaseHeld()
            let response = try await client.end(of: late)
            #expect(response.status == .ok, "\(response) \(client.losses)")
            if operation == .openNamespace {
                #expect(try await client.ask(.list(2, cursor: 0, countMax: 1)).status == .ok)
            } else {
                #expect(try await client.put(1, client.slot(0)) == .ok)
                #expect(
                    await eventually {
                        if case .added(1, [TestClient.name(1)])? = client.notifications.last { true } else { false }
                    })
            }
        }
        await stage.end()
    }

    private static func betterWaysBeginWell(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let isUp = SharedFlag()
        let client = try climber(stage, isUp) {
            $0.breaker = .init(
                failureCountMax: 1, pause: Duration(milliseconds: 1), pauseMax: Duration(milliseconds: 1))
        }
        try await client.open("n")
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set { $0.holdsGets = true }
        let get = Request.get(1, TestClient.name(1))
        #expect(try await client.ask(get, slot: client.slot(1), within: 0.05).status == .deadlinePassed)
        #expect(await eventually { stage.host.heldCount == 0 })
        // After the pause one request probes, and is not answered before another way carries the requests.
        while stage.host.heldCount == 0 {
            let probe = try client.submit(get, slot: client.slot(2))
            #expect(await eventually { client.end(of: probe) != nil || stage.host.heldCount == 1 })
        }
        isUp.isSet = true
        #expect(await eventually { client.connections.count == 2 })
        #expect(try await client.ask(.stat).status == .ok)
        await stage.end()
    }

    private static func endedClientsHandBack(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set { $0.holdsGets = true }
        let tags = try (1...5).map {
            try client.submit(.get(client.namespace, TestClient.name(1)), slot: client.slot($0))
        }
        #expect(await eventually { stage.host.heldCount == 5 })
        client.client.shutDown()
        for tag in tags {
            #expect(client.end(of: tag)?.response.status == .disconnected)
            #expect(client.end(of: tag)?.slotIsFree == true)
        }
        // From here on nobody writes into the slots, whatever the store still answers.
        for index in 1...5 { client.fill(client.slot(index), 77) }
        stage.host.releaseHeld()
        #expect(await eventually { stage.host.closedCount == 1 })
        for index in 1...5 { #expect(client.holds(client.slot(index), 77)) }
        await stage.end()
    }
}

/// A switch that the test sets and a client's thread reads.
final class SharedFlag: Sendable {
    private let value = Atomic<Bool>(false)
    var isSet: Bool {
        get { value.load(ordering: .sequentiallyConsistent) }
        set { value.store(newValue, ordering: .sequentiallyConsistent) }
    }
}
