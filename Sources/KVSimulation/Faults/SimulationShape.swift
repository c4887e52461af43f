// What a seed decides before the first event of a simulation: how many nodes and how large, by which rules they run, who
// asks for what, and what goes wrong when. Everything is small, so that queues fill and slots run out all the time.

import KVModel
import KVTiering

/// What can go wrong outside the decisions.
public enum SimulationFault: String, Sendable, CaseIterable {
    /// The path between engine and node memory has a hundredth of its rate.
    case slowDRAM
    /// Likewise local flash.
    case slowNVMe
    /// Likewise the way to the store.
    case slowFlash
    /// What is started on the path ends only when it is cancelled or its transport gives up.
    case stalledDRAM
    /// Likewise local flash.
    case stalledNVMe
    /// Likewise the way to the store.
    case stalledFlash
    /// A third of the transfers of every path fail.
    case failing
    /// A tenth of the blocks arrive with wrong bytes; the receiver notices.
    case corrupting
    /// A drive says that it wrote and wrote something else.
    case lyingNVMe
    /// The store says that it wrote and wrote something else.
    case lyingStore
    /// The store takes everything and answers nothing.
    case blackHole
    /// The store answers after everybody's deadline.
    case lateStore
    /// Half of the store's answers about keys are wrong, both ways.
    case wrongDirectory
    /// The store's stream of changes loses half of what it should tell.
    case forgetfulStream
    /// The connection to the store breaks: everything in flight fails, and so does everything until it is back.
    case lostPeer
    /// The store starts again with nothing in it.
    case emptiedStore
    /// The world has no room for a third of the effects.
    case full
    /// A node's agent dies between any two steps and starts anew.
    case crash
    /// Every other transfer from the store has a two-hundredth of the path's rate, the rest all of it, and what engines believe
    /// of the path lies in between.
    case fitfulFlash

    /// Whether it happens at one moment.
    var isMoment: Bool { self == .crash || self == .emptiedStore }
}

/// A fault with its time and place.
struct FaultPhase: Sendable {
    var fault: SimulationFault
    var start: Int64
    var end: Int64
    /// The node concerned, or −1 for all.
    var node: Int
}

/// Everything that a seed decides before the first event.
struct SimulationShape: Sendable {
    static let blockTokens = 256
    static let blockBytes = 1_000_000
    /// When a transport gives up what never ends, nanoseconds.
    static let transportTimeout: Int64 = 10_000_000_000
    /// Bytes a second of the paths: engine and node memory, local flash, the store.
    static let rates: [Tier: Double] = [.dram: 20e9, .nvme: 3e9, .flash: 1.5e9]
    /// First byte, nanoseconds.
    static let latencies: [Tier: Int64] = [.dram: 20_000, .nvme: 100_000, .flash: 200_000]
    /// The longest chain, blocks.
    static let chainMax = 28

    let seed: UInt64
    /// When clients stop, nanoseconds.
    let end: Int64
    let nodes: Int
    let enginesPerNode: Int
    let engineBlocks: Int
    let sessions: Int
    /// Mean time between arrivals, seconds.
    let arrivalGap: Double
    /// Share of requests that are given up on the way.
    let cancelShare: Double
    /// Share of turns that go to another node than the one before.
    let roamShare: Double
    /// Slots of each node's device, where they are the decisions' to give; 0: engines own their memory.
    let deviceBlocks: Int
    let dramBlocks: Int
    let nvmeBlocks: Int
    let storeBlocks: Int
    let storePolicy: PolicyName
    let storeKnown: Int
    /// Whether requests tell how much of a prompt was computed before anywhere.
    let hasOracle: Bool
    /// Whether engines see a path's rate as it is, or as it should be.
    let seesRates: Bool
    /// Whether engines read and write blocks where they lie in node memory; those of a device always do, there.
    let lends: Bool
    let phases: [FaultPhase]
    /// When the last fault is over.
    let calmFrom: Int64
    private let draws: Draws

    /// The rules of a node, drawn alike for all nodes.
    private struct Draws: Sendable {
        var policy: PolicyName
        var inclusion: InclusionMode
        var spill: SpillRule
        var rule: PlannerRule
        var overlap: Overlap
        var prefixOnly: Bool
        var predicts: Bool
        var isSubscribed: Bool
        var limitsWrites: Bool
        var staging: Double
        var requestsMax: Int
        var transfersMax: Int
        var knownMax: Int
        var slice: Int
    }

