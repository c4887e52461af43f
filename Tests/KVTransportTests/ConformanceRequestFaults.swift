// Clients that do not keep to the protocol: each is refused, counted, and costs the store nothing.

import KVModel
import KVSystem
import KVTransport
import Testing

extension ConformanceCase {
    static let requestFaults: [ConformanceCase] = [
        ConformanceCase("a client of other versions is told which is spoken", otherVersionsAreTold),
        ConformanceCase("who has not proved a key can ask nothing", strangersCanAskNothing),
        ConformanceCase("a body that ends early or late ends the session", oddBodiesEndTheSession),
        ConformanceCase("more requests than credits end the session", creditViolationsEndTheSession),
        ConformanceCase("a request number used twice ends the session", numbersAreUsedOnce),
        ConformanceCase("a payload longer than told ends the session", longPayloadsEndTheSession),
        ConformanceCase("a batch longer than the protocol's ends the session", longBatchesEndTheSession),
        ConformanceCase("answers and set-up frames from a client end the session", onlyRequestsAreTaken),
        ConformanceCase("a slot past the end of memory ends the session", for: { !$0.isStream }, wrappingSlotsEnd),
        ConformanceCase("a put of no bytes takes none of the next one's", emptyPutsTakeNothing),
        ConformanceCase("a payload that fails its checksum is refused and counted", corruptPutsAreRefused),
        ConformanceCase("bytes that are no frame end the connection", for: \.isStream, garbageEndsTheConnection),
        ConformanceCase("a frame cut short is counted as broken", for: \.isStream, cutFramesAreCounted),
        ConformanceCase("a frame that does not go on ends at its limit", for: \.isStream, halfFramesEnd),
        ConformanceCase("a payload that does not go on ends at its limit", for: \.isStream, halfPayloadsEnd),
    ]

    private static func wrappingSlotsEnd(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let slot = RemoteSlot(address: .max - 100, key: 0, byteCount: 4096)
        let name = TestClient.name(1)
        let put = Request.put(1, name, ObjectMetadata(), payloadBytes: 4096, checksum: 0)
        for request in [put, .get(1, name)] {
            let raw = try stage.raw()
            #expect(try raw.open() == nil)
            raw.send(.openNamespace(name: "n"), number: 1)
            #expect(try raw.reply(to: 1)?.status == .ok)
            let isPut = request.operation == .put
            raw.link.queue(request.header(number: 2, namespace: 1, payloadIsInSlot: isPut), payload: nil) {
                request.writeBody(to: &$0, slot: slot)
            }
            #expect(raw.ends(), "\(request.operation)")
        }
        #expect(await eventually { stage.counters.framesMalformed == 2 })
        await stage.end()
    }

    private static func emptyPutsTakeNothing(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        raw.send(.openNamespace(name: "n"), number: 1)
        #expect(try raw.reply(to: 1)?.status == .ok)
        let slot = MemorySlice(offset: 0, count: 65_536)
        for (round, refuses) in [(0, true), (2, false)] {
            stage.host.set { $0.refusesEmptyPuts = refuses }
            let names = [TestClient.name(round), TestClient.name(round + 1)]
            let empty = BlockChecksum.begin(names[0], payloadBytes: 0).value
            let whole = unsafe BlockChecksum.of(names[1], UnsafeRawBufferPointer(raw.memory[slot]))
            let first = UInt32(10 + round)
            raw.queue(
                .put(1, names[0], ObjectMetadata(), payloadBytes: 0, checksum: empty), number: first,
                slot: slot.prefix(0))
            raw.send(
                .put(1, names[1], ObjectMetadata(), payloadBytes: slot.count, checksum: whole), number: first + 1,
                slot: slot)
            #expect(try raw.reply(to: first)?.status == (refuses ? .invalid : .ok))
            #expect(try raw.reply(to: first + 1)?.status == .ok)
        }
        raw.close()
        await stage.end()
    }

