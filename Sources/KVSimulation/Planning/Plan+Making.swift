// How a plan is made: curves are counted, each choice is replayed on clusters of rising size until one meets the SLO,
// and the cheapest that does is compared with the cheapest that needs less.

import KVModel
import KVReport
import KVTiering

extension ModelledReplay {
    /// Sizes tried, as shares of the scenario's DRAM per node.
    private static let dramShares = [0.125, 0.25, 0.5, 1, 2]
    /// Sizes tried, as shares of all different bytes of the trace.
    private static let flashShares = [0.125, 0.25, 0.5, 1]
    /// How often the smallest of them is halved where it does as well as the largest.
    private static let halvingsMax = 4
    /// How often the middle is tried between what is bought and what is too little of it: three times bring a factor of two
    /// below an eighth.
    private static let narrowingsMax = 3
    private static let narrowEnough = 1.125

    /// Plans what to buy for the trace under the scenario's prices and SLO. Choices are independent and tried on
    /// `threads` threads; the plan does not depend on how many.
    public func plan(threads: Int, progress: (String, Double) -> Void) async throws(OperatorError) -> Plan {
        guard !workload.promptsAreUnique else {
            throw OperatorError(
                "the trace does not say which prompts share a prefix, so nothing can be planned from it",
                at: trace.name, remedy: "give a trace with block hashes")
        }
        let curve = missRatioCurve()
        let candidates = candidates
        var choices: [Plan.Choice?] = Array(repeating: nil, count: candidates.count)
        await withTaskGroup(of: (Int, Plan.Choice).self) { group in
            var next = 0
            func start() {
                guard next < candidates.count else { return }
                let number = next
                let candidate = candidates[number]
                next += 1
                group.addTask { (number, self.tried(candidate)) }
            }
            for _ in 0..<max(1, threads) { start() }
            var done = 0
            while let (number, choice) = await group.next() {
                choices[number] = choice
                done += 1
                progress(choice.name, Double(done) / Double(candidates.count))
                start()
            }
        }
        var all = choices.compactMap { $0 }
        for (stepsMax, next) in [(Self.halvingsMax, halved), (Self.narrowingsMax, narrowed)] {
            for _ in 0..<stepsMax {
                guard let (index, candidate) = next(all) else { break }
                progress(candidate.name, 1)
                all.insert(tried(candidate), at: index)
            }
        }
        return assemble(curve, all)
    }

    /// What a choice buys most of.
    private enum Kind {
        case memory, drives, flash

        init(_ choice: Plan.Choice) {
            self = choice.flashBytes > 0 ? .flash : choice.nvmeBytesPerNode > 0 ? .drives : .memory
        }

        func bytes(_ choice: Plan.Choice) -> Double {
            switch self {
            case .memory: choice.dramBytesPerNode
            case .drives: choice.nvmeBytesPerNode
            case .flash: choice.flashBytes
            }
        }

        func smallest(_ picks: Plan.Picks) -> String? {
            switch self {
            case .memory: picks.smallestDRAM
            case .drives: picks.smallestNVMe
            case .flash: picks.smallestFlash
            }
        }
    }

    /// What the verdict would buy, and where it stands among the choices.
    private struct Bought {
        var index: Int
        var kind: Kind
        var bytes: Double
        /// Bytes of DRAM below it, per node.
        var dram: Double
        /// The most that was tried of it and did not do as well; 0 where nothing smaller was tried.
        var tooSmall: Double
    }

    private static func bought(_ choices: [Plan.Choice]) -> Bought? {
        let picks = picks(choices)
        guard let kind = choices.first(where: { $0.name == picks.best }).map(Kind.init),
            let index = choices.firstIndex(where: { $0.name == kind.smallest(picks) })
        else { return nil }
        let (choice, bytes) = (choices[index], kind.bytes(choices[index]))
        let smaller = choices.filter { other in
            Kind(other) == kind && (kind == .memory || other.dramBytesPerNode == choice.dramBytesPerNode)
                && kind.bytes(other) < bytes
        }
        return Bought(
            index: index, kind: kind, bytes: bytes, dram: choice.dramBytesPerNode,
            tooSmall: smaller.map(kind.bytes).max() ?? 0)
    }

