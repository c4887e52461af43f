// A trace in its own time over nodes that somebody else runs: requests arrive when they arrived, several of them are under way,
// and each engine computes as the serving model says. What is read from tiers takes as long as it takes. It reads no clock:
// time comes in, orders go out, answers come in.

import KVModel
import KVReport
import KVServing
import KVTiering

/// The engines of a paced replay and the requests on them.
public final class PacedReplay {
    /// A request that is taken up so much after its time came late because the machine is too slow.
    public static let lateness = 0.05

    private let scenario: Scenario
    private let model: ServingModel
    private let workload: Workload
    private let table: RequestTable
    private let router: LockStepRouter
    private let enginesPerNode: Int
    private let compression: Double
    /// Blocks of each engine's memory.
    private let engineBlocks: Int
    /// Whether that memory is slots of the node's device: then no engine keeps or shares a block by itself.
    private let ownsDevice: Bool
    private var replicas: [ReplicaState] = []
    private var clock: IndexedClock
    private var known: BlockSet
    private var computed: BlockSet
    private var itl = LogHistogram()
    private var now: Int64
    private let origin: Int64
    private var next = 0
    private var end: Int
    private var found: [Int32]
    /// What each request waits for: an answer that comes to nobody any more is not heard.
    private var awaits: [Await]
    private enum Await: UInt8 { case nothing, found, loaded }
    /// Seconds that look-up and load took.
    private var ready: [Double]
    private var kicked: KickedReplicas
    private var orders: [PacedOrder] = []
    /// What came of it so far.
    public private(set) var result = PacedResult()

    /// A replay that has not begun.
    ///
    /// - Parameters:
    ///   - nodes: Nodes; each has as many engines as the scenario says.
    ///   - compression: Seconds of the trace in one of the machine.
    ///   - hbmBlocks: HBM slots of each node that are the node's to give, in equal parts to its engines: at least
    ///     `pacedBlocksMax` for each. 0: engines own their memory.
    public init(
        _ replay: ModelledReplay, nodes: Int, router: LockStepRouter, compression: Double, hbmBlocks: Int = 0
    ) {
        scenario = replay.scenario
        model = replay.model
        workload = replay.workload
        self.router = router
        self.compression = compression
        table = RequestTable(workload)
        enginesPerNode = max(1, scenario.replicas / nodes)
        ownsDevice = hbmBlocks > 0
        engineBlocks = ownsDevice ? hbmBlocks / enginesPerNode : Cluster.hbmBlocks(model, workload)
        precondition(!ownsDevice || engineBlocks >= replay.pacedBlocksMax, "an engine without room for a request")
        let count = nodes * enginesPerNode
        clock = IndexedClock(count: count)
        kicked = KickedReplicas(count: count)
        known = BlockSet(count: workload.uniqueBlockCount)
        computed = BlockSet(count: workload.uniqueBlockCount)
        origin = workload.requests.first?.arrival ?? 0
        now = origin
        end = workload.requests.count
        found = Array(repeating: 0, count: end)
        ready = Array(repeating: 0, count: end)
        awaits = Array(repeating: .nothing, count: end)
        for _ in 0..<count {
            replicas.append(ReplicaState(engine: makeEngine(), space: makeSpace(), start: origin))
        }
    }

    private func makeEngine() -> Replica { Replica(model: model, batching: scenario.engine.batching(swaps: false)) }

    private func makeSpace() -> ReplicaSpace {
        ReplicaSpace(
            cache: PrefixCache(capacity: engineBlocks), table: table,
            sharesPrefixes: scenario.engine.prefixCaching && !ownsDevice, hostBlocks: 0)
    }

    /// When something happens that nobody has to answer first, in nanoseconds since the first arrival. Nil: nothing does.
    public var nextMoment: Int64? {
        let arrival = next < end ? workload.requests[next].arrival : IndexedClock.never
        let moment = min(arrival, clock.earliest)
        return moment == IndexedClock.never ? nil : moment - origin
    }

    /// Whether every request that came has ended and none is to come.
    public var isOver: Bool { next >= end && result.completed == result.arrived }

    /// Requests that came so far.
    public var arrivedCount: Int { next }

