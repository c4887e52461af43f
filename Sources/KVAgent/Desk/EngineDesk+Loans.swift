// Host-owned engines: what is read in place and what is written in place. A lease belongs to a request and ends with it; a
// reservation belongs to its engine. Either ends when it is given back, when its time is over, or when its engine is gone.

import KVModel
import KVSystem
import KVTiering

extension EngineDesk {
    private func mayBorrow(_ engine: EngineNumber) -> Bool {
        guard let record = engines[engine], !record.isGone, let hello = record.hello else { return false }
        return hello.ownership != .engine
    }

    private func lifetime(_ asked: Duration) -> Duration {
        asked > .zero ? min(asked, limits.loanLimit) : limits.loanLimit
    }

    /// When a loan is over. What is lent on a device is its engine's working memory, and a GPU cannot look at loan words: there a
    /// loan ends with its request, its release or its engine.
    private func expiry(_ lifetime: Duration) -> Instant { ownsDevice ? .distantFuture : time + lifetime }

    // MARK: Reading in place

    mutating func take(_ engine: EngineNumber, _ take: EngineTake, _ links: LinkView) {
        counters.loads += 1
        let nothing = EngineReply.taken(engine, job: take.job, EngineTaken(first: take.first))
        let asked = turn(take.request, of: take.asker == 0 ? engine : EngineNumber(take.asker))
        let chain = take.names.isEmpty ? asked.map { records[Int($0)].names } ?? [] : take.names
        guard mayBorrow(engine), take.first >= 0, take.count > 0, Int(take.first) < chain.count, isSensible(chain),
            find(engine, take.job) == nil
        else {
            counters.invalid += 1
            return replies.append(nothing)
        }
        guard loans.hasRoom(for: engine) else {
            handOver.loansRefused += 1
            return replies.append(nothing)
        }
        let end = min(take.first + take.count, Int32(truncatingIfNeeded: chain.count))
        var job = Job(
            kind: .take, ticket: take.job, first: take.first, places: EnginePlaces(slices: []),
            deadline: take.deadline, regions: [])
        job.blockCount = Int(end - take.first)
        job.isVerified = take.isVerified
        job.lifetime = lifetime(take.lifetime)
        job.lent = [LeasedBlock?](repeating: nil, count: job.blockCount)
        var load = LoadRequest(
            request: 0, engineBlocks: take.first, endMax: end, computeWait: take.computeWait, links: links)
        load.isLease = true
        if let asked, canLoad(asked, take.names, by: engine) {
            records[Int(asked)].wasLoaded = true
            begin(job, on: asked)
            load.request = asked
        } else {
            guard let number = open(.load, engine, take.job, names: Int(end)) else { return replies.append(nothing) }
            beginPiece(
                job, on: number, Array(chain.prefix(Int(end))), of: asked, isOfTurn: take.request != 0)
            load.request = number
        }
        events.append(.load(load))
    }

    /// A block of a take may be read where it lies, once the engine is told.
    mutating func lend(_ request: RequestNumber, at position: Int32, _ block: LeasedBlock) {
        guard let job = records[Int(request)].job, job.kind == .take else { return }
        let index = Int(position - job.first)
        if job.lent.indices.contains(index) { records[Int(request)].job?.lent[index] = block }
    }

    /// A take ended: its engine is told what it may read, and from now on it may.
    mutating func endTake(_ number: RequestNumber, _ job: Job, _ ready: Ready) {
        let record = records[Int(number)]
        var blocks: [LeasedBlock] = []
        for index in Int(ready.first - job.first)..<max(Int(ready.first - job.first), Int(ready.end - job.first)) {
            guard let block = job.lent[index] else { break }
            blocks.append(block)
        }
        let isWanted = !blocks.isEmpty && !job.owesCancelled && !record.isEnding && mayBorrow(record.engine)
        if isWanted, loans.hasRoom(for: record.engine) {
            let loan = loans.open(
                LoanTable.Loan(engine: record.engine, purpose: .lease(number), expires: expiry(job.lifetime)))
            records[Int(number)].loan = loan
            handOver.loans += 1
            handOver.blocksLent += blocks.count
            handOver.bytesLent += blocks.count * (engines[record.engine]?.hello?.blockBytes ?? 0)
            counters.blocksLoaded += blocks.count
            replies.append(
                .taken(record.engine, job: job.ticket, EngineTaken(first: ready.first, loan: loan, blocks: blocks)))
            return
        }
        if job.owesCancelled {
            replies.append(.cancelled(record.engine, job.ticket))
        } else {
            replies.append(.taken(record.engine, job: job.ticket, EngineTaken(first: job.first)))
        }
        giveBack(number)
    }

    /// The decisions hear that nobody reads a request's blocks any more.
    private mutating func giveBack(_ number: RequestNumber) {
        guard !records[Int(number)].isEnding else { return }
        if records[Int(number)].purpose == .load {
            end(number, .unknown)
        } else {
            events.append(.released(request: number))
        }
    }

    // MARK: Writing in place

    mutating func reserve(_ engine: EngineNumber, _ reserve: EngineReserve) {
        let nothing = EngineReply.reserved(engine, job: reserve.job, EngineReserved())
        guard mayBorrow(engine), reserve.count > 0 else {
            counters.invalid += 1
            return replies.append(nothing)
        }
        guard loans.hasRoom(for: engine) else {
            handOver.loansRefused += 1
            return replies.append(nothing)
        }
        let reservation = loans.openReservation(engine, reserve)
        events.append(.reserve(ReserveRequest(reservation: reservation, count: reserve.count)))
    }

