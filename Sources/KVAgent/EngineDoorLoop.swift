// The door's thread: it polls, reads what engines say, hands it on, and tells them what the decisions answer.

import CKernel
import Glibc
import KVModel
import KVSystem
import KVTransport

/// One engine's connection. Belongs to the door's thread.
final class EngineConnection {
    let stream: EngineStream
    var session: EngineSession
    var regions: [Int32: SharedRegion] = [:]
    /// What the decisions must hear before anything more is read.
    var waiting: EngineMessage?
    /// A hello that must wait until earlier connections of its process are forgotten.
    var heldHello: EngineMessage?
    /// Whether the decisions were told of it.
    var isKnown = false
    var isQueued = false
    /// Whether changes were lost that the next ones must own up to.
    var missedChanges = false
    var openedAt: Instant
    /// Set when nothing more is read and it goes once its output has gone.
    var closesBy: Instant?

    init(_ stream: EngineStream, session: EngineSession, at now: Instant) {
        self.stream = stream
        self.session = session
        openedAt = now
    }

    /// Whether the next frame may be read.
    var mayRead: Bool {
        closesBy == nil && waiting == nil && heldHello == nil && session.phase != .attaching && !session.isDone
    }
}

/// The loop of the door. Lives on its thread only.
final class EngineDoorLoop {
    private static let wakeTag: UInt64 = 0
    private static let listenerTag = UInt64.max
    private static let retryInterval = Duration(milliseconds: 1)
    private static let publishInterval = Duration(milliseconds: 100)
    /// How long a connection that was refused may take to read why.
    private static let closeLimit = Duration(seconds: 1)
    private static let framesPerTurn = 64
    private static let changesPerFrame = 50_000

    private struct Leaving {
        var process: Int32
        var regions: [Int32: SharedRegion]
    }

    private let door: EngineDoor
    private let poller: Int32
    private let listener: EngineListener
    private let user: UInt32
    private var connections: [EngineNumber: EngineConnection] = [:]
    private var leaving: [EngineNumber: Leaving] = [:]
    private var runnable: [EngineConnection] = []
    /// Ends that the decisions had no room for.
    private var goneWaiting: [EngineNumber] = []
    private var replyBatch: [EngineReply] = []
    private var nextNumber: EngineNumber = 1
    private var now = MonotonicClock.now
    private var retriesAt = Instant.distantFuture
    private var publishesAt = Instant.zero
    private var isChanged = true
    private var farewell: String?
    private var stopsBy: Instant?
    private var acceptsAgainAt: Instant?
    private var counters = EngineDoorCounters()
    private var tags = [UInt64](repeating: 0, count: 64)
    private var events = [UInt32](repeating: 0, count: 64)

    init(_ door: EngineDoor, poller: Int32, listener: EngineListener) {
        self.door = door
        self.poller = poller
        self.listener = listener
        user = getuid()
        hf_poller_set(poller, door.signal.descriptor, 1, Self.wakeTag, 0)
        hf_poller_set(poller, listener.descriptor, 1, Self.listenerTag, 0)
    }

    deinit { hf_close(poller) }

    func run() {
        while true {
            now = MonotonicClock.now
            takeReplies()
            drainIfAsked()
            retry()
            turns()
            sweep()
            if door.isStopping.load(ordering: .sequentiallyConsistent), stop() { break }
            publish()
            wait()
        }
        listener.end()
        publishesAt = .zero
        isChanged = true
        publish()
    }

    // MARK: what the decisions say

    private func takeReplies() {
        door.replies.drain(into: &replyBatch)
        guard !replyBatch.isEmpty else { return }
        isChanged = true
        for reply in replyBatch { take(reply) }
        replyBatch.removeAll(keepingCapacity: true)
    }

    private func take(_ reply: EngineReply) {
        if case .forgotten(let number) = reply {
            // The last holders of its regions let go here.
            leaving[number] = nil
            releaseHellos()
            return
        }
        // Answers may cross the end of their engine.
        guard let connection = connections[reply.engine], connection.closesBy == nil else { return }
        switch reply {
        case .attached: counters.attached += 1
        case .loaded, .saved:
            guard connection.regions.values.allSatisfy(\.isIntact) else { return lose(connection) }
        case .regionDropped(_, let region): connection.regions[region] = nil
        case .changed(_, let added, let removed): return tell(connection, added, removed)
        default: break
        }
        do throws(EngineRefusal) {
            try connection.session.take(reply, at: now) { connection.stream.queue($0, at: now) }
            if case .attached = reply { connection.stream.bodyBytesMax = EngineProtocol.bodyBytesMax }
            settle(connection)
        } catch { refuse(connection, 0, error) }
    }

