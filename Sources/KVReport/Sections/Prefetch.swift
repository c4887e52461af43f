// 7. Did prefetch pay? A balance in seconds of TTFT, and one in bytes.

extension PrefetchBalance {
    /// Seconds of TTFT won after all costs, estimated from bytes.
    var estimatedNetSeconds: Double { ttftSecondsSaved + ttftSecondsDisplaced + ttftSecondsContention }
    /// The same, by the replay without prefetch where there was one.
    var netSeconds: Double { ttftSecondsBySecondRun ?? estimatedNetSeconds }
    /// Bytes moved for whatever end.
    var bytesMoved: Double { bytesUsed + bytesNeverUsed + bytesLate + bytesCancelled }
    /// Whether it neither moved a byte nor changed a time: there is nothing to draw.
    var isIdle: Bool { bytesMoved == 0 && netSeconds == 0 }
}

extension ComparedRun {
    /// The sentence of section 7.
    var prefetchConclusion: Conclusion {
        guard let balance = system.prefetch, record.configuration.prefetch else {
            return Conclusion(record: key, rule: "p.off", sentence: "Prefetch was off.")
        }
        guard balance.hasTimes != false else {
            let used = balance.bytesMoved > 0 ? Printed.percent(balance.bytesUsed / balance.bytesMoved).text : "none"
            return Conclusion(
                record: key, rule: "p.counted",
                sentence: balance.bytesMoved > 0
                    ? "Prefetch moved \(Printed.bytes(balance.bytesMoved)), of which \(used) were used; what waiting that "
                        + "saved was not told apart."
                    : "Prefetch was on and moved nothing.")
        }
        if balance.isIdle {
            return Conclusion(record: key, rule: "p.idle", sentence: "Prefetch was on and moved nothing.")
        }
        let saved = Printed.seconds(balance.ttftSecondsSaved)
        if let net = balance.ttftSecondsBySecondRun, net <= 0 {
            let words = net == 0 ? "as long" : "\(Printed.seconds(-net)) less"
            return Conclusion(
                record: key, rule: "p.loss",
                sentence: "Prefetch did not pay: without it requests wait \(words) in all.")
        }
        if balance.netSeconds <= 0 {
            let cost = Printed.seconds(-(balance.ttftSecondsDisplaced + balance.ttftSecondsContention))
            let nothing = balance.ttftSecondsSaved == 0 && cost.value == 0
            return Conclusion(
                record: key, rule: "p.loss",
                sentence: nothing
                    ? "Prefetch did not pay: it saved no waiting."
                    : "Prefetch did not pay: it saved \(saved.text) of waiting and "
                        + "cost \(cost.text).")
        }
        let net = Printed.seconds(balance.netSeconds)
        let per = Printed.seconds(balance.netSeconds / Double(max(record.trace.requests, 1)))
        let used = balance.bytesMoved > 0 ? balance.bytesUsed / balance.bytesMoved : 0
        let source =
            balance.ttftSecondsBySecondRun == nil
            ? "net by an estimate from its bytes" : "as the same replay without it shows"
        return Conclusion(
            record: key, rule: "p.main",
            sentence:
                "Prefetch saved \(net.text) of waiting, \(source): \(per.text) per request. \(Printed.percent(used).text) of the bytes "
                + "it moved were used.")
    }
}

extension Comparison {
    /// Section 7.
    func prefetchSection() -> Section {
        let with = runs.filter { $0.record.configuration.prefetch && $0.system.prefetch?.isIdle == false }
        var explanation: Prose = "\(prose: times)."
        if let balance = with.first?.system.prefetch, balance.hasTimes == false {
            explanation = "Bytes are \(.counted), those of agents that died included, in blocks of the model's size."
        } else if let balance = with.first?.system.prefetch {
            explanation = """
                \(prose: times). Precision \(Printed.percent(balance.precision).text) (bytes prefetched that were used before they left \
                DRAM), recall \(Printed.percent(balance.recall).text) (bytes asked for below DRAM that were already up). The steps \
                are seconds of TTFT, summed over all requests, and estimated from bytes, not a second run. \(secondRun(balance))
                """
        }
        return Section(
            id: "prefetch", number: 7, question: "Did prefetch pay?", conclusions: runs.map(\.prefetchConclusion),
            provenance: times.plain, explanation: with.isEmpty ? "" : explanation,
            figures: with.flatMap { $0.system.prefetch?.hasTimes == false ? [bytes($0)] : [waterfall($0), bytes($0)] })
    }

