// A request arrives: its chain is named, its leading run found, the store asked once for what is unknown.

import KVModel

/// A request between arrival and end.
struct Request {
    enum State: UInt8 { case unused, asking, answered, loading, ready }

    var number: RequestNumber = 0
    /// Rises when the slot is used again, so that late deadlines and transfers are told apart.
    var generation: UInt32 = 0
    var state = State.unused
    /// What of it was booked and kept.
    var computedParts: Computed.Parts = []
    /// The request whose turn it brings a part of, or `noRequest`.
    var pieceOf = noRequest
    /// Leading blocks that the policies were shown as its own: only then are they told of its end.
    var shown = 0
    /// Leading blocks that count it among their uses.
    var counted = 0
    /// Of a turn that comes in pieces: leading blocks that were handed over, and that the store was offered.
    var handedOver = 0
    /// See `handedOver`.
    var offered = 0
    /// Whether the store was asked, or is not to be.
    var asked = false
    /// The question in flight.
    var question: TransferNumber?
    /// The load that waits for the answer.
    var pendingLoad: LoadRequest?
    var engine: Int32 = 0
    var promptTokens: Int32 = 0
    var session: Int32 = -1
    var turn: Int32 = -1
    /// The whole chain, or as much of it as could be named; of a turn in pieces also what was handed over behind it.
    var blocks: [BlockNumber] = []
    /// Blocks of the whole chain, named or not.
    var chainCount: Int32 = 0
    /// Leading blocks that the engine has itself; they need no name.
    var engineBlocks: Int32 = 0
    /// Leading blocks that this node had met before it arrived.
    var metBlocks: Int32 = 0
    /// Whether the store could not be asked, or nothing be had of it.
    var storeIsAway = false
    /// Leading blocks found when it arrived.
    var foundOnArrival: Int32 = 0
    /// Leading blocks found when it was loaded.
    var found: Int32 = 0
    /// Blocks `first ..< end` are loaded, or being loaded.
    var first: Int32 = 0
    var end: Int32 = 0
    /// What the plan wanted; `end` falls behind it when blocks do not come.
    var planned: Int32 = 0
    /// One past the last block whose way into the engine has begun.
    var issued: Int32 = 0
    /// One past the last block that is in node memory or on its way there.
    var fetched: Int32 = 0
    /// Blocks whose slot the request itself keeps from being given away, by position.
    var leases = PositionSet()
    /// Transfers into the engine that have not ended.
    var outstanding: Int32 = 0
    /// Why `end` fell behind `planned`.
    var cutCause = TokenClass.late
    /// Where the loaded blocks come from.
    var sources: [SourceRun] = []
    /// What loads with numbers of their own brought of it.
    var brought = BroughtBlocks()
    /// Blocks brought up while it waits, each with a lease.
    var staged: [BlockNumber] = []
    /// Positions whose blocks have slots of the device that are kept for it, until it ends.
    var taken = PositionSet()
    /// Blocks that its engine wrote into slots of the device and goes on reading.
    var written: [BlockNumber] = []
    /// Whether the engine reads the loaded blocks where they lie in node memory: `leases` then outlive the load.
    var isLease = false
    /// Slots that it has, or may yet have, of those that engines may hold.
    var loanedSlots = 0

    /// The context that policies see.
    func context(blockTokens: Int, now: Instant) -> RequestContext {
        RequestContext(
            request: number, session: session, turn: turn,
            lastBlockIsPartial: blocks.count <= chainCount && Int(promptTokens) < blocks.count * blockTokens, now: now)
    }
}