    /// Changes of blocks: all that an engine may lose when it does not read.
    private func tell(_ connection: EngineConnection, _ added: [ObjectName], _ removed: [ObjectName]) {
        guard connection.stream.queuedBytes < door.configuration.limits.outputBytesMax / 2 else {
            connection.missedChanges = true
            counters.changesDropped += UInt64(added.count + removed.count)
            return
        }
        var (added, removed) = (added[...], removed[...])
        repeat {
            let frame = EngineFrame.changed(
                added: Array(added.prefix(Self.changesPerFrame)), removed: Array(removed.prefix(Self.changesPerFrame)),
                hasGap: connection.missedChanges)
            connection.missedChanges = false
            connection.stream.queue(frame, at: now)
            (added, removed) = (added.dropFirst(Self.changesPerFrame), removed.dropFirst(Self.changesPerFrame))
        } while !(added.isEmpty && removed.isEmpty)
        settle(connection)
    }

    // MARK: turns

    private func turns() {
        guard !runnable.isEmpty else { return }
        isChanged = true
        let batch = runnable
        runnable.removeAll(keepingCapacity: true)
        for connection in batch {
            connection.isQueued = false
            turn(connection)
            settle(connection)
        }
    }

    private func turn(_ connection: EngineConnection) {
        connection.stream.beginTurn()
        var framesLeft = Self.framesPerTurn
        while connection.mayRead, framesLeft > 0, connections[connection.session.number] != nil {
            framesLeft -= 1
            do throws(FrameError) {
                switch try connection.stream.next() {
                case .frame(let header, let body):
                    let frame = unsafe try EngineFrame(header, body: body, at: now)
                    take(frame, connection)
                case .nothing: return
                case .turnIsOver: return
                case .ended: return end(connection)
                }
            } catch { refuse(connection, 0, EngineRefusal(.frame, error.description)) }
        }
    }

    private func take(_ frame: EngineFrame, _ connection: EngineConnection) {
        do throws(EngineRefusal) {
            switch try connection.session.take(frame, at: now) {
            case .nothing, .leave: break
            case .forward(let message): forward(message, connection)
            case .reply(let frame): connection.stream.queue(frame, at: now)
            case .map(let region, let byteCount): try map(region, byteCount, connection)
            case .statistics(let ticket):
                connection.stream.queue(.statistics(ticket, statistics(of: connection)), at: now)
            }
        } catch { refuse(connection, frame.header.ticket, error) }
    }

    private func forward(_ message: EngineMessage, _ connection: EngineConnection) {
        if case .attach = message {
            guard !leaving.values.contains(where: { $0.process == connection.session.process }) else {
                connection.heldHello = message
                return
            }
            guard farewell == nil else {
                return refuse(connection, 0, EngineRefusal(.room, "the agent stops"))
            }
        }
        switch door.sink(message) {
        case .accepted:
            if case .attach = message { connection.isKnown = true }
        case .full:
            switch connection.session.noRoom(for: message, at: now) {
            case .reply(let frame): connection.stream.queue(frame, at: now)
            case .dropped: break
            case .mustWait:
                connection.waiting = message
                retriesAt = min(retriesAt, now + Self.retryInterval)
            }
        }
    }

    private func map(_ region: Int32, _ byteCount: Int, _ connection: EngineConnection) throws(EngineRefusal) {
        guard let descriptor = connection.stream.takeDescriptor() else {
            throw EngineRefusal(.frame, "REGION_ADD \(region) came without a descriptor")
        }
        defer { hf_close(descriptor) }
        let shared: SharedRegion
        do { shared = try SharedRegion(descriptor: descriptor, byteCount: byteCount) } catch {
            throw EngineRefusal(.region, "region \(region) cannot be mapped: \(error.description)")
        }
        counters.regionsMapped += 1
        if !shared.isSealed { counters.regionsUnsealed += 1 }
        connection.regions[region] = shared
        let message = EngineMessage.addRegion(
            connection.session.number,
            EngineRegion(number: region, memory: shared.memory, watch: shared.watcher))
        forward(message, connection)
    }

    private func statistics(of connection: EngineConnection) -> [EngineStatistic] {
        door.statistics()
            + EngineCounters.fields.map {
                EngineStatistic("engine_" + $0.name, connection.session.counters[keyPath: $0.path])
            }
    }

