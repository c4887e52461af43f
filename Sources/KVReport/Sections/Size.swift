// 5. Is the cache the right size? Misses over bytes kept, counted without time.

import KVModel

extension MissRatioCurve {
    /// The miss ratio of a policy at a size, linear over the logarithm of the size; beyond the ends, the end's value.
    func missRatio(_ policy: String, at size: Double) -> Double? {
        guard let misses = policies[policy], misses.count == bytes.count, let first = bytes.first,
            let last = bytes.last,
            first > 0, size > 0
        else { return nil }
        if size <= first { return misses[0] }
        if size >= last { return misses[misses.count - 1] }
        return interpolate(bytes.map { naturalLogarithm($0) }, misses, at: naturalLogarithm(size))
    }

    /// All tiers together.
    var chosenBytes: Double? { marks.map(\.bytes).max() }
}

extension ComparedRun {
    /// The policy whose curve stands for this run: its own, or the nearest the record has.
    var curvePolicy: String? {
        guard let curve = record.missRatioCurve else { return nil }
        return [record.configuration.policy, "holdfast", "lru"].first { curve.policies[$0] != nil }
    }

    /// The sentence of section 5.
    var sizeConclusion: Conclusion {
        guard let curve = record.missRatioCurve, let policy = curvePolicy, let size = curve.chosenBytes,
            let now = curve.missRatio(policy, at: size), let half = curve.missRatio(policy, at: size / 2),
            let double = curve.missRatio(policy, at: size * 2)
        else {
            return Conclusion(
                record: key, rule: "s.missing", sentence: "The miss ratio by capacity is not in this record.")
        }
        let (capacity, miss) = (Printed.bytes(size).text, Printed.percent(now))
        // Below its smallest size the curve says nothing of what less would lose.
        if let least = curve.bytes.first, size / 2 < least, curve.infinite < now {
            return Conclusion(
                record: key, rule: "s.below",
                sentence:
                    "\(capacity) is less than this record can judge: its curve starts at \(Printed.bytes(least).text), where "
                    + "\(Printed.percent(curve.policies[policy]?.first ?? now).text) of prompt tokens are missed.")
        }
        if half - now < 0.01 {
            return Conclusion(
                record: key, rule: "s.big",
                sentence:
                    "\(capacity) is more than this trace needs: half of it would miss as little (\(miss.text) of prompt "
                    + "tokens).")
        }
        func points(_ left: Double, _ right: Double) -> String {
            let points = ((Printed.percent(left).value - Printed.percent(right).value) * 100).rounded()
            return points < 1 ? "under 1 point" : "\(fixed(points, decimals: 0)) point\(points == 1 ? "" : "s")"
        }
        let best = curve.missRatio("clairvoyant", at: size)
        let policyClause = best.map { "; a better policy could save at most \(points(now, $0)) at this size" } ?? ""
        return Conclusion(
            record: key, rule: "s.main",
            sentence:
                "\(capacity) misses \(miss.text) of prompt tokens. Doubling it would save \(points(now, double)) more, halving "
                + "it would lose \(points(half, now))\(policyClause).")
    }
}

extension Comparison {
    /// Section 5.
    func sizeSection() -> Section {
        let question = "Is the cache the right size?"
        guard runs.contains(where: { $0.record.missRatioCurve != nil }) else {
            return absent("size", 5, question, rule: "s", "the miss ratio by capacity; a replay with its curve adds it")
        }
        let record = runs[0].record
        let perMegabyte = 1e6 / max(record.configuration.kvBytesPerToken, 1)
        var difference = ""
        if let curve = record.missRatioCurve, let policy = runs[0].curvePolicy, let size = curve.chosenBytes,
            let miss = curve.missRatio(policy, at: size)
        {
            let points = (1 - runs[0].system.servedShare - miss) * 100
            difference =
                abs(points) < 0.05
                ? ""
                : " It misses \(fixed(abs(points), decimals: 1)) points \(points > 0 ? "less" : "more") than question 1, where "
                    + "replicas, time and load take part."
        }
        return Section(
            id: "size", number: 5, question: question, conclusions: runs.map(\.sizeConclusion), provenance: "counted",
            explanation: """
                \(.counted): cache-only replay over one pool, exact, no time in it.\(difference) A megabyte holds \
                \(Printed.number(perMegabyte).text) tokens of this model \
                (\(Printed.count(Int(record.configuration.kvBytesPerToken.rounded())).text) bytes each).
                """,
            figures: [sizeFigure()])
    }