    private static func otherVersionsAreTold(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        let hello = Hello(versions: 7...9, nonce: [UInt8](repeating: 1, count: 32), tenant: "tenant")
        raw.send(FrameHeader(.hello), hello.body)
        let (header, body) = try #require(try raw.next())
        #expect(header.operation == .refused && header.status == .invalid)
        #expect(String(decoding: body, as: UTF8.self).contains("the client offered 7 to 9"))
        #expect(raw.ends())
        #expect(await eventually { stage.counters.versionMismatches == 1 })
        // One that speaks this version among others is welcome.
        let other = try stage.raw()
        other.send(FrameHeader(.hello), Hello(versions: 1...9, nonce: hello.nonce, tenant: "tenant").body)
        #expect(try other.next()?.header.operation == .challenge)
        other.close()
        await stage.end()
    }

    private static func strangersCanAskNothing(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let operations = Operation.allCases.filter { $0 != .hello }
        for operation in operations {
            let raw = try stage.raw()
            raw.send(FrameHeader(operation, requestNumber: 1), [])
            #expect(raw.ends(), "\(operation)")
        }
        #expect(await eventually { stage.counters.framesMalformed == operations.count }, "\(stage.counters)")
        #expect(stage.host.openedCount == 0)
        await stage.end()
    }

    /// Bodies of every request, whole and right.
    private static var bodies: [(Operation, [UInt8])] {
        let name = TestClient.name(1)
        let requests: [Request] = [
            .openNamespace(name: "n"), .lookUp(1, [name, name]), .get(1, name),
            .put(1, name, ObjectMetadata(), payloadBytes: 0, checksum: 0),
            .pin(1, [name], owner: "o", lifetimeSeconds: 1), .unpin(1, [name], owner: "o"), .delete(1, [name]),
            .list(1, cursor: 0, countMax: 1), .describe(1, name), .reportCorrupt(1, name), .cancel(requestNumber: 3),
        ]
        return requests.map { request in
            var writer = FrameWriter()
            request.writeBody(to: &writer, slot: .none)
            return (request.operation, writer.bytes)
        }
    }

    private static func oddBodiesEndTheSession(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        var count: UInt64 = 0
        for (operation, body) in bodies {
            for odd in [Array(body.dropLast()), body + [0]] {
                let raw = try stage.raw()
                #expect(try raw.open() == nil)
                raw.send(FrameHeader(operation, requestNumber: 1, namespace: 1), odd)
                #expect(raw.ends(), "\(operation) with \(odd.count) bytes for \(body.count)")
                count += 1
            }
        }
        #expect(await eventually { stage.counters.framesMalformed == count }, "\(stage.counters)")
        #expect(stage.host.requests.isEmpty)
        await stage.end()
    }

    private static func creditViolationsEndTheSession(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        stage.host.set { $0.holdsGets = true }
        let slot = MemorySlice(offset: 0, count: 4096)
        for number in 1...UInt32(stage.limits.credits + 1) {
            raw.send(.get(1, TestClient.name(1)), number: number, slot: slot)
        }
        #expect(raw.ends())
        #expect(await eventually { stage.counters.creditViolations == 1 })
        #expect(stage.host.heldCount == stage.limits.credits)
        await stage.end()
    }

    private static func numbersAreUsedOnce(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        // After its answer a number may be used again; before it not.
        raw.send(.stat, number: 5)
        #expect(try raw.reply(to: 5)?.status == .ok)
        raw.send(.stat, number: 5)
        #expect(try raw.reply(to: 5)?.status == .ok)
        stage.host.set { $0.holdsGets = true }
        raw.send(.get(1, TestClient.name(1)), number: 5, slot: MemorySlice(offset: 0, count: 4096))
        raw.send(.stat, number: 5)
        #expect(raw.ends())
        #expect(await eventually { stage.counters.framesMalformed == 1 })
        await stage.end()
    }