    /// Half of what is bought, where nothing smaller was tried: it may do as well. With its place among the others.
    private func halved(_ choices: [Plan.Choice]) -> (index: Int, candidate: Candidate)? {
        guard let bought = Self.bought(choices), bought.tooSmall == 0 else { return nil }
        let half = (bought.bytes / 2).rounded(.up)
        guard half >= 64 * Double(Cluster.blockBytes(model, workload)) else { return nil }
        return (bought.index, candidate(bought, half))
    }

    /// The middle between what is bought and what is too little of it.
    private func narrowed(_ choices: [Plan.Choice]) -> (index: Int, candidate: Candidate)? {
        guard let bought = Self.bought(choices), bought.tooSmall > 0,
            bought.bytes > Self.narrowEnough * bought.tooSmall
        else { return nil }
        return (bought.index, candidate(bought, ((bought.bytes + bought.tooSmall) / 2).rounded(.up)))
    }

    /// Another size of what is bought.
    private func candidate(_ bought: Bought, _ bytes: Double) -> Candidate {
        switch bought.kind {
        case .memory: withDRAM(bytes)
        case .drives: withDrives(bytes, below: bought.dram)
        case .flash: withFlash(bytes, below: bought.dram)
        }
    }

    /// One choice to try: a name and the scenario it means.
    private struct Candidate: Sendable {
        var name: String
        var scenario: Scenario
    }

    /// GPU memory alone, DRAM of rising size, then local NVMe and shared flash of rising size below two sizes of DRAM.
    private var candidates: [Candidate] {
        var found = [Candidate(name: "HBM only", scenario: ComparedSystem.hbmOnly.scenario(from: scenario))]
        let block = Double(Cluster.blockBytes(model, workload))
        let dramSizes = Self.dramShares.map { max(64 * block, ($0 * scenario.tiers.dram.perNode).rounded()) }
        found += dramSizes.map(withDRAM)
        let distinct = Double(workload.distinctBlockCount) * block
        let dramBelow = [dramSizes[0], max(64 * block, scenario.tiers.dram.perNode)]
        // No more than the scenario's drives hold.
        var nvmeSizes: [Double] = []
        for share in Self.flashShares {
            let bytes = max(64 * block, min((share * distinct).rounded(.up), scenario.tiers.nvme.perNode))
            if nvmeSizes.last != bytes { nvmeSizes.append(bytes) }
        }
        for dram in dramBelow { found += nvmeSizes.map { withDrives($0, below: dram) } }
        for dram in dramBelow {
            found += Self.flashShares.map { withFlash(max(64 * block, ($0 * distinct).rounded(.up)), below: dram) }
        }
        // On a small trace several sizes are the least one: what is called the same is the same.
        var names: Set<String> = []
        return found.filter { names.insert($0.name).inserted }
    }

    private func withDRAM(_ bytes: Double) -> Candidate {
        var changed = scenario
        changed.tiers.dram.use = true
        changed.tiers.dram.perNode = bytes
        changed.tiers.nvme.use = false
        changed.tiers.flash.use = false
        // What one node keeps no other can read, so sessions stay on their node.
        changed.router.bindsSessionsToNodes = true
        return Candidate(name: "DRAM \(Self.spoken(bytes))", scenario: changed)
    }

    private func withDrives(_ bytes: Double, below dram: Double) -> Candidate {
        var candidate = withDRAM(dram)
        candidate.name += " + NVMe \(Self.spoken(bytes))"
        candidate.scenario.tiers.nvme.use = true
        candidate.scenario.tiers.nvme.perNode = bytes
        return candidate
    }

    private func withFlash(_ bytes: Double, below dram: Double) -> Candidate {
        var candidate = withDRAM(dram)
        candidate.name += " + flash \(Self.spoken(bytes))"
        candidate.scenario.router.bindsSessionsToNodes = false
        candidate.scenario.tiers.flash.use = true
        let servers = max(1, Int((bytes / scenario.tiers.flash.perServer).rounded(.up)))
        candidate.scenario.tiers.flash.servers = servers
        candidate.scenario.tiers.flash.perServer = bytes / Double(servers)
        candidate.scenario.tiers.flash.stripe = min(scenario.tiers.flash.stripe, servers)
        return candidate
    }

