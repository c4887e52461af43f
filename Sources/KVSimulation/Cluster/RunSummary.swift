// From the books of a run to the result that a record carries.

import KVModel
import KVReport
import KVServing
import KVTiering

/// What a sweep keeps of a run: enough for its curves and for the choice of a cluster.
struct RunSummary: Sendable {
    var metSLO: Double
    /// The share that would meet the SLO if each TTFT were longer by the model's error.
    var metSLOIfSlower: Double
    var usefulShareOfBusy: Double
    var cost: Cost
}

extension Cluster {
    /// The five classes over all GPUs. They add up to GPUs × span exactly, because each is a sum of whole nanoseconds.
    var gpuSeconds: GPUSeconds {
        var time = ReplicaTime()
        for replica in replicas {
            time.decode += replica.time.decode
            time.prefillUseful += replica.time.prefillUseful
            time.prefillRecomputed += replica.time.prefillRecomputed
            time.stalled += replica.time.stalled
            time.idle += replica.time.idle
        }
        let gpus = Double(scenario.tensorParallel) / 1e9
        var seconds = GPUSeconds()
        seconds.decode = Double(time.decode) * gpus
        seconds.prefillUseful = Double(time.prefillUseful) * gpus
        seconds.prefillRecomputed = Double(time.prefillRecomputed) * gpus
        seconds.stalledOnLoad = Double(time.stalled) * gpus
        seconds.idle = Double(time.idle) * gpus
        seconds.total = Double(scenario.gpus) * spanSeconds
        return seconds
    }

    /// From the first arrival to the last completion.
    var spanSeconds: Double { Double(accounts.end - accounts.start) / 1e9 }

    /// Seconds to the first token, summed over all requests of a detailed run.
    var secondsToFirstTokens: Double {
        let ttft = Distribution(of: accounts.ttft)
        return ttft.mean * Double(ttft.count)
    }

    var summary: RunSummary {
        let gpu = gpuSeconds
        let useful = gpu.decode + gpu.prefillUseful
        let busy = useful + gpu.prefillRecomputed
        let count = Double(max(1, accounts.completed))
        return RunSummary(
            metSLO: Double(accounts.metCount) / count, metSLOIfSlower: Double(accounts.metIfSlower) / count,
            usefulShareOfBusy: busy > 0 ? useful / busy : 1, cost: cost(gpu))
    }

    /// What this system did, for a record.
    func result(of system: ComparedSystem) -> SystemResult {
        let gpu = gpuSeconds
        let span = max(spanSeconds, 1e-9)
        let count = Double(max(1, accounts.completed))
        let warm = Int32(Double(workload.requests.count) * scenario.warmUp)
        let afterWarmUp = zip(accounts.requests, accounts.ttft).filter { $0.0 >= warm }.map(\.1)
        var result = SystemResult(counted: system.key, name: system.name, role: system.role, ledger: accounts.ledger)
        result.ttft = Distribution(of: accounts.ttft)
        result.serviceTTFT = Distribution(of: accounts.serviceTTFT)
        result.tpot = Distribution(of: accounts.tpot)
        result.itlP99Seconds = accounts.itl.percentile(0.99)
        result.tbt10Seconds = Distribution(of: accounts.tbt10)
        result.ttftAfterWarmUp = Distribution(of: afterWarmUp)
        result.completedRequests = accounts.completed
        result.goodput = Double(accounts.metCount) / span
        result.goodputTokens = Double(accounts.metTokens) / span
        result.offered = Double(workload.requests.count) / max(1e-9, Double(workload.span) / 1e9)
        result.metSLO = Double(accounts.metCount) / count
        result.gpuSeconds = gpu
        result.mfu = accounts.usefulFLOPs / (model.peakFLOPs / Double(scenario.tensorParallel) * gpu.total)
        result.flopsAvoided = accounts.flopsAvoided
        result.gpuSecondsAvoided = accounts.secondsAvoided * Double(scenario.tensorParallel)
        result.preemptions = accounts.preemptions
        result.energy = energy(gpu)
        result.cost = cost(gpu)
        result.links = links
        result.flashBytesWritten = world.flashBytesWritten
        result.prefetch = prefetchBalance
        return result
    }

