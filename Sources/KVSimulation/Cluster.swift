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
    var accounts: RunAccounts
    /// Blocks computed before, anywhere in the cluster.
    var known: BlockSet

    /// Replicas' iterations first, then nodes' deadlines.
    private var clock: IndexedClock
    private var nextOpenArrival = 0
    private var laterArrivals = TimerQueue<Int32>()
    private var arrivalCount = 0
    private var finishedCount = 0
    /// Replicas that may have something to start.
    private var kicked: [Int] = []
    private var isKicked: [Bool]
    // Names of live requests towards managers, and the scratch chain of keys handed to them.
    private var requestOfNumber: [Int32] = []
    private var freeNumbers: [UInt32] = []
    private var chain: [BlockKey] = []
    /// The request whose chain that is.
    private var chainOwner = -1
    /// For the request being routed: leading blocks that each node's own tiers hold.
    private var nodeRuns: [Int] = []
    /// Bytes a second from a host to the GPUs of a replica.
    private let hostRate: Double

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
        let hostToGPU = scenario.links.hostToGPU > 0 ? scenario.links.hostToGPU : gpu.hostLinkBytesPerSecond
        hostRate = hostToGPU * Double(scenario.tensorParallel)
        let paths = ClusterLinks(scenario, hostToGPU: hostToGPU)
        let blockBytes = Self.blockBytes(model, workload)
        let usesTiers = scenario.tiers.dram.use
        world = SimulatedWorld(
            paths: paths, store: usesTiers && scenario.tiers.flash.use ? scenario.makeStore(blockBytes, workload) : nil,
            storeRoundTrip: 30_000)
        router = Router(scenario.router, replicas: scenario.replicas, seed: scenario.seed)
        known = BlockSet(count: workload.uniqueBlockCount)
        let start = workload.requests.first?.arrival ?? 0
        accounts = RunAccounts(start: start, requestCount: isDetailed ? workload.requests.count : 0)
        let batching = Batching(
            tokenBudget: scenario.engine.tokenBudget, sequencesMax: scenario.engine.maxSequences,
            preemption: scenario.engine.preemption == .swap ? .swap : .recompute, runStepsMax: 64,
            reservesWholePrompt: true)
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
        isKicked = Array(repeating: false, count: scenario.replicas)
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
            while let replica = kicked.popLast() {
                isKicked[replica] = false
                schedule(replica)
            }
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

// MARK: - A request's way

extension Cluster {
    private func arrive(_ request: Int) {
        let given = workload.requests[request]
        arrivalCount += 1
        table.states[request].arrival = now
        table.states[request].order = arrivalCount
        let replica = route(request)
        table.states[request].replica = Int32(replica)
        replicas[replica].heldTokens += Int(given.inputTokens)
        guard !nodes.isEmpty else {
            hold(request, on: replica)
            return
        }
        let node = world.paths.nodeOfReplica[replica]
        let number = takeNumber(for: request)
        fillChain(request)
        deliver(
            .arrived(
                Arrival(
                    request: number, engine: world.paths.engine(of: replica), chain: chain[...],
                    promptTokens: given.inputTokens, engineBlocks: Int32(replicas[replica].space.ownRun(request)),
                    session: given.session, turn: given.turn)), to: node)
    }

    private func hold(_ request: Int, on replica: Int) {
        replicas[replica].held.append(Int32(request))
        kick(replica)
    }

    /// Takes held requests in, in order, while KV memory, sequences and the next iteration's tokens last.
    private func admitHeld(_ replica: Int) {
        while !replicas[replica].held.isEmpty, replicas[replica].hasRoomForMore(scenario.engine) {
            let request = Int(replicas[replica].held.first)
            let input = Int(workload.requests[request].inputTokens)
            // One block for each running sequence stays to be had, or its next token would throw a request out.
            let spare = replicas[replica].engine.runningCount
            guard let filled = replicas[replica].space.reserve(request, tokens: input, spare: spare) else { return }
            _ = replicas[replica].held.removeFirst()
            replicas[replica].heldTokens -= input
            admit(request, to: replica, filled: filled)
        }
    }

