// The parts of a record that need many runs: the curve of sizes, the sweep of loads, the smallest cluster.

import KVModel
import KVReport
import KVTiering

/// One system at one load.
struct SweptLoad: Sendable {
    var key: String
    var load: Double
    var sessionsPerGPU: Double
    var summary: RunSummary
}

/// Which loads are swept.
struct LoadSweepPlan {
    let loads: [Double]
    private let capacity: [String: Double]
    private let traceRunsAt: Double

    /// The plan of a replay, or nil when nothing is to be swept.
    init?(_ replay: ModelledReplay, _ extent: ModelledReplay.Extent) {
        // Without live sessions (no think time, one request) every load is the same one.
        guard extent.sweeps, replay.scenario.sweep.use, replay.workload.liveSessions > 0 else { return nil }
        loads = replay.scenario.sweep.loads
        let gpus = Double(replay.scenario.gpus)
        let session = replay.workload.blocksPerSession * Double(Cluster.blockBytes(replay.model, replay.workload))
        var capacity: [String: Double] = [:]
        for system in ModelledReplay.sweptSystems where session > 0 {
            capacity[system.key] = replay.totalBytes(system) / session / gpus
        }
        self.capacity = capacity
        traceRunsAt = replay.workload.liveSessions / gpus
    }

    /// The runs as the curves of a record.
    func collect(_ runs: [SweptLoad]) -> LoadSweep {
        var sweep = LoadSweep(
            sessionsPerGPU: [], usefulShareOfBusy: [:], costPerMillionTokens: [:], metSLO: [:], capacity: capacity,
            traceRunsAt: traceRunsAt)
        for load in loads {
            let here = runs.filter { $0.load == load }
            guard let first = here.first else { continue }
            sweep.sessionsPerGPU.append(first.sessionsPerGPU)
            for run in here {
                sweep.usefulShareOfBusy[run.key, default: []].append(run.summary.usefulShareOfBusy)
                sweep.costPerMillionTokens[run.key, default: []].append(run.summary.cost.perMillionTokens)
                sweep.metSLO[run.key, default: []].append(run.summary.metSLO)
            }
        }
        return sweep
    }
}

extension ModelledReplay {
    /// One system at `load` times the sessions of the trace, on the same GPUs.
    func sweep(_ system: ComparedSystem, load: Double) -> SweptLoad {
        let workload = Workload(
            trace, load: load * scenario.arrivals.load, thinkTime: scenario.arrivals.thinkTime, seed: scenario.seed)
        let cluster = cluster(system, workload: workload, isDetailed: false)
        cluster.run()
        // The load is stated against the trace's own, so that it does not depend on how sessions were drawn.
        return SweptLoad(
            key: system.key, load: load, sessionsPerGPU: self.workload.liveSessions * load / Double(scenario.gpus),
            summary: cluster.summary)
    }

    /// The smallest cluster of the sizes to try with which a system meets the SLO. More replicas never serve worse by
    /// more than a batching accident, so the sizes are bisected. `ifSlower` also asks for the size that would be needed
    /// if every TTFT were longer by the model's error.
    func search(_ system: ComparedSystem, ifSlower: Bool = true) -> SLOSearchResult {
        let sizes = scenario.sweep.replicas
        var runs: [Int: RunSummary] = [:]
        func run(_ index: Int) -> RunSummary {
            if let known = runs[index] { return known }
            let cluster = cluster(system, workload: workload, replicas: sizes[index], isDetailed: false)
            cluster.run()
            runs[index] = cluster.summary
            return cluster.summary
        }
        func smallest(_ meets: (RunSummary) -> Bool) -> Int? {
            var low = 0
            var high = sizes.count
            while low < high {
                let middle = (low + high) / 2
                if meets(run(middle)) { high = middle } else { low = middle + 1 }
            }
            return low < sizes.count ? low : nil
        }
        var result = SLOSearchResult(key: system.key, triedGPUs: [])
        if let index = smallest({ $0.metSLO >= scenario.slo.share }) {
            result.gpus = sizes[index] * scenario.tensorParallel
            result.cost = runs[index]?.cost
        }
        if ifSlower, let index = smallest({ $0.metSLOIfSlower >= scenario.slo.share }) {
            result.gpusIfSlower = sizes[index] * scenario.tensorParallel
            result.costIfSlower = runs[index]?.cost
        }
        result.triedGPUs = runs.keys.sorted().map { sizes[$0] * scenario.tensorParallel }
        return result
    }

    /// Prompt tokens missed against bytes kept, counted without time.
    func missRatioCurve() -> MissRatioCurve {
        precondition(!workload.promptsAreUnique, "a curve is asked of a trace that cannot have one")
        var replay = CacheOnlyReplay(identified: countedTrace)
        let blockBytes = Double(Cluster.blockBytes(model, workload))
        // Halving steps from the whole trace down, so that the knee is seen wherever it lies: as many as are asked for, and
        // on to half of what is configured, or nothing could be said of that.
        let half = Int((recordedTiers.reduce(0) { $0 + $1.bytes } / blockBytes / 2).rounded(.down))
        var sizes = [max(1, countedTrace.uniqueBlockCount)]
        while let least = sizes.last, least > 1, sizes.count < scenario.sweep.capacities || least > half {
            sizes.append(least / 2)
        }
        sizes.reverse()
        let configured = PolicyName(rawValue: scenario.tiers.policy.rawValue) ?? .lru
        var names: [PolicyName] = [.lru, configured, .clairvoyant]
        if configured == .lru { names.remove(at: 1) }
        var policies: [String: [Double]] = [:]
        for name in names {
            policies[name.rawValue] = sizes.map { 1 - replay.run(name, capacity: $0).hitRatio }
        }
        var marks: [TierMark] = []
        var bytes = 0.0
        for tier in recordedTiers {
            bytes += tier.bytes
            marks.append(TierMark(tier: tier.tier, bytes: bytes))
        }
        return MissRatioCurve(
            bytes: sizes.map { Double($0) * blockBytes }, policies: policies,
            infinite: 1 - replay.run(.infinite, capacity: 1).hitRatio, marks: marks)
    }
}
