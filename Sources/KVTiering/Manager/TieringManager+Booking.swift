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
        let wasLoaded = isLoaded && !isInPieces
        let reach: Reach
        if wasLoaded {
            reach = Reach(ofLoad: request)
        } else {
            // What was found and not asked for the engine had a better way to.
            let offered = isInPieces || isDeclined ? request.foundOnArrival : 0
            reach = Reach(engineBlocks: request.engineBlocks, brought: request.brought, offered: offered)
        }

        if isInPieces {
            bookBrought(request)
        } else {
            book(blocks: 0..<request.engineBlocks, of: request, as: .hbm)
        }
        if wasLoaded { bookLoaded(request) }
        bookNotLoaded(request, reach)
        bookNotFound(request, reach, knownBlocks: knownBlocks)
        bookRest(request)
        ledger.close(tokens: Int(request.promptTokens))
        if notes.isOn, !wasLoaded, !isInPieces { noteMiss(slot) }
    }

    /// How far into a prompt its answers came, in leading blocks.
    private struct Reach {
        /// Behind the last block that was served.
        let end: Int32
        /// Behind the last block that was to be served; at least `end`.
        let planned: Int32
        /// Behind the last block that was found.
        let found: Int32

        init(ofLoad request: Request) {
            end = request.end
            planned = max(request.end, request.planned)
            found = request.found
        }

        /// Of a prompt that the engine had in part, or brought in pieces, while it could have had `offered` blocks.
        init(engineBlocks: Int32, brought: BroughtBlocks, offered: Int32) {
            end = brought.isEmpty ? engineBlocks : brought.end
            planned = end
            found = max(end, offered)
        }
    }

    /// What a load brought, by the tiers that it came from.
    private mutating func bookLoaded(_ request: Request) {
        // The front that the engine computed while the back was loaded.
        book(blocks: request.engineBlocks..<request.first, of: request, as: .recomputeCheaper)
        var position = request.first
        for run in request.sources where position < request.end {
            let runEnd = min(run.end, request.end)
            if runEnd > position {
                book(blocks: position..<runEnd, of: request, as: tokenClass(of: run.tier))
                if run.tier > .dram { countBelow(request.blocks[Int(position)..<Int(runEnd)]) }
                position = runEnd
            }
        }
    }

    /// What was found and not loaded: the plan was cut short, or computing was cheaper.
    private mutating func bookNotLoaded(_ request: Request, _ reach: Reach) {
        let cut = max(reach.end, min(reach.planned, request.chainCount))
        book(blocks: reach.end..<cut, of: request, as: request.cutCause)
        book(blocks: reach.planned..<max(reach.planned, reach.found), of: request, as: .recomputeCheaper)
    }

    /// What was not found, each block with its own cause.
    private mutating func bookNotFound(_ request: Request, _ reach: Reach, knownBlocks: Int32) {
        let count = request.chainCount
        let named = Int32(truncatingIfNeeded: request.blocks.count)
        let knowsAll = knownBlocks < 0
        // Behind the last block that was computed before. Without an oracle the node's own memory of the moment of arrival
        // decides that: by now the prompt's own blocks may have been saved.
        let computed =
            knowsAll ? min(count, max(request.metBlocks, request.foundOnArrival, reach.found)) : knownBlocks
        let gapCause =
            reach.found < named
            ? cause(of: request.blocks[Int(reach.found)], of: request, knowsAll: knowsAll) : .firstSeen

        let start = max(reach.planned, reach.found)
        let lost = min(max(start, request.foundOnArrival), max(start, computed))
        book(blocks: start..<lost, of: request, as: .lostAfterLookUp)
        var position = lost
        while position < min(count, named) {
            let block = request.blocks[Int(position)]
            let tokenClass: TokenClass
            if position >= computed {
                tokenClass = .firstSeen
            } else if isAnywhere(block) {
                // It is here, but its prefix was not.
                tokenClass = gapCause
            } else {
                tokenClass = cause(of: block, of: request, knowsAll: knowsAll)
            }
            if tokenClass == .evicted { noteDisplacement(block) }
            book(blocks: position..<position + 1, of: request, as: tokenClass)
            position += 1
        }
        guard position < count else { return }
        // All numbers of blocks were in use, so the node could not keep the rest.
        let refused = max(position, min(count, computed))
        book(blocks: position..<refused, of: request, as: .refused)
        book(blocks: refused..<count, of: request, as: .firstSeen)
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
