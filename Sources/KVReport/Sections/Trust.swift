// 9. Can this be trusted and repeated? The checks, the command, and everything the numbers depend on.

extension ComparedRun {
    /// The sentence of section 9.
    var trustConclusion: Conclusion {
        let checks = record.checks
        let failed = checks.count { !$0.passed }
        if failed > 0 {
            return Conclusion(
                record: key, rule: "q.fail",
                sentence: "\(failed) of \(checks.count) checks failed; do not use this record.")
        }
        if let live = record.live {
            let interval = live.pairs.isEmpty ? "" : ", interval in brackets"
            let what = system.hasTimes ? "Times are measured" : "It was run"
            return Conclusion(
                record: key, rule: "q.live",
                sentence: "All \(checks.count) checks passed. \(what) on \(live.machine); \(live.runs) "
                    + "run\(live.runs == 1 ? "" : "s")\(interval).")
        }
        let error = record.modelError
        let times =
            system.hasTimes
            ? " Times carry the serving model's error: \(Printed.percent(error.ttftMean).text) on mean TTFT, "
                + "\(Printed.percent(error.tpot).text) on TPOT." : ""
        return Conclusion(
            record: key, rule: "q.main",
            sentence: "All \(checks.count) checks passed.\(times) The command below makes this record again, byte for "
                + "byte.")
    }
}

extension Comparison {
    /// Section 9.
    func trustSection() -> Section {
        Section(
            id: "trust", number: 9, question: "Can this be trusted and repeated?",
            conclusions: runs.map(\.trustConclusion),
            provenance: "counted",
            explanation: """
                \(checked) Same trace, scenario and seed give the same modelled record on every machine.
                """,
            figures: [],
            remarks: runs.map {
                "\(strong: runs.count == 1 ? "Make it again:" : "Make record \($0.key) again:") \(code: $0.record.configuration.command)"
            },
            listings: runs.map(configurationListing), checks: runs.flatMap(checkLines))
    }

    /// What the checks below are, by what the records have: a live one has fewer.
    private var checked: String {
        runs.contains { $0.record.mode == .modelled }
            ? "The sums below are made apart from those they are compared with, after every replay."
            : "The sums below are made apart from those they are compared with."
    }

    /// A check that passed for several systems is one line; one that failed stands alone.
    private func checkLines(_ run: ComparedRun) -> [CheckLine] {
        let whose = runs.count == 1 ? "" : "record \(run.key): "
        var lines: [CheckLine] = []
        var systems: [String: [String]] = [:]
        for check in run.record.checks where check.passed {
            if let (key, rule) = check.ofSystem { systems[rule, default: []].append(key) }
        }
        for check in run.record.checks {
            if check.passed, let (key, rule) = check.ofSystem, let keys = systems[rule], keys.count > 1 {
                guard keys.first == key else { continue }
                lines.append(
                    CheckLine(passed: true, text: "\(whose)\(rule), in each of \(keys.joined(separator: ", "))"))
                continue
            }
            let sides = "\(whose)\(check.name): \(whole(check.left)) = \(whole(check.right))"
            lines.append(CheckLine(passed: check.passed, text: sides.sided(check)))
        }
        return lines
    }

    private func whole(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? grouped(Int(value)) : Printed.number(value, .table).text
    }

    private func configurationListing(_ run: ComparedRun) -> Listing {
        let (record, setup) = (run.record, run.record.configuration)
        var entries: [Listing.Entry] = []
        func add(_ name: String, _ value: String, whole: String = "") {
            entries.append(Listing.Entry(name: name, value: value, whole: whole))
        }
        func digest(_ text: String) -> String { text.count > 14 ? "\(text.prefix(8))…\(text.suffix(4))" : text }
        add("Record", "\(record.name), \(digest(record.digest))", whole: record.digest)
        add("Holdfast", record.version)
        add("Trace", "\(record.trace.name), \(record.trace.format)")
        add("Trace SHA-256", digest(record.trace.sha256), whole: record.trace.sha256)
        add(
            "Blocks",
            "\(grouped(record.trace.uniqueBlocks)) unique of \(grouped(record.trace.blockReferences)), \(record.trace.blockTokens) tokens each"
        )
        if let sessions = record.trace.sessions { add("Conversations", grouped(sessions)) }
        if record.trace.skippedLines > 0 { add("Unreadable lines left out", grouped(record.trace.skippedLines)) }
        add("Scenario", setup.scenario)
        add("Scenario SHA-256", digest(setup.scenarioSHA256), whole: setup.scenarioSHA256)
        let overrides = setup.overrides.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        add("Overrides", overrides.isEmpty ? "none" : overrides.joined(separator: " "))
        add("Seed", "\(setup.seed)")
        add("Model", "\(setup.model), weights \(setup.weights), KV \(setup.kvType)")
        add("GPUs", "\(setup.gpus) × \(setup.gpu), \(setup.replicas) × TP \(setup.tensorParallel)")
        add("Constants", setup.constantsSource)
        add("Who owns the tiers", setup.ownership)
        add(
            "Tiers",
            setup.tiers.map {
                "\(Fill(rawValue: $0.tier)?.tierName ?? $0.tier) \(Printed.bytes($0.bytes, .given).text)\($0.shared ? " shared" : "")"
            }.joined(separator: ", "))
        add("Inclusion", setup.inclusion)
        add("Policy", setup.policy)
        add("Load or recompute", setup.planner)
        add("Overlap", setup.overlap)
        add("Links", setup.linkDiscipline)
        let stale = Printed.seconds(setup.routerStalenessSeconds, .given).text
        add("Router", setup.router + (setup.routerStalenessSeconds > 0 ? ", \(stale) stale" : ""))
        add("Prefetch", setup.prefetch ? "on" : "off")
        add("Arrivals", setup.arrivals)
        add("Warm-up", Printed.percent(setup.warmUpShare).text + " of requests, included unless said otherwise")
        add("Client overhead", Printed.seconds(setup.requestOverheadSeconds, .given).text)
        add("SLO", "\(setup.slo.name) \(setup.slo.words), \(Printed.percent(setup.slo.requiredShare).text) of requests")
        add(
            "Model error",
            "TTFT \(Printed.percent(record.modelError.ttftMean).text), TPOT \(Printed.percent(record.modelError.tpot).text): \(record.modelError.kind)"
        )
        if let live = record.live {
            add("Machine", live.machine)
            for load in live.loads ?? [] { add("From \(Fill(rawValue: load.tier)?.tierName ?? load.tier)", load.words) }
        }
        return Listing(
            title: runs.count == 1 ? "Configuration" : "Configuration of record \(run.key)", entries: entries)
    }
}

extension String {
    /// A check whose sides differ must not say that they are equal.
    fileprivate func sided(_ check: Check) -> String {
        check.left == check.right ? self : replacing(" = ", with: check.passed ? " and " : " against ")
    }
}

extension Check {
    /// The system and the rule, where the check is about one system: "C: no KV block is held at the end".
    fileprivate var ofSystem: (key: String, rule: String)? {
        guard let end = name.firstRange(of: ": "), name.distance(from: name.startIndex, to: end.lowerBound) == 1 else {
            return nil
        }
        return (String(name[..<end.lowerBound]), String(name[end.upperBound...]))
    }
}
