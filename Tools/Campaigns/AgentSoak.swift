// An agent whose tiers are all too small for its engines, which come, go and vanish in the middle of a load, for minutes or
// an hour: every byte of each hit is compared, its memory stays flat and within its ceilings, and in the end nothing is left
// of what was lent.

import Foundation
import KVAgent
import KVModel
import KVSystem
import Synchronization

/// One agent and its store, several engines, one clock.
struct AgentSoakCampaign {
    let seconds: Double
    let seed: UInt64
    private static let workers = 3
    private static let blockBytes = 64 << 10
    private static let prompts = FaultPrompts(blockTokens: 128)
    /// 0.8 GiB of blocks over 320 MiB of tiers; low numbers are asked for more often.
    private static let conversations = 400

    /// What the run did.
    private struct Tally {
        var requests = 0
        var found = 0
        var came = 0
        var wrong = 0
        var hung = 0
        var engines = 0
        var vanished = 0
    }

    private final class SharedTally: Sendable {
        let sums = Mutex(Tally())
    }

    func run() throws -> CampaignResult {
        var result = CampaignResult(name: "agent soak")
        let folder = try ScratchFolder()
        let store = try StoreUnderTest(folder, size: "192MiB", memory: "32MiB")
        let agent = try AgentUnderTest(
            folder,
            settings: [
                "store: 127.0.0.1:\(store.port)", "keys: \(store.keys)", "dram: 32MiB", "hugePages: false",
                "pinMemory: false", "nvme: \(folder.path)/agent.flash", "nvmeSize: 96MiB", "planner: always",
            ])
        // The first engine decides how large a block is; what an agent needs, it has after that.
        let tally = SharedTally()
        var source = RandomSource(seed: seed)
        Self.session(agent, tally, &source, turns: 20, vanishes: false)
        guard settled(agent) != nil else { throw OperatorError("the agent does not come to rest") }
        var descriptors = OpenDescriptors(of: agent.identifier)
        var course = MemoryCourse(of: agent.identifier)
        let began = MonotonicClock.now
        let end = began + Duration(seconds: seconds)
        let threads = try (0..<Self.workers).map { worker in
            let source = RandomSource(seed: seed &+ UInt64(worker + 1) &* 7919)
            return try EngineThread("soak-\(worker)") { Self.work(agent, tally, source, until: end) }
        }
        while MonotonicClock.now < end {
            usleep(UInt32(seconds / 60 * 1e6))
            course.sample()
            guard let status = agent.status() else {
                result.hangs += 1
                continue
            }
            let isWithin =
                status.dram.usedBytes <= status.dram.totalBytes && status.nvme.usedBytes <= status.nvme.totalBytes
            if !isWithin { result.leaks += 1 }
        }
        for thread in threads { thread.join() }
        let sums = tally.sums.withLock { $0 }
        (result.trials, result.wrongBytes, result.hangs) = (sums.requests, sums.wrong, result.hangs + sums.hung)
        guard let rest = settled(agent) else {
            result.leaks += 1
            return result
        }
        let hits = [rest.dram.hitTokens, rest.nvme.hitTokens, rest.flash.hitTokens]
        note(
            "\(sums.engines) engines, \(sums.vanished) of them gone in the middle of a load; blocks found \(sums.found), "
                + "came \(sums.came); tokens hit in memory, local flash, store: \(hits)")
        // A run in which a tier had nothing to do would prove nothing.
        guard hits.allSatisfy({ $0 > 0 }), sums.vanished > 0 else {
            throw OperatorError("a tier was idle: take longer")
        }
        if !descriptors.awaitFirst(within: Duration(seconds: 30)) || !course.isFlat { result.leaks += 1 }
        note("\(course.words); \(descriptors.words)")
        result.seconds = (MonotonicClock.now - began).seconds
        return result
    }

    /// The agent's state when no engine is left and nothing is under way or lent. Nil: that does not come.
    private func settled(_ agent: AgentUnderTest) -> AgentStatus? {
        let deadline = MonotonicClock.now + Duration(seconds: 60)
        while MonotonicClock.now < deadline {
            if let status = agent.status() {
                let open = status.openRequests + status.transfers + status.questions
                let lent = status.loans + status.loanedBytes + status.reservedBytes + status.pins
                if status.engines.isEmpty, open == 0, lent == 0 { return status }
            }
            usleep(100_000)
        }
        return nil
    }

    private static func work(
        _ agent: AgentUnderTest, _ tally: SharedTally, _ source: RandomSource, until end: Instant
    ) {
        var source = source
        while MonotonicClock.now < end {
            session(agent, tally, &source, turns: 50 + source.below(150), vanishes: source.below(3) == 0, until: end)
        }
    }

    /// One engine, from its hello to its end.
    private static func session(
        _ agent: AgentUnderTest, _ tally: SharedTally, _ source: inout RandomSource, turns: Int,
        vanishes: Bool,
        until end: Instant = .distantFuture
    ) {
        guard
            let engine = try? EngineUnderTest(
                socket: agent.socket, blockTokens: prompts.blockTokens, blockBytes: blockBytes,
                rows: FaultPrompts.blocksMax)
        else { return tally.sums.withLock { $0.hung += 1 } }
        for _ in 0..<turns where MonotonicClock.now < end {
            let conversation = min(source.below(conversations), source.below(conversations))
            let names = prompts.names(conversation)
            let turn = engine.serve(
                names, rows: 0..<FaultPrompts.blocksMax, session: UInt64(conversation) + 1,
                promptTokens: names.count * prompts.blockTokens)
            tally.sums.withLock {
                $0.requests += 1
                $0.found += turn.found
                $0.came += turn.came
                $0.wrong += turn.wrongBlocks
                $0.hung += turn.hung ? 1 : 0
            }
        }
        if vanishes { engine.beginLoad(prompts.names(source.below(40))) }
        engine.close()
        tally.sums.withLock {
            $0.engines += 1
            $0.vanished += vanishes ? 1 : 0
        }
    }
}
