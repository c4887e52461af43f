// What a tier asks of its eviction and admission policy. The cache-only replay, the modelled cluster and the agent
// all drive a policy through this face, so what is measured is what is deployed.

import KVModel

/// What is known of a request when its blocks are accessed. Nothing here is from the future.
public struct RequestContext: Sendable {
    /// The request's running number with the caller; names it again in `turnEnded`.
    public var request: UInt32
    /// The conversation, or −1 when nobody said.
    public var session: Int32
    /// Its place in the conversation, from 0, or −1 when nobody said.
    public var turn: Int32
    /// Whether the last block of the path holds fewer tokens than a block, so that no longer prompt can match it.
    public var lastBlockIsPartial: Bool
    /// The time of the access. It never runs back.
    public var now: Instant

    /// A context of given parts.
    public init(request: UInt32, session: Int32 = -1, turn: Int32 = -1, lastBlockIsPartial: Bool = false, now: Instant)
    {
        self.request = request
        self.session = session
        self.turn = turn
        self.lastBlockIsPartial = lastBlockIsPartial
        self.now = now
    }
}

/// Decides which blocks one tier of a fixed number of slots keeps.
///
/// Blocks are dense numbers of the owner's index. A policy grows its per-block state as numbers appear. A path is
/// root first; a number names the whole prefix up to its block, so a block's parent is always the one before it.
public protocol TierPolicy {
    /// How many blocks the tier can hold. At least 1.
    var capacity: Int { get }
    /// How many blocks it holds now; never above `capacity`.
    var residentCount: Int { get }

    /// Whether the tier holds the block.
    func isResident(_ block: BlockNumber) -> Bool
    /// The length of the longest leading run of `path` that is resident. A requirement and not only an extension,
    /// so that a policy answers a whole path inside its own module and not block by block through this face.
    func hitRun(_ path: Span<BlockNumber>) -> Int

    /// One request's access to its whole path: touches what is resident and admits what is absent and wanted,
    /// evicting as needed. Every block evicted is appended to `evicted` (a block may appear there that this same
    /// access had admitted). Pinned blocks are never evicted; when nothing can be evicted, blocks stay out.
    mutating func access(_ path: Span<BlockNumber>, _ context: RequestContext, evicted: inout [BlockNumber])

    /// The path of a request that was accessed before has grown: its answer, or a prompt that is handed over in pieces. Its
    /// leading `shown` blocks, at least one, were accessed then by the same request and are not used again; the others are
    /// touched and admitted as by `access`.
    mutating func extend(
        _ path: Span<BlockNumber>, from shown: Int, _ context: RequestContext, evicted: inout [BlockNumber])

    /// Blocks of the path were used where the tier did not serve them, out of a tier above it. A note that they are wanted: no
    /// request, no admission, no eviction. Blocks may be absent or unknown.
    mutating func touch(_ path: Span<BlockNumber>, at time: Instant)

    /// Whether it judges the whole paths of requests, as most do. One that does not is told what of a path is offered, and by
    /// `asked` and `read` what else happened to its blocks: all that a store sees.
    var judgesPaths: Bool { get }
    /// Somebody asked whether the tier has a block, and it has.
    mutating func asked(for block: BlockNumber, at time: Instant)
    /// Somebody reads a block that the tier has.
    mutating func read(_ block: BlockNumber, at time: Instant)

    /// The turn of request `request` ended at `time`, which may be earlier than the next access's `now` but not
    /// earlier than a time already given.
    mutating func turnEnded(request: UInt32, reason: StopReason, at time: Instant)

    /// Whether it has work that the next access would have to do first.
    var wantsUpkeep: Bool { get }
    /// Does that work, in a moment when nobody waits. Optional: without it the access pays.
    mutating func keepUp()

    /// The block must stay until as many `unpin` calls as `pin` calls have been made. It is resident.
    mutating func pin(_ block: BlockNumber)
    /// Takes one pin away.
    mutating func unpin(_ block: BlockNumber)
    /// Drops a block at once, whatever its worth: it was found corrupt, lost or deleted. Absent blocks are ignored.
    mutating func remove(_ block: BlockNumber)
    /// Drops a block as `remove(_:)` does and appends to `evicted` every block that thereby left the tier: the block
    /// itself if it was resident, and, where the policy keeps only what a look-up can reach, everything deeper.
    /// Pins do not protect from this and end with it: no `unpin` may follow. The owner must not reuse the bytes of a
    /// slot that is still being read.
    mutating func remove(_ block: BlockNumber, evicted: inout [BlockNumber])

    /// Whether a resident block's parents are always resident too.
    var keepsPrefixesWhole: Bool { get }

    /// Whether the policy knows anything of the block, resident or not. The owner may give a number to another key
    /// once no tier's policy remembers it; sooner, the new block would inherit the old one's history.
    func remembers(_ block: BlockNumber) -> Bool
    /// Appends the numbers that were remembered without being resident and are remembered no more, each once for
    /// every time that happened since the last call. A number that was used again meanwhile may be among them: ask
    /// `remembers` before giving it away.
    mutating func takeForgotten(into numbers: inout [BlockNumber])
}

extension TierPolicy {
    /// The run found by asking block by block.
    @inlinable
    public func hitRun(_ path: Span<BlockNumber>) -> Int {
        var length = 0
        while length < path.count, isResident(path[length]) { length += 1 }
        return length
    }

    /// Most policies judge block by block.
    @inlinable
    public mutating func extend(
        _ path: Span<BlockNumber>, from shown: Int, _ context: RequestContext, evicted: inout [BlockNumber]
    ) {
        access(path.extracting(shown..<path.count), context, evicted: &evicted)
    }

    /// Most policies go by the accesses that they serve.
    @inlinable
    public mutating func touch(_ path: Span<BlockNumber>, at time: Instant) {}

    /// Most policies judge the paths of requests, and learn from nothing else.
    @inlinable
    public var judgesPaths: Bool { true }

    /// Nothing to them.
    @inlinable
    public mutating func asked(for block: BlockNumber, at time: Instant) {}

    /// Nothing to them.
    @inlinable
    public mutating func read(_ block: BlockNumber, at time: Instant) {}

    /// Most policies do what is to do at once.
    @inlinable
    public var wantsUpkeep: Bool { false }

    /// Nothing to do.
    @inlinable
    public mutating func keepUp() {}

    /// Most policies learn nothing from the end of a turn.
    @inlinable
    public mutating func turnEnded(request: UInt32, reason: StopReason, at time: Instant) {}

    /// Most policies keep blocks whose parents are gone, so only the block itself leaves.
    @inlinable
    public mutating func remove(_ block: BlockNumber, evicted: inout [BlockNumber]) {
        guard isResident(block) else { return }
        remove(block)
        evicted.append(block)
    }

    /// Most policies may keep a block whose parents are gone.
    @inlinable
    public var keepsPrefixesWhole: Bool { false }

    /// Most policies remember what they hold.
    @inlinable
    public func remembers(_ block: BlockNumber) -> Bool { isResident(block) }

    /// Policies that remember only what they hold have nothing to forget.
    @inlinable
    public mutating func takeForgotten(into numbers: inout [BlockNumber]) {}
}
