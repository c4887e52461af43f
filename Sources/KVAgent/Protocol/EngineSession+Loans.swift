// What a host-owned engine may say when: the arena first, then leases and reservations.

import KVModel

/// How an engine maps the arena.
public enum EngineArenaAccess: String, Sendable, Codable {
    /// Not at all.
    case none
    /// To read leased blocks.
    case reading
    /// To fill reserved slots, too.
    case writing
}

extension EngineSession {
    mutating func openArena(_ isWritable: Bool) throws(EngineRefusal) -> Act {
        guard let owner = greeting?.hello.ownership, owner != .engine else {
            throw EngineRefusal(.frame, "ARENA of an engine that owns its host tier by its HELLO")
        }
        guard arena == .none else { throw EngineRefusal(.frame, "the arena is open already") }
        arena = isWritable ? .writing : .reading
        return .openArena(isWritable: isWritable)
    }

    private func check(isWriting: Bool, _ what: String) throws(EngineRefusal) {
        guard arena != .none else { throw EngineRefusal(.frame, "\(what) before ARENA") }
        guard !isWriting || arena == .writing else {
            throw EngineRefusal(.frame, "\(what) of an engine that opened the arena for reading")
        }
    }

    mutating func take(_ take: EngineTake, _ now: Instant) throws(EngineRefusal) -> Act {
        try check(isWriting: false, "TAKE")
        try open(take.job)
        let own = take.asker == 0 ? take.request : 0
        try check(request: own)
        counters.takes += 1
        guard !isDraining, requests[own]?.isKnown ?? true else {
            return .reply(.taken(take.job, EngineTaken(first: take.first)))
        }
        jobs[take.job] = Job(
            request: own, first: take.first, blockCount: Int(take.count), since: now, kind: .take)
        return .forward(.take(number, take))
    }

    mutating func reserve(_ reserve: EngineReserve, _ now: Instant) throws(EngineRefusal) -> Act {
        try check(isWriting: true, "RESERVE")
        try open(reserve.job)
        counters.reserves += 1
        guard !isDraining else { return .reply(.reserved(reserve.job, EngineReserved())) }
        jobs[reserve.job] = Job(request: 0, first: 0, blockCount: Int(reserve.count), since: now, kind: .reserve)
        return .forward(.reserve(number, reserve))
    }

    mutating func commit(_ commit: EngineCommit, _ now: Instant) throws(EngineRefusal) -> Act {
        try check(isWriting: true, "COMMIT")
        try open(commit.job)
        try check(request: commit.asker == 0 ? commit.request : 0)
        counters.commits += 1
        let count = commit.slots.count
        guard !isDraining else { return .reply(nothingCommitted(commit.job, count: count, since: now, now)) }
        var commit = commit
        if commit.asker == 0, requests[commit.request]?.isKnown == false { commit.request = 0 }
        jobs[commit.job] = Job(
            request: commit.asker == 0 ? commit.request : 0, first: commit.first, blockCount: count, since: now,
            kind: .commit)
        return .forward(.commit(number, commit))
    }

    mutating func release(_ ticket: EngineTicket, _ loan: EngineLoan) throws(EngineRefusal) -> Act {
        try check(isWriting: false, "RELEASE")
        return .forward(.release(number, ticket, loan))
    }

    /// The decisions had no room: the engine goes on without.
    mutating func noRoom(forLoan message: EngineMessage, at now: Instant) -> Refuge {
        counters.busy += 1
        switch message {
        case .take(_, let take):
            jobs[take.job] = nil
            return .reply(.taken(take.job, EngineTaken(first: take.first)))
        case .reserve(_, let reserve):
            jobs[reserve.job] = nil
            return .reply(.reserved(reserve.job, EngineReserved()))
        case .commit(_, let commit):
            // The slots are still reserved, and come back with the reservation.
            jobs[commit.job] = nil
            return .reply(nothingCommitted(commit.job, count: commit.slots.count, since: now, now))
        default: return .mustWait
        }
    }

    private func nothingCommitted(
        _ job: EngineTicket, count: Int, since: Instant, _ now: Instant
    ) -> EngineFrame {
        .committed(job, EngineSaved(count: count, bytes: 0, time: now - since, kept: []))
    }

    mutating func taken(
        _ ticket: EngineTicket, _ taken: EngineTaken, _ now: Instant, _ send: (EngineFrame) -> Void
    ) {
        guard let job = jobs[ticket], job.kind == .take else { return }
        jobs[ticket] = nil
        var taken = taken
        taken.time = now - job.since
        counters.takeTime.add(taken.time)
        counters.blocksTaken += UInt64(taken.blocks.count)
        if taken.blocks.isEmpty { counters.takesEmpty += 1 }
        send(.taken(ticket, taken))
    }

    mutating func reserved(
        _ ticket: EngineTicket, _ reserved: EngineReserved, _ now: Instant, _ send: (EngineFrame) -> Void
    ) {
        guard let job = jobs[ticket], job.kind == .reserve else { return }
        jobs[ticket] = nil
        var reserved = reserved
        reserved.time = now - job.since
        counters.slotsReserved += UInt64(reserved.slots.count)
        send(.reserved(ticket, reserved))
    }
}