    /// Offers again what the decisions had no room for.
    private func retry() {
        guard now >= retriesAt else { return }
        retriesAt = .distantFuture
        while let number = goneWaiting.first, door.sink(.gone(number)) == .accepted { goneWaiting.removeFirst() }
        for connection in connections.values {
            guard let message = connection.waiting else { continue }
            connection.waiting = nil
            forward(message, connection)
            settle(connection)
        }
        if !goneWaiting.isEmpty { retriesAt = now + Self.retryInterval }
    }

    private func releaseHellos() {
        for connection in connections.values {
            guard let hello = connection.heldHello else { continue }
            connection.heldHello = nil
            forward(hello, connection)
            settle(connection)
        }
    }

    /// Sends what it can, closes what is over, and queues what has something to do.
    private func settle(_ connection: EngineConnection) {
        guard connections[connection.session.number] === connection else { return }
        guard connection.stream.flush() else { return end(connection) }
        let queued = connection.stream.queuedBytes
        if queued > door.configuration.limits.outputBytesMax, connection.closesBy == nil {
            return refuse(connection, 0, EngineRefusal(.slow, "\(queued) bytes wait for the engine"))
        }
        if queued == 0, connection.closesBy != nil || connection.session.isDone { return end(connection) }
        // An engine that does not read is not read either.
        let isHeldBack = queued > door.configuration.limits.outputBytesMax / 2
        if connection.mayRead, !isHeldBack, connection.stream.wantsRead, !connection.isQueued {
            connection.isQueued = true
            runnable.append(connection)
        }
    }

    // MARK: ends

    private func lose(_ connection: EngineConnection) {
        counters.regionsLost += 1
        let lost = connection.regions.filter { !$0.value.isIntact }.keys.sorted()
        refuse(
            connection, 0,
            EngineRefusal(.region, "the file of region \(lost.map(String.init).joined(separator: ", ")) was cut short"))
    }

    private func refuse(_ connection: EngineConnection, _ ticket: EngineTicket, _ refusal: EngineRefusal) {
        guard connection.closesBy == nil else { return }
        counters.refused[refusal.code, default: 0] += 1
        connection.stream.queue(.refused(ticket, refusal), at: now)
        connection.closesBy = now + Self.closeLimit
        settle(connection)
    }

    private func end(_ connection: EngineConnection) {
        let number = connection.session.number
        guard connections.removeValue(forKey: number) != nil else { return }
        isChanged = true
        counters.engines += connection.session.counters
        if connection.session.phase == .open, connection.closesBy == nil { counters.lostEngines += 1 }
        hf_poller_set(poller, connection.stream.descriptor, 0, 0, 0)
        hf_shut_down(connection.stream.descriptor)
        guard connection.isKnown else { return }
        leaving[number] = Leaving(process: connection.session.process, regions: connection.regions)
        if !goneWaiting.isEmpty || door.sink(.gone(number)) == .full {
            goneWaiting.append(number)
            retriesAt = min(retriesAt, now + Self.retryInterval)
        }
    }

    private func drainIfAsked() {
        guard farewell == nil, let reason = door.isDraining.withLock({ $0 }) else { return }
        farewell = reason
        for connection in Array(connections.values) {
            if let frame = connection.session.drain(reason) { connection.stream.queue(frame, at: now) }
            settle(connection)
        }
    }

    /// Ends everything; true when nothing is left.
    private func stop() -> Bool {
        if stopsBy == nil {
            stopsBy = now + door.published.withLock { $0.stopLimit }
            farewell = farewell ?? "the agent stops"
            for connection in Array(connections.values) { end(connection) }
        }
        return (connections.isEmpty && leaving.isEmpty) || now >= stopsBy ?? now
    }

    // MARK: the socket

    private func accept() {
        while true {
            let descriptor = hf_accept(listener.descriptor, nil, 0)
            guard descriptor >= 0 else {
                if KernelError.isOutOfDescriptors(Int(-descriptor)) {
                    hf_poller_set(poller, listener.descriptor, 0, Self.listenerTag, 0)
                    acceptsAgainAt = now + Duration(milliseconds: 100)
                }
                return
            }
            add(descriptor)
        }
    }

    private func add(_ descriptor: Int32) {
        isChanged = true
        counters.connections += 1
        var (process, peer, group) = (UInt32(0), UInt32.max, UInt32(0))
        let known = unsafe hf_peer_credentials(descriptor, &process, &peer, &group) == 0
        let number = nextNumber
        nextNumber += 1
        let connection = EngineConnection(
            EngineStream(descriptor),
            session: EngineSession(
                number: number, process: Int32(bitPattern: process), limits: door.configuration.limits,
                agent: door.agent, program: door.configuration.program), at: now)
        connection.session.isDraining = farewell != nil
        guard hf_poller_set(poller, descriptor, 1 | 2 | 4, UInt64(number), 0) == 0 else { return }
        connections[number] = connection
        if !known || (peer != user && !door.configuration.users.contains(peer)) {
            refuse(connection, 0, EngineRefusal(.user, "user \(peer) may not use this agent of user \(user)"))
        } else if connections.count > door.configuration.enginesMax || stopsBy != nil {
            refuse(
                connection, 0,
                EngineRefusal(.room, "\(door.configuration.enginesMax) engines are there, which is all that may be"))
        } else {
            settle(connection)
        }
    }