extension TieringManager {
    mutating func arrived(_ arrival: Arrival) {
        let isPiece = arrival.pieceOf != noRequest
        if !isPiece { counters.requests += 1 }
        guard let slot = takeRequest(arrival.request) else {
            counters.requestsRefused += 1
            emit(.answer(Answer(request: arrival.request)))
            return
        }
        requests[Int(slot)].engine = arrival.engine
        requests[Int(slot)].promptTokens = arrival.promptTokens
        requests[Int(slot)].session = arrival.session
        requests[Int(slot)].turn = arrival.turn
        requests[Int(slot)].pieceOf = arrival.pieceOf
        requests[Int(slot)].chainCount = Int32(truncatingIfNeeded: arrival.chain.count)
        requests[Int(slot)].engineBlocks = min(arrival.engineBlocks, requests[Int(slot)].chainCount)
        let inMemory = name(arrival.chain, of: slot)
        if !isPiece { predictions.requestArrived(session: arrival.session, at: now) }
        lookUp(slot, inMemory: inMemory)
    }

    private mutating func takeRequest(_ number: RequestNumber) -> Int32? {
        precondition(requestSlots[number] == nil, "a request arrives twice")
        let slot: Int32
        if let free = freeRequests.popLast() {
            slot = free
        } else {
            guard requests.count < configuration.limits.requestsMax else { return nil }
            requests.append(Request())
            slot = Int32(requests.count - 1)
        }
        requests[Int(slot)].number = number
        requests[Int(slot)].state = .answered
        requestSlots[number] = slot
        return slot
    }

    /// Turns the chain's keys into numbers. Where no number is to be had the chain is cut: what is behind stays
    /// unknown to this node.
    ///
    /// - Returns: How many leading blocks node memory has.
    private mutating func name(_ chain: ArraySlice<BlockKey>, of slot: Int32) -> Int {
        var blocks: [BlockNumber] = []
        swap(&blocks, &requests[Int(slot)].blocks)
        blocks.removeAll(keepingCapacity: true)
        blocks.reserveCapacity(chain.count)
        let dramPolicy = dramPolicy
        let nvmePolicy = nvmePolicy
        let onDevice = device.blocks
        let named = known.name(chain.span, into: &blocks) {
            dramPolicy?.remembers($0) != true && nvmePolicy?.remembers($0) != true && onDevice[$0] == nil
        }
        if !named.isWhole { counters.chainsCut += 1 }
        requests[Int(slot)].metBlocks = Int32(truncatingIfNeeded: named.metCount)
        swap(&blocks, &requests[Int(slot)].blocks)
        return named.memoryCount
    }

    /// Finds the leading run and answers, or asks the store first.
    ///
    /// - Parameter inMemory: Leading blocks of the chain that node memory has at least.
    private mutating func lookUp(_ slot: Int32, inMemory: Int = 0) {
        let start = Int(requests[Int(slot)].engineBlocks)
        let unknown = scan(slot, from: start, inMemory: inMemory)
        if let unknown, ask(slot, from: unknown) { return }
        answer(slot)
    }

    /// Finds the run of blocks behind `start` that some tier has, as runs of one source in `scratchRuns`.
    ///
    /// - Parameter inMemory: Leading blocks of the chain that node memory has at least.
    /// - Returns: The first position of which the shared store must be asked, if one ends the run.
    mutating func scan(_ slot: Int32, from start: Int, inMemory: Int = 0) -> Int? {
        scratchRuns.clear()
        let blocks = requests[Int(slot)].blocks
        var position = start
        // A device's slots are nearer.
        if !device.isOn, inMemory > start {
            position = inMemory
            scratchRuns.append(SourceRun(tier: .dram, end: Int32(truncatingIfNeeded: position)))
        }
        while position < blocks.count {
            let block = blocks[position]
            let tier: Tier
            switch source(of: block) {
            case .here(let here): tier = here
            case .absent: return nil
            case .unknown:
                guard requests[Int(slot)].asked else { return position }
                // A request asks once. After that an old yes is the best there is, and the load's result is the truth:
                // without this, what left node memory while the request queued would be computed again.
                guard known[block].flash == .present else { return nil }
                tier = .flash
            }
            position += 1
            if let last = scratchRuns.indices.last, scratchRuns[last].tier == tier {
                scratchRuns[last].end = Int32(truncatingIfNeeded: position)
            } else {
                scratchRuns.append(SourceRun(tier: tier, end: Int32(truncatingIfNeeded: position)))
            }
        }
        return nil
    }

