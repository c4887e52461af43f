// What each message of an engine means for the decisions.

import KVIdentity
import KVModel
import KVSystem
import KVTiering

extension EngineDesk {
    /// Takes a message. What comes of it is in `events`, `replies` and `cutRequests`.
    ///
    /// - Parameter links: The paths as they look now.
    package mutating func take(_ message: EngineMessage, links: LinkView, at now: Instant) {
        time = now
        switch message {
        case .attach(let engine, let hello): attach(engine, hello)
        case .addRegion(let engine, let region): add(engine, region)
        case .dropRegion(let engine, let region):
            engines[engine]?.leaving.insert(region)
            settleRegion(engine, region)
        case .lookUp(let engine, let lookUp): self.lookUp(engine, lookUp)
        case .load(let engine, let load): self.load(engine, load, links)
        case .save(let engine, let save): self.save(engine, save)
        case .take(let engine, let take): self.take(engine, take, links)
        case .reserve(let engine, let reserve): self.reserve(engine, reserve)
        case .commit(let engine, let commit): self.commit(engine, commit)
        case .release(let engine, let ticket, let loan): release(engine, ticket, loan)
        case .finished(let engine, let end): finished(engine, end)
        case .cancel(let engine, let ticket): cancel(engine, ticket)
        case .prefetch(let engine, let names): hint(engine, names)
        case .touch(let engine, let names): touch(engine, names)
        case .pin(let engine, let ticket, let names, let lifetime):
            guard engines[engine] != nil else { return }
            pin(engine, ticket, names, expires: now + lifetime, at: now)
        case .unpin(let engine, let ticket):
            if let pin = pins.take(engine, ticket) { events.append(.unpin(pin: pin)) }
        case .subscribe(let engine): engines[engine]?.isSubscribed = true
        case .gone(let engine): gone(engine)
        }
    }

    // MARK: Engines and regions

    private mutating func attach(_ engine: EngineNumber, _ hello: EngineHello) {
        func refuse(_ reason: String) { counters.refused += 1; replies.append(.refused(engine, reason: reason)) }
        guard engines[engine] == nil else { return refuse("engine \(engine) is attached already") }
        guard engines.count < limits.enginesMax else { return refuse("\(limits.enginesMax) engines are attached") }
        guard hello.blockTokens == blockTokens else {
            return refuse("its blocks have \(hello.blockTokens) tokens, the agent's \(blockTokens)")
        }
        guard hello.blockBytes > 0, hello.blockBytes <= slotBytes else {
            return refuse("its blocks have \(hello.blockBytes) bytes, the agent's slots \(slotBytes)")
        }
        guard !ownsDevice || hello.ownership == .full else {
            return refuse(
                "it owns its GPU's memory by its HELLO (\(hello.ownership.rawValue)), and here HBM slots are the agent's "
                    + "(hbm): say full, or start the agent without")
        }
        if let ours = storeNamespace, ours != hello.storeNamespace {
            return refuse("its store namespace is `\(hello.storeNamespace)`, the agent's `\(ours)`")
        }
        for other in engines.values {
            guard let theirs = other.hello else { continue }
            let differences = NamespaceIdentity.differences(hello.namespace, theirs.namespace)
            guard differences.isEmpty else {
                return refuse(
                    "its namespace | that of engine \(other.number) (\(theirs.kind)): "
                        + differences.joined(separator: "; "))
            }
        }
        if storeNamespace == nil { adopt(namespace: hello.storeNamespace) }
        var attached = Engine(number: engine)
        attached.hello = hello
        engines[engine] = attached
        replies.append(.attached(engine))
    }

    private mutating func add(_ engine: EngineNumber, _ region: EngineRegion) {
        guard var regions = engines[engine]?.regions.byNumber else { return }
        regions[region.number] = region
        engines[engine]?.regions = EngineRegions(regions)
        engines[engine]?.leaving.remove(region.number)
        replies.append(.regionAdded(engine, region: region.number))
    }

    /// Lets a region go whose end was asked for, when no job names it any more.
    mutating func settleRegion(_ engine: EngineNumber, _ region: Int32) {
        guard let record = engines[engine], record.leaving.contains(region) else { return }
        guard record.regionUses[region, default: 0] == 0 else { return }
        var regions = record.regions.byNumber
        regions[region] = nil
        engines[engine]?.regions = EngineRegions(regions)
        engines[engine]?.regionUses[region] = nil
        engines[engine]?.leaving.remove(region)
        if !record.isGone { replies.append(.regionDropped(engine, region: region)) }
    }

