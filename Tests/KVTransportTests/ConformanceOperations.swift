// What a client asks and a store answers, over every carrier.

import KVModel
import KVSystem
import KVTransport
import Testing

extension ConformanceCase {
    static let operations: [ConformanceCase] = [
        ConformanceCase("the right key opens a session", theRightKeyOpensASession),
        ConformanceCase("a wrong key and an unknown tenant are refused alike", wrongKeysAreRefusedAlike),
        ConformanceCase("a key that is revoked while its session opens ends it", revokedKeysEndWhatTheyOpen),
        ConformanceCase("namespaces are named once and apart by tenant", namespacesAreApart),
        ConformanceCase("batches of 1, 256 and the most names are looked up", batchesAreLookedUp),
        ConformanceCase("payloads come back as they went, at every length", payloadsComeBack),
        ConformanceCase("objects are pinned, unpinned, deleted, each with its status", objectsHaveStatuses),
        ConformanceCase("a namespace is listed page by page", pagesAreListed),
        ConformanceCase("state is told as text", stateIsText),
        ConformanceCase("subscribers hear what is added and removed, in order", subscribersHear),
        ConformanceCase("damage is reported to the store", damageIsReported),
        ConformanceCase("answers overtake each other", answersOvertake),
        ConformanceCase("more requests than credits wait their turn", requestsWaitForCredits),
        ConformanceCase("a request ends at its deadline, its slot comes back later", deadlinesKeepSlots),
        ConformanceCase("a cancelled request ends and leaves its slot alone", cancelledRequestsEnd),
        ConformanceCase("cancels wait for credits, too", cancelsWaitForCredits),
        ConformanceCase("cancels that cancel each other are acknowledged", cancelsOfCancelsEnd),
        ConformanceCase("a refused put's payload is thrown away", refusedPutsAreSkipped),
        ConformanceCase("a request that the store has no room for is offered again", fullStoresAreAskedAgain),
    ]

    private static func theRightKeyOpensASession(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(client.connections == [carrier.carrier])
        let peer = try #require(stage.host.peers.first)
        #expect(peer.tenant == ConformanceStage.tenant && peer.carrier == carrier.carrier)
        #expect(peer.isEncrypted == (carrier == .loopback || carrier == .tls || carrier == .mutualTLS))
        #expect(await eventually { stage.counters.sessionsOpened == 1 && stage.counters.connectionsOpen == 1 })
        await stage.end()
    }

    private static func wrongKeysAreRefusedAlike(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let wrong = try stage.raw().open(secret: Array("another key of the same length..".utf8))
        let unknown = try stage.raw().open(tenant: "nobody")
        #expect(wrong == "unknown tenant or wrong key" && unknown == wrong)
        #expect(await eventually { stage.counters.authenticationFailures == 2 })
        let client = try stage.client(secret: [1, 2, 3])
        #expect(await eventually { client.losses.contains { $0.contains("wrong key") } })
        #expect(try await client.ask(.stat).status == .disconnected)
        #expect(stage.host.openedCount == 0)
        await stage.end()
    }

    /// The host ended the tenant's sessions a moment before it knew of this one.
    private static func revokedKeysEndWhatTheyOpen(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        stage.host.set { $0.revokesKeys = true }
        #expect(try stage.raw().open() == "the tenant's key was revoked")
        #expect(await eventually { stage.host.closedCount == 1 })
        #expect(stage.host.openedCount == 1)
        await stage.end()
    }

    private static func namespacesAreApart(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        let other = try await client.open("m")
        #expect(other != client.namespace)
        #expect(try await client.open("n") == client.namespace)
        #expect(try await client.put(1, client.slot(0)) == .ok)
        let elsewhere = try await client.ask(.get(other, TestClient.name(1)), slot: client.slot(1))
        #expect(elsewhere.status == .absent)
        let stranger = try stage.client(tenant: "other", secret: Array("the key of somebody else".utf8))
        try await stranger.open("n")
        #expect(try await stranger.get(1, stranger.slot(0)).status == .absent)
        #expect(try await client.ask(.lookUp(9, [TestClient.name(1)])).status == .invalid)
        await stage.end()
    }

