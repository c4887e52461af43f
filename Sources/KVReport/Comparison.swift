// The records of one report beside each other: who is compared with whom, and whether that is fair.

import KVModel

/// Records read together. Gains are stated against the reference inside each record; gains between records only when
/// the records are alike.
public struct Comparison: Sendable {
    /// The records, in the order given, keyed "1", "2", …
    public let runs: [ComparedRun]
    /// The baseline that gains are stated against.
    public let referenceKey: String
    /// What differs between the records.
    public let differences: [Difference]
    /// Baselines and ceilings with the same result in all records that have them, drawn once; with the record they are
    /// taken from, and whether every record has them.
    private let shared: [(system: SystemResult, record: Int, isEverywhere: Bool)]

    /// Something that differs between records.
    public struct Difference: Sendable, Equatable {
        /// What it is: `slo`, `policy`.
        public var key: String
        /// Its value in each record.
        public var values: [String]
        /// Whether it forbids comparing the records' numbers.
        public var breaksLikeness: Bool
    }

    /// The reference when nobody asks for another: HBM + DRAM.
    public static let defaultReference = "C"

    /// Puts records beside each other. Throws when the reference is not a baseline of the first record. `files` tell records
    /// of the same name apart.
    public init(_ records: [Record], against key: String? = nil, files: [String] = []) throws(OperatorError) {
        guard !records.isEmpty else { throw OperatorError("no record to report", remedy: "name a record file") }
        if let key { try Comparison.check(reference: key, of: records[0]) }
        let names = Comparison.names(of: records, files: files)
        let referenceKey = key ?? Comparison.defaultReference
        var runs: [ComparedRun] = []
        for (index, record) in records.enumerated() {
            guard let system = record.systems.first(where: { $0.key == "1" }) else {
                throw OperatorError(
                    "record \(record.name) has no system 1", remedy: "make it again with `holdfast replay`")
            }
            runs.append(
                ComparedRun(
                    index: index, key: "\(index + 1)", record: record, system: system,
                    reference: record.systems.first { $0.key == referenceKey },
                    name: records.count == 1 ? "This run" : names[index]))
        }
        self.runs = runs
        self.referenceKey = referenceKey
        differences = Comparison.differences(of: records)
        shared = Comparison.shared(of: records)
    }

    /// Names that tell the records apart: their own, or those of their files.
    private static func names(of records: [Record], files: [String]) -> [String] {
        let own = records.map(\.name)
        guard Set(own).count < own.count, files.count == own.count else { return own }
        let stems = files.map { file -> String in
            let last = file.split(separator: "/").last.map(String.init) ?? file
            return last.hasSuffix(".hfr") ? String(last.dropLast(4)) : last
        }
        return Set(stems).count == stems.count ? stems : files
    }

    private static func shared(of records: [Record]) -> [(system: SystemResult, record: Int, isEverywhere: Bool)] {
        var found: [(system: SystemResult, record: Int, isEverywhere: Bool)] = []
        for (index, record) in records.enumerated() {
            for system in record.systems where system.key != "1" {
                if found.contains(where: { $0.system.key == system.key }) { continue }
                let all = records.compactMap { other in other.systems.first { $0.key == system.key } }
                guard all.allSatisfy({ $0 == system }) else { continue }
                found.append((system, index, all.count == records.count))
            }
        }
        return found.sorted { $0.system.key < $1.system.key }
    }

    private static func check(reference key: String, of record: Record) throws(OperatorError) {
        let baselines = record.systems.map(\.key).filter { $0 != "1" && $0 != "A" && !isCeiling($0) }.sorted()
        if key == "A" {
            throw OperatorError(
                "no cache is drawn but never the reference: any cache beats it", at: "--against A",
                remedy: "choose one of \(baselines.joined(separator: ", "))")
        }
        guard baselines.contains(key) else {
            throw OperatorError(
                "the record has no baseline \(key)", at: "--against \(key)",
                remedy: baselines.isEmpty
                    ? "replay with baselines" : "choose one of \(baselines.joined(separator: ", "))")
        }
    }

    /// Whether gains between the records may be computed.
    public var isAlike: Bool { !differences.contains { $0.breaksLikeness } }

    /// Where the records' times come from, each record named where they differ.
    var times: Prose {
        if runs.allSatisfy({ $0.times == runs[0].times }) { return "\(runs[0].times)" }
        var words: Prose = ""
        for run in runs {
            if run.index > 0 { words = "\(prose: words), " }
            words = "\(prose: words)\(run.key) \(run.times)"
        }
        return words
    }

    static func isCeiling(_ key: String) -> Bool { key == "Y" || key == "Z" }

    /// How a system of the first record is drawn.
    public func mark(_ key: String) -> SystemMark {
        if key == referenceKey { return SystemMark(key: key, role: .reference) }
        if Comparison.isCeiling(key) { return SystemMark(key: key, role: .ceiling) }
        return SystemMark(key: key, role: .baseline)
    }
}

/// One record of a comparison, with the systems its conclusions are about.
public struct ComparedRun: Sendable {
    /// Counted from 0.
    public let index: Int
    /// "1", "2", …
    public let key: String
    /// The record.
    public let record: Record
    /// The configured system.
    public let system: SystemResult
    /// The baseline that gains are stated against, if the record has it.
    public let reference: SystemResult?
    /// What the record is called in rows and legends.
    public let name: String

