// The client's thread: it takes errands, keeps a connection, and tells of their ends.

import CKernel
import KVModel
import KVSystem
import Synchronization

/// What other threads hand to the client's.
enum ClientOrder: Sendable {
    case perform(Errand)
    case cancel(tag: UInt64)
    case stop
}

/// What the client's thread shares with its callers.
final class ClientShared: Sendable {
    let configuration: StoreClientConfiguration
    let memory: BlockMemory
    let sink: @Sendable (StoreEvent) -> Void
    let signal: WakeSignal
    let orders: Mailbox<ClientOrder>
    let inFlight = SharedCount()

    init(
        _ configuration: StoreClientConfiguration, _ memory: BlockMemory,
        _ sink: @escaping @Sendable (StoreEvent) -> Void
    ) throws(SystemError) {
        self.configuration = configuration
        self.memory = memory
        self.sink = sink
        signal = try WakeSignal()
        orders = Mailbox(capacity: 2 * configuration.inFlightMax + 2, waking: signal)
    }
}

/// Lives on the client's thread only.
final class ClientLoop: ClientConnectionOwner {
    private static let wakeTag: UInt64 = 0

    private let shared: ClientShared
    private let configuration: StoreClientConfiguration
    private let poller: Int32
    private(set) var now = MonotonicClock.now
    private var connections: [UInt64: ClientConnection] = [:]
    private var nextTag: UInt64 = 1
    /// Carries new requests.
    private var current: ClientConnection?
    /// On its way to become that.
    private var candidate: ClientConnection?
    private var waiting: [Errand] = []
    private var namespaces: [String] = []
    private var subscriptions: Set<NamespaceHandle> = []
    private var breaker: CircuitBreaker
    private var backoff: Duration
    private var connectsAt = Instant.zero
    private var climbsAt = Instant.distantFuture
    private var nextRoute = 0
    /// Why the last try to connect failed, for those whose request it fails.
    private var lastFailure = "none was tried"
    private var isStopping = false
    private var batch: [ClientOrder] = []
    private var turnBatch: [ClientConnection] = []
    private var tags = [UInt64](repeating: 0, count: 64)
    private var events = [UInt32](repeating: 0, count: 64)
    private var random: RandomSource

    init(_ shared: ClientShared, poller: Int32) {
        self.shared = shared
        self.poller = poller
        configuration = shared.configuration
        breaker = CircuitBreaker(configuration.breaker)
        backoff = configuration.backoff
        var generator = SystemRandomNumberGenerator()
        random = RandomSource(seed: generator.next())
        hf_poller_set(poller, shared.signal.descriptor, 1, Self.wakeTag, 0)
    }

    deinit { hf_close(poller) }

    func run() {
        while !isStopping {
            now = MonotonicClock.now
            shared.orders.drain(into: &batch)
            for order in batch { take(order) }
            batch.removeAll(keepingCapacity: true)
            connect()
            // A turn may end a connection or begin another.
            turnBatch.append(contentsOf: connections.values)
            for connection in turnBatch {
                connection.tick()
                connection.turn()
                judge(connection)
            }
            turnBatch.removeAll(keepingCapacity: true)
            sendWaiting()
            for connection in connections.values where connection.link.hasOutput { connection.turn() }
            if !isStopping { wait() }
        }
        for connection in Array(connections.values) { connection.end("the client shuts down") }
        failWaiting(.disconnected, "the client shuts down")
    }

    // MARK: orders

    private func take(_ order: ClientOrder) {
        switch order {
        case .perform(let errand): waiting.append(errand)
        case .cancel(let tag):
            if let place = waiting.firstIndex(where: { $0.tag == tag }) {
                return report(waiting.remove(at: place), Response(.cancelled), slotIsFree: true)
            }
            for connection in connections.values where connection.cancel(tag: tag) { return }
        case .stop: isStopping = true
        }
    }