    /// The nearest tier from which a block could be had.
    @inline(__always)
    func source(of block: BlockNumber) -> Whereabouts {
        device.holds(block) ? .here(.hbm) : directory.source(of: known[block], at: milliseconds)
    }

    /// The time in hand as records keep it.
    var milliseconds: UInt32 { UInt32(truncatingIfNeeded: now.nanoseconds / 1_000_000) }

    /// Notes what the store says of a block.
    @inline(__always)
    mutating func hear(_ block: BlockNumber, isPresent: Bool) {
        if !isPresent, known[block].flash == .present, known[block].fate != .corrupt { known[block].fate = .evicted }
        known[block].flash = isPresent ? .present : .absent
        known[block].flashHeard = milliseconds
    }

    private mutating func answer(_ slot: Int32) {
        var answer = Answer(request: requests[Int(slot)].number)
        var start = requests[Int(slot)].engineBlocks
        answer.hbmBlocks = start
        for run in scratchRuns {
            let count = run.end - start
            switch run.tier {
            case .hbm: answer.hbmBlocks += count
            case .dram: answer.dramBlocks += count
            case .nvme: answer.nvmeBlocks += count
            case .flash: answer.flashBlocks += count
            }
            start = run.end
        }
        answer.hitBlocks = start
        requests[Int(slot)].foundOnArrival = start
        requests[Int(slot)].state = .answered
        emit(.answer(answer))
        if let load = requests[Int(slot)].pendingLoad {
            requests[Int(slot)].pendingLoad = nil
            startLoad(slot, load)
        } else if predictions.stagesQueue {
            stageQueued(slot)
        }
    }

    /// How many leading blocks of a chain this node's own tiers have, for a router that chooses among nodes. Changes
    /// nothing; a few nanoseconds a block.
    public func residentRun(_ chain: ArraySlice<BlockKey>) -> Int {
        var parent = BlockRecord.noBlock
        var length = 0
        for key in chain {
            guard let block = known.find(key, after: parent) else { break }
            guard known[block].dram == .present || known[block].nvme == .present || device.holds(block) else { break }
            length += 1
            parent = block
            if known[block].children == 0 { break }
        }
        return length
    }

    /// Whether some tier has the block, the shared store by what it last said.
    public func isKept(_ key: BlockKey) -> Bool {
        guard let block = known.find(key) else { return false }
        return isAnywhere(block)
    }

    // MARK: Asking the store

    /// Asks the store for every block from `position` on whose place is unknown. At most once a request.
    private mutating func ask(_ slot: Int32, from position: Int) -> Bool {
        requests[Int(slot)].asked = true
        let due = now + configuration.directory.askDeadline
        let matter = Matter.question(request: slot, generation: requests[Int(slot)].generation)
        guard setDeadline(matter, at: due) else { return false }
        guard let question = takeTransfer() else { return false }
        let blocks = requests[Int(slot)].blocks
        var keys: [BlockKey] = []
        keys.reserveCapacity(blocks.count - position)
        var asked = transfers[Int(question)].asked
        asked.removeAll(keepingCapacity: true)
        for index in position..<blocks.count {
            guard case .unknown = source(of: blocks[index]) else { continue }
            keys.append(known[blocks[index]].key)
            asked.append(Int32(truncatingIfNeeded: index))
        }
        transfers[Int(question)].use = .question
        transfers[Int(question)].asked = asked
        transfers[Int(question)].requestSlot = slot
        transfers[Int(question)].generation = requests[Int(slot)].generation
        requests[Int(slot)].question = question
        requests[Int(slot)].state = .asking
        counters.storeQuestions += 1
        emit(.askStore(StoreQuestion(question: question, request: requests[Int(slot)].number, keys: keys)))
        return true
    }

