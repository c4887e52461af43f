// What is replayed is what is deployed: the same trace, in lock step, through the decisions over the live world (real
// memory, a real drive on a file, a real store over TCP) and over the simulated one. Afterwards every block is in the same
// tiers in both, and the ledgers are equal.

import Foundation
import KVAgent
import KVFlash
import KVModel
import KVSimulation
import KVSystem
import KVTiering
import KVTrace
import KVTransport
import Testing

/// The simulated world behind the same desk that live engines speak to.
private struct TwinWorld: World, ~Copyable {
    var inner: SimulatedWorld
    var desk: EngineDesk
    var orders: [TransferNumber: TransferOrder] = [:]
    /// Effects under way in the order of their beginnings: their ends are told in this order, as in the live world.
    var begun: [EffectName] = []
    var early: [Event] = []

    var now: Instant { inner.now }
    mutating func next(until deadline: Instant) -> Event { inner.next(until: deadline) }

    mutating func perform(_ command: Command) -> Submission {
        switch command {
        case .answer, .loading, .ready, .pinned:
            desk.take(command)
            return .accepted
        case .transfer(let order):
            desk.flightBegan(order.request, touches: order.touchesEngine)
            orders[order.transfer] = order
        default: break
        }
        if let name = EffectName(command) { begun.append(name) }
        return inner.perform(command)
    }

    mutating func takeInOrder() -> Event? {
        while let (_, event) = inner.takeEvent() { early.append(event) }
        let place = early.firstIndex { EffectName($0).map { $0 == begun.first } ?? true }
        guard let place else { return nil }
        if EffectName(early[place]) != nil { begun.removeFirst() }
        return early.remove(at: place)
    }
}

/// A node in virtual time, asked as engines ask.
private final class SimulatedNode {
    var world: TwinWorld
    var manager: TieringManager
    let links: LinkView
    private var tickets: EngineTicket = 0

    init(_ tiering: TieringConfiguration, store: consuming StoreManager, links: LinkView) throws {
        let scenario = try Scenario.read(
            yaml: nil, file: "twin",
            overrides: [
                ("replicas", "1"), ("tiers.nvme.use", "true"), ("tiers.dram.latency", "0"),
                ("tiers.nvme.latency", "0"), ("tiers.flash.latency", "0"),
            ])
        // So fast that nothing takes time: what is compared are decisions, not speeds.
        world = TwinWorld(
            inner: SimulatedWorld(scenario, hostToGPU: 1e18, store: store, storeRoundTrip: 0),
            desk: EngineDesk(tiering, limits: AgentLimits()))
        manager = TieringManager(tiering)
        self.links = links
    }

    private func handle(_ event: Event) {
        // Taken first: while the end is handled its number may be used again.
        var ended: TransferOrder?
        if case .transferEnded(let end) = event { ended = world.orders.removeValue(forKey: end.transfer) }
        manager.handle(event, in: &world)
        world.desk.handled(event)
        if let ended { world.desk.flightEnded(ended.request, touches: ended.touchesEngine) }
        while !world.desk.endedSaves.isEmpty {
            let ended = world.desk.endedSaves
            world.desk.endedSaves = []
            for number in ended { world.desk.answerSave(number) { manager.isKept($0) } }
        }
    }

    private func drain() {
        while true {
            if !world.desk.events.isEmpty {
                handle(world.desk.events.removeFirst())
            } else if let event = world.takeInOrder() {
                handle(event)
            } else if world.inner.nextMoment < .max {
                world.inner.advance(to: world.inner.nextMoment)
            } else {
                return
            }
        }
    }

    func post(_ message: EngineMessage, at time: Instant) {
        drain()
        while manager.nextDeadline <= time {
            world.inner.advance(to: manager.nextDeadline.nanoseconds)
            handle(.deadline)
            drain()
        }
        world.inner.advance(to: time.nanoseconds)
        world.desk.take(message, links: links, at: world.now)
        drain()
    }

    /// The reply that `pick` understands; all others up to it are dropped.
    func reply<Value>(_ pick: (EngineReply) -> Value?) throws -> Value {
        for reply in world.desk.replies {
            guard let value = pick(reply) else { continue }
            world.desk.replies = []
            return value
        }
        throw OperatorError("the simulated node gives no reply")
    }
}

