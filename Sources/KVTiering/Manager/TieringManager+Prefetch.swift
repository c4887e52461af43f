// What is brought up before it is asked for: for conversations about to go on, for what usually follows, for what many
// ask for, and for requests that wait. Predictions only use staging slots, so they push out nothing that a policy
// keeps; they give way to loads, end with their window, and every block of theirs is accounted for.

import KVModel

extension TieringManager {
    /// What prefetch gave and what it cost.
    public var prefetchSheet: PrefetchSheet { predictions.sheet }

    // MARK: What is learned

    /// A prompt was computed: its conversation runs, and its deepest full block is where the next turn begins.
    mutating func learnPath(_ slot: Int32) {
        guard predictions.isOn else { return }
        // A request is large and has lists in it: its members are read where they lie.
        let index = Int(slot)
        guard requests[index].session >= 0, requests[index].pieceOf == noRequest, predictions.follows(.session) else {
            return
        }
        let blocks = requests[index].blocks
        let grew = blocks.count > requests[index].chainCount
        let full =
            grew ? blocks.count : min(blocks.count, Int(requests[index].promptTokens) / configuration.blockTokens)
        let session = Int(predictions.slot(of: requests[index].session))
        predictions.sessions[session].state = .running
        predictions.sessions[session].lastBlock = full > 0 ? blocks[full - 1] : BlockRecord.noBlock
        if full > 0 { predictions.sessions[session].lastKey = known[blocks[full - 1]].key }
    }

    /// A turn ended: keep what is there, spill it in time, or come back with a prefetch.
    ///
    /// - Parameter resumesAfter: When somebody said that it goes on; zero when nobody did.
    mutating func turnEnded(_ slot: Int32, _ reason: StopReason, _ resumesAfter: Duration) {
        guard predictions.isOn else { return }
        let (number, blockCount) = (requests[Int(slot)].session, requests[Int(slot)].blocks.count)
        guard reason != .branchEnded else { return predictions.forget(session: number) }
        if predictions.follows(.successor) { followSuccessors(of: slot) }
        guard number >= 0, predictions.follows(.session), let sessionSlot = predictions.sessionSlots[number] else {
            return
        }
        let session = Int(sessionSlot)
        let turn = TurnClass(
            reason: reason, turn: requests[Int(slot)].turn, gapBefore: predictions.sessions[session].gap)
        let window = resumesAfter > .zero ? .told(resumesAfter) : predictions.predictor.window(turn)
        predictions.predictor.turnEnded(turn)
        predictions.sessions[session].turn = turn
        predictions.sessions[session].endedAt = now
        predictions.sessions[session].state = .waiting
        predictions.sessions[session].generation &+= 1
        guard let window, window.probability >= predictions.configuration?.probabilityMin ?? 1 else { return }
        predictions.sessions[session].window = window
        if configuration.hasStore, configuration.spill == .onEviction, window.opens > Self.longWait {
            spillEarly(requests[Int(slot)])
        }
        let due = now + Duration(seconds: max(0, window.opens - lead(blocks: blockCount)))
        _ = setDeadline(.session(sessionSlot, generation: predictions.sessions[session].generation), at: due)
    }

    /// Nothing goes on from here. The blocks that only this turn used lose their places, the deepest first: they go when a slot is
    /// needed, before any that a policy keeps. What other turns used, or somebody pinned, is not this one's to judge.
    mutating func dropBranch(_ slot: Int32) {
        for block in requests[Int(slot)].blocks[..<requests[Int(slot)].shown].reversed() {
            guard known[block].uses <= 1, !pins.contains(where: { $0.holds(block) }) else { return }
            if predictions.holdOf[block] != nil {
                endPrediction(block, known[block].dram == .filling ? .cancelled : .neverUsed)
            }
            if known[block].flags.contains(.keptInDRAM) { removeFromDRAMPolicy(block) }
            if known[block].flags.contains(.keptOnNVMe) { removeFromNVMePolicy(block) }
        }
    }

    /// Seconds after which node memory is better used for others than for a waiting conversation.
    static let longWait = 60.0

