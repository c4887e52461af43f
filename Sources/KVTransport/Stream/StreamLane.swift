// One thread that serves stream connections: it polls, reads requests, carries out what the store says, and ends what
// lasts too long. Sockets are edge-triggered: a connection costs one registration for its whole life.

import CKernel
import KVModel
import KVSystem
import Synchronization

/// A connected socket on its way to a lane.
package struct AcceptedSocket: Sendable {
    package var descriptor: Int32
    package var carrier: Carrier
    package var address: String

    package init(descriptor: Int32, carrier: Carrier, address: String) {
        self.descriptor = descriptor
        self.carrier = carrier
        self.address = address
    }
}

/// The part of a lane that other threads see.
package final class StreamLane: Sendable {
    let index: Int
    let laneCount: Int
    let transport: UInt16
    let host: any SessionHost
    let limits: ServerLimits
    let inbox: SessionInbox
    let sockets: Mailbox<AcceptedSocket>
    let isStopping = Atomic<Bool>(false)
    let published = Mutex(TransportCounters())
    /// Connections of all lanes of the server, so that its limit holds for all of them together.
    let connectionCount: SharedCount
    /// Those of all lanes: a peer is not on the same lane each time.
    let failedTries: FailedTries
    private let thread: Mutex<EngineThread?> = Mutex(nil)

    package init(
        index: Int, of laneCount: Int, transport: UInt16, host: any SessionHost, limits: ServerLimits,
        connectionCount: SharedCount, failedTries: FailedTries
    ) throws(SystemError) {
        self.index = index
        self.laneCount = laneCount
        self.transport = transport
        self.host = host
        self.limits = limits
        self.connectionCount = connectionCount
        self.failedTries = failedTries
        inbox = try SessionInbox(limits: limits)
        sockets = Mailbox(capacity: limits.sessionsMax + limits.unauthenticatedMax, waking: inbox.signal)
    }

    /// Starts the thread. `listener` is polled by this lane, too; what it accepts goes to `distribute`.
    package func start(
        listener: Int32? = nil, distribute: @escaping @Sendable (AcceptedSocket) -> Void = { _ in }
    ) throws(SystemError) {
        let poller = try Poller()
        let lane = self
        let started = try EngineThread("kv-lane-\(transport)-\(index)") {
            LaneLoop(lane, poller: poller, listener: listener, distribute: distribute).run()
        }
        thread.withLock { $0 = started }
    }

    /// Ends all connections and joins the thread. When the store owes answers, the thread is left behind after a while:
    /// it takes them, gives the buffers back that they bring, and ends by itself after the last.
    package func stop() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        inbox.signal.wake()
        let running = thread.withLock { thread -> EngineThread? in
            defer { thread = nil }
            return thread
        }
        running?.join(atMost: limits.stallLimit)
        // Nobody takes these any more.
        var left: [AcceptedSocket] = []
        sockets.drain(into: &left)
        for socket in left { hf_close(socket.descriptor) }
    }

    /// Takes a command of the store.
    package func post(_ command: SessionCommand) -> Acceptance { inbox.post(command) }
}

/// A count that several threads change.
package final class SharedCount: Sendable {
    private let count = Atomic<Int>(0)
    package init() {}
    /// Adds one, unless that would be more than `max`.
    package func increment(max: Int) -> Bool {
        if count.add(1, ordering: .relaxed).newValue <= max { return true }
        count.subtract(1, ordering: .relaxed)
        return false
    }
    package func increment() { count.add(1, ordering: .relaxed) }
    /// Adds one and says how many that makes.
    package func next() -> Int { count.add(1, ordering: .relaxed).newValue }
    package func decrement() { count.subtract(1, ordering: .relaxed) }
    package var value: Int { count.load(ordering: .relaxed) }
}

/// The loop of a lane. Lives on its thread only.
final class LaneLoop {
    private static let wakeTag: UInt64 = 0
    /// How often a request is offered again that the store had no room for.
    private static let retryInterval = Duration(milliseconds: 1)

    private let lane: StreamLane
    private let poller: Poller
    private var listener: Listener?
    private let distribute: (AcceptedSocket) -> Void
    private let setting: ServerSetting
    private var connections: [UInt32: StreamConnection] = [:]
    private var runnable: [StreamConnection] = []
    private var turnBatch: [StreamConnection] = []
    /// Connections with a request that the store had no room for.
    private var blocked: [StreamConnection] = []
    private var retriesAt = Instant.zero
    private var commandBatch: [SessionCommand] = []
    private var socketBatch: [AcceptedSocket] = []
    private var numbers: SessionNumbers
    private var nextSweep = Instant.distantFuture
    private var isEnding = false
    private var polled = PollBatch()
    private var lastPublished = TransportCounters()

    init(
        _ lane: StreamLane, poller: Poller, listener: Int32?, distribute: @escaping (AcceptedSocket) -> Void
    ) {
        self.lane = lane
        self.poller = poller
        self.distribute = distribute
        setting = ServerSetting(host: lane.host, limits: lane.limits, failedTries: lane.failedTries)
        numbers = SessionNumbers(
            first: UInt32(lane.index == 0 ? lane.laneCount : lane.index), step: UInt32(lane.laneCount))
        poller.add(lane.inbox.signal.descriptor, for: .readable, tag: Self.wakeTag)
        self.listener = listener.map { Listener($0, on: poller) }
    }

    deinit { listener?.close() }

    func run() {
        while true {
            setting.now = MonotonicClock.now
            takeSockets()
            takeCommands()
            turns()
            // What the store answered during the turns goes before the poller is asked.
            takeCommands()
            turns()
            sweep()
            publish()
            if lane.isStopping.load(ordering: .sequentiallyConsistent), stop() { return }
            wait()
        }
    }

