// The agent as a process has it: a door, and decisions that the first engine's hello brings about.

import Foundation
import KVAgent
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite(.serialized) struct SidecarTests {
    private func withSidecar(
        _ change: (inout AgentConfiguration) -> Void = { _ in }, _ body: (AgentSidecar) throws -> Void
    ) throws {
        let folder = try Folder()
        var configuration = AgentConfiguration()
        configuration.socket = folder.path("s")
        configuration.dram = 16 << 20
        configuration.http = ""
        change(&configuration)
        let sidecar = try AgentSidecar(configuration, in: AgentSurroundings(links: fastLinks), logger: quietLogger())
        defer { _ = sidecar.drain(within: Duration(seconds: 5)) }
        try body(sidecar)
    }

    private func client(_ sidecar: AgentSidecar, blockBytes: Int = 4096, model: String = "test") throws -> EngineClient
    {
        var hello = Sample.hello(model: model)
        hello.blockBytes = blockBytes
        var configuration = Sample.patient(sidecar.configuration.socket, hello)
        configuration.backoff = Duration(milliseconds: 10)
        return try EngineClient(configuration)
    }

    /// The door lets no engine in before the earlier ones of its process are forgotten; who is refused must be, too.
    @Test func afterARefusalEnginesOfTheSameProcessAreStillAnswered() throws {
        try withSidecar { sidecar in
            let first = try client(sidecar)
            defer { first.close() }
            #expect(first.waitUntilOpen(within: waitLimit))
            for (blockBytes, model, reason) in [(8192, "test", "8192 bytes"), (4096, "other", "model: other | test")] {
                let stranger = try client(sidecar, blockBytes: blockBytes, model: model)
                #expect(Sample.wait { stranger.refusal != nil })
                #expect(stranger.refusal?.reason.contains(reason) == true, "\(stranger.refusal?.reason ?? "")")
                stranger.close()
                let next = try client(sidecar)
                #expect(next.waitUntilOpen(within: Duration(seconds: 5)), "after a refusal for \(reason)")
                next.close()
            }
            #expect(Sample.wait { sidecar.view.leaving == 0 })
        }
    }

    /// What only an engine's hello can show: its blocks do not fit. Another engine's may.
    /// A value above 0, which anybody may take; the thread is known by its name and by a value that no other test asks for.
    @Test(arguments: [13]) func theAgentsThreadTakesItsNiceValue(nice: Int) throws {
        try withSidecar({ $0.nice = nice }) { sidecar in
            let engine = try client(sidecar)
            defer { engine.close() }
            #expect(engine.waitUntilOpen(within: waitLimit))
            let threads = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")
            let values = threads.compactMap { thread -> Int? in
                guard let line = try? String(contentsOfFile: "/proc/self/task/\(thread)/stat", encoding: .utf8),
                    line.contains("(hf-agent)"), let end = line.lastIndex(of: ")")
                else { return nil }
                // The 19th field of the line, the 17th behind the name.
                return Int(line[end...].split(separator: " ")[17])
            }
            #expect(values.contains(nice), "\(values)")
        }
    }

    /// A wrong key is seen at the start: an alert fires before the first engine finds nothing.
    @Test func aStoreThatRefusesTheKeyIsSeenBeforeAnEngineComes() throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder)
        for (name, key, usable) in [("right", UInt8(9), true), ("wrong", 8, false)] {
            var configuration = AgentConfiguration()
            configuration.socket = folder.path(name)
            configuration.dram = 16 << 20
            configuration.http = ""
            configuration.store = "127.0.0.1:\(store.port)"
            configuration.tenant = "guest"
            var surroundings = AgentSurroundings(links: fastLinks)
            surroundings.storeSecret = Array(repeating: key, count: 32)
            let sidecar = try AgentSidecar(configuration, in: surroundings, logger: quietLogger())
            defer { _ = sidecar.drain(within: Duration(seconds: 5)) }
            let line = "holdfast_agent_store_usable \(usable ? 1 : 0)\n"
            #expect(
                Sample.wait {
                    sidecar.store?.isUsable == usable && (usable || sidecar.store?.reason.contains("refused") == true)
                }, "\(name): \(sidecar.store?.reason ?? "")")
            #expect(AgentMetrics.text(sidecar).contains(line))
            #expect(SidecarStatus(sidecar).store?.isUsable == usable)
            #expect(sidecar.agent == nil)
        }
    }

    @Test func anAgentThatCannotServeIsNotReadyUntilItCan() throws {
        try withSidecar { sidecar in
            #expect(sidecar.isReady && SidecarStatus(sidecar).state == "waiting")
            let large = try client(sidecar, blockBytes: 2 << 20)
            #expect(Sample.wait { large.refusal != nil })
            #expect(large.refusal?.code == .room, "\(large.refusal.map { "\($0)" } ?? "")")
            #expect(!sidecar.isReady && sidecar.unreadiness?.contains("has room for 8 blocks") == true)
            #expect(SidecarStatus(sidecar).state == "failing" && SidecarStatus(sidecar).failure != nil)
            large.close()
            let small = try client(sidecar)
            defer { small.close() }
            #expect(small.waitUntilOpen(within: waitLimit))
            #expect(sidecar.isReady && SidecarStatus(sidecar).state == "serving")
        }
    }

    private func numbers(_ visitor: EngineClient) -> [String: UInt64] {
        let answer = Box<[EngineStatistic]>()
        visitor.statistics { answer.set($0) }
        return Dictionary((answer.wait() ?? []).map { ($0.name, $0.value) }) { first, _ in first }
    }

    private func visitor(_ sidecar: AgentSidecar) throws -> EngineClient {
        var hello = Sample.hello(model: "a visitor's", kind: EngineProtocol.visitorKind)
        (hello.blockBytes, hello.storeNamespace) = (12_288, "elsewhere")
        return try EngineClient(EngineClientConfiguration(path: sidecar.configuration.socket, hello: hello))
    }

    /// Whoever asks how the agent is, before an engine has come, must not say how long its blocks are.
    @Test func aVisitorDecidesNothingAndIsWelcomedWhateverEnginesSaid() throws {
        try withSidecar { sidecar in
            let early = try visitor(sidecar)
            #expect(early.waitUntilOpen(within: waitLimit))
            let nobody = numbers(early)
            #expect(nobody["engines"] == 0 && nobody["block_payload_bytes"] == nil && nobody["block_tokens"] == nil)
            #expect(sidecar.agent == nil)
            early.close()
            let engine = try client(sidecar)
            defer { engine.close() }
            #expect(engine.waitUntilOpen(within: waitLimit))
            let later = try visitor(sidecar)
            defer { later.close() }
            #expect(later.waitUntilOpen(within: waitLimit))
            #expect(Sample.wait { numbers(later)["engines"] == 1 })
            let seen = numbers(later)
            #expect(seen["block_payload_bytes"] == 4096 && seen["block_tokens"] == 16)
            // Visitors are told of only to those who look at connections.
            #expect(Sample.wait { sidecar.view.engines.map(\.kind) == ["replay"] })
            let (ticket, hits) = lookUp(engine, Sample.names(3, 4))
            #expect(hits == 0)
            engine.finished(EngineRequestEnd(ticket: ticket))
        }
    }

    private func save(_ client: EngineClient, _ names: [ObjectName]) throws {
        let memory = try EngineMemory(blocks: names.count)
        let region = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
        let saved = Box<EngineSaved>()
        client.save(names, first: 0, places: Sample.rows(Array(names.indices), region: region)) { saved.set($0) }
        #expect(saved.wait()?.keptCount == names.count)
    }

    private func lookUp(_ client: EngineClient, _ names: [ObjectName], session: UInt64 = 0) -> (EngineTicket, UInt32?) {
        let found = Box<EngineFound>()
        let ticket = client.lookUp(names, promptTokens: Int32(names.count * 16 + 1), session: session) { found.set($0) }
        return (ticket, found.wait()?.hitBlocks)
    }

    /// Every family says what it is and of which kind, once; a name that a sidecar should have is there.
    @Test func everyMetricHasAMeaningAndAKind() throws {
        try withSidecar { sidecar in
            let engine = try client(sidecar)
            defer { engine.close() }
            #expect(engine.waitUntilOpen(within: waitLimit))
            try save(engine, Sample.names(5, 3))
            #expect(Sample.wait { AgentMetrics.text(sidecar).contains("holdfast_objects{tier=\"dram\"} 3") })
            let lines = AgentMetrics.text(sidecar).split(separator: "\n")
            var helped: [Substring] = []
            var typed: [Substring] = []
            for line in lines {
                let words = line.split(separator: " ")
                if line.hasPrefix("# HELP ") {
                    #expect(words.count > 3, "\(line)")
                    helped.append(words[2])
                } else if line.hasPrefix("# TYPE ") {
                    typed.append(words[2])
                } else {
                    let name = line.prefix { $0 != "{" && $0 != " " }
                    #expect(typed.last.map { name.hasPrefix($0) } == true, "\(line) stands under another name")
                    #expect(words.last.flatMap { Double($0) } != nil, "\(line)")
                }
            }
            #expect(helped == typed && Set(typed).count == typed.count)
            for family in AgentMetrics.tierFamilies {
                #expect(typed.contains("holdfast_\(family.name)"), "\(family.name) is missing")
            }
            let text = AgentMetrics.text(sidecar)
            #expect(text.contains("holdfast_bytes_total{dir=\"in\",tier=\"dram\"} 12288"))
            #expect(text.contains("holdfast_requests_total{op=\"put\",tier=\"dram\",result=\"ok\"} 3"))
            #expect(text.contains("holdfast_op_seconds_count{op=\"save\",tier=\"all\"} 1"))
            #expect(text.contains("holdfast_clients 1") && !text.contains("tier=\"nvme\",result"))
        }
    }

    /// What `report --agent` shows: time as engines told it, tokens as they were booked, in the span and not before.
    @Test func theRecordOfASpanHoldsWhatCameInIt() throws {
        try withSidecar { sidecar in
            let engine = try client(sidecar)
            defer { engine.close() }
            #expect(engine.waitUntilOpen(within: waitLimit))
            func request(_ seed: UInt64, firstToken seconds: Double) {
                let (ticket, _) = lookUp(engine, Sample.names(seed, 4))
                engine.finished(EngineRequestEnd(ticket: ticket, timeToFirstToken: Duration(seconds: seconds)))
            }
            func booked(_ tokens: UInt64) -> Bool {
                Sample.wait { sidecar.record(ofLast: 1e5)["prompt_tokens"] == tokens }
            }
            request(1, firstToken: 30)
            #expect(booked(65) && Sample.wait { sidecar.record(ofLast: 1e5).times["first_token"]?.count == 1 })
            sidecar.rememberMinute()
            let before = sidecar.uptimeSeconds
            request(2, firstToken: 0.2)
            request(3, firstToken: 0.2)
            #expect(booked(195) && Sample.wait { sidecar.record(ofLast: 1e5).times["first_token"]?.count == 3 })
            let record = sidecar.record(ofLast: sidecar.uptimeSeconds - before)
            #expect(record["prompt_tokens"] == 130 && record.minutes.count == 1)
            let times = try #require(record.times["first_token"])
            #expect(times.count == 2 && times.quantile(0.99).map { (0.2...0.225).contains($0) } == true)
            let classes = record.counts.filter { $0.key.hasPrefix("ledger_") }.values.reduce(0, +)
            #expect(classes == 130 && record.blockBytes == 4096)
        }
    }

    private func load(
        _ client: EngineClient, _ names: [ObjectName], request: EngineTicket
    ) throws -> (end: Int32?, memory: EngineMemory) {
        let memory = try EngineMemory(blocks: 2 * names.count)
        let region = client.addRegion(descriptor: memory.descriptor, byteCount: memory.byteCount)
        let loaded = Box<EngineLoaded>()
        client.load(
            first: 0, places: Sample.rows(Array(names.count..<2 * names.count), region: region), request: request
        ) { loaded.set($0) }
        return (loaded.wait()?.end, memory)
    }

    /// With the settings that an operator gets who says nothing but where the store is.
    @Test func theFirstLookUpOfAFreshAgentFindsAndLoadsWhatAnotherSaved() throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder)
        var surroundings = AgentSurroundings(
            links: LinkView(
                dram: LinkState(bandwidth: 5e9, delay: Duration(nanoseconds: 15_000)),
                nvme: LinkState(bandwidth: 2e9, delay: Duration(nanoseconds: 100_000)),
                flash: LinkState(bandwidth: 1e9, delay: Duration(nanoseconds: 300_000))))
        surroundings.storeSecret = Array(repeating: 9, count: 32)
        func sidecar(_ name: String) throws -> AgentSidecar {
            var configuration = AgentConfiguration()
            configuration.socket = folder.path(name)
            configuration.dram = 16 << 20
            configuration.http = ""
            configuration.store = "127.0.0.1:\(store.port)"
            configuration.tenant = "guest"
            // The machine of a test may be busy with others: a second in place of 5 ms. Its prompts cost a second a block,
            // so that the deadline of a load is no matter of the machine either.
            configuration.ask = 1
            // What was found in the store is to be in the store when it is loaded.
            configuration.prefetch = false
            configuration.prefill = PrefillCost(base: 0, linear: 0.1, quadratic: 0)
            return try AgentSidecar(configuration, in: surroundings, logger: quietLogger())
        }
        let names = Sample.names(5, 40)
        let one = try sidecar("one")
        defer { _ = one.drain(within: Duration(seconds: 5)) }
        let writer = try client(one)
        defer { writer.close() }
        #expect(writer.waitUntilOpen(within: waitLimit))
        try save(writer, names)
        #expect(Sample.wait { one.agent?.status.totals["blocks_store_put"] == names.count })

        let other = try sidecar("other")
        defer { _ = other.drain(within: Duration(seconds: 5)) }
        let reader = try client(other)
        defer { reader.close() }
        #expect(reader.waitUntilOpen(within: waitLimit))
        let (ticket, hits) = lookUp(reader, names, session: 4711)
        #expect(hits == 40)
        let (end, memory) = try load(reader, names, request: ticket)
        #expect(end == 40)
        for block in 0..<40 { #expect(memory.holds(UInt8(block + 1), at: 40 + block)) }
        reader.finished(EngineRequestEnd(ticket: ticket))

        // And it can say why.
        let agent = try #require(other.agent)
        let session = try #require(agent.explain(session: 4711))
        #expect(session.loads.count == 1 && session.loads[0].foundInStore == 40 && session.loads[0].came == 40)
        #expect(session.sentences[0].contains("40 blocks found (40 in the store)"), "\(session.sentences)")
        #expect(session.sentences[0].contains("40 were loaded"), "\(session.sentences)")
        let block = try #require(agent.explain(names[7]))
        #expect(block.block?.depth == 7 && block.loads == session.loads || block.loads.count == 1)
        #expect(block.sentences.contains { $0.contains("the store, as it last said") }, "\(block.sentences)")
        #expect(agent.explain(Sample.names(6, 1)[0])?.block == nil)
        #expect(agent.explain(session: 1)?.loads == [])
    }

    @Test func nodeMemoryIsAnArenaOfNoMoreThanItsBytes() throws {
        try withSidecar({ $0.dram = 33 << 20 }) { sidecar in
            #expect(sidecar.memory == nil)
            let client = try client(sidecar)
            defer { client.close() }
            #expect(client.waitUntilOpen(within: waitLimit))
            #expect(Sample.wait { sidecar.memory?.isComplete == true })
            let memory = try #require(sidecar.memory)
            #expect(memory.readyBytes == 32 << 20)
            #expect(memory.readySlots == (32 << 20) / 4096)
            #expect(memory.pinnedBytes == memory.readyBytes || !memory.failures.isEmpty)
            #expect(Sample.wait { sidecar.agent?.status.dram.totalBytes == 32 << 20 })
            let status = try String(decoding: JSONEncoder().encode(SidecarStatus(sidecar)), as: UTF8.self)
            #expect(status.contains("\"readyBytes\":\(32 << 20)"))
        }
    }

    /// Engines come and go; the blocks and the pages under them stay.
    @Test func anEngineThatComesBackFindsItsBlocksWarm() throws {
        try withSidecar { sidecar in
            let names = Sample.names(8, 30)
            let first = try client(sidecar)
            #expect(first.waitUntilOpen(within: waitLimit))
            try save(first, names)
            first.close()
            let second = try client(sidecar)
            defer { second.close() }
            #expect(second.waitUntilOpen(within: waitLimit))
            let (ticket, hits) = lookUp(second, names)
            #expect(hits == 30)
            #expect(try load(second, names, request: ticket).end == 30)
        }
    }
}