@Suite struct TwinTests {
    /// The store is larger than everything the trace ever writes: what it evicts is the store's own business, and its
    /// policy is not the model's.
    @Test(arguments: [(InclusionMode.keep, Int.max), (.exclusive, .max), (.inclusive, .max), (.keep, 5)])
    func liveAndSimulatedDecideAlike(inclusion: InclusionMode, pieces: Int) async throws {
        let trace = try Trace.read(from: Self.traceFile)
        let requests = trace.requests.prefix(120)
        let folder = try Folder()
        let store = try StoreBench(folder: folder, bytes: 256 << 20)
        let links = fastLinks
        let flashBytes = 24 << 20
        let geometry = try FlashGeometry(totalBytes: flashBytes, extentBytes: 64 << 10)
        var tiering = smallTiering(dramBlocks: 384, nvme: true, hasStore: true)
        tiering.inclusion = inclusion
        tiering.nvme?.bytes = geometry.extentCount * blockBytes

        var settings = AgentSettings(tiering: tiering, links: .given(links))
        settings.clock = .given
        settings.localFlash = LocalFlash(
            path: folder.path("local.flash"), byteCount: flashBytes, extentBytes: 64 << 10)
        settings.store = store.access
        let bench = try AgentBench(settings, folder: folder)
        let engine = try TestEngine(bench.agent, rows: 320)
        let node = try SimulatedNode(
            tiering,
            store: StoreManager(
                StoreManagerConfiguration(
                    blockBytes: blockBytes, bytes: 100_000 * blockBytes,
                    makePolicy: { PolicyName.lru.makePolicy(capacity: $0)! }, writeBudget: nil,
                    knownBlocksMax: 200_000)), links: links)
        try attach(node)

        for request in requests {
            engine.time = request.arrival
            let names = trace.path(of: request).map { name(UInt64($0)) }
            let live = try engine.serve(
                names, tokens: Int(request.inputTokens), session: UInt64(request.session + 1), pieces: pieces)
            let simulated = try serve(node, names, request, pieces: pieces)
            #expect(live == simulated, "request at \(request.arrival.seconds) s")
            _ = try bench.status()
        }
        let names = (0..<UInt64(trace.uniqueBlockCount)).map(name)
        let keys = names.map(\.blockKey)
        let inLive = try #require(
            bench.agent.inspect { manager in
                keys.map { manager.whereabouts($0) }
            })
        let inSimulation = keys.map { node.manager.whereabouts($0) }
        for index in keys.indices where inLive[index] != inSimulation[index] {
            Issue.record("block \(index) is in \(inLive[index]) live, in \(inSimulation[index]) simulated")
            break
        }
        let liveLedger = try #require(bench.agent.inspect { $0.ledger })
        #expect(liveLedger == node.manager.ledger)
        #expect(liveLedger[.dram] > 0 && liveLedger[.flash] > 0, "\(liveLedger)")
        // Two tiers of one size and one policy hold the same, unless the lower holds what the upper does not.
        #expect(inclusion != .exclusive || liveLedger[.nvme] > 0, "\(liveLedger)")
        #expect(try #require(bench.agent.inspect { $0.audit() }) == [])
        #expect(node.manager.audit() == [])
        try await compareStores(store, node, names)

