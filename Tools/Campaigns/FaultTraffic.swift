// Requests of a seeded engine, without end: conversations whose blocks the store has, and prompts that nobody ever saw. What
// each of them waited is kept with when it began, so that it can be laid beside what was broken then.

import Foundation
import KVModel
import KVSystem
import Synchronization

/// The prompts of the traffic: what is in them follows from their numbers.
struct FaultPrompts: Sendable {
    static let conversations = 48
    static let blocksMax = 48
    /// A prompt that nobody saw has so many tokens: the one whose prefill a miss must not delay.
    static let newTokens = 2048
    let blockTokens: Int

    func blockCount(_ conversation: Int) -> Int { 16 + Int(mixBits(UInt64(conversation) ^ 77) % 33) }

    func names(_ conversation: Int) -> [ObjectName] { names(UInt64(conversation), blockCount(conversation)) }

    func newNames(_ number: Int) -> [ObjectName] { names(1 << 32 | UInt64(number), Self.newTokens / blockTokens) }

    private func names(_ chain: UInt64, _ count: Int) -> [ObjectName] {
        (0..<UInt64(count)).map { block in
            let seed = mixBits(chain &+ 0x51) &+ block
            return ObjectName(FullKey(mixBits(seed), mixBits(~seed), chain, block))
        }
    }
}

/// A request of the traffic.
struct FaultSample {
    var turn: EngineTurn
    var blocks: Int
    var isNew: Bool
    /// Why the agent did what it did, where that was asked: of requests that waited and got less than was found.
    var reason = ""

    /// Whether blocks of the store came, all that were found.
    var isStoreHit: Bool { turn.inStore > 0 && turn.came == turn.found }
}

/// The threads that ask.
final class FaultTraffic: Sendable {
    static let workers = 4
    private struct State {
        var samples: [FaultSample] = []
        var newPrompts = 0
        /// When this process stood still although it wanted to run: the machine's doing, nobody else's.
        var pauses: [ClosedRange<Instant>] = []
        var isOver = false
    }

    private let engine: EngineUnderTest
    private let prompts: FaultPrompts
    /// Why the agent served the last request of a conversation as it did; nil: nobody wants to know.
    private let explain: (@Sendable (UInt64) -> String)?
    private let state = Mutex(State())
    private let threads = Mutex<[EngineThread]>([])

    init(
        _ engine: EngineUnderTest, _ prompts: FaultPrompts, seed: UInt64, explain: (@Sendable (UInt64) -> String)? = nil
    ) throws {
        (self.engine, self.prompts, self.explain) = (engine, prompts, explain)
        for worker in 0..<Self.workers {
            let source = RandomSource(seed: seed &+ UInt64(worker) &* 7919)
            let thread = try EngineThread("traffic-\(worker)") { [self] in run(worker, source) }
            threads.withLock { $0.append(thread) }
        }
        let heart = try EngineThread("heart") { [self] in beat() }
        threads.withLock { $0.append(heart) }
    }

    func end() {
        state.withLock { $0.isOver = true }
        for thread in threads.withLock({ $0 }) { thread.join() }
    }

    /// What began in a stretch of time and has ended by now.
    func samples(from begin: Instant, to end: Instant = .distantFuture) -> [FaultSample] {
        state.withLock { $0.samples.filter { $0.turn.began >= begin && $0.turn.began < end } }
    }

    /// Stretches of time in which the machine let nothing run.
    var pauses: [ClosedRange<Instant>] { state.withLock { $0.pauses } }

    /// Looks at the clock every few milliseconds.
    private func beat() {
        var last = MonotonicClock.now
        while !state.withLock({ $0.isOver }) {
            usleep(5000)
            let now = MonotonicClock.now
            let pause = last...now
            if now - last > Duration(milliseconds: 60) { state.withLock { $0.pauses.append(pause) } }
            last = now
        }
    }

    private func run(_ worker: Int, _ source: RandomSource) {
        var source = source
        let rows = worker * FaultPrompts.blocksMax..<(worker + 1) * FaultPrompts.blocksMax
        while !state.withLock({ $0.isOver }) {
            let isNew = source.below(16) == 0
            let conversation = source.below(FaultPrompts.conversations)
            let number = state.withLock { state in
                state.newPrompts += isNew ? 1 : 0
                return state.newPrompts
            }
            let names = isNew ? prompts.newNames(number) : prompts.names(conversation)
            let session = isNew ? 1 << 32 | UInt64(number) : UInt64(conversation) + 1
            let turn = engine.serve(
                names, rows: rows, session: session, promptTokens: names.count * prompts.blockTokens)
            var sample = FaultSample(turn: turn, blocks: names.count, isNew: isNew)
            if let explain, turn.readySeconds > 0.02, turn.came < turn.found { sample.reason = explain(session) }
            state.withLock { [sample] in $0.samples.append(sample) }
            // An engine has other things to do: 30 ms of them, in the mean.
            usleep(UInt32(60_000 * source.uniform()))
        }
    }
}
