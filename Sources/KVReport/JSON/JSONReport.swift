// The report for scripts and dashboards: schema holdfast-report-1. Keys only ever grow; shares are fractions; units are
// SI base units or named; what a record lacks is listed in `missing` and absent elsewhere.

extension Comparison {
    /// The report as one JSON object, ended by a line feed.
    public var jsonReport: String {
        let root = JSONValue.members([
            "schema": .string("holdfast-report-1"),
            "holdfast": .members(["version": .string(runs[0].record.version)]),
            "alike": .bool(isAlike),
            "differences": .array(
                differences.map { difference in
                    .members([
                        "key": .string(difference.key), "values": .array(difference.values.map { .string(plain($0)) }),
                        "breaksLikeness": .bool(difference.breaksLikeness),
                    ])
                }),
            "reference": .string(referenceKey),
            "cautions": .array(cautions.map { .string(plain($0.plain)) }),
            "records": .array(runs.map(object)),
        ])
        return root.text + "\n"
    }

    private func object(_ run: ComparedRun) -> JSONValue {
        let record = run.record
        let modelError = JSONValue.members([
            "ttftMean": .number(record.modelError.ttftMean), "tpot": .number(record.modelError.tpot),
            "class": .string(record.modelError.kind),
        ])
        let missing = run.missing.map { figure -> JSONValue in
            .members(["figure": .string(figure.figure), "reason": .string(plain(figure.reason))])
        }
        let head: KeyValuePairs<String, JSONValue?> = [
            "key": .string(run.key), "name": .string(record.name), "mode": .string(record.mode.rawValue),
            "sha256": .string(record.digest), "notice": record.notice.map { .string($0) }, "trace": json(record.trace),
            "configuration": json(record.configuration), "modelError": modelError, "conclusions": conclusions(run),
        ]
        let results: KeyValuePairs<String, JSONValue?> = [
            "summary": .object(run.summary.map { JSONValue.Member(key: $0.key, value: json($0)) }),
            "missing": .array(missing), "checks": .array(record.checks.map(json)),
            "systems": .array(ordered(run).map { json($0, run) }), "missRatioCurve": record.missRatioCurve.map(json),
            "loadSweep": record.loadSweep.map(json), "prefetch": run.system.prefetch.map(json),
            "links": .array(run.system.links.map(json)), "prices": .array(record.prices.map(json)),
            "sensitivity": sensitivity(run), "live": record.live.map(json),
        ]
        return .object(JSONValue.present(head) + JSONValue.present(results))
    }

    /// Baselines, then the run, then ceilings: the order of every table.
    private func ordered(_ run: ComparedRun) -> [SystemResult] {
        run.record.systems.sorted { left, right in
            func rank(_ key: String) -> Int { key == "1" ? 1 : Comparison.isCeiling(key) ? 2 : 0 }
            return (rank(left.key), left.key) < (rank(right.key), right.key)
        }
    }

    private func conclusions(_ run: ComparedRun) -> JSONValue {
        var entries = [
            JSONValue.members([
                "section": .string("verdict"), "rule": .string(run.verdict.rule),
                "sentence": .string(plain(run.verdict.sentence)),
                "figures": .array(run.verdict.figures.map { .string($0) }),
            ])
        ]
        for conclusion in comparisons where conclusion.record == run.key {
            entries.append(
                .members([
                    "section": .string("comparison"), "rule": .string(conclusion.rule),
                    "sentence": .string(plain(conclusion.sentence)), "figures": .array([]),
                ]))
        }
        let present = Set(run.summary.map(\.key))
        for section in sections {
            for conclusion in section.conclusions where conclusion.record == run.key {
                entries.append(
                    .members([
                        "section": .string(section.id), "rule": .string(conclusion.rule),
                        "question": .string(section.question),
                        "sentence": .string(plain(conclusion.sentence)),
                        "figures": .array(conclusion.figures.filter(present.contains).map { .string($0) }),
                    ]))
            }
        }
        return .array(entries)
    }

