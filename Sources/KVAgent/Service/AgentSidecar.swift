// The agent as a process beside its engines: the door, and the decisions that are made when the first engine says how large its
// blocks are.

import CKernel
import Foundation
import KVFlash
import KVMemory
import KVModel
import KVSystem
import KVTiering
import KVTransport
import Logging
import Synchronization

/// A door with decisions behind it.
///
/// One agent has blocks of one size. The first engine's hello says which, and the memory of all tiers is cut by it; an engine with
/// other blocks is refused with both sizes named, until the agent is started anew.
public final class AgentSidecar: Sendable {
    /// Where the decisions stand.
    private enum Making {
        /// No engine has come.
        case none
        /// They are being made for the first engine; these wait.
        case making([(EngineNumber, EngineHello)])
        /// They run.
        case made(Agent, MemoryArena, blockBytes: Int, blockTokens: Int32)
        /// The sidecar ends.
        case ended
    }

    /// How long the first engine is kept waiting for the store.
    private static let storeWait = Duration(milliseconds: 500)

    /// The settings.
    public let configuration: AgentConfiguration
    let surroundings: AgentSurroundings
    let logger: Logger
    private let making = Mutex(Making.none)
    /// Engines that were refused here and have not left, and visitors: the decisions do not know them.
    private let strangers = Mutex(Set<EngineNumber>())
    private let opened = Mutex<EngineDoor?>(nil)
    private let traces: TraceExport?
    private let watch: AgentWatch
    private let history = AgentHistory(
        names: AgentHistory.counts(AgentStatus(), EngineCounters(), WatchTotals()).map(\.name))
    private let isDraining = Atomic<Bool>(false)
    /// Why the decisions could not be made for the last engine that asked for them.
    private let failed = Mutex<String?>(nil)
    /// Why no engine can come to the socket.
    private let closed = Mutex<String?>(nil)
    /// The GPU that the HBM slots lie in, if they lie in one.
    let gpu: CudaDriver?
    private let started = MonotonicClock.now
    /// Looks whether the store is there until the decisions do that.
    private let probe = Mutex<StoreProbe?>(nil)

    /// Opens the door.
    ///
    /// - Throws: What of the settings this machine does not have: then no engine could ever be served.
    public init(
        _ configuration: AgentConfiguration, in surroundings: AgentSurroundings, logger: Logger
    ) throws(OperatorError) {
        try configuration.checkMachine()
        gpu = surroundings.device == nil ? try configuration.openGPU() : nil
        watch = try AgentWatch(engineMetrics: configuration.engineMetrics)
        self.configuration = configuration
        self.surroundings = surroundings
        self.logger = logger
        if configuration.traces.isEmpty {
            traces = nil
        } else {
            let resource = TraceResource(
                program: surroundings.program, host: "", instance: "", wallClockAtZero: 0)
            traces = try TraceExport(
                TraceTarget(configuration.traces, bytesMax: configuration.tracesSize),
                resource: surroundings.traceResource ?? resource, seed: UInt64.random(in: 0 ... .max), logger: logger)
        }
        try startProbe()
        var door = EngineDoorConfiguration(path: configuration.socket)
        door.users = configuration.users
        door.enginesMax = configuration.engines
        door.program = surroundings.program
        let made = try EngineDoor(
            door, statistics: { [weak self] in self?.statistics ?? [] },
            arena: { [weak self] in self?.offerArena(isWritable: $0) },
            socketChanged: { [weak self] in self?.socketChanged($0) }
        ) { [weak self] in
            self?.take($0) ?? .full
        }
        opened.withLock { $0 = made }
        logger.info("engines may come", metadata: ["socket": "\(configuration.socket)"])
    }

    private func startProbe() throws(OperatorError) {
        guard !configuration.store.isEmpty else { return }
        let access = StoreClientConfiguration(
            routes: try configuration.routes(), tenant: configuration.tenant, secret: surroundings.storeSecret)
        let namespace = configuration.namespace.isEmpty ? nil : configuration.namespace
        do {
            let made = try StoreProbe(access, namespace: namespace, logger: logger)
            probe.withLock { $0 = made }
        } catch { throw OperatorError("\(error)", at: "the agent's threads") }
    }

