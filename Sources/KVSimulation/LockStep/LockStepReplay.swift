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
    /// Where they would have come from with endless bytes that every engine reads.
    public var ceiling = Ledger()
    /// Prompt tokens of the trace.
    public var promptTokens = 0
    /// Requests that were replayed.
    public var requests = 0
    /// Per request: seconds of its load (measured where a clock ran, else as planned) and of the modelled computing.
    public var readySeconds: [Double] = []
    /// Tokens that no node would say anything of, because the one that was asked had died.
    public var unbookedTokens = 0

    /// A result of nothing yet.
    public init() {}
}

extension ModelledReplay {
    /// Replays the trace in lock step over `nodes`; each node has as many engines as the scenario says.
    ///
    /// - Parameters:
    ///   - ownsDevice: Whether HBM slots are the nodes' to give: then engines have no memory of their own.
    ///   - onRequest: Told each request before it runs: for progress, and to break something.
    public func lockStep(
        over nodes: [any LockStepNode], router: LockStepRouter, requestsMax: Int = .max, ownsDevice: Bool = false,
        onRequest: (Int) throws -> Void = { _ in }
    ) throws -> LockStepResult {
        let enginesPerNode = max(1, scenario.replicas / nodes.count)
        var caches = (0..<nodes.count * enginesPerNode).map { _ in PrefixCache(capacity: lockStepEngineBlocks) }
        // What was computed anywhere: a node knows only what it met itself.
        var computed = Set<BlockNumber>()
        var result = LockStepResult()
        for (index, given) in workload.requests.enumerated().prefix(requestsMax) {
            try onRequest(index)
            let place = router.engine(of: given.session, turn: given.turn, index: index, count: caches.count)
            let node = nodes[place / enginesPerNode]
            let start = given.firstReference
            let path = workload.blocks[start..<start + Int(given.blockCount)]
            let own = ownsDevice ? 0 : caches[place].filledRun(path.span)
            var request = LockStepRequest(
                index: index, engine: place % enginesPerNode, path: path, promptTokens: given.inputTokens,
                engineBlocks: Int32(own), session: given.session, turn: given.turn, reason: given.stopReason,
                time: Instant(nanoseconds: given.arrival))
            var load = try lookUpAndLoad(request, at: node)
            if load.engineDied {
                // Another engine takes its place, with nothing, and its requests come again.
                caches[place] = PrefixCache(capacity: lockStepEngineBlocks)
                request.engineBlocks = 0
                load = try lookUpAndLoad(request, at: node)
            }
            request.loadedBlocks = load.end
            if !ownsDevice {
                caches[place].acquire(path.span)
                caches[place].fillLeading(path.span, path.count)
            }
            try node.save(request)
            let known = path.firstIndex { !computed.contains($0) } ?? path.endIndex
            book(try node.finish(request), of: request, known: known - path.startIndex, in: &result)
            computed.formUnion(path[known...])
            if !ownsDevice { caches[place].release(path.span) }
            note(load, of: given, in: &result)
        }
        return result
    }

    private func lookUpAndLoad(_ request: LockStepRequest, at node: any LockStepNode) throws -> LockStepLoad {
        let found = try node.lookUp(request)
        guard found > request.engineBlocks else { return LockStepLoad(end: request.engineBlocks) }
        return try node.load(request, upTo: found)
    }

    /// Books a prompt. What the node took for new though it had been computed elsewhere was held elsewhere; a prompt that
    /// nobody booked came to an engine without a cache.
    ///
    /// - Parameter known: Leading blocks that had been computed anywhere.
    private func book(_ told: Ledger, of request: LockStepRequest, known: Int, in result: inout LockStepResult) {
        let prompt = Int(request.promptTokens)
        func tokens(_ blocks: Int) -> Int { min(blocks * workload.blockTokens, prompt) }
        var ledger = told
        if told.total == 0 {
            result.unbookedTokens += prompt
            let isWhole = tokens(Int(request.engineBlocks)) == prompt
            ledger.hbm = tokens(Int(request.engineBlocks)) - (isWhole ? 1 : 0)
            ledger.noTier = max(0, tokens(known) - tokens(Int(request.engineBlocks)))
            ledger.firstSeen = tokens(request.path.count) - max(tokens(known), tokens(Int(request.engineBlocks)))
            ledger.alwaysComputed = prompt - tokens(request.path.count) + (isWhole ? 1 : 0)
        } else {
            let elsewhere = min(told.firstSeen, max(0, tokens(known) - told.served - told.recomputed))
            ledger.firstSeen -= elsewhere
            ledger.heldElsewhere += elsewhere
        }
        result.ledger.add(ledger)
        let isWhole = tokens(known) == prompt
        result.ceiling.hbm += tokens(known) - (isWhole ? 1 : 0)
        result.ceiling.firstSeen += tokens(request.path.count) - tokens(known)
        result.ceiling.alwaysComputed += prompt - tokens(request.path.count) + (isWhole ? 1 : 0)
    }

    private func note(_ load: LockStepLoad, of request: Workload.Request, in result: inout LockStepResult) {
        result.requests += 1
        result.promptTokens += Int(request.inputTokens)
        let cached = min(Int(load.end) * workload.blockTokens, Int(request.inputTokens) - 1)
        let compute = PrefillCost(of: model, chunk: scenario.engine.tokenBudget).seconds(
            count: Double(Int(request.inputTokens) - cached), after: Double(cached))
        result.readySeconds.append(load.seconds + compute)
    }

    /// Requests of the replay.
    public var requestCount: Int { workload.requests.count }

