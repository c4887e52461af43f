// What an engine's client asks of its agent: look-ups, loads, saves, hints, pins, numbers. Each call leaves a frame and returns;
// what cannot be sent has come to nothing at once.

import KVModel
import KVSystem
import KVTiering

extension EngineClient {
    // MARK: Requests and jobs

    /// Looks a prompt's chain up. The ticket names the request until `finished`. Late or without an agent: nothing found.
    @discardableResult
    public func lookUp(
        _ names: [ObjectName], promptTokens: Int32, engineBlocks: Int32 = 0, session: UInt64 = 0, turn: Int32 = -1,
        done: @escaping FoundBlocks
    ) -> EngineTicket {
        let now = MonotonicClock.now
        let (ticket, isSent) = state.withLock { state in
            state.tickets += 1
            let ticket = state.tickets
            let lookUp = EngineLookUp(
                ticket: ticket, names: names, promptTokens: promptTokens, engineBlocks: engineBlocks, session: session,
                turn: turn)
            let room = state.lookUps.count < Int(state.welcome?.requestsMax ?? 0)
            guard !state.isStalled, room, put(&state, .lookUp(lookUp)) else { return (ticket, false) }
            state.lookUps[ticket] = LookUp(done: done, deadline: now + configuration.lookUpLimit)
            state.briefly = .lookUp
            watch(&state, now + configuration.lookUpLimit)
            return (ticket, true)
        }
        if !isSent { done(EngineFound()) }
        return ticket
    }

    /// Brings blocks from `first` on to their places. Empty `names`: the chain of the request's look-up.
    ///
    /// - Parameter asker: Whose request it is, where another connection looked it up: that one's `EngineWelcome.engine`.
    public func load(
        _ names: [ObjectName] = [], first: Int32, places: EnginePlaces, request: EngineTicket = 0, asker: UInt16 = 0,
        computeWait: Duration = .zero, limit: Duration? = nil, done: @escaping LoadedBlocks
    ) {
        let deadline = MonotonicClock.now + (limit ?? configuration.jobLimit)
        let isSent = state.withLock { state -> Bool in
            let known = known(state, request, asker)
            guard !names.isEmpty || known != 0, hasRoomForJob(state) else { return false }
            state.tickets += 1
            let load = EngineLoad(
                job: state.tickets, request: known, asker: asker, names: names, first: first, places: places,
                computeWait: computeWait, deadline: deadline)
            guard put(&state, .load(load)) else { return false }
            state.jobs[load.job] = Job(done: .load(first: first, done), deadline: deadline)
            watch(&state, deadline)
            return true
        }
        if !isSent { done(EngineLoaded(first: first, end: first, bytes: 0, time: .zero)) }
    }

    /// Offers new blocks; `names` ends with the last of them. Their bytes stay unchanged until `done` is called. `asker` as in
    /// `load`.
    public func save(
        _ names: [ObjectName], first: Int32, places: EnginePlaces, request: EngineTicket = 0, asker: UInt16 = 0,
        evictionClass: UInt8 = 0, limit: Duration? = nil, done: @escaping SavedBlocks
    ) {
        let deadline = MonotonicClock.now + (limit ?? configuration.jobLimit)
        let isSent = state.withLock { state -> Bool in
            guard hasRoomForJob(state) else { return false }
            state.tickets += 1
            let save = EngineSave(
                job: state.tickets, request: known(state, request, asker), asker: asker, names: names, first: first,
                places: places, evictionClass: evictionClass)
            guard put(&state, .save(save)) else { return false }
            state.jobs[save.job] = Job(done: .save(count: places.blockCount, done), deadline: deadline)
            watch(&state, deadline)
            return true
        }
        if !isSent { done(EngineSaved(count: places.blockCount, bytes: 0, time: .zero, kept: [])) }
    }

    /// A request's end.
    public func finished(_ end: EngineRequestEnd) {
        let waiting = state.withLock { state -> FoundBlocks? in
            guard let lookUp = state.lookUps.removeValue(forKey: end.ticket), !lookUp.isDead else { return nil }
            put(&state, .finished(end), must: true)
            return lookUp.done
        }
        waiting?(EngineFound())
    }

    /// Gives a request up, its jobs included; `done` is called when nothing touches their places.
    public func cancel(_ request: EngineTicket, done: @escaping @Sendable () -> Void) {
        let isSent = state.withLock { state -> Bool in
            guard isKnown(state, request), put(&state, .cancel(request), must: true) else { return false }
            state.lookUps[request]?.isDead = true
            state.cancelling[request] = done
            return true
        }
        if !isSent { done() }
    }

    // MARK: Hints, pins, questions

    /// A hint: these blocks will be asked for.
    public func prefetch(_ names: [ObjectName]) { _ = state.withLock { put(&$0, .prefetch(names)) } }
    /// A hint: these blocks were used without a request.
    public func touch(_ names: [ObjectName]) { _ = state.withLock { put(&$0, .touch(names)) } }

    /// Keeps what is on this node of a chain. `done` hears nil without an agent.
    @discardableResult
    public func pin(
        _ names: [ObjectName], lifetime: Duration,
        done: @escaping @Sendable ((outcome: PinAnswer.Outcome, blocks: Int)?) -> Void
    ) -> EngineTicket {
        ask({ .pin($0, names, lifetime: lifetime) }) { answer in
            guard case .pinned(_, let outcome, let blocks) = answer else { return done(nil) }
            done((outcome, Int(blocks)))
        }
    }

    /// Takes a pin back.
    public func unpin(_ pin: EngineTicket) { _ = state.withLock { put(&$0, .unpin(pin)) } }

    /// The agent's numbers; none without an agent.
    public func statistics(done: @escaping @Sendable ([EngineStatistic]) -> Void) {
        ask({ .askStatistics($0) }) { answer in
            guard case .statistics(_, let numbers) = answer else { return done([]) }
            done(numbers)
        }
    }

    @discardableResult
    func ask(
        _ frame: (EngineTicket) -> EngineFrame, done: @escaping @Sendable (EngineFrame?) -> Void
    ) -> EngineTicket {
        let (ticket, isSent) = state.withLock { state in
            state.tickets += 1
            guard put(&state, frame(state.tickets)) else { return (state.tickets, false) }
            state.asked[state.tickets] = done
            return (state.tickets, true)
        }
        if !isSent { done(nil) }
        return ticket
    }

    // MARK: Under the lock

    func isKnown(_ state: borrowing State, _ request: EngineTicket) -> Bool {
        if let lookUp = state.lookUps[request] { !lookUp.isDead } else { false }
    }

    /// The request that a job names: one of ours that the agent knows, or that of another connection, which is its to know.
    func known(_ state: borrowing State, _ request: EngineTicket, _ asker: UInt16) -> EngineTicket {
        asker != 0 || isKnown(state, request) ? request : 0
    }

    func hasRoomForJob(_ state: borrowing State) -> Bool {
        state.jobs.count < Int(state.welcome?.jobsMax ?? 0)
    }
}
