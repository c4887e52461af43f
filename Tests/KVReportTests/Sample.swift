// A record to test with. Every number is invented and follows simple laws, so that each test can bend one of them.

import KVModel
import KVReport

/// Builds records whose numbers are invented.
enum Sample {
    static let notice = "SAMPLE DATA: every number here is invented"

    /// A record in which everything is present and the shared tier pays.
    static func record(name: String = "sample") -> Record {
        Record(
            version: "0.0.0-sample", name: name, mode: .modelled,
            trace: TraceSummary(
                name: "sample-agents", format: "mooncake", sha256: hex("trace"), requests: 12_000,
                inputTokens: 300_000_000,
                outputTokens: 6_000_000, blockReferences: 586_000, uniqueBlocks: 164_000, blockTokens: 512,
                spanSeconds: 7_200,
                sessions: 384, skippedLines: 0),
            configuration: configuration,
            modelError: ModelError(ttftMean: 0.11, tpot: 0.05, kind: "dense, vLLM"), systems: systems,
            missRatioCurve: missRatioCurve, loadSweep: loadSweep, sloSearch: sloSearch, prices: prices, checks: checks,
            notice: notice)
    }

    static func hex(_ text: String) -> String {
        var digits = ""
        var random = RandomSource(seed: UInt64(text.utf8.reduce(0) { $0 &* 31 &+ Int($1) } & 0xFFFF_FFFF))
        for _ in 0..<64 { digits += String(random.below(16), radix: 16) }
        return digits
    }

    static var configuration: Configuration {
        Configuration(
            seed: 42, scenario: "node8-shared", scenarioSHA256: hex("scenario"), scenarioText: "seed: 42\n",
            overrides: ["seed": "42"],
            command: "holdfast replay sample-agents.jsonl.gz --scenario node8-shared.yaml -o sample.hfr",
            model: "Llama-3.1-70B", gpu: "H100", weights: "fp8", kvType: "bf16", replicas: 2, tensorParallel: 8,
            gpus: 16,
            ownership: "full",
            tiers: [
                RecordedTier(tier: "hbm", bytes: 0.95e12, shared: false),
                RecordedTier(tier: "dram", bytes: 2e12, shared: false),
                RecordedTier(tier: "flash", bytes: 16e12, shared: true),
            ], inclusion: "exclusive", policy: "holdfast", planner: "threshold", overlap: "layer by layer",
            linkDiscipline: "processor-sharing", router: "sticky", routerStalenessSeconds: 0.1, prefetch: true,
            arrivals: "open",
            warmUpShare: 0.1, requestOverheadSeconds: 0,
            slo: SLO(name: "interactive", ttftSeconds: 2, tpotSeconds: 0.05),
            kvBytesPerToken: 327_680, constantsSource: "data sheets, model configuration files")
    }

    // MARK: Systems

    /// Shares of prompt tokens in per mille: hbm, dram, nvme, flash, evicted, refused, elsewhere, no tier.
    private static let shares: [(String, String, String, [Int])] = [
        ("A", "No cache", "baseline", [0, 0, 0, 0, 0, 0, 0, 720]),
        ("B", "HBM only", "baseline", [140, 0, 0, 0, 480, 0, 100, 0]),
        ("C", "HBM + DRAM", "reference", [140, 150, 0, 0, 380, 0, 50, 0]),
        ("D", "+ local NVMe", "baseline", [140, 150, 120, 0, 270, 0, 40, 0]),
        ("E", "Shared tier, LRU", "baseline", [140, 150, 0, 230, 200, 0, 0, 0]),
        ("1", "This run", "run", [160, 274, 0, 164, 71, 19, 0, 0]),
        ("Z", "Infinite cache", "ceiling", [720, 0, 0, 0, 0, 0, 0, 0]),
    ]

