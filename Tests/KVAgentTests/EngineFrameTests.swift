// Frames between engine and agent: those of the committed vectors, byte for byte, and none that is damaged.

import Foundation
import KVAgent
import KVIdentity
import KVModel
import KVSystem
import KVTiering
import KVTransport
import Testing

@Suite struct EngineFrameTests {
    private struct Vector: Decodable {
        var name: String
        var bytes: String
    }

    private struct Vectors: Decodable {
        var version: Int
        var frames: [Vector]
    }

    private static func vectors() throws -> [String: [UInt8]] {
        let file = try JSONDecoder().decode(Vectors.self, from: Data(PackageResources.engine_protocol_vectors_json))
        return Dictionary(uniqueKeysWithValues: file.frames.map { ($0.name, bytes($0.bytes)) })
    }

    private static func bytes(_ text: String) -> [UInt8] {
        let digits = Array(text.utf8).map { UInt8($0 < 0x3A ? $0 - 0x30 : $0 - 0x57) }
        return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }

    static func read(_ bytes: [UInt8], at now: Instant = .zero) throws -> EngineFrame {
        unsafe try bytes.withUnsafeBytes { all throws in
            let header = unsafe try EngineFrameHeader(reading: UnsafeRawBufferPointer(rebasing: all[..<16]))
            let body = unsafe UnsafeRawBufferPointer(rebasing: all[16...])
            guard header.bodyBytes == body.count else { throw FrameError(.truncated("body"), at: 0) }
            return unsafe try EngineFrame(header, body: body, at: now)
        }
    }

