// A world in which everything goes wrong that can: virtual time, slots with real content, one store for all nodes,
// paths with rates, and faults that come and go. It keeps what no decision may break: whose bytes lie where, who reads
// and who writes them.

import KVModel
import KVTiering

/// What is due at a moment.
enum SimulationEvent {
    /// A transfer reaches its end, unless that has moved since.
    case flightEnds(Int, turn: UInt32)
    /// A node hears something, unless it has died since.
    case heard(node: Int, life: UInt32, Event)
    /// A fault begins or ends.
    case fault(Int, begins: Bool)
    /// Somebody arrives.
    case arrival
    /// A request's next step.
    case request(Int, SimulatedStep)
    /// Somebody pins.
    case pin
    /// A pin is taken back.
    case unpin(UInt32, node: Int, life: UInt32)
    /// An engine's time to read what a request was lent is over.
    case loanEnds(Int)
    /// An engine wants slots to write into.
    case reserve
    /// It gives back what it was given.
    case unreserve(UInt32, node: Int, life: UInt32)
}

/// The world of all nodes of a simulation, seen by one of them at a time.
struct FaultyWorld: World, ~Copyable {
    /// Virtual time, nanoseconds.
    var clock: Int64 = 0
    /// The node whose decisions are being handled.
    var node = 0
    let shape: SimulationShape
    var random: RandomSource
    var queue = TimerQueue<SimulationEvent>()
    var nodes: [NodeDevices]
    var store: StoreManager?
    /// What the store really holds, and whether the bytes are right.
    var storeContent: [BlockKey: Bool] = [:]
    /// What one node reported corrupt while others read it: theirs until they have ended.
    var spoiledContent: [BlockKey: Bool] = [:]
    /// Rises when the store starts with nothing in it.
    var storeLife: UInt32 = 0
    var flights: [Flight] = []
    var freeFlights: [Int] = []
    /// Faults in force, by their index in the shape.
    var active: [Int] = []
    /// Commands to engines.
    var outbox: [Command] = []
    /// Rules that were broken, in words.
    var broken: [String] = []
    var saboteur: Saboteur
    /// Chains of open requests, by node and by the number the node knows them by.
    var prompts: [[RequestNumber: Prompt]]
    /// Commands until the node dies, or −1.
    var commandsLeft = -1
    var counts = SimulationCounts()
    /// A digest of everything that happened.
    var digest: UInt64 = 0x5EED

    /// A prompt as the world must know it, to tell right blocks from wrong ones.
    struct Prompt {
        var request: Int
        var engine: Int
        var path: [BlockKey]
        /// Positions that reached the engine.
        var delivered = PositionMask()
        /// The slots from which they did.
        var places: [Int32: SlotIndex] = [:]
    }

    init(_ shape: SimulationShape, planted: PlantedBug?) {
        self.shape = shape
        random = RandomSource(seed: shape.seed &+ 0xFA_0175)
        nodes = (0..<shape.nodes).map { _ in NodeDevices(shape) }
        prompts = Array(repeating: [:], count: shape.nodes)
        store = shape.makeStore()
        saboteur = Saboteur(planted)
    }

    var now: Instant { Instant(nanoseconds: clock) }

    /// What happens to the current node until `deadline`. The simulation takes events of all nodes from the queue
    /// instead; this is the loop of a world with one node.
    mutating func next(until deadline: Instant) -> Event {
        while queue.earliest <= deadline.nanoseconds {
            clock = max(clock, queue.earliest)
            switch queue.removeFirst() {
            case .flightEnds(let flight, let turn):
                if let (_, event) = endFlight(flight, turn) { return event }
            case .heard(let node, let life, let event) where nodes[node].life == life: return event
            default: break
            }
        }
        clock = max(clock, deadline.nanoseconds)
        return .deadline
    }

    mutating func perform(_ command: Command) -> Submission {
        guard commandsLeft != 0 else { return .accepted }
        if commandsLeft > 0 { commandsLeft -= 1 }
        counts.commands += 1
        switch command {
        case .transfer, .askStore, .offer:
            if isActive(.full), random.uniform() < 0.33 { return .full }
        default: break
        }
        guard let command = sabotage(command) else { return .accepted }
        switch command {
        case .answer, .loading, .ready, .pinned, .reserved: outbox.append(command)
        case .transfer(let order): begin(order)
        case .cancel(let transfer): cancel(transfer)
        case .askStore(let question): ask(question)
        case .offer(let offer): take(offer)
        case .withdraw(let keys): withdraw(keys)
        }
        return .accepted
    }