    private static func batchesAreLookedUp(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        let present = [0, 63, 64, 255, 300, WireLimit.batchCountMax - 1]
        for index in present { #expect(try await client.put(index, client.slot(0)) == .ok) }
        for count in [1, 2, 256, WireLimit.batchCountMax] {
            let response = try await client.ask(.lookUp(client.namespace, (0..<count).map(TestClient.name)))
            guard case .presence(let words) = response.body else {
                Issue.record("no presence: \(response.status)")
                continue
            }
            let found = (0..<count).filter { words[$0 / 64] >> UInt64($0 % 64) & 1 == 1 }
            #expect(found == present.filter { $0 < count })
        }
        await stage.end()
    }

    private static func payloadsComeBack(_ carrier: TestCarrier) async throws {
        let sizes = [0, 8, 4096, 65_544] + carrier.payloadSizes
        let stage = try ConformanceStage(carrier, slotBytes: sizes.max()!, slotCount: sizes.count)
        let client = try stage.client(slotCount: 2)
        try await client.open("n")
        for (index, size) in sizes.enumerated() {
            let sent = client.slot(0, size)
            #expect(try await client.put(index, sent) == .ok, "\(size) bytes")
            #expect(try await client.put(index, sent) == .alreadyPresent)
            let room = client.slot(1, size)
            client.fill(room, 99)
            let got = try await client.get(index, room)
            #expect(got.status == .ok && client.holds(room, index), "\(size) bytes")
            guard case .object(let count, _, let metadata) = got.body else {
                Issue.record("no object: \(got)")
                continue
            }
            #expect(count == size && metadata == ObjectMetadata(indexInChain: UInt32(index), session: 7))
            if size > 0 { #expect(try await client.get(index, client.slot(1, size - 1)).status == .invalid) }
        }
        #expect(try await client.get(99, client.slot(1)).status == .absent)
        let counted = await eventually {
            stage.counters.payloadsReceived == sizes.count && stage.counters.payloadsSent == sizes.count
        }
        #expect(counted, "\(stage.counters)")
        #expect(stage.counters.payloadsCorrupt == 0)
        await stage.end()
    }

    private static func objectsHaveStatuses(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        let names = [1, 2].map(TestClient.name)
        let n = client.namespace
        let requests: [Request] = [
            .pin(n, names, owner: "owner", lifetimeSeconds: 60), .unpin(n, names, owner: "owner"), .delete(n, names),
        ]
        for request in requests {
            guard case .statuses(let statuses) = try await client.ask(request).body else {
                Issue.record("no statuses")
                continue
            }
            #expect(statuses == [.ok, .absent])
        }
        #expect(stage.host.objectCount == 0)
        #expect(stage.host.requests.suffix(3) == ["pin", "unpin", "delete"])
        await stage.end()
    }

    private static func pagesAreListed(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        for index in 1...7 { #expect(try await client.put(index, client.slot(0, index * 8)) == .ok) }
        var cursor: UInt64 = 0
        var listed: [ListedObject] = []
        repeat {
            let response = try await client.ask(.list(client.namespace, cursor: cursor, countMax: 3))
            guard case .page(let objects, let next) = response.body else { break }
            #expect(objects.count <= 3)
            listed += objects
            cursor = next
        } while cursor != 0
        let expected = (1...7).map { ListedObject(name: TestClient.name($0), payloadBytes: UInt32($0 * 8), flags: 2) }
        #expect(listed == expected)
        await stage.end()
    }

    private static func stateIsText(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        func text(_ request: Request) async throws -> String {
            guard case .text(let bytes) = try await client.ask(request).body else { return "none" }
            return String(decoding: bytes, as: UTF8.self)
        }
        #expect(try await text(.stat) == #"{"store":"memory"}"#)
        #expect(try await text(.administer(verb: "flush", arguments: Array(#"{"é":1}"#.utf8))) == #"flush {"é":1}"#)
        #expect(try await client.put(1, client.slot(0)) == .ok)
        #expect(try await text(.describe(client.namespace, TestClient.name(1))) == "{}")
        #expect(try await client.ask(.describe(client.namespace, TestClient.name(2))).status == .absent)
        await stage.end()
    }

    private static func subscribersHear(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let writer = try await stage.openClient()
        let reader = try await stage.openClient()
        try await reader.open("m")
        #expect(try await reader.ask(.subscribe(reader.namespace)).status == .ok)
        for index in 1...3 { #expect(try await writer.put(index, writer.slot(0)) == .ok) }
        _ = try await writer.ask(.delete(writer.namespace, [TestClient.name(2)]))
        #expect(await eventually { reader.notifications.count == 4 })
        let told = reader.notifications.map { notification -> String in
            switch notification {
            case .added(1, let names): "added \(names.map(\.key.words.0))"
            case .removed(1, let names): "removed \(names.map(\.key.words.0))"
            default: "\(notification)"
            }
        }
        #expect(told == ["added [1]", "added [2]", "added [3]", "removed [2]"])
        #expect(writer.notifications.isEmpty)
        await stage.end()
    }

    private static func damageIsReported(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        #expect(try await client.ask(.reportCorrupt(client.namespace, TestClient.name(5))).status == .ok)
        #expect(stage.host.corruptReports == [TestClient.name(5)])
        // Changed on its way: the client finds it, gives no wrong byte for right, and tells by itself.
        stage.host.set { $0.corruptsNextGet = true }
        let response = try await client.get(1, client.slot(1))
        #expect(response.status == .corrupt)
        #expect(await eventually { stage.host.corruptReports == [5, 1].map(TestClient.name) })
        await stage.end()
    }

    private static func answersOvertake(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        for index in 1...6 { #expect(try await client.put(index, client.slot(0)) == .ok) }
        stage.host.set { $0.holdsGets = true }
        var tags: [UInt64] = []
        for index in 1...6 {
            client.fill(client.slot(index), 99)
            tags.append(
                try client.submit(.get(client.namespace, TestClient.name(index)), slot: client.slot(index)))
        }
        #expect(await eventually { stage.host.heldCount == 6 })
        #expect(try await client.ask(.stat).status == .ok)
        #expect(try await client.ask(.lookUp(client.namespace, [TestClient.name(1)])).status == .ok)
        #expect(tags.allSatisfy { client.end(of: $0) == nil })
        stage.host.releaseHeld()
        for (place, tag) in tags.enumerated() {
            #expect(try await client.end(of: tag).status == .ok)
            #expect(client.holds(client.slot(place + 1), place + 1))
        }
        await stage.end()
    }

    private static func requestsWaitForCredits(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try stage.client(slotCount: 64)
        try await client.open("n")
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set { $0.holdsGets = true }
        var tags: [UInt64] = []
        for index in 0..<64 {
            tags.append(try client.submit(.get(client.namespace, TestClient.name(1)), slot: client.slot(index)))
        }
        let granted = stage.limits.credits
        #expect(await eventually { stage.host.heldCount > 0 && stage.host.heldCount <= granted })
        stage.host.releaseHeld()
        for (place, tag) in tags.enumerated() {
            let response = try await client.end(of: tag)
            #expect(response.status == .ok && client.holds(client.slot(place), 1), "\(response), \(stage.counters)")
        }
        #expect(stage.counters.creditViolations == 0)
        #expect(client.losses.isEmpty)
        await stage.end()
    }

    private static func deadlinesKeepSlots(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set {
            $0.holdsGets = true; $0.holdsCancels = true
        }
        let tag = try client.submit(
            .get(client.namespace, TestClient.name(1)), slot: client.slot(1), within: 0.05)
        #expect(try await client.end(of: tag).status == .deadlinePassed)
        #expect(client.end(of: tag)?.slotIsFree == false)
        // The store may still write into the slot, so it is the network's until the store has said otherwise.
        #expect(await eventually { stage.host.cancelCount == 1 })
        #expect(!client.isReturned(tag) && client.client.inFlightCount == 1)
        stage.host.releaseHeld()
        #expect(await eventually { client.isReturned(tag) })
        #expect(client.client.inFlightCount == 0 && client.toldTwice.isEmpty)
        // A request without a slot has nothing to come back.
        #expect(try await client.ask(.stat).status == .ok)
        await stage.end()
    }

    private static func cancelledRequestsEnd(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set { $0.holdsGets = true }
        let tag = try client.submit(.get(client.namespace, TestClient.name(1)), slot: client.slot(1))
        #expect(await eventually { stage.host.heldCount == 1 })
        client.client.cancel(tag: tag)
        #expect(try await client.end(of: tag).status == .cancelled)
        #expect(client.end(of: tag)?.slotIsFree == true)
        client.fill(client.slot(1), 42)
        stage.host.releaseHeld()
        // A put that waits for room, cancelled before its payload has gone.
        stage.host.set { $0.holdsPuts = true }
        client.fill(client.slot(2), 2)
        let put = try client.submit(client.putRequest(2, client.slot(2)), slot: client.slot(2))
        #expect(await eventually { stage.host.heldCount == 1 })
        client.client.cancel(tag: put)
        // Over a stream the payload stands before the cancel: whichever came first, there is one end.
        stage.host.set { $0.holdsPuts = false }
        if carrier.isStream { stage.host.releaseHeld() }
        let status = try await client.end(of: put).status
        #expect(status == .cancelled || (carrier.isStream && status == .ok), "\(status)")
        #expect(client.holds(client.slot(1), 42))
        #expect(try await client.ask(.stat).status == .ok)
        #expect(client.losses.isEmpty && client.toldTwice.isEmpty)
        await stage.end()
    }

    private static func cancelsWaitForCredits(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try stage.client(slotCount: 32)
        try await client.open("n")
        stage.host.set {
            $0.holdsGets = true; $0.holdsCancels = true
        }
        var tags: [UInt64] = []
        for index in 0..<stage.limits.credits {
            tags.append(try client.submit(.get(client.namespace, TestClient.name(1)), slot: client.slot(index)))
        }
        #expect(await eventually { stage.host.heldCount >= stage.limits.credits / 2 })
        let asked = stage.host.heldCount
        for tag in tags { client.client.cancel(tag: tag) }
        // All credits are taken now, by gets and the first cancels; what the store knows of ends only when it says so.
        #expect(await eventually { stage.host.heldCount == stage.limits.credits })
        stage.host.releaseHeld()
        for tag in tags {
            let status = try await client.end(of: tag).status
            #expect(status == .cancelled || status == .absent, "\(status)")
        }
        #expect(stage.host.cancelCount <= asked)
        #expect(client.losses.isEmpty && stage.counters.creditViolations == 0)
        await stage.end()
    }

    /// Each is acknowledged behind the end of what it cancels: two that wait for each other, one behind both, one behind that,
    /// and one that names itself.
    private static func cancelsOfCancelsEnd(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        stage.host.set { $0.holdsCancels = true }
        let targets: [UInt32: UInt32] = [1: 2, 2: 1, 3: 1, 4: 3, 5: 5]
        for (number, target) in targets.sorted(by: { $0.key < $1.key }) {
            raw.send(.cancel(requestNumber: target), number: number)
        }
        try #require(raw.run { stage.host.heldCount == targets.count })
        stage.host.releaseHeld()
        var acknowledged: Set<UInt32> = []
        while acknowledged.count < targets.count, let answer = try raw.next() {
            #expect(answer.header.operation == .cancel && answer.header.status == .ok)
            acknowledged.insert(answer.header.requestNumber)
        }
        #expect(acknowledged == Set(targets.keys))
        raw.close()
        await stage.end()
    }

    private static func refusedPutsAreSkipped(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        stage.host.set { $0.refusesPuts = true }
        for index in 0..<6 { #expect(try await client.put(index, client.slot(0)) == .notAdmitted) }
        stage.host.set { $0.refusesPuts = false }
        #expect(try await client.put(1, client.slot(0)) == .ok)
        #expect(try await client.get(1, client.slot(1)).status == .ok)
        #expect(client.holds(client.slot(1), 1))
        await stage.end()
    }

    private static func fullStoresAreAskedAgain(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        stage.host.set { $0.fullCount = 5 }
        #expect(try await client.put(1, client.slot(0)) == .ok)
        stage.host.set { $0.fullCount = 3 }
        #expect(try await client.get(1, client.slot(1)).status == .ok)
        await stage.end()
    }
}