    private func sensitivity(_ run: ComparedRun) -> JSONValue {
        .array(
            Economics(run: run).sensitivities().dropFirst().compactMap { change in
                change.cost.map { cost in
                    .members([
                        "input": .string(change.input), "factor": .number(change.factor),
                        "isLeast": .bool(change.isLeast),
                        "costPerMillionTokens": .number(cost.own),
                        "referenceCostPerMillionTokens": .number(cost.opponent),
                        "against": .string(Economics(run: run).opponent?.key ?? ""),
                    ])
                }
            })
    }

    /// Scripts get plain spaces.
    private func plain(_ text: String) -> String { text.replacing(thinSpace, with: " ") }
}

// MARK: The parts of a record

private func json(_ figure: SummaryFigure) -> JSONValue {
    var members: [JSONValue.Member] = [
        .init(key: "value", value: .number(figure.own.number)), .init(key: "unit", value: .string(figure.unit)),
        .init(key: "source", value: .string(figure.provenance.rawValue)),
    ]
    if let reference = figure.reference { members.append(.init(key: "reference", value: .number(reference.number))) }
    if let ceiling = figure.ceiling { members.append(.init(key: "ceiling", value: .number(ceiling.number))) }
    members += figure.more.map { .init(key: $0.key, value: .number($0.value)) }
    return .object(members)
}

private func json(_ trace: TraceSummary) -> JSONValue {
    .members([
        "name": .string(trace.name), "format": .string(trace.format), "sha256": .string(trace.sha256),
        "requests": .integer(trace.requests), "inputTokens": .integer(trace.inputTokens),
        "outputTokens": .integer(trace.outputTokens), "blockReferences": .integer(trace.blockReferences),
        "uniqueBlocks": .integer(trace.uniqueBlocks), "blockTokens": .integer(trace.blockTokens),
        "spanSeconds": .number(trace.spanSeconds), "sessions": trace.sessions.map { .integer($0) },
        "skippedLines": .integer(trace.skippedLines),
    ])
}

private func json(_ setup: Configuration) -> JSONValue {
    .members([
        "seed": .unsigned(setup.seed), "scenario": .string(setup.scenario),
        "scenarioSha256": .string(setup.scenarioSHA256),
        "overrides": .object(
            setup.overrides.sorted { $0.key < $1.key }.map { JSONValue.Member(key: $0.key, value: .string($0.value)) }),
        "command": .string(setup.command), "model": .string(setup.model), "gpu": .string(setup.gpu),
        "weights": .string(setup.weights), "kvType": .string(setup.kvType), "replicas": .integer(setup.replicas),
        "tensorParallel": .integer(setup.tensorParallel), "gpus": .integer(setup.gpus),
        "ownership": .string(setup.ownership),
        "tiers": .array(
            setup.tiers.map {
                .members(["tier": .string($0.tier), "bytes": .number($0.bytes), "shared": .bool($0.shared)])
            }),
        "inclusion": .string(setup.inclusion), "policy": .string(setup.policy), "planner": .string(setup.planner),
        "overlap": .string(setup.overlap), "linkDiscipline": .string(setup.linkDiscipline),
        "router": .string(setup.router),
        "routerStalenessSeconds": .number(setup.routerStalenessSeconds), "prefetch": .bool(setup.prefetch),
        "arrivals": .string(setup.arrivals), "warmUpShare": .number(setup.warmUpShare),
        "requestOverheadSeconds": .number(setup.requestOverheadSeconds),
        "slo": .members([
            "name": .string(setup.slo.name), "ttftSeconds": .number(setup.slo.ttftSeconds),
            "tpotSeconds": .number(setup.slo.tpotSeconds), "requiredShare": .number(setup.slo.requiredShare),
        ]),
        "kvBytesPerToken": .number(setup.kvBytesPerToken), "constantsSource": .string(setup.constantsSource),
    ])
}

private func json(_ check: Check) -> JSONValue {
    .members([
        "name": .string(check.name), "passed": .bool(check.passed), "left": .number(check.left),
        "right": .number(check.right),
    ])
}