    /// The frames of the vectors, as this side writes them.
    private static func samples() throws -> [String: EngineFrame] {
        func key(_ number: Int) -> FullKey {
            func byte(_ index: Int) -> UInt64 { UInt64((number * 7 + index) % 256) }
            func word(_ word: Int) -> UInt64 { (0..<8).reduce(0) { $0 | byte(word * 8 + $1) << (8 * UInt64($1)) } }
            return FullKey(word(0), word(1), word(2), word(3))
        }
        let chain = [1, 2, 3].map { ObjectName(key($0)) }
        let part = [4, 5].map { ObjectName(key($0), group: 2, shard: 1, shardCount: 4) }
        func slice(_ region: Int32, _ offset: Int, _ count: Int) -> MemorySlice {
            MemorySlice(region: region, offset: offset, count: count)
        }
        var fields = Dictionary(uniqueKeysWithValues: NamespaceIdentity.required.map { ($0, "") })
        fields["block_tokens"] = "16"
        fields["model"] = "org/m"
        fields["layers"] = "32"
        let hello = EngineHello(
            kind: "vllm-tier", process: 0, ownership: .host, namespace: fields, storeNamespace: "default",
            blockTokens: 16, blockBytes: 1 << 21)
        var greeting = try Sample.greeting(hello)
        greeting.client = "holdfast-kv 0.1 π"
        greeting.versions = 1...3
        var welcome = EngineWelcome()
        (welcome.engine, welcome.agent, welcome.program) = (9, 0x0123_4567_89AB_CDEF, "holdfast 0.4")
        var found = EngineFound()
        (found.hitBlocks, found.hbmBlocks, found.dramBlocks, found.flashBlocks) = (3, 1, 1, 1)
        let loan = EngineLoan(number: 17, generation: (1 << 40) + 5)
        return [
            "arena": .openArena(isWritable: false), "arena_for_writing": .openArena(isWritable: true),
            "arena_opened": .arenaOpened(
                EngineArenaShape(
                    slotBytes: 1 << 21, slotCount: 32_768, byteCount: 1 << 36, loanCount: 4096,
                    lifetimeMax: Duration(seconds: 60), isWritable: true)),
            "arena_of_a_device": .arenaOpened(
                EngineArenaShape(
                    slotBytes: 1 << 21, slotCount: 32_768, byteCount: 1 << 36, loanCount: 4096,
                    lifetimeMax: Duration(seconds: 60), isWritable: true, memory: .emulatedDevice)),
            "taken_without_a_checksum": .taken(
                90,
                EngineTaken(
                    first: 1, loan: loan, time: Duration(nanoseconds: 4321),
                    blocks: [
                        LeasedBlock(slot: 7, checksum: 0x0123_4567_89AB_CDEF),
                        LeasedBlock(slot: 3, checksum: 0, hasChecksum: false),
                    ])),
            "take": .take(
                EngineTake(
                    job: 90, request: 77, names: chain, first: 1, count: 2,
                    computeWait: Duration(nanoseconds: 1_500_000), deadline: Instant(nanoseconds: 250_000_000),
                    lifetime: Duration(seconds: 2))),
            "take_of_another": .take(
                EngineTake(
                    job: 100, request: 77, asker: 258, names: chain, first: 1, count: 2,
                    computeWait: Duration(nanoseconds: 1_500_000), deadline: Instant(nanoseconds: 250_000_000),
                    lifetime: Duration(seconds: 2))),
            "take_of_request": .take(
                EngineTake(job: 91, request: 77, names: [], first: 0, count: 3, isVerified: false)),
            "taken": .taken(
                90,
                EngineTaken(
                    first: 1, loan: loan, time: Duration(nanoseconds: 4321),
                    blocks: [
                        LeasedBlock(slot: 7, checksum: 0x0123_4567_89AB_CDEF), LeasedBlock(slot: 3, checksum: 1),
                    ])),
            "taken_nothing": .taken(91, EngineTaken(first: 0)),
            "reserve": .reserve(EngineReserve(job: 92, count: 64, lifetime: Duration(seconds: 1))),
            "reserved": .reserved(
                92, EngineReserved(loan: loan, time: Duration(nanoseconds: 99), slots: [5, 6, 1000])),
            "reserved_nothing": .reserved(93, EngineReserved()),
            "commit": .commit(
                EngineCommit(
                    job: 94, request: 77, names: chain, first: 1, evictionClass: 1, loan: loan, slots: [6, 5])),
            "commit_of_another": .commit(
                EngineCommit(
                    job: 94, request: 77, asker: 258, names: chain, first: 1, evictionClass: 1, loan: loan,
                    slots: [6, 5])),
            "commit_of_a_shard": .commit(EngineCommit(job: 95, names: part, first: 0, loan: loan, slots: [5, 1000])),
            "committed": .committed(
                94, EngineSaved(count: 2, bytes: 65_536, time: Duration(nanoseconds: 777), kept: [1])),
            "release": .release(96, loan), "released": .released(96, wasInForce: true),
            "released_late": .released(97, wasInForce: false),
            "hello": .hello(greeting), "welcome": .welcome(welcome),
            "region_add": .addRegion(3, byteCount: 1 << 34), "region_added": .regionAdded(3),
            "region_drop": .dropRegion(3), "region_dropped": .regionDropped(3),
            "lookup": .lookUp(
                EngineLookUp(
                    ticket: 77, names: chain, promptTokens: 53, engineBlocks: 1, session: 0xFEDC_BA98_7654_3210, turn: 4
                )),
            "lookup_without_session": .lookUp(EngineLookUp(ticket: 78, names: part, promptTokens: 32)),
            "found": .found(77, found),
            "load": .load(
                EngineLoad(
                    job: 79, request: 77, names: chain, first: 1,
                    places: EnginePlaces(
                        segmentsPerBlock: 2,
                        slices: [
                            slice(0, 4096, 2048), slice(0, 0, 2048), slice(1, 1 << 33, 2048), slice(0, 8192, 2048),
                        ]),
                    computeWait: Duration(nanoseconds: 1_500_000), deadline: Instant(nanoseconds: 250_000_000))),
            "load_of_another": .load(
                EngineLoad(
                    job: 99, request: 77, asker: 3, names: chain, first: 1,
                    places: EnginePlaces(
                        segmentsPerBlock: 2,
                        slices: [
                            slice(0, 4096, 2048), slice(0, 0, 2048), slice(1, 1 << 33, 2048), slice(0, 8192, 2048),
                        ]),
                    computeWait: Duration(nanoseconds: 1_500_000), deadline: Instant(nanoseconds: 250_000_000))),
            "load_of_request": .load(
                EngineLoad(
                    job: 80, request: 77, names: [], first: 0, places: EnginePlaces(slices: [slice(0, 0, 4096)]))),
            "loaded": .loaded(79, EngineLoaded(first: 1, end: 3, bytes: 8192, time: Duration(nanoseconds: 123_456))),
            "loaded_nothing": .loaded(80, EngineLoaded(first: 0, end: 0, bytes: 0, time: Duration(nanoseconds: 99))),
            "save": .save(
                EngineSave(
                    job: 81, names: part, first: 0,
                    places: EnginePlaces(slices: [slice(2, 0, 65_536), slice(2, 65_536, 65_536)]), evictionClass: 1)),
            "save_of_another": .save(
                EngineSave(
                    job: 81, request: 77, asker: 3, names: part, first: 0,
                    places: EnginePlaces(slices: [slice(2, 0, 65_536), slice(2, 65_536, 65_536)]), evictionClass: 1)),
            "saved": .saved(81, EngineSaved(count: 2, bytes: 65_536, time: Duration(nanoseconds: 777), kept: [0b10])),
            "saved_many": .saved(
                82, EngineSaved(count: 70, bytes: 3, time: Duration(nanoseconds: 4), kept: [5, 1 << 5])),
            "finished": .finished(
                EngineRequestEnd(
                    ticket: 77, reason: .toolUse, cachedTokens: 48, timeToFirstToken: Duration(nanoseconds: 12_500_000),
                    resumesAfter: Duration(seconds: 3), answerTokens: 211)),
            "finished_unknown": .finished(EngineRequestEnd(ticket: 78)),
            "finished_branch": .finished(
                EngineRequestEnd(ticket: 98, reason: .branchEnded, cachedTokens: 48, answerTokens: 7)),
            "cancel": .cancel(79), "cancelled": .cancelled(79), "prefetch": .prefetch(chain), "touch": .touch(part),
            "pin": .pin(83, chain, lifetime: Duration(seconds: 60)), "pinned": .pinned(83, .granted, blocks: 3),
            "pinned_over_budget": .pinned(84, .overBudget, blocks: 0), "unpin": .unpin(83), "subscribe": .subscribe,
            "changed": .changed(
                added: [ObjectName(key(1)), ObjectName(key(2), group: 1, shard: 2, shardCount: 3)],
                removed: [ObjectName(key(9))], hasGap: false),
            "changed_with_gap": .changed(added: [], removed: [], hasGap: true), "stats": .askStatistics(85),
            "statistics": .statistics(
                85, [EngineStatistic("blocks", 12), EngineStatistic("engine_frames_total", 1 << 40)]),
            "ping": .ping(7, [0xAB, 0xCD]), "pong": .pong(7, [0xAB, 0xCD]), "goodbye": .goodbye,
            "farewell": .farewell("the agent stops"),
            "refused": .refused(77, EngineRefusal(.layout, "dtype: bf16 | fp8")),
        ]
    }

