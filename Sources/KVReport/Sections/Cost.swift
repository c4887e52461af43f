// 4. What does it cost, and save? On the same GPUs, and at the same SLO: two questions, side by side.

extension Comparison {
    /// Section 4.
    func costSection() -> Section {
        let run = runs[0]
        let configuration = run.record.configuration
        let question = "What does it cost, and save?"
        guard runs.contains(where: { $0.system.cost.gpus > 0 }) else {
            return absent("cost", 4, question, rule: "c", "prices; --set prices.gpuHour=… supplies the first")
        }
        return Section(
            id: "cost", number: 4, question: question, conclusions: runs.map(\.costConclusion),
            provenance: "\(times.plain) clusters, given prices",
            explanation: """
                \(prose: times) clusters, \(.given) prices. Per million tokens, input and output. “Same SLO” is the smallest number \
                of whole replicas that keeps \(Printed.percent(configuration.slo.requiredShare).text) of requests within \
                \(configuration.slo.words).
                """,
            figures: costFigures(), remarks: runs.flatMap(\.costRemarks), listings: [priceListing(run)],
            tables: runs.compactMap(\.sensitivityTable) + [costTable()])
    }

    private func costFigures() -> [Figure] {
        let rows = rows().filter { $0.system.cost.gpus > 0 }
        let same = rows.map { bar($0, $0.system.cost) }
        let smallest = rows.compactMap { row -> BarPanel.Bar? in
            let result = row.record.sloSearch.first { $0.key == (row.mark.isRun ? "1" : row.mark.key) }
            return result?.cost.map { bar(row, $0) }
        }
        // One scale over both groups, or the eye compares bars of different money.
        let caption: Prose = "USD per million tokens, one scale in both groups"
        let full = (same + smallest).map(\.value).max()
        var figures = [
            Figure(
                title: "Same \(runs[0].record.configuration.gpus) GPUs, same trace", caption: caption,
                chart: .panels([BarPanel(title: "USD per million tokens", bars: same, full: full)]), table: nil,
                terminal: .chart,
                isHalfWidth: true)
        ]
        if !smallest.isEmpty {
            figures.append(
                Figure(
                    title: "Same SLO, smallest cluster", caption: caption,
                    chart: .panels([BarPanel(title: "USD per million tokens", bars: smallest, full: full)]), table: nil,
                    terminal: .chart,
                    isHalfWidth: true))
        }
        return figures
    }

    private func bar(_ row: SystemRow, _ cost: Cost) -> BarPanel.Bar {
        let unit = cost.total > 0 ? cost.perMillionTokens / cost.total : 0
        let parts: [(Fill, Double)] = [(.choice, cost.gpu), (.dram, cost.storage), (.waiting, cost.switches)]
        return BarPanel.Bar(
            mark: row.mark, name: row.name, value: cost.perMillionTokens,
            label: "\(Printed.dollars(cost.perMillionTokens).text), \(cost.gpus) GPUs",
            segments: parts.filter { $0.1 > 0 }.map { StackChart.Segment(fill: $0.0, value: $0.1 * unit, label: "") })
    }

    private func priceListing(_ run: ComparedRun) -> Listing {
        Listing(
            title: "Prices and watts used, each with the argument that changes it",
            entries: run.record.prices.map { price in
                let value =
                    price.unit == "USD"
                    ? Printed.price(price.value).text
                    : Printed.exact(price.value).text + thinSpace + price.unit
                return Listing.Entry(
                    name: price.label ?? price.key, value: value,
                    argument: "--set \(price.key)=\(Printed.exact(price.value).text)")
            })
    }

    private func costTable() -> Table {
        let rows = tableRows(ceilings: ["Z"]).filter { $0.system.cost.gpus > 0 }.map { row -> Table.Row in
            let cost = row.system.cost
            let result = row.record.sloSearch.first { $0.key == (row.mark.isRun ? "1" : row.mark.key) }
            let best = result?.cost
            func money(_ value: Double?) -> String { value.map { Printed.dollars($0, .table).text } ?? "-" }
            return Table.Row(
                mark: row.mark, name: row.name,
                cells: [
                    money(cost.perMillionTokens), money(cost.gpu), money(cost.storage), money(cost.switches),
                    money(best?.perMillionTokens), result?.gpus.map { "\($0)" } ?? (result == nil ? "-" : "none tried"),
                    money(best?.perMillionOutputTokens), money(best?.perRequest), money(best?.storage),
                    Printed.wattHours(row.system.energy.total, .table).text,
                ])
        }
        return Table(
            title: "cost and energy", corner: "System",
            columns: [
                "same GPUs, per M", "run: GPUs", "storage", "switches", "same SLO, per M", "its GPUs", "per M output",
                "per request", "its storage", "energy",
            ], rows: rows, onlyOnPage: [1, 3, 8],
            note: "Per M: US dollars per million tokens. Run and storage: US dollars over the whole run.")
    }
}