private func json(_ system: SystemResult, _ run: ComparedRun) -> JSONValue {
    let role = system.key == "1" ? "run" : system.key == run.reference?.key ? "reference" : system.role
    let search = run.record.sloSearch.first { $0.key == system.key }
    let triedGPUs = search.map { JSONValue.array($0.triedGPUs.map { .integer($0) }) }
    let cost: KeyValuePairs<String, JSONValue?> = [
        "sameGPUs": system.cost.gpus > 0 ? json(system.cost) : nil, "sameSLO": search?.cost.map { json($0) },
        "triedGPUs": triedGPUs,
    ]
    var members = JSONValue.present([
        "key": .string(system.key), "name": .string(system.name), "role": .string(role), "ledger": json(system.ledger),
    ])
    if system.hasTimes { members += times(of: system) }
    if system.gpuSeconds.total > 0 {
        members += JSONValue.present(["gpuSeconds": json(system.gpuSeconds), "mfu": .number(system.mfu)])
    }
    if system.energy.total > 0 { members += JSONValue.present(["energyJoules": json(system.energy)]) }
    return .object(members + JSONValue.present(["cost": .members(cost)]))
}

private func times(of system: SystemResult) -> [JSONValue.Member] {
    JSONValue.present([
        "ttft": json(system.ttft, withCurve: true), "serviceTTFT": known(system.serviceTTFT),
        "tpot": known(system.tpot),
        "itlP99": system.itlP99Seconds > 0 ? .number(system.itlP99Seconds) : nil,
        "tbt10": known(system.tbt10Seconds), "ttftAfterWarmUp": known(system.ttftAfterWarmUp),
        "completedRequests": .integer(system.completedRequests), "goodput": .number(system.goodput),
        "goodputTokens": .number(system.goodputTokens), "offered": .number(system.offered),
        "metSLO": .number(system.metSLO),
        "preemptions": .integer(system.preemptions), "flopsAvoided": .number(system.flopsAvoided),
        "gpuSecondsAvoided": .number(system.gpuSecondsAvoided), "flashBytesWritten": .number(system.flashBytesWritten),
    ])
}

private func json(_ ledger: Ledger) -> JSONValue {
    let hit: KeyValuePairs<String, JSONValue?> = [
        "hbm": .integer(ledger.hbm), "dram": .integer(ledger.dram), "nvme": .integer(ledger.nvme),
        "flash": .integer(ledger.flash),
    ]
    let miss: KeyValuePairs<String, JSONValue?> = [
        "firstSeen": .integer(ledger.firstSeen), "evicted": .integer(ledger.evicted),
        "refused": .integer(ledger.refused),
        "heldElsewhere": .integer(ledger.heldElsewhere), "lostAfterLookUp": .integer(ledger.lostAfterLookUp),
        "late": .integer(ledger.late), "corrupt": .integer(ledger.corrupt), "quota": .integer(ledger.quota),
        "noTier": .integer(ledger.noTier), "recomputeCheaper": .integer(ledger.recomputeCheaper),
        "alwaysComputed": .integer(ledger.alwaysComputed),
    ]
    return .members(["hit": .members(hit), "miss": .members(miss)])
}

private func json(_ energy: Energy) -> JSONValue {
    .members([
        "prefill": .number(energy.prefill), "decode": .number(energy.decode), "idle": .number(energy.idle),
        "moving": .number(energy.moving),
    ])
}

private func json(_ distribution: Distribution, withCurve: Bool) -> JSONValue {
    .members([
        "count": .integer(distribution.count), "mean": .number(distribution.mean), "p1": .number(distribution.p1),
        "p10": .number(distribution.p10), "p50": .number(distribution.p50), "p90": .number(distribution.p90),
        "p95": .number(distribution.p95), "p99": .number(distribution.p99), "p999": .number(distribution.p999),
        "cdf": withCurve ? .array(distribution.cdf.map { .numbers($0) }) : nil,
    ])
}

/// A distribution that some request is in.
private func known(_ distribution: Distribution) -> JSONValue? {
    distribution.count > 0 ? json(distribution, withCurve: false) : nil
}

private func json(_ time: GPUSeconds) -> JSONValue {
    .members([
        "decode": .number(time.decode), "prefillUseful": .number(time.prefillUseful),
        "prefillRecomputed": .number(time.prefillRecomputed), "stalledOnLoad": .number(time.stalledOnLoad),
        "idle": .number(time.idle), "total": .number(time.total),
    ])
}

