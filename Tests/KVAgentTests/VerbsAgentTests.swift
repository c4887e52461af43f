// An agent whose store is reached over RDMA alone: the store reads from node memory and writes into it, and nobody copies.

import KVAgent
import KVModel
import KVTransport
import Testing

@Suite(
    .serialized, .enabled(if: !VerbsDevice.names.isEmpty, "no RDMA device here; Tools/test-verbs runs this in the lab"))
struct VerbsAgentTests {
    private let count = 12

    /// An emulated adapter is slow: what waits for it waits longer.
    private func agent(_ store: StoreBench, _ folder: Folder) throws -> AgentBench {
        var tiering = smallTiering(hasStore: true)
        tiering.directory.askDeadline = Duration(seconds: 60)
        tiering.planner.loadGraceMin = Duration(seconds: 120)
        tiering.planner.loadGraceMax = Duration(seconds: 120)
        var settings = AgentSettings(tiering: tiering, links: .given(fastLinks))
        settings.store = store.access
        settings.store?.client.connectLimit = Duration(seconds: 60)
        return try AgentBench(settings, folder: folder)
    }

    @Test func anotherAgentHitsOverVerbsWhatOneSpilledAndNoPayloadIsCopied() throws {
        let folder = try Folder()
        let store = try StoreBench(folder: folder, isOverVerbs: true)
        let server = try #require(store.verbs)
        let names = chain(0..<count, of: 5)
        do {
            let first = try agent(store, folder)
            let engine = try TestEngine(first.agent)
            _ = try first.status()
            #expect(try engine.serve(names) == 0)
            #expect(try first.status().totals["blocks_store_put"] == count)
        }
        let spilled = server.verbsCounters
        #expect(spilled.reads == count && spilled.payloadBytes == count * blockBytes)

        let second = try agent(store, folder)
        let engine = try TestEngine(second.agent)
        _ = try second.status()
        // Every byte is compared on the way.
        #expect(try engine.serve(names) == count)
        let status = try second.status()
        #expect(status.ledger["flash"] == count * 16)
        #expect(status.totals["blocks_store_get"] == count)
        let came = server.verbsCounters
        #expect(came.writes - spilled.writes == count)
        #expect(came.payloadBytes - spilled.payloadBytes == count * blockBytes)
        // Frames alone are copied, and a frame is some hundred bytes.
        let copied = came.frameBytesCopied - spilled.frameBytesCopied
        #expect(copied < count * 1024)
        print(
            "an agent over verbs: \(count) blocks of \(blockBytes) bytes written into its memory by \(came.writes - spilled.writes)",
            "WRITEs, 0 payload bytes copied, \(copied) bytes of frames copied")
    }
}