    /// The smallest cluster for one choice, and what it does there.
    private func tried(_ candidate: Candidate) -> Plan.Choice {
        var replay = self
        replay.scenario = candidate.scenario
        let search = replay.search(.configured, ifSlower: false)
        let gpus = search.gpus ?? search.triedGPUs.max() ?? scenario.gpus
        let cluster = replay.cluster(
            .configured, workload: workload, replicas: gpus / scenario.tensorParallel, isDetailed: true)
        cluster.run()
        let result = cluster.result(of: .configured)
        let (flash, nvme) = (candidate.scenario.tiers.flash, candidate.scenario.tiers.nvme)
        let hours = max(1e-9, result.gpuSeconds.total / Double(gpus) / 3600)
        return Plan.Choice(
            name: candidate.name,
            dramBytesPerNode: candidate.scenario.tiers.dram.use ? candidate.scenario.tiers.dram.perNode : 0,
            nvmeBytesPerNode: nvme.use ? nvme.perNode : 0,
            flashBytes: flash.use ? flash.perServer * Double(flash.servers) : 0,
            flashServers: flash.use ? flash.servers : 0, gpus: search.gpus, triedGPUs: search.triedGPUs,
            ttftP50Seconds: result.ttft.p50, ttftP99Seconds: result.ttft.p99, metSLO: result.metSLO,
            served: Double(result.ledger.served) / Double(max(1, result.ledger.total)),
            costPerHour: result.cost.total / hours, costPerMillionTokens: result.cost.perMillionTokens,
            savesPerMillionTokens: nil)
    }

    private func assemble(_ curve: MissRatioCurve, _ tried: [Plan.Choice]) -> Plan {
        var choices = tried
        if let hbm = choices.first, hbm.gpus != nil {
            for index in choices.indices where choices[index].gpus != nil {
                choices[index].savesPerMillionTokens = hbm.costPerMillionTokens - choices[index].costPerMillionTokens
            }
        }
        let picks = Self.picks(choices)
        var plan = Plan(
            trace: traceSummary, slo: slo, model: scenario.modelName, gpu: scenario.gpuName,
            gpusPerReplica: scenario.tensorParallel,
            prices: prices.filter { $0.key.hasPrefix("prices.") }, reuse: reuse(curve), missRatioCurve: curve,
            sizes: Self.sizes(curve), choices: choices, picks: picks, breakEven: breakEven(choices, picks),
            verdict: Plan.Verdict(rule: "", sentence: ""))
        plan.verdict = Plan.verdict(plan)
        return plan
    }

    /// The choices that matter, among those that meet the SLO.
    package static func picks(_ choices: [Plan.Choice]) -> Plan.Picks {
        let meeting = choices.filter { $0.gpus != nil }
        func cheapest(_ among: [Plan.Choice]) -> Plan.Choice? {
            among.min { $0.costPerMillionTokens < $1.costPerMillionTokens }
        }
        func smallest(_ among: [Plan.Choice], by size: (Plan.Choice) -> Double) -> Plan.Choice? {
            guard let best = cheapest(among) else { return nil }
            return among.filter { areAlike($0.costPerMillionTokens, best.costPerMillionTokens) }
                .min { size($0) < size($1) }
        }
        let memory = meeting.filter { $0.flashBytes == 0 && $0.nvmeBytesPerNode == 0 }
        let local = meeting.filter { $0.nvmeBytesPerNode > 0 }
        let shared = meeting.filter { $0.flashBytes > 0 }
        // What takes more to buy must be cheaper for a reader, or the choice without it stands.
        func better(_ choice: Plan.Choice?, than other: Plan.Choice?) -> Plan.Choice? {
            guard let choice, let other else { return choice ?? other }
            let (cost, before) = (choice.costPerMillionTokens, other.costPerMillionTokens)
            return cost < before && !areAlike(cost, before) ? choice : other
        }
        let withoutFlash = better(cheapest(local), than: cheapest(memory))
        return Plan.Picks(
            best: better(cheapest(shared), than: withoutFlash)?.name, bestWithoutFlash: withoutFlash?.name,
            smallestDRAM: smallest(memory) { $0.dramBytesPerNode }?.name,
            smallestNVMe: smallest(local) { $0.nvmeBytesPerNode + $0.dramBytesPerNode }?.name,
            smallestFlash: smallest(shared) { $0.flashBytes + $0.dramBytesPerNode }?.name)
    }