        // The journal of the same run gives a fresh manager the same commands.
        bench.agent.shutDown()
        var journal = try Journal(bench.agent.journalBytes)
        var fresh = TieringManager(tiering)
        let verdict = try journal.replay(into: &fresh)
        #expect(verdict.difference == nil)
        #expect(verdict.commands > 1000)
        #expect(fresh.ledger == liveLedger)
    }

    /// A prompt that is saved in pieces, as engines compute it, leaves the same blocks in every tier as one that is saved whole.
    @Test(arguments: [PolicyName.holdfast, .lru, .s3fifo])
    func pieceByPieceTheSameIsKept(policy: PolicyName) throws {
        let trace = try Trace.read(from: Self.traceFile)
        let links = fastLinks
        var tiering = smallTiering(dramBlocks: 512, nvme: true, policy: policy)
        tiering.nvme?.bytes = 256 * blockBytes
        func replay(pieces: Int) throws -> SimulatedNode {
            let store = StoreManager(
                StoreManagerConfiguration(
                    blockBytes: blockBytes, bytes: blockBytes, makePolicy: { PolicyName.lru.makePolicy(capacity: $0)! },
                    writeBudget: nil, knownBlocksMax: 16))
            let node = try SimulatedNode(tiering, store: store, links: links)
            try attach(node)
            for request in trace.requests.prefix(600) {
                let names = trace.path(of: request).map { name(UInt64($0)) }
                _ = try serve(node, names, request, pieces: pieces)
            }
            return node
        }
        let whole = try replay(pieces: .max)
        let keys = (0..<UInt64(trace.uniqueBlockCount)).map { name($0).blockKey }
        #expect(whole.manager.ledger[.evicted] > 0 && whole.manager.ledger[.dram] > 0, "\(whole.manager.ledger)")
        for pieces in [1, 4] {
            let cut = try replay(pieces: pieces)
            #expect(cut.manager.ledger == whole.manager.ledger)
            #expect(keys.map { cut.manager.whereabouts($0) } == keys.map { whole.manager.whereabouts($0) })
            #expect(
                keys.map { cut.manager.story(of: $0)?.uses ?? 0 } == keys.map { whole.manager.story(of: $0)?.uses ?? 0 }
            )
            #expect(cut.manager.audit() == [])
        }
    }

    private static let traceFile = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Traces/mooncake.jsonl.gz").path

    private func name(_ number: UInt64) -> ObjectName {
        ObjectName(FullKey(mixBits(number), mixBits(number &+ 9), mixBits(number &+ 18), number))
    }

    private func attach(_ node: SimulatedNode) throws {
        let hello = EngineHello(
            kind: "replay", process: 1, ownership: .engine, namespace: ["model": "m"], storeNamespace: "test",
            blockTokens: 16, blockBytes: blockBytes)
        node.post(.attach(0, hello), at: .zero)
        let memory = try BlockMemory(byteCount: 320 * blockBytes, wantsHugePages: false)
        node.post(.addRegion(0, EngineRegion(number: 3, memory: memory)), at: .zero)
    }

    private func places(_ count: Int) -> EnginePlaces {
        EnginePlaces(
            slices: (0..<count).map { MemorySlice(region: 3, offset: $0 * blockBytes, count: blockBytes) })
    }

    /// The same request as `TestEngine.serve`.
    private func serve(
        _ node: SimulatedNode, _ names: [ObjectName], _ request: TraceRequest, pieces: Int
    ) throws -> Int {
        let time = request.arrival
        let ticket = EngineTicket(request.firstReference) &* 4 &+ 1
        node.post(
            .lookUp(
                0,
                EngineLookUp(
                    ticket: ticket, names: names, promptTokens: request.inputTokens,
                    session: UInt64(request.session + 1))), at: time)
        let answer = try node.reply { if case .found(_, ticket, let answer) = $0 { answer } else { nil } }
        var end = 0
        if answer.hitBlocks > 0 {
            node.post(
                .load(
                    0, EngineLoad(job: ticket + 1, request: ticket, names: [], first: 0, places: places(names.count))),
                at: time)
            end = Int(
                try node.reply { reply -> Int32? in
                    if case .loaded(_, ticket + 1, _, let end) = reply { end } else { nil }
                })
        }
        for first in stride(from: end, to: names.count, by: pieces) {
            let last = min(names.count - first, pieces) + first
            node.post(
                .save(
                    0,
                    EngineSave(
                        job: ticket + 2, request: ticket, names: Array(names[..<last]), first: Int32(first),
                        places: places(last - first))), at: time)
            _ = try node.reply { reply -> Bool? in if case .saved = reply { true } else { nil } }
        }
        node.post(.finished(0, EngineRequestEnd(ticket: ticket, reason: .endTurn)), at: time)
        return end
    }

    private func compareStores(_ store: StoreBench, _ node: SimulatedNode, _ names: [ObjectName]) async throws {
        let memory = try BlockMemory(byteCount: blockBytes)
        let client = try StoreClient(store.access.client, memory: memory) { _ in }
        defer { client.shutDown() }
        let opened = await client.call(.openNamespace(name: "test"), within: waitLimit)
        guard case .namespace(let handle) = opened.body else { throw OperatorError("no namespace") }
        let found = await client.call(.lookUp(handle, names), within: waitLimit)
        guard case .presence(let live) = found.body else { throw OperatorError("no answer") }
        let time = node.world.now
        let simulated = node.world.inner.store?.present(names.map(\.blockKey), at: time) ?? []
        #expect(live == simulated)
        #expect(live.contains { $0 != 0 })
    }
}