    static func ledger(_ shares: [Int], run: Bool = false) -> Ledger {
        let unit = 300_000
        var ledger = Ledger()
        ledger.hbm = shares[0] * unit
        ledger.dram = shares[1] * unit
        ledger.nvme = shares[2] * unit
        ledger.flash = shares[3] * unit
        ledger.evicted = shares[4] * unit
        ledger.refused = shares[5] * unit
        ledger.heldElsewhere = shares[6] * unit
        ledger.noTier = shares[7] * unit
        if run {
            ledger.recomputeCheaper = 15 * unit
            ledger.late = 14 * unit
            ledger.quota = 2 * unit
            ledger.lostAfterLookUp = unit
        }
        ledger.alwaysComputed = 2 * unit
        ledger.firstSeen = 300_000_000 - ledger.total
        return ledger
    }

    /// Medians of TTFT and TPOT, share that met the SLO, GPU-hours recomputed, stalled and idle.
    private static let times:
        [String: (ttft: Double, tpot: Double, met: Double, again: Double, stalled: Double, idle: Double)] = [
            "A": (9.8, 0.041, 0.13, 17.8, 0, 2.4), "B": (3.9, 0.033, 0.31, 14.4, 0, 1.7),
            "C": (1.62, 0.027, 0.54, 10.6, 0.3, 4.3),
            "D": (1.05, 0.024, 0.68, 7.7, 0.9, 6.4), "E": (0.78, 0.023, 0.82, 5, 1.2, 8.7),
            "1": (0.52, 0.021, 0.9, 3, 0.4, 11.4),
            "Z": (0.38, 0.02, 0.94, 0, 0, 14.8),
        ]

    static var systems: [SystemResult] {
        shares.map { key, name, role, shares in
            system(key, name, role, ledger(shares, run: key == "1"))
        } + [
            SystemResult(
                counted: "Y", name: "Clairvoyant, same size", role: "ceiling",
                ledger: ledger([680, 0, 0, 0, 40, 0, 0, 0]))
        ]
    }

    private static func system(_ key: String, _ name: String, _ role: String, _ ledger: Ledger) -> SystemResult {
        let time = times[key]!
        var gpu = GPUSeconds()
        gpu.decode = 9.6 * 3600
        gpu.prefillUseful = 7.4 * 3600
        gpu.prefillRecomputed = time.again * 3600
        gpu.stalledOnLoad = time.stalled * 3600
        gpu.idle = time.idle * 3600
        gpu.total = gpu.busy + gpu.stalledOnLoad + gpu.idle
        var energy = Energy()
        energy.prefill = (gpu.prefillUseful + gpu.prefillRecomputed) * 665
        energy.decode = gpu.decode * 455
        energy.idle = (gpu.idle + gpu.stalledOnLoad) * 91
        energy.moving = key == "1" ? 3.6e5 : 0
        return SystemResult(
            key: key, name: name, role: role, ledger: ledger, ttft: distribution(median: time.ttft, spread: 10),
            serviceTTFT: distribution(median: time.ttft * 0.6, spread: 8),
            tpot: distribution(median: time.tpot, spread: 1.8),
            itlP99Seconds: time.tpot * 2.2, tbt10Seconds: distribution(median: time.tpot * 1.5, spread: 2),
            ttftAfterWarmUp: distribution(median: time.ttft * 0.96, spread: 10), completedRequests: 12_000,
            goodput: time.met * 12_000 / 7_200, goodputTokens: time.met * 6e6 / 7_200, offered: 12_000.0 / 7_200,
            metSLO: time.met,
            gpuSeconds: gpu, mfu: 0.071, flopsAvoided: Double(ledger.served) * 1.4e11,
            gpuSecondsAvoided: Double(ledger.served) * 3e-4, preemptions: key == "A" ? 31 : 2, energy: energy,
            cost: cost(gpus: 16, storage: storagePrice(key)), links: key == "1" ? links : [],
            prefetch: key == "1" ? prefetch : nil,
            flashBytesWritten: key == "1" ? 2.1e13 : 0)
    }

