// The benchmarks' command. It runs what it is asked for and prints a table or JSON; `Tools/bench` builds and calls it.

import ArgumentParser
import Foundation

/// Every benchmark. A new one is a file with a type that conforms to `Benchmark`, and its line here.
let benchmarks: [any Benchmark] = [
    ReplayBenchmark(), IndexBenchmark(), ModelBenchmark(), FlashBenchmark(), TransportBenchmark(), StoreBenchmark(),
    StoreTableBenchmark(), AllocationBenchmark(), MemoryBenchmark(), PeersBenchmark(), AgentBenchmark(),
]

@main
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Tools/bench",
        abstract: "Runs benchmarks side by side with a reference; a ratio above 1 means ours is better.",
        discussion: benchmarks.map {
            "  \($0.name.padding(toLength: nameWidth, withPad: " ", startingAt: 0)) \($0.purpose)"
        }.joined(separator: "\n"))

    /// Room for the longest name.
    private static let nameWidth = benchmarks.map(\.name.count).max() ?? 0

    @Argument(help: "The benchmarks to run; all of them without a name.")
    var names: [String] = []

    @Flag(help: "Print a JSON array.")
    var json = false

    @Flag(help: "End with an error when a row misses its bound: for counts, which do not depend on the machine's load.")
    var check = false

    @Option(help: "A folder of real traces; a synthetic one stands in without it.")
    var traces: String?

    @Option(help: "The Python in which libcachesim can be imported.")
    var python = "python3"

    @Option(help: "The Python in which Mooncake Store can be imported; without it, it is left out.")
    var peersPython: String?

    @Option(help: "The library made of absl_table.cpp; without it, the block index is not held against absl's table.")
    var absl: String?

    @Option(help: "Interleaved pairs of runs for each row.")
    var pairs = 15

    @Option(help: "Of replay, index, transport and store only the groups of rows whose name contains this.")
    var only = ""

    func validate() throws {
        for name in names where !benchmarks.contains(where: { $0.name == name }) {
            let known = benchmarks.map(\.name).joined(separator: " ")
            throw ValidationError("'\(name)' is not a benchmark; there are: \(known)")
        }
        if pairs < 6 { throw ValidationError("--pairs: a 95 % interval needs at least 6 pairs") }
    }

    func run() throws {
        let setting = BenchmarkSetting(
            tracesFolder: traces, python: python, peersPython: peersPython, abslLibrary: absl, pairCount: pairs,
            only: only)
        var rows: [BenchmarkRow] = []
        for benchmark in benchmarks where names.isEmpty || names.contains(benchmark.name) {
            note("\(benchmark.name): \(benchmark.purpose)")
            rows += try benchmark.run(setting)
        }
        print(json ? try jsonText(rows) : tableText(rows))
        let missed = rows.filter { $0.high < 1 }.map(\.name)
        if check, !missed.isEmpty {
            note("missed: \(missed.joined(separator: ", "))")
            throw ExitCode(1)
        }
    }
}

/// Tells a person what runs, on standard error.
func note(_ text: String) { FileHandle.standardError.write(Data("\(text)\n".utf8)) }

private func jsonText(_ rows: [BenchmarkRow]) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(rows), as: UTF8.self)
}

/// One line a row, and its conditions below it: 100 columns.
private func tableText(_ rows: [BenchmarkRow]) -> String {
    func left(_ text: String, _ width: Int) -> String { text.padding(toLength: width, withPad: " ", startingAt: 0) }
    func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
    func row(_ cells: [String]) -> String {
        left(cells[0], 34) + right(cells[1], 11) + right(cells[2], 11) + " " + left(cells[3], 16) + right(cells[4], 8)
            + right(cells[5], 18)
    }
    var lines = [row(["benchmark", "ours", "reference", "unit", "ratio", "95 % interval"])]
    lines.append(String(repeating: "─", count: 99))
    for result in rows {
        lines.append(
            row([
                result.name, shortNumber(result.ours), shortNumber(result.reference), result.unit,
                shortNumber(result.ratio), "\(shortNumber(result.low)) … \(shortNumber(result.high))",
            ]))
        for line in wrapped("against \(result.referenceName); \(result.conditions)", 93) { lines.append("    " + line) }
    }
    return lines.joined(separator: "\n")
}

/// Three significant digits.
func shortNumber(_ value: Double) -> String {
    if value == 0 || !value.isFinite { return "\(value)" }
    let digits = max(0, 2 - Int(log10(abs(value)).rounded(.down)))
    return String(format: "%.\(min(digits, 6))f", value)
}

private func wrapped(_ text: String, _ width: Int) -> [String] {
    var lines = [""]
    for word in text.split(separator: " ") {
        if lines[lines.count - 1].count + word.count + 1 > width { lines.append("") }
        lines[lines.count - 1] += (lines[lines.count - 1].isEmpty ? "" : " ") + word
    }
    return lines
}
