// The thread of a verbs server: it takes completions, carries out what the store says, serves control connections. It
// polls while there is work and for at most 50 µs after, then arms the queue's event and sleeps.

import CKernel
import KVModel
import KVSystem

/// What the thread is started with.
struct VerbsLaneStart: Sendable {
    var transport: UInt16
    var host: any SessionHost
    var port: VerbsServerPort
    var listener: Int32
    var poller: Poller
    var border: VerbsBorder

    func run() { VerbsLane(self).run() }
}

/// The loop. Lives on its thread only.
final class VerbsLane {
    private static let wakeTag: UInt64 = 0
    private static let completionTag = UInt64.max - 1
    private static let deviceTag = UInt64.max - 2
    /// How long it looks for completions before it sleeps.
    private static let pollingTime = Duration(nanoseconds: 50_000)
    /// How often a request is offered again that the store had no room for.
    private static let retryInterval = Duration(milliseconds: 1)

    private let start: VerbsLaneStart
    private let port: VerbsServerPort
    private let border: VerbsBorder
    private let setting: ServerSetting
    private var listener: Listener
    private var connections: [UInt32: VerbsConnection] = [:]
    private var runnable: [VerbsConnection] = []
    private var blocked: [VerbsConnection] = []
    private var retriesAt = Instant.zero
    private var commandBatch: [SessionCommand] = []
    private var numbers = SessionNumbers()
    private var nextSweep = Instant.distantFuture
    private var nextPublication = Instant.zero
    private var isEnding = false
    private var lastWork = Instant.zero
    private var polled = PollBatch()

    init(_ start: VerbsLaneStart) {
        self.start = start
        port = start.port
        border = start.border
        setting = ServerSetting(
            host: start.host, limits: start.port.limits, failedTries: FailedTries(limits: start.port.limits))
        start.poller.add(border.inbox.signal.descriptor, for: .readable, tag: Self.wakeTag)
        listener = Listener(start.listener, on: start.poller)
        start.poller.add(port.completions.descriptor, for: .readable, tag: Self.completionTag)
        start.poller.add(port.device.eventDescriptor, for: .readable, tag: Self.deviceTag)
    }

    deinit {
        listener.close()
    }

    func run() {
        while true {
            setting.now = MonotonicClock.now
            takeCommands()
            let hadCompletions = takeCompletions()
            turns()
            sweep()
            publish()
            if border.isStopping.load(ordering: .sequentiallyConsistent), stop() { return }
            if hadCompletions { lastWork = setting.now }
            wait()
        }
    }

    // MARK: What comes

    private func takeCommands() { border.inbox.drain(through: &commandBatch, perform) }

    private func perform(_ command: SessionCommand) {
        // A notification may cross the end of its session.
        guard let connection = connections[command.session.number] else { return }
        connection.peer.perform(command)
        queue(connection)
    }

    /// Takes all completions that are there; whether there were any.
    private func takeCompletions() -> Bool {
        var isAny = false
        while true {
            let count = try? port.completions.take { completion in
                // None is there for a pair that was destroyed before it was drained.
                guard let connection = port.connections[completion.pair] else { return }
                connection.complete(completion)
                queue(connection)
            }
            guard let count, count > 0 else { return isAny }
            isAny = true
        }
    }

    private func takeDeviceEvents() {
        while let event = port.device.nextEvent() {
            switch event {
            case .pairFailed(let number): port.connections[number]?.pairFailed()
            case .deviceFailed, .completionsOverflowed, .portDown:
                for connection in Array(connections.values) { connection.end("the RDMA device said \(event)") }
            case .portUp, .other: break
            }
        }
        for connection in Array(connections.values) { settle(connection) }
    }

    private func accept() {
        guard !isEnding else { return }
        for _ in 0..<64 {
            guard let (descriptor, address) = listener.accept(at: setting.now) else { return }
            guard connections.count < setting.limits.sessionsMax + setting.limits.unauthenticatedMax else {
                setting.counters.connectionsRefused += 1
                hf_close(descriptor)
                continue
            }
            hf_tcp_configure(descriptor, UInt32(clamping: setting.limits.stallLimit.nanoseconds / 1_000_000), 0)
            add(AcceptedSocket(descriptor: descriptor, carrier: .verbs, address: address))
        }
    }

    private func add(_ socket: AcceptedSocket) {
        makeRoomForUnknown()
        let number = numbers.give { connections[$0] != nil }
        let connection = VerbsConnection(
            socket, id: SessionID(transport: start.transport, number: number), setting: setting, port: port)
        let interests: PollEvents = [.readable, .writable, .edgeTriggered]
        guard start.poller.add(socket.descriptor, for: interests, tag: UInt64(number)) else { return }
        connections[number] = connection
        setting.counters.connectionsAccepted += 1
        setting.counters.connectionsOpen += 1
        queue(connection)
    }

