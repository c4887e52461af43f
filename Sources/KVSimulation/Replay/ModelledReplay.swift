// A modelled replay from end to end: the configured system, the baselines and ceilings beside it, the curve of sizes,
// the sweep of loads and the search for the smallest cluster, put into one record.

import Crypto
import KVModel
import KVReport
import KVServing
import KVTiering
import KVTrace

/// A trace and a scenario, ready to be replayed.
public struct ModelledReplay: Sendable {
    /// What the scenario became.
    public internal(set) var scenario: Scenario
    let trace: Trace
    let model: ServingModel
    let gpu: GPU
    let workload: Workload
    /// What is replayed where time is left out: the trace, or at another load than its own the requests of `workload`.
    let countedTrace: Trace

    /// The keys of the systems that a record compares.
    public static let systemKeys = ComparedSystem.allCases.map(\.key)

    /// What is worked out besides the systems.
    public struct Extent: Sendable {
        /// Keys of the systems to run; nil runs all.
        public var keys: Set<String>?
        /// Whether loads and cluster sizes are swept.
        public var sweeps: Bool
        /// Whether the curve of sizes is counted.
        public var countsCurve: Bool

        /// Everything.
        public static let full = Extent(keys: nil, sweeps: true, countsCurve: true)

        /// An extent of given parts.
        public init(keys: Set<String>?, sweeps: Bool, countsCurve: Bool) {
            self.keys = keys
            self.sweeps = sweeps
            self.countsCurve = countsCurve
        }
    }

    /// Prepares a replay.
    ///
    /// Throws where the scenario names what the catalogue lacks, where the model does not fit its GPUs, or where a
    /// request of the trace is longer than a replica's KV memory.
    public init(trace: Trace, scenario: Scenario, catalogue: Catalogue) throws(OperatorError) {
        guard !trace.requests.isEmpty else { throw OperatorError("the trace has no requests", at: trace.name) }
        self.trace = trace
        self.scenario = scenario
        (model, gpu) = try scenario.servingModel(catalogue)
        workload = Workload(
            trace, load: scenario.arrivals.load, thinkTime: scenario.arrivals.thinkTime, seed: scenario.seed)
        guard !workload.requests.isEmpty else {
            throw OperatorError("`arrivals.load` of \(scenario.arrivals.load) leaves no request", at: trace.name)
        }
        countedTrace = scenario.arrivals.load == 1 || workload.promptsAreUnique ? trace : workload.asTrace(trace)
        try checkFit()
    }

    /// A request that no replica can hold would wait for ever.
    private func checkFit() throws(OperatorError) {
        let capacity = Cluster.hbmBlocks(model, workload) * workload.blockTokens
        let block = Double(Cluster.blockBytes(model, workload))
        let smaller = scenario.kvType == NumberFormat.bf16.rawValue ? ", set `model.kv` to fp8" : ""
        for (index, request) in workload.requests.enumerated() {
            let tokens = Int(request.inputTokens) + Int(request.outputTokens) + 2 * workload.blockTokens
            if tokens > capacity {
                throw OperatorError(
                    "request \(index + 1) has \(request.inputTokens) + \(request.outputTokens) tokens, more than the "
                        + "\(capacity) tokens of KV that a replica of \(scenario.tensorParallel) × \(gpu.name) holds",
                    at: trace.name, remedy: "raise `tensorParallel`\(smaller), or take GPUs with more memory")
            }
        }
        if scenario.tiers.dram.use, scenario.tiers.dram.perNode < 64 * block {
            throw OperatorError(
                "`tiers.dram.perNode` is smaller than 64 blocks of \(Int(block)) bytes", at: "scenario",
                remedy: "raise it, or set `tiers.dram.use` to false")
        }
    }