    // MARK: What comes from other threads

    private func takeSockets() {
        lane.sockets.drain(into: &socketBatch)
        for socket in socketBatch { add(socket) }
    }

    private func takeCommands() { lane.inbox.drain(through: &commandBatch, perform) }

    private func perform(_ command: SessionCommand) {
        // A notification may cross the end of its session.
        guard let connection = connections[command.session.number] else { return }
        connection.peer.perform(command)
        settle(connection)
    }

    private func add(_ socket: AcceptedSocket) {
        guard !isEnding else {
            lane.connectionCount.decrement()
            hf_close(socket.descriptor)
            return
        }
        makeRoomForUnknown()
        let number = numbers.give { connections[$0] != nil }
        let connection = StreamConnection(
            socket, id: SessionID(transport: lane.transport, number: number), setting: setting)
        guard poller.add(socket.descriptor, for: [.readable, .writable, .edgeTriggered], tag: UInt64(number)) else {
            lane.connectionCount.decrement()
            return
        }
        connections[number] = connection
        setting.counters.connectionsAccepted += 1
        setting.counters.connectionsOpen += 1
        settle(connection)
    }

    /// The oldest of too many connections that have not proved who they are makes room: whoever fills the places
    /// keeps nobody out.
    private func makeRoomForUnknown() {
        let unknown = connections.values.filter { $0.isUnknown }
        guard unknown.count >= max(1, setting.limits.unauthenticatedMax / lane.laneCount) else { return }
        guard let oldest = unknown.min(by: { $0.peer.id.number < $1.peer.id.number }) else { return }
        setting.counters.connectionsRefused += 1
        oldest.end()
        settle(oldest)
    }

    // MARK: Turns

    /// Gives each connection with something to do a turn.
    private func turns() {
        if !blocked.isEmpty, setting.now >= retriesAt {
            retriesAt = setting.now + Self.retryInterval
            swap(&turnBatch, &blocked)
            for connection in turnBatch {
                connection.isBlocked = false
                connection.turn()
                settle(connection)
            }
            turnBatch.removeAll(keepingCapacity: true)
        }
        guard !runnable.isEmpty else { return }
        swap(&turnBatch, &runnable)
        for connection in turnBatch {
            connection.isQueued = false
            connection.turn()
            settle(connection)
        }
        turnBatch.removeAll(keepingCapacity: true)
    }

    /// Queues a connection if it has something to do, forgets it if it is over, and notes its deadline.
    private func settle(_ connection: StreamConnection) {
        if connection.peer.isOver {
            if connections.removeValue(forKey: connection.peer.id.number) != nil {
                setting.counters.connectionsOpen -= 1
                lane.connectionCount.decrement()
            }
            return
        }
        nextSweep = min(nextSweep, connection.deadline)
        if connection.wantsTurn, !connection.isQueued {
            connection.isQueued = true
            runnable.append(connection)
        }
        if connection.peer.isRefusedByHost, !connection.isBlocked {
            connection.isBlocked = true
            blocked.append(connection)
        }
    }

    /// Ends what has lasted too long, and finds the next time to look.
    private func sweep() {
        listener?.tick(at: setting.now)
        guard setting.now >= nextSweep else { return }
        nextSweep = .distantFuture
        for connection in Array(connections.values) {
            connection.tick()
            settle(connection)
        }
    }

    // MARK: Waiting

    private func wait() {
        var until = min(nextSweep, listener?.opensAt ?? .distantFuture)
        if !blocked.isEmpty { until = min(until, setting.now + Self.retryInterval) }
        lane.inbox.signal.prepareToSleep()
        if !runnable.isEmpty || !lane.inbox.isEmpty || !lane.sockets.isEmpty
            || (!isEnding && lane.isStopping.load(ordering: .sequentiallyConsistent))
        {
            until = setting.now
        }
        poller.wait(until: until, from: setting.now, into: &polled)
        lane.inbox.signal.awake(wasSignalled: polled.contains(tag: Self.wakeTag))
        setting.now = MonotonicClock.now
        for index in 0..<polled.count { handle(polled[index].tag, polled[index].events) }
    }

    private func handle(_ tag: UInt64, _ events: PollEvents) {
        switch tag {
        case Self.wakeTag: break
        case Listener.tag: accept()
        default:
            guard let connection = connections[UInt32(truncatingIfNeeded: tag)] else { return }
            connection.stream.polled(events)
            settle(connection)
        }
    }

    private func accept() {
        guard !isEnding else { return }
        for _ in 0..<64 {
            guard let (descriptor, address) = listener?.accept(at: setting.now) else { return }
            let limit = setting.limits.sessionsMax + setting.limits.unauthenticatedMax
            guard lane.connectionCount.increment(max: limit) else {
                setting.counters.connectionsRefused += 1
                hf_close(descriptor)
                continue
            }
            distribute(AcceptedSocket(descriptor: descriptor, carrier: .tcp, address: address))
        }
    }

    // MARK: Ending

    /// Ends all connections; true when the store has answered everything.
    private func stop() -> Bool {
        if !isEnding {
            isEnding = true
            listener?.stop()
            for connection in Array(connections.values) {
                connection.end()
                settle(connection)
            }
        }
        publish()
        return connections.isEmpty
    }

    private func publish() {
        guard setting.counters != lastPublished else { return }
        lastPublished = setting.counters
        lane.published.withLock { $0 = lastPublished }
    }
}

extension SessionCommand {
    /// The session it is for.
    package var session: SessionID {
        switch self {
        case .receive(let request, _), .reply(let request, _), .send(let request, _, _): request.session
        case .notify(let session, _), .disconnect(let session, _): session
        }
    }
}
