// A request's way through the cluster: routed, held, let in, loaded, computed, ended. What the batching engines do with it
// is in Cluster+Iterations.swift.

import KVModel
import KVReport
import KVServing
import KVTiering

extension Cluster {
    func arrive(_ request: Int) {
        let given = workload.requests[request]
        arrivalCount += 1
        table.states[request].arrival = now
        table.states[request].order = arrivalCount
        let replica = route(request)
        table.states[request].replica = Int32(replica)
        if looksForPrefixes { workload.withPath(of: request) { takers.add($0, to: replica) } }
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

    func hold(_ request: Int, on replica: Int) {
        replicas[replica].held.append(Int32(request))
        kick(replica)
    }

    /// Takes held requests in, in order, while KV memory, sequences and the next iteration's tokens last.
    func admitHeld(_ replica: Int) {
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
    func endLoadPart(_ request: Int, on replica: Int) {
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
    func beginSplit(_ request: Int, on replica: Int, _ blocks: Range<Int32>) {
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

    func enqueue(_ request: Int, on replica: Int, cachedBlocks: Int, gap: Range<Int32> = 0..<0) {
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
        var computed = run
        while computed > 0, !table.states[Int(firstComputers[Int(path[computed - 1])])].isComputed { computed -= 1 }
        table.states[request].computedBlocks = Int32(computed)
        if run > Int(table.states[request].hbmBlocks) {
            // Other replicas' HBM is asked directly. What other nodes' DRAM holds was also in one of them before, and is
            // asked of their managers.
            var elsewhere = 0
            for other in replicas.indices where other != replica {
                guard replicas[other].space.holds(moreThan: elsewhere, of: request) else { continue }
                elsewhere = replicas[other].space.filledRun(request)
            }
            table.states[request].elsewhereBlocks = Int32(elsewhere)
        }
        known.insert(path, from: run)
        for depth in run..<path.count { firstComputers[Int(path[depth])] = Int32(request) }
    }

    func firstToken(_ request: Int, on replica: Int) {
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

    func finish(_ request: Int, on replica: Int) {
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