    private func secondRun(_ balance: PrefetchBalance) -> String {
        guard let net = balance.ttftSecondsBySecondRun else {
            return "A replay with prefetch.use=false beside this one would tell the net."
        }
        let sign = net < 0 ? "−" : "+"
        return "The same replay without prefetch says \(sign)\(seconds(net)) net, queues included."
    }

    /// Seconds in one unit for all that is added up; what is too small for its digits is no more than that.
    private func seconds(_ value: Double) -> String {
        let size = abs(value)
        if size > 0, size < 0.01 { return "<0.01\(thinSpace)s" }
        return Printed.number(size, .table).text + thinSpace + "s"
    }

    private func waterfall(_ run: ComparedRun) -> Figure {
        let balance = run.system.prefetch ?? PrefetchBalance()
        func step(_ name: String, _ value: Double, _ fill: Fill, isNet: Bool = false) -> WaterfallChart.Step {
            // One unit for all steps, so that a reader can add them up.
            let sign = value > 0 ? "+" : value < 0 ? "−" : ""
            return WaterfallChart.Step(name: name, value: value, label: sign + seconds(value), fill: fill, isNet: isNet)
        }
        let whose = runs.count == 1 ? "" : "\(run.name): "
        let requests = Printed.count(run.record.trace.requests).text
        let second = balance.ttftSecondsBySecondRun
        var steps = [
            step("saved: already in DRAM", balance.ttftSecondsSaved, .dram),
            step("lost: hits it displaced", balance.ttftSecondsDisplaced, .again),
            step("lost: link contention", balance.ttftSecondsContention, .waiting),
            step(second == nil ? "net" : "net, estimated", balance.estimatedNetSeconds, .useful, isNet: true),
        ]
        // The heading speaks of this one, so a reader must find it here.
        if let second {
            steps.append(step("net of a second run", second, second < 0 ? .again : .useful, isNet: true))
        }
        return Figure(
            title: "\(whose)Seconds of TTFT, estimated from bytes",
            caption: second == nil
                ? "summed over \(requests) requests, queues left out"
                : "summed over \(requests) requests, queues left out; the last bar is the difference to the same replay without prefetch, queues included",
            chart: .waterfall(WaterfallChart(steps: steps)), table: nil, terminal: .chart, isHalfWidth: true)
    }

    private func bytes(_ run: ComparedRun) -> Figure {
        let balance = run.system.prefetch ?? PrefetchBalance()
        let moved = balance.bytesMoved
        let parts: [(Fill, String, Double)] = [
            (.dram, "used", balance.bytesUsed), (.again, "never used", balance.bytesNeverUsed),
            (.waiting, "arrived too late", balance.bytesLate),
            (.context, "cancelled in flight", balance.bytesCancelled),
        ]
        let row = StackChart.Row(
            mark: nil, name: "bytes",
            segments: parts.filter { $0.2 > 0 }.map {
                StackChart.Segment(fill: $0.0, value: $0.2, label: Printed.bytes($0.2).text)
            }, value: Printed.bytes(moved, .table).text)
        let chart = StackChart(
            legend: parts.map { part in
                let share = moved > 0 ? Printed.percent(part.2 / moved).text : "0\(thinSpace)%"
                return StackChart.LegendEntry(fill: part.0, name: "\(part.1) \(Printed.bytes(part.2).text), \(share)")
            }, rows: [row], full: max(moved, 1), line: nil, valueTitle: "bytes prefetched")
        let reasons = balance.byReason.map { reason in
            Table.Row(
                mark: nil, name: reason.reason,
                cells: [
                    Printed.bytes(reason.bytesMoved, .table).text, Printed.bytes(reason.bytesUsed, .table).text,
                    reason.bytesMoved > 0 ? Printed.percent(reason.bytesUsed / reason.bytesMoved, .table).text : "-",
                ])
        }
        let whose = runs.count == 1 ? "" : "\(run.name): "
        return Figure(
            title: "\(whose)Bytes prefetched", caption: "\(Printed.bytes(moved).text)", chart: .stacks(chart),
            table: Table(
                title: runs.count == 1 ? "prefetch by reason" : "prefetch by reason, \(run.name)", corner: "Reason",
                columns: ["moved", "used", "used of moved"], rows: reasons), terminal: .both, isHalfWidth: true)
    }
}
