// The guard of the `holdfast` policy: by what evidence the tier stops following its own index and follows LRU, S3-FIFO
// or ARC instead, and when it comes back. It promises that traffic which the classes misjudge costs little.

import KVModel

/// Compares the experts by their hits, over all requests and lately, and says whom to follow.
///
/// Three things are told apart: what the tier *owes* (hits that an expert would have had over the tier's own, over all),
/// by how much an expert is *ahead* of the one followed, and its *lead* (what it won lately, counted from its last low).
/// What is owed asks for a quick change; a lead alone, for a large one.
struct HoldfastGuard {
    /// All hits of each expert so far, in blocks.
    private(set) var hitBlocks = PerExpert(0)
    /// All hits of the tier itself.
    private(set) var tierHits = 0
    /// Whether, while another is followed, newcomers that the index thinks least of are still refused.
    private(set) var trustsIndex = true
    private var lead = PerExpert(0.0)
    /// Blocks by which the expert followed leads the tier that follows it.
    private var behind = 0.0
    /// Doubles with every return to the index, so that traffic on which they are even does not swing for ever.
    private var caution = 1.0
    private var requests = 0
    private var meanLength = 0.0
    /// Blocks of all requests so far.
    private var asked = 0.0

    /// For so many requests nobody has proved anything: whom to follow is told by what the traffic looks like.
    static let firstRequests = 128
    /// Share of all blocks that may be owed, or that an expert must be ahead, before anything is done.
    static let shareOwed = 1.0 / 2048
    /// Share of all blocks by which an expert may lead for nothing.
    static let tolerance = 1.0 / 1024
    /// A lead alone is enough when it is this share of the tier, or of all blocks asked for, but never fewer blocks
    /// than so many prompts: with tiny tiers chance decides that much.
    static let leadShare = 1.0 / 16
    static let leadOfAll = 1.0 / 1024
    static let leadPrompts = 32.0
    /// Where conversations go on the index knows best: so many prompts must be owed, elsewhere one.
    static let patience = 4.0
    /// The tier may fall so many prompts behind the expert followed before refusing is to blame.
    static let promptsBehind = 16.0

    /// Counts one request of `length` blocks with its `hits` and those of every expert (of the index those of the tier,
    /// while it is followed), and says whom to follow from now on.
    mutating func leader(
        after current: Expert, length: Int, hits: Int, runs: PerExpert<Int>, capacity: Int, traffic: HoldfastTraffic
    ) -> Expert {
        requests += 1
        meanLength += (Double(length) - meanLength) / Double(min(requests, 1000))
        asked += Double(length)
        tierHits += hits
        for expert in Expert.allCases { hitBlocks[expert] += runs[expert] }
        watchRefusals(behind: current, length: length, hits: hits, runs: runs)
        var best = winner(over: current, length: length, hits: hits, runs: runs, capacity: capacity, traffic: traffic)
        if requests < Self.firstRequests { best = traffic.looksLikeTemplates ? .arc : .index }
        if best != current {
            if best == .index, requests >= Self.firstRequests { caution = min(caution * 2, 64) }
            lead = PerExpert(0)
            behind = 0
            // Where recency leads, the classes say little; the two others gain from being told what is worthless.
            trustsIndex = best != .lru
        }
        return best
    }

    private mutating func watchRefusals(behind current: Expert, length: Int, hits: Int, runs: PerExpert<Int>) {
        guard current != .index else { return }
        behind = max(0, behind + Double(runs[current] - hits) - Double(length) * Self.tolerance)
        if behind > Self.promptsBehind * meanLength { trustsIndex = false }
    }

    private mutating func winner(
        over current: Expert, length: Int, hits: Int, runs: PerExpert<Int>, capacity: Int, traffic: HoldfastTraffic
    ) -> Expert {
        let needed = meanLength * (traffic.isConversational ? Self.patience : 1)
        let enough = max(Self.shareOwed * asked, meanLength)
        let share = min(Self.leadShare * Double(capacity), Self.leadOfAll * asked)
        let largeLead = max(share, Self.leadPrompts * meanLength) * caution
        var best = current
        var most = -Double.infinity
        for expert in Expert.allCases where expert != current {
            lead[expert] = max(0, lead[expert] + Double(runs[expert] - hits) - Double(length) * Self.tolerance)
            let ahead = Double(hitBlocks[expert] - hitBlocks[current])
            let owed = Double(hitBlocks[expert] - tierHits)
            let isOwed = owed > max(enough, needed) && ahead > enough && lead[expert] > needed
            if isOwed || lead[expert] > largeLead, ahead > most {
                best = expert
                most = ahead
            }
        }
        return best
    }
}

extension HoldfastPolicy {
    /// All hits that an expert would have had alone, in blocks.
    package func hitBlocks(of expert: Expert) -> Int { guardian.hitBlocks[expert] }
    /// Whom the tier follows at present.
    package var leader: Expert { shadows.leader }
    /// How many blocks are remembered without being resident.
    package var rememberedCount: Int { knownCount - tier.count }

    /// Compares the experts on a request and changes sides where that is due.
    mutating func weighSides(_ path: Span<BlockNumber>, hits: Int) {
        // Before anything had to leave, all hold the same.
        var runs = isFull ? shadows.runs(of: path) : PerExpert(hits)
        if isFull { runs[.index] = indexTier?.run(of: path) ?? hits }
        let leader = guardian.leader(
            after: shadows.leader, length: path.count, hits: hits, runs: runs, capacity: capacity, traffic: traffic)
        if leader != shadows.leader {
            shadows.leader = leader
            if isFull { obey(leader) }
        }
    }

    /// What the tier holds cannot jump: it goes on from there by the new leader.
    mutating func obey(_ leader: Expert) {
        if leader == .index {
            indexTier = nil
        } else if indexTier == nil {
            indexTier = tier.withoutPins(known: known, tails: tails, worths: statistics.index, shadows: shadows)
        }
        tier.obeysLeader = leader != .index
        // Oldest first, so that every list stays in order of age.
        forEachTailByAge { policy, tail in
            policy.tier.move(
                tail, to: policy.tails[Int(tail)].cell, worths: policy.statistics.index, shadows: policy.shadows)
        }
    }

    /// Marks what the leader has just dropped: it goes first.
    mutating func markDropped() {
        for block in shadows.dropped where tier.holds(block) && !shadows.leaderHolds(block) {
            let owner = known[Int(block)].owner
            guard tier.ends[Int(owner)].deepest == block else { continue }
            tier.move(owner, to: tails[Int(owner)].cell, worths: statistics.index, shadows: shadows)
        }
    }
}