    private func admit(_ request: Int, to replica: Int, filled: Int) {
        table.states[request].admitted = now
        table.states[request].hbmBlocks = Int32(filled)
        noteKnown(request, replica: replica)
        switch oracle {
        case .none:
            break
        case .infinite:
            fill(request, on: replica, from: filled, to: Int(table.states[request].knownBlocks))
            return
        case .runs(let runs):
            fill(
                request, on: replica, from: filled, to: min(Int(runs[request]), Int(table.states[request].knownBlocks)))
            return
        }
        guard !nodes.isEmpty else {
            enqueue(request, on: replica, cachedBlocks: filled)
            return
        }
        let fromHost = loadFromHostRegion(request, on: replica, filled: filled)
        beginLoadPart(request, on: replica)
        let links = world.paths.view(of: world.fabric, replica: replica, at: now)
        deliver(
            .load(
                LoadRequest(
                    request: table.states[request].number, engineBlocks: Int32(fromHost),
                    computeWait: Duration(seconds: Double(replicas[replica].queuedTokens) * cost.linear), links: links)),
            to: world.paths.nodeOfReplica[replica])
    }

    /// Engine-owned: what the engine's own host region has beyond its HBM comes up over the GPU's link, and nobody below
    /// is asked for it. Returns the blocks that the engine then has itself.
    private func loadFromHostRegion(_ request: Int, on replica: Int, filled: Int) -> Int {
        let run = replicas[replica].space.hostRun(request)
        table.states[request].hostBlocks = Int32(max(run, filled))
        guard run > filled else { return filled }
        beginLoadPart(request, on: replica)
        world.startForeign(
            tag: ForeignTransfer(kind: .hostRegion, request: request).tag, replica: replica,
            bytes: Double((run - filled) * Self.blockBytes(model, workload)), into: .read)
        return run
    }

    private func beginLoadPart(_ request: Int, on replica: Int) {
        if table.states[request].loadParts == 0 { replicas[replica].beginLoad(at: now) }
        table.states[request].loadParts += 1
    }

    /// One source of a request's KV is done. After the last the request can be computed.
    private func endLoadPart(_ request: Int, on replica: Int) {
        table.states[request].loadParts -= 1
        guard table.states[request].loadParts == 0 else { return }
        replicas[replica].endLoad(at: now)
        guard table.states[request].split.isEmpty else { return endSplit(request, on: replica) }
        let end = Int(max(table.states[request].readyBlocks, table.states[request].hostBlocks))
        let filled = replicas[replica].space.filledRun(request)
        if end > filled { replicas[replica].space.fill(request, filled..<end) }
        if table.states[request].isEnqueued {
            layersLoaded(request, on: replica, end: end)
        } else {
            enqueue(request, on: replica, cachedBlocks: end)
        }
    }

    /// A request that was thrown out while its back was loading, and was then computed whole, waits for it no longer.
    private func abandonLoad(of request: Int, on replica: Int) {
        table.states[request].loadParts = 0
        table.states[request].readyBlocks = 0
        replicas[replica].endLoad(at: now)
        if !table.states[request].split.isEmpty { endSplit(request, on: replica) }
    }

    /// A ceiling's hit: blocks that appear in HBM at no cost.
    private func fill(_ request: Int, on replica: Int, from filled: Int, to run: Int) {
        if run > filled { replicas[replica].space.fill(request, filled..<run) }
        enqueue(request, on: replica, cachedBlocks: max(filled, run))
    }

    /// The planner's `split`: the front goes to the engine now; the back is being loaded.
    private func beginSplit(_ request: Int, on replica: Int, _ blocks: Range<Int32>) {
        table.states[request].split = blocks
        replicas[replica].beginSplit()
        let own = Int(max(table.states[request].hbmBlocks, table.states[request].hostBlocks))
        enqueue(request, on: replica, cachedBlocks: own, gap: blocks)
    }

    private func endSplit(_ request: Int, on replica: Int) {
        table.states[request].split = 0..<0
        replicas[replica].endSplit(UInt32(request), end: Int(table.states[request].readyBlocks) * workload.blockTokens)
        kick(replica)
    }