    private func reuse(_ curve: MissRatioCurve) -> Plan.Reuse {
        let blocks = Cluster.hbmBlocks(model, workload)
        let block = Double(Cluster.blockBytes(model, workload))
        var replay = CacheOnlyReplay(identified: countedTrace)
        let hbm = replay.run(.lru, capacity: blocks).hitRatio
        return Plan.Reuse(
            infinite: 1 - curve.infinite, hbm: hbm, distinctBytes: Double(workload.distinctBlockCount) * block,
            hbmBytes: Double(blocks) * block)
    }

    /// The fewest bytes on the curve that reach shares of the ceiling, linear between its points; none where nothing is ever
    /// hit.
    package static func sizes(_ curve: MissRatioCurve) -> [Plan.Size] {
        [0.5, 0.8, 0.9, 0.95].map { share in
            guard curve.infinite < 1 else { return Plan.Size(shareOfCeiling: share, bytes: [:]) }
            let miss = 1 - share * (1 - curve.infinite)
            var bytes: [String: Double] = [:]
            for (policy, misses) in curve.policies {
                guard let index = misses.firstIndex(where: { $0 <= miss }) else { continue }
                guard index > 0, misses[index - 1] > misses[index] else {
                    bytes[policy] = curve.bytes[index]
                    continue
                }
                let part = (misses[index - 1] - miss) / (misses[index - 1] - misses[index])
                bytes[policy] = curve.bytes[index - 1] + part * (curve.bytes[index] - curve.bytes[index - 1])
            }
            return Plan.Size(shareOfCeiling: share, bytes: bytes)
        }
    }

    private func breakEven(_ choices: [Plan.Choice], _ picks: Plan.Picks) -> Plan.BreakEven {
        var hits = 0
        var tokens = 0
        var policy = InfinitePolicy()
        _ = CacheOnlyReplay(identified: countedTrace).run(&policy) { request, blocks in
            guard blocks > 0 else { return }
            hits += 1
            tokens += min(blocks * workload.blockTokens, Int(workload.requests[request].inputTokens))
        }
        let mean = hits == 0 ? 0 : tokens / hits
        let seconds = mean > 0 ? model.prefillSeconds(tokens: mean, after: 0) : 0
        let links = scenario.links
        let flash = scenario.tiers.flash
        let line = min(links.hostNIC, flash.nic * Double(flash.stripe), flash.read * Double(flash.stripe))
        let path = min(line * links.efficiency, links.rateToGPU(of: gpu) * Double(scenario.tensorParallel))
        return Plan.BreakEven(
            hitTokens: Double(mean), computeSeconds: seconds,
            bytesPerSecond: seconds > 0 ? Double(mean) * model.kvBytesPerToken / seconds : 0, pathBytesPerSecond: path,
            storeHour: storeBreakEven(choices, picks))
    }

    /// What a flash server may cost an hour until flash and no flash cost the same per token. Both serve the same
    /// tokens, so the GPUs saved pay for the servers.
    private func storeBreakEven(_ choices: [Plan.Choice], _ picks: Plan.Picks) -> Double? {
        guard let flash = choices.first(where: { $0.name == picks.smallestFlash }), flash.flashServers > 0,
            let without = choices.first(where: { $0.name == picks.bestWithoutFlash }), without.costPerMillionTokens > 0
        else { return nil }
        // Hours of the two runs differ a little; cost per token times tokens an hour puts both on the hours of `flash`.
        let allowed = flash.costPerHour * without.costPerMillionTokens / flash.costPerMillionTokens
        let servers = Double(flash.flashServers)
        return scenario.prices.storeHour + (allowed - flash.costPerHour) / servers
    }

    /// A size in a choice's name: three digits, decimal units.
    private static func spoken(_ bytes: Double) -> String {
        Printed.bytes(bytes, .given).text.replacing(thinSpace, with: " ")
    }
}