    /// The shape that `seed` decides for a run of `seconds`.
    ///
    /// - Parameter only: Faults to choose from, or nil for all.
    init(seed: UInt64, seconds: Double, only: [SimulationFault]?) {
        self.seed = seed
        end = Int64(seconds * 1e9)
        var random = RandomSource(seed: seed ^ 0x5117_A710)
        func pick<Choice>(_ choices: [Choice]) -> Choice { choices[random.below(choices.count)] }
        nodes = pick([1, 2, 2, 3])
        enginesPerNode = pick([1, 1, 2])
        engineBlocks = pick([SimulationShape.chainMax, 40, 80])
        sessions = pick([6, 12, 24])
        arrivalGap = pick([0.01, 0.03, 0.08])
        cancelShare = pick([0, 0.05, 0.2])
        roamShare = pick([0, 0.2, 0.6])
        var device = RandomSource(seed: seed ^ 0xD371_CE01)
        deviceBlocks = [0, 0, 0, 34, 70][device.below(5)]
        dramBlocks = pick([12, 24, 48, 96])
        nvmeBlocks = pick([0, 0, 16, 60, 150])
        storeBlocks = pick([0, 60, 150, 400, 400])
        let policies = PolicyName.deployable
        storePolicy = pick(policies)
        let knownMax = pick([500, 1200, 4000])
        storeKnown = max(storeBlocks, knownMax)
        hasOracle = pick([true, false])
        seesRates = pick([true, false])
        // Drawn by itself: see `drawFitful`.
        var loans = RandomSource(seed: seed ^ 0x1_E4D9)
        lends = deviceBlocks == 0 && loans.below(2) == 1
        draws = Draws(
            policy: pick(policies), inclusion: pick(InclusionMode.allCases),
            spill: pick([.never, .onSave, .onSave, .onEviction]),
            rule: pick([.always, .threshold, .threshold, .split]), overlap: pick(Overlap.allCases),
            prefixOnly: pick([true, true, false]), predicts: pick([true, false]), isSubscribed: pick([true, false]),
            limitsWrites: pick([true, false, false]), staging: pick([0.1, 0.25, 0.5]),
            requestsMax: pick([6, 16, 64]), transfersMax: pick([10, 40, 200]), knownMax: knownMax,
            slice: pick([1, 3, 8, 64]))
        let phases = Self.drawPhases(&random, end: end, nodes: nodes, hasStore: storeBlocks > 0, only: only)
        self.phases = phases + Self.drawFitful(seed, end: end, hasStore: storeBlocks > 0, only: only)
        calmFrom = phases.reduce(0) { max($0, $1.end) }
    }

    /// Faults come in the first three quarters; then it must all heal.
    private static func drawPhases(
        _ random: inout RandomSource, end: Int64, nodes: Int, hasStore: Bool, only: [SimulationFault]?
    ) -> [FaultPhase] {
        let needsStore: Set<SimulationFault> = [
            .slowFlash, .stalledFlash, .lyingStore, .blackHole, .lateStore, .wrongDirectory, .forgetfulStream,
            .lostPeer,
            .emptiedStore,
        ]
        let choices = (only ?? SimulationFault.allCases).filter {
            (hasStore || !needsStore.contains($0)) && $0 != .fitfulFlash
        }
        guard !choices.isEmpty else { return [] }
        var phases: [FaultPhase] = []
        for _ in 0..<random.below(6) {
            let fault = choices[random.below(choices.count)]
            let start = Int64(random.uniform() * 0.7 * Double(end))
            let length = Int64(random.uniform() * 0.2 * Double(end))
            let stop = fault.isMoment ? start : min(start + length, end / 4 * 3)
            phases.append(
                FaultPhase(fault: fault, start: start, end: stop, node: random.below(2) == 0 ? -1 : random.below(nodes))
            )
        }
        return phases
    }

    /// Drawn by itself, so that the other draws of a seed are what they were before there was such a fault.
    private static func drawFitful(
        _ seed: UInt64, end: Int64, hasStore: Bool, only: [SimulationFault]?
    ) -> [FaultPhase] {
        var random = RandomSource(seed: seed ^ 0xF17F_0711)
        guard hasStore, only?.contains(.fitfulFlash) ?? (random.below(8) == 0) else { return [] }
        let start = Int64(random.uniform() * 0.4 * Double(end))
        return [FaultPhase(fault: .fitfulFlash, start: start, end: start + end / 4, node: -1)]
    }