    /// An engine died with all that it held; another takes its place, and its requests come again.
    public func engineDied(node: Int, engine: Int) {
        let replica = node * enginesPerNode + engine
        clock.set(replica, to: IndexedClock.never)
        replicas[replica].beginAnew(makeEngine(), makeSpace(), at: now)
        for index in 0..<next where Int(table.states[index].replica) == replica && table.states[index].finished < 0 {
            if table.states[index].isComputed {
                // Its prompt was computed and booked, and is computed again: another prompt.
                result.promptTokens += Int(workload.requests[index].inputTokens)
                bookCeiling(index)
            }
            var fresh = RequestState()
            fresh.replica = Int32(replica)
            fresh.arrival = table.states[index].arrival
            fresh.order = index
            table.states[index] = fresh
            found[index] = 0
            awaits[index] = .found
            replicas[replica].heldTokens += Int(workload.requests[index].inputTokens)
            orders.append(.lookUp(request(index, engineBlocks: 0)))
        }
    }

    /// No further request comes.
    public func endArrivals() { end = next }

    /// Lets time pass up to `moment`, nanoseconds since the first arrival, and says what is to be done.
    public func advance(to moment: Int64, _ perform: (PacedOrder) throws -> Void) rethrows {
        let target = moment + origin
        while let due = nextMoment.map({ $0 + origin }), due <= target {
            now = max(now, due)
            if clock.earliest <= due {
                let replica = clock.first
                clock.set(replica, to: IndexedClock.never)
                finishIteration(replica)
            } else {
                note(late: Double(target - due) / 1e9 / compression)
                next += 1
                arrive(next - 1)
            }
            schedule()
            try flush(perform)
        }
        now = max(now, target)
        try flush(perform)
    }

    /// A node has answered.
    public func take(_ answer: PacedAnswer, _ perform: (PacedOrder) throws -> Void) rethrows {
        switch answer {
        case .found(let request, let blocks, let seconds):
            guard awaits[request] == .found else { return }
            awaits[request] = .nothing
            found[request] = blocks
            ready[request] += seconds
            let replica = Int(table.states[request].replica)
            replicas[replica].held.append(Int32(request))
            kick(replica)
        case .loaded(let request, let end, let seconds):
            guard awaits[request] == .loaded else { return }
            awaits[request] = .nothing
            ready[request] += seconds
            loaded(request, end: Int(end))
        }
        schedule()
        try flush(perform)
    }

    private func flush(_ perform: (PacedOrder) throws -> Void) rethrows {
        let waiting = orders
        orders.removeAll(keepingCapacity: true)
        for order in waiting { try perform(order) }
    }

    private func note(late seconds: Double) {
        guard seconds > Self.lateness else { return }
        result.lateRequests += 1
        result.lateSecondsMax = max(result.lateSecondsMax, seconds)
    }

    // MARK: A request's way

    private func arrive(_ index: Int) {
        let given = workload.requests[index]
        let replica = router.engine(of: given.session, turn: given.turn, index: index, count: replicas.count)
        table.states[index].arrival = given.arrival
        table.states[index].order = index
        table.states[index].replica = Int32(replica)
        replicas[replica].heldTokens += Int(given.inputTokens)
        result.arrived += 1
        result.promptTokens += Int(given.inputTokens)
        bookCeiling(index)
        awaits[index] = .found
        orders.append(.lookUp(request(index, engineBlocks: replicas[replica].space.filledRun(index))))
    }

    private func request(_ index: Int, engineBlocks: Int) -> PacedRequest {
        let given = workload.requests[index]
        let replica = Int(table.states[index].replica)
        let path = workload.blocks[given.firstReference..<given.firstReference + Int(given.blockCount)]
        return PacedRequest(
            node: replica / enginesPerNode,
            request: LockStepRequest(
                index: index, engine: replica % enginesPerNode, path: path, promptTokens: given.inputTokens,
                engineBlocks: Int32(engineBlocks), session: given.session, turn: given.turn, reason: given.stopReason,
                time: Instant(nanoseconds: given.arrival)))
    }

    /// What an endless cache would have served: everything that came before.
    private func bookCeiling(_ index: Int) {
        let prompt = Int(workload.requests[index].inputTokens)
        workload.withPath(of: index) { path in
            let run = min(computed.run(path) * workload.blockTokens, prompt)
            let named = min(path.count * workload.blockTokens, prompt)
            let isWhole = run == prompt
            result.ceiling.hbm += run - (isWhole ? 1 : 0)
            result.ceiling.firstSeen += named - run
            result.ceiling.alwaysComputed += prompt - named + (isWhole ? 1 : 0)
            computed.insert(path, from: 0)
        }
    }

