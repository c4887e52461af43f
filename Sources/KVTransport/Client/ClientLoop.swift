// The client's thread: it takes errands, keeps a connection, and tells of their ends.

import KVModel
import KVSystem

/// Lives on the client's thread only.
final class ClientLoop: ClientConnectionOwner {
    private static let wakeTag: UInt64 = 0

    private let shared: ClientShared
    private let configuration: StoreClientConfiguration
    private let poller: Poller
    private(set) var now = MonotonicClock.now
    /// All that stand: the current one, one on its way, some that end.
    private var connections: [(tag: UInt64, connection: ClientConnection)] = []
    private var nextTag: UInt64 = 1
    /// Carries new requests.
    private var current: ClientConnection?
    /// On its way to become that.
    private var candidate: ClientConnection?
    private var waiting: [Errand] = []
    private var namespaces: [String] = []
    private var subscriptions: Set<NamespaceHandle> = []
    private var breaker: CircuitBreaker
    private var routes: RouteSchedule
    /// Why the last try to connect failed, for those whose request it fails.
    private var lastFailure = "none was tried"
    private var isStopping = false
    /// Whether a connection began to carry or ended in this turn: what follows from it must not wait for the poller.
    private var hasChanged = false
    private var batch: [ClientOrder] = []
    private var polled = PollBatch()

    init(_ shared: ClientShared, poller: Poller) {
        self.shared = shared
        self.poller = poller
        configuration = shared.configuration
        breaker = CircuitBreaker(configuration.breaker)
        routes = RouteSchedule(configuration, seed: .random(in: .min ... .max))
        poller.add(shared.signal.descriptor, for: .readable, tag: Self.wakeTag)
    }

    func run() {
        while !isStopping {
            now = MonotonicClock.now
            hasChanged = false
            takeOrders()
            connect()
            // From the last: judging may remove the one that is judged.
            for place in connections.indices.reversed() {
                let connection = connections[place].connection
                connection.tick()
                connection.turn()
                judge(connection, at: place)
            }
            // What the owner submitted when it heard of an end goes before the poller is asked.
            takeOrders()
            sendWaiting()
            for place in connections.indices.reversed() where connections[place].connection.link.hasOutput {
                let connection = connections[place].connection
                connection.turn()
                judge(connection, at: place)
            }
            if !isStopping { wait() }
        }
        for (_, connection) in connections { connection.end("the client shuts down") }
        failWaiting(.disconnected, "the client shuts down")
        shared.hasEnded.store(true, ordering: .sequentiallyConsistent)
        shared.failLeft()
    }

    // MARK: Orders

    private func takeOrders() {
        shared.orders.drain(into: &batch)
        for order in batch { take(order) }
        batch.removeAll(keepingCapacity: true)
    }

    private func take(_ order: ClientOrder) {
        switch order {
        case .perform(let errand): waiting.append(errand)
        case .cancel(let tag):
            if let place = waiting.firstIndex(where: { $0.tag == tag }) {
                return report(waiting.remove(at: place), Response(.cancelled), slotIsFree: true)
            }
            for (_, connection) in connections where connection.cancel(tag: tag) { return }
        case .stop: isStopping = true
        }
    }

    /// Whether something waits that could go now.
    private var maySend: Bool {
        guard !waiting.isEmpty, let current else { return false }
        return current.openingCount == 0 && current.hasCredit
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
        if sent > 0 { waiting.removeFirst(sent) }
        // Those that wait for a credit still have deadlines.
        for place in waiting.indices.reversed() where now >= waiting[place].deadline {
            report(waiting.remove(at: place), Response(.deadlinePassed), slotIsFree: true)
        }
    }

    private func failWaiting(_ status: Status, _ why: String) {
        let errands = waiting
        waiting = []
        for errand in errands { report(errand, .because(status, why), slotIsFree: true) }
    }

    // MARK: Connections

    private var carrying: RouteSchedule.Carrying? { current.map { ($0.routeIndex, $0.isSilent) } }

