// The door at work: it polls, reads what engines say, hands it on, and tells them what the decisions answer. Until there are
// decisions a thread of the door's own attends to it, then theirs does: what an engine asks and what it is told cross no thread.

import CKernel
import Glibc
import KVModel
import KVSystem
import KVTransport

/// The loop of the door. Lives on the thread that attends to it only.
final class EngineDoorLoop {
    static let wakeTag: UInt64 = 0
    static let listenerTag = UInt64.max
    static let hostTag = UInt64.max - 1
    static let retryInterval = Duration(milliseconds: 1)
    static let publishInterval = Duration(milliseconds: 100)
    /// How often connections are looked through for one whose time is over.
    static let sweepInterval = Duration(milliseconds: 1)
    /// How often it is looked whether the socket's file is still there.
    static let socketInterval = Duration(seconds: 1)
    /// How long a thread that has other things to do may leave the sockets unseen.
    static let lookInterval = Duration(nanoseconds: 20_000)
    /// How long a connection that was refused may take to read why.
    static let closeLimit = Duration(seconds: 1)
    /// Frames of one engine before the others, and the decisions, have their turn.
    static let framesPerTurn = 16
    static let changesPerFrame = 50_000

    struct Leaving {
        var process: Int32
        var regions: [Int32: SharedRegion]
    }

    let door: EngineDoor
    let poller: Poller
    var listener: EngineListener
    let user: UInt32
    var connections: [EngineNumber: EngineConnection] = [:]
    var leaving: [EngineNumber: Leaving] = [:]
    var runnable: [EngineConnection] = []
    /// Who is to be told something for which nobody is likely to wait.
    var unhurried: [EngineConnection] = []
    /// Ends that the decisions had no room for.
    var goneWaiting: [EngineNumber] = []
    var replyBatch: [EngineReply] = []
    var numbers = EngineNumbers()
    var now = MonotonicClock.now
    var retriesAt = Instant.distantFuture
    var publishesAt = Instant.zero
    var sweepsAt = Instant.zero
    var looksAt = Instant.zero
    var isChanged = true
    var farewell: String?
    var stopsBy: Instant?
    var acceptsAgainAt: Instant?
    var socketSeenAgainAt = Instant.zero
    /// Why no engine can come, where none can.
    var socketTrouble: String?
    var counters = EngineDoorCounters()
    var polled = PollBatch()

    init(_ door: EngineDoor, poller: Poller, listener: EngineListener) {
        self.door = door
        self.poller = poller
        self.listener = listener
        user = getuid()
        poller.add(door.signal.descriptor, for: .readable, tag: Self.wakeTag)
        poller.add(listener.descriptor, for: .readable, tag: Self.listenerTag)
    }

    // MARK: Whose thread

    /// Attends to the door until another thread is to do it; false: it is closed, and nobody is.
    func run() -> Bool {
        while attend() {
            if isWantedElsewhere { return true }
            _ = sleep(until: .distantFuture)
        }
        return false
    }

    /// From here on a thread attends to the door that sleeps on a signal of its own as well.
    func move(toOwnerOf signal: WakeSignal) {
        poller.add(signal.descriptor, for: .readable, tag: Self.hostTag)
    }

    /// Does what there is to do and returns. False: the door is closed.
    func attend() -> Bool {
        now = MonotonicClock.now
        takeReplies()
        drainIfAsked()
        retry()
        if now >= looksAt {
            tellUnhurried()
            _ = poll(until: now)
        }
        turns()
        sweep()
        keepSocket()
        if door.isStopping.load(ordering: .sequentiallyConsistent), stop() {
            finish()
            return false
        }
        publish()
        return true
    }

    private func finish() {
        // A path that nobody answers says that no engine's memory is mapped here any more.
        door.unmapper.finish()
        listener.end()
        publishesAt = .zero
        isChanged = true
        publish()
        door.closed()
    }

    // MARK: What the decisions say

    /// Tells what the decisions have just said, without looking at anything else.
    func speak() {
        now = MonotonicClock.now
        takeReplies()
    }

    func takeReplies() {
        door.replies.drain(into: &replyBatch)
        guard !replyBatch.isEmpty else { return }
        isChanged = true
        for reply in replyBatch { take(reply) }
        replyBatch.removeAll(keepingCapacity: true)
    }

    func take(_ reply: EngineReply) {
        if case .forgotten(let number) = reply {
            // The last holders of its regions let go here.
            if let left = leaving.removeValue(forKey: number) { door.unmapper.take(left.regions.values) }
            releaseHellos()
            return
        }
        // Answers may cross the end of their engine.
        guard let connection = connections[reply.engine], connection.closesBy == nil else { return }
        switch reply {
        case .attached: counters.attached += 1
        case .loaded, .saved:
            guard connection.regions.values.allSatisfy(\.isIntact) else { return lose(connection) }
        case .regionDropped(_, let region):
            if let dropped = connection.regions.removeValue(forKey: region) { door.unmapper.take([dropped]) }
        case .changed(_, let added, let removed): return tell(connection, added, removed)
        default: break
        }
        do throws(EngineRefusal) {
            try connection.session.take(reply, at: now) { connection.stream.queue($0, at: now) }
            if case .attached = reply { connection.stream.bodyBytesMax = EngineProtocol.bodyBytesMax }
            // What was lent came back: engines go on, and are woken for the answer to their next question, not for this word.
            if case .released = reply { return unhurried.append(connection) }
            settle(connection)
        } catch { refuse(connection, 0, error) }
    }

