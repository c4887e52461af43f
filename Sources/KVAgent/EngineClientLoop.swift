// The client's thread: it connects, says hello, sends what callers left, hears the agent, keeps deadlines, and connects
// again.

import CKernel
import Glibc
import KVModel
import KVSystem
import KVTransport

/// The loop of a client. Lives on its thread only.
final class EngineClientLoop {
    private let client: EngineClient
    private let poller: Int32
    private var now = MonotonicClock.now
    private var random = RandomSource(seed: 0)
    private var batch: [EngineClient.Outgoing] = []
    private var tags = [UInt64](repeating: 0, count: 8)
    private var events = [UInt32](repeating: 0, count: 8)

    init(_ client: EngineClient) {
        self.client = client
        poller = hf_poller_create()
        random = RandomSource(seed: UInt64(bitPattern: now.nanoseconds) ^ UInt64(getpid()))
        hf_poller_set(poller, client.signal.descriptor, 1, 0, 0)
    }

    deinit { hf_close(poller) }

    func run() {
        var pause = Duration.zero
        while !isOver {
            switch connect() {
            case .refused:
                // Nobody listens: an agent does as long as it maps anything.
                endOrphans()
            case .unclear: break
            case .connected(let descriptor):
                let stream = EngineStream(descriptor)
                stream.bodyBytesMax = EngineProtocol.bodyBytesMax
                hf_poller_set(poller, descriptor, 1 | 2 | 4, 1, 0)
                if converse(stream) { pause = .zero }
                hf_poller_set(poller, descriptor, 0, 1, 0)
                lose()
            }
            if isOver { break }
            sleep(pause)
            let setting = client.configuration
            let doubled = Duration(nanoseconds: min(setting.backoffMax.nanoseconds, 2 * pause.nanoseconds))
            pause = max(setting.backoff, doubled)
        }
        let rest = client.state.withLock { state in
            for region in state.regions.values { hf_close(region.descriptor) }
            let dropped = state.regions.values.compactMap(\.dropped)
            state.regions = [:]
            return dropped
        }
        for done in rest { done() }
    }

    private var isOver: Bool {
        client.state.withLock { $0.isClosing || ($0.leaves && $0.orphans.isEmpty && $0.jobs.isEmpty && !$0.isOpen) }
    }

    private enum Connecting {
        case connected(Int32)
        case refused, unclear
    }

    private func connect() -> Connecting {
        let descriptor = unsafe hf_unix_connect(client.configuration.path)
        if descriptor >= 0 { return .connected(descriptor) }
        return descriptor == -ECONNREFUSED || descriptor == -ENOENT ? .refused : .unclear
    }

    /// Sleeps for a time and up to a quarter more, or until the client closes.
    private func sleep(_ pause: Duration) {
        now = MonotonicClock.now
        let share = Int64(random.next() >> 40)  // 24 bits
        let end = now + pause + Duration(nanoseconds: pause.nanoseconds / 4 * share >> 24)
        while now < end, !isOver {
            wait(until: end)
            now = MonotonicClock.now
        }
    }

    private func wait(until deadline: Instant, isAsleep: Bool = false) {
        if !isAsleep { client.signal.prepareToSleep() }
        guard !client.state.withLock({ $0.isClosing }) else { return client.signal.awake(wasSignalled: false) }
        let limit = deadline == .distantFuture ? -1 : max(0, (deadline - MonotonicClock.now).nanoseconds)
        let count = unsafe Int(hf_poller_wait(poller, &tags, &events, 8, limit))
        let wasSignalled = (0..<max(0, count)).contains { tags[$0] == 0 }
        client.signal.awake(wasSignalled: wasSignalled)
    }

    // MARK: a conversation

    /// Speaks until the connection ends. Whether the agent had taken this engine on.
    private func converse(_ stream: EngineStream) -> Bool {
        now = MonotonicClock.now
        let setting = client.configuration
        stream.queue(
            .hello(EngineGreeting(digest: client.digest, client: setting.client, hello: setting.hello)), at: now)
        let helloDeadline = now + setting.helloLimit
        var (wasOpen, saidGoodbye) = (false, false)
        while true {
            now = MonotonicClock.now
            guard !client.state.withLock({ $0.isClosing }) else {
                if wasOpen, !saidGoodbye, !client.state.withLock({ $0.isAbandoned }) {
                    stream.queue(.goodbye, at: now)
                    _ = stream.flush()
                }
                return wasOpen
            }
            guard send(stream) else { return wasOpen }
            if wasOpen, !saidGoodbye, client.state.withLock({ $0.leaves }) {
                saidGoodbye = true
                stream.queue(.goodbye, at: now)
                continue
            }
            stream.beginTurn()
            do throws(FrameError) {
                hearing: while true {
                    switch try stream.next() {
                    case .frame(let header, let body):
                        switch unsafe try EngineFrame(header, body: body, at: now) {
                        case .welcome(let welcome):
                            open(welcome)
                            wasOpen = true
                        case .arenaOpened(let shape):
                            guard openArena(shape, stream) else { return wasOpen }
                        case .refused(_, let refusal):
                            client.state.withLock { $0.refusal = refusal }
                            return false
                        case let frame: take(frame)
                        }
                    case .nothing, .turnIsOver: break hearing
                    case .ended: return wasOpen
                    }
                }
            } catch { return wasOpen }
            let deadline = wasOpen ? expire() : helloDeadline
            if !wasOpen, now >= helloDeadline { return false }
            sleepUnlessBusy(stream, until: deadline)
        }
    }

