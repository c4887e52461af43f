// A store's settings: what `--print-config` writes is what holds without it.

import KVModel
import KVSettings
import KVStore
import Testing

@Suite struct StoreConfigurationTests {
    @Test func theDocumentedFileHoldsTheDefaults() throws {
        var settings = StoreConfiguration()
        try settings.read(yaml: StoreConfiguration.documented, file: "documented")
        #expect(settings == StoreConfiguration())
    }

    @Test func settingsOfRDMAAreTheTransportsOwn() throws {
        var settings = StoreConfiguration()
        try settings.read(yaml: "rdma: auto\nrdmaTimeout: 20\nrdmaListen: 10.0.0.1:1\n", file: "s.yaml")
        #expect(settings.rdma.isOn)
        #expect(settings.rdma.settings.timeout == 20)
        #expect(settings.rdmaListen == "10.0.0.1:1")
        let error = #expect(throws: OperatorError.self) { try settings.read(yaml: "rdmaRetries: 8", file: "s.yaml") }
        #expect(error?.place == "s.yaml:1")
    }

    @Test func anUnknownSettingIsRefusedWithTheNearest() {
        var settings = StoreConfiguration()
        let error = #expect(throws: OperatorError.self) {
            try settings.read(yaml: "size: 1GiB\nlane: 2\n", file: "s.yaml")
        }
        #expect(error?.what == "there is no setting `lane`")
        #expect(error?.place == "s.yaml:2")
        #expect(error?.remedy == "the nearest is `lanes`")
    }
}