    mutating func storeAnswered(_ answer: StoreAnswer) {
        let question = Int(answer.question)
        precondition(transfers[question].use == .question, "the store answers what was not asked")
        guard !answer.isSilent else { return storeSilent(answer.question) }
        let slot = transfers[question].requestSlot
        // The numbers asked for are still those of the request, unless it has ended.
        if isCurrent(slot, transfers[question].generation) {
            let asked = transfers[question].asked
            for (index, position) in asked.enumerated() {
                let isPresent = answer.present[index / 64] >> UInt64(index % 64) & 1 == 1
                hear(requests[Int(slot)].blocks[Int(position)], isPresent: isPresent)
            }
            if requests[Int(slot)].question == answer.question {
                requests[Int(slot)].question = nil
                lookUp(slot)
            }
        }
        releaseTransfer(answer.question)
    }

    /// The world could not put a question or begin a transfer: the store is away.
    mutating func storeIsAway(_ transfer: TransferNumber) {
        let slot = transfers[Int(transfer)].requestSlot
        if isCurrent(slot, transfers[Int(transfer)].generation) { requests[Int(slot)].storeIsAway = true }
    }

    /// The question was not answered.
    mutating func storeSilent(_ question: TransferNumber) {
        let slot = transfers[Int(question)].requestSlot
        if isCurrent(slot, transfers[Int(question)].generation), requests[Int(slot)].question == question {
            storeIsLate(slot)
        }
        releaseTransfer(question)
    }

    /// The answer did not come in time: what is unknown is a miss. The answer is still learned from when it comes.
    mutating func storeIsLate(_ slot: Int32) {
        guard requests[Int(slot)].question != nil else { return }
        requests[Int(slot)].question = nil
        counters.storeQuestionsLate += 1
        lookUp(slot)
    }

    mutating func storeChanged(added: [BlockKey], removed: [BlockKey]) {
        for key in added {
            if let block = known.find(key) { hear(block, isPresent: true) }
        }
        for key in removed {
            if let block = known.find(key) { hear(block, isPresent: false) }
        }
    }

    func isCurrent(_ slot: Int32, _ generation: UInt32) -> Bool {
        slot >= 0 && requests[Int(slot)].generation == generation && requests[Int(slot)].state != .unused
    }

    // MARK: The end

    mutating func ended(_ number: RequestNumber, _ reason: StopReason, _ resumesAfter: Duration) {
        guard let slot = requestSlots[number] else { return }
        if requests[Int(slot)].shown > 0 {
            dramPolicy?.turnEnded(request: number, reason: reason, at: now)
            nvmePolicy?.turnEnded(request: number, reason: reason, at: now)
        }
        if requests[Int(slot)].pieceOf == noRequest, !requests[Int(slot)].computedParts.isEmpty {
            turnEnded(slot, reason, resumesAfter)
            if reason == .branchEnded { dropBranch(slot) }
        }
        returnPlaces(slot)
        release(slot)
    }

    mutating func cancelled(_ number: RequestNumber) {
        guard let slot = requestSlots[number] else { return }
        cancelTransfers(of: slot)
        returnPlaces(slot)
        release(slot)
    }

    private mutating func release(_ slot: Int32) {
        leaveLoading(slot)
        endLoan(slot)
        releaseLeases(slot)
        releaseDevice(slot)
        releaseStaged(slot)
        let blocks = requests[Int(slot)].blocks
        for block in blocks { known[block].users -= 1 }
        requestSlots[requests[Int(slot)].number] = nil
        var fresh = Request()
        fresh.generation = requests[Int(slot)].generation &+ 1
        swap(&fresh.blocks, &requests[Int(slot)].blocks)
        swap(&fresh.sources, &requests[Int(slot)].sources)
        swap(&fresh.leases, &requests[Int(slot)].leases)
        swap(&fresh.taken, &requests[Int(slot)].taken)
        swap(&fresh.staged, &requests[Int(slot)].staged)
        swap(&fresh.brought, &requests[Int(slot)].brought)
        fresh.brought.clear()
        requests[Int(slot)] = fresh
        freeRequests.append(slot)
    }
}
