// What clients and engines do in a simulation, step by step, and what the nodes' decisions tell them.

import KVModel
import KVTiering

extension Simulation {
    // MARK: Requests

    func arrive() {
        guard world.clock < shape.end else { return }
        let gap = clients.random.exponential(mean: shape.arrivalGap)
        world.queue.add(.arrival, at: world.clock + Int64(gap * 1e9) + 1)
        guard let session = clients.next() else { return }
        let path = clients.sessions[session].path
        let node = clients.sessions[session].node
        let number: RequestNumber
        if let free = nodes[node].freeNumbers.popLast() {
            number = free
        } else {
            number = nodes[node].nextNumber
            nodes[node].nextNumber += 1
        }
        let tokens = Int32(path.count * SimulationShape.blockTokens - clients.random.below(SimulationShape.blockTokens))
        let askDeadline = nodes[node].manager.configuration.directory.askDeadline.nanoseconds
        let index = requests.count
        requests.append(
            SimulatedRequest(
                node: node, life: world.nodes[node].life, engine: clients.random.below(shape.enginesPerNode),
                number: number, session: session, turn: clients.sessions[session].turn, path: path, tokens: tokens,
                arrived: world.clock, answerDue: world.clock + askDeadline))
        open.append(index)
        known.reserve(Int(clients.blockCount))
        let keys = path.map { BlockKey(traceBlock: UInt64($0)) }
        let engine = requests[index].engine
        world.prompts[node][number] = FaultyWorld.Prompt(request: index, engine: engine, path: keys)
        // The engine takes it at once, or has to finish others first.
        let wait = clients.random.below(2) == 0 ? 0 : Int64(clients.random.exponential(mean: 0.03) * 1e9)
        world.queue.add(.request(index, .load), at: world.clock + wait)
        if clients.random.uniform() < shape.cancelShare {
            let when = Int64(clients.random.exponential(mean: 0.08) * 1e9)
            world.queue.add(.request(index, .cancelled), at: world.clock + when)
        }
        let refusedBefore = nodes[node].manager.counters.requestsRefused
        world.note(UInt64(index), UInt64(path.count), UInt64(bitPattern: world.clock))
        deliver(
            .arrived(
                Arrival(
                    request: number, engine: Int32(engine), chain: keys[...], promptTokens: tokens,
                    engineBlocks: shape.ownsDevice ? 0 : Int32(engines[node][engine].run(path)),
                    session: Int32(session),
                    turn: requests[index].turn)),
            to: node)
        requests[index].isRefused = nodes[node].manager.counters.requestsRefused > refusedBefore
    }

    func take(_ step: SimulatedStep, _ index: Int) {
        guard requests[index].state != .over else { return }
        switch step {
        case .load: load(index)
        case .computed: computed(index)
        case .ended: end(index)
        case .cancelled:
            world.counts.cancelled += 1
            let (node, number) = (requests[index].node, requests[index].number)
            stopReading(index)
            leaveDevice(index)
            guard requests[index].state != .over else { return }
            deliver(.cancelled(request: number), to: node)
            finish(index)
        }
    }

    private func load(_ index: Int) {
        let node = requests[index].node
        let engine = requests[index].engine
        requests[index].state = .loading
        requests[index].loadBegan = world.clock
        requests[index].engineBlocks = shape.ownsDevice ? 0 : Int32(engines[node][engine].run(requests[index].path))
        requests[index].computeWait = shape.waitsForCompute ? Int64(clients.random.below(30_000_000)) : 0
        // Until a plan says otherwise the engine waits for the answer and no longer.
        requests[index].readyDue = max(world.clock, requests[index].isAnswered ? 0 : requests[index].answerDue)
        requests[index].isLease = shape.lends && lender.below(2) == 0
        var load = LoadRequest(
            request: requests[index].number, engineBlocks: requests[index].engineBlocks,
            computeWait: Duration(nanoseconds: requests[index].computeWait), links: world.links(of: node))
        load.isLease = shape.ownsDevice || requests[index].isLease
        deliver(.load(load), to: node)
    }

