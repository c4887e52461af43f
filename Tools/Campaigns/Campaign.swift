// The campaigns' command: long forms of what the tests do in small. `Tools/campaign` builds and calls it.

import ArgumentParser
import Foundation

@main
struct Campaign: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Tools/campaign", abstract: "Crashes, damages and tortures stores and agents, and counts.",
        subcommands: [
            Crash.self, Corruption.self, Power.self, Soak.self, Faults.self, FlashWorker.self, SlowStore.self,
        ])
}

/// What a campaign found. All counts but `trials` and `detected` are to be zero.
struct CampaignResult: Encodable {
    let name: String
    var trials = 0
    var wrongBytes = 0
    var hangs = 0
    var lostAcknowledged = 0
    var leaks = 0
    var detected = 0
    var seconds = 0.0
    /// Of the campaign of remote faults: what one of them cost.
    var fault: RemoteFaultFigures?

    var isClean: Bool { wrongBytes == 0 && hangs == 0 && lostAcknowledged == 0 && leaks == 0 }
}

/// The options of every campaign.
struct CampaignOptions: ParsableArguments {
    @Flag(help: "A slice of a few minutes or less instead of the long form.")
    var quick = false

    @Flag(help: "Print a JSON array.")
    var json = false

    @Option(help: "Decides everything that is random.")
    var seed: UInt64 = 1

    /// Prints results; the exit code is 1 when one is not what it should be.
    func report(_ results: [CampaignResult], areRight: Bool) throws {
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            print(String(decoding: try encoder.encode(results), as: UTF8.self))
        } else {
            for result in results {
                print(
                    "\(result.name): \(result.trials) trials, \(result.detected) detected, \(result.wrongBytes) wrong bytes, "
                        + "\(result.lostAcknowledged) lost, \(result.hangs) hangs, \(result.leaks) leaks, "
                        + String(format: "%.1f s", result.seconds))
            }
        }
        if !areRight { throw ExitCode.failure }
    }
}

struct Crash: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Kills a writing process at every step of a write, and a whole store at random, and looks what is left.")

    @OptionGroup var options: CampaignOptions

    func run() async throws {
        let results = [
            try FlashCrashCampaign(quick: options.quick, seed: options.seed).run(),
            try await StoreCrashCampaign(quick: options.quick, seed: options.seed).run(),
        ]
        try options.report(results, areRight: results.allSatisfy(\.isClean))
    }
}

struct Faults: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Breaks the way to a real store in every way while an engine asks, and looks how long it waits.")

    @OptionGroup var options: CampaignOptions

    @Option(help: "Only the faults whose names begin so, after the one without any.")
    var only: String?

    @Option(help: "Name so many requests of each fault that came nearest to their bound, with the agent's reasons.")
    var explain = 0

    func run() throws {
        ServingProcess.endAllWithThis()
        let campaign = try RemoteFaultsCampaign(quick: options.quick, seed: options.seed, explain: explain)
        let faults = RemoteFault.allCases.filter { $0 == .none || $0.rawValue.hasPrefix(only ?? "") }
        let results = try campaign.run(faults)
        let areRight = results.allSatisfy { $0.isClean && $0.fault?.holds == true }
        // A fault that nobody met would prove nothing.
        let met = results.dropFirst().allSatisfy { $0.detected > 0 }
        try options.report(results, areRight: areRight && met)
    }
}

struct Soak: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Keeps a store, then an agent with its store, busy for an hour each: does anything pile up?")

    @OptionGroup var options: CampaignOptions

    @Option(help: "How long each (default: 3600, with --quick 90).")
    var seconds: Double?

    /// What can be kept busy.
    enum Subject: String, ExpressibleByArgument, CaseIterable { case store, agent }

    @Option(help: "Keep only this busy: store or agent.")
    var only: Subject?

    func validate() throws {
        if let seconds, !(8...86_400).contains(seconds) { throw ValidationError("--seconds: 8 to 86400") }
    }

    func run() async throws {
        ServingProcess.endAllWithThis()
        let seconds = seconds ?? (options.quick ? 90 : 3600)
        var results: [CampaignResult] = []
        if only != .agent { results.append(try await StoreSoakCampaign(seconds: seconds, seed: options.seed).run()) }
        if only != .store { results.append(try AgentSoakCampaign(seconds: seconds, seed: options.seed).run()) }
        try options.report(results, areRight: results.allSatisfy(\.isClean))
    }
}

struct Corruption: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Damages what lies on flash and what travels from it, and reads it.")

    @OptionGroup var options: CampaignOptions

    func run() throws {
        let results = try FlashCorruptionCampaign(quick: options.quick, seed: options.seed).run()
        // The control reads without checking: if nothing wrong came through there, the campaign damages nothing.
        let areRight = results.allSatisfy { $0.name.contains("control") ? $0.wrongBytes > 0 : $0.isClean }
        try options.report(results, areRight: areRight)
    }
}

struct Power: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Cuts the power of guests that write to an NVMe disk, and looks what is left.")

    @OptionGroup var options: CampaignOptions

    func run() throws {
        let result = try FlashPowerCampaign(quick: options.quick, seed: options.seed).run()
        // A run without a cut would prove nothing.
        try options.report([result], areRight: result.isClean && result.detected == result.trials)
    }
}