    private mutating func gone(_ engine: EngineNumber) {
        guard engines[engine] != nil else { return replies.append(.forgotten(engine)) }
        engines[engine]?.isGone = true
        endLoans(of: engine)
        for number in records.indices
        where records[number].engine == engine && records[number].purpose != .unused && !records[number].isClosed {
            giveUp(RequestNumber(number))
        }
        settleEngine(engine)
    }

    /// Forgets an engine that is gone when the last of its requests has ended.
    mutating func settleEngine(_ engine: EngineNumber) {
        guard let record = engines[engine], record.isGone, record.openCount == 0 else { return }
        engines[engine] = nil
        replies.append(.forgotten(engine))
    }

    // MARK: Requests

    func isSensible(_ names: [ObjectName]) -> Bool {
        names.count <= limits.chainBlocksMax && !names.contains { $0.shardCount == 0 }
    }

    private mutating func lookUp(_ engine: EngineNumber, _ lookUp: EngineLookUp) {
        counters.lookUps += 1
        let nothing = EngineReply.found(engine, lookUp.ticket, Answer(request: noRequest))
        guard isSensible(lookUp.names), lookUp.promptTokens >= 0, find(engine, lookUp.ticket) == nil else {
            counters.invalid += 1
            return replies.append(nothing)
        }
        guard let number = open(.request, engine, lookUp.ticket, names: lookUp.names.count) else {
            return replies.append(nothing)
        }
        name(number, lookUp.ticket)
        records[Int(number)].names = lookUp.names
        records[Int(number)].session = lookUp.session
        records[Int(number)].turn = lookUp.turn
        records[Int(number)].isPart = lookUp.promptTokens == 0
        arrive(
            number, promptTokens: max(lookUp.promptTokens, Int32(lookUp.names.count - 1) * blockTokens + 1),
            engineBlocks: max(0, lookUp.engineBlocks))
    }

    /// Tells the decisions of a request, or of one that brings a piece of another's turn.
    mutating func arrive(
        _ number: RequestNumber, promptTokens: Int32, engineBlocks: Int32, pieceOf turn: RequestNumber? = nil
    ) {
        let record = records[Int(number)]
        events.append(
            .arrived(
                Arrival(
                    request: number, engine: record.engine, chain: record.names.map(\.blockKey)[...],
                    promptTokens: promptTokens, engineBlocks: engineBlocks,
                    session: sessions.number(of: record.session), turn: record.turn, pieceOf: turn ?? noRequest)))
    }

    private mutating func finished(_ engine: EngineNumber, _ end: EngineRequestEnd) {
        counters.finished += 1
        guard let number = find(engine, end.ticket), records[Int(number)].purpose == .request,
            !records[Int(number)].isEnding
        else { return }
        if records[Int(number)].job != nil { cut(number) }
        var parts: Computed.Parts = records[Int(number)].isPart ? [] : [.booked]
        if !records[Int(number)].wasSaved { parts.insert(.kept) }
        let count = Int32(truncatingIfNeeded: records[Int(number)].names.count)
        let isLoaded = records[Int(number)].wasLoaded || records[Int(number)].hasPieces
        records[Int(number)].isBooked = true
        var computed = Computed(request: number, parts: parts, firstHeld: count)
        if !isLoaded, end.cachedTokens >= 0 { computed.engineBlocks = end.cachedTokens / blockTokens }
        events.append(.computed(computed))
        self.end(number, end.reason, resumesAfter: end.resumesAfter)
    }

    private mutating func cancel(_ engine: EngineNumber, _ ticket: EngineTicket) {
        counters.cancels += 1
        guard let number = find(engine, ticket) else {
            cancelReservation(engine, ticket)
            return replies.append(.cancelled(engine, ticket))
        }
        let record = records[Int(number)]
        if let job = record.job, job.ticket == ticket {
            records[Int(number)].job?.owesCancelled = true
            if record.purpose == .request { return cut(number) }
            giveUp(number)
        } else {
            records[Int(number)].owesCancelled = true
            for child in records.indices where records[child].job?.parent == number { giveUp(RequestNumber(child)) }
            giveUp(number)
        }
    }

    /// Ends a request or a job of its own as soon as what is under way for it has come to rest.
    private mutating func giveUp(_ number: RequestNumber) {
        if records[Int(number)].job != nil {
            if records[Int(number)].job?.kind != .save {
                cut(number)
            } else {
                records[Int(number)].job?.isCancelled = true
                cutRequests.append(number)
            }
        }
        abandon(number)
        settle(number)
    }