    /// Begins a connection when it is time.
    private func connect() {
        guard candidate == nil, !isStopping, let route = routes.due(beside: carrying, at: now) else { return }
        begin(route: route)
    }

    private func begin(route: Int) {
        do throws(SystemError) {
            let link = try configuration.routes[route].connect(shared.memory, shared.signal)
            let connection = ClientConnection(
                link, routeIndex: route, configuration: configuration, memory: shared.memory, owner: self)
            let tag = nextTag
            nextTag += 1
            connections.append((tag, connection))
            candidate = connection
            link.register(with: poller, tag: tag)
        } catch { failedToConnect(route, error.description) }
    }

    /// Looks at where a connection stands after its turn.
    private func judge(_ connection: ClientConnection, at place: Int) {
        switch connection.phase {
        case .connecting, .handshake, .settingUp: break
        case .open:
            hasChanged = hasChanged || connection === candidate
            if connection === candidate, current !== connection { consider(connection) }
            if connection !== current, connection.isIdle { connection.end("a better way was found") }
        case .ended(let reason):
            hasChanged = true
            connections.remove(at: place)
            if connection === candidate {
                candidate = nil
                if connection !== current { return failedToConnect(connection.routeIndex, reason) }
            }
            guard connection === current else { return }
            current = nil
            breaker.failed(at: now)
            routes.lost(route: connection.routeIndex, isProven: connection.isProven, at: now)
            shared.sink(.lost(reason: reason))
        }
    }

    private func proved(_ connection: ClientConnection) {
        guard !connection.isProven else { return }
        connection.isProven = true
        routes.proved()
    }

    /// A connection that stands is kept if there is none as good, or if that one is silent still.
    private func consider(_ connection: ClientConnection) {
        guard let old = current, connection.routeIndex >= old.routeIndex else { return promote(connection) }
        guard old.isStillSilent() else {
            candidate = nil
            return
        }
        promote(connection)
        old.end("it is silent, and the store welcomes another one")
    }

    /// New requests go over this connection; an older one ends when its last request has.
    private func promote(_ connection: ClientConnection) {
        candidate = nil
        // What failed failed over the old one, and its probe may never be judged.
        if current != nil { breaker = CircuitBreaker(configuration.breaker) }
        current = connection
        routes.promoted(at: now)
        // All are counted before the first is sent: requests of the owner wait until everything is as it was.
        connection.openingCount = namespaces.count + subscriptions.count
        for name in namespaces { connection.sendOwn(own(.openNamespace(name: name))) }
        if let grants = connection.grants {
            shared.payloadBytesMax.store(Int(grants.payloadBytesMax), ordering: .releasing)
        }
        shared.sink(.connected(configuration.routes[connection.routeIndex].carrier))
    }

    /// The owner is told when every way has failed.
    private func failedToConnect(_ route: Int, _ reason: String) {
        lastFailure = reason
        guard current == nil, routes.failed(route: route, at: now) else { return }
        shared.sink(.lost(reason: reason))
    }

    // MARK: What connections tell

    func completed(_ errand: Errand, _ response: Response, slotIsFree: Bool, over connection: ClientConnection) {
        // What the client asks by itself says nothing about its owner's requests: a store may acknowledge every cancel
        // and answer nothing else.
        if case .client = errand.owner { return reopened(errand, response, over: connection) }
        // What an earlier connection still brings says nothing of the way that requests take now.
        if connection === current { judge(response.status) }
        var response = response
        switch errand.request {
        case .openNamespace(let name):
            let isNew = !namespaces.contains(name)
            response = remember(name, response, over: connection)
            if isNew, response.status == .ok { open(errand.request, besides: connection) }
        case .subscribe(let namespace) where response.status == .ok:
            if subscriptions.insert(namespace).inserted { open(errand.request, besides: connection) }
        default: break
        }
        switch response.status {
        case .deadlinePassed, .disconnected: break
        default: proved(connection)
        }
        report(errand, response, slotIsFree: slotIsFree)
    }