    private mutating func spillEarly(_ request: Request) {
        let first = request.blocks.firstIndex { known[$0].flash != .present && !known[$0].flags.contains(.promised) }
        guard let first else { return }
        let context = request.context(blockTokens: configuration.blockTokens, now: now)
        offer(request.blocks, context, from: first)
    }

    /// How long before it is needed a chain must set out. Seconds.
    private func lead(blocks: Int) -> Double {
        let rate =
            (predictions.configuration?.linkShare ?? 1) * max(predictions.bandwidth.flash, predictions.bandwidth.nvme)
        return rate > 0 ? 0.1 + 1.25 * Double(blocks * configuration.blockBytes) / rate : 0.1
    }

    // MARK: Conversations

    /// A conversation should go on soon: what node memory lost of it comes back.
    mutating func sessionIsDue(_ slot: Int32, _ generation: UInt32) {
        let index = Int(slot)
        guard predictions.sessions[index].generation == generation, predictions.sessions[index].state == .waiting else {
            return
        }
        let session = predictions.sessions[index]
        guard session.lastBlock != BlockRecord.noBlock, known[session.lastBlock].key == session.lastKey else { return }
        let closes = session.endedAt + Duration(seconds: session.window.closes)
        if !bringBack(session, until: closes), now < closes {
            // All of it is still here. Look again a few times before the window closes.
            let pause = max(1, (session.window.closes - session.window.opens) / 4)
            let next = now + Duration(seconds: pause)
            if next < closes { _ = setDeadline(.session(slot, generation: generation), at: next) }
        }
    }

    /// Brings up what node memory lost of a conversation.
    ///
    /// - Returns: Whether anything was started.
    private mutating func bringBack(_ session: Session, until closes: Instant) -> Bool {
        let last = known[session.lastBlock]
        let isWhole = last.dram == .present && last.flags.contains(.keptInDRAM)
        if isWhole, dramKeepsPrefixesWhole { return false }
        let path = chain(to: session.lastBlock)
        return bringUp(path, .session, probability: session.window.probability, until: closes)
    }

    /// The blocks from the root to a block.
    func chain(to block: BlockNumber) -> [BlockNumber] {
        var path: [BlockNumber] = []
        path.reserveCapacity(Int(known[block].depth) + 1)
        var block = block
        while block != BlockRecord.noBlock {
            path.append(block)
            block = known[block].parent
        }
        path.reverse()
        return path
    }

    // MARK: Successors and popularity

    /// What usually follows the path: child after child while more than the configured share of users went there.
    private mutating func followSuccessors(of slot: Int32) {
        guard var block = requests[Int(slot)].blocks.last, let least = predictions.configuration?.probabilityMin else {
            return
        }
        var path: [BlockNumber] = []
        var probability = 1.0
        while path.count < configuration.limits.sliceBlocks {
            let child = known[block].lastChild
            guard child != BlockRecord.noBlock, known[child].parent == block, known[block].uses >= 4 else { break }
            probability *= min(1, Double(known[child].uses) / Double(known[block].uses))
            guard probability >= least else { break }
            path.append(child)
            block = child
        }
        guard !path.isEmpty else { return }
        _ = bringUp(path, .successor, probability: probability, until: now + Self.successorWindow)
    }

    /// How long what usually follows is waited for.
    static let successorWindow = Duration(milliseconds: 60_000)

    /// Blocks that many asked for and that left node memory come back while nobody loads.
    mutating func followPredictions() {
        guard predictions.follows(.popularity), loading.isEmpty, let block = predictions.popular.popLast() else {
            return
        }
        guard known[block].flags.contains(.named), known[block].dram == .absent else { return }
        // A rate of uses since the start; x / (1 + x) bounds the chance of a use within the window from below.
        let expected = Double(known[block].uses) * Self.popularWindow.seconds / max(1, now.seconds)
        let probability = expected / (1 + expected)
        guard probability >= predictions.configuration?.probabilityMin ?? 1 else { return }
        _ = bringUp([block], .popularity, probability: probability, until: now + Self.popularWindow)
    }

    /// How long popular blocks are held for.
    static let popularWindow = Duration(milliseconds: 60_000)
    /// Uses from which on a block is popular.
    static let popularUses = 16

