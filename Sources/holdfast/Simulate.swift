// `simulate`: the tiering decisions of several nodes and a store in virtual time, with faults and checkers. A seed that
// breaks a rule is named with the line that runs it again.

import ArgumentParser
import Foundation
import Glibc
import KVModel
import KVSimulation

struct Simulate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Runs the decisions of nodes and store under faults, in virtual time, and checks every rule.",
        discussion: """
            Nothing is real but the decisions: devices are slow, dead or lying as the seed decides, agents die \
            between any two steps, the store vanishes and comes back. Checked are: no wrong byte, no stuck request, \
            no budget overrun, nothing leaked, a ledger that adds up, and the bound on waiting for blocks. The exit \
            code is 1 when a rule was broken, and the line that runs the seed again is printed.

              holdfast simulate --seed 7
              holdfast simulate --seeds 500 --seconds 20
            """)

    @Option(parsing: .unconditional, help: ArgumentHelp("Decides everything.", valueName: "N"))
    var seed: UInt64 = 1

    @Option(parsing: .unconditional, help: ArgumentHelp("Run so many seeds, from --seed on.", valueName: "count"))
    var seeds = 1

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Virtual seconds of each seed, before it comes to rest.", valueName: "s"))
    var seconds = 10.0

    @Option(
        help: ArgumentHelp("Only these faults, a comma list, empty for none: \(Self.faultNames).", valueName: "names"))
    var faults: String?

    @Option(help: ArgumentHelp("Plant a bug, to see it found: \(Self.bugNames).", valueName: "name"))
    var plant: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Threads; 0 takes all cores. The result does not depend on it.", valueName: "count"))
    var threads = 0

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var terminal: TerminalOptions

    private static let faultNames = SimulationFault.allCases.map(\.rawValue).joined(separator: ", ")
    private static let bugNames = PlantedBug.allCases.map(\.rawValue).joined(separator: ", ")

    func validate() throws {
        if seeds < 1 { throw ValidationError("--seeds \(seeds): at least one seed must run.") }
        if !(seconds > 0 && seconds <= 100_000) { throw ValidationError("--seconds \(seconds): give 0.1 to 100000.") }
        if threads < 0 { throw ValidationError("--threads \(threads): 0 or more.") }
    }

    func run() async throws {
        let chosen = try chosenFaults()
        let bug = try chosenBug()
        if let bug { return try hunt(bug, chosen) }
        let swarm = SimulationSwarm(firstSeed: seed, seeds: seeds, seconds: seconds, faults: chosen)
        let count = threads == 0 ? ProcessInfo.processInfo.activeProcessorCount : threads
        let line = "holdfast simulate --seconds \(seconds)\(faults.map { " --faults \($0)" } ?? "")"
        TrapNote.install(line)
        let result = await swarm.run(threads: count) { TrapNote.name($0) }
        try print(json ? try text(of: result) : report(result))
        for failure in result.failures.prefix(5) {
            note(
                "seed \(failure.seed), at \(rounded(failure.brokenAt)) s: \(failure.broken.prefix(3).joined(separator: "; "))"
            )
            note("to run it again: \(line) --seed \(failure.seed)")
        }
        guard result.held else { throw ExitCode(1) }
    }

    /// Seeds until a planted bug is seen.
    private func hunt(_ bug: PlantedBug, _ faults: [SimulationFault]?) throws {
        for offset in 0..<UInt64(seeds) {
            let result = Simulation(seed: seed + offset, seconds: seconds, faults: faults, planted: bug).run()
            guard let first = result.broken.first else { continue }
            try print("seed \(result.seed), at \(rounded(result.brokenAt)) s: \(first)")
            return
        }
        throw OperatorError(
            "\(seeds) seeds did not show the planted bug \(bug.rawValue)", at: "--plant", remedy: "give more --seeds")
    }

    private func chosenFaults() throws(OperatorError) -> [SimulationFault]? {
        guard let faults else { return nil }
        var chosen: [SimulationFault] = []
        for name in faults.split(separator: ",") {
            guard let fault = SimulationFault(rawValue: String(name)) else {
                throw OperatorError(
                    "'\(name)' is not a fault", at: "--faults", remedy: "give some of \(Self.faultNames)")
            }
            chosen.append(fault)
        }
        return chosen
    }

    private func chosenBug() throws(OperatorError) -> PlantedBug? {
        guard let plant else { return nil }
        guard let bug = PlantedBug(rawValue: plant) else {
            throw OperatorError(
                "'\(plant)' is not a bug to plant", at: "--plant", remedy: "give one of \(Self.bugNames)")
        }
        return bug
    }

    // MARK: What is printed

    private func report(_ result: SwarmResult) -> String {
        let counts = result.counts
        var lines = [
            "\(grouped(result.seeds)) seeds of \(seconds) s: \(result.held ? "every rule held" : "A RULE WAS BROKEN")",
            "",
            "requests     \(grouped(counts.requests)), \(grouped(counts.cancelled)) given up on the way",
            "events       \(grouped(counts.events)), commands \(grouped(counts.commands))",
            "transfers    \(grouped(counts.transfers)), \(grouped(counts.transfersFailed)) ended badly",
            "blocks       \(grouped(counts.blocksChecked)) compared on arrival, \(grouped(counts.blocksCorrupt)) refused",
            "loads        \(grouped(counts.loads)), \(grouped(counts.loadsCut)) came to less than planned",
            "pins         \(grouped(counts.pins)), agents that died \(grouped(counts.crashes))",
            "lent         \(grouped(counts.blocksLent)) blocks read in place; \(grouped(counts.slotsReserved)) slots given to "
                + "write into, \(grouped(counts.slotsAdopted)) became blocks",
            "tokens       \(grouped(counts.servedTokens)) of \(grouped(counts.promptTokens)) served by tiers",
            "digest       \(String(result.digest, radix: 16))",
        ]
        if !result.waits.isEmpty {
            lines += ["", "time to ready ÷ (1.1 × min(load, recompute) + D), where D are the stated deadlines"]
        }
        for wait in result.waits {
            let name = wait.fault ?? "no fault"
            let padding = String(repeating: " ", count: max(1, 18 - name.count))
            lines.append(
                "  \(name)\(padding)p99 \(rounded(wait.ratioP99))  most \(rounded(wait.ratioMax))  of \(grouped(wait.requests))"
            )
        }
        return lines.joined(separator: "\n")
    }

    private func rounded(_ value: Double) -> String { "\((value * 1000).rounded() / 1000)" }

    private struct Printed: Encodable {
        var seeds: Int
        var seconds: Double
        var held: Bool
        var counts: SimulationCounts
        var seedsOfFault: [String: Int]
        var waits: [SwarmWait]
        var failures: [Failure]
        var digest: String

        struct Failure: Encodable {
            var seed: UInt64
            var at: Double
            var broken: [String]
        }
    }

    private func text(of result: SwarmResult) throws -> String {
        let printed = Printed(
            seeds: result.seeds, seconds: seconds, held: result.held, counts: result.counts,
            seedsOfFault: Dictionary(uniqueKeysWithValues: result.seedsOfFault.map { ($0.key.rawValue, $0.value) }),
            waits: result.waits,
            failures: result.failures.map { .init(seed: $0.seed, at: $0.brokenAt, broken: $0.broken) },
            digest: String(result.digest, radix: 16))
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(printed), as: UTF8.self)
    }
}