    private func sleepUnlessBusy(_ stream: EngineStream, until deadline: Instant) {
        guard !stream.wantsRead else { return }
        client.signal.prepareToSleep()
        let hasWork = client.state.withLock { !$0.queue.isEmpty && !stream.wantsRoom }
        guard !hasWork else { return client.signal.awake(wasSignalled: false) }
        tags[0] = 0
        tags[1] = 0
        events[0] = 0
        events[1] = 0
        wait(until: deadline, isAsleep: true)
        for index in 0..<2 where tags[index] == 1 {
            let isEnding = events[index] & (8 | 16) != 0
            if events[index] & 1 != 0 || isEnding { stream.becameReadable(isEnding: isEnding) }
            if events[index] & (2 | 8) != 0 { stream.becameWritable() }
        }
    }

    /// Sends what callers left. False when the connection failed.
    private func send(_ stream: EngineStream) -> Bool {
        guard stream.flush() else { return false }
        guard stream.queuedBytes == 0 else { return true }
        client.state.withLock { state in
            batch = state.queue
            state.queue = []
            state.queuedBytes = 0
        }
        for outgoing in batch {
            if let descriptor = outgoing.descriptor {
                // A descriptor goes with its frame's first byte: what was queued before goes first.
                while stream.queuedBytes > 0 {
                    guard stream.flush(), block(stream) else { return false }
                }
                guard stream.send(outgoing.frame, passing: descriptor, at: now) else { return false }
            } else {
                stream.queue(outgoing.frame, at: now)
            }
        }
        batch.removeAll(keepingCapacity: true)
        return stream.flush()
    }

    /// Waits a little for room in the socket; regions are added rarely.
    private func block(_ stream: EngineStream) -> Bool {
        guard stream.queuedBytes > 0 else { return true }
        var waiting = pollfd(fd: stream.descriptor, events: Int16(POLLOUT), revents: 0)
        stream.becameWritable()
        return unsafe poll(&waiting, 1, 1_000) > 0
    }

    private func open(_ welcome: EngineWelcome) {
        let dropped = client.state.withLock { state -> [@Sendable () -> Void] in
            state.welcome = welcome
            state.refusal = nil
            state.isStalled = false
            state.isOpen = true
            var dropped: [@Sendable () -> Void] = []
            for (number, region) in state.regions.sorted(by: { $0.key < $1.key }) {
                if let done = region.dropped {
                    dropped.append(done)
                    hf_close(region.descriptor)
                    state.regions[number] = nil
                } else {
                    client.put(
                        &state, .addRegion(number, byteCount: region.byteCount), passing: region.descriptor, must: true)
                }
            }
            if client.configuration.isSubscriber { client.put(&state, .subscribe, must: true) }
            if client.configuration.arena != .none {
                client.put(&state, .openArena(isWritable: client.configuration.arena == .writing), must: true)
            }
            return dropped
        }
        // Nothing touches any more what earlier connections shared: that is what a welcome says.
        endOrphans()
        for done in dropped { done() }
    }

    /// Maps the arena that came with a frame. False: without it this engine is none.
    private func openArena(_ shape: EngineArenaShape, _ stream: EngineStream) -> Bool {
        let descriptors = [stream.takeDescriptor(), stream.takeDescriptor()].compactMap { $0 }
        defer { for descriptor in descriptors { hf_close(descriptor) } }
        guard descriptors.count == 2,
            let arena = try? EngineArena(shape, descriptor: descriptors[0], words: descriptors[1])
        else { return false }
        client.state.withLock { $0.arena = arena }
        return true
    }