    private func sweep() {
        if let time = acceptsAgainAt, now >= time {
            acceptsAgainAt = nil
            hf_poller_set(poller, listener.descriptor, 1, Self.listenerTag, 0)
        }
        for connection in Array(connections.values) {
            if let time = connection.closesBy {
                if now >= time { end(connection) }
            } else if connection.session.phase == .greeting, connection.heldHello == nil,
                now >= connection.openedAt + door.configuration.limits.helloLimit
            {
                refuse(connection, 0, EngineRefusal(.frame, "no HELLO came"))
            }
        }
    }

    private var nextDeadline: Instant {
        var deadline = retriesAt
        for connection in connections.values {
            if let time = connection.closesBy {
                deadline = min(deadline, time)
            } else if connection.session.phase == .greeting {
                deadline = min(deadline, connection.openedAt + door.configuration.limits.helloLimit)
            }
        }
        if isChanged { deadline = min(deadline, publishesAt) }
        if let acceptsAgainAt { deadline = min(deadline, acceptsAgainAt) }
        if let stopsBy { deadline = min(deadline, stopsBy) }
        return deadline
    }

    private func wait() {
        guard runnable.isEmpty else { return poll(atMost: 0) }
        door.signal.prepareToSleep()
        guard door.replies.isEmpty, !(door.isStopping.load(ordering: .sequentiallyConsistent) && stopsBy == nil) else {
            door.signal.awake(wasSignalled: false)
            return
        }
        let deadline = nextDeadline
        let limit = deadline == .distantFuture ? -1 : max(0, (deadline - MonotonicClock.now).nanoseconds)
        poll(atMost: limit)
    }

    private func poll(atMost limit: Int64) {
        let count = unsafe Int(hf_poller_wait(poller, &tags, &events, 64, limit))
        var wasSignalled = false
        now = MonotonicClock.now
        var mustAccept = false
        for index in 0..<max(0, count) {
            switch tags[index] {
            case Self.wakeTag: wasSignalled = true
            case Self.listenerTag: mustAccept = true
            default:
                guard let connection = connections[EngineNumber(truncatingIfNeeded: tags[index])] else { continue }
                if events[index] & (1 | 8) != 0 { connection.stream.becameReadable() }
                if events[index] & (2 | 8) != 0 { connection.stream.isWritable = true }
                notice(connection, hungUp: events[index] & 8 != 0)
            }
        }
        door.signal.awake(wasSignalled: wasSignalled)
        if mustAccept { accept() }
    }

    /// An engine that is gone while nothing may be read from it is noticed all the same.
    private func notice(_ connection: EngineConnection, hungUp: Bool) {
        if hungUp, !connection.mayRead { return end(connection) }
        settle(connection)
    }

    // MARK: what others see

    private func publish() {
        guard isChanged, now >= publishesAt else { return }
        isChanged = false
        publishesAt = now + Self.publishInterval
        var sum = counters
        var engines: [EngineStatus] = []
        for connection in connections.values {
            sum.engines += connection.session.counters
            guard connection.isKnown, let greeting = connection.session.greeting else { continue }
            engines.append(
                EngineStatus(
                    number: connection.session.number, kind: greeting.hello.kind, client: greeting.client,
                    process: connection.session.process, storeNamespace: greeting.hello.storeNamespace,
                    regionBytes: connection.session.regionBytes, requests: connection.session.openRequests,
                    jobs: connection.session.openJobs, counters: connection.session.counters))
        }
        engines.sort { $0.number < $1.number }
        door.published.withLock { [sum, engines, count = leaving.count] view in
            view.counters = sum
            view.engines = engines
            view.leaving = count
        }
    }
}

extension EngineReply {
    /// Whom it is for.
    var engine: EngineNumber {
        switch self {
        case .attached(let engine), .refused(let engine, _), .regionAdded(let engine, _),
            .regionDropped(let engine, _), .found(let engine, _, _), .loaded(let engine, _, _, _),
            .saved(let engine, _, _), .cancelled(let engine, _), .pinned(let engine, _, _),
            .changed(let engine, _, _), .forgotten(let engine):
            engine
        }
    }
}
