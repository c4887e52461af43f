// The engine takes a request's blocks: the plan, the way up in slices, and the moment the engine may go on. Blocks
// from lower tiers land in staging slots of node memory and cross into the engine from there, in chain order.

import KVModel

extension TieringManager {
    mutating func loadWanted(_ load: LoadRequest) {
        guard let slot = requestSlots[load.request] else {
            // Beyond the limit on arrival: nothing is known of it.
            emit(.ready(Ready(request: load.request, first: load.engineBlocks, end: load.engineBlocks)))
            return
        }
        precondition(requests[Int(slot)].state == .asking || requests[Int(slot)].state == .answered, "a second load")
        if requests[Int(slot)].question != nil {
            requests[Int(slot)].pendingLoad = load
        } else {
            startLoad(slot, load)
        }
    }

    /// Plans a load and starts it.
    mutating func startLoad(_ slot: Int32, _ load: LoadRequest) {
        let index = Int(slot)
        requests[index].engineBlocks = min(load.engineBlocks, requests[index].chainCount)
        requests[index].asked = true
        predictions.observe(load.links)
        let start = requests[index].engineBlocks
        _ = scan(slot, from: Int(start))
        requests[index].found = max(start, scratchRuns.last?.end ?? start)
        limitRuns(to: load.isLease ? beginLoan(slot, to: load.endMax) : load.endMax)
        let question = question(slot, load, scratchRuns)
        let choice = planner.choose(question)
        let deadline = now + Duration(seconds: planner.limit(choice, of: question))
        requests[index].first = choice.first
        requests[index].end = choice.end
        requests[index].planned = choice.end
        requests[index].issued = choice.first
        requests[index].fetched = choice.first
        requests[index].outstanding = 0
        requests[index].cutCause = .late
        let sources = requests[index].sources
        requests[index].sources = scratchRuns
        scratchRuns = sources
        if notes.isOn { note(slot, load, choice) }
        noteWanted(slot)
        if load.isLease { shrinkLoan(slot) }
        // There is nowhere to bring it.
        if device.isLost { (requests[index].end, requests[index].cutCause) = (choice.first, .noTier) }
        guard requests[index].end > choice.first else {
            releaseStaged(slot)
            return finishLoad(slot)
        }

        let matter = Matter.load(request: slot, generation: requests[index].generation)
        guard setDeadline(matter, at: deadline) else {
            cut(slot, at: choice.first, cause: .late)
            return finishLoad(slot)
        }
        requests[index].state = .loading
        loading.append(slot)
        emit(
            .loading(
                LoadPlan(
                    request: load.request, first: choice.first, end: choice.end,
                    bytes: Int(choice.end - choice.first) * configuration.blockBytes,
                    expected: Duration(seconds: choice.loadSeconds), deadline: deadline)))
        if device.isOn { holdWhatIsThere(slot) }
        leaseWhatIsHere(slot)
        releaseStaged(slot)
        if let turn = turn(of: slot) { releaseStaged(turn, wantedBy: slot) }
        pump(slot)
    }

    /// Cuts the found runs where the engine's places end.
    private mutating func limitRuns(to end: Int32) {
        while let last = scratchRuns.last, last.end > end {
            let start = scratchRuns.count > 1 ? scratchRuns[scratchRuns.count - 2].end : 0
            if start < end {
                scratchRuns[scratchRuns.count - 1].end = end
            } else {
                scratchRuns.removeLast()
            }
        }
    }

    func question(_ slot: Int32, _ load: LoadRequest, _ runs: [SourceRun]) -> LoadQuestion {
        LoadQuestion(
            start: requests[Int(slot)].engineBlocks, runs: runs, promptTokens: requests[Int(slot)].promptTokens,
            blockTokens: configuration.blockTokens, blockBytes: configuration.blockBytes,
            sliceBlocks: configuration.limits.sliceBlocks, computeWait: load.computeWait, links: load.links)
    }

    // MARK: From lower tiers into staging slots

    /// Leases what is in node memory already, lest the fetches of this very load push it out.
    private mutating func leaseWhatIsHere(_ slot: Int32) {
        let index = Int(slot)
        let blocks = requests[index].blocks
        requests[index].leases.clear(count: blocks.count)
        for position in Int(requests[index].first)..<Int(requests[index].end) {
            let block = blocks[position]
            guard known[block].dram == .present, !requests[index].taken.contains(position) else { continue }
            lease(block, at: position, slot)
        }
    }