    private func take(_ frame: EngineFrame) {
        if case .changed(let added, let removed, let hasGap) = frame { return client.changed(added, removed, hasGap) }
        let ends = client.state.withLock { state -> [() -> Void] in
            state.isStalled = false
            switch frame {
            case .found(let ticket, let found):
                guard let lookUp = state.lookUps[ticket], !lookUp.isDead, let done = lookUp.done else { return [] }
                state.lookUps[ticket]?.done = nil
                return [{ done(found) }]
            case .loaded(let ticket, let loaded):
                guard case .load(_, let done) = state.jobs.removeValue(forKey: ticket)?.done else { return [] }
                return [{ done(loaded) }]
            case .taken(let ticket, let taken):
                guard case .take(let done) = state.jobs.removeValue(forKey: ticket)?.done else { return [] }
                guard let arena = state.arena, !taken.blocks.isEmpty else { return [{ done(nil) }] }
                let lease = EngineLease(client, arena, taken)
                return [{ done(lease) }]
            case .reserved(let ticket, let reserved):
                guard case .reserve(let done) = state.jobs.removeValue(forKey: ticket)?.done else { return [] }
                guard let arena = state.arena, !reserved.slots.isEmpty else { return [{ done(nil) }] }
                let reservation = EngineReservation(client, arena, reserved)
                return [{ done(reservation) }]
            case .saved(let ticket, let saved), .committed(let ticket, let saved):
                guard case .save(_, let done) = state.jobs.removeValue(forKey: ticket)?.done else { return [] }
                return [{ done(saved) }]
            case .cancelled(let ticket):
                if let job = state.jobs.removeValue(forKey: ticket) { return [{ job.done.nothing() }] }
                let waiting = state.lookUps.removeValue(forKey: ticket)?.done
                let done = state.cancelling.removeValue(forKey: ticket)
                return [{ waiting?(EngineFound()) }, { done?() }]
            case .pinned(let ticket, _, _), .released(let ticket, _), .statistics(let ticket, _), .pong(let ticket, _):
                guard let done = state.asked.removeValue(forKey: ticket) else { return [] }
                return [{ done(frame) }]
            case .regionDropped(let number):
                guard let region = state.regions.removeValue(forKey: number) else { return [] }
                hf_close(region.descriptor)
                return [{ region.dropped?() }]
            default: return []
            }
        }
        for end in ends { end() }
    }

    /// Ends what is late; the next deadline.
    private func expire() -> Instant {
        var late: [EngineClient.FoundBlocks] = []
        let next = client.state.withLock { state -> Instant in
            var next = Instant.distantFuture
            for (ticket, lookUp) in state.lookUps where lookUp.done != nil && !lookUp.isDead {
                guard now >= lookUp.deadline else {
                    next = min(next, lookUp.deadline)
                    continue
                }
                state.isStalled = true
                state.lookUps[ticket]?.isDead = true
                if let done = lookUp.done { late.append(done) }
                state.lookUps[ticket]?.done = nil
                client.put(&state, .cancel(ticket), must: true)
            }
            for (ticket, job) in state.jobs where !job.isCancelled {
                guard now >= job.deadline else {
                    next = min(next, job.deadline)
                    continue
                }
                state.jobs[ticket]?.isCancelled = true
                client.put(&state, .cancel(ticket), must: true)
            }
            return next
        }
        for done in late { done(EngineFound()) }
        return next
    }

    // MARK: the end of a connection

    /// Requests miss at once, jobs when nothing can touch their places.
    private func lose() {
        let ends = client.state.withLock { state -> [() -> Void] in
            state.isOpen = false
            state.arena = nil
            state.queue = []
            state.queuedBytes = 0
            var ends: [() -> Void] = state.lookUps.values.compactMap { lookUp in
                lookUp.done.map { done in { done(EngineFound()) } }
            }
            ends += state.asked.values.map { done in { done(nil) } }
            state.lookUps = [:]
            state.asked = [:]
            state.orphans += state.jobs.values.map(\.done)
            // Whoever waits for a request's end waits for its jobs' places.
            state.orphans += state.cancelling.values.map { .other($0) }
            state.jobs = [:]
            state.cancelling = [:]
            return ends
        }
        for end in ends { end() }
    }

    private func endOrphans() {
        let (orphans, dropped) = client.state.withLock { state in
            defer { state.orphans = [] }
            var dropped: [@Sendable () -> Void] = []
            if !state.isOpen {
                for (number, region) in state.regions {
                    guard let done = region.dropped else { continue }
                    dropped.append(done)
                    hf_close(region.descriptor)
                    state.regions[number] = nil
                }
            }
            return (state.orphans, dropped)
        }
        for orphan in orphans { orphan.nothing() }
        for done in dropped { done() }
    }
}