private func json(_ cost: Cost) -> JSONValue {
    .members([
        "gpus": .integer(cost.gpus), "gpu": .number(cost.gpu), "storage": .number(cost.storage),
        "switch": .number(cost.switches),
        "perMillionTokens": .number(cost.perMillionTokens),
        "perMillionOutputTokens": .number(cost.perMillionOutputTokens),
        "perRequest": .number(cost.perRequest),
    ])
}

private func json(_ curve: MissRatioCurve) -> JSONValue {
    .members([
        "source": .string("counted"), "bytes": .numbers(curve.bytes), "policies": json(curve.policies),
        "infinite": .number(curve.infinite),
        "marks": .array(curve.marks.map { .members(["tier": .string($0.tier), "bytes": .number($0.bytes)]) }),
    ])
}

private func json(_ lists: [String: [Double]]) -> JSONValue {
    .object(lists.sorted { $0.key < $1.key }.map { JSONValue.Member(key: $0.key, value: .numbers($0.value)) })
}

private func json(_ sweep: LoadSweep) -> JSONValue {
    .members([
        "sessionsPerGPU": .numbers(sweep.sessionsPerGPU), "usefulShareOfBusy": json(sweep.usefulShareOfBusy),
        "costPerMillionTokens": json(sweep.costPerMillionTokens), "metSLO": json(sweep.metSLO),
        "capacity": .object(
            sweep.capacity.sorted { $0.key < $1.key }.map { JSONValue.Member(key: $0.key, value: .number($0.value)) }),
        "traceRunsAt": .number(sweep.traceRunsAt),
    ])
}

private func json(_ balance: PrefetchBalance) -> JSONValue {
    .members([
        "precision": .number(balance.precision), "recall": .number(balance.recall),
        "bytes": .members([
            "used": .number(balance.bytesUsed), "neverUsed": .number(balance.bytesNeverUsed),
            "late": .number(balance.bytesLate),
            "cancelled": .number(balance.bytesCancelled),
        ]),
        "ttftSeconds": balance.hasTimes == false
            ? nil
            : .members([
                "saved": .number(balance.ttftSecondsSaved), "displaced": .number(balance.ttftSecondsDisplaced),
                "contention": .number(balance.ttftSecondsContention),
                "netBySecondRun": balance.ttftSecondsBySecondRun.map(JSONValue.number),
            ]),
        "byReason": .array(
            balance.byReason.map {
                .members([
                    "reason": .string($0.reason), "bytesMoved": .number($0.bytesMoved),
                    "bytesUsed": .number($0.bytesUsed),
                ])
            }),
    ])
}

private func json(_ link: LinkResult) -> JSONValue {
    .members([
        "name": .string(link.name), "lineRate": .number(link.lineRate), "practical": .number(link.practical),
        "mean": .number(link.mean), "p99Second": .number(link.p99Second), "timeAtLimit": .number(link.timeAtLimit),
        "bytes": .number(link.bytes), "series": .numbers(link.series), "peaks": .numbers(link.peaks),
    ])
}

private func json(_ price: Price) -> JSONValue {
    .members([
        "key": .string(price.key), "value": .number(price.value), "unit": .string(price.unit),
        "source": .string(Provenance.given.rawValue), "label": price.label.map { .string($0) },
    ])
}

private func json(_ live: LiveRun) -> JSONValue {
    .members([
        "machine": .string(live.machine), "runs": .integer(live.runs),
        "pairs": .array(
            live.pairs.map {
                .members([
                    "figure": .string($0.figure), "pairs": .integer($0.pairs), "median": .number($0.median),
                    "low": .number($0.low),
                    "high": .number($0.high),
                ])
            }),
        "loads": live.loads.map {
            .array(
                $0.map {
                    .members([
                        "tier": .string($0.tier), "blocksMin": $0.blocksMin.map { .integer($0) },
                        "blocksMax": $0.blocksMax.map { .integer($0) }, "count": .integer($0.count),
                        "predictedSeconds": .number($0.predictedSeconds),
                        "measuredSeconds": .number($0.measuredSeconds), "ratio": .number($0.ratio),
                    ])
                })
        },
    ])
}
