// A cluster of replicas in virtual time: requests arrive, are routed, take KV memory, load, are computed, generate and
// end. The tiering decisions are the agent's own; this file only moves time and words between them and the engines.

import KVModel
import KVReport
import KVServing
import KVTiering

/// One run of one system over one workload. Same parts, same seed, same result, byte for byte.
final class Cluster {
    let scenario: Scenario
    let model: ServingModel
    let workload: Workload
    let table: RequestTable
    let oracle: Oracle
    let cost: PrefillCost
    let modelError: ModelError
    /// Whether every request is observed in full (distributions, token gaps, link series) or only counted.
    let isDetailed: Bool

    var replicas: [ReplicaState] = []
    var nodes: [Node] = []
    var world: SimulatedWorld
    var router: Router
    /// Whether the router does.
    let looksForPrefixes: Bool
    var accounts: RunAccounts
    /// Blocks computed before, anywhere in the cluster.
    var known: BlockSet
    /// Of each known block the request that was the first to compute it.
    var firstComputers: [Int32]
    /// For a router that looks for prefixes: where each block went.
    var takers: BlockTakers

    /// Replicas' iterations first, then nodes' deadlines.
    var clock: IndexedClock
    private var nextOpenArrival = 0
    var laterArrivals = TimerQueue<Int32>()
    var arrivalCount = 0
    var finishedCount = 0
    /// Replicas that may have something to start.
    var kicked: KickedReplicas
    // Names of live requests towards managers, and the scratch chain of keys handed to them.
    var requestOfNumber: [Int32] = []
    var freeNumbers: [UInt32] = []
    var chain: [BlockKey] = []
    /// The request whose chain that is.
    var chainOwner = -1
    /// For the request being routed: leading blocks that each node's own tiers hold.
    var nodeRuns: [Int] = []
    /// Bytes a second from a host to the GPUs of a replica.
    let hostRate: Double

    /// One host with its tiering decisions.
    final class Node {
        var manager: TieringManager

        init(_ configuration: TieringConfiguration) { manager = TieringManager(configuration) }
    }

    /// What a ceiling knows.
    enum Oracle {
        case none
        /// Every block computed before anywhere is a hit at no cost.
        case infinite
        /// Per request, how many leading blocks are a hit at no cost if they have been computed.
        case runs([Int32])
    }

    init(
        scenario: Scenario, model: ServingModel, gpu: GPU, workload: Workload, oracle: Oracle = .none,
        isDetailed: Bool
    ) {
        self.scenario = scenario
        self.model = model
        self.workload = workload
        self.oracle = oracle
        self.isDetailed = isDetailed
        modelError = ModelError(of: model)
        cost = PrefillCost(of: model, chunk: scenario.engine.tokenBudget)
        table = RequestTable(workload)
        let hostToGPU = scenario.links.rateToGPU(of: gpu)
        hostRate = hostToGPU * Double(scenario.tensorParallel)
        let paths = ClusterLinks(scenario, hostToGPU: hostToGPU)
        let blockBytes = Self.blockBytes(model, workload)
        let usesTiers = scenario.tiers.dram.use
        world = SimulatedWorld(
            paths: paths, store: usesTiers && scenario.tiers.flash.use ? scenario.makeStore(blockBytes, workload) : nil,
            storeRoundTrip: 30_000)
        router = Router(
            scenario.router, replicas: scenario.replicas, replicasPerNode: scenario.replicasPerNode,
            seed: scenario.seed)
        looksForPrefixes = router.looksForPrefixes
        known = BlockSet(count: workload.uniqueBlockCount)
        firstComputers = Array(repeating: 0, count: workload.uniqueBlockCount)
        takers = BlockTakers(
            blockCount: looksForPrefixes ? workload.uniqueBlockCount : 0,
            nodeOfReplica: paths.nodeOfReplica, nodes: scenario.nodes)
        let start = workload.requests.first?.arrival ?? 0
        accounts = RunAccounts(start: start, requestCount: isDetailed ? workload.requests.count : 0)
        let batching = scenario.engine.batching(swaps: scenario.engine.preemption == .swap)
        for _ in 0..<scenario.replicas {
            let space = ReplicaSpace(
                cache: PrefixCache(capacity: Self.hbmBlocks(model, workload)), table: table,
                sharesPrefixes: scenario.engine.prefixCaching,
                hostBlocks: scenario.ownership == .engine && usesTiers
                    ? Int(scenario.engine.hostRegion) / blockBytes : 0)
            replicas.append(ReplicaState(engine: Replica(model: model, batching: batching), space: space, start: start))
        }
        if usesTiers {
            for _ in 0..<scenario.nodes {
                nodes.append(Node(scenario.tieringConfiguration(model, cost, blockBytes, workload)))
            }
        }
        clock = IndexedClock(count: scenario.replicas + nodes.count)
        kicked = KickedReplicas(count: scenario.replicas)
        world.clock = start
        if scenario.arrivals.mode == .sessions {
            for (index, request) in workload.requests.enumerated() where request.turn == 0 {
                laterArrivals.add(Int32(index), at: request.arrival)
            }
            nextOpenArrival = workload.requests.count
        }
    }

    /// Blocks of KV that one replica's HBM holds.
    static func hbmBlocks(_ model: ServingModel, _ workload: Workload) -> Int {
        max(1, model.kvCapacityTokens / workload.blockTokens)
    }

    /// Bytes of one block of the workload.
    static func blockBytes(_ model: ServingModel, _ workload: Workload) -> Int {
        Int(model.kvBytesPerToken) * workload.blockTokens
    }

    /// Runs everything to its end.
    func run() {
        let requests = workload.requests
        while finishedCount < requests.count {
            while let replica = kicked.popLast() { schedule(replica) }
            let arrival =
                nextOpenArrival < requests.count ? requests[nextOpenArrival].arrival : laterArrivals.earliest
            let moment = min(arrival, world.nextMoment, clock.earliest)
            precondition(moment != IndexedClock.never, "requests are left and nothing will ever happen")
            if world.nextMoment <= moment {
                world.advance(to: moment)
                while let (node, event) = world.takeEvent() { deliver(event, to: node) }
                while let tag = world.takeForeignArrival() { foreignTransferEnded(ForeignTransfer(tag: tag)) }
            } else if clock.earliest <= moment {
                world.advance(to: moment)
                let actor = clock.first
                clock.set(actor, to: IndexedClock.never)
                if actor < replicas.count {
                    finishIteration(actor)
                } else {
                    deliver(.deadline, to: actor - replicas.count)
                }
            } else {
                world.advance(to: moment)
                if nextOpenArrival < requests.count {
                    nextOpenArrival += 1
                    arrive(nextOpenArrival - 1)
                } else {
                    arrive(Int(laterArrivals.removeFirst()))
                }
            }
        }
        for replica in replicas.indices { replicas[replica].accountWaiting(to: accounts.end) }
    }

    var now: Int64 { world.clock }
}