    /// Sends what had time. It goes with the next answer, before the next look at the sockets, or before sleeping.
    func tellUnhurried() {
        guard !unhurried.isEmpty else { return }
        let batch = unhurried
        unhurried.removeAll(keepingCapacity: true)
        for connection in batch { settle(connection) }
    }

    /// Changes of blocks: all that an engine may lose when it does not read.
    func tell(_ connection: EngineConnection, _ added: [ObjectName], _ removed: [ObjectName]) {
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

    // MARK: Turns

    func turns() {
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

    func turn(_ connection: EngineConnection) {
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

    func take(_ frame: EngineFrame, _ connection: EngineConnection) {
        do throws(EngineRefusal) {
            switch try connection.session.take(frame, at: now) {
            case .nothing, .leave: break
            case .forward(let message): forward(message, connection)
            case .reply(let frame): connection.stream.queue(frame, at: now)
            case .map(let region, let byteCount): try map(region, byteCount, connection)
            case .openArena(let isWritable): try openArena(isWritable, connection)
            case .statistics(let ticket):
                connection.stream.queue(.statistics(ticket, statistics(of: connection)), at: now)
            }
        } catch { refuse(connection, frame.header.ticket, error) }
    }

    func forward(_ message: EngineMessage, _ connection: EngineConnection) {
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

    func map(_ region: Int32, _ byteCount: Int, _ connection: EngineConnection) throws(EngineRefusal) {
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

    func openArena(_ isWritable: Bool, _ connection: EngineConnection) throws(EngineRefusal) {
        guard let offer = door.arena(isWritable) else {
            throw EngineRefusal(.region, "this agent has no memory that could be mapped")
        }
        defer { for descriptor in offer.descriptors { hf_close(descriptor) } }
        guard connection.stream.queue(.arenaOpened(offer.shape), passing: offer.descriptors, at: now) else {
            throw EngineRefusal(.room, "no descriptor is left to pass")
        }
        counters.arenasOpened += 1
    }

    func statistics(of connection: EngineConnection) -> [EngineStatistic] {
        door.statistics()
            + EngineCounters.fields.map {
                EngineStatistic("engine_" + $0.name, connection.session.counters[keyPath: $0.path])
            }
    }

    /// Offers again what the decisions had no room for.
    func retry() {
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

    func releaseHellos() {
        for connection in connections.values {
            guard let hello = connection.heldHello else { continue }
            connection.heldHello = nil
            forward(hello, connection)
            settle(connection)
        }
    }

    /// Sends what it can, closes what is over, and queues what has something to do.
    func settle(_ connection: EngineConnection) {
        guard connections[connection.session.number] === connection else { return }
        guard connection.stream.flush() else { return end(connection) }
        watchForRoom(connection)
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

    // MARK: Ends

    func lose(_ connection: EngineConnection) {
        counters.regionsLost += 1
        let lost = connection.regions.filter { !$0.value.isIntact }.keys.sorted()
        refuse(
            connection, 0,
            EngineRefusal(.region, "the file of region \(lost.map(String.init).joined(separator: ", ")) was cut short"))
    }

    func refuse(_ connection: EngineConnection, _ ticket: EngineTicket, _ refusal: EngineRefusal) {
        guard connection.closesBy == nil else { return }
        counters.refused[refusal.code, default: 0] += 1
        connection.stream.queue(.refused(ticket, refusal), at: now)
        connection.closesBy = now + Self.closeLimit
        settle(connection)
    }

    func end(_ connection: EngineConnection) {
        let number = connection.session.number
        guard connections.removeValue(forKey: number) != nil else { return }
        isChanged = true
        counters.engines += connection.session.counters
        if connection.session.phase == .open, connection.closesBy == nil { counters.lostEngines += 1 }
        poller.remove(connection.stream.descriptor)
        hf_shut_down(connection.stream.descriptor)
        guard connection.isKnown else { return }
        leaving[number] = Leaving(process: connection.session.process, regions: connection.regions)
        if !goneWaiting.isEmpty || door.sink(.gone(number)) == .full {
            goneWaiting.append(number)
            retriesAt = min(retriesAt, now + Self.retryInterval)
        }
    }

    func drainIfAsked() {
        guard farewell == nil, let reason = door.isDraining.withLock({ $0 }) else { return }
        farewell = reason
        for connection in Array(connections.values) {
            if let frame = connection.session.drain(reason) { connection.stream.queue(frame, at: now) }
            settle(connection)
        }
    }

    /// Ends everything; true when nothing is left.
    func stop() -> Bool {
        if stopsBy == nil {
            stopsBy = now + door.published.withLock { $0.stopLimit }
            farewell = farewell ?? "the agent stops"
            for connection in Array(connections.values) { end(connection) }
        }
        return (connections.isEmpty && leaving.isEmpty) || now >= stopsBy ?? now
    }
}