    private func enqueue(_ request: Int, on replica: Int, cachedBlocks: Int, gap: Range<Int32> = 0..<0) {
        let given = workload.requests[request]
        let gapTokens = tokens(of: gap, inputTokens: Int(given.inputTokens))
        let cached = min(cachedBlocks * workload.blockTokens, Int(given.inputTokens) - 1)
        table.states[request].cachedTokens = Int32(cached)
        table.states[request].isEnqueued = true
        replicas[replica].engine.enqueue(
            ReplicaRequest(
                number: UInt32(request), order: table.states[request].order, inputTokens: Int(given.inputTokens),
                outputTokens: Int(given.outputTokens), gap: gapTokens))
        replicas[replica].space.cachedWaiting += cached
        kick(replica)
    }

    /// The tokens of some blocks of a prompt, of which the last token is always computed.
    private func tokens(of blocks: Range<Int32>, inputTokens: Int) -> Range<Int> {
        let last = inputTokens - 1
        return min(
            Int(blocks.lowerBound) * workload.blockTokens, last)..<min(
                Int(blocks.upperBound) * workload.blockTokens, last)
    }

    /// Notes how much of the path had been computed before, anywhere, and where else it is held; then it counts as
    /// computed, so that of two requests that compute the same at the same time the second does it again.
    private func noteKnown(_ request: Int, replica: Int) {
        let blocks = workload.blocks
        let start = workload.requests[request].firstReference
        let path = blocks.span.extracting(start..<start + Int(workload.requests[request].blockCount))
        let run = known.run(path)
        table.states[request].knownBlocks = Int32(run)
        if run > Int(table.states[request].hbmBlocks) {
            // Other replicas' HBM is asked directly. What other nodes' DRAM holds was also in one of them before, and is
            // asked of their managers.
            var elsewhere = 0
            for other in replicas.indices where other != replica {
                elsewhere = max(elsewhere, replicas[other].space.filledRun(request))
            }
            table.states[request].elsewhereBlocks = Int32(elsewhere)
        }
        known.insert(path, from: run)
    }

    private func firstToken(_ request: Int, on replica: Int) {
        guard !table.states[request].isComputed else { return }
        table.states[request].isComputed = true
        table.states[request].firstToken = now
        table.states[request].firstStep = Int32(replicas[replica].log.next)
        guard !nodes.isEmpty else {
            accounts.bookPlain(request, cluster: self)
            return
        }
        let node = world.paths.nodeOfReplica[replica]
        replicas[replica].space.keepInHostRegion(request)
        deliver(
            .computed(Computed(request: table.states[request].number, knownBlocks: table.states[request].knownBlocks)),
            to: node)
        accounts.bookTiers(request, cluster: self, booked: nodes[node].manager.lastBooked)
    }

    private func finish(_ request: Int, on replica: Int) {
        table.states[request].finished = now
        finishedCount += 1
        if table.states[request].loadParts > 0 { abandonLoad(of: request, on: replica) }
        accounts.finished(request, cluster: self)
        let given = workload.requests[request]
        if !nodes.isEmpty {
            deliver(
                .ended(request: table.states[request].number, reason: given.stopReason),
                to: world.paths.nodeOfReplica[replica])
            giveBackNumber(of: request)
        }
        if scenario.arrivals.mode == .sessions, given.next >= 0 {
            laterArrivals.add(given.next, at: now + workload.requests[Int(given.next)].thinkTime)
        }
    }
}

// MARK: - Iterations

extension Cluster {
    func kick(_ replica: Int) {
        if isKicked[replica] { return }
        isKicked[replica] = true
        kicked.append(replica)
    }

    /// Starts an iteration if there is one to start; shortens a run of decode steps that a newcomer waits behind.
    private func schedule(_ replica: Int) {
        if replicas[replica].isBusy {
            if replicas[replica].shortenForNewcomers(scenario.engine, at: now) {
                clock.set(replica, to: replicas[replica].end)
            }
            return
        }
        bringBack(replica)
        admitHeld(replica)
        if scenario.engine.overlap == .none, replicas[replica].loadingCount > replicas[replica].splitCount { return }
        guard replicas[replica].engine.hasWork else { return }
        replicas[replica].accountWaiting(to: now)
        guard replicas[replica].startIteration(at: now) else { return }
        for event in replicas[replica].engine.events { handle(event, on: replica) }
        splitPrefill(replica)
        if scenario.engine.overlap == .layerwise { replicas[replica].holdForLayers(table, layers: model.shape.layers) }
        clock.set(replica, to: replicas[replica].end)
    }