    /// Runs everything and makes the record. Systems are independent and run on `threads` threads; the record does not
    /// depend on how many.
    ///
    /// - Parameters:
    ///   - command: The command that makes the record again.
    ///   - overrides: `--set` options, for the record.
    ///   - progress: Told what was just finished, and the share done.
    public func record(
        _ extent: Extent, version: String, command: String, overrides: [String: String], threads: Int,
        progress: (String, Double) -> Void
    ) async -> Record {
        let sweep = LoadSweepPlan(self, extent)
        let jobs = jobs(extent, sweep)
        let outcomes = await Self.run(jobs, threads: threads, progress: progress)
        var record = Record(
            version: version, name: scenario.name, mode: .modelled, trace: traceSummary,
            configuration: configuration(command: command, overrides: overrides), modelError: ModelError(of: model),
            systems: [], prices: prices, checks: [])
        if workload.promptsAreUnique {
            record.notice = "This trace does not say which prompts share a prefix: every prompt is taken as unique."
        }
        var loads: [SweptLoad] = []
        var withoutPrefetch: Double?
        for outcome in outcomes {
            switch outcome {
            case .system(let result, let checks):
                record.systems.append(result)
                record.checks += checks
            case .curve(let curve): record.missRatioCurve = curve
            case .load(let load): loads.append(load)
            case .search(let result): record.sloSearch.append(result)
            case .withoutPrefetch(let seconds): withoutPrefetch = seconds
            }
        }
        record.loadSweep = sweep?.collect(loads)
        record.checks += ceilingChecks(record.systems) + curveChecks(record.missRatioCurve)
        if let withoutPrefetch, let own = record.systems.firstIndex(where: { $0.key == "1" }) {
            let with = record.systems[own].ttft.mean * Double(record.systems[own].ttft.count)
            record.systems[own].prefetch?.ttftSecondsBySecondRun = withoutPrefetch - with
        }
        return record
    }

    /// Runs the configured system once, on the calling thread and without a record, and returns how many requests
    /// ended: all of them. For benchmarks.
    public func completedRequests() -> Int {
        let cluster = cluster(.configured, workload: workload, isDetailed: false)
        cluster.run()
        return cluster.accounts.completed
    }

    /// No system that could be had serves more than a cache without end.
    private func ceilingChecks(_ systems: [SystemResult]) -> [Check] {
        guard let ceiling = systems.first(where: { $0.key == ComparedSystem.infinite.key }) else { return [] }
        let best = systems.filter { $0.role != ceiling.role }.map(\.ledger.served).max() ?? 0
        return [
            Check(
                name: "no system serves more than the infinite cache", passed: best <= ceiling.ledger.served,
                left: Double(best), right: Double(ceiling.ledger.served))
        ]
    }
}

extension ModelledReplay {
    /// A larger cache under LRU holds all that a smaller one does.
    func curveChecks(_ curve: MissRatioCurve?) -> [Check] {
        guard let misses = curve?.policies[PolicyName.lru.rawValue], misses.count > 1 else { return [] }
        let kept = zip(misses, misses.dropFirst()).count { $0 >= $1 }
        return [
            Check(
                name: "a larger LRU cache never misses more", passed: kept == misses.count - 1, left: Double(kept),
                right: Double(misses.count - 1))
        ]
    }
}

// MARK: - Jobs

extension ModelledReplay {
    /// A piece of work that depends on no other.
    enum Job: Sendable {
        case system(ModelledReplay, ComparedSystem)
        case curve(ModelledReplay)
        case load(ModelledReplay, ComparedSystem, Double)
        case search(ModelledReplay, ComparedSystem)
        /// The configured system with nothing brought up before it is asked for.
        case withoutPrefetch(ModelledReplay)
    }

    enum Outcome: Sendable {
        case system(SystemResult, [Check])
        case curve(MissRatioCurve)
        case load(SweptLoad)
        case search(SLOSearchResult)
        /// Seconds to the first token, summed over all requests.
        case withoutPrefetch(Double)
    }

    /// Systems that the sweeps compare: those that could be bought.
    static let sweptSystems: [ComparedSystem] = [.configured, .hbmOnly, .hostMemory, .localFlash, .sharedLRU]

    private func jobs(_ extent: Extent, _ sweep: LoadSweepPlan?) -> [Job] {
        func wants(_ system: ComparedSystem) -> Bool { extent.keys?.contains(system.key) ?? true }
        var jobs: [Job] = []
        for system in ComparedSystem.allCases where wants(system) { jobs.append(.system(self, system)) }
        if extent.countsCurve, !workload.promptsAreUnique { jobs.append(.curve(self)) }
        guard let sweep else { return jobs }
        if scenario.prefetch.use, scenario.tiers.dram.use { jobs.append(.withoutPrefetch(self)) }
        // No cache only has its smallest cluster sought: the others' gain is measured from there.
        for system in [.noCache] + Self.sweptSystems where wants(system) { jobs.append(.search(self, system)) }
        for load in sweep.loads.reversed() {
            for system in Self.sweptSystems where wants(system) { jobs.append(.load(self, system, load)) }
        }
        return jobs
    }

