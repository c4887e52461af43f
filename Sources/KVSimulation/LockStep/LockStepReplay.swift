// A trace in lock step: requests in their order, one at a time, over nodes of any kind, each engine with an LRU memory of
// its own. What it decides does not depend on how fast anything is, so a modelled run and a live one can be compared token
// by token.

import KVModel
import KVReport
import KVServing
import KVTiering

/// How a lock-step replay finds the node of a request.
public enum LockStepRouter: String, Sendable, CaseIterable {
    /// A conversation stays with its engine.
    case sticky
    /// Each request goes to the next engine: conversations migrate at every turn.
    case roundRobin
    /// A conversation moves on to the next engine at every fourth turn.
    case migrating

    func engine(of session: Int32, turn: Int32, index: Int, count: Int) -> Int {
        let home = Int(mixBits(UInt64(UInt32(bitPattern: session))) % UInt64(count))
        switch self {
        case .sticky: return home
        case .roundRobin: return index % count
        case .migrating: return (home + Int(turn) / 4) % count
        }
    }
}

/// What came of a lock-step replay.
public struct LockStepResult: Sendable {
    /// Where every prompt token came from, over all nodes.
    public var ledger = Ledger()
    /// Prompt tokens of the trace.
    public var promptTokens = 0
    /// Requests that were replayed.
    public var requests = 0
    /// Per request: seconds of its load (measured where a clock ran, else as planned) and of the modelled computing.
    public var readySeconds: [Double] = []
    /// Measured ÷ expected seconds of each load that had both.
    public var loadRatios: [Double] = []
}

extension ModelledReplay {
    /// Replays the trace in lock step over `nodes`; each node has as many engines as the scenario says.
    ///
    /// - Parameter onRequest: Told each request before it runs: for progress, and for tests that break something.
    public func lockStep(
        over nodes: [any LockStepNode], router: LockStepRouter, requestsMax: Int = .max,
        onRequest: (Int) throws -> Void = { _ in }
    ) throws -> LockStepResult {
        let enginesPerNode = max(1, scenario.replicas / nodes.count)
        var caches = (0..<nodes.count * enginesPerNode).map { _ in PrefixCache(capacity: lockStepEngineBlocks) }
        var evicted: [BlockNumber] = []
        var result = LockStepResult()
        for (index, given) in workload.requests.enumerated().prefix(requestsMax) {
            try onRequest(index)
            let place = router.engine(of: given.session, turn: given.turn, index: index, count: caches.count)
            let node = nodes[place / enginesPerNode]
            let start = given.firstReference
            let path = workload.blocks[start..<start + Int(given.blockCount)]
            let own = caches[place].filledRun(path.span)
            let request = LockStepRequest(
                index: index, engine: place % enginesPerNode, path: path, promptTokens: given.inputTokens,
                engineBlocks: Int32(own), session: given.session, turn: given.turn, reason: given.stopReason,
                time: Instant(nanoseconds: given.arrival))
            let found = try node.lookUp(request)
            var load = LockStepLoad(end: Int32(own))
            if found > Int32(own) { load = try node.load(request, upTo: found) }
            caches[place].acquire(path.span, evicted: &evicted)
            caches[place].fillLeading(path.span, path.count)
            try node.save(request)
            try node.finish(request)
            caches[place].release(path.span)
            evicted.removeAll(keepingCapacity: true)
            note(load, of: given, in: &result)
        }
        for node in nodes { result.ledger.add(try node.ledger()) }
        return result
    }

    private func note(_ load: LockStepLoad, of request: Workload.Request, in result: inout LockStepResult) {
        result.requests += 1
        result.promptTokens += Int(request.inputTokens)
        let cached = min(Int(load.end) * workload.blockTokens, Int(request.inputTokens) - 1)
        let compute = PrefillCost(of: model, chunk: scenario.engine.tokenBudget).seconds(
            count: Double(Int(request.inputTokens) - cached), after: Double(cached))
        result.readySeconds.append((load.measuredSeconds ?? load.expectedSeconds ?? 0) + compute)
        if let measured = load.measuredSeconds, let expected = load.expectedSeconds, expected > 0 {
            result.loadRatios.append(measured / expected)
        }
    }

    /// Requests of the replay.
    public var requestCount: Int { workload.requests.count }

    /// Blocks of one engine's memory.
    public var lockStepEngineBlocks: Int { Cluster.hbmBlocks(model, workload) }

    /// The rules of each node in lock step. There is no prefetch: nothing can come early where no time passes.
    public var lockStepConfiguration: TieringConfiguration {
        var configuration = scenario.tieringConfiguration(
            model, PrefillCost(of: model, chunk: scenario.engine.tokenBudget), Cluster.blockBytes(model, workload),
            workload)
        configuration.prefetch = nil
        return configuration
    }

    /// The paths of a node as its profile says, idle.
    public var lockStepLinks: LinkView {
        let hostToGPU = scenario.links.hostToGPU > 0 ? scenario.links.hostToGPU : gpu.hostLinkBytesPerSecond
        let paths = ClusterLinks(scenario, hostToGPU: hostToGPU)
        return paths.view(of: LinkFabric(links: paths.links, discipline: paths.discipline), replica: 0, at: 0)
    }

    /// Modelled nodes, with the store that they share.
    public func stillNodes(_ count: Int) -> [any LockStepNode] {
        let blockBytes = Cluster.blockBytes(model, workload)
        let store = scenario.tiers.flash.use ? StillStore(scenario.makeStore(blockBytes, workload)) : nil
        return (0..<count).map { _ in StillNode(lockStepConfiguration, store: store, links: lockStepLinks) }
    }

    /// A record of a lock-step replay: system 1 alone, its tokens counted, its times those of one request at a time.
    ///
    /// - Parameters:
    ///   - live: What only a live run knows; nil for a modelled one.
    public func record(
        of result: LockStepResult, version: String, command: String, overrides: [String: String], live: LiveRun?
    ) -> Record {
        var system = SystemResult(
            counted: ComparedSystem.configured.key, name: "Lock step", role: ComparedSystem.configured.role,
            ledger: result.ledger)
        system.completedRequests = result.requests
        system.serviceTTFT = Distribution(of: result.readySeconds)
        let total = result.ledger.total
        return Record(
            version: version, name: scenario.name, mode: live == nil ? .modelled : .live, trace: traceSummary,
            configuration: configuration(command: command, overrides: overrides), modelError: ModelError(of: model),
            systems: [system], prices: prices,
            checks: [
                Check(
                    name: "every prompt token is in exactly one class", passed: total == result.promptTokens,
                    left: Double(total), right: Double(result.promptTokens))
            ],
            notice: "Lock step: one request at a time, no queueing; hit tokens are exact, waiting is not shown.",
            live: live)
    }
}

extension Ledger {
    /// Adds another ledger's tokens.
    mutating func add(_ other: Ledger) {
        hbm += other.hbm
        dram += other.dram
        nvme += other.nvme
        flash += other.flash
        firstSeen += other.firstSeen
        evicted += other.evicted
        refused += other.refused
        heldElsewhere += other.heldElsewhere
        lostAfterLookUp += other.lostAfterLookUp
        late += other.late
        corrupt += other.corrupt
        quota += other.quota
        noTier += other.noTier
        recomputeCheaper += other.recomputeCheaper
        alwaysComputed += other.alwaysComputed
    }
}
