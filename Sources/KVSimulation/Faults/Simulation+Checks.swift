// The checkers of a simulation: no wrong byte, no stuck request, no budget overrun, nothing leaked, a ledger that adds
// up, and a bound on how long a request may wait for its blocks whatever is broken.

import KVModel
import KVTiering

extension Simulation {
    // MARK: At every step

    /// Nobody waits beyond the time that was stated.
    func checkDue() {
        for index in open {
            let request = requests[index]
            if !request.isAnswered, world.clock > request.answerDue {
                world.broken.append("a request was not answered within the store's deadline")
            }
            if request.state == .loading, world.clock > request.readyDue {
                world.broken.append("a request waits beyond its load's deadline")
            }
        }
        pins.removeAll { $0.expires <= world.clock }
    }

    /// What an engine is promised has come, and in time.
    func check(_ ready: Ready, _ index: Int) {
        let request = requests[index]
        if request.state != .loading { world.broken.append("a request is ready that does not load") }
        if ready.first < request.engineBlocks || ready.end < ready.first || Int(ready.end) > request.path.count {
            world.broken.append("a request is ready with blocks that it does not have")
        }
        if shape.ownsDevice {
            checkPlaces(ready, request)
            if let plan = request.plan, ready.end < plan.end { world.counts.loadsCut += 1 }
            return measure(ready, request)
        }
        let prompt = world.prompts[request.node][request.number]
        for position in ready.first..<max(ready.first, ready.end) where prompt?.delivered.contains(position) != true {
            world.broken.append("an engine is promised a block that never came")
        }
        if let plan = request.plan, ready.end < plan.end { world.counts.loadsCut += 1 }
        measure(ready, request)
    }

    /// What an engine is to read on the device lies there, whole.
    private func checkPlaces(_ ready: Ready, _ request: SimulatedRequest) {
        guard ready.slots.count == Int(ready.end - ready.first), Int(ready.end) <= request.path.count else {
            return world.broken.append("an engine is promised blocks of the device without their slots")
        }
        for (index, place) in ready.slots.enumerated() {
            let key = BlockKey(traceBlock: UInt64(request.path[Int(ready.first) + index]))
            let slot = world.nodes[request.node].slot(.hbm, place)
            if slot?.content?.key != key || slot?.content?.isIntact != true || slot?.writers != 0 {
                world.broken.append("an engine is promised a slot of the device that holds something else")
            }
        }
    }

    /// Time to ready against its bound: 1.1 × min(load, recompute) + D, where a load that lost blocks counts as none, and D are
    /// the store's deadline and a load's: a quarter of the recompute that it was to save.
    private func measure(_ ready: Ready, _ request: SimulatedRequest) {
        guard shape.isBounded else { return }
        let cost = SimulationShape.prefill
        let tokens = Double(SimulationShape.blockTokens)
        let wait = Double(request.computeWait) / 1e9
        let waited = Double(world.clock - request.loadBegan) / 1e9
        let start = Double(request.engineBlocks) * tokens
        let front = cost.seconds(count: Double(ready.first) * tokens - start, after: start)
        let seconds =
            max(wait + front, waited) + SimulationShape.prefillRest(from: ready.end, tokens: request.tokens)
        let recompute = wait + SimulationShape.prefillRest(from: request.engineBlocks, tokens: request.tokens)
        var least = recompute
        let configuration = nodes[request.node].manager.configuration
        var deadline = configuration.directory.askDeadline.seconds
        if let plan = request.plan {
            deadline += configuration.planner.grace(of: plan.first..<plan.end, blockTokens: configuration.blockTokens)
            if ready.end == plan.end {
                let rest = SimulationShape.prefillRest(from: plan.end, tokens: request.tokens)
                least = min(least, max(wait + front, plan.expected.seconds) + rest)
            }
        }
        let inForce = world.active.first.map { shape.phases[$0].fault }
        waits.append(SimulationWait(fault: inForce, seconds: seconds, bound: 1.1 * least + deadline))
    }

    /// A pinned block whose bytes proved wrong is gone, and with it what is behind it.
    func noteLosses(_ event: Event, node: Int) {
        guard case .transferEnded(let end) = event, !end.lost.isEmpty else { return }
        for index in pins.indices where pins[index].node == node { pins[index].isLoose = true }
    }

    // MARK: Now and then

    func audit() {
        for (index, node) in nodes.enumerated() {
            world.broken += node.manager.audit().map { "\($0) (node \(index))" }
            if node.manager.ledger.total != node.bookedTokens {
                world.broken.append("a prompt is in no ledger, or in two")
            }
            checkContent(index)
            checkPins(index)
        }
    }

    /// Whatever can be found in a tier lies there whole.
    private func checkContent(_ index: Int) {
        for block in 0..<clients.blockCount {
            let key = BlockKey(traceBlock: UInt64(block))
            for tier in [Tier.hbm, .dram, .nvme] {
                guard let place = nodes[index].manager.slot(of: key, in: tier) else { continue }
                if world.nodes[index].slot(tier, place)?.content?.key != key {
                    world.broken.append("a block can be found in \(tier.name) whose bytes are not there")
                }
            }
        }
    }

    private func checkPins(_ index: Int) {
        let manager = nodes[index].manager.configuration
        for owner in manager.pinBudgetBytes.indices
        where nodes[index].manager.pinnedBytes(of: owner) > manager.pinBudgetBytes[owner] {
            world.broken.append("an owner has more pinned than its budget")
        }
        for pin in pins where pin.node == index && !pin.isLoose {
            for key in pin.keys
            where nodes[index].manager.slot(of: key, in: .dram) == nil
                && nodes[index].manager.slot(of: key, in: .nvme) == nil
            {
                world.broken.append("a pinned block is in no tier")
            }
        }
    }

    // MARK: At rest

    /// When nothing will ever happen again, nothing is held.
    func checkAtRest() {
        audit()
        if !open.isEmpty { world.broken.append("\(open.count) requests never ended") }
        for (index, node) in nodes.enumerated() {
            let left = node.manager.inFlight()
            func check(_ count: Int, _ what: String) {
                if count != 0 { world.broken.append("\(count) \(what) left at rest (node \(index))") }
            }
            check(left.leases, "leases")
            check(left.users, "users of blocks")
            check(left.transfers, "transfers")
            check(left.offers, "offers")
            check(left.predictions, "predictions")
            check(node.manager.loanedSlots.all, "slots in engines' hands")
            check(world.nodes[index].flights.count, "transfers of the world")
            check(world.nodes[index].promised.count, "promises of the store")
            for owner in node.manager.configuration.pinBudgetBytes.indices {
                check(node.manager.pinnedBytes(of: owner), "pinned bytes")
            }
            for slot in world.nodes[index].device + world.nodes[index].dram + world.nodes[index].nvme {
                check(slot.readers + slot.writers, "readers and writers of a slot")
            }
        }
        if world.store?.usedCount != world.store?.presentCount { world.broken.append("places of the store leaked") }
    }
}