    private static func run(
        _ jobs: [Job], threads: Int, progress: (String, Double) -> Void
    ) async -> [Outcome] {
        await withTaskGroup(of: (Int, Outcome).self) { group in
            var outcomes = [Outcome?](repeating: nil, count: jobs.count)
            var next = 0
            var done = 0
            func start() {
                guard next < jobs.count else { return }
                let number = next
                let job = jobs[number]
                next += 1
                group.addTask { (number, job.run()) }
            }
            for _ in 0..<max(1, threads) { start() }
            while let (number, outcome) = await group.next() {
                outcomes[number] = outcome
                done += 1
                progress(jobs[number].name, Double(done) / Double(jobs.count))
                start()
            }
            return outcomes.compactMap { $0 }
        }
    }

    /// A cluster for one system, ready to run.
    func cluster(
        _ system: ComparedSystem, workload: Workload, replicas: Int? = nil, isDetailed: Bool
    ) -> Cluster {
        var scenario = system.scenario(from: scenario)
        if let replicas { scenario.replicas = replicas }
        var oracle = Cluster.Oracle.none
        if system == .infinite { oracle = .infinite }
        if system == .clairvoyant { oracle = .runs(clairvoyantRuns(workload)) }
        return Cluster(
            scenario: scenario, model: model, gpu: gpu, workload: workload, oracle: oracle, isDetailed: isDetailed)
    }

    /// Bytes of KV in all tiers of a system, GPU memory included.
    func totalBytes(_ system: ComparedSystem) -> Double {
        let scenario = system.scenario(from: scenario)
        let hbm = Double(Cluster.hbmBlocks(model, workload) * Cluster.blockBytes(model, workload) * scenario.replicas)
        return (scenario.engine.prefixCaching ? hbm : 0) + scenario.bytesBelowHBM
    }

    /// Per request, how many leading blocks one cache of the configured system's whole size would hit if it knew every
    /// request to come, in order of arrival.
    private func clairvoyantRuns(_ workload: Workload) -> [Int32] {
        let blockBytes = Double(Cluster.blockBytes(model, workload))
        let ends = workload.requests.map { $0.firstReference + Int($0.blockCount) }
        // Requests may lie out of order in `blocks` where a load is multiplied; then paths are laid out again.
        var blocks = workload.blocks
        var pathEnds = ends
        if zip(ends, ends.dropFirst()).contains(where: { $0 > $1 }) {
            blocks = []
            pathEnds = []
            for request in workload.requests {
                blocks += workload.blocks[request.firstReference..<request.firstReference + Int(request.blockCount)]
                pathEnds.append(blocks.count)
            }
        }
        let uses = NextUses(blocks: blocks, pathEnds: pathEnds, uniqueBlockCount: workload.uniqueBlockCount)
        var cache = ClairvoyantCache(
            capacity: max(1, Int(totalBytes(.configured) / blockBytes)), requestCount: pathEnds.count,
            uniqueBlockCount: workload.uniqueBlockCount)
        var runs: [Int32] = []
        runs.reserveCapacity(pathEnds.count)
        var start = 0
        for (request, end) in pathEnds.enumerated() {
            let path = blocks.span.extracting(start..<end)
            runs.append(Int32(cache.hitRun(path)))
            cache.access(request: request, path, nextUses: uses.requests.span.extracting(start..<end))
            start = end
        }
        return runs
    }
}

extension ModelledReplay.Job {
    var name: String {
        switch self {
        case .system(_, let system): "\(system.key) \(system.name)"
        case .curve: "miss-ratio curve"
        case .load(_, let system, let load): "\(system.key) at load \(load)"
        case .search(_, let system): "\(system.key), smallest cluster"
        case .withoutPrefetch: "1 without prefetch"
        }
    }

    func run() -> ModelledReplay.Outcome {
        switch self {
        case .system(let replay, let system):
            let cluster = replay.cluster(system, workload: replay.workload, isDetailed: true)
            cluster.run()
            return .system(cluster.result(of: system), cluster.checks(system.key))
        case .curve(let replay):
            return .curve(replay.missRatioCurve())
        case .load(let replay, let system, let load):
            return .load(replay.sweep(system, load: load))
        case .search(let replay, let system):
            // No cache is only where others' gains are measured from.
            return .search(replay.search(system, ifSlower: system != .noCache))
        case .withoutPrefetch(var replay):
            replay.scenario.prefetch.use = false
            let cluster = replay.cluster(.configured, workload: replay.workload, isDetailed: true)
            cluster.run()
            return .withoutPrefetch(cluster.secondsToFirstTokens)
        }
    }
}
