// The cache-only replay: exact, without time or GPU. Requests come in file order, each is looked up on the state
// before it, and all its blocks are available right after it. Two programs that follow these rules agree to the
// block, so every ceiling and baseline of a report comes from here. How long anything takes is answered elsewhere.

import KVModel
import KVTiering
import KVTrace

/// A trace made ready for any number of cache-only replays over the same arrays.
public struct CacheOnlyReplay {
    /// What is replayed.
    public let trace: Trace
    private let turnEnds: [TurnEnd]
    /// Found when the clairvoyant ceiling is first asked for, and used for all its capacities.
    private var nextUses: NextUses?

    /// The end of a turn that the trace tells: `arrival + serviceTime`.
    private struct TurnEnd {
        let time: Instant
        let request: Int
        let reason: StopReason
    }

    /// Prepares a trace. It must say which prompts share prefixes, and have at least one request.
    public init(_ trace: Trace) throws(OperatorError) {
        guard !trace.requests.isEmpty else { throw OperatorError("the trace has no requests", at: trace.name) }
        guard trace.namesPrefixes else {
            throw OperatorError(
                "\(trace.format == .azure ? "an Azure trace" : "it") has arrivals and lengths only and does not say which "
                    + "prompts share a prefix, so no cache hit can be counted", at: trace.name,
                remedy: "give a trace with block hashes")
        }
        self.init(identified: trace)
    }

    /// Prepares a trace whose requests are known to say which of them share prefixes, however few of them are left.
    init(identified trace: Trace) {
        self.trace = trace
        turnEnds = Self.turnEnds(of: trace)
    }

    /// Turns that end, in the order of their ends and, at the same time, of the file.
    private static func turnEnds(of trace: Trace) -> [TurnEnd] {
        var ends: [TurnEnd] = []
        for (index, request) in trace.requests.enumerated() {
            guard let serviceTime = request.serviceTime, serviceTime > .zero else { continue }
            ends.append(TurnEnd(time: request.arrival + serviceTime, request: index, reason: request.stopReason))
        }
        ends.sort { ($0.time, $0.request) < ($1.time, $1.request) }
        return ends
    }

    /// Replays the trace through one named policy. `capacity` is in blocks, at least 1, and means nothing to the
    /// infinite cache.
    public mutating func run(_ name: PolicyName, capacity: Int) -> CacheOnlyResult {
        guard var policy = name.makePolicy(capacity: capacity) else { return runClairvoyant(capacity: capacity) }
        var result = run(&policy)
        result.policy = name.rawValue
        result.capacityBlocks = name == .infinite ? nil : capacity
        return result
    }

    /// Replays the trace through any policy. `onRequest` is told each request's number and its hit blocks, before
    /// the policy sees its access.
    public func run(
        _ policy: inout some TierPolicy, onRequest: (_ request: Int, _ hitBlocks: Int) -> Void = { _, _ in }
    ) -> CacheOnlyResult {
        var result = CacheOnlyResult(capacityBlocks: policy.capacity)
        var evicted: [BlockNumber] = []
        var nextEnd = 0
        let blocks = trace.blocks.span
        for (index, request) in trace.requests.enumerated() {
            while nextEnd < turnEnds.count, turnEnds[nextEnd].time <= request.arrival {
                let end = turnEnds[nextEnd]
                policy.turnEnded(request: UInt32(end.request), reason: end.reason, at: end.time)
                nextEnd += 1
            }
            let path = blocks.extracting(request.references)
            let hitBlocks = policy.hitRun(path)
            onRequest(index, hitBlocks)
            result.count(request, hitBlocks: hitBlocks, blockTokens: trace.blockTokens)
            let context = RequestContext(
                request: UInt32(index), session: request.session, turn: request.turn,
                lastBlockIsPartial: Int(request.inputTokens) < path.count * trace.blockTokens, now: request.arrival)
            policy.access(path, context, evicted: &evicted)
            result.evictedBlocks += evicted.count
            evicted.removeAll(keepingCapacity: true)
        }
        return result
    }

