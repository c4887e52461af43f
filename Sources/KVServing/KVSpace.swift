// Who gives a replica room for KV. The replica knows no tiers and no prefixes: it asks.

/// A request's number in its owner's arrays: 0, 1, 2, …
public typealias RequestNumber = UInt32

/// The GPU memory of a replica, as its batching sees it. Blocks, sharing and eviction are the owner's.
public protocol KVSpace {
    /// A waiting request wants to start. Returns how many of its first tokens need no computing, and holds those and
    /// room for min(`newTokens`, `tokens` − cached) more; nil if there is no room now, and nothing has changed.
    ///
    /// `tokens` is the prompt, and after a preemption also the tokens that the request had produced.
    mutating func admit(_ request: RequestNumber, tokens: Int, newTokens: Int) -> Int?

    /// Makes room for `tokens` tokens of a running request in all. Returns the tokens that it has room for now, at least
    /// as many; nil if there is no room, and nothing has changed.
    mutating func grow(_ request: RequestNumber, tokens: Int) -> Int?

    /// A prefill chunk ended: the first `tokens` tokens of the request have their KV, and may be shared.
    mutating func computed(_ request: RequestNumber, tokens: Int)

    /// The request leaves the GPU. Its first `tokens` tokens have their KV.
    mutating func release(_ request: RequestNumber, tokens: Int, preempted: Bool)
}

/// Blocks that are only counted: no sharing, no cache.
public struct CountingSpace: KVSpace, Sendable {
    /// Blocks in all.
    public let capacityBlocks: Int
    /// Tokens in a block.
    public let blockTokens: Int
    /// Blocks held by requests.
    public private(set) var usedBlocks = 0
    private var blocks: [Int32] = []

    /// Room for so many tokens, in whole blocks.
    public init(capacityTokens: Int, blockTokens: Int) {
        precondition(blockTokens > 0, "a block of no tokens")
        self.blockTokens = blockTokens
        capacityBlocks = capacityTokens / blockTokens
    }

    /// Takes blocks for min(`tokens`, `newTokens`) tokens; nothing is ever cached.
    public mutating func admit(_ request: RequestNumber, tokens: Int, newTokens: Int) -> Int? {
        let index = Int(request)
        if index >= blocks.count { blocks.append(contentsOf: repeatElement(0, count: index + 1 - blocks.count)) }
        precondition(blocks[index] == 0, "a request that already runs was admitted")
        return grow(request, tokens: min(tokens, newTokens)) == nil ? nil : 0
    }

    /// Takes the blocks that `tokens` tokens need beyond those held.
    public mutating func grow(_ request: RequestNumber, tokens: Int) -> Int? {
        let index = Int(request)
        let wanted = (tokens + blockTokens - 1) / blockTokens
        let more = wanted - Int(blocks[index])
        if more > 0 {
            if usedBlocks + more > capacityBlocks { return nil }
            usedBlocks += more
            blocks[index] += Int32(more)
        }
        return Int(blocks[index]) * blockTokens
    }

    /// Nothing: nobody else could use them.
    public mutating func computed(_ request: RequestNumber, tokens: Int) {}

    /// Gives all blocks of the request back.
    public mutating func release(_ request: RequestNumber, tokens: Int, preempted: Bool) {
        usedBlocks -= Int(blocks[Int(request)])
        blocks[Int(request)] = 0
    }
}
