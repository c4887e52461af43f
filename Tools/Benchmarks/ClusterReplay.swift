// The modelled cluster replay against its bounds: one configuration, one core, look-ups and tiering decisions included.

import KVModel
import KVServing
import KVSimulation
import KVTrace

extension ReplayBenchmark {
    /// Requests of the conversation trace and block references of the coding-agent trace on the default scenario with
    /// clusters that are large enough: the model has 98 % (one node) and 97 % (eight nodes) of the conversation's requests
    /// within the scenario's SLO. On one node also the systems that a record has beside it, with fewer tiers and plain LRU.
    /// Bounds: 3 M requests a minute, 20 µs each; 5 M block references a second, 200 ns each.
    func clusterRows(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        var rows: [BenchmarkRow] = []
        let conversation = try setting.trace("mooncake_conversation").repeated(times: 4)
        for cluster in ReplayedCluster.ofRequests where setting.wants("cluster request, \(cluster.name)") {
            rows.append(
                boundRow(
                    name: "cluster request, \(cluster.name)", unit: "µs",
                    measured: try runs(conversation, cluster, setting).map {
                        $0 / Double(conversation.requests.count) * 1e6
                    },
                    bound: 20, boundName: "3 M requests a minute", conditions: conditions(conversation, cluster)))
        }
        guard setting.realTrace("claudecode_a") != nil, setting.wants("cluster reference") else { return rows }
        let agents = try setting.trace("claudecode_a")
        rows.append(
            boundRow(
                name: "cluster reference, \(ReplayedCluster.eightNodes.name)", unit: "ns",
                measured: try runs(agents, .eightNodes, setting).map { $0 / Double(agents.blocks.count) * 1e9 },
                bound: 200, boundName: "5 M references a second", conditions: conditions(agents, .eightNodes)))
        return rows
    }

    /// Processor seconds of each run.
    private func runs(_ trace: Trace, _ cluster: ReplayedCluster, _ setting: BenchmarkSetting) throws -> [Double] {
        let scenario = try Scenario.read(yaml: nil, file: "default.yaml", overrides: cluster.overrides)
        let replay = try ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
        return (0..<setting.longRunCount).map { _ in seconds { keep(replay.completedRequests()) } }
    }

    private func conditions(_ trace: Trace, _ cluster: ReplayedCluster) -> String {
        "\(trace.name), \(trace.requests.count) requests, \(trace.blocks.count) references; the default scenario on "
            + "\(cluster.words); cache-aware router, processor sharing; processor time, reading left out"
    }
}

/// A cluster that the bench replays.
private struct ReplayedCluster {
    let name: String
    let words: String
    let overrides: [(String, String)]

    /// What requests are timed on.
    static let ofRequests = [oneNode, oneNodeSharedLRU, oneNodeDRAM, oneNodeHBM, eightNodes]

    static let oneNode = ReplayedCluster(
        name: "one node, holdfast", words: "one node of 8 H100, Llama-3.1-8B on each, holdfast policy, prefetch",
        overrides: [("model.name", "Llama-3.1-8B"), ("replicas", "8"), ("tensorParallel", "1")])
    static let oneNodeSharedLRU = oneNode.with("DRAM and store, LRU", [])
    static let oneNodeDRAM = oneNode.with("DRAM, LRU", [("tiers.flash.use", "false")])
    static let oneNodeHBM = oneNode.with("HBM only", [("tiers.flash.use", "false"), ("tiers.dram.use", "false")])
    /// Replicas of TP 8, so that the longest prompts of coding agents fit.
    static let eightNodes = ReplayedCluster(
        name: "8 nodes, holdfast", words: "8 nodes of 8 H100, Llama-3.1-70B on each node, holdfast policy, prefetch",
        overrides: [("replicas", "8"), ("tensorParallel", "8")])

    /// The same GPUs with plain caches.
    private func with(_ tiers: String, _ changes: [(String, String)]) -> ReplayedCluster {
        ReplayedCluster(
            name: "one node, \(tiers)", words: "one node of 8 H100, Llama-3.1-8B on each, \(tiers), no prefetch",
            overrides: overrides + [
                ("tiers.policy", "lru"), ("tiers.flash.policy", "lru"), ("prefetch.use", "false"),
            ] + changes)
    }
}
