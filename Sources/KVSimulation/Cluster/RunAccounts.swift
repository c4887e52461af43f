// What one run of a cluster counted: latencies, the ledger, work done and saved.

import KVModel
import KVReport
import KVTiering

/// The books of a run. GPU time is kept with each replica and added up at the end.
struct RunAccounts {
    let start: Int64
    /// The last completion so far.
    private(set) var end: Int64
    private(set) var ledger = Ledger()
    private(set) var completed = 0
    private(set) var outputTokens = 0
    var preemptions = 0
    /// FLOPs of first-time prefill and of decoding.
    var usefulFLOPs = 0.0
    private(set) var flopsAvoided = 0.0
    /// Seconds of a replica that computing the served tokens alone would have taken.
    private(set) var secondsAvoided = 0.0
    /// Requests that met both limits of the SLO, with their output tokens; and those that would with slower prefill.
    private(set) var metCount = 0
    private(set) var metTokens = 0
    private(set) var metIfSlower = 0
    /// Gaps between tokens.
    var itl = LogHistogram()
    // One value a request, only in a detailed run, in order of completion.
    private(set) var requests: [Int32] = []
    private(set) var ttft: [Double] = []
    private(set) var serviceTTFT: [Double] = []
    private(set) var tpot: [Double] = []
    private(set) var tbt10: [Double] = []
    private let isDetailed: Bool

    init(start: Int64, requestCount: Int) {
        self.start = start
        end = start
        isDetailed = requestCount > 0
        requests.reserveCapacity(requestCount)
        ttft.reserveCapacity(requestCount)
        serviceTTFT.reserveCapacity(requestCount)
        tpot.reserveCapacity(requestCount)
        tbt10.reserveCapacity(requestCount)
    }

    /// Books a request's latencies when its last token is out.
    mutating func finished(_ request: Int, cluster: Cluster) {
        let state = cluster.table.states[request]
        let output = Int(cluster.workload.requests[request].outputTokens)
        let slo = cluster.scenario.slo
        end = max(end, state.finished)
        completed += 1
        outputTokens += output
        let overhead = cluster.scenario.engine.requestOverhead
        let first = Double(state.firstToken - state.arrival) / 1e9 + overhead
        let perToken = output > 1 ? Double(state.finished - state.firstToken) / 1e9 / Double(output - 1) : 0
        if first <= slo.ttft, perToken <= slo.tpot {
            metCount += 1
            metTokens += output
        }
        if first * (1 + cluster.modelError.ttftMean) <= slo.ttft, perToken <= slo.tpot { metIfSlower += 1 }
        guard isDetailed else { return }
        requests.append(Int32(request))
        ttft.append(first)
        serviceTTFT.append(Double(state.firstToken - state.admitted) / 1e9 + overhead)
        if output > 1 {
            tpot.append(perToken)
            tbt10.append(
                cluster.replicas[Int(state.replica)].log.meanOfLongestTenth(since: Int(state.firstStep)))
        }
    }

    /// Books a prompt of a system without tiers below HBM.
    mutating func bookPlain(_ request: Int, cluster: Cluster) {
        let state = cluster.table.states[request]
        let given = cluster.workload.requests[request]
        let input = Int(given.inputTokens)
        let blockTokens = cluster.workload.blockTokens
        let named = min(Int(given.blockCount) * blockTokens, input)
        let served = Int(state.cachedTokens)
        let known = max(served, min(Int(state.knownBlocks) * blockTokens, input))
        let fromHBM = min(served, Int(state.hbmBlocks) * blockTokens)
        ledger.hbm += fromHBM
        // A ceiling's hits come from everywhere at once; they are shown as the farthest tier.
        ledger.flash += served - fromHBM
        let always = served == input - 1 && named == input ? 1 : input - named
        ledger.alwaysComputed += always
        let again = max(0, min(known, input - always) - served)
        let elsewhere = min(again, max(0, min(Int(state.elsewhereBlocks) * blockTokens, input) - served))
        ledger.heldElsewhere += elsewhere
        let reached = max(served + elsewhere, Int(state.computedBlocks) * blockTokens)
        let underWay = max(0, min(known, input - always) - reached)
        if cluster.scenario.engine.prefixCaching {
            if case .infinite = cluster.oracle {
                ledger.late += again - elsewhere
            } else {
                ledger.late += underWay
                ledger.evicted += again - elsewhere - underWay
            }
        } else {
            ledger.noTier += again - elsewhere
        }
        ledger.firstSeen += input - served - again - always
        save(from: 0, tokens: served, cluster: cluster)
    }

    /// Books a prompt by what its node's manager found out about each of its tokens. A manager cannot see other nodes:
    /// what it calls evicted is held elsewhere where another replica or node has it, and late where another request was still
    /// computing it.
    mutating func bookTiers(_ request: Int, cluster: Cluster, booked: [BookedRun]) {
        let state = cluster.table.states[request]
        let elsewhere = Int(state.elsewhereBlocks) * cluster.workload.blockTokens
        let computed = Int(state.computedBlocks) * cluster.workload.blockTokens
        for run in booked {
            var tokens = Int(run.tokens)
            if run.tokenClass == .evicted || run.tokenClass == .heldElsewhere {
                let reachable = max(0, min(tokens, elsewhere - Int(run.firstToken)))
                ledger.heldElsewhere += reachable
                tokens -= reachable
                let first = Int(run.firstToken) + reachable
                let underWay = max(0, first + tokens - max(first, computed))
                ledger.late += underWay
                ledger.evicted += tokens - underWay
                continue
            }
            if run.tokenClass == .hbm {
                // What came out of the engine's host region is of the host's tier.
                let blockTokens = cluster.workload.blockTokens
                let inHBM = max(0, min(tokens, Int(state.hbmBlocks) * blockTokens - Int(run.firstToken)))
                ledger.hbm += inHBM
                ledger.dram += tokens - inHBM
            } else {
                ledger.add(tokens, to: run.tokenClass)
            }
            if run.tokenClass.isServed { save(from: Int(run.firstToken), tokens: tokens, cluster: cluster) }
        }
    }

    private mutating func save(from first: Int, tokens: Int, cluster: Cluster) {
        guard tokens > 0 else { return }
        flopsAvoided += cluster.model.prefillFLOPs(tokens: tokens, after: first)
        secondsAvoided += cluster.cost.seconds(count: Double(tokens), after: Double(first))
    }
}

extension Ledger {
    /// Adds tokens to the class of a manager's ledger.
    public mutating func add(_ tokens: Int, to tokenClass: TokenClass) {
        switch tokenClass {
        case .hbm: hbm += tokens
        case .dram: dram += tokens
        case .nvme: nvme += tokens
        case .flash: flash += tokens
        case .firstSeen: firstSeen += tokens
        case .evicted: evicted += tokens
        case .refused: refused += tokens
        case .heldElsewhere: heldElsewhere += tokens
        case .lostAfterLookUp: lostAfterLookUp += tokens
        case .late: late += tokens
        case .corrupt: corrupt += tokens
        case .quota: quota += tokens
        case .noTier: noTier += tokens
        case .recomputeCheaper: recomputeCheaper += tokens
        case .alwaysComputed: alwaysComputed += tokens
        }
    }
}
