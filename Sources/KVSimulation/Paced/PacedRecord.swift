// A record of a paced replay: the ordinary shape, so that `report` shows it beside a modelled one of the same trace.

import KVModel
import KVReport
import KVServing

extension ModelledReplay {
    /// Blocks that all requests name, repetitions counted.
    public var blockReferences: Int { workload.blocks.count }

    /// From the first arrival to the last, seconds.
    public var spanSeconds: Double { Double(workload.span) / 1e9 }

    /// A record of a paced replay.
    ///
    /// - Parameters:
    ///   - ledger: Where the prompts' tokens came from, by the agents' books.
    ///   - prefetch: What agents brought up before it was asked for; nil where that was off.
    ///   - route: How conversations found engines.
    ///   - compression: How many times as fast as it was the trace ran.
    ///   - hbmBytes: HBM slots of all nodes, where they are the nodes' to give.
    ///   - live: What only a live run knows; nil where the nodes were made up.
    public func record(
        of result: PacedResult, ledger: Ledger, prefetch: PrefetchBalance?, route: LockStepRouter,
        compression: Double, version: String, command: String, overrides: [String: String], hbmBytes: Double? = nil,
        live: LiveRun?
    ) -> Record {
        var system = SystemResult(
            counted: ComparedSystem.configured.key, name: "Paced", role: ComparedSystem.configured.role, ledger: ledger)
        let span = max(result.span, 1e-9)
        system.completedRequests = result.completed
        system.ttft = Distribution(of: result.ttft)
        system.tpot = Distribution(of: result.tpot)
        system.goodput = Double(result.metSLO) / span
        system.metSLO = Double(result.metSLO) / Double(max(1, result.completed))
        system.offered = Double(result.arrived) / max(1e-9, spanSeconds)
        system.gpuSeconds = result.gpu
        system.prefetch = prefetch
        let ceiling = SystemResult(
            counted: ComparedSystem.infinite.key, name: ComparedSystem.infinite.name,
            role: ComparedSystem.infinite.role, ledger: result.ceiling)
        let total = ledger.total
        return Record(
            version: version, name: "\(scenario.name), paced", mode: live == nil ? .modelled : .live,
            trace: traceSummary,
            configuration: configuration(
                command: command, overrides: overrides, route: route, prefetch: prefetch != nil, hbmBytes: hbmBytes),
            modelError: ModelError(of: model), systems: [system, ceiling], prices: prices,
            checks: [
                Check(
                    name: "no system serves more than the infinite cache",
                    passed: ledger.served <= result.ceiling.served,
                    left: Double(ledger.served), right: Double(result.ceiling.served)),
                Check(
                    name: "every prompt token is in exactly one class", passed: total == result.promptTokens,
                    left: Double(total), right: Double(result.promptTokens)),
            ],
            notice: "Live, \(compression) times as fast as the trace: look-ups and loads are measured and computing is "
                + "modelled; times are the trace's, and what was measured counts as long as it took.",
            live: live)
    }
}