    private func endProbe() { probe.withLock { $0.take() }?.shutDown() }

    // MARK: What engines say, on the thread that attends to the door

    private func take(_ message: EngineMessage) -> Acceptance {
        switch message {
        case .attach(let engine, let hello): return attach(engine, hello)
        case .gone(let engine):
            if forget(engine) { return .accepted }
        default: break
        }
        guard let agent else { return .full }
        guard let traces, let sighting = DoorSighting(message, at: MonotonicClock.now) else {
            return agent.post(message)
        }
        // Seen before it is posted: its answer must not be seen first.
        switch message {
        case .lookUp, .load, .save, .take, .commit:
            traces.see(sighting)
            let acceptance = agent.post(message)
            if acceptance == .full {
                traces.see(
                    DoorSighting(engine: sighting.engine, ticket: sighting.ticket, at: sighting.at, what: .busy))
            }
            return acceptance
        default:
            // These are offered again until they are taken.
            let acceptance = agent.post(message)
            if acceptance == .accepted { traces.see(sighting) }
            return acceptance
        }
    }

    private func socketChanged(_ trouble: String?) {
        closed.withLock { $0 = trouble }
        if let trouble {
            logger.error("engines cannot come: the socket's file is gone: \(trouble)")
        } else {
            logger.warning(
                "the socket's file was gone; engines may come again", metadata: ["socket": "\(configuration.socket)"])
        }
    }

    private func attach(_ engine: EngineNumber, _ hello: EngineHello) -> Acceptance {
        enum Step {
            case make, wait, visit
            case join(Agent)
            case refuse(String, EngineRefusalCode)
        }
        let step = making.withLock { making -> Step in
            switch making {
            case .ended: return .refuse("the agent stops", .room)
            case _ where hello.isVisitor: return .visit
            case .none:
                making = .making([(engine, hello)])
                return .make
            case .making(let waiting):
                making = .making(waiting + [(engine, hello)])
                return .wait
            case .made(let agent, _, let blockBytes, let blockTokens):
                guard hello.blockBytes == blockBytes, hello.blockTokens == blockTokens else {
                    return .refuse(
                        "blocks of \(hello.blockBytes) bytes and \(hello.blockTokens) tokens | "
                            + "\(blockBytes) bytes and \(blockTokens) tokens, for which this agent was started", .layout
                    )
                }
                return .join(agent)
            }
        }
        logger.info(
            "an engine says hello",
            metadata: ["engine": "\(engine)", "kind": "\(hello.kind)", "process": "\(hello.process)"])
        switch step {
        case .visit:
            // The decisions do not know it, and are not made for it: how long blocks are is for an engine to say.
            strangers.withLock { _ = $0.insert(engine) }
            door?.post(.attached(engine))
            return .accepted
        case .wait: return .accepted
        case .join(let agent): return join(agent, engine, hello)
        case .refuse(let reason, let code):
            refuse(engine, reason, code)
            return .accepted
        case .make:
            // Taking memory and formatting a drive takes a while; the door goes on meanwhile.
            Thread.detachNewThread { [self] in make(for: hello) }
            return .accepted
        }
    }

    /// Node memory for a host-owned engine to map, or the device's memory where its slots are the agent's. Who only reads gets a
    /// descriptor that cannot be mapped for writing: against accidents, for a process of the same user could open the file anew.
    private func offerArena(isWritable: Bool) -> EngineArenaOffer? {
        let made = making.withLock { making -> (Agent, MemoryArena)? in
            if case .made(let agent, let arena, _, _) = making { (agent, arena) } else { nil }
        }
        guard let (agent, arena) = made else { return nil }
        var shape = EngineArenaShape(
            slotBytes: arena.slotBytes, slotCount: arena.slotCount, byteCount: arena.byteCount,
            loanCount: agent.loanWords.count, lifetimeMax: agent.loanLimit, isWritable: isWritable)
        var descriptor = arena.descriptor
        if let device = agent.device {
            // Nothing else of the agent is such an engine's: it has no business in node memory.
            guard let theirs = device.descriptor else { return nil }
            descriptor = theirs
            shape.memory = device.isEmulated ? .emulatedDevice : .cudaDevice
            shape.slotCount = device.slotCount
            shape.byteCount = device.slotCount * device.slotBytes
        }
        // What is no file cannot be opened anew.
        let isFile = shape.memory != .cudaDevice
        let shown = isWritable || !isFile ? hf_duplicate(descriptor) : hf_reopen(descriptor, 0)
        let words = hf_duplicate(agent.loanWords.descriptor)
        guard shown >= 0, words >= 0 else {
            for descriptor in [shown, words] where descriptor >= 0 { hf_close(descriptor) }
            return nil
        }
        return EngineArenaOffer(shape: shape, descriptors: [shown, words])
    }

