// The modelled cluster replay against its bounds: one configuration, one core, look-ups and tiering decisions included.

import KVModel
import KVServing
import KVSimulation
import KVTrace

extension ReplayBenchmark {
    /// Requests of the conversation trace and block references of the coding-agent trace on the default scenario's own
    /// system. Bounds: 3 M requests a minute, 20 µs each; 5 M block references a second, 200 ns each.
    func clusterRows(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        var rows: [BenchmarkRow] = []
        let conversation = try setting.trace("mooncake_conversation").repeated(times: 4)
        rows.append(
            boundRow(
                name: "cluster request", unit: "µs",
                measured: try runs(conversation, setting).map { $0 / Double(conversation.requests.count) * 1e6 },
                bound: 20, boundName: "3 M requests a minute", conditions: conditions(conversation)))
        guard setting.realTrace("claudecode_a") != nil else { return rows }
        let agents = try setting.trace("claudecode_a")
        rows.append(
            boundRow(
                name: "cluster reference", unit: "ns",
                measured: try runs(agents, setting).map { $0 / Double(agents.blocks.count) * 1e9 },
                bound: 200, boundName: "5 M references a second", conditions: conditions(agents)))
        return rows
    }

    /// Processor seconds of each run. Replicas of TP 8, so that the longest prompts fit.
    private func runs(_ trace: Trace, _ setting: BenchmarkSetting) throws -> [Double] {
        let scenario = try Scenario.read(
            yaml: nil, file: "default.yaml", overrides: [("replicas", "8"), ("tensorParallel", "8")])
        let replay = try ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
        return (0..<setting.longRunCount).map { _ in seconds { keep(replay.completedRequests()) } }
    }

    private func conditions(_ trace: Trace) -> String {
        "\(trace.name), \(trace.requests.count) requests, \(trace.blocks.count) references; the default scenario on 8 "
            + "replicas of TP 8: holdfast policy, prefetch, cache-aware router, processor sharing; processor time, "
            + "reading left out"
    }
}
