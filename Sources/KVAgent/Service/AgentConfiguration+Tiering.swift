// An agent's settings in the words of the tiering decisions and of the transport.

import Foundation
import KVMemory
import KVModel
import KVTiering
import KVTransport

extension AgentConfiguration {
    /// What the decisions are made with, for blocks of one size.
    public func tiering(
        slotBytes: Int, blockTokens: Int32, ownership: Ownership
    ) throws(OperatorError) -> TieringConfiguration {
        let slots = slotCount(of: slotBytes)
        guard slots >= 16 else {
            throw OperatorError(
                "node memory of \(ByteSize.text(dram)) has room for \(slots) blocks of \(ByteSize.text(slotBytes))",
                at: "dram", remedy: "give it at least \(ByteSize.text(16 * slotBytes))")
        }
        func tier(_ bytes: Int, stagingShare: Double) -> TierConfiguration {
            TierConfiguration(
                bytes: bytes, stagingShare: stagingShare, makePolicy: TierConfiguration.deployed(policy))
        }
        let flashSlots = nvme.isEmpty ? 0 : (nvmeSize ?? 1 << 40) / slotBytes
        // A policy remembers eight times what its tier holds: with fewer numbers than that none would be left for new blocks.
        let known = max(1 << 16, min(64 << 20, 10 * (slots + flashSlots)))
        var tiering = TieringConfiguration(
            blockTokens: Int(blockTokens), blockBytes: slotBytes, ownership: ownership,
            dram: tier(slots * slotBytes, stagingShare: 0.1),
            nvme: nvme.isEmpty ? nil : tier(max(1, flashSlots) * slotBytes, stagingShare: 0),
            inclusion: inclusion,
            nvmeWriteBudget: nvmeWritePerDay == 0
                ? nil
                : WriteBudgetConfiguration(bytesPerDay: Double(nvmeWritePerDay), largestWrite: slotBytes),
            hasStore: !store.isEmpty, spill: store.isEmpty ? .never : spill,
            directory: DirectoryConfiguration(
                presentAge: Duration(seconds: 10), absentAge: Duration(seconds: 0.1),
                askDeadline: Duration(seconds: ask), isSubscribed: !store.isEmpty && subscribe),
            planner: plannerConfiguration,
            prefetch: prefetch
                ? PrefetchConfiguration(
                    reasons: Set(PrefetchReason.allCases), bytesInFlightMax: max(slotBytes, dram / 20),
                    linkShare: prefetchShare, stagingShare: 0.5, probabilityMin: 0.3, sessionsMax: 65_536) : nil,
            pinBudgetBytes: [pins],
            limits: TieringLimits(
                requestsMax: 16_384, transfersMax: 8_192, knownBlocksMax: known, pinsMax: 1_024,
                sliceBlocks: Self.sliceBlocks(of: slotBytes)))
        tiering.loanShare = loanShare
        tiering.hbmBytes = hbm / slotBytes * slotBytes
        guard hbm == 0 || hbm / slotBytes >= 16 else {
            throw OperatorError(
                "HBM slots of \(ByteSize.text(hbm)) have room for \(hbm / slotBytes) blocks of \(ByteSize.text(slotBytes))",
                at: "hbm", remedy: "give them at least \(ByteSize.text(16 * slotBytes))")
        }
        return tiering
    }

    private var plannerConfiguration: PlannerConfiguration {
        var made = PlannerConfiguration(
            rule: planner, prefixOnly: true, prefill: prefill, gpuSecondWeight: 0, gpusPerEngine: 1,
            overlap: overlap, layers: layers,
            // Who loads whatever it costs does not cut a load short because it takes longer than computing.
            loadGraceMin: Duration(seconds: planner == .always ? loadGraceMax : loadGraceMin),
            loadGraceMax: Duration(seconds: loadGraceMax))
        made.loadGraceShare = loadGraceShare
        return made
    }

