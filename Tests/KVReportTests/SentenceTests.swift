// Every case of every section's rules, forced once; and what no sentence may say.

import KVReport
import Testing

/// A record bent so that one rule speaks, and words that its sentence must hold.
struct Case: Sendable, CustomTestStringConvertible {
    var rule: String
    var words: String
    var record: Record
    /// In the order of the report: 0 is the verdict.
    var section: Int

    var testDescription: String { rule }

    init(_ section: Int, _ rule: String, _ words: String, _ change: (inout Record) -> Void = { _ in }) {
        self.rule = rule
        self.words = words
        self.section = section
        record = Sample.record().changing(change)
    }
}

extension Record {
    /// Changes the configured system.
    fileprivate mutating func run(_ change: (inout SystemResult) -> Void) { self = changing("1", change) }
    /// Changes the reference.
    fileprivate mutating func reference(_ change: (inout SystemResult) -> Void) { self = changing("C", change) }
    /// Gives this run's smallest cluster another cost than the reference's, as a factor.
    fileprivate mutating func costAtSameSLO(_ factor: Double) {
        let other = sloSearch.first { $0.key == "C" }!
        let index = sloSearch.firstIndex { $0.key == "1" }!
        sloSearch[index].gpus = other.gpus
        sloSearch[index].cost = other.cost
        sloSearch[index].cost!.perMillionTokens *= factor
    }
    /// Gives local NVMe a smaller cluster that meets the SLO.
    fileprivate mutating func localFlash(gpus: Int) {
        let index = sloSearch.firstIndex { $0.key == "D" }!
        sloSearch[index].gpus = gpus
        sloSearch[index].cost = Sample.cost(gpus: gpus, storage: 0.1)
    }
    fileprivate mutating func leaveOut(_ key: String) { systems.removeAll { $0.key == key } }
}