    @inline(__always)
    private mutating func lease(_ block: BlockNumber, at position: Int, _ slot: Int32) {
        markUsed(block)
        known[block].dramReaders += 1
        settleDRAM(block)
        requests[Int(slot)].leases.insert(position)
    }

    /// Fetches as much of the plan as there are slots for. A long load goes through few slots: what has crossed into
    /// the engine makes room for what is behind it.
    private mutating func fetchOnward(_ slot: Int32) {
        let index = Int(slot)
        guard requests[index].fetched < requests[index].end else { return }
        let blocks = requests[index].blocks
        var fetch = Fetch(kind: .load, request: slot)
        fetching: while requests[index].fetched < requests[index].end {
            let position = requests[index].fetched
            let block = blocks[Int(position)]
            if !requests[index].leases.contains(Int(position)), !isOnDevice(block, at: Int(position), slot) {
                switch bring(block, at: position, keepingFree: 0, &fetch) {
                case .here: lease(block, at: Int(position), slot)
                case .gone:
                    cut(slot, at: position, cause: causeOfLoss(block, of: slot))
                    break fetching
                case .noSlot:
                    if isIdle(slot), fetch.isEmpty, giveWay(slot) { continue }
                    // What it holds already it keeps, so that it would wait for itself: the engine computes the rest.
                    if requests[index].isLease, isIdle(slot), fetch.isEmpty {
                        counters.loadsCutShort += 1
                        cut(slot, at: position, cause: .late)
                        break fetching
                    }
                    isStarved = true
                    break fetching
                case .noTransfer:
                    counters.loadsCutShort += 1
                    cut(slot, at: position, cause: .late)
                    break fetching
                }
            }
            requests[index].fetched = position + 1
        }
        flush(&fetch)
    }

    /// Whether nothing of the load is on its way.
    private func isIdle(_ slot: Int32) -> Bool {
        requests[Int(slot)].outstanding == 0 && requests[Int(slot)].issued == requests[Int(slot)].fetched
    }

    /// Gives up the deepest lease of a load that could not go on otherwise.
    private mutating func giveWay(_ slot: Int32) -> Bool {
        let index = Int(slot)
        var position = Int(requests[index].end)
        while position > Int(requests[index].fetched) {
            position -= 1
            guard requests[index].leases.remove(position) else { continue }
            endDRAMRead(requests[index].blocks[position])
            return true
        }
        return false
    }

    /// Loads that found no slot try again.
    mutating func feedStarved() {
        isStarved = false
        for slot in loading.reversed() where requests[Int(slot)].fetched < requests[Int(slot)].end { pump(slot) }
    }

    /// Blocks on their way into staging slots, gathered into slices by source.
    struct Fetch {
        let kind: TransferKind
        let request: Int32
        var reason = PrefetchReason.queue
        var nvme: [BlockMove] = []
        var flash: [BlockMove] = []

        init(kind: TransferKind, request: Int32) {
            self.kind = kind
            self.request = request
        }

        var isEmpty: Bool { nvme.isEmpty && flash.isEmpty }
    }

    /// What became of the wish to have a block in node memory.
    enum Brought {
        /// It is there or on its way.
        case here
        /// Every slot is held.
        case noSlot
        /// The table of transfers is full.
        case noTransfer
        /// No tier has it.
        case gone
    }

    /// Sees to it that a block is in node memory or on its way there.
    ///
    /// - Parameter keepingFree: Slots that must remain available to others.
    mutating func bring(_ block: BlockNumber, at position: Int32, keepingFree: Int, _ fetch: inout Fetch) -> Brought {
        if known[block].dram == .present { return .here }
        if known[block].dram == .filling {
            known[block].flags.insert(.awaited)
            return .here
        }
        guard known[block].dram == .absent else { return .gone }
        let isLocal = known[block].nvme == .present
        guard isLocal || known[block].flash == .present else { return .gone }
        var place = takeDRAMSlot(for: block, keepingFree: keepingFree)
        // A request in need takes back what predictions hold.
        while place == nil, fetch.kind == .load, yieldPrediction() {
            place = takeDRAMSlot(for: block, keepingFree: keepingFree)
        }
        guard let destination = place else { return .noSlot }
        known[block].dram = .filling
        known[block].dramSlot = destination
        var move = BlockMove(
            key: known[block].key, block: block, position: position, source: 0, destination: destination)
        if fetch.kind != .load { predictions.inFlightCount += 1 }
        if isLocal {
            move.source = known[block].nvmeSlot
            known[block].nvmeReaders += 1
            fetch.nvme.append(move)
            if fetch.nvme.count == configuration.limits.sliceBlocks { flush(&fetch, .nvme) }
        } else {
            fetch.flash.append(move)
            if fetch.flash.count == configuration.limits.sliceBlocks { flush(&fetch, .flash) }
        }
        // A slice that could not be started took its slots back, this block's among them: who believed it on its way
        // would hold it for ever.
        return known[block].dram == .filling ? .here : .noTransfer
    }