    /// Sends what waits, as far as there are credits; fails what cannot be sent soon.
    private func sendWaiting() {
        guard !waiting.isEmpty else { return }
        var sent = 0
        while sent < waiting.count {
            let errand = waiting[sent]
            if now >= errand.deadline {
                report(errand, Response(.deadlinePassed), slotIsFree: true)
            } else if let connection = current, connection.openingCount == 0 {
                guard connection.hasCredit else { break }
                if breaker.allows(at: now) {
                    connection.send(errand)
                } else {
                    report(errand, .because(.unavailable, "the store was sick a moment ago"), slotIsFree: true)
                }
            } else if current == nil, candidate == nil {
                report(errand, .because(.disconnected, "no connection: \(lastFailure)"), slotIsFree: true)
            } else {
                break
            }
            sent += 1
        }
        waiting.removeFirst(sent)
        // Those that wait for a credit still have deadlines.
        for (place, errand) in waiting.enumerated().reversed() where now >= errand.deadline {
            waiting.remove(at: place)
            report(errand, Response(.deadlinePassed), slotIsFree: true)
        }
    }

    private func failWaiting(_ status: Status, _ why: String) {
        let errands = waiting
        waiting = []
        for errand in errands { report(errand, .because(status, why), slotIsFree: true) }
    }

    // MARK: connections

    /// Begins a connection when there is none, or when it is time to try a better way.
    private func connect() {
        guard candidate == nil, !isStopping else { return }
        if let current {
            guard current.routeIndex > 0, now >= climbsAt else { return }
            climbsAt = now + configuration.climbInterval
            begin(route: 0)
        } else if now >= connectsAt {
            begin(route: nextRoute)
        }
    }

    private func begin(route: Int) {
        do throws(SystemError) {
            let link = try configuration.routes[route].connect(shared.memory, shared.signal)
            let connection = ClientConnection(
                link, routeIndex: route, configuration: configuration, memory: shared.memory, owner: self)
            let tag = nextTag
            nextTag += 1
            connections[tag] = connection
            candidate = connection
            link.register(with: poller, tag: tag)
        } catch { failedToConnect(route, error.description) }
    }

    /// Looks at where a connection stands after its turn.
    private func judge(_ connection: ClientConnection) {
        switch connection.phase {
        case .connecting, .handshake, .settingUp: break
        case .open:
            if connection === candidate, current !== connection { promote(connection) }
            if connection !== current, connection.isIdle { connection.end("a better way was found") }
        case .ended(let reason):
            connections = connections.filter { $0.value !== connection }
            if connection === candidate {
                candidate = nil
                if connection !== current { return failedToConnect(connection.routeIndex, reason) }
            }
            guard connection === current else { return }
            current = nil
            breaker.failed(at: now)
            nextRoute = 0
            connectsAt = now
            shared.sink(.lost(reason: reason))
        }
    }

    /// New requests go over this connection; an older one ends when its last request has.
    private func promote(_ connection: ClientConnection) {
        candidate = nil
        current = connection
        backoff = configuration.backoff
        climbsAt = now + configuration.climbInterval
        for name in namespaces {
            connection.openingCount += 1
            connection.send(own(.openNamespace(name: name)))
        }
        shared.sink(.connected(configuration.routes[connection.routeIndex].carrier))
    }

    /// The next way at once; after the last one a pause.
    private func failedToConnect(_ route: Int, _ reason: String) {
        lastFailure = reason
        guard current == nil else { return }
        nextRoute = route + 1
        guard nextRoute == configuration.routes.count else { return }
        nextRoute = 0
        // Between half and the whole of the pause, so that many clients do not come back at once.
        connectsAt = now + Duration(nanoseconds: Int64(Double(backoff.nanoseconds) * (0.5 + 0.5 * random.uniform())))
        backoff = min(backoff + backoff, configuration.backoffMax)
        shared.sink(.lost(reason: reason))
    }