    /// Replays the trace through the cache that knows the future.
    public mutating func runClairvoyant(capacity: Int) -> CacheOnlyResult {
        let nextUses = self.nextUses ?? findNextUses()
        self.nextUses = nextUses
        var cache = ClairvoyantCache(
            capacity: capacity, requestCount: trace.requests.count, uniqueBlockCount: trace.uniqueBlockCount)
        var result = CacheOnlyResult(policy: PolicyName.clairvoyant.rawValue, capacityBlocks: capacity)
        let blocks = trace.blocks.span
        let uses = nextUses.requests.span
        for (index, request) in trace.requests.enumerated() {
            let path = blocks.extracting(request.references)
            result.count(request, hitBlocks: cache.hitRun(path), blockTokens: trace.blockTokens)
            cache.access(request: index, path, nextUses: uses.extracting(request.references))
        }
        return result
    }

    private func findNextUses() -> NextUses {
        NextUses(
            blocks: trace.blocks, pathEnds: trace.requests.map(\.references.upperBound),
            uniqueBlockCount: trace.uniqueBlockCount)
    }

    /// Replays the trace through DRAM over flash. Capacities are in blocks, at least 1.
    public func runTwoTiers(dram: Int, flash: Int, inclusion: Inclusion) -> TwoTierResult {
        var tiers = TwoTierLRU(dramCapacity: dram, flashCapacity: flash, inclusion: inclusion)
        var result = TwoTierResult(inclusion: inclusion, dramBlocks: dram, flashBlocks: flash)
        let blocks = trace.blocks.span
        for request in trace.requests {
            let path = blocks.extracting(request.references)
            let run = tiers.hitRun(path)
            result.dramHitBlocks += run.dram
            result.flashHitBlocks += run.flash
            result.hits.count(request, hitBlocks: run.dram + run.flash, blockTokens: trace.blockTokens)
            tiers.access(path)
        }
        result.flashWrites = tiers.flashWrites
        result.flashReads = tiers.flashReads
        return result
    }
}

extension TraceRequest {
    /// Where the request's path lies in `Trace.blocks`.
    fileprivate var references: Range<Int> { firstReference..<firstReference + Int(blockCount) }
}

/// What one policy of one capacity hit.
public struct CacheOnlyResult: Sendable, Equatable {
    /// The policy's name; empty where the caller brought its own.
    public var policy = ""
    /// Its capacity; `nil` for the infinite cache.
    public var capacityBlocks: Int?
    /// Blocks of the leading runs found, over all requests.
    public var hitBlocks = 0
    /// Prompt tokens of these blocks; a partial last block counts its real tokens.
    public var hitTokens = 0
    /// Prompt tokens of all requests, those without a full block included.
    public var inputTokens = 0
    /// Blocks that were evicted. The ceilings, which refuse instead, count none.
    public var evictedBlocks = 0

    /// A result of a policy to which nothing has been counted.
    public init(policy: String = "", capacityBlocks: Int? = nil) {
        self.policy = policy
        self.capacityBlocks = capacityBlocks
    }

    /// Hit tokens ÷ input tokens.
    public var hitRatio: Double { inputTokens == 0 ? 0 : Double(hitTokens) / Double(inputTokens) }

    /// Counts one request's hit.
    mutating func count(_ request: TraceRequest, hitBlocks: Int, blockTokens: Int) {
        self.hitBlocks += hitBlocks
        hitTokens += min(blockTokens * hitBlocks, Int(request.inputTokens))
        inputTokens += Int(request.inputTokens)
    }
}

/// What DRAM over flash hit, and what that cost the flash.
public struct TwoTierResult: Sendable, Equatable {
    /// How the tiers share blocks.
    public var inclusion: Inclusion
    /// Blocks DRAM can hold.
    public var dramBlocks: Int
    /// Blocks flash can hold.
    public var flashBlocks: Int
    /// Hits of both tiers together.
    public var hits: CacheOnlyResult
    /// Hit blocks that were in DRAM.
    public var dramHitBlocks = 0
    /// Hit blocks that were in flash only.
    public var flashHitBlocks = 0
    /// Blocks written to flash.
    public var flashWrites = 0
    /// Blocks read from flash, those behind the first gap of a path included.
    public var flashReads = 0

    /// A result of two tiers to which nothing has been counted.
    init(inclusion: Inclusion, dramBlocks: Int, flashBlocks: Int) {
        self.inclusion = inclusion
        self.dramBlocks = dramBlocks
        self.flashBlocks = flashBlocks
        hits = CacheOnlyResult(policy: PolicyName.lru.rawValue, capacityBlocks: dramBlocks + flashBlocks)
    }
}