    /// What all nodes' predictions gave and cost; nil when there were none.
    ///
    /// Bytes are counted. Seconds are estimates from them: a used block saves its read from below DRAM at the links'
    /// practical rate, a displaced one costs the same, and what was moved for nothing costs the loads that share the
    /// link their share of it while they run.
    private var prefetchBalance: PrefetchBalance? {
        guard scenario.prefetch.use, !nodes.isEmpty else { return nil }
        let block = Double(Self.blockBytes(model, workload))
        var balance = PrefetchBalance()
        var started = 0.0
        var displaced = 0.0
        var missed = 0.0
        for reason in PrefetchReason.allCases {
            var moved = 0.0
            var used = 0.0
            for node in nodes {
                let account = node.manager.prefetchSheet[reason]
                moved += Double(account.started) * block
                used += Double(account.used) * block
                balance.bytesLate += Double(account.late) * block
                balance.bytesCancelled += Double(account.cancelled) * block
            }
            started += moved
            balance.bytesUsed += used
            balance.byReason.append(PrefetchOfReason(reason: reason.name, bytesMoved: moved, bytesUsed: used))
        }
        for node in nodes {
            displaced += Double(node.manager.prefetchSheet.displacedBlocks) * block
            missed += Double(node.manager.prefetchSheet.missedBlocks) * block
        }
        balance.bytesNeverUsed = max(0, started - balance.bytesUsed - balance.bytesLate - balance.bytesCancelled)
        balance.precision = started > 0 ? balance.bytesUsed / started : 0
        let wanted = balance.bytesUsed + missed
        balance.recall = wanted > 0 ? balance.bytesUsed / wanted : 0
        let tiers = scenario.tiers
        let below =
            tiers.flash.use
            ? min(tiers.flash.nic, tiers.flash.read, scenario.links.hostNIC) : tiers.nvme.use ? tiers.nvme.read : 0
        guard below > 0 else { return balance }
        let rate = below * scenario.links.efficiency
        balance.ttftSecondsSaved = balance.bytesUsed / rate
        balance.ttftSecondsDisplaced = -displaced / rate
        let wasted = started - balance.bytesUsed
        let busy = min(1, (missed + started) / rate / max(1e-9, spanSeconds * Double(scenario.nodes)))
        balance.ttftSecondsContention = -wasted / rate * busy
        return balance
    }

    private func energy(_ gpu: GPUSeconds) -> Energy {
        let settings = scenario.energy
        let watts = settings.gpu > 0 ? settings.gpu : model.gpu.watts
        var energy = Energy()
        energy.prefill = (gpu.prefillUseful + gpu.prefillRecomputed) * watts * settings.prefill
        energy.decode = gpu.decode * watts * settings.decode
        energy.idle = (gpu.idle + gpu.stalledOnLoad) * watts * settings.idle
        energy.moving =
            (world.driveBytes * settings.drive + world.nicBytes * settings.nic + world.storeBytes * settings.store)
            / 1e9
        return energy
    }

    private func cost(_ gpu: GPUSeconds) -> Cost {
        let hours = spanSeconds / 3600
        let prices = scenario.prices
        let tiers = scenario.tiers
        let nodes = Double(scenario.nodes)
        let servers = tiers.flash.use ? Double(tiers.flash.servers) : 0
        let nvme = tiers.nvme.use ? tiers.nvme.perNode * nodes / 1e12 * prices.nvmeHour : 0
        let dram = tiers.dram.use ? tiers.dram.perNode * nodes / 1e12 * prices.dramHour : 0
        let gpuCost = Double(scenario.gpus) * prices.gpuHour * hours
        let storage = (servers * prices.storeHour + nvme + dram) * hours
        let switches = servers * prices.switchHour * hours
        let all = gpuCost + storage + switches
        let input = Double(workload.inputTokens)
        let output = Double(workload.outputTokens)
        return Cost(
            gpus: scenario.gpus, gpu: gpuCost, storage: storage, switches: switches,
            perMillionTokens: all / (input + output) * 1e6, perMillionOutputTokens: all / output * 1e6,
            perRequest: all / Double(max(1, workload.requests.count)))
    }