    /// Starts what is gathered.
    mutating func flush(_ fetch: inout Fetch) {
        flush(&fetch, .nvme)
        flush(&fetch, .flash)
    }

    private mutating func flush(_ fetch: inout Fetch, _ source: Tier) {
        var moves: [BlockMove] = []
        if source == .nvme { swap(&moves, &fetch.nvme) } else { swap(&moves, &fetch.flash) }
        guard !moves.isEmpty else { return }
        if !start(fetch.kind, from: source, to: .dram, request: fetch.request, reason: fetch.reason, moves) {
            if fetch.kind != .load { predictions.inFlightCount -= moves.count }
            for move in moves {
                if source == .nvme { endNVMeRead(move.block) }
                dropDRAM(move.block, fate: .none)
            }
        }
    }

    // MARK: Into the engine

    /// Fetches and sends on as much as there is room for, and ends the load when all is there.
    mutating func pump(_ slot: Int32) {
        let index = Int(slot)
        guard requests[index].state == .loading else { return }
        fetchOnward(slot)
        if device.isOn { promote(slot) } else { passOn(slot) }
        if requests[index].issued >= requests[index].end, requests[index].outstanding == 0 { finishLoad(slot) }
    }

    /// Sends what has arrived in node memory on into the engine's own memory, in chain order.
    private mutating func passOn(_ slot: Int32) {
        let index = Int(slot)
        let blocks = requests[index].blocks
        while requests[index].issued < min(requests[index].end, requests[index].fetched) {
            let first = requests[index].issued
            let fetched = min(requests[index].end, requests[index].fetched)
            let limit = min(fetched, first + Int32(truncatingIfNeeded: configuration.limits.sliceBlocks))
            var end = first
            while end < limit, known[blocks[Int(end)]].dram == .present { end += 1 }
            if end == first {
                // Nothing to send yet, unless it will never come.
                let block = blocks[Int(first)]
                if known[block].dram != .filling { cut(slot, at: first, cause: causeOfLoss(block, of: slot)) }
                break
            }
            var moves: [BlockMove] = []
            moves.reserveCapacity(Int(end - first))
            for position in first..<end {
                let block = blocks[Int(position)]
                moves.append(
                    BlockMove(
                        key: known[block].key, block: block, position: position, source: known[block].dramSlot,
                        destination: 0))
            }
            guard start(.load, from: .dram, to: .hbm, request: slot, moves) else {
                counters.loadsCutShort += 1
                cut(slot, at: first, cause: .late)
                break
            }
            // The leases are the transfer's from now on.
            for position in first..<end { requests[index].leases.remove(Int(position)) }
            requests[index].issued = end
            requests[index].outstanding += 1
        }
    }

    func causeOfLoss(_ block: BlockNumber, of slot: Int32) -> TokenClass {
        switch known[block].fate {
        case .corrupt: .corrupt
        case .lost, .evicted: .lostAfterLookUp
        default: requests[Int(slot)].storeIsAway ? .noTier : .late
        }
    }

