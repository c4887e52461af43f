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
