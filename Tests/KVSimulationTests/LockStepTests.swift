// Lock-step replays of modelled nodes: tokens add up, what one node saved another hits, and nothing depends on chance.

import Foundation
import KVModel
import KVReport
import KVServing
import KVSimulation
import KVTrace
import Testing

@Suite struct LockStepTests {
    private let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Traces")

    private func replay(_ trace: String, _ overrides: [(key: String, value: String)] = []) throws -> ModelledReplay {
        let trace = try Trace.read(from: folder.appendingPathComponent(trace).path)
        let scenario = try Scenario.read(yaml: nil, file: "default.yaml", overrides: overrides)
        return try ModelledReplay(trace: trace, scenario: scenario, catalogue: .builtIn)
    }

    /// Two nodes of the scenario's own rules.
    private func stillNodes(_ replay: ModelledReplay) -> [any LockStepNode] {
        replay.stillNodes(
            2, replay.lockStepConfiguration, links: replay.idleLinks(blockBytes: replay.blockBytes))
    }

    @Test func everyTokenIsInOneClassAndTheSameEachTime() throws {
        let replay = try replay("chat.jsonl.gz")
        let first = try replay.lockStep(over: stillNodes(replay), router: .migrating)
        let second = try replay.lockStep(over: stillNodes(replay), router: .migrating)
        #expect(first.ledger == second.ledger)
        #expect(first.ledger.total == first.promptTokens)
        #expect(first.ledger.served > 0)
    }

    @Test func conversationsThatMigrateGoOnFromTheStore() throws {
        let replay = try replay("chat.jsonl.gz")
        let sticky = try replay.lockStep(over: stillNodes(replay), router: .sticky)
        let roaming = try replay.lockStep(over: stillNodes(replay), router: .roundRobin)
        // What a conversation's old engine held must come from elsewhere now, and it does.
        #expect(roaming.ledger.flash > sticky.ledger.flash)
        #expect(Double(roaming.ledger.served) > 0.9 * Double(sticky.ledger.served))
    }
}
