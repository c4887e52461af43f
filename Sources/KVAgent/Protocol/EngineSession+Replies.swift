// What an engine is told: replies of the decisions as frames, and the answers for which nobody need be asked.

import KVModel
import KVTiering

extension EngineSession {
    // MARK: What the decisions are too busy to hear

    /// What becomes of a message for which there was no room.
    public enum Refuge: Sendable, Equatable {
        /// The engine is answered as if there were no cache.
        case reply(EngineFrame)
        /// It was a hint.
        case dropped
        /// It must be heard; until then nothing more is read.
        case mustWait
    }

    /// There was no room for a message that `take` wanted forwarded.
    public mutating func noRoom(for message: EngineMessage, at now: Instant) -> Refuge {
        switch message {
        case .lookUp(_, let lookUp):
            requests[lookUp.ticket]?.isKnown = false
            counters.busy += 1
            return .reply(.found(lookUp.ticket, EngineFound()))
        case .load(_, let load):
            jobs[load.job] = nil
            counters.busy += 1
            return .reply(nothingLoaded(load.job, first: load.first, since: now, now))
        case .save(_, let save):
            jobs[save.job] = nil
            counters.busy += 1
            return .reply(nothingSaved(save.job, count: save.places.blockCount, since: now, now))
        case .prefetch, .touch:
            counters.hintsDropped += 1
            return .dropped
        case .take, .reserve, .commit: return noRoom(forLoan: message, at: now)
        default: return .mustWait
        }
    }

    func nothingLoaded(
        _ job: EngineTicket, first: Int32, since: Instant, _ now: Instant
    ) -> EngineFrame {
        .loaded(job, EngineLoaded(first: first, end: first, bytes: 0, time: now - since))
    }

    func nothingSaved(_ job: EngineTicket, count: Int, since: Instant, _ now: Instant) -> EngineFrame {
        .saved(job, EngineSaved(count: count, bytes: 0, time: now - since, kept: []))
    }

    // MARK: What the decisions say

    /// Takes a reply of the decisions; gives each frame that the engine is sent.
    public mutating func take(
        _ reply: EngineReply, at now: Instant, send: (EngineFrame) -> Void
    ) throws(EngineRefusal) {
        switch reply {
        case .attached:
            guard phase == .attaching else { return }
            phase = isDraining ? .leaving : .open
            var welcome = EngineWelcome()
            welcome.engine = number
            welcome.agent = agent
            welcome.jobsMax = UInt32(limits.jobsMax)
            welcome.requestsMax = UInt32(limits.requestsMax)
            welcome.regionsMax = UInt32(limits.regionsMax)
            welcome.program = program
            send(.welcome(welcome))
            if isDraining { send(.farewell("the agent stops")) }
        case .refused(_, let reason, let code): throw EngineRefusal(code, reason)
        case .regionAdded(_, let region): send(.regionAdded(region))
        case .regionDropped(_, let region):
            guard regions.removeValue(forKey: region) != nil else { return }
            send(.regionDropped(region))
        case .found(_, let ticket, let answer):
            guard let request = requests[ticket], request.isKnown else { return }
            counters.lookUpTime.add(now - request.since)
            let found = EngineFound(answer)
            counters.blocksFound += UInt64(found.hitBlocks)
            send(.found(ticket, found))
        case .loaded(_, let ticket, let first, let end): loaded(ticket, first, end, now, send)
        case .saved(_, let ticket, let kept): saved(ticket, kept, now, send)
        case .taken(_, let ticket, let taken): self.taken(ticket, taken, now, send)
        case .reserved(_, let ticket, let reserved): self.reserved(ticket, reserved, now, send)
        case .released(_, let ticket, let wasInForce): send(.released(ticket, wasInForce: wasInForce))
        case .cancelled(_, let ticket): cancelled(ticket, send)
        case .pinned(_, let ticket, let answer):
            send(.pinned(ticket, answer.outcome, blocks: UInt32(clamping: answer.blocks)))
        case .changed(_, let added, let removed): send(.changed(added: added, removed: removed, hasGap: false))
        case .forgotten: break
        }
    }

    private mutating func loaded(
        _ ticket: EngineTicket, _ first: Int32, _ end: Int32, _ now: Instant, _ send: (EngineFrame) -> Void
    ) {
        guard let job = jobs[ticket], job.kind == .load else { return }
        jobs[ticket] = nil
        let bytes = UInt64(max(0, end - first)) * UInt64(greeting?.hello.blockBytes ?? 0)
        counters.loadTime.add(now - job.since)
        counters.blocksLoaded += UInt64(max(0, end - first))
        counters.bytesLoaded += bytes
        if end <= first { counters.loadsEmpty += 1 }
        send(
            .loaded(ticket, EngineLoaded(first: first, end: max(first, end), bytes: bytes, time: now - job.since)))
    }

    private mutating func saved(
        _ ticket: EngineTicket, _ kept: [UInt64], _ now: Instant, _ send: (EngineFrame) -> Void
    ) {
        guard let job = jobs[ticket], job.kind == .save || job.kind == .commit else { return }
        jobs[ticket] = nil
        var saved = EngineSaved(count: job.blockCount, bytes: 0, time: now - job.since, kept: kept)
        saved.bytes = UInt64(saved.keptCount) * UInt64(greeting?.hello.blockBytes ?? 0)
        counters.saveTime.add(saved.time)
        counters.blocksSaved += UInt64(saved.keptCount)
        counters.bytesSaved += saved.bytes
        send(job.kind == .commit ? .committed(ticket, saved) : .saved(ticket, saved))
    }

    private mutating func cancelled(_ ticket: EngineTicket, _ send: (EngineFrame) -> Void) {
        guard let owed = cancelling.removeValue(forKey: ticket) else { return }
        jobs[ticket] = nil
        if requests.removeValue(forKey: ticket) != nil {
            // Its jobs end before it does, each with a reply of its own.
            for job in jobs.keys.filter({ jobs[$0]?.request == ticket }).sorted() {
                jobs[job] = nil
                for _ in 0..<max(1, cancelling.removeValue(forKey: job) ?? 0) { send(.cancelled(job)) }
            }
        }
        for _ in 0..<owed { send(.cancelled(ticket)) }
    }

    /// The agent is about to stop: the engine is told, and goes when its jobs have ended.
    public mutating func drain(_ reason: String) -> EngineFrame? {
        isDraining = true
        guard phase == .open else { return nil }
        phase = .leaving
        return .farewell(reason)
    }
}