private let cases: [Case] = [
    // The verdict.
    Case(0, "v.invalid", "must not be used: no system beats its ceiling failed") { $0.checks[3].passed = false },
    Case(0, "v.noprefix", "cannot say what a cache would give") { $0.trace.format = "azure" },
    Case(1, "t.noprefix", "does not tell which of them share a prefix") { $0.trace.format = "azure" },
    Case(
        0, "v.noreuse",
        "Nothing larger than HBM + DRAM can help much here: it already avoids 29 % of prefill tokens, 97 % of what an infinite"
    ) { record in
        record = record.changing("Z") { $0.ledger = Sample.ledger([300, 0, 0, 0, 0, 0, 0, 0]) }
    },
    Case(
        0, "v.noreuse",
        "No cache can help much here: an infinite one would avoid 5 % of prefill tokens and HBM + DRAM already avoids 4 %"
    ) { record in
        record = record.changing("Z") { $0.ledger = Sample.ledger([50, 0, 0, 0, 0, 0, 0, 0]) }
        record.reference { $0.ledger = Sample.ledger([40, 0, 0, 0, 0, 0, 0, 0]) }
    },
    Case(0, "v.noslo", "no cluster in the sweep meets 2 s and 50 ms") { record in
        let index = record.sloSearch.firstIndex { $0.key == "1" }!
        record.sloSearch[index].gpus = nil
        record.sloSearch[index].cost = nil
    },
    Case(0, "v.nobuy", "cost $0.75 instead of $0.63 with HBM + DRAM at the same SLO. It would pay above 8.3 sessions") {
        record in
        record.costAtSameSLO(1.2)
        record.run { $0.goodput = 0.9 }
    },
    Case(
        0, "v.nobuy",
        "The shared tier is not worth buying here: a million tokens cost $0.35 instead of $0.31 with HBM + DRAM + local NVMe"
    ) {
        record in
        record.localFlash(gpus: 16)
        record.run { $0.goodput = 1.1 }
    },
    Case(0, "v.nobuy", "This configuration is not worth buying here") { record in
        record.costAtSameSLO(1.2)
        record.configuration.tiers.removeLast()
        record.run { $0.goodput = 0.9 }
    },
    Case(0, "v.latency", "but HBM + DRAM + local NVMe alone avoids 41 %; it buys latency, not money: 1.5 of 1.7") {
        $0.localFlash(gpus: 16)
    },
    Case(0, "v.nobuy", "It would pay below $10 an hour") { record in
        record.costAtSameSLO(1.2)
        let index = record.sloSearch.firstIndex { $0.key == "1" }!
        record.sloSearch[index].cost!.gpu = 172
        record.run { $0.goodput = 0.9 }
        record.loadSweep = nil
    },
    Case(0, "v.nobuy", "It would pay at no load in the sweep") { record in
        record.costAtSameSLO(1.2)
        record.run { $0.goodput = 0.9 }
        record.loadSweep!.costPerMillionTokens["1"] = record.loadSweep!.sessionsPerGPU.map { _ in 9 }
    },
    Case(0, "v.latency", "buys latency, not money: 1.5 of 1.7 requests/s") { $0.costAtSameSLO(1) },
    Case(0, "v.pays", "pays for itself above 8.3 sessions per GPU, and this trace runs at 24."),
    Case(0, "v.pays", "at every load swept, from 1.0 sessions") { record in
        record.loadSweep!.costPerMillionTokens["1"] = record.loadSweep!.sessionsPerGPU.map { _ in 0.1 }
    },
    Case(0, "v.pays", "cost $0.35 instead of $0.63") { $0.loadSweep = nil },
    Case(0, "v.pays", "cost $0.35 instead of $0.63") { $0.loadSweep!.traceRunsAt = 5 },
    Case(0, "v.pays", "16 GPUs meet the SLO, which HBM + DRAM met with no cluster") { record in
        for index in record.sloSearch.indices where ["B", "C", "D"].contains(record.sloSearch[index].key) {
            record.sloSearch[index].gpus = nil
            record.sloSearch[index].cost = nil
        }
    },
    Case(0, "v.pays", "This trace runs within 20 % of the cliff: read question 6") { $0.loadSweep!.traceRunsAt = 13 },
    Case(0, "v.unpriced", "83 % of what an infinite cache could; HBM + DRAM alone avoids 29 %.") { $0.sloSearch = [] },
    Case(0, "v.alone", "Holdfast avoids 60 % of prefill tokens, 83 %") { $0.leaveOut("C") },
    // 1
    Case(1, "t.none", "Nothing was computed twice") { record in
        record.run { $0.ledger = Sample.ledger([720, 0, 0, 0, 0, 0, 0, 0]) }
    },
    Case(1, "t.none", "Next to nothing was computed twice") { record in
        record.run { $0.ledger = Sample.ledger([715, 0, 0, 0, 5, 0, 0, 0]) }
    },
    Case(
        1, "t.main",
        "12 % were computed again although they had been computed before, most of them (58 %) because they had been evicted"
    ),
    Case(1, "t.main", "the largest part (50 %) because they were kept where this replica could not reach them") {
        record in
        record.run { $0.ledger = Sample.ledger([500, 0, 0, 0, 50, 50, 100, 0]) }
    },
    Case(1, "t.main", "all of them because there was no tier to keep them in") { record in
        record.run { $0.ledger = Sample.ledger([0, 0, 0, 0, 0, 0, 0, 720]) }
    },
    // 2
    Case(2, "l.slow", "start later than with HBM + DRAM: 3.0 s against 1.6 s") { $0.run { $0.ttft.p50 = 3 } },
    Case(2, "l.alike", "would not notice: 1.6 s at the median, as with HBM + DRAM") { record in
        record.run {
            $0.ttft.p50 = 1.6
            $0.metSLO = 0.545
        }
    },
    Case(
        2, "l.main",
        "Half of all requests start within 0.52 s, against 1.6 s with HBM + DRAM. 90 % meet the interactive SLO (2 s, 50 ms)"
    ),
    Case(2, "l.main", "100 % meet the interactive SLO (2 s, 50 ms), as with HBM + DRAM.") { record in
        record.run { $0.metSLO = 1 }
        record.reference { $0.metSLO = 1 }
    },
    Case(2, "l.alone", "start within 0.52 s. 90 % meet") { $0.leaveOut("C") },
    Case(2, "l.missing", "Not in this record: request times") { record in
        for key in ["1", "A", "B", "C", "D", "E", "Z"] { record = record.changing(key) { $0.ttft = .none } }
    },
    // 3
    Case(3, "g.stall", "waited for KV 10 % of the time") {
        $0.run { $0.gpuSeconds.stalledOnLoad = $0.gpuSeconds.total / 10 }
    },
    Case(
        3, "g.main",
        "Recompute fell from 11 to 3.0 GPU-hours. 85 % of busy GPU time was useful, against 62 %; at this fixed load"),
    Case(3, "g.main", "Recompute fell from 11 to 3.0 GPU-seconds") { record in
        for key in record.systems.filter({ $0.gpuSeconds.total > 0 }).map(\.key) {
            record = record.changing(key) { system in
                var time = GPUSeconds()
                time.decode = system.gpuSeconds.decode / 3600
                time.prefillUseful = system.gpuSeconds.prefillUseful / 3600
                time.prefillRecomputed = system.gpuSeconds.prefillRecomputed / 3600
                time.stalledOnLoad = system.gpuSeconds.stalledOnLoad / 3600
                time.idle = system.gpuSeconds.idle / 3600
                time.total = system.gpuSeconds.total / 3600
                system.gpuSeconds = time
            }
        }
    },
    Case(3, "g.main", "the trace ends 30 min sooner") { $0.run { $0.gpuSeconds.total = 24.2 * 3600 } },
    Case(3, "g.main", "Recompute stayed at 11 GPU-hours. 62 % of busy GPU time was useful, against 62 %.") { record in
        let before = record.systems.first { $0.key == "C" }!.gpuSeconds
        record.run {
            $0.gpuSeconds = before
            $0.gpuSeconds.idle += 1
            $0.gpuSeconds.total += 1
        }
    },
    Case(3, "g.main", "85 % of busy GPU time was useful, against 62 %.") { $0.configuration.arrivals = "sessions" },
    Case(3, "g.main", "Recompute rose from 11 to 20") { $0.run { $0.gpuSeconds.prefillRecomputed = 20 * 3600 } },
    Case(3, "g.alone", "Recompute took 3.0 GPU-hours") { $0.leaveOut("C") },
    Case(3, "g.missing", "Not in this record: GPU time") { $0.run { $0.gpuSeconds = GPUSeconds() } },
    // 4
    Case(
        4, "c.main",
        "16 GPUs do the work of 32, and a million tokens cost $0.35 instead of $0.63. On the same 16 GPUs the tier costs 13 % more and buys latency."
    ),
    Case(4, "c.main", "instead of $0.63. HBM + DRAM + local NVMe needs 16 and costs $0.31. On the same 16 GPUs") {
        $0.localFlash(gpus: 16)
    },
    Case(4, "c.main", "costs 13 % more.") { $0.run { $0.goodput = 0.9 } },
    Case(4, "c.same", "The SLO needs 32 GPUs either way, so the tier adds 19 % to the cost") { $0.costAtSameSLO(1.2) },
    Case(4, "c.same", "takes 21 % off the cost") { $0.costAtSameSLO(0.8) },
    Case(4, "c.noslo", "No cluster tried meets the SLO") { record in
        let index = record.sloSearch.firstIndex { $0.key == "1" }!
        record.sloSearch[index].gpus = nil
        record.sloSearch[index].cost = nil
    },
    Case(4, "c.alone", "16 GPUs meet the SLO at $0.35 per million tokens.") { $0.leaveOut("C") },
    Case(4, "c.unsearched", "was not searched for") { $0.sloSearch = [] },
    Case(4, "c.missing", "Not in this record: prices") { $0.run { $0.cost = .none } },
    // 5
    Case(5, "s.big", "10 TB is more than this trace needs") { record in
        record.missRatioCurve!.marks = [TierMark(tier: "hbm", bytes: 10e12)]
        record.missRatioCurve!.policies["holdfast"] = record.missRatioCurve!.bytes.map { _ in 0.3 }
    },
    Case(
        5, "s.main",
        "19 TB misses 39 % of prompt tokens. Doubling it would save 7 points more, halving it would lose 10 points; a better policy could save at most 7 points"
    ),
    Case(5, "s.missing", "miss ratio by capacity") { $0.missRatioCurve = nil },
    Case(5, "s.below", "is less than this record can judge: its curve starts at 8.0 TB, where") { record in
        record.missRatioCurve!.marks = [TierMark(tier: "hbm", bytes: 9e12)]
        record.missRatioCurve!.bytes = record.missRatioCurve!.bytes.indices.map { 8e12 + Double($0) * 1e12 }
    },
    // 6
    Case(6, "k.far", "HBM + DRAM holds 12 sessions per GPU and this trace runs at 5.0") {
        $0.loadSweep!.traceRunsAt = 5
    },
    Case(6, "k.near", "on the edge: 13 sessions per GPU where HBM + DRAM is full at 12") {
        $0.loadSweep!.traceRunsAt = 13
    },
    Case(6, "k.near", "where the shared tier is full at 95") { $0.loadSweep!.traceRunsAt = 100 },
    Case(
        6, "k.main",
        "at 12 sessions per GPU with HBM + DRAM and at 95 with the shared tier. This trace runs at 24: 2.0 times past the first, 4.0 times below the second."
    ),
    Case(6, "k.near", "where this configuration is full at 95") { record in
        record.loadSweep!.traceRunsAt = 100
        record.configuration.tiers.removeLast()
    },
    Case(6, "k.alone", "Useful work falls off at 95 sessions per GPU") { $0.leaveOut("C") },
    Case(6, "k.missing", "other loads") { $0.loadSweep = nil },
    // 7
    Case(7, "p.off", "Prefetch was off.") { $0.configuration.prefetch = false },
    Case(7, "p.loss", "saved 100 s of waiting and cost 6.2 min") { $0.run { $0.prefetch!.ttftSecondsSaved = 100 } },
    Case(7, "p.counted", "moved 13 TB, of which 80 % were used; what waiting that saved was not told apart") {
        $0.run { $0.prefetch!.hasTimes = false }
    },
    Case(7, "p.counted", "Prefetch was on and moved nothing") { record in
        record.run {
            $0.prefetch = PrefetchBalance()
            $0.prefetch!.hasTimes = false
        }
    },
    Case(7, "p.idle", "Prefetch was on and moved nothing.") { $0.run { $0.prefetch = PrefetchBalance() } },
    Case(7, "p.loss", "it saved no waiting") { record in
        record.run {
            $0.prefetch = PrefetchBalance()
            $0.prefetch!.bytesLate = 1e9
        }
    },
    Case(7, "p.loss", "without it requests wait 20 s less in all") {
        $0.run { $0.prefetch!.ttftSecondsBySecondRun = -20 }
    },
    Case(7, "p.main", "60 min of waiting, net by an estimate from its bytes: 0.30 s per request. 80 % of the bytes it"),
    Case(7, "p.main", "saved 20 min of waiting, as the same replay without it shows: 0.10 s per request") {
        $0.run { $0.prefetch!.ttftSecondsBySecondRun = 1_200 }
    },
    // 8
    Case(8, "n.limit", "Yes: one link (store NIC) was full 12 % of the time, and 0.40 GPU-hours stalled behind it") {
        record in
        record.run { $0.links[1].timeAtLimit = 0.12 }
    },
    Case(
        8, "n.main",
        "No: the tightest link (host NIC, the busier of 2) sat at its practical limit 3 % of the time. Twice the rate"),
    Case(8, "n.main", "a faster link would win nothing back") { $0.run { $0.gpuSeconds.stalledOnLoad = 0 } },
    Case(8, "n.main", "never reached its practical limit. Twice the rate could win back at most the 20 GPU-seconds") {
        record in
        record.run {
            $0.links[0].timeAtLimit = 0
            $0.gpuSeconds.stalledOnLoad = 20
        }
    },
    Case(8, "n.missing", "links") { $0.run { $0.links = [] } },
    // 9
    Case(9, "q.fail", "1 of 6 checks failed; do not use this record") { $0.checks[0].passed = false },
    Case(9, "q.main", "All 6 checks passed. Times carry the serving model's error: 11 % on mean TTFT, 5 % on TPOT"),
    Case(9, "q.live", "Times are measured on two hosts; 3 runs.") { record in
        record.mode = .live
        record.live = LiveRun(machine: "two hosts", runs: 3)
    },
]

