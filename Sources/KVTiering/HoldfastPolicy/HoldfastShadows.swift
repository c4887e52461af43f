// What LRU, S3-FIFO and ARC of the same size would hold: directories without bytes that run beside the index of the
// `holdfast` policy. They are those policies themselves. Whom the tier follows is decided in `HoldfastGuard.swift`.

import KVModel

/// A rule that the tier can follow.
package enum Expert: Int, CaseIterable, Sendable {
    /// Our own: expected hits for space and time.
    case index
    case lru, s3fifo, arc
}

/// One number for each expert.
struct PerExpert<Value> {
    var index: Value
    var lru: Value
    var s3fifo: Value
    var arc: Value

    init(_ value: Value) {
        index = value
        lru = value
        s3fifo = value
        arc = value
    }

    subscript(expert: Expert) -> Value {
        get {
            switch expert {
            case .index: index
            case .lru: lru
            case .s3fifo: s3fifo
            case .arc: arc
            }
        }
        set {
            switch expert {
            case .index: index = newValue
            case .lru: lru = newValue
            case .s3fifo: s3fifo = newValue
            case .arc: arc = newValue
            }
        }
    }
}

/// The three simulated policies, and which rule is followed.
struct HoldfastShadows {
    private var lru: LRUPolicy
    private var s3fifo: S3FIFOPolicy
    private var arc: ARCPolicy
    /// Whom the tier follows.
    var leader = Expert.index
    /// What the leader's access evicted, some of which it may hold again.
    private(set) var dropped: [BlockNumber] = []
    private var ignored: [BlockNumber] = []
    /// What some shadow let go of in the access, to be told to an owner who gives numbers away.
    private(set) var released: [BlockNumber] = []
    private let reportsReleased: Bool

    init(capacity: Int, reportsReleased: Bool) {
        lru = LRUPolicy(capacity: capacity)
        s3fifo = S3FIFOPolicy(capacity: capacity, reportsForgotten: reportsReleased)
        arc = ARCPolicy(capacity: capacity, reportsForgotten: reportsReleased)
        self.reportsReleased = reportsReleased
    }

    /// Brings the three to where they would be if they had run from the start, given that none had to evict yet.
    ///
    /// - Parameters:
    ///   - recency: What the tier holds by last use, newest first.
    ///   - admissions: The same by first use, oldest first.
    ///   - uses: How often a block was used.
    mutating func start(recency: [BlockNumber], admissions: [BlockNumber], uses: (BlockNumber) -> UInt16) {
        let context = RequestContext(request: 0, now: .zero)
        lru.access(recency.span, context, evicted: &ignored)
        // ARC's second list has what was used again.
        var path = recency.flatMap { repeatElement($0, count: uses($0) > 1 ? 2 : 1) }
        arc.access(path.span, context, evicted: &ignored)
        // S3-FIFO's first queue is in the order of first uses and counts up to three more.
        path = admissions.reversed().flatMap { repeatElement($0, count: Int(min(uses($0), 4))) }
        s3fifo.access(path.span, context, evicted: &ignored)
        precondition(ignored.isEmpty, "a tier that was never full has evicted")
    }

    /// Whether any of the three knows the block.
    func remembers(_ block: BlockNumber) -> Bool {
        lru.isResident(block) || s3fifo.remembers(block) || arc.remembers(block)
    }

    /// Whether the leader, if it is one of the three, holds the block; the index has no say of its own here.
    @inline(__always)
    func leaderHolds(_ block: BlockNumber) -> Bool {
        switch leader {
        case .index: true
        case .lru: lru.isResident(block)
        case .s3fifo: s3fifo.isResident(block)
        case .arc: arc.isResident(block)
        }
    }

    /// How many leading blocks of the path each of the three holds; 0 for the index.
    func runs(of path: Span<BlockNumber>) -> PerExpert<Int> {
        var runs = PerExpert(0)
        runs.lru = lru.hitRun(path)
        runs.s3fifo = s3fifo.hitRun(path)
        runs.arc = arc.hitRun(path)
        return runs
    }

    /// One request's access to its path, or to what lies behind the leading `shown` blocks of it that it accessed before.
    mutating func access(_ path: Span<BlockNumber>, from shown: Int = 0, _ context: RequestContext) {
        dropped.clear()
        ignored.clear()
        let leader = leader
        let new = path.extracting(shown..<path.count)
        // Of a path that grows LRU renews all of it, as it does alone.
        Self.access(&lru, path, context, isLeader: leader == .lru, &dropped, &ignored)
        Self.access(&s3fifo, new, context, isLeader: leader == .s3fifo, &dropped, &ignored)
        Self.access(&arc, new, context, isLeader: leader == .arc, &dropped, &ignored)
        guard reportsReleased else { return }
        released.removeAll(keepingCapacity: true)
        released.append(contentsOf: dropped)
        released.append(contentsOf: ignored)
        s3fifo.takeForgotten(into: &released)
        arc.takeForgotten(into: &released)
    }

    private static func access(
        _ policy: inout some TierPolicy, _ path: Span<BlockNumber>, _ context: RequestContext, isLeader: Bool,
        _ dropped: inout [BlockNumber], _ ignored: inout [BlockNumber]
    ) {
        if isLeader {
            policy.access(path, context, evicted: &dropped)
        } else {
            policy.access(path, context, evicted: &ignored)
        }
    }

    /// The block was taken away: nobody holds it.
    mutating func forget(_ block: BlockNumber) {
        lru.remove(block)
        s3fifo.forget(block)
        arc.forget(block)
    }
}
