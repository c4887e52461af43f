// The agent as a process has it: a door, and decisions that the first engine's hello brings about.

import Foundation
import KVAgent
import KVModel
import KVSystem
import KVTiering
import Testing

@Suite(.serialized) struct SidecarTests {
    private func withSidecar(
        _ change: (inout AgentConfiguration) -> Void = { _ in }, _ body: (AgentSidecar) throws -> Void
    ) throws {
        let folder = try Folder()
        var configuration = AgentConfiguration()
        configuration.socket = folder.path("s")
        configuration.dram = 16 << 20
        configuration.http = ""
        change(&configuration)
        let sidecar = try AgentSidecar(configuration, in: AgentSurroundings(links: fastLinks), logger: quietLogger())
        defer { _ = sidecar.drain(within: Duration(seconds: 5)) }
        try body(sidecar)
    }

    private func client(_ sidecar: AgentSidecar, blockBytes: Int = 4096, model: String = "test") throws -> EngineClient
    {
        var hello = Sample.hello(model: model)
        hello.blockBytes = blockBytes
        var configuration = EngineClientConfiguration(path: sidecar.configuration.socket, hello: hello)
        configuration.backoff = Duration(milliseconds: 10)
        configuration.lookUpLimit = Duration(seconds: 10)
        configuration.jobLimit = Duration(seconds: 10)
        return try EngineClient(configuration)
    }

    /// The door lets no engine in before the earlier ones of its process are forgotten; who is refused must be, too.
    @Test func afterARefusalEnginesOfTheSameProcessAreStillAnswered() throws {
        try withSidecar { sidecar in
            let first = try client(sidecar)
            defer { first.close() }
            #expect(first.waitUntilOpen(within: waitLimit))
            for (blockBytes, model, reason) in [(8192, "test", "8192 bytes"), (4096, "other", "model is `other`")] {
                let stranger = try client(sidecar, blockBytes: blockBytes, model: model)
                #expect(Sample.wait { stranger.refusal != nil })
                #expect(stranger.refusal?.reason.contains(reason) == true, "\(stranger.refusal?.reason ?? "")")
                stranger.close()
                let next = try client(sidecar)
                #expect(next.waitUntilOpen(within: Duration(seconds: 5)), "after a refusal for \(reason)")
                next.close()
            }
            #expect(Sample.wait { sidecar.view.leaving == 0 })
        }
    }
}
