// A small world for the decisions: nodes' slots with real content, a shared store, an engine that asks and computes,
// seeded delays and faults. It checks what no manager may do: read a slot that holds something else, write a slot that
// somebody reads, promise the engine a block that never came.

import KVModel
import KVTiering

/// How a scripted world behaves.
struct WorldScript {
    var seed: UInt64 = 1
    /// Share of transfers that fail as a whole, and of blocks that are corrupt or refused.
    var failureShare = 0.0
    var blockFaultShare = 0.0
    /// Share of commands answered `full`.
    var fullShare = 0.0
    /// Share of store answers that come after the deadline.
    var lateAnswerShare = 0.0
    /// Longest transfer.
    var transferSeconds = 0.004
}

/// The world of one node, with its own store unless it shares one.
struct ScriptedWorld: World, ~Copyable {
    var now = Instant.zero
    var script: WorldScript
    var random: RandomSource
    var store: StoreManager?
    /// What happened, for the journal: every event with its time, and every submission.
    var journal: [(Event, Instant)] = []
    var submissions: [Submission] = []
    var commands: [Command] = []

    var queue: [(time: Instant, order: Int, event: Event)] = []
    private var nextOrder = 0
    var inFlight: [TransferNumber: (order: TransferOrder, lost: [LostMove])] = [:]
    /// Content of slots, by tier.
    var content: [Tier: [SlotIndex: BlockKey]] = [.dram: [:], .nvme: [:]]
    var readers: [Tier: [SlotIndex: Int]] = [.dram: [:], .nvme: [:]]
    var writers: [Tier: Set<SlotIndex>] = [.dram: [], .nvme: []]
    /// What reached the engine, by request.
    var delivered: [RequestNumber: Set<Int32>] = [:]
    var ready: [RequestNumber: Ready] = [:]
    var answers: [RequestNumber: Answer] = [:]
    var pinAnswers: [UInt32: PinAnswer] = [:]
    var reservedSlots: [UInt32: [SlotIndex]] = [:]
    var chains: [RequestNumber: [BlockKey]] = [:]
    var broken: [String] = []

    init(_ script: WorldScript, store: consuming StoreManager? = nil, hasDevice: Bool = false) {
        self.script = script
        if hasDevice { content[.hbm] = [:] }
        random = RandomSource(seed: script.seed)
        self.store = store
    }

    mutating func schedule(_ event: Event, after seconds: Double) {
        queue.append((now + Duration(seconds: seconds), nextOrder, event))
        nextOrder += 1
    }

    var isQuiet: Bool { queue.isEmpty }

    mutating func next(until deadline: Instant) -> Event {
        var soonest: Int?
        for index in queue.indices {
            guard let best = soonest else {
                soonest = index
                continue
            }
            if (queue[index].time, queue[index].order) < (queue[best].time, queue[best].order) { soonest = index }
        }
        var event = Event.deadline
        if let soonest, queue[soonest].time <= deadline {
            let entry = queue.remove(at: soonest)
            now = max(now, entry.time)
            event = finish(entry.event)
        } else {
            now = max(now, deadline)
        }
        journal.append((event, now))
        return event
    }

    // MARK: Effects

    mutating func perform(_ command: Command) -> Submission {
        let submission = start(command)
        commands.append(command)
        submissions.append(submission)
        return submission
    }

    private mutating func start(_ command: Command) -> Submission {
        switch command {
        case .transfer, .askStore, .offer: if random.uniform() < script.fullShare { return .full }
        default: break
        }
        switch command {
        case .answer(let answer): answers[answer.request] = answer
        case .loading: break
        case .ready(let answer): checkReady(answer)
        case .transfer(let order): begin(order)
        case .cancel(let transfer): cancel(transfer)
        case .askStore(let question):
            let answer = StoreAnswer(question: question.question, present: store?.present(question.keys, at: now) ?? [])
            let isLate = random.uniform() < script.lateAnswerShare
            schedule(.storeAnswered(answer), after: isLate ? 0.02 : 0.001)
        case .offer(let offer):
            if let want = store?.offer(offer, at: now) { schedule(.storeWants(want), after: 0.001) }
        case .withdraw(let keys): store?.withdraw(keys)
        case .pinned(let answer): pinAnswers[answer.pin] = answer
        case .reserved(let answer): reservedSlots[answer.reservation] = answer.slots
        }
        return .accepted
    }

