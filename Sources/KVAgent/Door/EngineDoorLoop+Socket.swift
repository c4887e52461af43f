// How engines come to the door, how it waits for them, and what others see of it.

import CKernel
import Glibc
import KVModel
import KVSystem
import KVTransport

extension EngineDoorLoop {
    // MARK: The socket

    func accept() {
        while true {
            let descriptor = hf_accept(listener.descriptor, nil, 0)
            guard descriptor >= 0 else {
                if KernelError.isOutOfRoom(Int(-descriptor)) {
                    poller.remove(listener.descriptor)
                    acceptsAgainAt = now + Duration(milliseconds: 100)
                }
                return
            }
            add(descriptor)
        }
    }

    func add(_ descriptor: Int32) {
        isChanged = true
        counters.connections += 1
        var (process, peer, group) = (UInt32(0), UInt32.max, UInt32(0))
        let known = unsafe hf_peer_credentials(descriptor, &process, &peer, &group) == 0
        let number = numbers.next { connections[$0] != nil || leaving[$0] != nil }
        let connection = EngineConnection(
            EngineStream(descriptor),
            session: EngineSession(
                number: number, process: Int32(bitPattern: process), limits: door.configuration.limits,
                agent: door.agent, program: door.configuration.program), at: now)
        connection.session.isDraining = farewell != nil
        guard poller.add(descriptor, for: [.readable, .edgeTriggered], tag: UInt64(number)) else { return }
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

    /// Sees to it that the path still leads here. Whoever cleans a folder up removes sockets too, and engines that come later would
    /// find nobody; those that are connected notice nothing.
    func keepSocket() {
        guard now >= socketSeenAgainAt else { return }
        socketSeenAgainAt = now + Self.socketInterval
        guard farewell == nil, stopsBy == nil else { return }
        if listener.isInPlace {
            if socketTrouble != nil { tellOfSocket(nil) }
            return
        }
        do throws(OperatorError) {
            let configuration = door.configuration
            let made = try EngineListener(
                path: configuration.path, isShared: !configuration.users.isEmpty, patience: .zero)
            // Those that came by the file that is gone.
            accept()
            if acceptsAgainAt == nil { poller.remove(listener.descriptor) }
            acceptsAgainAt = nil
            listener.end()
            listener = made
            poller.add(made.descriptor, for: .readable, tag: Self.listenerTag)
            tellOfSocket(nil)
        } catch { tellOfSocket(error.description) }
    }

    private func tellOfSocket(_ trouble: String?) {
        guard trouble == nil || trouble != socketTrouble else { return }
        socketTrouble = trouble
        door.socketChanged(trouble)
    }

    /// Has the poller tell of room in the socket while something waits for it, and only then: each frame that an engine reads
    /// makes room.
    func watchForRoom(_ connection: EngineConnection) {
        guard connection.stream.wantsRoom != connection.awaitsRoom else { return }
        connection.awaitsRoom = connection.stream.wantsRoom
        poller.change(
            connection.stream.descriptor,
            to: connection.awaitsRoom ? [.readable, .writable, .edgeTriggered] : [.readable, .edgeTriggered],
            tag: UInt64(connection.session.number))
    }

    func sweep() {
        guard now >= sweepsAt else { return }
        sweepsAt = now + Self.sweepInterval
        if let time = acceptsAgainAt, now >= time {
            acceptsAgainAt = nil
            poller.add(listener.descriptor, for: .readable, tag: Self.listenerTag)
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

    var nextDeadline: Instant {
        var swept = acceptsAgainAt ?? .distantFuture
        for connection in connections.values {
            if let time = connection.closesBy {
                swept = min(swept, time)
            } else if connection.session.phase == .greeting {
                swept = min(swept, connection.openedAt + door.configuration.limits.helloLimit)
            }
        }
        var deadline = min(retriesAt, max(swept, sweepsAt), socketSeenAgainAt)
        if isChanged { deadline = min(deadline, publishesAt) }
        if let stopsBy { deadline = min(deadline, stopsBy) }
        return deadline
    }

    /// Sleeps until something comes, but not beyond `limit`. Whether the signal of the thread that attends was given.
    func sleep(until limit: Instant) -> Bool {
        tellUnhurried()
        guard runnable.isEmpty else { return poll(until: now) }
        door.signal.prepareToSleep()
        guard door.replies.isEmpty, !isWantedElsewhere, !mustStop else {
            door.signal.awake(wasSignalled: false)
            return false
        }
        now = MonotonicClock.now
        return poll(until: min(limit, nextDeadline))
    }

    /// Whether the end was asked for and has not begun.
    private var mustStop: Bool { door.isStopping.load(ordering: .sequentiallyConsistent) && stopsBy == nil }

    /// Whether another thread is to attend. A door that is stopped meanwhile stops where it is.
    var isWantedElsewhere: Bool {
        door.isWanted.load(ordering: .sequentiallyConsistent)
            && !door.isStopping.load(ordering: .sequentiallyConsistent)
    }

    /// Looks what came, and waits for nothing. Whether there is something to do.
    func look() -> Bool {
        _ = poll(until: now)
        return !runnable.isEmpty || !door.replies.isEmpty
    }

    /// Looks what came, and sleeps where that is later than `now`. Whether the signal of the thread that attends was given.
    func poll(until deadline: Instant) -> Bool {
        poller.wait(until: deadline, from: now, into: &polled)
        var (wasSignalled, hostWasSignalled, mustAccept) = (false, false, false)
        now = MonotonicClock.now
        looksAt = now + Self.lookInterval
        for index in 0..<polled.count {
            let (tag, events) = polled[index]
            switch tag {
            case Self.wakeTag: wasSignalled = true
            case Self.hostTag: hostWasSignalled = true
            case Self.listenerTag: mustAccept = true
            default:
                guard let connection = connections[EngineNumber(truncatingIfNeeded: tag)] else { continue }
                if events.mayRead || events.mayEnd { connection.stream.becameReadable(isEnding: events.mayEnd) }
                if events.mayWrite { connection.stream.becameWritable() }
                notice(connection, hungUp: events.contains(.hungUp))
            }
        }
        door.signal.awake(wasSignalled: wasSignalled)
        if mustAccept { accept() }
        return hostWasSignalled
    }

    /// An engine that is gone while nothing may be read from it is noticed all the same.
    func notice(_ connection: EngineConnection, hungUp: Bool) {
        if hungUp, !connection.mayRead { return end(connection) }
        settle(connection)
    }

    // MARK: What others see

    func publish() {
        guard isChanged, now >= publishesAt else { return }
        isChanged = false
        publishesAt = now + Self.publishInterval
        var sum = counters
        var engines: [EngineStatus] = []
        for connection in connections.values {
            sum.engines += connection.session.counters
            guard connection.isKnown, let greeting = connection.session.greeting, !greeting.hello.isVisitor else {
                continue
            }
            engines.append(
                EngineStatus(
                    number: connection.session.number, kind: greeting.hello.kind, client: greeting.client,
                    process: connection.session.process, storeNamespace: greeting.hello.storeNamespace,
                    ownership: greeting.hello.ownership, arena: connection.session.arena,
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