    var hasStore: Bool { storeBlocks > 0 }
    /// Whether the planner never loads what is slower than computing, so that the bound on time-to-ready holds.
    var isBounded: Bool { draws.rule != .always && draws.overlap != .layerwise }
    /// Whether nodes hear what comes and goes in the store.
    var isSubscribed: Bool { draws.isSubscribed }
    var waitsForCompute: Bool { draws.overlap == .prefetch }

    /// Slots of a tier.
    func slots(of tier: Tier) -> Int { tier == .dram ? dramBlocks : nvmeBlocks }

    /// What each node's manager is made with.
    func configuration(extraBlocks: Int = 0) -> TieringConfiguration {
        let policy = draws.policy
        func tier(_ blocks: Int, _ staging: Double) -> TierConfiguration {
            TierConfiguration(bytes: (blocks + extraBlocks) * Self.blockBytes, stagingShare: staging) {
                PolicyName.makeDeployable(policy, capacity: $0)
            }
        }
        let bytes = Double(Self.blockBytes)
        var configuration = TieringConfiguration(
            blockTokens: Self.blockTokens, blockBytes: Self.blockBytes, ownership: ownsDevice ? .full : .host,
            dram: tier(dramBlocks, draws.staging), nvme: nvmeBlocks > 0 ? tier(nvmeBlocks, 0) : nil,
            inclusion: draws.inclusion,
            nvmeWriteBudget: draws.limitsWrites
                ? WriteBudgetConfiguration(bytesPerDay: 86_400 * 4 * bytes, burstBytes: 20 * bytes) : nil,
            hasStore: hasStore, spill: hasStore ? draws.spill : .never,
            directory: DirectoryConfiguration(
                presentAge: Duration(seconds: 2), absentAge: Duration(milliseconds: 200),
                askDeadline: Duration(milliseconds: 5), isSubscribed: draws.isSubscribed),
            planner: PlannerConfiguration(
                rule: draws.rule, prefixOnly: draws.prefixOnly, prefill: Self.prefill, gpuSecondWeight: 0,
                gpusPerEngine: 1, overlap: draws.overlap, layers: 32, loadGraceMin: Duration(milliseconds: 20),
                loadGraceMax: Duration(seconds: 2)),
            prefetch: draws.predicts
                ? PrefetchConfiguration(
                    reasons: Set(PrefetchReason.allCases), bytesInFlightMax: 6 * Self.blockBytes, linkShare: 0.5,
                    stagingShare: 0.5, probabilityMin: 0.2, sessionsMax: 8) : nil,
            pinBudgetBytes: [12 * Self.blockBytes, 3 * Self.blockBytes],
            limits: TieringLimits(
                requestsMax: draws.requestsMax, transfersMax: draws.transfersMax, knownBlocksMax: draws.knownMax,
                pinsMax: 6, sliceBlocks: draws.slice))
        configuration.hbmBytes = deviceBlocks * Self.blockBytes
        return configuration
    }

    /// Whether engines read and write their blocks in slots of the node's device.
    var ownsDevice: Bool { deviceBlocks > 0 }

    /// 40 µs a token and a little for what is before it: a chain of 28 blocks takes a third of a second.
    static let prefill = PrefillCost(base: 0.002, linear: 4e-5, quadratic: 1e-9)

    /// A fresh store.
    func makeStore() -> StoreManager? {
        guard hasStore else { return nil }
        let policy = storePolicy
        return StoreManager(
            StoreManagerConfiguration(
                blockBytes: Self.blockBytes, bytes: storeBlocks * Self.blockBytes,
                makePolicy: { PolicyName.makeDeployable(policy, capacity: $0) }, writeBudget: nil,
                knownBlocksMax: storeKnown), tellsChanges: true)
    }
}

extension PolicyName {
    /// A policy that can run a tier.
    fileprivate static func makeDeployable(_ name: PolicyName, capacity: Int) -> any TierPolicy {
        guard let policy = name.makePolicy(capacity: capacity) else {
            preconditionFailure("a ceiling is no policy of a tier")
        }
        return policy
    }
}
