// The iterations of a cluster's batching engines: when one starts, what it did, and requests thrown out of HBM on their way to
// host memory and back.

import KVModel
import KVServing

extension Cluster {
    func kick(_ replica: Int) { kicked.insert(replica) }

    /// Starts an iteration if there is one to start; shortens a run of decode steps that a newcomer waits behind.
    func schedule(_ replica: Int) {
        if replicas[replica].isBusy {
            if replicas[replica].shortenForNewcomers(scenario.engine, at: now) {
                clock.set(replica, to: replicas[replica].end)
            }
            return
        }
        bringBack(replica)
        admitHeld(replica)
        guard replicas[replica].startIteration(scenario.engine, at: now) else { return }
        for event in replicas[replica].engine.events { handle(event, on: replica) }
        accounts.usefulFLOPs += replicas[replica].splitPrefill(table, model)
        if scenario.engine.overlap == .layerwise { replicas[replica].holdForLayers(table, layers: model.shape.layers) }
        clock.set(replica, to: replicas[replica].end)
    }

    func finishIteration(_ replica: Int) {
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

    func foreignTransferEnded(_ transfer: ForeignTransfer) {
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