    private func sizeFigure() -> Figure {
        let curves = runs.compactMap { run in run.record.missRatioCurve.map { (run, $0) } }
        let all = curves.flatMap { $0.1.bytes + $0.1.marks.map(\.bytes) }.filter { $0 > 0 }
        let x = LineChart.Axis.logarithmic(
            "distinct bytes kept across all tiers, log scale", from: all.min() ?? 1e9, to: all.max() ?? 1e12
        ) { Printed.bytes($0, .given).text }
        var series: [LineChart.Series] = []
        func points(_ curve: MissRatioCurve, _ ys: [Double]) -> [LineChart.Point] {
            zip(curve.bytes, ys).map { LineChart.Point(x: $0, y: $1) }
        }
        let (firstRun, first) = curves[0]
        for (name, key) in [("lru", nil), ("clairvoyant", "Y")] as [(String, String?)]
        where name != firstRun.curvePolicy {
            guard let misses = first.policies[name] else { continue }
            series.append(
                LineChart.Series(
                    mark: key.map { SystemMark(key: $0, role: .ceiling) }, name: policyName(name),
                    points: points(first, misses)))
        }
        series.append(
            LineChart.Series(
                mark: SystemMark(key: "Z", role: .ceiling), name: "infinite cache",
                points: [
                    LineChart.Point(x: x.lower, y: first.infinite), LineChart.Point(x: x.upper, y: first.infinite),
                ]))
        for (run, curve) in curves {
            guard let policy = run.curvePolicy, let misses = curve.policies[policy] else { continue }
            let name = runs.count == 1 ? "\(policyName(policy)) policy" : "\(run.name), \(policyName(policy))"
            series.append(LineChart.Series(mark: run.mark, name: name, points: points(curve, misses)))
        }
        let chart = LineChart(
            title: "Miss ratio over capacity", x: x, y: .percent("share of prompt tokens missed", from: 0),
            series: series,
            verticals: sizeMarks(first), notes: sizeNotes(firstRun, first),
            alternative: sizeAlternative(x, series, first))
        return Figure(
            title: "Miss ratio over capacity", caption: "share of prompt tokens not found. Lower is better",
            chart: .lines(chart), table: sizeTable(curves), terminal: .table)
    }

    private func policyName(_ policy: String) -> String {
        switch policy {
        case "lru", "fifo", "lfu", "arc": policy.uppercased()
        case "s3fifo": "S3-FIFO"
        case "sieve": "SIEVE"
        default: policy
        }
    }

    private func sizeMarks(_ curve: MissRatioCurve) -> [LineChart.Vertical] {
        let marks = curve.marks.sorted { $0.bytes < $1.bytes }
        return marks.enumerated().map { index, mark in
            let name = Fill(rawValue: mark.tier)?.tierName ?? mark.tier
            let isLast = index == marks.count - 1
            return LineChart.Vertical(
                x: mark.bytes, label: index == 0 ? name : "+ \(name)", isStrong: isLast, labelAt: 0.05)
        }
    }

    private func sizeNotes(_ run: ComparedRun, _ curve: MissRatioCurve) -> [LineChart.Note] {
        guard let size = curve.chosenBytes, let own = run.curvePolicy else { return [] }
        let values = Set(["lru", own, "clairvoyant"]).compactMap { policy in
            curve.missRatio(policy, at: size).map { (policy, $0) }
        }.sorted { ($0.1, $0.0) > ($1.1, $1.0) }
        guard let least = values.last?.1 else { return [] }
        return [
            LineChart.Note(
                at: LineChart.Point(x: size, y: least),
                lines: values.map { "\(policyName($0.0)) \(Printed.percent($0.1).text)" },
                strong: values.firstIndex { $0.0 == own })
        ]
    }

    private func sizeAlternative(_ x: LineChart.Axis, _ series: [LineChart.Series], _ curve: MissRatioCurve) -> String {
        let range = "log scale from \(Printed.bytes(x.lower, .given).text) to \(Printed.bytes(x.upper, .given).text)"
        let size = curve.chosenBytes ?? x.upper
        let values = series.compactMap { line -> String? in
            guard let y = line.points.last(where: { $0.x <= size })?.y else { return nil }
            return "\(line.name) \(Printed.percent(y).text)"
        }
        let marks = curve.marks.map { "\($0.tier) \(Printed.bytes($0.bytes).text)" }.joined(separator: ", ")
        return
            "Miss ratio over bytes kept, \(range). At \(Printed.bytes(size).text): \(values.joined(separator: ", ")). "
            + "Configured sizes, added up: \(marks)."
    }

    private func sizeTable(_ curves: [(ComparedRun, MissRatioCurve)]) -> Table {
        let (_, first) = curves[0]
        let policies = first.policies.keys.sorted()
        let rows = first.bytes.indices.map { index in
            Table.Row(
                mark: nil, name: Printed.bytes(first.bytes[index], .table).text,
                cells: policies.map { Printed.percent(first.policies[$0]![index], .table).text } + [
                    Printed.percent(first.infinite, .table).text
                ])
        }
        return Table(
            title: "miss ratio by capacity", corner: "Capacity", columns: policies.map(policyName) + ["infinite"],
            rows: rows)
    }
}

extension Fill {
    /// A tier's name in pictures.
    var tierName: String {
        switch self {
        case .hbm: "HBM"
        case .dram: "DRAM"
        case .nvme: "local NVMe"
        case .flash: "flash"
        default: rawValue
        }
    }
}