    /// The decisions gave slots.
    mutating func reserved(_ answer: Reserved) {
        // Who was gone or cancelled meanwhile is not told: the slots are on their way back.
        guard let loan = loans.loan(of: answer.reservation), let open = loans[loan] else { return }
        guard !answer.slots.isEmpty else {
            _ = loans.close(loan)
            events.append(.unreserve(reservation: answer.reservation))
            return replies.append(.reserved(open.engine, job: open.job, EngineReserved()))
        }
        handOver.loans += 1
        loans.grant(loan, answer.slots, until: expiry(lifetime(open.lifetime)))
        replies.append(.reserved(open.engine, job: open.job, EngineReserved(loan: loan, slots: answer.slots)))
    }

    mutating func commit(_ engine: EngineNumber, _ commit: EngineCommit) {
        counters.saves += 1
        let count = commit.slots.count
        let nothing = EngineReply.saved(
            engine, job: commit.job, kept: [UInt64](repeating: 0, count: (count + 63) / 64))
        guard let loan = loans[commit.loan], loan.engine == engine,
            case .reservation(let reservation, let slots?) = loan.purpose
        else {
            // Its time was over. Whatever it wrote since then is somebody else's.
            handOver.staleWords += 1
            return replies.append(nothing)
        }
        let named = Set(commit.slots)
        guard count > 0, named.count == count, named.isSubset(of: slots), commit.first >= 0,
            Int(commit.first) + count == commit.names.count, isSensible(commit.names), find(engine, commit.job) == nil
        else {
            counters.invalid += 1
            return replies.append(nothing)
        }
        guard let number = open(.save, engine, commit.job, names: commit.names.count) else {
            return replies.append(nothing)
        }
        let left = slots.filter { !named.contains($0) }
        loans[commit.loan]?.purpose = .reservation(reservation, slots: left)
        var job = Job(
            kind: .save, ticket: commit.job, first: commit.first, places: EnginePlaces(slices: []),
            deadline: .distantFuture, regions: [])
        job.blockCount = count
        job.isAdoption = true
        var adoption = Adoption(reservation: reservation, slots: commit.slots)
        let asker = commit.asker == 0 ? engine : EngineNumber(commit.asker)
        adoption.holder = commit.request == 0 ? noRequest : find(asker, commit.request) ?? noRequest
        offer(
            job, on: number, commit.names, request: commit.request, of: asker, evictionClass: commit.evictionClass,
            adopted: adoption)
        if ownsDevice {
            // What is not taken over stays its own to read, until it gives the reservation back.
            note(commit, written: number)
        } else if left.isEmpty {
            _ = endLoan(commit.loan)
        }
    }

    private mutating func note(_ commit: EngineCommit, written number: RequestNumber) {
        guard let hello = engines[records[Int(number)].engine]?.hello else { return }
        for (index, slot) in commit.slots.enumerated() {
            let position = commit.first + Int32(truncatingIfNeeded: index)
            let content = SlotContent(
                name: commit.names[Int(position)], metadata: metadata(of: number, at: position),
                payloadBytes: Int32(truncatingIfNeeded: hello.blockBytes), checksum: 0, hasChecksum: false)
            written.append((slot, content))
        }
    }

    // MARK: Ends

    mutating func release(_ engine: EngineNumber, _ ticket: EngineTicket, _ loan: EngineLoan) {
        let isTheirs = loans[loan]?.engine == engine
        if isTheirs { _ = endLoan(loan) } else { handOver.staleWords += 1 }
        replies.append(.released(engine, ticket, wasInForce: isTheirs))
    }

    /// Ends a loan: engines can see it first, then the decisions hear of it.
    @discardableResult
    mutating func endLoan(_ loan: EngineLoan) -> Bool {
        guard let closed = loans.close(loan) else { return false }
        switch closed.purpose {
        case .lease(let number):
            records[Int(number)].loan = .none
            giveBack(number)
        case .reservation(let reservation, _): events.append(.unreserve(reservation: reservation))
        }
        return true
    }

    /// A request ends: nobody may read for it any more.
    mutating func endLoan(of number: RequestNumber) {
        let loan = records[Int(number)].loan
        guard loan != .none else { return }
        records[Int(number)].loan = .none
        _ = loans.close(loan)
    }

    /// A reservation that its engine gives up before it was answered.
    mutating func cancelReservation(_ engine: EngineNumber, _ ticket: EngineTicket) {
        let waiting = loans.all { loan in
            guard case .reservation(_, nil) = loan.purpose else { return false }
            return loan.engine == engine && loan.job == ticket
        }
        for loan in waiting { endLoan(loan) }
    }

    /// An engine is gone: what it held comes back.
    mutating func endLoans(of engine: EngineNumber) {
        for loan in loans.all(where: { $0.engine == engine }) {
            handOver.loansOrphaned += 1
            endLoan(loan)
        }
    }

    mutating func expireLoans(at now: Instant) {
        for loan in loans.expired(at: now) {
            handOver.loansExpired += 1
            endLoan(loan)
        }
    }
}
