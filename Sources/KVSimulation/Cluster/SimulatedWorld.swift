// The world as the tiering decisions see it, in virtual time: links with rates and queues instead of devices. The same
// decisions run over it as in the agent.

import KVModel
import KVTiering

/// Virtual time, links, and the way from commands to events for every node of a cluster.
///
/// Engine-facing commands (`answer`, `loading`, `ready`) are left in `outbox` for whoever plays the engines.
package struct SimulatedWorld: World, ~Copyable {
    /// Virtual time, nanoseconds.
    var clock: Int64 = 0
    /// The node whose manager is being handled.
    var node = 0
    var fabric: LinkFabric
    let paths: ClusterLinks
    package var store: StoreManager?
    /// Commands to engines, with the node they come from.
    var outbox: [(node: Int, command: Command)] = []
    /// Events to managers that are due, in order.
    private var due: [(node: Int, event: Event)] = []
    private var dueHead = 0
    /// The store's words to managers, each a round trip after its question: in the order in which they were asked.
    private var later: [(moment: Int64, node: Int, event: Event)] = []
    private var laterHead = 0
    private var transfers: [TransferInFlight] = []
    private var freeTransfers: [Int32] = []
    private var hops: [LinkFabric.Hop] = []
    private var arrived: [UInt64] = []
    /// Tags of transfers that are not a manager's, in order of arrival.
    private(set) var foreignArrivals: [UInt64] = []
    /// Bytes written to flash, local and shared.
    private(set) var flashBytesWritten = 0.0
    /// Bytes that crossed drives, NICs and store servers, for the energy of moving.
    private(set) var driveBytes = 0.0
    private(set) var nicBytes = 0.0
    private(set) var storeBytes = 0.0
    /// Round trip of a question to the store, nanoseconds.
    let storeRoundTrip: Int64

    private struct TransferInFlight {
        var node: Int32
        var order: TransferOrder
        var lost: [LostMove]
        var isCancelled: Bool
    }

    /// Set in tags of transfers that a manager did not order.
    static let foreign: UInt64 = 1 << 63

    init(paths: ClusterLinks, store: consuming StoreManager?, storeRoundTrip: Int64) {
        self.paths = paths
        fabric = LinkFabric(links: paths.links, discipline: paths.discipline)
        self.store = store
        self.storeRoundTrip = storeRoundTrip
    }

    /// The links of a scenario and a shared store, for others than the cluster of replicas.
    package init(_ scenario: Scenario, hostToGPU: Double, store: consuming StoreManager?, storeRoundTrip: Int64) {
        self.init(
            paths: ClusterLinks(scenario, hostToGPU: hostToGPU), store: store, storeRoundTrip: storeRoundTrip)
    }

    package var now: Instant { Instant(nanoseconds: clock) }

    /// When something happens next, or `IndexedClock.never`.
    package var nextMoment: Int64 {
        dueHead < due.count ? clock : min(fabric.nextMoment, nextWord)
    }

    /// When the store's next word arrives, or `IndexedClock.never`.
    private var nextWord: Int64 { laterHead < later.count ? later[laterHead].moment : IndexedClock.never }

    /// What happens to the current node until `deadline`: the loop of one node on its own.
    package mutating func next(until deadline: Instant) -> Event {
        while true {
            if let event = takeEvent(of: node) { return event }
            let moment = nextMoment
            if moment > deadline.nanoseconds {
                clock = max(clock, deadline.nanoseconds)
                return .deadline
            }
            advance(to: moment)
        }
    }

    /// Brings links and messages up to `moment`; what comes of it waits in `takeEvent`.
    package mutating func advance(to moment: Int64) {
        clock = max(clock, moment)
        arrived.clear()
        fabric.advance(to: clock, arrived: &arrived)
        for tag in arrived {
            if tag & Self.foreign != 0 { foreignArrivals.append(tag) } else { endTransfer(Int(tag)) }
        }
        while nextWord <= clock { hearNextWord() }
    }

    private mutating func hearNextWord() {
        var event = Event.deadline
        swap(&event, &later[laterHead].event)
        due.append((later[laterHead].node, event))
        laterHead += 1
        if laterHead == later.count {
            later.removeAll(keepingCapacity: true)
            laterHead = 0
        } else if laterHead >= 64, 2 * laterHead >= later.count {
            later.removeFirst(laterHead)
            laterHead = 0
        }
    }

    /// The store answers the node in hand after a round trip.
    private mutating func storeSays(_ event: Event) { later.append((clock + storeRoundTrip, node, event)) }

    /// The next event that is due, with its node.
    package mutating func takeEvent() -> (node: Int, event: Event)? {
        guard dueHead < due.count else { return nil }
        // Moved out, not copied: most events have lists in them.
        var event = Event.deadline
        swap(&event, &due[dueHead].event)
        let node = due[dueHead].node
        dueHead += 1
        if dueHead == due.count {
            due.removeAll(keepingCapacity: true)
            dueHead = 0
        }
        return (node, event)
    }

    private mutating func takeEvent(of node: Int) -> Event? {
        guard dueHead < due.count, due[dueHead].node == node else { return nil }
        return takeEvent()?.event
    }

    /// Takes the foreign transfers that have arrived.
    mutating func takeForeignArrival() -> UInt64? { foreignArrivals.isEmpty ? nil : foreignArrivals.removeFirst() }

    /// Starts a transfer that no manager ordered: a preempted request's KV on its way out or in.
    mutating func startForeign(tag: UInt64, replica: Int, bytes: Double, into direction: Link.Direction) {
        hops.clear()
        paths.appendHost(of: paths.nodeOfReplica[replica], bytes: bytes, to: &hops)
        paths.appendGPU(of: replica, bytes: bytes, direction, to: &hops)
        launch(latency: paths.dramLatency, tag: Self.foreign | tag)
    }

    /// Starts a transfer over the links in `hops`.
    private mutating func launch(latency: Int64, tag: UInt64) {
        // Taken out and put back, so that the list is lent without being copied.
        var path: [LinkFabric.Hop] = []
        swap(&path, &hops)
        fabric.start(path.span, latency: latency, tag: tag, at: clock)
        swap(&path, &hops)
    }

    package mutating func perform(_ command: Command) -> Submission {
        switch command {
        case .answer, .loading, .ready, .pinned, .reserved:
            outbox.append((node, command))
        case .transfer(let order):
            start(order)
        case .cancel(let number):
            for index in transfers.indices
            where transfers[index].node == node && transfers[index].order.transfer == number {
                transfers[index].isCancelled = true
            }
        case .askStore(let question):
            let time = now
            let present = store?.present(question.keys, at: time) ?? []
            storeSays(.storeAnswered(StoreAnswer(question: question.question, present: present)))
        case .offer(let offer):
            let time = now
            guard let want = store?.offer(offer, at: time) else { break }
            storeSays(.storeWants(want))
        case .withdraw(let keys):
            store?.withdraw(keys)
        }
        return .accepted
    }
}