    private mutating func checkReady(_ answer: Ready) {
        if ready[answer.request] != nil { broken.append("a request is ready twice") }
        ready[answer.request] = answer
        if let device = content[.hbm] {
            if answer.slots.count != Int(answer.end - answer.first) {
                broken.append("a block is promised without a slot")
            }
            for (index, slot) in answer.slots.enumerated() {
                let key = chains[answer.request].map { $0[Int(answer.first) + index] }
                if device[slot] == nil || key.map({ $0 != device[slot] }) ?? false {
                    broken.append("an engine is promised a slot of the device that holds something else")
                }
            }
            return
        }
        let came = delivered[answer.request] ?? []
        for position in answer.first..<answer.end where !came.contains(position) {
            broken.append("a block is promised to the engine that never came")
        }
    }

    private mutating func begin(_ order: TransferOrder) {
        if order.moves.isEmpty { broken.append("an empty transfer") }
        if inFlight[order.transfer] != nil { broken.append("two transfers of one number") }
        var lost: [LostMove] = []
        if order.from == .flash { lost = store?.beginRead(order.moves, at: now) ?? [] }
        for (index, move) in order.moves.enumerated() {
            if let readable = content[order.from] {
                if readable[move.source] != move.key { broken.append("a \(order.kind) reads a slot of another block") }
                if writers[order.from]?.contains(move.source) == true {
                    broken.append("a slot is read before it is full")
                }
                readers[order.from, default: [:]][move.source, default: 0] += 1
            }
            if content[order.to] != nil {
                if readers[order.to]?[move.destination, default: 0] != 0 {
                    broken.append("a slot is written that is read")
                }
                if writers[order.to]?.insert(move.destination).inserted == false { broken.append("two write one slot") }
                content[order.to]?[move.destination] = nil
            }
            let isLost = lost.contains { $0.move == Int32(index) }
            if !isLost, random.uniform() < script.blockFaultShare {
                let causes: [LostMove.Cause] = [.corrupt, .failed]
                lost.append(LostMove(move: Int32(index), cause: causes[random.below(2)]))
            }
        }
        lost.sort { $0.move < $1.move }
        inFlight[order.transfer] = (order, lost)
        let failed = random.uniform() < script.failureShare
        let end = TransferEnd(transfer: order.transfer, outcome: failed ? .failed : .done, lost: failed ? [] : lost)
        schedule(.transferEnded(end), after: script.transferSeconds * random.uniform())
    }

    private mutating func cancel(_ transfer: TransferNumber) {
        for index in queue.indices {
            if case .transferEnded(let end) = queue[index].event, end.transfer == transfer, random.uniform() < 0.5 {
                queue[index].event = .transferEnded(TransferEnd(transfer: transfer, outcome: .cancelled))
                queue[index].time = now
            }
        }
    }

    /// Does to slots and store what a transfer's end means, before the manager hears of it.
    private mutating func finish(_ event: Event) -> Event {
        guard case .transferEnded(let end) = event, let (order, readLost) = inFlight.removeValue(forKey: end.transfer)
        else { return event }
        let isDone = end.outcome == .done
        for (index, move) in order.moves.enumerated() {
            let isLost = !isDone || end.lost.contains { $0.move == Int32(index) }
            if content[order.from] != nil {
                readers[order.from]?[move.source, default: 0] -= 1
                if content[order.from]?[move.source] != move.key { broken.append("a slot changed while it was read") }
            }
            if content[order.to] != nil {
                writers[order.to]?.remove(move.destination)
                content[order.to]?[move.destination] = isLost ? nil : move.key
            }
            if order.to == .hbm, !isLost {
                delivered[order.request, default: []].insert(move.position)
                if chains[order.request].map({ $0[Int(move.position)] != move.key }) ?? false {
                    broken.append("the engine got another block than it asked for")
                }
            }
        }
        if order.from == .flash { store?.endRead(order.moves, lost: readLost.filter { $0.cause == .absent }) }
        if order.to == .flash { store?.endWrite(order.moves, lost: end.lost, failed: !isDone) }
        return event
    }
}