/// Names the seed of the thread on which the process traps: a broken precondition is a found rule as well, and its seed
/// must not die with it.
enum TrapNote {
    nonisolated(unsafe) private static var key = pthread_key_t()
    nonisolated(unsafe) private static var text: UnsafeMutablePointer<CChar>?

    /// From here on a trap prints the line that runs its seed again.
    static func install(_ line: String) {
        unsafe pthread_key_create(&key, nil)
        unsafe text = strdup("\nto run it again: \(line) --seed ")
        for number in [SIGILL, SIGTRAP] {
            signal(number) { number in
                // Only what a signal handler may call: write, and the reading of this thread's own value.
                let seed = unsafe UInt(bitPattern: pthread_getspecific(TrapNote.key))
                if let text = unsafe TrapNote.text, seed > 0 {
                    unsafe _ = Glibc.write(STDERR_FILENO, text, strlen(text))
                    TrapNote.write(digitsOf: seed - 1)
                }
                signal(number, SIG_DFL)
                raise(number)
            }
        }
    }

    /// The seed that this thread runs from here on.
    static func name(_ seed: UInt64) {
        unsafe _ = pthread_setspecific(key, UnsafeRawPointer(bitPattern: UInt(seed &+ 1)))
    }

    private static func write(digitsOf number: UInt) {
        var divisor: UInt = 1
        while number / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            var digit = UInt8(48 + number / divisor % 10)
            unsafe _ = Glibc.write(STDERR_FILENO, &digit, 1)
            divisor /= 10
        }
        var newline = UInt8(10)
        unsafe _ = Glibc.write(STDERR_FILENO, &newline, 1)
    }
}