    /// How it is drawn.
    public var mark: SystemMark { SystemMark(key: key, role: .run(index)) }
    /// A system of the record.
    public func system(_ key: String) -> SystemResult? { record.systems.first { $0.key == key } }
    /// The endless cache.
    public var infinite: SystemResult? { system("Z") }
    /// Where this record's times come from.
    public var times: Provenance { record.mode == .live ? .measured : .modelled }
    /// Whether replicas share a tier of this configuration beyond their nodes.
    var sharesATier: Bool { record.configuration.tiers.contains { $0.shared } }
    /// What this run's cache is called in a sentence.
    var tierName: String { sharesATier ? "the shared tier" : "this configuration" }
    /// What the reference is called in a sentence.
    public var referenceName: String { reference?.sentenceName ?? "the reference" }
}

extension SystemResult {
    /// Share of prompt tokens that came out of a tier.
    public var servedShare: Double { share(ledger.served) }
    /// Tokens as a share of this system's prompt tokens.
    public func share(_ tokens: Int) -> Double { ledger.total == 0 ? 0 : Double(tokens) / Double(ledger.total) }

    /// What a system is called inside a sentence.
    public var sentenceName: String {
        switch key {
        case "A": "no cache"
        case "B": "HBM only"
        case "C": "HBM + DRAM"
        case "D": "HBM + DRAM + local NVMe"
        case "E": "the shared tier with LRU"
        case "Z": "an infinite cache"
        default: name
        }
    }
}

extension GPUSeconds {
    /// Time in which the GPUs computed something.
    public var busy: Double { decode + prefillUseful + prefillRecomputed }
    /// (Useful prefill + decode) ÷ busy.
    public var usefulShareOfBusy: Double? { busy > 0 ? (decode + prefillUseful) / busy : nil }
    /// (Useful prefill + decode) ÷ all.
    public var usefulShareOfAll: Double? { total > 0 ? (decode + prefillUseful) / total : nil }
}

// MARK: Rows of charts and tables

/// A system as a row of a chart or table.
struct SystemRow {
    var mark: SystemMark
    var name: String
    var system: SystemResult
    var record: Record
}

extension Comparison {
    /// The rows of a chart: baselines that hold for all records, then the records, then the ceilings asked for.
    func rows(ceilings: [String] = []) -> [SystemRow] {
        let others = shared.map { system, index, isEverywhere in
            SystemRow(
                mark: mark(system.key), name: isEverywhere ? system.name : "\(system.name) (record \(index + 1))",
                system: system, record: runs[index].record)
        }
        let baselines = others.filter { !Comparison.isCeiling($0.system.key) }
        let own = runs.map { SystemRow(mark: $0.mark, name: $0.name, system: $0.system, record: $0.record) }
        return baselines + own + others.filter { ceilings.contains($0.system.key) }
    }

    /// The rows of a table: those of the chart, and each record's own baselines where they differ.
    func tableRows(ceilings: [String] = ["Y", "Z"]) -> [SystemRow] {
        var rows = rows(ceilings: ceilings)
        for run in runs {
            for system in run.record.systems.sorted(by: { $0.key < $1.key })
            where system.key != "1" && !shared.contains(where: { $0.system.key == system.key }) {
                rows.append(
                    SystemRow(
                        mark: mark(system.key), name: "\(system.name) (record \(run.key))", system: system,
                        record: run.record))
            }
        }
        return rows
    }
}

// MARK: Differences

extension Comparison {
    private static func differences(of records: [Record]) -> [Difference] {
        var found: [Difference] = []
        func compare(_ key: String, breaksLikeness: Bool = false, _ value: (Record) -> String) {
            let values = records.map(value)
            if Set(values).count > 1 {
                found.append(Difference(key: key, values: values, breaksLikeness: breaksLikeness))
            }
        }
        compare("trace", breaksLikeness: true) { "\($0.trace.name) \($0.trace.sha256.prefix(12))" }
        compare("slo", breaksLikeness: true) { $0.configuration.slo.exactWords }
        compare("model", breaksLikeness: true) { "\($0.configuration.model) \($0.configuration.weights)" }
        compare("gpus", breaksLikeness: true) { "\($0.configuration.gpus) × \($0.configuration.gpu)" }
        for key in Set(records.flatMap { $0.prices.map(\.key) }).sorted() {
            compare(key, breaksLikeness: true) { record in
                record.prices.first { $0.key == key }.map { Printed.exact($0.value).text } ?? "none"
            }
        }
        compare("mode") { $0.mode.rawValue }
        compare("tiers") { record in
            record.configuration.tiers.map { "\($0.tier) \(Printed.bytes($0.bytes, .given).text)" }.joined(
                separator: ", ")
        }
        compare("replicas") { "\($0.configuration.replicas) of TP \($0.configuration.tensorParallel)" }
        compare("ownership") { $0.configuration.ownership }
        compare("policy") { $0.configuration.policy }
        compare("inclusion") { $0.configuration.inclusion }
        compare("planner") { $0.configuration.planner }
        compare("prefetch") { $0.configuration.prefetch ? "on" : "off" }
        compare("overlap") { $0.configuration.overlap }
        compare("links") { $0.configuration.linkDiscipline }
        compare("router") { $0.configuration.router }
        compare("arrivals") { $0.configuration.arrivals }
        compare("kv type") { $0.configuration.kvType }
        compare("seed") { "\($0.configuration.seed)" }
        compare("version") { $0.version }
        return found
    }
}

extension SLO {
    /// Both limits in words: "2 s and 50 ms".
    public var words: String {
        "\(Printed.seconds(ttftSeconds, .given).text) and \(Printed.seconds(tpotSeconds, .given).text)"
    }

    /// Both limits and how many must meet them, with every digit: "2 s and 0.05 s for a share of 0.9".
    fileprivate var exactWords: String {
        "\(Printed.exact(ttftSeconds)) s and \(Printed.exact(tpotSeconds)) s for a share of \(Printed.exact(requiredShare))"
    }
}