    /// A log-normal shape drawn with its quantiles: ninety-ninth percentile = median × spread.
    static func distribution(median: Double, spread: Double, points: Int = 200) -> Distribution {
        // Quantiles of the standard normal distribution at shares of 1 to 99 %, by the logistic approximation.
        func quantile(_ share: Double) -> Double {
            median
                * exponential(naturalLogarithm(share / (1 - share)) / naturalLogarithm(99) * naturalLogarithm(spread))
        }
        let cdf = (0..<points).map { index -> [Double] in
            let share = (Double(index) + 0.5) / Double(points)
            return [quantile(share), share]
        }
        return Distribution(
            count: 12_000, mean: quantile(0.62), p1: quantile(0.01), p10: quantile(0.1), p50: median,
            p90: quantile(0.9),
            p95: quantile(0.95), p99: quantile(0.99), p999: quantile(0.999), cdf: cdf)
    }

    // MARK: Links and prefetch

    static var links: [LinkResult] {
        let kinds: [(String, Double, Double, Double)] = [
            ("host NIC, the busier of 2", 12.5e9, 2.1e9, 0.03), ("store NIC", 25e9, 4.1e9, 0),
            ("store drives, read", 56e9, 4.1e9, 0),
            ("PCIe, host to GPU, per node", 424e9, 3e9, 0),
        ]
        return kinds.enumerated().map { index, kind in
            var random = RandomSource(seed: UInt64(index) + 7)
            let series = (0..<60).map { _ in kind.2 * (0.6 + 0.8 * random.uniform()) }
            let peaks = series.map { min($0 * (2 + 3 * random.uniform()), kind.1 * 0.85) }
            return LinkResult(
                name: kind.0, lineRate: kind.1, practical: kind.1 * 0.85, mean: kind.2, p99Second: peaks.max()!,
                timeAtLimit: kind.3,
                bytes: kind.2 * 7_200, series: series, peaks: peaks)
        }
    }

    static var prefetch: PrefetchBalance {
        var balance = PrefetchBalance()
        balance.bytesUsed = 10.7e12
        balance.bytesNeverUsed = 2.1e12
        balance.bytesLate = 0.4e12
        balance.bytesCancelled = 0.2e12
        balance.precision = 0.8
        balance.recall = 0.4
        balance.ttftSecondsSaved = 3_940
        balance.ttftSecondsDisplaced = -210
        balance.ttftSecondsContention = -160
        balance.byReason = [
            PrefetchOfReason(reason: "session", bytesMoved: 9e12, bytesUsed: 7.9e12),
            PrefetchOfReason(reason: "successor", bytesMoved: 2.4e12, bytesUsed: 1.3e12),
            PrefetchOfReason(reason: "popularity", bytesMoved: 1.1e12, bytesUsed: 0.7e12),
            PrefetchOfReason(reason: "queue", bytesMoved: 0.9e12, bytesUsed: 0.8e12),
        ]
        return balance
    }

    // MARK: Money

    private static func storagePrice(_ key: String) -> Double {
        switch key {
        case "D": 0.6
        case "E", "1": 5.5
        default: 0
        }
    }

    static func cost(gpus: Int, storage: Double, hours: Double = 2) -> Cost {
        let (gpu, store) = (Double(gpus) * 3 * hours, storage * 10 / 11 * hours)
        let total = gpu + storage * hours
        return Cost(
            gpus: gpus, gpu: gpu, storage: store, switches: storage * hours - store, perMillionTokens: total / 306,
            perMillionOutputTokens: total / 6, perRequest: total / 12_000)
    }

    static var sloSearch: [SLOSearchResult] {
        [("A", 80), ("B", 48), ("C", 32), ("D", 32), ("E", 24), ("1", 16)].map { key, gpus in
            SLOSearchResult(
                key: key, gpus: gpus, cost: cost(gpus: gpus, storage: storagePrice(key)),
                triedGPUs: [8, 16, 24, 32, 48, 80],
                gpusIfSlower: gpus + 8, costIfSlower: cost(gpus: gpus + 8, storage: storagePrice(key)))
        }
    }