    /// A transfer into the engine ended.
    mutating func loadArrived(_ transfer: Int, _ end: TransferEnd) {
        let moves = transfers[transfer].moves
        let slot = transfers[transfer].requestSlot
        let isWaiting = isCurrent(slot, transfers[transfer].generation) && requests[Int(slot)].state == .loading
        if end.outcome != .done, isWaiting, let first = moves.first { cut(slot, at: first.position, cause: .late) }
        for lost in end.lost {
            let move = moves[Int(lost.move)]
            if isWaiting { cut(slot, at: move.position, cause: lost.cause == .corrupt ? .corrupt : .late) }
            if lost.cause == .corrupt { distrustDRAM(move.block) }
        }
        for move in moves {
            // What is lent stays lent: the lease goes from the transfer back to its request.
            if isWaiting, requests[Int(slot)].isLease, end.outcome == .done, move.position < requests[Int(slot)].end {
                requests[Int(slot)].leases.insert(Int(move.position))
            } else {
                endDRAMRead(move.block)
            }
        }
        if isWaiting {
            requests[Int(slot)].outstanding -= 1
            pump(slot)
        }
    }

    /// The plan ends at `position`: what is behind it does not come.
    mutating func cut(_ slot: Int32, at position: Int32, cause: TokenClass) {
        guard position < requests[Int(slot)].end else { return }
        requests[Int(slot)].end = max(position, requests[Int(slot)].first)
        requests[Int(slot)].cutCause = cause
        releaseLeases(slot)
        releaseTaken(slot, from: Int(requests[Int(slot)].end))
    }

    /// Gives back the leases of blocks that will not be sent. A sent block's lease is its transfer's.
    mutating func releaseLeases(_ slot: Int32) {
        let index = Int(slot)
        let keep = requests[index].state == .loading || requests[index].isLease ? Int(requests[index].end) : 0
        for position in keep..<max(keep, requests[index].leases.count) {
            if requests[index].leases.remove(position) { endDRAMRead(requests[index].blocks[position]) }
        }
        requests[index].leases.truncate(to: keep)
    }

    /// The time of a load is over: the engine goes on with the leading run that has come.
    mutating func loadIsLate(_ slot: Int32) {
        guard requests[Int(slot)].state == .loading else { return }
        counters.loadsLate += 1
        var came = requests[Int(slot)].issued
        for transfer in transfers.indices where isIntoEngine(transfer, of: slot) {
            came = min(came, transfers[transfer].moves[0].position)
        }
        cut(slot, at: came, cause: .late)
        cancelTransfers(of: slot)
        finishLoad(slot)
    }

    private func isIntoEngine(_ transfer: Int, of slot: Int32) -> Bool {
        transfers[transfer].use == .move && transfers[transfer].to == .hbm && transfers[transfer].requestSlot == slot
            && transfers[transfer].generation == requests[Int(slot)].generation
    }

    /// Nobody waits for the request's loads any more.
    mutating func cancelTransfers(of slot: Int32) {
        for transfer in transfers.indices
        where transfers[transfer].use == .move && transfers[transfer].requestSlot == slot
            && transfers[transfer].generation == requests[Int(slot)].generation
            && (transfers[transfer].kind == .load || transfers[transfer].kind == .stage)
            && !transfers[transfer].isCancelled
        {
            // What others wait for, too, goes on.
            if transfers[transfer].to == .dram,
                transfers[transfer].moves.contains(where: { known[$0.block].flags.contains(.awaited) })
            {
                continue
            }
            if device.isOn, transfers[transfer].to == .hbm,
                transfers[transfer].moves.contains(where: { isSharedOnDevice($0, by: slot) })
            {
                continue
            }
            let number = TransferNumber(truncatingIfNeeded: transfer)
            guard number != endInHand else { continue }
            transfers[transfer].isCancelled = true
            emit(.cancel(transfer: number))
        }
    }

    private mutating func finishLoad(_ slot: Int32) {
        if device.isOn { cutWhatSpoiled(slot) }
        leaveLoading(slot)
        requests[Int(slot)].state = .ready
        releaseLeases(slot)
        if requests[Int(slot)].isLease { shrinkLoan(slot) }
        noteBrought(slot)
        let (number, end) = (requests[Int(slot)].number, requests[Int(slot)].end)
        if notes.isOn { notes.ended(number, end: end, cause: requests[Int(slot)].cutCause) }
        var ready = Ready(request: number, first: requests[Int(slot)].first, end: end)
        if device.isOn { ready.slots = placesOnDevice(requests[Int(slot)]) }
        emit(.ready(ready))
    }

    mutating func leaveLoading(_ slot: Int32) {
        guard requests[Int(slot)].state == .loading, let place = loading.firstIndex(of: slot) else { return }
        requests[Int(slot)].state = .ready
        loading.swapAt(place, loading.count - 1)
        loading.removeLast()
    }
}
