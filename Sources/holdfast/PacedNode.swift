// A node of a paced live replay: an agent's process with its engines, and the books of the agents that died there.

import KVAgent
import KVModel
import KVReport
import KVTiering

/// A live node of a paced replay.
final class PacedNode {
    let agent: AgentProcess
    let engines: [PacedEngine]
    /// Books of agents that died.
    private var buried = Ledger()
    private var buriedPrefetch: [String: Int] = [:]

    init(_ agent: AgentProcess, engines: [PacedEngine]) { (self.agent, self.engines) = (agent, engines) }

    /// Kills the agent, with its books read just before, and starts another, with nothing.
    func replaceAgent() throws {
        buried = try ledger()
        buriedPrefetch = prefetch()
        agent.kill()
        try agent.start()
        for engine in engines { try engine.waitUntilOpen() }
    }

    /// Where tokens came from, by the books of the agents that this node had.
    func ledger() throws -> Ledger {
        var sum = buried
        guard let status = agent.status() else { return sum }
        for tokenClass in TokenClass.allCases { sum.add(status.ledger["\(tokenClass)"] ?? 0, to: tokenClass) }
        return sum
    }

    /// Blocks brought up early, by the names of the agents' counts, of all agents that this node had.
    func prefetch() -> [String: Int] {
        buriedPrefetch.merging(agent.status()?.prefetch ?? [:], uniquingKeysWith: +)
    }

    func end() { for engine in engines { engine.close() } }
}