    // MARK: Jobs

    private mutating func load(_ engine: EngineNumber, _ load: EngineLoad, _ links: LinkView) {
        counters.loads += 1
        let nothing = EngineReply.loaded(engine, job: load.job, first: load.first, end: load.first)
        let asked = turn(load.request, of: load.asker == 0 ? engine : EngineNumber(load.asker))
        let chain = load.names.isEmpty ? asked.map { records[Int($0)].names } ?? [] : load.names
        let count = load.places.blockCount
        let end = load.first + Int32(truncatingIfNeeded: count)
        // Who reads and writes on the device has nowhere to copy to.
        guard !ownsDevice, let regions = check(engine, load.places), load.first >= 0, count > 0,
            Int(end) <= chain.count,
            isSensible(chain), find(engine, load.job) == nil
        else {
            counters.invalid += 1
            return replies.append(nothing)
        }
        var job = Job(
            kind: .load, ticket: load.job, first: load.first, places: load.places, deadline: load.deadline,
            regions: regions)
        job.blockCount = count
        if let asked, canLoad(asked, load.names, by: engine) {
            guard hasRoom(for: load.places.slices.count, of: engine) else {
                counters.refused += 1
                return replies.append(nothing)
            }
            records[Int(asked)].wasLoaded = true
            begin(job, on: asked)
            events.append(
                .load(
                    LoadRequest(
                        request: asked, engineBlocks: load.first, endMax: end, computeWait: load.computeWait,
                        links: links)))
            return
        }
        let number = open(.load, engine, load.job, names: Int(end), places: load.places.slices.count)
        guard let number else { return replies.append(nothing) }
        beginPiece(
            job, on: number, Array(chain.prefix(Int(end))), of: asked, isOfTurn: load.request != 0)
        events.append(
            .load(
                LoadRequest(
                    request: number, engineBlocks: load.first, endMax: end, computeWait: load.computeWait,
                    links: links)))
    }

    /// The open request that a job names, if its asker has one by that name.
    func turn(_ request: EngineTicket, of asker: EngineNumber) -> RequestNumber? {
        guard request != 0, let asked = find(asker, request), records[Int(asked)].purpose == .request else {
            return nil
        }
        return asked
    }

    /// Begins a load with a number of its own. What it brings is booked with the request that it belongs to.
    ///
    /// - Parameter isOfTurn: Whether it belongs to a request, though to one that nobody knows any more.
    mutating func beginPiece(
        _ job: Job, on number: RequestNumber, _ names: [ObjectName], of asked: RequestNumber?, isOfTurn: Bool
    ) {
        var job = job
        job.parent = asked
        records[Int(number)].names = names
        records[Int(number)].session = asked.map { records[Int($0)].session } ?? 0
        begin(job, on: number)
        arrive(
            number, promptTokens: Int32(truncatingIfNeeded: names.count) * blockTokens, engineBlocks: job.first,
            pieceOf: isOfTurn ? asked ?? endedRequest : nil)
    }

    /// Whether a load can be that of the request that was looked up: its first, of the same chain and the same connection.
    func canLoad(_ number: RequestNumber, _ names: [ObjectName], by engine: EngineNumber) -> Bool {
        let record = records[Int(number)]
        guard record.engine == engine, !record.wasLoaded, !record.isEnding, !record.isBooked else { return false }
        if names.isEmpty { return true }
        return names.count <= record.names.count && names.last == record.names[names.count - 1]
    }

    private mutating func save(_ engine: EngineNumber, _ save: EngineSave) {
        counters.saves += 1
        let count = save.places.blockCount
        let nothing = EngineReply.saved(
            engine, job: save.job, kept: [UInt64](repeating: 0, count: (max(0, count) + 63) / 64))
        guard !ownsDevice, let regions = check(engine, save.places), save.first >= 0, count > 0,
            Int(save.first) + count == save.names.count, isSensible(save.names), find(engine, save.job) == nil
        else {
            counters.invalid += 1
            return replies.append(nothing)
        }
        let number = open(.save, engine, save.job, names: save.names.count, places: save.places.slices.count)
        guard let number else { return replies.append(nothing) }
        var job = Job(
            kind: .save, ticket: save.job, first: save.first, places: save.places, deadline: .distantFuture,
            regions: regions)
        job.blockCount = count
        let asker = save.asker == 0 ? engine : EngineNumber(save.asker)
        offer(
            job, on: number, save.names, request: save.request, of: asker, evictionClass: save.evictionClass,
            adopted: nil)
    }