    private func computed(_ index: Int) {
        let request = requests[index]
        let path = request.path
        requests[index].state = .generating
        let run = known.run(path.span)
        known.insert(path.span, from: run)
        engines[request.node][request.engine].keep(path)
        let generating = Int64(clients.random.exponential(mean: 0.15) * 1e9)
        world.queue.add(.request(index, .ended), at: world.clock + generating)
        let oracle = shape.hasOracle ? Int32(run) : -1
        if !request.isRefused { nodes[request.node].bookedTokens += Int(request.tokens) }
        let before = nodes[request.node].manager.ledger[.flash]
        let written = adoption(by: index)
        if shape.ownsDevice {
            computedOnDevice(index, oracle)
        } else if clients.random.below(3) == 0 {
            // Piece by piece: first what is to be kept, then the books.
            var kept = Computed(
                request: request.number, knownBlocks: oracle, parts: .kept, firstHeld: written?.firstHeld ?? 0)
            kept.adopted = written?.slots
            deliver(.computed(kept), to: request.node)
            guard requests[index].state != .over else { return }
            guard
                let event = world.saboteur.twist(
                    .computed(Computed(request: request.number, knownBlocks: oracle, parts: .booked)))
            else { return }
            deliver(event, to: request.node)
        } else {
            var computed = Computed(
                request: request.number, knownBlocks: oracle, firstHeld: written?.firstHeld ?? 0)
            computed.adopted = written?.slots
            guard let event = world.saboteur.twist(.computed(computed)) else { return }
            deliver(event, to: request.node)
        }
        guard requests[index].state != .over else { return }
        if request.arrived > shape.calmFrom {
            world.counts.flashTokensWhenCalm += nodes[request.node].manager.ledger[.flash] - before
        }
    }

    private func end(_ index: Int) {
        leaveDevice(index)
        guard requests[index].state != .over else { return }
        let request = requests[index]
        let reason: StopReason = clients.random.below(2) == 0 ? .toolUse : .endTurn
        stopReading(index)
        deliver(.ended(request: request.number, reason: reason), to: request.node)
        finish(index)
    }

    /// A request is over, unless its node died over it.
    private func finish(_ index: Int) {
        guard requests[index].state != .over else { return }
        nodes[requests[index].node].freeNumbers.append(requests[index].number)
        close(index)
        open.removeAll { $0 == index }
    }

    /// Nobody waits for a request any more.
    func close(_ index: Int) {
        requests[index].state = .over
        requests[index].lentSlots = []
        world.prompts[requests[index].node][requests[index].number] = nil
        clients.sessions[requests[index].session].isOpen = false
    }

    // MARK: Slots of the device

    /// The prompt is booked, then its new blocks are written into slots of the device and become blocks there, by a request of
    /// their own, as an agent makes of it.
    private func computedOnDevice(_ index: Int, _ oracle: Int32) {
        let request = requests[index]
        let node = request.node
        let booked = Computed(request: request.number, knownBlocks: oracle, parts: .booked)
        guard let event = world.saboteur.twist(.computed(booked)) else { return }
        deliver(event, to: node)
        let left = Int32(request.path.count) - request.found
        if left > 0, requests[index].state != .over {
            let reserve = ReserveRequest(reservation: UInt32(index), count: left)
            deliver(.reserve(reserve), to: node)
        }
        guard requests[index].state != .over else { return }
        let slots = requests[index].reserved
        guard !slots.isEmpty else {
            let kept = Computed(request: request.number, parts: .kept, firstHeld: Int32(request.path.count))
            return deliver(.computed(kept), to: node)
        }
        let keys = request.path.prefix(Int(request.found) + slots.count).map { BlockKey(traceBlock: UInt64($0)) }
        for (slot, key) in zip(slots, keys[Int(request.found)...]) {
            world.nodes[node].change(.hbm, slot) { $0.content = SlotContent(key: key, isIntact: true) }
        }
        let number = RequestNumber(1 << 30) + RequestNumber(index)
        let count = Int32(keys.count)
        var kept = Computed(request: number, parts: .kept, firstHeld: request.found)
        kept.adopted = Adoption(reservation: UInt32(index), slots: slots)
        kept.adopted?.holder = request.number
        for event in [
            .arrived(
                Arrival(
                    request: number, engine: Int32(request.engine), chain: keys[...],
                    promptTokens: count * Int32(SimulationShape.blockTokens), engineBlocks: count,
                    pieceOf: request.number)),
            .computed(kept), .ended(request: number, reason: .unknown),
        ] as [Event] where requests[index].state != .over { deliver(event, to: node) }
    }

    /// Its engine reads and writes nothing for a request any more.
    private func leaveDevice(_ index: Int) {
        let request = requests[index]
        guard shape.ownsDevice else { return }
        world.letGo(request.lent + request.reserved, on: request.node)
        requests[index].lent = []
        requests[index].reserved = []
        if !request.reserved.isEmpty { deliver(.unreserve(reservation: UInt32(index)), to: request.node) }
    }