    private func judge(_ status: Status) {
        switch status {
        case .deadlinePassed: breaker.failed(at: now)
        // Counted once, where the connection is judged.
        case .disconnected: break
        default: breaker.succeeded()
        }
    }

    /// Opens over the current connection what an earlier one was given after that had been promoted.
    private func open(_ request: Request, besides connection: ClientConnection) {
        guard let current, current !== connection else { return }
        current.openingCount += 1
        // A subscription follows its namespace where that is still being opened.
        if case .subscribe(let ours) = request, current.handles[ours] == nil, current.refusals[ours] == nil { return }
        current.sendOwn(own(request))
    }

    /// Gives a namespace the client's own handle, which outlives the connection.
    private func remember(_ name: String, _ response: Response, over connection: ClientConnection) -> Response {
        guard response.status == .ok, case .namespace(let theirs) = response.body else { return response }
        if !namespaces.contains(name) { namespaces.append(name) }
        let ours = handle(of: name)
        connection.handles[ours] = theirs
        connection.clientHandles[theirs] = ours
        return Response(.ok, .namespace(ours))
    }

    private func handle(of name: String) -> NamespaceHandle {
        guard let place = namespaces.firstIndex(of: name) else { preconditionFailure("a namespace never opened") }
        return NamespaceHandle(place + 1)
    }

    /// Something that an earlier connection had is there again, or is refused. Where that may pass, the connection ends
    /// and everything is tried once more; a namespace that is gone stays refused as the store refused it.
    private func reopened(_ errand: Errand, _ response: Response, over connection: ClientConnection) {
        guard response.status != .disconnected else { return }
        switch errand.request {
        case .openNamespace(let name):
            if response.mayPass { return connection.end("a namespace is not open again: \(response.status)") }
            let ours = handle(of: name)
            connection.openingCount -= 1
            if remember(name, response, over: connection).status != .ok { connection.refusals[ours] = response }
            if subscriptions.contains(ours) { connection.sendOwn(own(.subscribe(ours))) }
        case .subscribe(let ours):
            if response.mayPass { return connection.end("a subscription is not there again: \(response.status)") }
            connection.openingCount -= 1
            if response.status != .ok { subscriptions.remove(ours) }
            // What happened between the two connections is not known. From here on nothing is missed, so what is told
            // now can be acted on.
            shared.sink(.notified(.overflow(ours)))
        default: return
        }
        if connection.openingCount == 0 { proved(connection) }
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
        current.sendOwn(own(.reportCorrupt(namespace, name)))
    }

    private func report(_ errand: Errand, _ response: Response, slotIsFree: Bool) {
        shared.report(errand, response, slotIsFree: slotIsFree)
    }

    // MARK: Waiting

    private func wait() {
        var until = Instant.distantFuture
        if candidate == nil { until = routes.nextTime(beside: carrying) }
        for (_, connection) in connections { until = min(until, connection.nextDeadline) }
        for errand in waiting { until = min(until, errand.deadline) }
        shared.signal.prepareToSleep()
        // Answers of the last turns may have given credits back to those that wait, and no answer may be left to wake for.
        if hasChanged || maySend || !shared.orders.isEmpty || connections.contains(where: { $0.connection.wantsTurn }) {
            until = now
        }
        poller.wait(until: until, from: now, into: &polled)
        shared.signal.awake(wasSignalled: polled.contains(tag: Self.wakeTag))
        for index in 0..<polled.count {
            let (tag, events) = polled[index]
            for other in connections where other.tag == tag { other.connection.link.polled(events) }
        }
    }
}

extension Response {
    /// Whether the same request may end well a little later.
    fileprivate var mayPass: Bool {
        switch status {
        case .busy, .unavailable, .failed, .overBudget, .deadlinePassed, .cancelled: true
        default: false
        }
    }
}
