// `replay --cache-only`: its options, and its results as a table with a curve or as JSON.

import ArgumentParser
import Foundation
import KVModel
import KVSimulation
import KVTiering
import KVTrace

struct CacheOnlyOptions: ParsableArguments {
    @Flag(name: .customLong("cache-only"), help: "Count hits exactly, without time or GPU.")
    var isAsked = false

    @Option(
        help: ArgumentHelp(
            "One policy, a comma list, or all: \(PolicyName.allCases.map(\.rawValue).joined(separator: " ")).",
            valueName: "names"))
    var policy: String?

    // Sizes take what follows whatever it is: -1 is a wrong size and not an option.
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Blocks (20000) or a share of the trace's unique blocks (5%); a comma list makes a curve.",
            valueName: "sizes"))
    var capacity: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Two tiers: DRAM in blocks or per cent. Needs --flash.", valueName: "sizes"))
    var dram: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Two tiers: flash in blocks or per cent. Needs --dram.", valueName: "sizes"))
    var flash: String?

    @Option(help: ArgumentHelp("Two tiers: exclusive, inclusive, keep, a comma list, or all.", valueName: "names"))
    var inclusion: String?

    /// What was asked for, checked before the trace is read.
    func question() throws(OperatorError) -> CacheOnlyQuestion {
        if dram != nil || flash != nil || inclusion != nil { return try twoTierQuestion() }
        return .policies(
            try Self.policies(policy ?? "all"),
            try CacheOnlyCapacity.list(parsing: capacity ?? "1%,5%,20%", option: "--capacity"))
    }

    private func twoTierQuestion() throws(OperatorError) -> CacheOnlyQuestion {
        guard let dram, let flash else {
            throw OperatorError("two tiers need both --dram and --flash", remedy: "give the size of each")
        }
        guard capacity == nil else {
            throw OperatorError(
                "--capacity is the size of a single tier", remedy: "leave it out, or leave out --dram and --flash")
        }
        guard policy == nil || policy == PolicyName.lru.rawValue else {
            throw OperatorError(
                "two tiers run lru in both, not '\(policy ?? "")'", at: "--policy", remedy: "leave --policy out")
        }
        var inclusions: [Inclusion] = []
        let names =
            inclusion == "all"
            ? Inclusion.allCases.map(\.rawValue) : Self.listed(inclusion ?? Inclusion.keep.rawValue)
        for name in names {
            guard let mode = Inclusion(rawValue: name) else {
                let known = Inclusion.allCases.map(\.rawValue).joined(separator: ", ")
                throw OperatorError(
                    "'\(name)' is not a way to share blocks", at: "--inclusion", remedy: "give all, or some of \(known)"
                )
            }
            if !inclusions.contains(mode) { inclusions.append(mode) }
        }
        return .twoTiers(
            try CacheOnlyCapacity.list(parsing: dram, option: "--dram"),
            try CacheOnlyCapacity.list(parsing: flash, option: "--flash"), inclusions)
    }

    /// The words of a comma list; blanks beside a comma are nobody's.
    private static func listed(_ text: String) -> [String] {
        text.split(separator: ",", omittingEmptySubsequences: false).map { $0.filter { $0 != " " } }
    }

    private static func policies(_ text: String) throws(OperatorError) -> [PolicyName] {
        if text == "all" { return PolicyName.allCases }
        var names: [PolicyName] = []
        for part in listed(text) {
            guard let name = PolicyName(rawValue: part) else {
                let known = PolicyName.allCases.map(\.rawValue).joined(separator: ", ")
                throw OperatorError(
                    "'\(part)' is not a policy", at: "--policy", remedy: "give all, or some of \(known)")
            }
            if !names.contains(name) { names.append(name) }
        }
        return names
    }

    /// Answers the question about a trace on standard output.
    func run(_ question: CacheOnlyQuestion, _ trace: Trace, json: Bool, progress isForced: Bool) throws {
        var replay = try CacheOnlyReplay(trace)
        let bar = ProgressBar("replaying", forced: isForced)
        switch question {
        case .policies(let names, let capacities):
            let sizes = unique(capacities.map { $0.blocks(of: trace.uniqueBlockCount) })
            let results = runPolicies(&replay, names, sizes, bar)
            bar.finish()
            if json {
                try printJSON(
                    CacheOnlyReport(trace: CacheOnlyTraceSummary(trace), results: results.map(PolicyEntry.init)))
            } else {
                try print(CacheOnlyTable(trace: trace, policies: names, sizes: sizes, results: results).text)
            }
        case .twoTiers(let dram, let flash, let inclusions):
            let drams = unique(dram.map { $0.blocks(of: trace.uniqueBlockCount) })
            let flashes = unique(flash.map { $0.blocks(of: trace.uniqueBlockCount) })
            let results = runTwoTiers(replay, drams, flashes, inclusions, bar)
            bar.finish()
            if json {
                try printJSON(
                    CacheOnlyReport(trace: CacheOnlyTraceSummary(trace), results: results.map(TwoTierEntry.init)))
            } else {
                try print(TwoTierTable(trace: trace, results: results).text)
            }
        }
    }

    private func runPolicies(
        _ replay: inout CacheOnlyReplay, _ names: [PolicyName], _ sizes: [Int], _ bar: ProgressBar
    ) -> [CacheOnlyResult] {
        var results: [CacheOnlyResult] = []
        let steps = names.reduce(0) { $0 + ($1 == .infinite ? 1 : sizes.count) }
        for name in names {
            // The infinite cache has one size.
            for size in name == .infinite ? [1] : sizes {
                let what = name == .infinite ? name.rawValue : "\(name.rawValue), \(grouped(size)) blocks"
                bar.update(Double(results.count) / Double(steps), detail: what)
                results.append(replay.run(name, capacity: size))
            }
        }
        return results
    }

    private func runTwoTiers(
        _ replay: CacheOnlyReplay, _ drams: [Int], _ flashes: [Int], _ inclusions: [Inclusion], _ bar: ProgressBar
    ) -> [TwoTierResult] {
        var results: [TwoTierResult] = []
        let steps = inclusions.count * drams.count * flashes.count
        for inclusion in inclusions {
            for dram in drams {
                for flash in flashes {
                    bar.update(
                        Double(results.count) / Double(steps),
                        detail: "\(inclusion.rawValue), \(grouped(dram)) + \(grouped(flash)) blocks")
                    results.append(replay.runTwoTiers(dram: dram, flash: flash, inclusion: inclusion))
                }
            }
        }
        return results
    }

    private func unique(_ sizes: [Int]) -> [Int] {
        sizes.enumerated().filter { !sizes[..<$0.offset].contains($0.element) }.map(\.element)
    }

    private func printJSON(_ report: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try print(String(decoding: try encoder.encode(report), as: UTF8.self))
    }
}