    private static func longPayloadsEndTheSession(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        let request = Request.put(
            1, TestClient.name(1), ObjectMetadata(), payloadBytes: stage.limits.payloadBytesMax + 1, checksum: 0)
        let header = request.header(number: 1, namespace: 1, payloadIsInSlot: raw.link.isOneSided)
        var writer = FrameWriter()
        request.writeBody(to: &writer, slot: RemoteSlot(byteCount: header.payloadBytes))
        raw.send(header, writer.bytes)
        #expect(raw.ends())
        #expect(await eventually { stage.counters.framesMalformed == 1 })
        #expect(stage.host.requests.isEmpty)
        await stage.end()
    }

    private static func longBatchesEndTheSession(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        var writer = FrameWriter()
        let count = WireLimit.batchCountMax + 1
        writer.integer(UInt32(count))
        for _ in 0..<count { writer.name(TestClient.name(1)) }
        raw.send(FrameHeader(.lookUp, requestNumber: 1, namespace: 1), writer.bytes)
        #expect(raw.ends())
        #expect(await eventually { stage.counters.framesMalformed == 1 }, "\(stage.counters)")
        #expect(stage.host.requests.isEmpty)
        await stage.end()
    }

    private static func onlyRequestsAreTaken(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let operations = Operation.allCases.filter { !$0.isRequest }
        for operation in operations {
            let raw = try stage.raw()
            #expect(try raw.open() == nil)
            raw.send(FrameHeader(operation, requestNumber: 1), [])
            #expect(raw.ends(), "\(operation)")
        }
        for operation in [Operation.stat, .cancel] {
            let raw = try stage.raw()
            #expect(try raw.open() == nil)
            var header = FrameHeader(operation, requestNumber: 1)
            header.isReply = true
            raw.send(header, operation == .cancel ? [1, 0, 0, 0] : [])
            #expect(raw.ends(), "a reply to \(operation)")
        }
        #expect(stage.host.requests.isEmpty)
        #expect(await eventually { stage.counters.framesMalformed == operations.count + 2 }, "\(stage.counters)")
        await stage.end()
    }

    private static func corruptPutsAreRefused(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let client = try await stage.openClient()
        client.fill(client.slot(0), 1)
        let request = client.putRequest(1, client.slot(0))
        unsafe client.memory[client.slot(0)][70] ^= 1
        #expect(try await client.ask(request, slot: client.slot(0)).status == .corrupt)
        #expect(await eventually { stage.counters.payloadsCorrupt == 1 && stage.counters.payloadsReceived == 0 })
        #expect(stage.host.objectCount == 0)
        // The session goes on.
        unsafe client.memory[client.slot(0)][70] ^= 1
        #expect(try await client.ask(request, slot: client.slot(0)).status == .ok)
        await stage.end()
    }

    // MARK: What only a stream can carry

    private static func garbageEndsTheConnection(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        var random = RandomSource(seed: 42)
        var checksum = frameBytes(FrameHeader(.hello))
        checksum[8] ^= 1
        var body = frameBytes(
            FrameHeader(.hello), Hello(versions: 1...1, nonce: .init(repeating: 0, count: 32), tenant: "t").body)
        body[40] ^= 1
        var version = frameBytes(FrameHeader(.hello))
        version[4] = 2
        var long = FrameHeader(.hello)
        long.bodyBytes = 1 << 19
        let cases: [(String, [UInt8])] = [
            ("random", (0..<4096).map { _ in UInt8(truncatingIfNeeded: random.next()) }),
            ("another protocol", Array("GET / HTTP/1.1\r\nHost: store.test\r\n\r\n".utf8)),
            ("header checksum", checksum), ("body checksum", body),
            ("a hello too long", headerBytes(long)),
        ]
        for (what, bytes) in cases {
            let raw = try stage.raw()
            #expect(raw.run { raw.isConnected })
            raw.sendRaw(bytes)
            #expect(raw.ends(), "\(what)")
        }
        #expect(await eventually { stage.counters.framesMalformed == cases.count }, "\(stage.counters)")
        let raw = try stage.raw()
        #expect(raw.run { raw.isConnected })
        raw.sendRaw(version)
        #expect(raw.ends())
        #expect(await eventually { stage.counters.versionMismatches == 1 })
        // In the middle of a session, too.
        let late = try stage.raw()
        #expect(try late.open() == nil)
        late.sendRaw(cases[0].1)
        #expect(late.ends())
        #expect(await eventually { stage.counters.framesMalformed == cases.count + 1 })
        await stage.end()
    }

