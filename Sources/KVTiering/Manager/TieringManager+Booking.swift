// Every token of a computed prompt goes into exactly one class of the ledger.

import KVModel

extension TieringManager {
    /// Books a prompt.
    ///
    /// - Parameters:
    ///   - knownBlocks: Leading blocks computed before anywhere, or −1 when nobody knows.
    ///   - said: Leading blocks that the engine says it had itself, or −1 when it says nothing. Of a prompt without a load.
    mutating func book(_ slot: Int32, knownBlocks: Int32, engineBlocks said: Int32) {
        lastBooked.removeAll(keepingCapacity: true)
        let isInPieces = !requests[Int(slot)].brought.isEmpty
        if isInPieces { noteOwnLoad(slot) }
        let isLoaded = requests[Int(slot)].state == .loading || requests[Int(slot)].state == .ready
        let isDeclined = !isInPieces && !isLoaded && said >= 0
        if isDeclined {
            let had = min(said, requests[Int(slot)].chainCount)
            requests[Int(slot)].engineBlocks = max(requests[Int(slot)].engineBlocks, had)
        }
        let request = requests[Int(slot)]
        let promptTokens = Int(request.promptTokens)
        let count = request.chainCount
        let named = Int32(truncatingIfNeeded: request.blocks.count)
        let wasLoaded = isLoaded && !isInPieces
        let brought = isInPieces ? request.brought.end : request.engineBlocks
        // What was found and not asked for the engine had a better way to.
        let offered = isInPieces || isDeclined ? request.foundOnArrival : 0
        let found = wasLoaded ? request.found : max(brought, offered)
        let end = wasLoaded ? request.end : brought
        let first = wasLoaded ? request.first : request.engineBlocks
        let planned = max(end, wasLoaded ? request.planned : end)
        // Without an oracle the node's own memory of the moment of arrival decides what was computed before: by now the
        // prompt's own blocks may have been saved.
        let isKnown = knownBlocks >= 0 ? knownBlocks : min(count, max(request.metBlocks, request.foundOnArrival, found))
        let gapCause =
            found < named ? cause(of: request.blocks[Int(found)], of: request, knowsAll: knownBlocks < 0) : .firstSeen

        if isInPieces { bookBrought(request) }
        book(blocks: 0..<(isInPieces ? 0 : request.engineBlocks), of: request, as: .hbm)
        // The front that the engine computed while the back was loaded.
        book(blocks: request.engineBlocks..<first, of: request, as: .recomputeCheaper)
        var position = first
        for run in request.sources where wasLoaded && position < end {
            let runEnd = min(run.end, end)
            if runEnd > position {
                book(blocks: position..<runEnd, of: request, as: tokenClass(of: run.tier))
                if run.tier > .dram { countBelow(request.blocks[Int(position)..<Int(runEnd)]) }
                position = runEnd
            }
        }
        book(blocks: end..<max(end, min(planned, count)), of: request, as: request.cutCause)
        book(blocks: max(end, planned)..<max(end, planned, found), of: request, as: .recomputeCheaper)
        position = max(end, planned, found)
        let lost = min(max(position, request.foundOnArrival), max(position, isKnown))
        book(blocks: position..<lost, of: request, as: .lostAfterLookUp)
        position = lost
        while position < count {
            guard position < named else {
                // All numbers of blocks were in use, so the node could not keep it.
                book(blocks: position..<max(position, min(count, isKnown)), of: request, as: .refused)
                book(blocks: max(position, min(count, isKnown))..<count, of: request, as: .firstSeen)
                break
            }
            let block = request.blocks[Int(position)]
            let tokenClass: TokenClass
            if position >= isKnown {
                tokenClass = .firstSeen
            } else if isAnywhere(block) {
                // It is here, but its prefix was not.
                tokenClass = gapCause
            } else {
                tokenClass = cause(of: block, of: request, knowsAll: knownBlocks < 0)
            }
            if tokenClass == .evicted { noteDisplacement(block) }
            book(blocks: position..<position + 1, of: request, as: tokenClass)
            position += 1
        }
        bookRest(request)
        ledger.close(tokens: promptTokens)
        if notes.isOn, !wasLoaded, !isInPieces { noteMiss(slot) }
    }

    /// Tokens behind the last block, and the last token of a prompt that was served whole.
    private mutating func bookRest(_ request: Request) {
        let promptTokens = Int(request.promptTokens)
        let covered = min(Int(request.chainCount) * configuration.blockTokens, promptTokens)
        append(.alwaysComputed, tokens: promptTokens - covered)
        if covered == promptTokens, let last = lastBooked.indices.last, lastBooked[last].tokenClass.isServed {
            lastBooked[last].tokens -= 1
            append(.alwaysComputed, tokens: 1)
            if lastBooked[last].tokens == 0 { lastBooked.remove(at: last) }
        }
        for run in lastBooked { ledger.book(Int(run.tokens), as: run.tokenClass) }
    }

    mutating func book(blocks: Range<Int32>, of request: Request, as tokenClass: TokenClass) {
        let size = configuration.blockTokens
        let promptTokens = Int(request.promptTokens)
        let tokens = min(Int(blocks.upperBound) * size, promptTokens) - min(Int(blocks.lowerBound) * size, promptTokens)
        append(tokenClass, tokens: tokens)
    }

    private mutating func append(_ tokenClass: TokenClass, tokens: Int) {
        guard tokens > 0 else { return }
        let count = Int32(truncatingIfNeeded: tokens)
        guard let last = lastBooked.last else {
            lastBooked.append(BookedRun(tokenClass: tokenClass, firstToken: 0, tokens: count))
            return
        }
        if last.tokenClass == tokenClass {
            lastBooked[lastBooked.count - 1].tokens += count
        } else {
            let start = last.firstToken + last.tokens
            lastBooked.append(BookedRun(tokenClass: tokenClass, firstToken: start, tokens: count))
        }
    }

    func tokenClass(of tier: Tier) -> TokenClass {
        switch tier {
        case .hbm: .hbm
        case .dram: .dram
        case .nvme: .nvme
        case .flash: .flash
        }
    }

    /// Why a block that had been computed before was not found.
    private func cause(of block: BlockNumber, of request: Request, knowsAll: Bool) -> TokenClass {
        let record = known[block]
        if configuration.dram == nil { return knowsAll && record.fate == .none ? .firstSeen : .noTier }
        if record.dram == .filling { return .late }
        switch record.fate {
        case .evicted: return .evicted
        case .refused: return .refused
        case .lost: return .lostAfterLookUp
        case .corrupt: return .corrupt
        case .quota: return .quota
        case .noTier: return .noTier
        case .none: break
        }
        // The store was away, or did not say in time.
        if configuration.hasStore, record.flash == .unknown, record.uses > 0 {
            return request.storeIsAway ? .noTier : .late
        }
        if knowsAll { return record.uses == 0 ? .firstSeen : .late }
        return .heldElsewhere
    }

    /// Loads from below node memory are what perfect prefetch would have spared.
    mutating func countBelow(_ blocks: ArraySlice<BlockNumber>) {
        guard predictions.isOn else { return }
        predictions.sheet.missedBlocks += blocks.count
        for block in blocks { noteDisplacement(block) }
    }

    /// Had predictions left their slots to evicted blocks, the last as many evictions would still be here.
    private mutating func noteDisplacement(_ block: BlockNumber) {
        guard predictions.heldCount > 0, known[block].evictionOrdinal > 0 else { return }
        let since = known[block].evictionsSince(counters.dramEvictions)
        if since < predictions.heldCount { predictions.sheet.displacedBlocks += 1 }
    }
}
