// `replay --lockstep`: one request at a time, so that what is decided depends on nothing but the trace. Its record has
// the ordinary shape, and `report` shows it beside others.

import ArgumentParser
import KVAgent
import KVModel
import KVReport
import KVSimulation
import KVTiering

extension LiveOptions {
    /// Replays the trace over modelled or live nodes.
    func run(_ input: TraceInput, _ modelled: ModelledOptions, json: Bool, terminal: TerminalOptions) throws {
        let router = try router()
        let scenario = try modelled.scenario.read()
        let (killings, blockBytes) = (try killings(), try size())
        try modelled.checkOutput()
        let trace = try input.read()
        let replay = try ModelledReplay(
            trace: trace, scenario: scenario, catalogue: try modelled.scenario.readCatalogue())
        try check(killings, requests: replay.requestCount)
        let hbmBlocks = try hbmBlocks(of: replay)
        let settings = try LockStepSettings(replay, blockBytes: blockBytes, hbmBlocks: hbmBlocks)
        let count = agents ?? scenario.nodes
        let cluster = isLive ? try LiveCluster(replay, settings, agents: count, killings: killings) : nil
        let nodes: [any LockStepNode] =
            try cluster?.nodes ?? replay.stillNodes(count, try settings.tiering(), links: settings.links)
        let bar = ProgressBar("replaying", forced: input.progress)
        let total = Double(replay.requestCount)
        let result = try replay.lockStep(over: nodes, router: router, ownsDevice: hbmBlocks > 0) { request in
            bar.update(Double(request) / total, detail: "\(request) requests")
            try cluster?.begin(request)
        }
        bar.finish()
        var live: LiveRun?
        if let cluster {
            let report = LiveReport(counts: cluster.counts, result: result, leftKillings: cluster.leftKillings)
            try report.tell()
            live = LiveRun(machine: cluster.machine, runs: 1)
            // Of copies to and from a device a profile says nothing.
            if let profile = modelled.scenario.profile, hbmBlocks == 0 {
                let links = try AgentSettingsReading.profile(profile).links(blockBytes: blockBytes)
                live?.loads = report.loads(by: links, blockBytes: blockBytes)
                for load in live?.loads ?? [] { note("from \(load.tier): \(load.words)") }
            }
        }
        let overrides = Dictionary(try modelled.scenario.readOverrides().map { ($0.key, $0.value) }) { _, last in last }
        let record = replay.record(
            of: result, route: router, version: Holdfast.configuration.version,
            command: modelled.command(input, of: trace.name, words), overrides: overrides,
            hbmBytes: hbmBlocks > 0 ? Double(hbmBlocks * replay.blockBytes * count) : nil,
            live: live)
        try modelled.finish(record, json: json, terminal: terminal)
    }
}

/// What only real bytes can tell, beside the record.
struct LiveReport {
    let counts: LiveCounts
    let result: LockStepResult
    let leftKillings: [LiveKilling]

    /// How long loads took beside what a planner with a profile's paths says of them.
    func loads(by links: LinkView, blockBytes: Int) -> [LoadTimes] {
        let slice = AgentConfiguration.sliceBlocks(of: blockBytes)
        return LoadTimes.rows(
            of: counts.loads.map { load in
                let found = load.found
                let blocks = (
                    dram: Int(found.dramBlocks), nvme: Int(found.nvmeBlocks), flash: Int(found.flashBlocks)
                )
                let tiers = [(Tier.dram, blocks.dram), (.nvme, blocks.nvme), (.flash, blocks.flash)].filter { $0.1 > 0 }
                return PredictedLoad(
                    tier: tiers.count == 1 ? tiers[0].0 : nil,
                    blocks: blocks.dram + blocks.nvme + blocks.flash,
                    predictedSeconds: links.seconds(of: blocks, blockBytes: blockBytes, sliceBlocks: slice),
                    measuredSeconds: load.seconds)
            })
    }

    /// Says it, and fails where bytes were wrong.
    func tell() throws(OperatorError) {
        note(
            "\(grouped(counts.bytesCompared)) bytes of hits were compared, all right; "
                + "\(grouped(counts.bytesOffered)) bytes were offered")
        if result.unbookedTokens > 0 {
            note("\(grouped(result.unbookedTokens)) prompt tokens came to an engine whose agent had died")
        }
        for killing in leftKillings {
            note("\(killing.what.rawValue)@\(killing.request) lived on: nothing was loaded from then on")
        }
        guard counts.wrongBlocks == 0 else {
            throw OperatorError(
                "\(counts.wrongBlocks) blocks came back with wrong bytes", at: "live replay",
                remedy: "this is a defect of Holdfast; keep the trace and report it")
        }
    }
}