    // MARK: What nodes say

    func hear(_ word: Command, from node: Int) {
        switch word {
        case .answer(let answer):
            // Saves are requests of their own.
            if answer.request >= 1 << 30 { return }
            guard let index = request(answer.request, of: node) else { return }
            if requests[index].isAnswered { world.broken.append("a request is answered twice") }
            requests[index].isAnswered = true
        case .loading(let plan):
            guard let index = request(plan.request, of: node) else { return }
            world.counts.loads += 1
            requests[index].plan = plan
            requests[index].readyDue = plan.deadline.nanoseconds
        case .ready(let ready):
            guard let index = request(ready.request, of: node) else { return }
            check(ready, index)
            lend(index, ready)
            begin(index, ready)
        case .reserved(let answer) where shape.ownsDevice:
            let index = Int(answer.reservation)
            requests[index].reserved = answer.slots
            world.hold(answer.slots, areEmpty: true, on: node)
        case .pinned(let answer): pinned(answer, by: node)
        case .reserved(let answer): reserved(answer, by: node)
        default: break
        }
    }

    private func request(_ number: RequestNumber, of node: Int) -> Int? {
        guard let index = world.prompts[node][number]?.request else {
            world.broken.append("a node speaks of a request that is over")
            return nil
        }
        return index
    }

    /// The engine computes what did not come.
    private func begin(_ index: Int, _ ready: Ready) {
        requests[index].state = .computing
        if shape.ownsDevice {
            requests[index].lent = ready.slots
            requests[index].found = ready.end
            world.hold(ready.slots, areEmpty: false, on: requests[index].node)
            if world.saboteur.strikes(.lentSlotForgotten, every: 3) {
                world.tell(requests[index].node, .released(request: ready.request), at: world.clock)
            }
        }
        requests[index].readyDue = .max
        let rest = SimulationShape.prefillRest(from: ready.end, tokens: requests[index].tokens)
        let wait = max(0, requests[index].loadBegan + requests[index].computeWait - world.clock)
        world.queue.add(.request(index, .computed), at: world.clock + wait + Int64(rest * 1e9))
    }

    // MARK: Pins

    func pin() {
        guard world.clock < shape.end else { return }
        world.queue.add(.pin, at: world.clock + Int64(clients.random.exponential(mean: 0.3) * 1e9) + 1)
        let session = clients.sessions[clients.random.below(clients.sessions.count)]
        guard !session.path.isEmpty else { return }
        let chain = session.path.map { BlockKey(traceBlock: UInt64($0)) }
        let number = nextPin
        nextPin += 1
        let life = Int64(clients.random.exponential(mean: 1.5) * 1e9) + 1_000_000
        let node = session.node
        let request = PinRequest(
            pin: number, owner: Int32(clients.random.below(3)), chain: chain[...],
            expires: world.now + Duration(nanoseconds: life))
        asked = HeldPin(number: number, node: node, keys: chain, expires: request.expires.nanoseconds)
        if world.saboteur.bug == .pinIgnored {
            let run = nodes[node].manager.residentRun(chain[...])
            guard run > 0 else { return }
            hear(.pinned(PinAnswer(pin: number, outcome: .granted, blocks: Int32(run))), from: node)
        } else {
            deliver(.pin(request), to: node)
        }
        if clients.random.below(3) == 0 {
            let moment = world.clock + Int64(clients.random.uniform() * Double(life))
            world.queue.add(.unpin(number, node: node, life: world.nodes[node].life), at: moment)
        }
    }

    private func pinned(_ answer: PinAnswer, by node: Int) {
        guard answer.outcome == .granted, var pin = asked, pin.number == answer.pin else { return }
        if Int(answer.blocks) > pin.keys.count { world.broken.append("a pin holds more than its chain") }
        pin.keys = Array(pin.keys.prefix(Int(answer.blocks)))
        pins.append(pin)
        world.counts.pins += 1
    }
}

/// A pin that was granted, as its owner believes in it.
struct HeldPin {
    var number: UInt32
    var node: Int
    var keys: [BlockKey]
    var expires: Int64
    /// Whether bytes proved wrong on its node since: then some of it may be gone.
    var isLoose = false
}

extension SimulationShape {
    /// Seconds to compute a prompt from a block on; the last token always is.
    static func prefillRest(from block: Int32, tokens: Int32) -> Double {
        let start = min(Double(block) * Double(blockTokens), Double(tokens) - 1)
        return prefill.seconds(count: Double(tokens) - start, after: start)
    }
}