    /// Splits the time that prefill adds to this iteration into useful and recomputed, by FLOPs.
    private func splitPrefill(_ replica: Int) {
        var all = 0.0
        var again = 0.0
        for chunk in replicas[replica].engine.chunks {
            let request = Int(chunk.request)
            let flops = model.prefillFLOPs(tokens: chunk.count, after: chunk.start)
            all += flops
            let knownTokens =
                table.states[request].isComputed
                ? Int.max : Int(table.states[request].knownBlocks) * workload.blockTokens
            let tokens = min(chunk.count, knownTokens - chunk.start)
            if tokens == chunk.count {
                again += flops
            } else if tokens > 0 {
                again += model.prefillFLOPs(tokens: tokens, after: chunk.start)
            }
        }
        replicas[replica].recomputedShare = all > 0 ? again / all : 0
        accounts.usefulFLOPs += all - again
    }

    private func finishIteration(_ replica: Int) {
        if replicas[replica].isHeldByLoad(table) { return }
        replicas[replica].finishIteration(at: now, itl: &accounts.itl)
        accounts.usefulFLOPs += replicas[replica].decodeFLOPs
        // Handling an event may start the next turn, but never touches this replica's engine: that is left to `schedule`.
        for event in replicas[replica].engine.events { handle(event, on: replica) }
        kick(replica)
    }

    private func handle(_ event: ReplicaEvent, on replica: Int) {
        switch event {
        case .firstToken(let number): firstToken(Int(number), on: replica)
        case .finished(let number): finish(Int(number), on: replica)
        case .preempted(let number, let produced):
            accounts.preemptions += 1
            if scenario.engine.preemption == .swap { swapOut(Int(number), produced: produced, on: replica) }
        }
    }

    /// A preempted request's KV goes to host memory and comes back; then it goes on where it was.
    private func swapOut(_ request: Int, produced: Int, on replica: Int) {
        let tokens = Double(Int(workload.requests[request].inputTokens) + produced)
        table.states[request].producedTokens = Int32(produced)
        world.startForeign(
            tag: ForeignTransfer(kind: .swapOut, request: request).tag, replica: replica,
            bytes: tokens * model.kvBytesPerToken, into: .write)
    }

    private func foreignTransferEnded(_ transfer: ForeignTransfer) {
        let request = transfer.request
        let replica = Int(table.states[request].replica)
        switch transfer.kind {
        case .hostRegion:
            endLoadPart(request, on: replica)
        case .swapOut:
            // It comes back when there is room for all of it.
            replicas[replica].swappedOut.append(Int32(request))
            kick(replica)
        case .swapIn:
            swappedIn(request, on: replica)
        }
    }

    private func swappedIn(_ request: Int, on replica: Int) {
        let tokens = Int(workload.requests[request].inputTokens + table.states[request].producedTokens)
        table.states[request].cachedTokens = Int32(tokens - 1)
        replicas[replica].endLoad(at: now)
        replicas[replica].space.fillAll(request)
        replicas[replica].engine.enqueue(
            ReplicaRequest(
                number: UInt32(request), order: table.states[request].order,
                inputTokens: Int(workload.requests[request].inputTokens),
                outputTokens: Int(workload.requests[request].outputTokens),
                producedTokens: Int(table.states[request].producedTokens)))
        replicas[replica].space.cachedWaiting += tokens - 1
        kick(replica)
    }

    /// Brings swapped-out requests back while there is room.
    private func bringBack(_ replica: Int) {
        while let request = replicas[replica].swappedOut.first.map({ Int($0) }) {
            let tokens = Int(workload.requests[request].inputTokens + table.states[request].producedTokens)
            let spare = replicas[replica].engine.runningCount
            guard replicas[replica].space.reserve(request, tokens: tokens, spare: spare) != nil else { return }
            replicas[replica].swappedOut.removeFirst()
            replicas[replica].beginLoad(at: now)
            world.startForeign(
                tag: ForeignTransfer(kind: .swapIn, request: request).tag, replica: replica,
                bytes: Double(tokens) * model.kvBytesPerToken, into: .read)
        }
    }
}

// MARK: - Towards the managers