/// What a cache-only replay is asked.
enum CacheOnlyQuestion {
    case policies([PolicyName], [CacheOnlyCapacity])
    case twoTiers([CacheOnlyCapacity], [CacheOnlyCapacity], [Inclusion])
}

// MARK: JSON

struct CacheOnlyReport<Entry: Encodable>: Encodable {
    let trace: CacheOnlyTraceSummary
    let results: [Entry]
}

struct CacheOnlyTraceSummary: Encodable {
    let name: String
    let format: String
    let sha256: String
    let requests: Int
    let inputTokens: Int
    let outputTokens: Int
    let blockTokens: Int
    let blockReferences: Int
    let uniqueBlocks: Int
    let skippedLines: Int

    init(_ trace: Trace) {
        name = trace.name
        format = trace.format.rawValue
        sha256 = trace.sha256
        requests = trace.requests.count
        inputTokens = trace.requests.reduce(0) { $0 + Int($1.inputTokens) }
        outputTokens = trace.requests.reduce(0) { $0 + Int($1.outputTokens) }
        blockTokens = trace.blockTokens
        blockReferences = trace.blocks.count
        uniqueBlocks = trace.uniqueBlockCount
        skippedLines = trace.skippedLineCount
    }
}

struct PolicyEntry: Encodable {
    let result: CacheOnlyResult

    enum Key: String, CodingKey { case policy, capacityBlocks, hitBlocks, hitTokens, hitRatio, evictedBlocks }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(result.policy, forKey: .policy)
        // Written out when it is null: an endless cache has no size, which is not the same as an unknown one.
        try container.encode(result.capacityBlocks, forKey: .capacityBlocks)
        try container.encode(result.hitBlocks, forKey: .hitBlocks)
        try container.encode(result.hitTokens, forKey: .hitTokens)
        try container.encode(result.hitRatio, forKey: .hitRatio)
        try container.encode(result.evictedBlocks, forKey: .evictedBlocks)
    }
}

struct TwoTierEntry: Encodable {
    let policy: String
    let inclusion: String
    let capacityBlocks: Int
    let dramBlocks: Int
    let flashBlocks: Int
    let hitBlocks: Int
    let hitTokens: Int
    let hitRatio: Double
    let dramHitBlocks: Int
    let flashHitBlocks: Int
    let flashWrites: Int
    let flashReads: Int

    init(_ result: TwoTierResult) {
        policy = PolicyName.lru.rawValue
        inclusion = result.inclusion.rawValue
        capacityBlocks = result.dramBlocks + result.flashBlocks
        dramBlocks = result.dramBlocks
        flashBlocks = result.flashBlocks
        hitBlocks = result.hits.hitBlocks
        hitTokens = result.hits.hitTokens
        hitRatio = result.hits.hitRatio
        dramHitBlocks = result.dramHitBlocks
        flashHitBlocks = result.flashHitBlocks
        flashWrites = result.flashWrites
        flashReads = result.flashReads
    }
}
