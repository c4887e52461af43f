// Between a cluster and the decisions of its nodes: events go in, what they tell the engines is obeyed, and the router asks
// what each node holds.

import KVModel
import KVServing
import KVTiering

extension Cluster {
    /// Gives an event to a node's decisions and acts on what they tell the engines.
    func deliver(_ event: Event, to node: Int) {
        world.node = node
        nodes[node].manager.handle(event, in: &world)
        let deadline = nodes[node].manager.nextDeadline.nanoseconds
        clock.set(replicas.count + node, to: deadline == .max ? IndexedClock.never : max(deadline, now))
        var index = 0
        while index < world.outbox.count {
            obey(world.outbox[index].command)
            index += 1
        }
        world.outbox.clear()
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
    func layersLoaded(_ request: Int, on replica: Int, end: Int) {
        let planned = Int(table.states[request].cachedTokens)
        let got = min(end * workload.blockTokens, planned)
        let missing = Double(planned - got)
        let extra = missing > 0 ? cost.seconds(count: missing, after: Double(got)) : 0
        table.states[request].cachedTokens = Int32(got)
        replicas[replica].layersLoaded(at: now, extra: Int64(extra * 1e9), layers: model.shape.layers, table)
        if replicas[replica].isBusy, replicas[replica].end >= now { clock.set(replica, to: replicas[replica].end) }
        kick(replica)
    }

    func takeNumber(for request: Int) -> UInt32 {
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

    func giveBackNumber(of request: Int) { freeNumbers.append(table.states[request].number) }

    func fillChain(_ request: Int) {
        if chainOwner == request { return }
        chainOwner = request
        chain.removeAll(keepingCapacity: true)
        let given = workload.requests[request]
        for index in given.firstReference..<given.firstReference + Int(given.blockCount) {
            chain.append(BlockKey(traceBlock: UInt64(workload.blocks[index])))
        }
    }

    func route(_ request: Int) -> Int {
        let session = workload.requests[request].session
        let input = Double(workload.requests[request].inputTokens)
        let blockTokens = Double(workload.blockTokens)
        if looksForPrefixes { findPrefix(of: request) }
        return router.choose(session: session, now: now) { replica in
            ReplicaView(
                queuedTokens: replicas[replica].queuedTokens + replicas[replica].heldTokens,
                running: replicas[replica].engine.runningCount)
        } cost: { replica, queuedTokens in
            let reach = takers.reach(ofReplica: replica)
            let inHBM = min(input, Double(replicas[replica].space.filledRun(request, within: reach)) * blockTokens)
            let node = world.paths.nodeOfReplica[replica]
            let inNode = max(inHBM, min(input, Double(nodeRuns.isEmpty ? 0 : nodeRuns[node]) * blockTokens))
            let load = (inNode - inHBM) * model.kvBytesPerToken / hostRate
            return Double(queuedTokens) * cost.linear + load + cost.seconds(count: input - inNode, after: inNode)
        }
    }
    /// Says who may hold how much of a request's path, and looks up what nodes' own tiers have of that.
    private func findPrefix(of request: Int) {
        workload.withPath(of: request) { takers.follow($0) }
        guard !nodes.isEmpty else { return }
        fillChain(request)
        nodeRuns.removeAll(keepingCapacity: true)
        for index in nodes.indices {
            nodeRuns.append(nodes[index].manager.residentRun(chain[..<takers.reach(ofNode: index)]))
        }
    }
}
