// An agent's settings: what `--print-config` writes is what holds without it.

import KVAgent
import KVSettings
import Testing

@Suite struct AgentConfigurationTests {
    @Test func theDocumentedFileHoldsTheDefaults() throws {
        var settings = AgentConfiguration()
        try settings.read(yaml: AgentConfiguration.documented, file: "documented")
        #expect(settings == AgentConfiguration())
    }
}