    @Test func vectorsAreWrittenAndReadAlike() throws {
        let vectors = try Self.vectors(), samples = try Self.samples()
        #expect(Set(vectors.keys) == Set(samples.keys))
        for (name, frame) in samples {
            #expect(frame.bytes() == vectors[name], "\(name)")
            #expect(try Self.read(vectors[name] ?? []) == frame, "\(name)")
        }
    }

    @Test func everyKindHasAVector() throws {
        let kinds = Set(try Self.vectors().values.map { $0[4] })
        #expect(kinds == Set(EngineFrameKind.allCases.map(\.rawValue)))
    }

    @Test func deadlinesTravelAsDurations() throws {
        let sent = Instant(seconds: 100), heard = Instant(seconds: 5)
        let load = EngineLoad(
            job: 1, names: Sample.names(1, 1), first: 0, places: Sample.rows([0]), deadline: sent + Duration(seconds: 2)
        )
        guard case .load(let read) = try Self.read(EngineFrame.load(load).bytes(at: sent), at: heard) else {
            Issue.record("another frame")
            return
        }
        #expect(read.deadline == heard + Duration(seconds: 2))
    }

    @Test(arguments: [0, 65_537, 1_500_000_000, Int32.max])
    func aHelloWithBlocksOfImpossiblyManyTokensIsRefused(blockTokens: Int32) throws {
        var greeting = try Sample.greeting()
        #expect(try Self.read(EngineFrame.hello(greeting).bytes()) == .hello(greeting))
        greeting.hello.blockTokens = blockTokens
        #expect(throws: FrameError.self) { try Self.read(EngineFrame.hello(greeting).bytes()) }
    }

    @Test func everyTruncationIsRefused() throws {
        for (name, bytes) in try Self.vectors() {
            for count in 16..<max(16, bytes.count) {
                var cut = Array(bytes[..<count])
                let length = UInt32(count - 16)
                for place in 0..<4 { cut[place] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(place))) }
                // Pings are as long as they are; everything else has one length.
                guard !name.hasPrefix("p") || !name.hasSuffix("ng") else { continue }
                #expect(throws: (any Error).self, "\(name) cut to \(count)") { try Self.read(cut) }
            }
        }
    }

    /// Whatever comes is refused, or is a frame that is written as it was read.
    @Test func changedBytesAreRefusedOrMeanSomething() throws {
        var random = RandomSource(seed: 7)
        let vectors = try Self.vectors().sorted { $0.key < $1.key }
        for _ in 0..<40_000 {
            var bytes = vectors[Int(random.next() % UInt64(vectors.count))].value
            for _ in 0...(random.next() % 3) {
                bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            guard let frame = try? Self.read(bytes) else { continue }
            let again = try Self.read(frame.bytes())
            #expect(again == frame)
        }
    }

    @Test func pythonReadsTheSameVectors() throws {
        let said = try runPython(["Tools/python/tests/check_protocol.py"])
        #expect(said == "59 frames agree\n")
    }
}

/// Runs a Python program of the repository; what it printed.
func runPython(_ arguments: [String]) throws -> String {
    let top = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.currentDirectoryURL = top
    process.arguments = ["python3"] + arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    if process.terminationStatus != 0 { Issue.record("\(arguments[0]) failed: \(said)") }
    return said
}