    // MARK: what connections tell

    func completed(_ errand: Errand, _ response: Response, slotIsFree: Bool, over connection: ClientConnection) {
        switch response.status {
        case .deadlinePassed: breaker.failed(at: now)
        // Counted once, where the connection is judged.
        case .disconnected: break
        default: breaker.succeeded()
        }
        var response = response
        switch errand.request {
        case .openNamespace(let name):
            response = remember(name, response, over: connection)
            if case .client = errand.owner { connection.openingCount -= 1 }
        case .subscribe(let namespace) where response.status == .ok: subscriptions.insert(namespace)
        default: break
        }
        report(errand, response, slotIsFree: slotIsFree)
    }

    /// Gives a namespace the client's own handle, which outlives the connection.
    private func remember(_ name: String, _ response: Response, over connection: ClientConnection) -> Response {
        guard response.status == .ok, case .namespace(let theirs) = response.body else { return response }
        let place =
            namespaces.firstIndex(of: name)
            ?? {
                namespaces.append(name)
                return namespaces.count - 1
            }()
        let ours = NamespaceHandle(place + 1)
        connection.handles[ours] = theirs
        connection.clientHandles[theirs] = ours
        if subscriptions.contains(ours), connection.openingCount > 0 {
            // What happened between the two connections is not known.
            connection.send(own(.subscribe(ours)))
            shared.sink(.notified(.overflow(ours)))
        }
        return Response(.ok, .namespace(ours))
    }

    private func own(_ request: Request) -> Errand {
        Errand(request: request, owner: .client, slot: nil, deadline: now + configuration.connectLimit)
    }

    func slotReturned(_ errand: Errand) {
        guard errand.slot != nil else { return }
        switch errand.owner {
        case .tag(let tag):
            shared.inFlight.decrement()
            shared.sink(.slotReturned(tag: tag))
        case .task(let resume):
            shared.inFlight.decrement()
            resume(Response(.deadlinePassed))
        case .client: break
        }
    }

    func notified(_ notification: Notification, over connection: ClientConnection) {
        guard connection === current, let handle = connection.clientHandles[notification.namespace] else { return }
        switch notification {
        case .added(_, let names): shared.sink(.notified(.added(handle, names)))
        case .removed(_, let names): shared.sink(.notified(.removed(handle, names)))
        case .overflow: shared.sink(.notified(.overflow(handle)))
        }
    }

    func sawCorrupt(_ request: Request) {
        guard case .get(let namespace, let name) = request, let current else { return }
        current.send(own(.reportCorrupt(namespace, name)))
    }

    private func report(_ errand: Errand, _ response: Response, slotIsFree: Bool) {
        switch errand.owner {
        case .tag(let tag):
            if slotIsFree { shared.inFlight.decrement() }
            shared.sink(.completed(tag: tag, response, slotIsFree: slotIsFree))
        case .task(let resume):
            guard slotIsFree else { return }
            shared.inFlight.decrement()
            resume(response)
        case .client: break
        }
    }

    // MARK: waiting

    private func wait() {
        var until = Instant.distantFuture
        if current == nil, candidate == nil { until = connectsAt }
        if let current, current.routeIndex > 0, candidate == nil { until = min(until, climbsAt) }
        for connection in connections.values { until = min(until, connection.nextDeadline) }
        for errand in waiting { until = min(until, errand.deadline) }
        var timeout = until == .distantFuture ? -1 : max(0, until.nanoseconds - now.nanoseconds)
        shared.signal.prepareToSleep()
        if !shared.orders.isEmpty || connections.values.contains(where: { $0.wantsTurn }) { timeout = 0 }
        let count = unsafe hf_poller_wait(poller, &tags, &events, 64, timeout)
        shared.signal.awake()
        for index in 0..<max(0, Int(count)) { connections[tags[index]]?.link.polled(events[index]) }
    }
}