/// Keys of the chain `root, root/1, root/1/2 …` given by numbers.
func chain(_ numbers: Range<Int>, of conversation: UInt64) -> [BlockKey] {
    numbers.map { BlockKey(traceBlock: UInt64($0) &+ conversation &* 100_000) }
}

/// A configuration for tests: everything small, everything on.
func smallConfiguration(
    dramBlocks: Int = 32, nvmeBlocks: Int = 0, hasStore: Bool = false, policy: PolicyName = .lru,
    inclusion: InclusionMode = .keep, spill: SpillRule = .onSave, prefetch: PrefetchConfiguration? = nil,
    rule: PlannerRule = .always
) -> TieringConfiguration {
    func tier(_ blocks: Int, _ staging: Double) -> TierConfiguration {
        TierConfiguration(bytes: blocks * 1000, stagingShare: staging) { policy.makePolicy(capacity: $0)! }
    }
    return TieringConfiguration(
        blockTokens: 16, blockBytes: 1000, ownership: .host, dram: dramBlocks > 0 ? tier(dramBlocks, 0.25) : nil,
        nvme: nvmeBlocks > 0 ? tier(nvmeBlocks, 0) : nil, inclusion: inclusion, nvmeWriteBudget: nil,
        hasStore: hasStore, spill: spill,
        directory: DirectoryConfiguration(
            presentAge: Duration(milliseconds: 60_000), absentAge: Duration(milliseconds: 1000),
            askDeadline: Duration(milliseconds: 5), isSubscribed: false),
        planner: PlannerConfiguration(
            rule: rule, prefixOnly: true, prefill: PrefillCost(base: 0, linear: 1e-3, quadratic: 1e-7),
            gpuSecondWeight: 0, gpusPerEngine: 1, overlap: .none, layers: 32,
            loadGraceMin: Duration(milliseconds: 20), loadGraceMax: Duration(milliseconds: 2000)),
        prefetch: prefetch, pinBudgetBytes: [8000, 2000],
        limits: TieringLimits(
            requestsMax: 256, transfersMax: 512, knownBlocksMax: 4096, pinsMax: 16, sliceBlocks: 4))
}

/// Paths much faster than computing.
let fastLinks = LinkView(
    dram: LinkState(bandwidth: 1e9), nvme: LinkState(bandwidth: 1e8), flash: LinkState(bandwidth: 1e8))

func smallStore(blocks: Int, policy: PolicyName = .lru) -> StoreManager {
    StoreManager(
        StoreManagerConfiguration(
            blockBytes: 1000, bytes: blocks * 1000, makePolicy: { policy.makePolicy(capacity: $0)! }, writeBudget: nil,
            knownBlocksMax: 4096))
}

/// Runs one request from arrival to end, everything drained to quiet.
@discardableResult
func serve(
    _ keys: [BlockKey], request: RequestNumber, tokens: Int? = nil, known: Int32 = -1, session: Int32 = -1,
    turn: Int32 = -1, reason: StopReason = .unknown, _ manager: inout TieringManager, _ world: inout ScriptedWorld
) -> Ready? {
    let promptTokens = Int32(tokens ?? keys.count * 16)
    world.chains[request] = keys
    manager.handle(
        .arrived(
            Arrival(request: request, chain: keys[...], promptTokens: promptTokens, session: session, turn: turn)),
        in: &world)
    manager.handle(.load(LoadRequest(request: request, engineBlocks: 0, links: fastLinks)), in: &world)
    settle(&manager, &world)
    let ready = world.ready[request]
    manager.handle(.computed(Computed(request: request, knownBlocks: known)), in: &world)
    settle(&manager, &world)
    manager.handle(.ended(request: request, reason: reason), in: &world)
    settle(&manager, &world)
    world.ready[request] = nil
    world.delivered[request] = nil
    return ready
}

/// Runs until no event is on its way. Deadlines are met only as far as events reach.
func settle(_ manager: inout TieringManager, _ world: inout ScriptedWorld) {
    while !world.isQuiet {
        let event = world.next(until: manager.nextDeadline)
        manager.handle(event, in: &world)
    }
}
