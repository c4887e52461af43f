// What a record says of the replay itself: the trace, the scenario, the prices.

import Crypto
import KVModel
import KVReport
import KVServing

extension ModelledReplay {
    var traceSummary: TraceSummary {
        TraceSummary(
            name: trace.name, format: trace.format.rawValue, sha256: trace.sha256, requests: workload.requests.count,
            inputTokens: workload.inputTokens, outputTokens: workload.outputTokens,
            blockReferences: workload.blocks.count, uniqueBlocks: workload.distinctBlockCount,
            blockTokens: workload.blockTokens, spanSeconds: Double(workload.span) / 1e9,
            sessions: workload.sessionCount, skippedLines: trace.skippedLineCount)
    }

    /// The tiers of the configured system, nearest to the GPU first.
    var recordedTiers: [RecordedTier] {
        let tiers = scenario.tiers
        let nodes = Double(scenario.nodes)
        let hbm = Double(Cluster.hbmBlocks(model, workload) * Cluster.blockBytes(model, workload) * scenario.replicas)
        var all = [RecordedTier(tier: Tier.hbm.name, bytes: hbm, shared: false)]
        if tiers.dram.use { all.append(.init(tier: Tier.dram.name, bytes: tiers.dram.perNode * nodes, shared: false)) }
        if tiers.nvme.use { all.append(.init(tier: Tier.nvme.name, bytes: tiers.nvme.perNode * nodes, shared: false)) }
        if tiers.dram.use, tiers.flash.use {
            let bytes = tiers.flash.perServer * Double(tiers.flash.servers)
            all.append(.init(tier: Tier.flash.name, bytes: bytes, shared: true))
        }
        return all
    }

    func configuration(command: String, overrides: [String: String]) -> Configuration {
        Configuration(
            seed: scenario.seed, scenario: scenario.name, scenarioSHA256: Self.digest(scenario.text),
            scenarioText: scenario.text, overrides: overrides, command: command, model: model.shape.name, gpu: gpu.name,
            weights: scenario.weights, kvType: scenario.kvType, replicas: scenario.replicas,
            tensorParallel: scenario.tensorParallel, gpus: scenario.gpus, ownership: scenario.ownership.rawValue,
            tiers: recordedTiers, inclusion: scenario.tiers.inclusion.rawValue,
            policy: scenario.tiers.policy.rawValue, planner: scenario.planner.policy.rawValue,
            overlap: scenario.engine.overlap.rawValue,
            linkDiscipline: scenario.links.discipline == .fair ? "processor-sharing" : "fifo",
            router: scenario.router.policy.rawValue, routerStalenessSeconds: scenario.router.staleness,
            prefetch: scenario.prefetch.use, arrivals: scenario.arrivals.mode.rawValue, warmUpShare: scenario.warmUp,
            requestOverheadSeconds: scenario.engine.requestOverhead,
            slo: slo,
            kvBytesPerToken: model.kvBytesPerToken,
            constantsSource: "\(model.shape.source); \(gpu.source)")
    }

    var slo: SLO {
        SLO(
            name: scenario.slo.name, ttftSeconds: scenario.slo.ttft, tpotSeconds: scenario.slo.tpot,
            requiredShare: scenario.slo.share)
    }

    var prices: [Price] {
        let prices = scenario.prices
        let energy = scenario.energy
        return [
            Price(key: "prices.gpuHour", value: prices.gpuHour, unit: "USD", label: "\(gpu.name), per GPU-hour"),
            Price(
                key: "prices.storeHour", value: prices.storeHour, unit: "USD",
                label: "storage server, per hour"),
            Price(
                key: "prices.switchHour", value: prices.switchHour, unit: "USD",
                label: "share of the switches, per storage server and hour"),
            Price(
                key: "prices.nvmeHour", value: prices.nvmeHour, unit: "USD",
                label: "local flash, per TB and hour"),
            Price(key: "prices.dramHour", value: prices.dramHour, unit: "USD", label: "DRAM, per TB and hour"),
            Price(
                key: "energy.gpu", value: energy.gpu > 0 ? energy.gpu : gpu.watts, unit: "W",
                label: "\(gpu.name), board power"),
            Price(key: "energy.prefill", value: energy.prefill, unit: "of board power", label: "a GPU that prefills"),
            Price(key: "energy.decode", value: energy.decode, unit: "of board power", label: "a GPU that decodes"),
            Price(key: "energy.idle", value: energy.idle, unit: "of board power", label: "a GPU that waits"),
            Price(key: "energy.drive", value: energy.drive, unit: "J/GB", label: "moving bytes in or out of a drive"),
            Price(key: "energy.nic", value: energy.nic, unit: "J/GB", label: "moving bytes through a NIC"),
            Price(key: "energy.store", value: energy.store, unit: "J/GB", label: "a storage server's share"),
        ]
    }

    private static func digest(_ text: String) -> String {
        SHA256.hash(data: Array(text.utf8)).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }
}

extension Scenario {
    /// The serving model and the GPU that a scenario names.
    func servingModel(_ catalogue: Catalogue) throws(OperatorError) -> (ServingModel, GPU) {
        func named<Entry>(
            _ key: String, _ find: () throws(OperatorError) -> Entry
        ) throws(OperatorError) -> Entry {
            do { return try find() } catch { throw error.under("scenario `\(name)`, \(key)") }
        }
        let shape = try named("model.name") { () throws(OperatorError) in try catalogue.model(named: modelName) }
        let gpu = try named("gpu.name") { () throws(OperatorError) in try catalogue.gpu(named: gpuName) }
        var engineConstants = try named("engine.name") { () throws(OperatorError) in
            try catalogue.engine(named: engine.name)
        }
        engineConstants.memoryShare = engine.memoryShare
        func format(_ name: String, _ key: String) throws(OperatorError) -> NumberFormat {
            guard let format = NumberFormat(rawValue: name) else {
                let known = NumberFormat.allCases.map(\.rawValue).joined(separator: ", ")
                throw OperatorError("`\(key)` is `\(name)`, not one of \(known)", at: "scenario")
            }
            return format
        }
        let model = try ServingModel(
            shape, gpu: gpu, tensorParallel: tensorParallel, weights: try format(weights, "model.weights"),
            kv: try format(kvType, "model.kv"), engine: engineConstants, chunkTokens: engine.tokenBudget)
        return (model, gpu)
    }
}
