// The whole system in virtual time under faults: the decisions of several nodes and of the store they share, driven by
// random conversations over devices that are slow, dead or lying, with checkers watching every step. One seed decides
// everything; the same seed gives the same run on every machine.

import KVModel
import KVTiering

/// What came of one seed.
public struct SimulationResult: Sendable {
    /// The seed.
    public var seed: UInt64
    /// What happened, counted.
    public var counts: SimulationCounts
    /// Rules that were broken, in words; empty when all held.
    public var broken: [String]
    /// When the first rule was broken, seconds of virtual time.
    public var brokenAt: Double
    /// The faults that were in force at some time.
    public var faults: [SimulationFault]
    /// Time to ready over its bound, by the fault in force when the load began; requests without a fault under nil.
    public var waits: [SimulationWait]
    /// A digest of everything that happened.
    public var digest: UInt64
}

/// How long one request waited for its blocks, against its bound.
public struct SimulationWait: Sendable {
    /// The fault in force, if any.
    public var fault: SimulationFault?
    /// Seconds from the load to the first token.
    public var seconds: Double
    /// 1.1 × min(load, recompute) + D. Seconds.
    public var bound: Double
}

/// One run.
public final class Simulation {
    let shape: SimulationShape
    var world: FaultyWorld
    var nodes: [Node]
    var clients: SimulatedClients
    var engines: [[SimulatedEngine]]
    var requests: [SimulatedRequest] = []
    /// Requests that are not over.
    var open: [Int] = []
    var pins: [HeldPin] = []
    /// The pin that was asked for last.
    var asked: HeldPin?
    var nextPin: UInt32 = 1
    var reservations: [HeldReservation] = []
    var nextReservation: UInt32 = 1
    /// What engines do with what they are lent.
    var lender: RandomSource
    var known = BlockSet(count: 1 << 16)
    var faults: Set<SimulationFault> = []
    var waits: [SimulationWait] = []
    private var brokenAt = 0.0

    /// One node's decisions and what its ledger must hold.
    final class Node {
        var manager: TieringManager
        var bookedTokens = 0
        var freeNumbers: [RequestNumber] = []
        var nextNumber: RequestNumber = 0

        init(_ configuration: TieringConfiguration) { manager = TieringManager(configuration) }
    }

    /// A run of `seconds` of virtual time and as long after as it takes to come to rest.
    ///
    /// - Parameters:
    ///   - faults: Faults to choose from; nil: all of them.
    ///   - planted: A bug to plant, for the proof that it is seen.
    public init(
        seed: UInt64, seconds: Double, faults: [SimulationFault]? = nil, planted: PlantedBug? = nil
    ) {
        let shape = SimulationShape(seed: seed, seconds: seconds, only: faults)
        self.shape = shape
        world = FaultyWorld(shape, planted: planted)
        let extra = planted == .budgetOffByOne ? 1 : 0
        nodes = (0..<shape.nodes).map { _ in Node(shape.configuration(extraBlocks: extra)) }
        clients = SimulatedClients(shape)
        lender = RandomSource(seed: seed &+ 0x10A4)
        engines = (0..<shape.nodes).map { _ in
            (0..<shape.enginesPerNode).map { _ in SimulatedEngine(blocks: shape.engineBlocks) }
        }
    }

    /// Runs to the end, or to the first broken rule.
    public func run() -> SimulationResult {
        for (index, phase) in shape.phases.enumerated() {
            world.queue.add(.fault(index, begins: true), at: phase.start)
            if !phase.fault.isMoment { world.queue.add(.fault(index, begins: false), at: phase.end) }
        }
        world.queue.add(.arrival, at: 1_000_000)
        world.queue.add(.pin, at: 50_000_000)
        if shape.lends { world.queue.add(.reserve, at: 40_000_000) }
        while world.broken.isEmpty, step() {}
        if world.broken.isEmpty { checkAtRest() }
        if !world.broken.isEmpty { brokenAt = world.now.seconds }
        for node in nodes { count(node) }
        world.counts.requests = requests.count
        return SimulationResult(
            seed: shape.seed, counts: world.counts, broken: world.broken, brokenAt: brokenAt,
            faults: SimulationFault.allCases.filter { faults.contains($0) }, waits: waits, digest: world.digest)
    }

