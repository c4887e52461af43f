// The client's thread: it connects, says hello, and connects again; while no caller waits it hears the agent and keeps deadlines,
// and it sends what the socket had no room for.

import CKernel
import Glibc
import KVModel
import KVSystem
import KVTransport

/// The loop of a client. Lives on its thread only.
final class EngineClientLoop {
    static let wakeTag: UInt64 = 0
    static let socketTag: UInt64 = 1

    private let client: EngineClient
    private let poller: Poller
    private var now = MonotonicClock.now
    private var random = RandomSource(seed: 0)
    private var polled = PollBatch()

    init(_ client: EngineClient, _ poller: Poller) {
        self.client = client
        self.poller = poller
        random = RandomSource(seed: UInt64(bitPattern: now.nanoseconds) ^ UInt64(getpid()))
        poller.add(client.signal.descriptor, for: .readable, tag: Self.wakeTag)
    }

    func run() {
        let setting = client.configuration
        var pause = ConnectPause(first: setting.backoff, longest: setting.backoffMax)
        var absence = AgentAbsence(limit: client.configuration.absenceLimit)
        while !isOver {
            let descriptor = unsafe hf_unix_connect(client.configuration.path)
            if descriptor >= 0 {
                absence.connected()
                let stream = EngineStream(descriptor)
                stream.bodyBytesMax = EngineProtocol.bodyBytesMax
                if let opened = converse(stream) { pause.ended(after: MonotonicClock.now - opened) }
                poller.remove(descriptor)
                // Wakes a caller who waits for it.
                hf_shut_down(descriptor)
                lose()
            } else if absence.isCertain(-descriptor, at: MonotonicClock.now) {
                endOrphans()
            }
            if isOver { break }
            sleep(pause.take())
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

    /// Sleeps for a time and up to a quarter more, or until the client closes.
    private func sleep(_ pause: Duration) {
        now = MonotonicClock.now
        let share = Int64(random.next() >> 40)  // 24 bits
        let end = now + pause + Duration(nanoseconds: pause.nanoseconds / 4 * share >> 24)
        while now < end, !isOver {
            client.signal.prepareToSleep()
            let isClosing = client.state.withLock { $0.isClosing }
            _ = wait(until: isClosing ? now : end)
            now = MonotonicClock.now
        }
    }

    /// Sleeps until a deadline or a call; what the poller said of the socket.
    private func wait(until deadline: Instant) -> PollEvents {
        poller.wait(until: deadline, from: MonotonicClock.now, into: &polled)
        var told: PollEvents = []
        for index in 0..<polled.count where polled[index].tag == Self.socketTag { told.formUnion(polled[index].events) }
        client.signal.awake(wasSignalled: polled.contains(tag: Self.wakeTag))
        return told
    }

    // MARK: A conversation

    /// What is to be done before the thread sleeps again.
    private enum Turn { case end, read, leaveToCaller }

    /// Speaks until the connection ends. When the agent had taken this engine on, nil: it had not.
    private func converse(_ stream: EngineStream) -> Instant? {
        now = MonotonicClock.now
        let setting = client.configuration
        client.state.withLock { state in
            state.link = EngineClient.Link(stream: stream, poller: poller)
            stream.queue(
                .hello(EngineGreeting(digest: client.digest, client: setting.client, hello: setting.hello)), at: now)
            client.send(&state)
        }
        let helloDeadline = now + setting.helloLimit
        var opened: Instant?
        var saidGoodbye = false
        // Input may have come before anybody watched for it.
        var told: PollEvents = .readable
        while true {
            now = MonotonicClock.now
            switch client.state.withLock({ begin(&$0, told, opened != nil, &saidGoodbye) }) {
            case .end: return opened
            case .leaveToCaller: break
            case .read:
                stream.becameReadable(isEnding: told.mayEnd)
                let heard = client.hear(stream) { welcome in
                    open(welcome)
                    opened = now
                }
                if heard == .refusal { return nil }
                if heard == .end { return opened }
            }
            client.expire(at: now)
            if opened == nil, now >= helloDeadline { return nil }
            told = rest(stream, saidGoodbye, helloDeadline: opened == nil ? helloDeadline : nil)
        }
    }

    /// Begins a turn: what waits goes as far as there is room, and the reading is this thread's unless a caller has it.
    private func begin(
        _ state: inout EngineClient.State, _ told: PollEvents, _ wasOpen: Bool, _ saidGoodbye: inout Bool
    ) -> Turn {
        state.sleepsUntil = .zero
        guard let link = state.link, !link.isBroken else { return .end }
        if told.mayWrite { link.stream.becameWritable() }
        if wasOpen, !saidGoodbye, state.leaves || state.isClosing, !state.isAbandoned {
            saidGoodbye = true
            link.stream.queue(.goodbye, at: now)
        }
        client.send(&state)
        if state.isClosing || state.link?.isBroken == true { return .end }
        if link.reader == .caller { return .leaveToCaller }
        state.link?.reader = .clientThread
        return .read
    }

    /// Leaves the reading to whoever wants it and sleeps; what the poller said of the socket.
    private func rest(_ stream: EngineStream, _ saidGoodbye: Bool, helloDeadline: Instant?) -> PollEvents {
        client.signal.prepareToSleep()
        let deadline = client.state.withLock { state -> Instant? in
            let mustSpeak = state.isOpen && state.leaves && !saidGoodbye
            guard let link = state.link, !link.isBroken, !state.isClosing, !mustSpeak else { return nil }
            if link.reader == .clientThread {
                // There is more than one turn brings.
                if stream.wantsRead { return nil }
                state.link?.reader = .nobody
            }
            state.sleepsUntil = helloDeadline ?? state.earliestDeadline
            return state.sleepsUntil
        }
        guard let deadline else {
            client.signal.awake(wasSignalled: false)
            return .readable
        }
        return wait(until: deadline)
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

    // MARK: The end of a connection

    /// Requests miss at once, jobs when nothing can touch their places.
    private func lose() {
        let ends = client.state.withLock { state -> [() -> Void] in
            state.isOpen = false
            state.arena = nil
            state.link = nil
            state.earliestDeadline = .distantFuture
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