    /// Blocks of one engine's memory.
    public var lockStepEngineBlocks: Int { Cluster.hbmBlocks(model, workload) }

    /// Bytes of a block of the model's.
    public var blockBytes: Int { Cluster.blockBytes(model, workload) }

    /// Prompt tokens of a block.
    public var blockTokens: Int { workload.blockTokens }

    /// Layers of the model.
    public var layers: Int { model.shape.layers }

    /// What computing costs on one engine.
    public var prefillCost: PrefillCost { PrefillCost(of: model, chunk: scenario.engine.tokenBudget) }

    /// The scenario's rules of each node, without prefetch: nothing can come early where no time passes.
    public var lockStepConfiguration: TieringConfiguration {
        var configuration = scenario.tieringConfiguration(model, prefillCost, blockBytes, workload)
        configuration.prefetch = nil
        return configuration
    }

    /// Blocks that each node keeps in memory, on its flash (0: none) and in the shared store (0: none).
    public var tierBlocks: (dram: Int, nvme: Int, store: Int) {
        let node = lockStepConfiguration
        return (
            (node.dram?.bytes ?? 0) / blockBytes, (node.nvme?.bytes ?? 0) / blockBytes,
            scenario.tiers.flash.use ? scenario.makeStore(blockBytes, workload).capacity : 0
        )
    }

    /// The paths of a node as its profile says, idle, for blocks of `bytes` bytes: they move as many blocks a second as
    /// they would move of the model's, so that the planner sees no difference.
    public func idleLinks(blockBytes bytes: Int) -> LinkView {
        let paths = ClusterLinks(scenario, hostToGPU: scenario.links.rateToGPU(of: gpu))
        let idle = paths.view(of: LinkFabric(links: paths.links, discipline: paths.discipline), replica: 0, at: 0)
        let scale = Double(bytes) / Double(blockBytes)
        func scaled(_ link: LinkState) -> LinkState { LinkState(bandwidth: link.bandwidth * scale, delay: link.delay) }
        return LinkView(dram: scaled(idle.dram), nvme: scaled(idle.nvme), flash: scaled(idle.flash))
    }

    /// Blocks of the longest prompt.
    public var pathBlocksMax: Int { workload.requests.reduce(0) { max($0, Int($1.blockCount)) } }

    /// Blocks that the longest request needs, its answer included.
    public var pacedBlocksMax: Int {
        workload.requests.reduce(0) {
            max($0, (Int($1.inputTokens) + Int($1.outputTokens)) / workload.blockTokens + 2)
        }
    }

    /// Modelled nodes of given rules, with the store that they share.
    public func stillNodes(
        _ count: Int, _ configuration: TieringConfiguration, links: LinkView
    ) -> [any LockStepNode] {
        let store = configuration.hasStore ? StillStore(scenario.makeStore(blockBytes, workload)) : nil
        return (0..<count).map { _ in StillNode(configuration, store: store, links: links) }
    }

    /// A record of a lock-step replay: system 1 alone, its tokens counted, its times those of one request at a time.
    ///
    /// - Parameters:
    ///   - route: How conversations found engines.
    ///   - hbmBytes: HBM slots of all nodes, where they are the nodes' to give.
    ///   - live: What only a live run knows; nil for a modelled one.
    public func record(
        of result: LockStepResult, route: LockStepRouter, version: String, command: String,
        overrides: [String: String], hbmBytes: Double? = nil, live: LiveRun?
    ) -> Record {
        var system = SystemResult(
            counted: ComparedSystem.configured.key, name: "Lock step", role: ComparedSystem.configured.role,
            ledger: result.ledger)
        system.completedRequests = result.requests
        system.serviceTTFT = Distribution(of: result.readySeconds)
        let ceiling = SystemResult(
            counted: ComparedSystem.infinite.key, name: ComparedSystem.infinite.name,
            role: ComparedSystem.infinite.role, ledger: result.ceiling)
        let total = result.ledger.total
        return Record(
            version: version, name: "\(scenario.name), \(live == nil ? "modelled" : "live")",
            mode: live == nil ? .modelled : .live, trace: traceSummary,
            configuration: configuration(
                command: command, overrides: overrides, route: route, prefetch: false, hbmBytes: hbmBytes),
            modelError: ModelError(of: model),
            systems: [system, ceiling], prices: prices,
            checks: [
                Check(
                    name: "no system serves more than the infinite cache",
                    passed: result.ledger.served <= result.ceiling.served, left: Double(result.ledger.served),
                    right: Double(result.ceiling.served)),
                Check(
                    name: "every prompt token is in exactly one class", passed: total == result.promptTokens,
                    left: Double(total), right: Double(result.promptTokens)),
            ],
            notice: "Lock step: one request at a time, no queueing; hit tokens are exact, waiting is not shown.",
            live: live)
    }

    /// A record's configuration where conversations find engines by a rule of their own, with HBM slots of all nodes where
    /// they are the nodes' to give.
    func configuration(
        command: String, overrides: [String: String], route: LockStepRouter, prefetch: Bool, hbmBytes: Double?
    ) -> Configuration {
        var configuration = configuration(command: command, overrides: overrides)
        configuration.router = route.rawValue
        configuration.routerStalenessSeconds = 0
        configuration.prefetch = prefetch
        if let hbmBytes, let place = configuration.tiers.firstIndex(where: { $0.tier == Tier.hbm.name }) {
            configuration.tiers[place].bytes = hbmBytes
            configuration.ownership = Ownership.full.rawValue
        }
        return configuration
    }
}