    /// A block leaves node memory: remember it if many asked for it.
    mutating func notePopular(_ block: BlockNumber) {
        guard predictions.follows(.popularity), known[block].uses >= Self.popularUses,
            predictions.popular.count < Predictions.popularMax, known[block].flash == .present
        else { return }
        predictions.popular.append(block)
    }

    // MARK: Budgets and leases

    /// Brings up what is missing of a path, root first, as far as the budgets allow, and holds it until `closes`.
    ///
    /// - Returns: Whether anything was started.
    private mutating func bringUp(
        _ path: [BlockNumber], _ reason: PrefetchReason, probability: Double, until closes: Instant
    ) -> Bool {
        guard let plan = predictions.configuration, now < closes else { return false }
        var fetch = Fetch(kind: .prefetch, request: -1)
        fetch.reason = reason
        var hold: Int32 = -1
        let keepingFree = stagingCount / 4
        for block in path {
            if known[block].dram != .absent || device.expects(block) { continue }
            // What the store said last is good enough for a guess, however long ago: a wrong one costs a failed read.
            guard known[block].nvme == .present || known[block].flash == .present else { break }
            let tier = known[block].nvme == .present ? Tier.nvme : .flash
            guard predictions.heldCount < predictions.slotsMax,
                (predictions.inFlightCount + 1) * configuration.blockBytes <= plan.bytesInFlightMax,
                predictions.take(configuration.blockBytes, from: tier, at: now)
            else { break }
            if hold < 0 {
                guard let opened = openHold(reason, probability, until: closes) else { return false }
                hold = opened
            }
            guard bring(block, at: known[block].depth, keepingFree: keepingFree, &fetch) == .here else { break }
            known[block].flags.insert(.predicted)
            known[block].dramReaders += 1
            predictions.holdOf[block] = hold
            predictions.holds[Int(hold)].blocks.append(block)
            predictions.sheet[reason].started += 1
        }
        flush(&fetch)
        return hold >= 0
    }

    private mutating func openHold(_ reason: PrefetchReason, _ probability: Double, until closes: Instant) -> Int32? {
        let hold: Int32
        if let free = predictions.freeHolds.last {
            hold = free
        } else {
            guard predictions.holds.count < configuration.limits.transfersMax else { return nil }
            predictions.holds.append(Hold())
            hold = Int32(truncatingIfNeeded: predictions.holds.count - 1)
            predictions.freeHolds.append(hold)
        }
        let generation = predictions.holds[Int(hold)].generation &+ 1
        guard setDeadline(.hold(hold, generation: generation), at: closes) else { return nil }
        predictions.freeHolds.removeLast()
        predictions.holds[Int(hold)] = Hold(
            isOpen: true, reason: reason, probability: probability, generation: generation, blocks: [])
        return hold
    }

    mutating func holdExpired(_ hold: Int32, _ generation: UInt32) {
        guard predictions.holds[Int(hold)].isOpen, predictions.holds[Int(hold)].generation == generation else { return }
        closeHold(hold)
    }

    /// Gives up a prediction: what nobody used was brought up in vain, what is on its way is stopped.
    private mutating func closeHold(_ hold: Int32) {
        cancelPrefetches(of: hold)
        let blocks = predictions.holds[Int(hold)].blocks
        for block in blocks where predictions.holdOf[block] == hold {
            endPrediction(block, known[block].dram == .filling ? .cancelled : .neverUsed)
        }
        predictions.holds[Int(hold)].isOpen = false
        predictions.holds[Int(hold)].blocks = []
        predictions.freeHolds.append(hold)
    }

    /// Stops the transfers of a prediction, but for those whose blocks a request waits for by now.
    private mutating func cancelPrefetches(of hold: Int32) {
        for index in transfers.indices where transfers[index].use == .move && transfers[index].kind == .prefetch {
            guard !transfers[index].isCancelled else { continue }
            let moves = transfers[index].moves
            var isHolds = false
            var isAwaited = false
            for move in moves {
                if predictions.holdOf[move.block] == hold { isHolds = true }
                if known[move.block].flags.contains(.awaited) { isAwaited = true }
            }
            guard isHolds, !isAwaited else { continue }
            transfers[index].isCancelled = true
            emit(.cancel(transfer: TransferNumber(truncatingIfNeeded: index)))
        }
    }