    static var prices: [Price] {
        [
            Price(key: "prices.gpuHour", value: 3, unit: "USD", label: "H100, per GPU-hour"),
            Price(key: "prices.storeHour", value: 5, unit: "USD", label: "Storage server, per hour"),
            Price(key: "prices.switchHour", value: 0.5, unit: "USD", label: "Switch share, per hour"),
            Price(key: "prices.nvmeHour", value: 0.3, unit: "USD", label: "Local NVMe, per node-hour"),
            Price(key: "power.prefill", value: 665, unit: "W", label: "GPU, prefill"),
            Price(key: "power.decode", value: 455, unit: "W", label: "GPU, decode"),
            Price(key: "power.idle", value: 91, unit: "W", label: "GPU, stalled or idle"),
            Price(key: "power.joulesPerGB", value: 9, unit: "J/GB", label: "Moving a gigabyte"),
        ]
    }

    // MARK: Sweeps

    static var missRatioCurve: MissRatioCurve {
        MissRatioCurve(
            bytes: [1e11, 3e11, 1e12, 3e12, 6e12, 1e13, 1.9e13, 3e13, 6e13, 1e14],
            policies: [
                "lru": [0.99, 0.965, 0.86, 0.73, 0.64, 0.56, 0.46, 0.37, 0.29, 0.282],
                "holdfast": [0.97, 0.93, 0.82, 0.67, 0.565, 0.482, 0.39, 0.334, 0.284, 0.281],
                "clairvoyant": [0.9, 0.8, 0.66, 0.51, 0.43, 0.37, 0.32, 0.294, 0.281, 0.28],
            ], infinite: 0.28,
            marks: [
                TierMark(tier: "hbm", bytes: 0.95e12), TierMark(tier: "dram", bytes: 2.95e12),
                TierMark(tier: "flash", bytes: 18.95e12),
            ])
    }

    static var loadSweep: LoadSweep {
        let loads: [Double] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
        let full = ["B": 3.5, "C": 12, "D": 22, "1": 95]
        // Falls from 0.98 to its floor around the capacity.
        func useful(_ capacity: Double, _ floor: Double) -> [Double] {
            loads.map { load in
                let ratio = load / capacity
                let cube = ratio * ratio * ratio
                return floor + (0.98 - floor) / (1 + cube)
            }
        }
        let money: [String: [Double]] = [
            "1": loads.map { 0.30 + 0.9 / $0 + 0.0002 * $0 }, "C": loads.map { 0.27 + 0.5 / $0 + 0.006 * $0 },
        ]
        return LoadSweep(
            sessionsPerGPU: loads,
            usefulShareOfBusy: [
                "B": useful(3.5, 0.53), "C": useful(12, 0.57), "D": useful(22, 0.58), "1": useful(95, 0.57),
            ],
            costPerMillionTokens: money,
            metSLO: ["1": loads.map { $0 < 50 ? 0.9 : 0.5 }, "C": loads.map { $0 < 12 ? 0.9 : 0.4 }],
            capacity: full, traceRunsAt: 24)
    }

    static var checks: [Check] {
        [
            Check(name: "the ledger holds every prompt token once", passed: true, left: 3e8, right: 3e8),
            Check(name: "GPU classes add up to GPUs × span, in seconds", passed: true, left: 115_200, right: 115_200),
            Check(name: "drives carried the bytes ordered of them", passed: true, left: 9.54e13, right: 9.54e13),
            Check(name: "no system beats its ceiling", passed: true, left: 0, right: 0),
            Check(name: "blocks still referenced at the end", passed: true, left: 0, right: 0),
            Check(name: "a larger LRU cache never misses more", passed: true, left: 9, right: 9),
        ]
    }
}

extension Record {
    /// The record with one system changed.
    func changing(_ key: String, _ change: (inout SystemResult) -> Void) -> Record {
        var record = self
        change(&record.systems[record.systems.firstIndex { $0.key == key }!])
        return record
    }

    /// The record with anything changed.
    func changing(_ change: (inout Record) -> Void) -> Record {
        var record = self
        change(&record)
        return record
    }
}