    /// Whether a fault is in force for a node, or the current one.
    func isActive(_ fault: SimulationFault, on node: Int? = nil) -> Bool {
        let node = node ?? self.node
        return active.contains {
            shape.phases[$0].fault == fault && (shape.phases[$0].node < 0 || shape.phases[$0].node == node)
        }
    }

    /// Tells a node something later.
    mutating func tell(_ node: Int, _ event: Event, at moment: Int64) {
        queue.add(.heard(node: node, life: nodes[node].life, event), at: moment)
    }

    mutating func note(_ words: UInt64...) {
        for word in words { digest = mixBits(digest ^ word) &+ 0x9E37_79B9_7F4A_7C15 }
    }

    /// Paths to a node's engines as they look now.
    func links(of node: Int) -> LinkView {
        func state(_ tier: Tier) -> LinkState {
            let wait = max(0, nodes[node].busyUntil(tier, reads: true) - clock)
            let rate = SimulationShape.rates[tier] ?? 1
            let latency = SimulationShape.latencies[tier] ?? 0
            if tier == .flash, isActive(.fitfulFlash, on: node) {
                let between = Double(mixBits(UInt64(bitPattern: clock)) % 256) / 1024 + 0.005
                return LinkState(
                    bandwidth: rate * between, delay: Duration(nanoseconds: latency), isSteady: false)
            }
            return LinkState(
                bandwidth: shape.seesRates ? rate * share(of: tier, on: node) : rate,
                delay: Duration(nanoseconds: wait + latency))
        }
        return LinkView(dram: state(.dram), nvme: state(.nvme), flash: state(.flash))
    }

    /// The share of its rate that a path has now.
    func share(of tier: Tier, on node: Int) -> Double {
        let fault: SimulationFault = tier == .flash ? .slowFlash : tier == .nvme ? .slowNVMe : .slowDRAM
        return isActive(fault, on: node) ? 0.01 : 1
    }
}

/// What happened in a simulation, counted.
public struct SimulationCounts: Sendable, Codable, Equatable {
    /// Events that were handled.
    public var events = 0
    /// Commands that were performed.
    public var commands = 0
    /// Requests that arrived.
    public var requests = 0
    /// Requests that were given up on the way.
    public var cancelled = 0
    /// Transfers that were started, and of those that did not end well.
    public var transfers = 0
    /// See `transfers`.
    public var transfersFailed = 0
    /// Blocks whose bytes were compared on arrival.
    public var blocksChecked = 0
    /// Blocks that a receiver refused because their bytes were wrong.
    public var blocksCorrupt = 0
    /// Loads that were planned, and those that came to less than their plan.
    public var loads = 0
    /// See `loads`.
    public var loadsCut = 0
    /// Agents that died.
    public var crashes = 0
    /// Pins that were granted.
    public var pins = 0
    /// Blocks that engines read where they lay.
    public var blocksLent = 0
    /// Slots that engines were given to write into, and those of them that became blocks.
    public var slotsReserved = 0
    /// See `slotsReserved`.
    public var slotsAdopted = 0
    /// Prompt tokens that tiers served, over all nodes and lives.
    public var servedTokens = 0
    /// Prompt tokens of all prompts that were booked.
    public var promptTokens = 0
    /// Prompt tokens that came from the store after the last fault was over.
    public var flashTokensWhenCalm = 0

    mutating func add(_ other: SimulationCounts) {
        events += other.events
        commands += other.commands
        requests += other.requests
        cancelled += other.cancelled
        transfers += other.transfers
        transfersFailed += other.transfersFailed
        blocksChecked += other.blocksChecked
        blocksCorrupt += other.blocksCorrupt
        loads += other.loads
        loadsCut += other.loadsCut
        crashes += other.crashes
        pins += other.pins
        blocksLent += other.blocksLent
        slotsReserved += other.slotsReserved
        slotsAdopted += other.slotsAdopted
        servedTokens += other.servedTokens
        promptTokens += other.promptTokens
        flashTokensWhenCalm += other.flashTokensWhenCalm
    }
}

/// Positions of a chain of at most 64 blocks.
struct PositionMask {
    private var bits: UInt64 = 0

    mutating func insert(_ position: Int32) { bits |= 1 << UInt64(position) }
    func contains(_ position: Int32) -> Bool { position < 64 && bits >> UInt64(position) & 1 == 1 }
}