@Suite struct SentenceTests {
    private func conclusion(_ one: Case) throws -> Conclusion {
        let comparison = try Comparison([one.record])
        return one.section == 0 ? comparison.runs[0].verdict : comparison.sections[one.section - 1].conclusions[0]
    }

    @Test(arguments: cases) func eachRuleSpeaksWhenItsCaseHolds(_ one: Case) throws {
        let spoken = try conclusion(one)
        #expect(spoken.rule == one.rule)
        let sentence = spoken.sentence.replacing(thinSpace, with: " ")
        #expect(sentence.contains(one.words), "\(sentence)")
        #expect(sentence.hasSuffix("."))
    }

    /// A record is whatever a file says.
    @Test(arguments: [(1.127, "1.13"), (0, "0.0"), (-3, "-3.0"), (1e300, "1e+300"), (1e308, "inf")])
    func anyRatioOfLoadTimesHasWords(_ ratio: Double, _ words: String) {
        let loads = LoadTimes(
            tier: "memory", blocksMin: 5, blocksMax: 16, count: 63, predictedSeconds: 0.0011, measuredSeconds: 0.0012,
            ratio: ratio)
        #expect(
            loads.words.replacing(thinSpace, with: " ")
                == "63 loads of 5 to 16 blocks took 1.20 ms at the median, \(words) times the profile's 1.10 ms")
    }

    @Test func everyRuleIsForcedByACase() {
        // What the sections can say; a rule added there needs a case here.
        let rules: Set = [
            "v.invalid", "v.noprefix", "v.noreuse", "v.noslo", "v.nobuy", "v.latency", "v.pays", "v.unpriced",
            "v.alone", "t.none", "t.noprefix", "t.main", "l.slow",
            "l.alike", "l.main", "l.alone", "l.missing", "g.stall", "g.main", "g.alone", "g.missing", "c.main",
            "c.same", "c.noslo",
            "c.alone", "c.unsearched", "c.missing", "s.big", "s.main", "s.below", "s.missing", "k.far", "k.near",
            "k.main",
            "k.alone", "k.missing",
            "p.off", "p.idle", "p.loss", "p.main", "p.counted", "n.limit", "n.main", "n.missing", "q.fail", "q.main",
            "q.live",
        ]
        #expect(Set(cases.map(\.rule)) == rules)
    }

    @Test(arguments: cases) func noFormSaysAForbiddenWord(_ one: Case) throws {
        let comparison = try Comparison([one.record])
        let forms = [
            comparison.page, comparison.jsonReport, comparison.terminalReport(sections: .all),
        ]
        for form in forms {
            // Bytes, not characters: a page has a hundred thousand of them, and there is one a case.
            let words = Set(
                form.utf8.split { !((65...90).contains($0) || (97...122).contains($0)) }.map {
                    String($0)?.lowercased() ?? ""
                })
            let forbidden: Set = [
                "utilization", "utilisation", "significantly", "blazing", "nan", "inf", "infinity", "optional",
            ]
            #expect(words.isDisjoint(with: forbidden), "\(one.rule) says \(words.intersection(forbidden))")
        }
        for sentence in comparison.sections.map(\.conclusions[0].sentence) + [comparison.runs[0].verdict.sentence] {
            #expect(!sentence.contains("!") && !sentence.contains("up to") && !sentence.contains("% faster"))
        }
    }

    @Test func aRecordWithoutAnythingElseStillReports() throws {
        var record = Sample.record()
        record.systems = [SystemResult(counted: "1", name: "This run", role: "run", ledger: Ledger())]
        record.missRatioCurve = nil
        record.loadSweep = nil
        record.sloSearch = []
        record.prices = []
        record.checks = []
        let comparison = try Comparison([record])
        #expect(comparison.page.contains("Not in this record"))
        #expect(!comparison.page.contains("$0"))
        #expect(comparison.terminalReport(sections: .all).contains("Not in this record"))
        #expect(comparison.runs[0].missing.map(\.figure).contains("goodput"))
    }

    @Test(arguments: [1e-30, 1e-12, 2e-5, 1, 1e6])
    func axesHoldAnyLoadAndSize(factor: Double) throws {
        let record = Sample.record().changing { record in
            record.loadSweep!.sessionsPerGPU = record.loadSweep!.sessionsPerGPU.map { $0 * factor }
            record.loadSweep!.capacity = record.loadSweep!.capacity.mapValues { $0 * factor }
            record.loadSweep!.traceRunsAt *= factor
            record.missRatioCurve!.bytes = record.missRatioCurve!.bytes.map { $0 * factor }
            record.missRatioCurve!.marks = record.missRatioCurve!.marks.map {
                TierMark(tier: $0.tier, bytes: $0.bytes * factor)
            }
            record.run { system in
                let times = system.ttft
                system.ttft.p1 = times.p1 * factor
                system.ttft.p99 = times.p99 * factor
                system.ttft.cdf = times.cdf.map { [$0[0] * factor, $0[1]] }
            }
        }
        let comparison = try Comparison([record])
        #expect(comparison.terminalReport(sections: .all).contains("sessions per GPU"))
        #expect(comparison.page.contains("sessions per GPU, log scale"))
        #expect(!comparison.page.contains("nan%"))
        if factor == 1e-12 { #expect(comparison.page.contains(">9.3e-10<")) }
    }

    @Test func aTerminalSaysTheRareCautionsAsWell() throws {
        let record = Sample.record().changing { $0.configuration.planner = "split" }
        #expect(try Comparison([record]).terminalReport().contains("caution The planner splits prefixes"))
        #expect(try Comparison([record]).page.contains("The planner splits prefixes"))
        let usual = try Comparison([Sample.record()]).terminalReport()
        #expect(!usual.contains("caution"))
    }

    @Test func oneLineLeftOutIsOne() throws {
        let record = Sample.record().changing { $0.trace.skippedLines = 1 }
        let cautions = try Comparison([record]).cautions.map(\.plain)
        #expect(cautions.contains("1 unreadable line of the trace was left out."))
    }

    @Test func timesThatNoRequestHasAreNotZero() throws {
        let record = Sample.record().changing { record in
            for index in record.systems.indices {
                record.systems[index].tpot = .none
                record.systems[index].tbt10Seconds = .none
                record.systems[index].itlP99Seconds = 0
            }
        }
        let comparison = try Comparison([record])
        let tables = comparison.sections[1].figures.compactMap(\.table)
        #expect(tables.count == 2)
        #expect(tables.flatMap(\.rows).allSatisfy { row in !row.cells.contains("0\(thinSpace)s") })
        #expect(tables[0].rows.allSatisfy { $0.cells.contains("-") })
        #expect(!comparison.page.contains("TPOT p99"))
        #expect(!comparison.jsonReport.contains("\"tpot\": {"))
        #expect(comparison.runs[0].missing.map(\.figure).contains("tpot"))
        #expect(!(try Comparison([Sample.record()])).runs[0].missing.map(\.figure).contains("tpot"))
    }

    @Test func aRecordWithoutTimesSaysNothingOfTheirError() throws {
        let record = Sample.record().changing { record in
            for index in record.systems.indices { record.systems[index].ttft = .none }
        }
        let comparison = try Comparison([record])
        let cautions = comparison.cautions.map(\.plain)
        #expect(cautions.allSatisfy { !$0.contains("model was within") && !$0.contains("pace") })
        #expect(cautions[0].hasPrefix("There are no request times in this record"))
        let sentence = comparison.sections[8].conclusions[0].sentence
        #expect(sentence == "All 6 checks passed. The command below makes this record again, byte for byte.")
        #expect(comparison.terminalReport().contains("times   not in this record; reference is C"))
        let live = try Comparison([
            record.changing {
                $0.mode = .live
                $0.live = LiveRun(machine: "two hosts", runs: 3)
            }
        ])
        #expect(live.sections[8].conclusions[0].sentence == "All 6 checks passed. It was run on two hosts; 3 runs.")
        #expect(!live.terminalReport().contains("measured on two hosts"))
    }

    @Test func aPriceIsTheOneThatWasGiven() throws {
        let record = Sample.record().changing { record in
            record.prices[0].value = 2.4567
            record.prices[1].value = 1234.5
        }
        let listing = try #require(try Comparison([record]).sections[3].listings.first)
        #expect(listing.entries[0].value == "$2.4567")
        #expect(listing.entries[0].argument == "--set \(record.prices[0].key)=2.4567")
        #expect(listing.entries[1].argument == "--set \(record.prices[1].key)=1234.5")
    }

    @Test func aFreeTierThatCostsAsMuchIsNotCalledDearer() throws {
        func breakEven(_ gpu: Double) throws -> String {
            let record = Sample.record().changing { record in
                record.costAtSameSLO(1.2)
                let index = record.sloSearch.firstIndex { $0.key == "1" }!
                record.sloSearch[index].cost!.gpu *= gpu
            }
            return try #require(try Comparison([record]).sections[3].remarks.first).plain
        }
        #expect(try breakEven(1.001).contains("would have to be free, and even then HBM + DRAM is as cheap"))
        #expect(try breakEven(1.2).contains("would have to be free, and even then HBM + DRAM is cheaper"))
    }

    @Test func nearlyAllIsNotAllInTheTableOfLoads() throws {
        let record = Sample.record().changing { record in
            record.loadSweep!.usefulShareOfBusy["1"] = record.loadSweep!.sessionsPerGPU.indices.map {
                $0 == 0 ? 1 : $0 == 1 ? 0.996 : $0 == 2 ? 0.001 : 0
            }
        }
        let table = try #require(try Comparison([record]).sections[5].figures[0].table)
        let own = try #require(table.rows.first { $0.name == "This run" })
        #expect(Array(own.cells.prefix(4)) == ["100", ">99", "<1", "0"])
    }

    @Test func theStrongestCautionsComeFirstAndAreAtMostFive() throws {
        let record = Sample.record().changing {
            $0.trace.skippedLines = 3
            $0.configuration.planner = "split"
            $0.configuration.ownership = "engine"
            $0.configuration.linkDiscipline = "fifo"
            $0.configuration.requestOverheadSeconds = 0.04
        }
        let cautions = try Comparison([record]).cautions.map(\.plain)
        #expect(cautions.count == 5)
        #expect(cautions[0].hasPrefix("Times are modelled"))
        #expect(cautions[3].contains("3 unreadable lines"))
        #expect(cautions[4].contains("engine support"))
    }
}