    /// The oldest of too many connections that have not proved who they are makes room.
    private func makeRoomForUnknown() {
        let unknown = connections.values.filter { $0.isUnknown }
        guard unknown.count >= max(1, setting.limits.unauthenticatedMax),
            let oldest = unknown.min(by: { $0.peer.id.number < $1.peer.id.number })
        else { return }
        setting.counters.connectionsRefused += 1
        oldest.end("a newer one needed its place")
        settle(oldest)
    }

    // MARK: Turns

    private func queue(_ connection: VerbsConnection) {
        guard !connection.isQueued else { return }
        connection.isQueued = true
        runnable.append(connection)
    }

    private func turns() {
        if !blocked.isEmpty, setting.now >= retriesAt {
            retriesAt = setting.now + Self.retryInterval
            for connection in blocked {
                connection.isBlocked = false
                queue(connection)
            }
            blocked.removeAll(keepingCapacity: true)
        }
        guard !runnable.isEmpty else { return }
        let batch = runnable
        runnable.removeAll(keepingCapacity: true)
        for connection in batch {
            connection.isQueued = false
            connection.turn()
            settle(connection)
        }
    }

    /// Queues a connection if it has something to do, forgets it if it is over, and notes its deadline.
    private func settle(_ connection: VerbsConnection) {
        if connection.peer.isOver {
            if connections.removeValue(forKey: connection.peer.id.number) != nil {
                setting.counters.connectionsOpen -= 1
            }
            return
        }
        nextSweep = min(nextSweep, connection.deadline)
        if connection.wantsTurn { queue(connection) }
        if connection.peer.isRefusedByHost, !connection.isBlocked {
            connection.isBlocked = true
            blocked.append(connection)
        }
    }

    /// Ends what has lasted too long, and finds the next time to look.
    private func sweep() {
        listener.tick(at: setting.now)
        guard setting.now >= nextSweep else { return }
        nextSweep = .distantFuture
        for connection in Array(connections.values) {
            connection.tick()
            settle(connection)
        }
    }

    // MARK: Waiting

    private func wait() {
        if setting.now < lastWork + Self.pollingTime || !runnable.isEmpty { return look(until: setting.now) }
        do throws(SystemError) {
            // What completed before the queue was armed makes no event: look once more.
            try port.completions.arm()
            if takeCompletions() { return look(until: setting.now) }
        } catch {
            // Nobody would say that something has completed. Clients go on over another carrier; one that comes again finds
            // the queue as it then is.
            for connection in Array(connections.values) {
                connection.end("\(error)")
                settle(connection)
            }
        }
        var until = min(nextSweep, listener.opensAt ?? .distantFuture)
        if !blocked.isEmpty { until = min(until, setting.now + Self.retryInterval) }
        port.counters.sleeps += 1
        nextPublication = .zero
        publish()
        look(until: until)
        port.completions.clear()
    }

    /// Sleeps, if nothing is to be done, and takes what the poller tells.
    private func look(until deadline: Instant) {
        var deadline = deadline
        border.inbox.signal.prepareToSleep()
        if !runnable.isEmpty || !border.inbox.isEmpty
            || (!isEnding && border.isStopping.load(ordering: .sequentiallyConsistent))
        {
            deadline = setting.now
        }
        start.poller.wait(until: deadline, from: setting.now, into: &polled)
        border.inbox.signal.awake()
        setting.now = MonotonicClock.now
        for index in 0..<polled.count { handle(polled[index].tag, polled[index].events) }
    }

    private func handle(_ tag: UInt64, _ events: PollEvents) {
        switch tag {
        case Self.wakeTag, Self.completionTag: break
        case Listener.tag: accept()
        case Self.deviceTag: takeDeviceEvents()
        default:
            guard let connection = connections[UInt32(truncatingIfNeeded: tag)] else { return }
            connection.stream.polled(events)
            settle(connection)
        }
    }

    // MARK: Ending

    /// Ends all connections; true when the queue pairs are drained and the store has answered everything.
    private func stop() -> Bool {
        if !isEnding {
            isEnding = true
            listener.stop()
            for connection in Array(connections.values) {
                connection.end("the store shuts down")
                settle(connection)
            }
        }
        nextPublication = .zero
        publish()
        return connections.isEmpty
    }

    /// Shows the counters to other threads, a few times a second.
    private func publish() {
        guard setting.now >= nextPublication else { return }
        nextPublication = setting.now + Duration(milliseconds: 20)
        let verbs = port.allCounters
        border.published.withLock { $0 = (setting.counters, verbs) }
    }
}
