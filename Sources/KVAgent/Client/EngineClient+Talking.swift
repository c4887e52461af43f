// Both directions of a client's connection. What callers say they write to the socket themselves; what the agent says is heard by
// whoever has the reading: the client's thread, or a caller who waits.

import CKernel
import KVModel
import KVSystem
import KVTransport

extension EngineClient {
    // MARK: Going, under the lock

    /// Sends a frame, or as much of it as the kernel takes now; false when there is no agent or no room.
    @discardableResult
    func put(
        _ state: inout State, _ frame: EngineFrame, passing descriptor: Int32? = nil, must: Bool = false
    ) -> Bool {
        guard state.isOpen, must || !state.leaves, let stream = state.link?.stream else { return false }
        guard must || stream.queuedBytes + frame.weight <= configuration.queueBytesMax else { return false }
        let now = MonotonicClock.now
        if let descriptor {
            guard stream.queue(frame, passing: [descriptor], at: now) else {
                breakOff(&state)
                return false
            }
        } else {
            stream.queue(frame, at: now)
        }
        send(&state)
        return true
    }

    /// Sends what waits. The poller tells the client's thread when there is room for the rest.
    func send(_ state: inout State) {
        guard let stream = state.link?.stream else { return }
        guard stream.flush() else { return breakOff(&state) }
        watchSocket(&state)
    }

    /// The connection cannot go on: the client's thread ends it.
    func breakOff(_ state: inout State) {
        state.link?.isBroken = true
        signal.wake()
    }

    /// Has the poller tell the client's thread of input unless a caller reads, and of room while something waits for it.
    func watchSocket(_ state: inout State) {
        guard let link = state.link else { return }
        var wanted: PollEvents = .edgeTriggered
        if link.reader != .caller { wanted.insert(.readable) }
        if link.stream.wantsRoom { wanted.insert(.writable) }
        guard wanted != link.watched else { return }
        if link.watched.isEmpty {
            link.poller.add(link.stream.descriptor, for: wanted, tag: EngineClientLoop.socketTag)
        } else {
            link.poller.change(link.stream.descriptor, to: wanted, tag: EngineClientLoop.socketTag)
        }
        state.link?.watched = wanted
    }

    /// Something is open until a deadline: a caller who waits keeps it, or the client's thread.
    func watch(_ state: inout State, _ deadline: Instant) {
        state.earliestDeadline = min(state.earliestDeadline, deadline)
        if state.link?.reader != .caller, deadline < state.sleepsUntil { signal.wake() }
    }

    // MARK: Coming

    /// How a turn of hearing ended.
    enum Heard { case everything, refusal, end }

    /// Hears what has come. Only for who has the reading.
    func hear(_ stream: EngineStream, welcomed: (EngineWelcome) -> Void = { _ in }) -> Heard {
        let now = MonotonicClock.now
        stream.beginTurn()
        do throws(FrameError) {
            while true {
                switch try stream.next() {
                case .frame(let header, let body):
                    switch unsafe try EngineFrame(header, body: body, at: now) {
                    case .welcome(let welcome): welcomed(welcome)
                    case .arenaOpened(let shape):
                        guard openArena(shape, stream) else { return .end }
                    case .refused(_, let refusal):
                        state.withLock { $0.refusal = refusal }
                        return .refusal
                    case let frame: take(frame)
                    }
                case .nothing, .turnIsOver: return .everything
                case .ended: return .end
                }
            }
        } catch { return .end }
    }

    /// Maps the arena that came with a frame. False: without it this engine is none.
    private func openArena(_ shape: EngineArenaShape, _ stream: EngineStream) -> Bool {
        let descriptors = [stream.takeDescriptor(), stream.takeDescriptor()].compactMap { $0 }
        defer { for descriptor in descriptors { hf_close(descriptor) } }
        guard descriptors.count == 2,
            let arena = try? EngineArena(shape, descriptor: descriptors[0], words: descriptors[1])
        else { return false }
        state.withLock { $0.arena = arena }
        return true
    }

    private func take(_ frame: EngineFrame) {
        if case .changed(let added, let removed, let hasGap) = frame { return changed(added, removed, hasGap) }
        let ends = state.withLock { state -> [() -> Void] in
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
                let lease = EngineLease(self, arena, taken)
                return [{ done(lease) }]
            case .reserved(let ticket, let reserved):
                guard case .reserve(let done) = state.jobs.removeValue(forKey: ticket)?.done else { return [] }
                guard let arena = state.arena, !reserved.slots.isEmpty else { return [{ done(nil) }] }
                let reservation = EngineReservation(self, arena, reserved)
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

    /// Ends what is late; no deadline comes before the one it returns.
    @discardableResult
    func expire(at now: Instant) -> Instant {
        var late: [FoundBlocks] = []
        let next = state.withLock { state -> Instant in
            guard now >= state.earliestDeadline else { return state.earliestDeadline }
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
                put(&state, .cancel(ticket), must: true)
            }
            for (ticket, job) in state.jobs where !job.isCancelled {
                guard now >= job.deadline else {
                    next = min(next, job.deadline)
                    continue
                }
                state.jobs[ticket]?.isCancelled = true
                put(&state, .cancel(ticket), must: true)
            }
            state.earliestDeadline = next
            return next
        }
        for done in late { done(EngineFound()) }
        return next
    }
}

extension EngineFrame {
    /// About how many bytes it has.
    var weight: Int {
        switch self {
        case .lookUp(let lookUp): 64 + 32 * lookUp.names.count
        case .load(let load): 96 + 32 * load.names.count + 16 * load.places.slices.count
        case .save(let save): 96 + 32 * save.names.count + 16 * save.places.slices.count
        case .take(let take): 96 + 32 * take.names.count
        case .commit(let commit): 96 + 36 * commit.names.count
        case .prefetch(let names), .touch(let names), .pin(_, let names, _): 64 + 32 * names.count
        default: 64
        }
    }
}