    /// Offers blocks to the decisions: in places of their engine, or in slots already. Whose request `asker` does not know (any
    /// more) brings a piece of a turn that is over.
    mutating func offer(
        _ job: Job, on number: RequestNumber, _ names: [ObjectName], request: EngineTicket, of asker: EngineNumber,
        evictionClass: UInt8, adopted: Adoption?
    ) {
        counters.blocksOffered += job.blockCount
        records[Int(number)].names = names
        records[Int(number)].evictionClass = evictionClass
        var job = job
        if let asked = turn(request, of: asker) {
            job.parent = asked
            records[Int(number)].session = records[Int(asked)].session
            records[Int(number)].turn = records[Int(asked)].turn
            records[Int(asked)].wasSaved = true
            // The prompt is booked before its own blocks are here and would count as found.
            let record = records[Int(asked)]
            if !record.isBooked, !record.isEnding, record.job == nil, record.openPieces == 0 {
                records[Int(asked)].isBooked = true
                if !record.isPart {
                    var computed = Computed(request: asked, parts: [.booked])
                    computed.engineBlocks = engineBlocks(of: asked, before: job.first, of: names)
                    events.append(.computed(computed))
                }
            }
        }
        begin(job, on: number)
        let blocks = Int32(truncatingIfNeeded: names.count)
        arrive(
            number, promptTokens: blocks * blockTokens, engineBlocks: blocks,
            pieceOf: request == 0 ? nil : job.parent ?? endedRequest)
        var computed = Computed(request: number, parts: [.kept], firstHeld: job.first)
        computed.adopted = adopted
        events.append(.computed(computed))
        end(number, .unknown)
    }

    /// How many leading blocks of a prompt its engine had itself, if it loaded nothing and now saves what lies behind them; −1
    /// if that says nothing.
    private func engineBlocks(of asked: RequestNumber, before first: Int32, of names: [ObjectName]) -> Int32 {
        let record = records[Int(asked)]
        guard !record.wasLoaded, !record.hasPieces else { return -1 }
        let count = min(Int(first), record.names.count)
        guard count == 0 || names[count - 1] == record.names[count - 1] else { return -1 }
        return Int32(truncatingIfNeeded: count)
    }

    /// The regions that places name, if each block's slices lie in them and come to a block.
    private func check(_ engine: EngineNumber, _ places: EnginePlaces) -> [Int32]? {
        guard let record = engines[engine], !record.isGone, let hello = record.hello else { return nil }
        let segments = places.segmentsPerBlock
        guard segments > 0, places.slices.count % segments == 0 else { return nil }
        var named: [Int32] = []
        var bytes = 0
        var index = 0
        var last: (number: Int32, count: Int) = (-1, 0)
        for slice in places.slices {
            if slice.region != last.number {
                guard let region = record.regions.byNumber[slice.region], !record.leaving.contains(slice.region) else {
                    return nil
                }
                last = (slice.region, unsafe region.memory.regions[0].count)
                if !named.contains(slice.region) { named.append(slice.region) }
            }
            guard slice.offset >= 0, slice.count > 0, slice.offset <= last.count,
                slice.count <= last.count - slice.offset
            else { return nil }
            bytes += slice.count
            index += 1
            guard index == segments else { continue }
            guard bytes == hello.blockBytes else { return nil }
            bytes = 0
            index = 0
        }
        return named
    }

    // MARK: Hints and pins

    private mutating func hint(_ engine: EngineNumber, _ names: [ObjectName]) {
        counters.hints += 1
        guard isSensible(names), !names.isEmpty, let number = open(.hint, engine, 0, names: names.count) else { return }
        records[Int(number)].names = names
        arrive(number, promptTokens: Int32(names.count) * blockTokens, engineBlocks: 0)
    }

    private mutating func touch(_ engine: EngineNumber, _ names: [ObjectName]) {
        counters.hints += 1
        guard isSensible(names), engines[engine] != nil else { return }
        events.append(.touched(chain: names.map(\.blockKey)[...]))
    }

    private mutating func pin(
        _ engine: EngineNumber, _ ticket: EngineTicket, _ names: [ObjectName], expires: Instant, at now: Instant
    ) {
        guard isSensible(names), let pin = pins.open(engine, ticket, expires: expires, at: now) else {
            counters.refused += 1
            return replies.append(.pinned(engine, ticket, PinAnswer(pin: 0, outcome: .tooMany, blocks: 0)))
        }
        events.append(
            .pin(PinRequest(pin: pin, owner: 0, chain: names.map(\.blockKey)[...], expires: expires)))
    }
}