    /// Of each kind of link the one that carried most, with how many there are.
    private var links: [LinkResult] {
        var kinds: [(name: String, links: [Link])] = []
        for link in world.fabric.links {
            // Names end in a number; what stands before it is the kind.
            let kind = String(link.name.prefix { !$0.isNumber }.dropLast())
            if let index = kinds.firstIndex(where: { $0.name == kind }) {
                kinds[index].links.append(link)
            } else {
                kinds.append((kind, [link]))
            }
        }
        return kinds.compactMap { kind in
            guard let busiest = kind.links.max(by: { $0.usage.bytes < $1.usage.bytes }) else { return nil }
            let name = kind.links.count == 1 ? kind.name : "\(kind.name), the busiest of \(kind.links.count)"
            return busiest.result(name: name, from: accounts.start, to: accounts.end)
        }
    }

    /// What must hold of every run.
    func checks(_ key: String) -> [Check] {
        let gpu = gpuSeconds
        let classes = gpu.decode + gpu.prefillUseful + gpu.prefillRecomputed + gpu.stalledOnLoad + gpu.idle
        let input = Double(workload.inputTokens)
        let held = Double(replicas.reduce(0) { $0 + $1.space.cache.usedCount })
        return [
            Check(
                name: "\(key): every prompt token is in exactly one class",
                passed: Double(accounts.ledger.total) == input,
                left: Double(accounts.ledger.total), right: input),
            Check(
                name: "\(key): GPU-second classes add up to GPUs × span",
                passed: (classes - gpu.total).magnitude <= 1e-9 * max(1, gpu.total), left: classes, right: gpu.total),
            carried(key, world.paths.driveLinks, world.driveBytes, "drives"),
            carried(key, world.paths.networkLinks, world.nicBytes, "NICs"),
            Check(name: "\(key): no KV block is held at the end", passed: held == 0, left: held, right: 0),
            Check(
                name: "\(key): every request ended", passed: accounts.completed == workload.requests.count,
                left: Double(accounts.completed), right: Double(workload.requests.count)),
        ]
    }

    /// Bytes that links carried, what is under way at the end included, are the bytes that were ordered of them.
    private func carried(_ key: String, _ links: [Int], _ ordered: Double, _ what: String) -> Check {
        var fabric = world.fabric
        var arrived: [UInt64] = []
        while fabric.nextMoment != IndexedClock.never {
            fabric.advance(to: fabric.nextMoment, arrived: &arrived)
            arrived.removeAll(keepingCapacity: true)
        }
        let carried = links.reduce(0) { $0 + fabric.links[$1].usage.bytes }
        // Each transfer's share is a product of rates and times; their sums differ in the last digits.
        let passed = (carried - ordered).magnitude <= 1e-6 * max(1, ordered)
        return Check(
            name: "\(key): \(what) carried the bytes ordered of them", passed: passed,
            left: carried.rounded(), right: ordered.rounded())
    }
}

extension Link {
    /// What the link carried between two moments.
    func result(name: String, from start: Int64, to end: Int64) -> LinkResult {
        let practical = max(readRate, writeRate)
        let seconds = usage.rates(from: start, to: end)
        let sorted = seconds.sorted()
        let binCount = min(240, seconds.count)
        var series: [Double] = []
        var peaks: [Double] = []
        for bin in 0..<binCount {
            let from = bin * seconds.count / binCount
            let to = (bin + 1) * seconds.count / binCount
            var sum = 0.0
            var peak = 0.0
            for second in from..<to {
                sum += seconds[second]
                peak = max(peak, seconds[second])
            }
            series.append(sum / Double(to - from))
            peaks.append(peak)
        }
        let atLimit = seconds.reduce(0) { $0 + ($1 >= 0.95 * practical ? 1 : 0) }
        return LinkResult(
            name: name, lineRate: lineRate, practical: practical,
            mean: usage.bytes / max(1e-9, Double(end - start) / 1e9),
            p99Second: sorted[min(sorted.count - 1, Int(Double(sorted.count) * 0.99))],
            timeAtLimit: Double(atLimit) / Double(seconds.count), bytes: usage.bytes, series: series, peaks: peaks)
    }
}