    /// Handles what happens next; `false` when nothing ever will.
    private func step() -> Bool {
        var moment = world.queue.earliest
        var dueNode = -1
        for (index, node) in nodes.enumerated() {
            guard world.saboteur.bug != .forgottenDeadline else { continue }
            let deadline = node.manager.nextDeadline.nanoseconds
            if deadline != .max, max(deadline, world.clock) < moment {
                moment = max(deadline, world.clock)
                dueNode = index
            }
        }
        guard moment != IndexedClock.never else { return false }
        guard moment < shape.end + Self.restMax else {
            world.broken.append("it never comes to rest")
            return false
        }
        world.clock = max(world.clock, moment)
        checkDue()
        world.counts.events += 1
        if dueNode >= 0 { deliver(.deadline, to: dueNode) } else { happen(world.queue.removeFirst()) }
        world.checkStore()
        if world.counts.events % 64 == 0 { audit() }
        return true
    }

    /// How long after the last client it may take until nothing happens any more, nanoseconds.
    private static let restMax: Int64 = 4_000_000_000_000

    private func happen(_ event: SimulationEvent) {
        switch event {
        case .flightEnds(let flight, let turn):
            guard let (node, event) = world.endFlight(flight, turn) else { return }
            noteLosses(event, node: node)
            if let event = world.saboteur.twist(event) { deliver(event, to: node) }
        case .heard(let node, let life, let event):
            if world.nodes[node].life == life { deliver(event, to: node) }
        case .fault(let index, let begins): change(index, begins: begins)
        case .arrival: arrive()
        case .request(let request, let step): take(step, request)
        case .pin: pin()
        case .unpin(let pin, let node, let life):
            guard world.nodes[node].life == life else { return }
            pins.removeAll { $0.number == pin && $0.node == node }
            deliver(.unpin(pin: pin), to: node)
        case .loanEnds(let request): endLoan(request)
        case .reserve: reserve()
        case .unreserve(let reservation, let node, let life):
            if world.nodes[node].life == life { unreserve(reservation, of: node) }
        }
    }

    /// Gives an event to a node's decisions, and their words to the engines.
    func deliver(_ event: Event, to node: Int) {
        world.node = node
        if let dying, dying.node == node { world.commandsLeft = dying.commands }
        nodes[node].manager.handle(event, in: &world)
        if dying?.node == node {
            dying?.commands = world.commandsLeft
            if world.commandsLeft != 0 { world.commandsLeft = -1 }
        }
        let words = world.outbox
        world.outbox.removeAll(keepingCapacity: true)
        // A dying agent's last words may or may not have been heard; they count as said.
        for word in words { hear(word, from: node) }
        if world.commandsLeft == 0 {
            dying = nil
            die(node)
        }
    }

    // MARK: Faults

    private func change(_ index: Int, begins: Bool) {
        let phase = shape.phases[index]
        faults.insert(phase.fault)
        switch phase.fault {
        case .crash:
            let node = phase.node < 0 ? 0 : phase.node
            // Between two events, or in the middle of what one event decided.
            let commands = world.random.below(8)
            if commands < 4 { die(node) } else { dying = (node, commands - 3) }
        case .emptiedStore: world.emptyStore()
        default:
            if begins { world.active.append(index) } else { world.active.removeAll { $0 == index } }
            if phase.fault == .lostPeer {
                if begins { world.cutConnections(of: phase.node) } else { reconnect(phase.node) }
            }
        }
    }

    /// A node that will die after so many more commands.
    private var dying: (node: Int, commands: Int)?

    /// Who is connected again believes nothing that the stream said before.
    private func reconnect(_ node: Int) {
        for index in nodes.indices where (node < 0 || node == index) && shape.isSubscribed {
            deliver(.storeForgotten, to: index)
        }
    }

    /// A node's agent dies, and starts anew with nothing.
    private func die(_ node: Int) {
        world.commandsLeft = -1
        world.counts.crashes += 1
        for request in open where requests[request].node == node { close(request) }
        open.removeAll { requests[$0].state == .over }
        pins.removeAll { $0.node == node }
        reservations.removeAll { $0.node == node }
        world.bury(node)
        count(nodes[node])
        if world.saboteur.bug == .survivedCrash { return }
        nodes[node] = Node(shape.configuration())
    }

    /// A dead node's books, or a living one's at the end.
    private func count(_ node: Node) {
        world.counts.servedTokens += node.manager.ledger.served
        world.counts.promptTokens += node.manager.ledger.total
    }
}