    private func join(_ agent: Agent, _ engine: EngineNumber, _ hello: EngineHello) -> Acceptance {
        agent.connect(engine: engine) { [weak self] reply in
            if let traces = self?.traces { traces.see(DoorSighting(reply, at: MonotonicClock.now)) }
            self?.door?.post(reply)
        }
        return agent.post(.attach(engine, hello))
    }

    private func refuse(_ engine: EngineNumber, _ reason: String, _ code: EngineRefusalCode = .layout) {
        strangers.withLock { _ = $0.insert(engine) }
        door?.post(.refused(engine, reason: reason, code: code))
    }

    /// An engine that the decisions do not know is forgotten at once. Until it is, the door lets no other of its process in.
    private func forget(_ engine: EngineNumber) -> Bool {
        let isStranger = strangers.withLock { $0.remove(engine) != nil }
        let isUnknown = making.withLock { making -> Bool in
            switch making {
            case .making(let waiting):
                making = .making(waiting.filter { $0.0 != engine })
                return true
            case .none, .ended: return true
            case .made: return isStranger
            }
        }
        if isUnknown { door?.post(.forgotten(engine)) }
        return isUnknown
    }

    // MARK: Making the decisions

    private func make(for hello: EngineHello) {
        let began = MonotonicClock.now
        do throws(OperatorError) {
            let (settings, arena) = try settings(for: hello)
            let agent = try Agent(settings, logger: logger)
            // The first look-up finds the store reached, unless it is away: then nobody waits long.
            if !configuration.store.isEmpty { _ = agent.waitUntilQuiet(within: Self.storeWait) }
            let took = (MonotonicClock.now - began).seconds
            logger.info(
                "the agent serves",
                metadata: [
                    "blockBytes": "\(hello.blockBytes)", "dram": "\(ByteSize.text(arena.byteCount))",
                    "pages": "\(arena.status.pages.rawValue)", "seconds": "\(took)",
                ])
            let others = making.withLock { making -> [EngineNumber]? in
                guard case .making(let waiting) = making else { return nil }
                making = .made(agent, arena, blockBytes: hello.blockBytes, blockTokens: hello.blockTokens)
                var others: [EngineNumber] = []
                for (engine, other) in waiting {
                    if other.blockBytes == hello.blockBytes, other.blockTokens == hello.blockTokens {
                        // Under the lock, lest its end overtake it. The mailbox of a new agent has room for all engines
                        // that there may be.
                        _ = join(agent, engine, other)
                    } else {
                        others.append(engine)
                    }
                }
                return others
            }
            guard let others else { return agent.shutDown() }
            failed.withLock { $0 = nil }
            for engine in others { refuse(engine, "another engine with other blocks came first") }
            if let attended = door?.takeFromItsThread() { agent.attend(to: attended) }
            // Behind all that engines wait for.
            endProbe()
        } catch { end(with: error.description) }
    }

    /// The decisions cannot be made: whoever waits is refused, nobody is told that the agent is ready, and the next engine may try
    /// again.
    private func end(with reason: String) {
        logger.error("the agent cannot serve: \(reason)")
        failed.withLock { $0 = reason }
        let waiting = making.withLock { making -> [(EngineNumber, EngineHello)] in
            guard case .making(let waiting) = making else { return [] }
            making = .none
            return waiting
        }
        for (engine, _) in waiting { refuse(engine, reason, .room) }
    }

    // MARK: For operators

