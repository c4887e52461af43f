// What a person reads of a cache-only replay: tables and a curve that fit 100 columns.

import KVSimulation
import KVTiering
import KVTrace

/// Hit ratios of policies (columns) at several sizes (rows), the best one can run, and the curve.
struct CacheOnlyTable {
    let trace: Trace
    let policies: [PolicyName]
    let sizes: [Int]
    let results: [CacheOnlyResult]

    var text: String {
        var lines = traceLines(trace) + ["", "Prompt tokens found in the cache, % (counted, not modelled)", ""]
        lines += table
        if let sentence { lines += ["", sentence] }
        if sizes.count > 1 { lines += [""] + curve }
        return lines.joined(separator: "\n")
    }

    /// The hit ratio of a policy at one size.
    private func ratio(_ policy: PolicyName, _ size: Int) -> Double? {
        results.first { $0.policy == policy.rawValue && ($0.capacityBlocks == size || policy == .infinite) }?.hitRatio
    }

    private var table: [String] {
        let widths = policies.map { max(5, $0.rawValue.count) }
        let sizeWidth = 1 + max(10, sizes.map { grouped($0).count }.max() ?? 0)
        var header = padded("blocks", sizeWidth) + padded("of all", 10)
        for (policy, width) in zip(policies, widths) { header += "  " + padded(policy.rawValue, width) }
        let rows = sizes.map { size in
            let share = Double(size) / Double(max(1, trace.uniqueBlockCount))
            var row = padded(grouped(size), sizeWidth) + padded(share < 10 ? percent(share) + " %" : "> 999 %", 10)
            for (policy, width) in zip(policies, widths) {
                row += "  " + padded(ratio(policy, size).map(percent) ?? "", width)
            }
            return row
        }
        return [header, String(repeating: "─", count: header.count)] + rows
    }

    /// What to conclude at the smallest size, where policies differ most.
    private var sentence: String? {
        guard let size = sizes.min() else { return nil }
        let candidates = policies.filter { PolicyName.deployable.contains($0) }
        guard let best = candidates.max(by: { ratio($0, size) ?? 0 < ratio($1, size) ?? 0 }) else { return nil }
        guard candidates.count > 1, let reached = ratio(best, size) else { return nil }
        let equals = candidates.filter { ratio($0, size) == reached }.map(\.rawValue)
        let who =
            equals.count == candidates.count
            ? "all find the same"
            : equals.count == 1
                ? "\(equals[0]) finds the most"
                : "\(equals.dropLast().joined(separator: ", ")) and \(equals[equals.count - 1]) find the most"
        var text = "With \(counted(size, "block")) \(who), \(percent(reached)) %"
        if let ceiling = ratio(.clairvoyant, size), ceiling > 0 {
            text += ": \(percent(reached / ceiling)) % of what any cache of that size could find"
        }
        return text + "."
    }

    /// One column a size, rising; each policy's letter stands at its height, equals side by side.
    private var curve: [String] {
        let sizes = Self.spread(sizes.sorted(), countMax: 8)
        let letters = Self.letters(of: policies)
        let rowCount = 16
        let width = min(20, 80 / sizes.count)
        let highest = results.map(\.hitRatio).max() ?? 0
        let step = max(highest, 0.001) / Double(rowCount - 1)
        var lines: [String] = []
        for row in stride(from: rowCount - 1, through: 0, by: -1) {
            var line = padded(percent(Double(row) * step), 7) + " ┤"
            for size in sizes {
                let here = zip(policies, letters).filter { policy, _ in
                    ratio(policy, size).map { Int(($0 / step).rounded()) == row } ?? false
                }
                line += padded(here.map(\.1).joined(), width)
            }
            lines.append(trimmed(line))
        }
        lines.append(padded("%", 7) + " └" + String(repeating: "─", count: width * sizes.count))
        lines.append(padded("", 9) + sizes.map { padded(grouped($0), width) }.joined() + "  blocks")
        lines.append(padded("", 9) + zip(letters, policies).map { "\($0) \($1.rawValue)" }.joined(separator: "  "))
        return lines
    }

    /// At most `countMax` of the sizes, evenly spread, the first and the last among them: what fits side by side.
    private static func spread(_ sizes: [Int], countMax: Int) -> [Int] {
        if sizes.count <= countMax { return sizes }
        return (0..<countMax).map { sizes[$0 * (sizes.count - 1) / (countMax - 1)] }
    }

    /// A letter for each policy: the first of its name that no policy before it has.
    private static func letters(of policies: [PolicyName]) -> [String] {
        var taken: Set<Character> = []
        return policies.map { policy in
            let letter = policy.rawValue.first { taken.insert($0).inserted } ?? "?"
            return String(letter)
        }
    }
}

/// One row for each pair of sizes and way to share blocks.
struct TwoTierTable {
    let trace: Trace
    let results: [TwoTierResult]

    var text: String {
        let titles = ["inclusion", "dram", "flash", "hit %", "dram %", "dram hits", "flash hits", "written", "read"]
        let widths = [9, 11, 11, 8, 8, 12, 12, 12, 12]
        func row(_ cells: [String]) -> String { zip(cells, widths).map { padded($0, $1) }.joined() }
        let rows = results.map { result in
            let hits = Double(max(1, result.dramHitBlocks + result.flashHitBlocks))
            return row([
                result.inclusion.rawValue, grouped(result.dramBlocks), grouped(result.flashBlocks),
                percent(result.hits.hitRatio), percent(Double(result.dramHitBlocks) / hits),
                grouped(result.dramHitBlocks), grouped(result.flashHitBlocks), grouped(result.flashWrites),
                grouped(result.flashReads),
            ])
        }
        let lines =
            traceLines(trace) + [
                "", "Two tiers, lru in both; sizes, hits, writes and reads of flash in blocks (counted, not modelled)",
                "hit %: prompt tokens found in either tier; dram %: share of the hit blocks that were in DRAM", "",
                row(titles), String(repeating: "─", count: widths.reduce(0, +)),
            ] + rows
        return lines.joined(separator: "\n")
    }
}

private func traceLines(_ trace: Trace) -> [String] {
    let tokens = trace.requests.reduce(0) { $0 + Int($1.inputTokens) }
    return [
        "\(shown(trace.name, width: 40)): \(counted(trace.requests.count, "request")), "
            + counted(tokens, "prompt token"),
        "\(counted(trace.blocks.count, "reference")) to \(counted(trace.uniqueBlockCount, "block")) of "
            + "\(trace.blockTokens) tokens",
    ]
}

/// A whole number with its thousands apart: 1,279,475.
func grouped(_ number: Int) -> String {
    var text = ""
    for (index, digit) in String(number).reversed().enumerated() {
        if index > 0, index % 3 == 0, digit != "-" { text.append(",") }
        text.append(digit)
    }
    return String(text.reversed())
}

/// A share as per cent with two digits, rounded half up: 5.35.
private func percent(_ share: Double) -> String {
    let hundredths = Int((share * 10_000).rounded())
    let fraction = hundredths % 100
    return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)"
}

private func padded(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
}

private func trimmed(_ line: String) -> String {
    var line = line
    while line.last == " " { line.removeLast() }
    return line
}