    /// Blocks of one transfer at most: what a load waits for before it goes on into the engine, and what it has when its time is
    /// over.
    public static func sliceBlocks(of slotBytes: Int) -> Int { max(4, min(32, (4 << 20) / slotBytes)) }

    /// The number of the GPU whose memory the HBM slots lie in, if they lie in one.
    public var gpuNumber: Int? { Self.gpu(of: device) }

    /// The number of the GPU that a word names.
    static func gpu(of word: String) -> Int? {
        guard word.hasPrefix("cuda:"), let number = Int(word.dropFirst(5)), (0..<1024).contains(number) else {
            return nil
        }
        return number
    }

    /// Memory that is a few huge pages would lose too much of itself to whole ones.
    private var usesHugePages: Bool { hugePages && dram >= 32 << 20 }

    /// Slots that node memory has room for. Where it is whole huge pages, no more of them are taken than fit.
    func slotCount(of slotBytes: Int) -> Int {
        let page = 2 << 20
        return (usesHugePages ? dram / page * page : dram) / slotBytes
    }

    /// What node memory is to be.
    func arena(slotBytes: Int, gpu: CudaDriver?) -> ArenaConfiguration {
        var arena = ArenaConfiguration(slotBytes: slotBytes, slotCount: slotCount(of: slotBytes))
        arena.wantsHugePages = usesHugePages
        arena.wantsPinning = pinMemory
        arena.node = memoryNode(gpu: gpu)
        return arena
    }

    /// The NUMA node that node memory is to come from; nil: any.
    ///
    /// - Parameters:
    ///   - gpu: The GPU of the HBM slots, if they lie in one.
    ///   - sysfs: Where the kernel shows devices.
    public func memoryNode(gpu: CudaDriver?, sysfs: String = "/sys") -> Int? {
        guard numaNode == "auto" else { return Int(numaNode) }
        if let node = gpu?.memoryNode(sysfs: sysfs) { return node }
        guard rdma.isOn else { return nil }
        let folder = "\(sysfs)/class/infiniband"
        guard rdma.takesAnyDevice else { return Numa.node(ofDevice: "\(folder)/\(rdma.device)") }
        // The first device, as the way to the store takes it.
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.sorted().first.flatMap { Numa.node(ofDevice: "\(folder)/\($0)") }
    }

    /// What the planner always believes of paths, if that was said.
    public var givenLinks: LinkView? {
        guard links.count == 6 else { return nil }
        let states = [0, 2, 4].map { LinkState(bandwidth: links[$0], delay: Duration(seconds: links[$0 + 1])) }
        return LinkView(dram: states[0], nvme: states[1], flash: states[2])
    }

    /// The ways to the store, the best first.
    ///
    /// - Throws: What is wrong with the address, or with the files of TLS.
    public func routes() throws(OperatorError) -> [StoreRoute] {
        let (host, port) = try splitEndpoint(store, option: "--store")
        if !tlsAuthority.isEmpty {
            return [
                try .tls(
                    host: host, port: port,
                    TLSClientConfiguration(
                        authority: tlsAuthority, serverName: tlsName.isEmpty ? host : tlsName,
                        certificateChain: tlsCertificate.isEmpty ? nil : tlsCertificate,
                        privateKey: tlsKey.isEmpty ? nil : tlsKey))
            ]
        }
        guard rdma.isOn else { return [.tcp(host: host, port: port)] }
        let (rdmaHost, rdmaPort) = try splitEndpoint(rdmaStore, option: "--rdma-store")
        return [
            .verbs(host: rdmaHost, port: rdmaPort, place: rdma.place, settings: rdma.settings),
            .tcp(host: host, port: port),
        ]
    }
}

extension TierConfiguration {
    /// Makes a tier's policy as an agent runs it: one of `PolicyName.deployable`.
    static func deployed(_ policy: PolicyName) -> (_ capacity: Int) -> any TierPolicy {
        { capacity in
            guard let made = policy.makePolicy(capacity: capacity, reportsForgotten: true, isSteady: true) else {
                preconditionFailure("a policy that cannot run a tier was let through")
            }
            return made
        }
    }
}