    private var door: EngineDoor? { opened.withLock { $0 } }

    /// The decisions, once an engine has come.
    public var agent: Agent? {
        making.withLock { making in
            if case .made(let agent, _, _, _) = making { agent } else { nil }
        }
    }

    /// The store as the decisions see it, or as it was seen before there were any. Nil: there is none in the settings.
    public var store: AgentStatus.Store? { agent?.status.store ?? probe.withLock { $0?.store } }

    /// How far node memory is, once an engine has come.
    public var memory: ArenaStatus? {
        making.withLock { making in
            if case .made(_, let arena, _, _) = making { arena.status } else { nil }
        }
    }

    /// What the door counted.
    public var view: EngineDoorView { door?.view ?? EngineDoorView() }

    /// What became of request traces.
    package var traceCounters: TraceCounters { traces?.counters ?? TraceCounters() }

    /// Since the start.
    public var uptimeSeconds: Double { (MonotonicClock.now - started).seconds }

    /// Begins to keep a record of each minute, in the background.
    func startWatching() throws(OperatorError) {
        try watch.start(gpu: configuration.gpuNumber, history: history) { [weak self] in self?.rememberMinute() }
    }

    /// Adds to the record what has been counted up to now.
    package func rememberMinute() { history.remember(row) }

    private var row: AgentHistory.Row {
        let (door, seen) = (view.counters.engines, watch.seen)
        var row = history.zero
        row.uptime = MonotonicClock.now - started
        row.counts = AgentHistory.counts(agent?.status ?? AgentStatus(), door, seen.totals).map(\.value)
        row.times = AgentHistory.timePaths.map { door[keyPath: $0] }
        row.engineTimes = seen.engineTimes.counts
        row.engineSum = seen.engineTimes.sumMicroseconds
        return row
    }

    /// What came in the last seconds, as far as that is remembered: six hours.
    public func record(ofLast seconds: Double) -> AgentRecord {
        let now = row
        let from = now.uptime - Duration(seconds: min(max(0, seconds), 1e6))
        return AgentRecord(
            history.rows(from: from) + [now], of: history, asked: seconds, blockBytes: agent?.status.blockBytes ?? 0,
            seen: watch.seen)
    }

    /// Why no engine would be served now; nil: one would.
    public var unreadiness: String? {
        isDraining.load(ordering: .relaxed) ? "it stops" : closed.withLock { $0 } ?? failed.withLock { $0 }
    }

    /// Whether it ends.
    var isStopping: Bool { isDraining.load(ordering: .relaxed) }

    /// Whether engines may come, and the last that came was served.
    public var isReady: Bool { unreadiness == nil }

    private var statistics: [EngineStatistic] {
        let engines = view.engines.count
        let made = making.withLock { making -> (Agent, blockBytes: Int, blockTokens: Int32)? in
            if case .made(let agent, _, let blockBytes, let blockTokens) = making {
                (agent, blockBytes, blockTokens)
            } else {
                nil
            }
        }
        guard let (agent, blockBytes, blockTokens) = made else {
            return [EngineStatistic("engines", UInt64(engines))]
        }
        return agent.status.statistics(engines: engines, blockBytes: blockBytes, blockTokens: blockTokens)
    }

    /// Says farewell to engines, waits until their jobs have ended (at most `limit`), and ends everything. Whether all jobs ended.
    public func drain(within limit: Duration) -> Bool {
        isDraining.store(true, ordering: .relaxed)
        guard let door else { return true }
        door.drain(reason: "the agent stops")
        let deadline = MonotonicClock.now + limit
        while !(door.view.engines.isEmpty && door.view.leaving == 0), MonotonicClock.now < deadline {
            Thread.sleep(forTimeInterval: 0.02)
        }
        let isQuiet = door.view.engines.isEmpty
        // The decisions still run: they forget the engines, and only then is the socket taken away.
        door.stop(within: limit)
        let agent = making.withLock { making -> Agent? in
            defer { making = .ended }
            if case .made(let agent, _, _, _) = making { return agent } else { return nil }
        }
        watch.shutDown()
        endProbe()
        agent?.shutDown()
        traces?.shutDown()
        return isQuiet
    }
}