    /// A header as it is, without a body behind it.
    private static func headerBytes(_ header: FrameHeader) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: WireLimit.headerBytes)
        unsafe bytes.withUnsafeMutableBytes { unsafe header.write(to: $0) }
        return bytes
    }

    private static func cutFramesAreCounted(_ carrier: TestCarrier) async throws {
        let stage = try ConformanceStage(carrier)
        let whole = frameBytes(
            FrameHeader(.hello), Hello(versions: 1...1, nonce: .init(repeating: 0, count: 32), tenant: "t").body)
        let cuts = [1, WireLimit.headerBytes - 1, WireLimit.headerBytes, whole.count - 1]
        var sent: UInt64 = 0
        for cut in cuts {
            let raw = try stage.raw()
            #expect(raw.run { raw.isConnected })
            raw.sendRaw(Array(whole.prefix(cut)))
            sent += UInt64(cut)
            // A connection given up before TLS is up takes nothing of its frames along.
            #expect(raw.run { stage.counters.bytesReceived == sent })
            raw.close()
        }
        #expect(await eventually { stage.counters.connectionsBroken == cuts.count }, "\(stage.counters)")
        await stage.end()
    }

    private static func halfFramesEnd(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.stallLimit = Duration(milliseconds: 200)
        let stage = try ConformanceStage(carrier, limits: limits)
        let raw = try stage.raw()
        #expect(try raw.open() == nil)
        raw.sendRaw(Array(frameBytes(FrameHeader(.stat, requestNumber: 1)).prefix(20)))
        #expect(raw.ends())
        #expect(await eventually { stage.counters.deadlinesPassed == 1 })
        // Silence between frames is no fault.
        let quiet = try stage.raw()
        #expect(try quiet.open() == nil)
        #expect(!quiet.ends(within: 0.6))
        quiet.send(.stat, number: 1)
        #expect(try quiet.reply(to: 1)?.status == .ok)
        quiet.close()
        await stage.end()
    }

    private static func halfPayloadsEnd(_ carrier: TestCarrier) async throws {
        var limits = ServerLimits.test
        limits.stallLimit = Duration(milliseconds: 200)
        let stage = try ConformanceStage(carrier, limits: limits)
        for sent in [0, 1, 40_000] {
            let aborted = stage.host.abortedCount
            let raw = try stage.raw()
            #expect(try raw.open() == nil)
            raw.send(.openNamespace(name: "n"), number: 1)
            #expect(try raw.reply(to: 1)?.status == .ok)
            let request = Request.put(1, TestClient.name(1), ObjectMetadata(), payloadBytes: 50_000, checksum: 0)
            var writer = FrameWriter()
            request.writeBody(to: &writer, slot: .none)
            raw.sendRaw(frameBytes(request.header(number: 2, namespace: 1), writer.bytes))
            raw.sendRaw([UInt8](repeating: 7, count: sent))
            #expect(raw.ends(), "after \(sent) bytes")
            #expect(await eventually { stage.host.abortedCount == aborted + 1 })
        }
        #expect(await eventually { stage.counters.deadlinesPassed == 3 }, "\(stage.counters)")
        await stage.end()
    }
}