    /// The least likely prediction gives its slots to a request in need.
    ///
    /// - Returns: `false` when there is none left.
    mutating func yieldPrediction() -> Bool {
        var least: Int32 = -1
        for (index, hold) in predictions.holds.enumerated() where hold.isOpen {
            if least < 0 || hold.probability < predictions.holds[Int(least)].probability {
                least = Int32(truncatingIfNeeded: index)
            }
        }
        guard least >= 0 else { return false }
        closeHold(least)
        return true
    }

    /// How a prediction about a block ended.
    enum PredictionEnd { case used, late, neverUsed, cancelled, failed }

    /// A block is no prediction any more; its lease ends.
    mutating func endPrediction(_ block: BlockNumber, _ end: PredictionEnd) {
        guard let hold = predictions.holdOf.removeValue(forKey: block) else { return }
        known[block].flags.remove(.predicted)
        let reason = predictions.holds[Int(hold)].reason
        switch end {
        case .used: predictions.sheet[reason].used += 1
        case .late: predictions.sheet[reason].late += 1
        case .neverUsed: predictions.sheet[reason].neverUsed += 1
        case .cancelled: predictions.sheet[reason].cancelled += 1
        case .failed: predictions.sheet[reason].failed += 1
        }
        endDRAMRead(block)
    }

    /// A request takes a block: a prediction came true, in time or not.
    @inline(__always)
    mutating func markUsed(_ block: BlockNumber) {
        if known[block].flags.contains(.predicted) {
            endPrediction(block, known[block].dram == .present ? .used : .late)
        }
    }

    // MARK: Requests that wait

    /// Brings up what a request that has arrived will load, while it waits.
    mutating func stageQueued(_ slot: Int32) {
        guard let plan = predictions.configuration else { return }
        let blocks = requests[Int(slot)].blocks
        var fetch = Fetch(kind: .stage, request: slot)
        let keepingFree = stagingCount / 4
        var position = requests[Int(slot)].engineBlocks
        if let first = scratchRuns.first, first.tier == .dram { position = first.end }
        while position < requests[Int(slot)].foundOnArrival {
            let block = blocks[Int(position)]
            if known[block].dram == .absent, !device.expects(block) {
                guard (predictions.inFlightCount + 1) * configuration.blockBytes <= plan.bytesInFlightMax,
                    bring(block, at: position, keepingFree: keepingFree, &fetch) == .here
                else { break }
                predictions.sheet[.queue].started += 1
                known[block].dramReaders += 1
                requests[Int(slot)].staged.append(block)
            }
            position += 1
        }
        flush(&fetch)
    }

    /// The wait of a request is over, one way or the other: its staged blocks lose their leases and are accounted for.
    ///
    /// - Parameter piece: A load that brings a piece of it: those that it does not take go on waiting for another.
    mutating func releaseStaged(_ slot: Int32, wantedBy piece: Int32? = nil) {
        guard !requests[Int(slot)].staged.isEmpty else { return }
        var staged = requests[Int(slot)].staged
        requests[Int(slot)].staged = []
        let load = requests[Int(piece ?? slot)]
        for block in staged {
            let position = known[block].depth
            let isTaken = load.state == .loading && position >= load.first && position < load.end
            if piece != nil, !isTaken {
                requests[Int(slot)].staged.append(block)
                continue
            }
            switch known[block].dram {
            case .present where isTaken: predictions.sheet[.queue].used += 1
            case .filling where isTaken: predictions.sheet[.queue].late += 1
            case .present, .filling: predictions.sheet[.queue].neverUsed += 1
            case .absent, .spoiled: predictions.sheet[.queue].failed += 1
            }
            endDRAMRead(block)
        }
        guard requests[Int(slot)].staged.isEmpty else { return }
        staged.removeAll(keepingCapacity: true)
        requests[Int(slot)].staged = staged
    }
}
