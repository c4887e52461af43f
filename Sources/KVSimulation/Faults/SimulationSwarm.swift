// Many seeds of the simulation, run side by side, and what came of them together.

import KVModel

/// What came of a swarm of seeds.
public struct SwarmResult: Sendable {
    /// Seeds that were run.
    public var seeds = 0
    /// What happened in all of them.
    public var counts = SimulationCounts()
    /// Seeds in which a rule was broken, lowest first.
    public var failures: [SimulationResult] = []
    /// In how many seeds each fault was in force.
    public var seedsOfFault: [SimulationFault: Int] = [:]
    /// Time to ready over its bound (1.1 × min(load, recompute) + D), at the 99th percentile, by the fault in force.
    public var waits: [SwarmWait] = []
    /// A digest of everything that happened.
    public var digest: UInt64 = 0

    /// Whether every rule held, the bound on waiting included.
    public var held: Bool { failures.isEmpty && waits.allSatisfy { $0.ratioP99 <= 1 } }
}

/// How long requests waited under one fault.
public struct SwarmWait: Sendable, Codable {
    /// The fault in force when the load began; nil: none.
    public var fault: String?
    /// Requests measured.
    public var requests: Int
    /// Time to ready over its bound: the 99th percentile and the most.
    public var ratioP99: Double
    /// See `ratioP99`.
    public var ratioMax: Double
}

/// A swarm of simulations.
public struct SimulationSwarm: Sendable {
    /// The first seed.
    public var firstSeed: UInt64
    /// How many seeds.
    public var seeds: Int
    /// Virtual seconds of each, before it comes to rest.
    public var seconds: Double
    /// Faults to choose from; nil: all.
    public var faults: [SimulationFault]?

    /// A swarm of `seeds` seeds from `firstSeed` on.
    public init(firstSeed: UInt64, seeds: Int, seconds: Double, faults: [SimulationFault]? = nil) {
        self.firstSeed = firstSeed
        self.seeds = seeds
        self.seconds = seconds
        self.faults = faults
    }

    /// Runs all seeds on `threads` threads. The result does not depend on their number.
    ///
    /// - Parameters:
    ///   - onStart: Told each seed before it runs, from any thread: whoever wants to name it if the process dies.
    ///   - onEnd: Told how many seeds are over.
    public func run(
        threads: Int, onStart: @escaping @Sendable (UInt64) -> Void = { _ in },
        onEnd: @escaping @Sendable (Int) -> Void = { _ in }
    ) async -> SwarmResult {
        var collected: [SimulationResult] = []
        await withTaskGroup(of: SimulationResult.self) { group in
            var next = 0
            func add() {
                guard next < seeds else { return }
                let seed = firstSeed &+ UInt64(next)
                next += 1
                let (seconds, faults) = (seconds, faults)
                group.addTask {
                    onStart(seed)
                    return Simulation(seed: seed, seconds: seconds, faults: faults).run()
                }
            }
            for _ in 0..<max(1, threads) { add() }
            for await result in group {
                collected.append(result)
                onEnd(collected.count)
                add()
            }
        }
        return Self.sum(collected.sorted { $0.seed < $1.seed })
    }

    private static func sum(_ results: [SimulationResult]) -> SwarmResult {
        var swarm = SwarmResult()
        var ratios: [[Double]] = Array(repeating: [], count: SimulationFault.allCases.count + 1)
        for result in results {
            swarm.seeds += 1
            swarm.counts.add(result.counts)
            swarm.digest = mixBits(swarm.digest ^ result.digest)
            if !result.broken.isEmpty { swarm.failures.append(result) }
            for fault in result.faults { swarm.seedsOfFault[fault, default: 0] += 1 }
            for wait in result.waits {
                let place = wait.fault.flatMap { SimulationFault.allCases.firstIndex(of: $0) }
                ratios[place.map { $0 + 1 } ?? 0].append(wait.seconds / wait.bound)
            }
        }
        for (place, some) in ratios.enumerated() where !some.isEmpty {
            let sorted = some.sorted()
            swarm.waits.append(
                SwarmWait(
                    fault: place == 0 ? nil : SimulationFault.allCases[place - 1].rawValue, requests: sorted.count,
                    ratioP99: sorted[min(sorted.count - 1, sorted.count * 99 / 100)], ratioMax: sorted[sorted.count - 1]
                ))
        }
        return swarm
    }
}
