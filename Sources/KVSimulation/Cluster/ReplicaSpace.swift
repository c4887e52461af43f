// The KV memory of one replica as its batching engine asks for it: a request's blocks are taken, filled, grown and given back.
// Which blocks are cached, and which go first, is `PrefixCache`'s matter.

import KVModel
import KVServing

/// The KV memory of one replica, as its batching engine asks for it.
struct ReplicaSpace: KVSpace {
    var cache: PrefixCache
    private let table: RequestTable
    private let blockTokens: Int
    /// Without prefix caching no block is shared or kept.
    private let sharesPrefixes: Bool
    /// Engine-owned: the engine's own host tier, as its LRU keeps it; without readers, all of it is cache.
    private var hostRegion: PrefixCache?
    /// Tokens of requests that wait in the engine's queue and need no computing.
    var cachedWaiting = 0

    init(cache: PrefixCache, table: RequestTable, sharesPrefixes: Bool, hostBlocks: Int) {
        self.cache = cache
        hostRegion = hostBlocks > 0 ? PrefixCache(capacity: hostBlocks) : nil
        self.table = table
        self.sharesPrefixes = sharesPrefixes
        blockTokens = table.workload.blockTokens
    }

    /// How many blocks of the path are named, and so can be shared.
    func pathCount(_ request: Int) -> Int {
        sharesPrefixes ? Int(table.workload.requests[request].blockCount) : 0
    }

    /// Takes the blocks of a request of `tokens` tokens in all; returns the leading blocks that were filled, or nil when
    /// there is no room, and then nothing has changed. `spare` blocks must stay to be had.
    mutating func reserve(_ request: Int, tokens: Int, spare: Int) -> Int? {
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        let path = blocks.span.extracting(start..<start + pathCount(request))
        let privateBlocks = max(0, (tokens - path.count * blockTokens + blockTokens - 1) / blockTokens)
        let needed = path.count - cache.readRun(path) + privateBlocks
        if needed + spare > cache.available { return nil }
        let filled = cache.filledRun(path)
        cache.acquire(path)
        cache.changePrivate(by: privateBlocks)
        table.states[request].privateBlocks = Int32(privateBlocks)
        table.states[request].isReserved = true
        return filled
    }

    /// The KV of these blocks has been loaded. Without shared blocks none of them is named: they are private.
    mutating func fill(_ request: Int, _ range: Range<Int>) {
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        let path = blocks.span.extracting(start..<start + pathCount(request))
        cache.fill(path, range.clamped(to: 0..<path.count))
    }

    /// All KV of a request has come back from host memory.
    mutating func fillAll(_ request: Int) { fill(request, 0..<pathCount(request)) }

    /// How many leading blocks of a request's path are filled, of those that may be.
    func filledRun(_ request: Int, within reach: Int = .max) -> Int {
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        return cache.filledRun(blocks.span.extracting(start..<start + min(reach, pathCount(request))))
    }

    /// Whether more than `length` leading blocks of a request's path are filled: those that are lead, so one look tells.
    func holds(moreThan length: Int, of request: Int) -> Bool {
        guard length < pathCount(request) else { return false }
        return cache.isFilled(table.workload.blocks[table.workload.requests[request].firstReference + length])
    }

    /// How many leading blocks of a request's path are in the engine's host region.
    func hostRun(_ request: Int) -> Int {
        guard let hostRegion else { return 0 }
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        return hostRegion.filledRun(blocks.span.extracting(start..<start + pathCount(request)))
    }

    /// How many leading blocks the engine has in memories of its own.
    func ownRun(_ request: Int) -> Int { max(filledRun(request), hostRun(request)) }

    /// The engine writes what it computed to its host region as well.
    mutating func keepInHostRegion(_ request: Int) {
        guard hostRegion != nil else { return }
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        let count = min(pathCount(request), hostRegion?.capacity ?? 0)
        let path = blocks.span.extracting(start..<start + count)
        hostRegion?.acquire(path)
        hostRegion?.fillLeading(path, count)
        hostRegion?.release(path)
    }

    mutating func admit(_ number: UInt32, tokens: Int, newTokens: Int) -> Int? {
        let request = Int(number)
        if table.states[request].isReserved {
            cachedWaiting -= Int(table.states[request].cachedTokens)
            return Int(table.states[request].cachedTokens)
        }
        // A preempted request comes back on its own; what is left of it in HBM is hit again.
        guard let filled = reserve(request, tokens: tokens, spare: 0) else { return nil }
        return min(filled * blockTokens, tokens - 1)
    }

    mutating func grow(_ number: UInt32, tokens: Int) -> Int? {
        let request = Int(number)
        let path = pathCount(request)
        let wanted = max(0, (tokens - path * blockTokens + blockTokens - 1) / blockTokens)
        let more = wanted - Int(table.states[request].privateBlocks)
        if more > 0 {
            if more > cache.available { return nil }
            cache.changePrivate(by: more)
            table.states[request].privateBlocks += Int32(more)
        }
        return (path + Int(table.states[request].privateBlocks)) * blockTokens
    }

    mutating func computed(_ number: UInt32, tokens: Int) {
        let request = Int(number)
        let path = pathCount(request)
        // A partial last block is complete with the prompt.
        let isWhole = tokens >= Int(table.workload.requests[request].inputTokens)
        let filled = isWhole ? path : min(path, tokens / blockTokens)
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        cache.fillLeading(blocks.span.extracting(start..<start + path), filled)
    }

    mutating func release(_ number: UInt32, tokens: Int, preempted: Bool) {
        let request = Int(number)
        let blocks = table.workload.blocks
        let start = table.workload.requests[request].firstReference
        cache.release(blocks.span.extracting(start..<start + pathCount(request)))
        cache.changePrivate(by: -Int(table.states[request].privateBlocks))
        table.states[request].privateBlocks = 0
        table.states[request].isReserved = false
    }
}
