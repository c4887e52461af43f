// Which replica gets a request. The router sees loads and caches as they were a stated time ago.

import KVModel

/// What the router knows of one replica.
package struct ReplicaView {
    /// Prompt tokens that wait or are being computed.
    package var queuedTokens = 0
    /// Requests that run.
    package var running = 0

    package init(queuedTokens: Int = 0, running: Int = 0) {
        self.queuedTokens = queuedTokens
        self.running = running
    }
}

/// Chooses replicas. All of its draws come from the generator it was given.
package struct Router {
    package let policy: Scenario.RouterPolicy
    /// How old its knowledge may be, nanoseconds.
    package let staleness: Int64
    private var random: RandomSource
    private var turn = 0
    private var view: [ReplicaView]
    private var viewedAt = Int64.min
    /// Replicas of one node where sessions are bound to nodes, else nil: any replica may get any request.
    private let boundTo: Int?

    /// Whether it needs to know who holds what of a prompt.
    package var looksForPrefixes: Bool { policy == .cacheAware && boundTo != 1 }

    package init(_ settings: Scenario.RouterSettings, replicas: Int, replicasPerNode: Int, seed: UInt64) {
        policy = settings.policy
        boundTo = settings.bindsSessionsToNodes ? replicasPerNode : nil
        staleness = Int64(settings.staleness * 1e9)
        random = RandomSource(seed: seed ^ 0x707E_50F7)
        view = Array(repeating: ReplicaView(), count: replicas)
    }

    /// Chooses the replica of a request.
    ///
    /// - Parameters:
    ///   - loads: What each replica has to do now. The router looks at it at most once in `staleness`.
    ///   - cost: For `cacheAware`: seconds until the first token on a replica with nothing queued, and the seconds that
    ///     `queuedTokens` would take before it.
    package mutating func choose(
        session: Int32, now: Int64, loads: (Int) -> ReplicaView, cost: (_ replica: Int, _ queuedTokens: Int) -> Double
    ) -> Int {
        let count = view.count
        if count == 1 { return 0 }
        if viewedAt == .min || now - viewedAt >= staleness {
            for replica in 0..<count { view[replica] = loads(replica) }
            viewedAt = now
        }
        let view = view
        let choice = choice(of: session, among: count)
        if choice.count == 1 { return choice.lowerBound }
        switch policy {
        case .random:
            return choice.lowerBound + random.below(choice.count)
        case .roundRobin:
            turn = turn + 1 == count ? 0 : turn + 1
            return choice.lowerBound + turn % choice.count
        case .sticky:
            return home(of: session, among: count)
        case .leastLoaded, .stateless:
            // A running sequence weighs like a few prompt tokens: it slows every iteration a little.
            return least(choice) { Double(view[$0].queuedTokens) + 16 * Double(view[$0].running) }
        case .cacheAware:
            return least(choice) { cost($0, view[$0].queuedTokens) }
        }
    }

    /// The replica that a session's name alone chooses.
    private func home(of session: Int32, among count: Int) -> Int {
        Int(mixBits(UInt64(UInt32(bitPattern: session))) % UInt64(count))
    }

    /// The replicas a session may go to. A bound one stays on the node of its home, so a node with fewer replicas gets
    /// fewer sessions.
    private func choice(of session: Int32, among count: Int) -> Range<Int> {
        guard let boundTo else { return 0..<count }
        let first = home(of: session, among: count) / boundTo * boundTo
        return first..<min(first + boundTo, count)
    }

    /// The replica of least weight; ties are drawn.
    private mutating func least(_ choice: Range<Int>, _ weight: (Int) -> Double) -> Int {
        var best = choice.lowerBound
        var bestWeight = Double.infinity
        var ties = 1
        for replica in choice {
            let candidate = weight(replica)
            if candidate < bestWeight {
                best = replica
                bestWeight = candidate
                ties = 1
            } else if candidate == bestWeight {
                ties += 1
                if random.below(ties) == 0 { best = replica }
            }
        }
        return best
    }
}