extension Cluster {
    /// Gives an event to a node's decisions and acts on what they tell the engines.
    private func deliver(_ event: Event, to node: Int) {
        world.node = node
        nodes[node].manager.handle(event, in: &world)
        let deadline = nodes[node].manager.nextDeadline.nanoseconds
        clock.set(replicas.count + node, to: deadline == .max ? IndexedClock.never : max(deadline, now))
        var index = 0
        while index < world.outbox.count {
            obey(world.outbox[index].command)
            index += 1
        }
        world.outbox.removeAll(keepingCapacity: true)
    }

    private func obey(_ command: Command) {
        switch command {
        case .answer(let answer):
            let request = Int(requestOfNumber[Int(answer.request)])
            hold(request, on: Int(table.states[request].replica))
        case .loading(let plan):
            let request = Int(requestOfNumber[Int(plan.request)])
            table.states[request].plannedLoad = plan.expected.nanoseconds
            if plan.first > max(table.states[request].hbmBlocks, table.states[request].hostBlocks) {
                beginSplit(request, on: Int(table.states[request].replica), plan.first..<plan.end)
            } else if scenario.engine.overlap == .layerwise {
                enqueue(request, on: Int(table.states[request].replica), cachedBlocks: Int(plan.end))
            }
        case .ready(let ready):
            let request = Int(requestOfNumber[Int(ready.request)])
            table.states[request].readyBlocks = ready.end
            endLoadPart(request, on: Int(table.states[request].replica))
        default:
            break
        }
    }

    /// Layer-wise: the last layer's KV is there, and only its share of the computing is left. What did not come is
    /// computed now, in the same iteration.
    private func layersLoaded(_ request: Int, on replica: Int, end: Int) {
        let planned = Int(table.states[request].cachedTokens)
        let got = min(end * workload.blockTokens, planned)
        let missing = Double(planned - got)
        let extra = missing > 0 ? cost.seconds(count: missing, after: Double(got)) : 0
        table.states[request].cachedTokens = Int32(got)
        replicas[replica].layersLoaded(at: now, extra: Int64(extra * 1e9), layers: model.shape.layers, table)
        if replicas[replica].isBusy, replicas[replica].end >= now { clock.set(replica, to: replicas[replica].end) }
        kick(replica)
    }

    private func takeNumber(for request: Int) -> UInt32 {
        let number: UInt32
        if let free = freeNumbers.popLast() {
            number = free
        } else {
            number = UInt32(requestOfNumber.count)
            requestOfNumber.append(-1)
        }
        requestOfNumber[Int(number)] = Int32(request)
        table.states[request].number = number
        return number
    }

    private func giveBackNumber(of request: Int) { freeNumbers.append(table.states[request].number) }

    private func fillChain(_ request: Int) {
        if chainOwner == request { return }
        chainOwner = request
        chain.removeAll(keepingCapacity: true)
        let given = workload.requests[request]
        for index in given.firstReference..<given.firstReference + Int(given.blockCount) {
            chain.append(BlockKey(traceBlock: UInt64(workload.blocks[index])))
        }
    }

    private func route(_ request: Int) -> Int {
        let session = workload.requests[request].session
        let input = Double(workload.requests[request].inputTokens)
        let blockTokens = Double(workload.blockTokens)
        if router.policy == .cacheAware, !nodes.isEmpty {
            fillChain(request)
            nodeRuns.removeAll(keepingCapacity: true)
            for node in nodes { nodeRuns.append(node.manager.residentRun(chain[...])) }
        }
        return router.choose(session: session, now: now) { replica in
            ReplicaView(
                queuedTokens: replicas[replica].queuedTokens + replicas[replica].heldTokens,
                running: replicas[replica].engine.runningCount)
        } cost: { replica, queuedTokens in
            let inHBM = min(input, Double(replicas[replica].space.filledRun(request)) * blockTokens)
            let node = world.paths.nodeOfReplica[replica]
            let inNode = max(inHBM, min(input, Double(nodeRuns.isEmpty ? 0 : nodeRuns[node]) * blockTokens))
            let load = (inNode - inHBM) * model.kvBytesPerToken / hostRate
            return Double(queuedTokens) * cost.linear + load + cost.seconds(count: input - inNode, after: inNode)
        }
    }
}
