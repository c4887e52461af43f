// From an agent's settings, and the first engine's hello, to what its decisions are made with.

import KVMemory
import KVModel
import KVTiering
import KVTransport

extension AgentSidecar {
    /// What the decisions are made with for the first engine's blocks, and the memory that they have: taken at once and made ready
    /// behind, so that engines are served meanwhile.
    func settings(for hello: EngineHello) throws(OperatorError) -> (AgentSettings, MemoryArena) {
        let slotBytes = MemorySlots.stride(of: hello.blockBytes)
        let tiering = try configuration.tiering(
            slotBytes: slotBytes, blockTokens: hello.blockTokens, ownership: hello.ownership)
        let logger = logger
        // Node memory that a GPU does not know is slow to copy.
        let hooks = gpu.map { [$0.arenaHook] } ?? []
        let arena = try MemoryArena(configuration.arena(slotBytes: slotBytes, gpu: gpu), hooks: hooks) { status in
            guard status.isComplete else { return }
            logger.info(
                "node memory is ready",
                metadata: [
                    "bytes": "\(ByteSize.text(status.readyBytes))", "pinned": "\(ByteSize.text(status.pinnedBytes))",
                    "pages": "\(status.pages.rawValue)", "failures": "\(status.failures.joined(separator: "; "))",
                ])
        }
        var settings = AgentSettings(
            tiering: tiering, links: configuration.givenLinks.map { .given($0) } ?? .measured(first: surroundings.links)
        )
        settings.clock = configuration.clock == .given ? .given : .monotonic
        settings.memory = arena.memory
        if tiering.hbmBytes > 0 { settings.device = surroundings.device ?? gpu.map { .cuda($0) } ?? .emulated }
        settings.limits.enginesMax = configuration.engines
        settings.limits.copyWorkers = configuration.copyThreads
        settings.limits.watch = Duration(seconds: configuration.watch)
        settings.limits.nice = configuration.nice
        settings.limits.loanLimit = Duration(seconds: configuration.loan)
        if !configuration.nvme.isEmpty {
            let extent = max(64 << 10, min(16 << 20, (slotBytes + 65_535) / 65_536 * 65_536))
            settings.localFlash = LocalFlash(
                path: configuration.nvme, byteCount: configuration.nvmeSize, extentBytes: extent)
        }
        if !configuration.store.isEmpty {
            let namespace = configuration.namespace.isEmpty ? hello.storeNamespace : configuration.namespace
            settings.store = StoreAccess(
                client: StoreClientConfiguration(
                    routes: try configuration.routes(), tenant: configuration.tenant,
                    secret: surroundings.storeSecret), namespace: namespace)
            settings.store?.payloadBytes = hello.blockBytes
            settings.store?.transferLimit = Duration(seconds: configuration.storeLimit)
        }
        if !configuration.journal.isEmpty {
            settings.journal = JournalSettings(
                path: configuration.journal, bytesMax: configuration.journalSize, policy: configuration.policy)
        }
        return (settings, arena)
    }
}