    private func admitHeld(_ replica: Int) {
        while !replicas[replica].held.isEmpty, replicas[replica].hasRoomForMore(scenario.engine) {
            let index = Int(replicas[replica].held.first)
            let input = Int(workload.requests[index].inputTokens)
            let spare = replicas[replica].engine.runningCount
            guard let filled = replicas[replica].space.reserve(index, tokens: input, spare: spare) else { return }
            _ = replicas[replica].held.removeFirst()
            replicas[replica].heldTokens -= input
            table.states[index].admitted = now
            table.states[index].hbmBlocks = Int32(filled)
            workload.withPath(of: index) { path in
                table.states[index].knownBlocks = Int32(known.run(path))
                known.insert(path, from: 0)
            }
            guard Int(found[index]) > filled else {
                enqueue(index, on: replica, cachedBlocks: filled)
                continue
            }
            table.states[index].loadParts = 1
            awaits[index] = .loaded
            replicas[replica].beginLoad(at: now)
            orders.append(.load(request(index, engineBlocks: filled), end: found[index]))
        }
    }

    private func loaded(_ index: Int, end: Int) {
        let replica = Int(table.states[index].replica)
        table.states[index].loadParts = 0
        replicas[replica].endLoad(at: now)
        let filled = replicas[replica].space.filledRun(index)
        // Slots of a device are filled where they lie.
        if end > filled, !ownsDevice { replicas[replica].space.fill(index, filled..<end) }
        enqueue(index, on: replica, cachedBlocks: max(end, filled))
    }

    private func enqueue(_ index: Int, on replica: Int, cachedBlocks: Int) {
        let given = workload.requests[index]
        let cached = min(cachedBlocks * workload.blockTokens, Int(given.inputTokens) - 1)
        table.states[index].cachedTokens = Int32(cached)
        replicas[replica].engine.enqueue(
            ReplicaRequest(
                number: UInt32(index), order: table.states[index].order, inputTokens: Int(given.inputTokens),
                outputTokens: Int(given.outputTokens)))
        replicas[replica].space.cachedWaiting += cached
        kick(replica)
    }

    private func firstToken(_ index: Int) {
        guard !table.states[index].isComputed else { return }
        table.states[index].isComputed = true
        table.states[index].firstToken = now
        orders.append(.save(request(index, engineBlocks: Int(table.states[index].hbmBlocks))))
    }

    private func finish(_ index: Int) {
        let state = table.states[index]
        let output = Int(workload.requests[index].outputTokens)
        table.states[index].finished = now
        result.completed += 1
        result.span = Double(now - origin) / 1e9
        // What took real seconds took so many times as long of the trace's; a GPU would not have waited for that.
        let stretched = ready[index] * (compression - 1)
        let first =
            max(ready[index], Double(state.firstToken - state.arrival) / 1e9 - stretched)
            + scenario.engine.requestOverhead
        let perToken = output > 1 ? Double(now - state.firstToken) / 1e9 / Double(output - 1) : 0
        result.ttft.append(first)
        result.readySeconds.append(ready[index])
        if output > 1 { result.tpot.append(perToken) }
        if first <= scenario.slo.ttft, perToken <= scenario.slo.tpot { result.metSLO += 1 }
        orders.append(.end(request(index, engineBlocks: Int(state.hbmBlocks))))
    }

    // MARK: Engines

    private func kick(_ replica: Int) { kicked.insert(replica) }

    private func schedule() {
        while let replica = kicked.popLast() { schedule(replica) }
    }

    private func schedule(_ replica: Int) {
        if replicas[replica].isBusy {
            if replicas[replica].shortenForNewcomers(scenario.engine, at: now) {
                clock.set(replica, to: replicas[replica].end)
            }
            return
        }
        admitHeld(replica)
        guard replicas[replica].startIteration(scenario.engine, at: now) else { return }
        _ = replicas[replica].splitPrefill(table, model)
        clock.set(replica, to: replicas[replica].end)
    }

    private func finishIteration(_ replica: Int) {
        replicas[replica].finishIteration(at: now, itl: &itl)
        for event in replicas[replica].engine.events {
            switch event {
            case .firstToken(let number): firstToken(Int(number))
            case .finished(let number): finish(Int(number))
            case .preempted: break
            }
        }
        kick(replica)
    }

    /// GPU time up to now, by what it was spent on.
    public func accountGPUs() {
        var gpu = GPUSeconds()
        let gpus = Double(scenario.tensorParallel) / 1e9
        for replica in replicas.indices {
            replicas[replica].accountWaiting(to: now)
            let time = replicas[replica].time
            gpu.decode += Double(time.decode) * gpus
            gpu.prefillUseful += Double(time.prefillUseful) * gpus
            gpu.prefillRecomputed += Double(time.prefillRecomputed) * gpus
            gpu.stalledOnLoad += Double(time.stalled) * gpus
            gpu.idle += Double(time.idle) * gpus
            gpu.total += Double(time.total) * gpus
        }
        result.gpu = gpu
    }
}