extension ComparedRun {
    /// The sentence of section 4.
    var costConclusion: Conclusion {
        let money = Economics(run: self)
        let figures = ["costPerMillionTokensSameSLO", "costPerMillionTokensSameGPUs"]
        func say(_ rule: String, _ sentence: String) -> Conclusion {
            Conclusion(record: key, rule: rule, sentence: sentence, figures: figures)
        }
        guard system.cost.gpus > 0 else {
            return Conclusion(record: key, rule: "c.missing", sentence: "Prices are not in this record.")
        }
        let sameGPUs = costOnSameGPUs
        guard let own = money.own else {
            return say("c.unsearched", sameGPUs + " The smallest cluster that meets the SLO was not searched for.")
        }
        guard let gpus = own.gpus, let cost = own.cost else {
            return say("c.noslo", "No cluster tried meets the SLO with this system. " + sameGPUs)
        }
        guard let other = money.reference?.gpus, let otherCost = money.reference?.cost else {
            let with = reference == nil ? "" : "; with \(referenceName) no cluster tried does"
            return say(
                "c.alone",
                "\(gpus) GPUs meet the SLO at \(Printed.dollars(cost.perMillionTokens).text) per million tokens\(with)."
            )
        }
        let (a, b) = (Printed.dollars(cost.perMillionTokens), Printed.dollars(otherCost.perMillionTokens))
        if gpus == other {
            let change = Printed.change(a, against: b) ?? ""
            let words = a.text == b.text ? "nothing" : change
            return say(
                "c.same",
                (a.value < b.value
                    ? "The SLO needs \(gpus) GPUs either way, and the tier takes \(change) off the cost of a million tokens."
                        .replacing("−", with: "")
                    : "The SLO needs \(gpus) GPUs either way, so the tier adds \(words.replacing("+", with: "")) to the cost of "
                        + "a million tokens.") + cheaperThanReference)
        }
        return say(
            "c.main",
            "At the same SLO \(gpus) GPUs do the work of \(other), and a million tokens cost \(a.text) instead of "
                + "\(b.text).\(cheaperThanReference) \(sameGPUs)")
    }

    /// " HBM + DRAM + local NVMe needs 8 and costs $0.16.": a rival that the gain on the reference would hide.
    private var cheaperThanReference: String {
        let money = Economics(run: self)
        guard let opponent = money.opponent, opponent.key != reference?.key, let gpus = opponent.gpus,
            let cost = opponent.cost
        else { return "" }
        return " \(money.opponentName) needs \(gpus) and costs \(Printed.dollars(cost.perMillionTokens).text)."
    }

    /// "On the same 16 GPUs the tier costs 11 % more and buys latency."
    private var costOnSameGPUs: String {
        let cost = system.cost
        let own = Printed.dollars(cost.perMillionTokens)
        guard let reference, reference.cost.gpus > 0 else {
            return "On \(cost.gpus) GPUs a million tokens cost \(own.text)."
        }
        let other = Printed.dollars(reference.cost.perMillionTokens)
        let buys = system.goodput > reference.goodput && !areAlike(system.goodput, reference.goodput)
        let end = buys ? " and buys latency." : "."
        guard own.text != other.text, let change = Printed.change(own, against: other) else {
            return "On the same \(cost.gpus) GPUs the tier costs the same\(end)"
        }
        return
            "On the same \(cost.gpus) GPUs the tier costs \(change.dropFirst()) \(own.value > other.value ? "more" : "less")\(end)"
    }

    /// Break-even and energy.
    var costRemarks: [Prose] {
        let money = Economics(run: self)
        var remarks: [Prose] = []
        if let now = money.storagePerHour, let most = money.breakEvenStoragePerHour {
            let price = "\(Printed.price(significant(now, 3).value).text)/h"
            let limit =
                most > 0
                ? "could cost \(Printed.price(significant(most, 3).value).text)/h instead of \(price)"
                : "would have to be free, and even then \(money.opponentName) is "
                    + "\(money.wouldBeAlikeIfFree ? "as cheap" : "cheaper"); it costs \(price)"
            var load = ""
            if case .above(let from) = money.breakEven {
                load =
                    " Below \(Printed.number(from).text) sessions per GPU something that needs less is cheaper per token within the SLO."
            }
            let before = most > 0 ? " before \(money.opponentName) is as cheap at the same SLO." : "."
            remarks.append("\(strong: "Break-even.") The storage line \(limit)\(before)\(load)")
        }
        if let reference, system.energy.total > 0, reference.energy.total > 0 {
            let saved = reference.energy.prefill - system.energy.prefill
            remarks.append(
                """
                \(strong: "Energy") from \(.given) watts: \(Printed.wattHours(system.energy.total, .table).text) against \
                \(Printed.wattHours(reference.energy.total, .table).text) for \(key: reference.key); prefill not repeated \
                \(saved >= 0 ? "saves" : "costs") \(Printed.wattHours(abs(saved), .table).text), moving blocks costs \
                \(Printed.wattHours(system.energy.moving, .table).text).
                """)
        }
        return remarks
    }

    /// What would change the conclusion.
    var sensitivityTable: Table? {
        let rows = Economics(run: self).sensitivities().map { change -> Table.Row in
            guard let cost = change.cost else {
                return Table.Row(mark: nil, name: change.words, cells: [change.absence, "", ""])
            }
            let (own, other) = (Printed.dollars(cost.own, .table), Printed.dollars(cost.opponent, .table))
            if change.isLeast {
                return Table.Row(mark: nil, name: change.words, cells: ["over \(own.text)", "over \(other.text)", ""])
            }
            let saving = other.value > 0 ? Printed.percent(1 - own.value / other.value) : Printed.percent(0)
            return Table.Row(
                mark: nil, name: change.words, cells: [own.text, other.text, saving.text.replacing("-", with: "−")])
        }
        guard !rows.isEmpty else { return nil }
        let whose = name == "This run" ? "" : ", \(name)"
        return Table(
            title: "what would change this conclusion\(whose)", corner: "If this input were different",
            columns: ["$/M tokens", "with \(Economics(run: self).opponent?.key ?? "")", "saving at same SLO"],
            rows: rows)
    }
}