extension SimulatedWorld {
    private mutating func start(_ order: TransferOrder) {
        var lost: [LostMove] = []
        let time = now
        if order.from == .flash { lost = store?.beginRead(order.moves, at: time) ?? [] }
        let share = order.moves.isEmpty ? 0 : Double(lost.count) / Double(order.moves.count)
        let bytes = Double(order.bytes) * (1 - share)
        hops.clear()
        let latency = paths.append(order, node: node, bytes: bytes, to: &hops)
        count(order, bytes: bytes)
        let flight = TransferInFlight(node: Int32(node), order: order, lost: lost, isCancelled: false)
        let slot: Int
        if let free = freeTransfers.popLast() {
            slot = Int(free)
            transfers[slot] = flight
        } else {
            slot = transfers.count
            transfers.append(flight)
        }
        launch(latency: latency, tag: UInt64(slot))
    }

    private mutating func endTransfer(_ slot: Int) {
        let flight = transfers[slot]
        transfers[slot].order.transfer = .max
        transfers[slot].order.moves = []
        freeTransfers.append(Int32(slot))
        let outcome: TransferEnd.Outcome = flight.isCancelled ? .cancelled : .done
        if flight.order.from == .flash { store?.endRead(flight.order.moves, lost: flight.lost) }
        if flight.order.to == .flash { store?.endWrite(flight.order.moves, failed: flight.isCancelled) }
        due.append(
            (
                Int(flight.node),
                .transferEnded(TransferEnd(transfer: flight.order.transfer, outcome: outcome, lost: flight.lost))
            ))
    }

    private mutating func count(_ order: TransferOrder, bytes: Double) {
        count(bytes, at: order.from)
        count(bytes, at: order.to)
        if order.to == .nvme || order.to == .flash { flashBytesWritten += bytes }
    }

    private mutating func count(_ bytes: Double, at tier: Tier) {
        if tier == .nvme { driveBytes += bytes }
        if tier == .flash {
            driveBytes += bytes
            nicBytes += 2 * bytes
            storeBytes += bytes
        }
    }
}
