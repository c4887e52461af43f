// RDMA as an operator says it: read by the same names at a store and at an agent, and refused in one sentence.

import KVModel
import KVSettings
import KVTransport
import Testing

@Suite struct VerbsConfigurationTests {
    private func read(_ name: String, _ word: String) throws(OperatorError) -> VerbsConfiguration {
        var configuration = VerbsConfiguration()
        let isTaken = try configuration.take(SettingValue(name: name, words: [word], place: "s.yaml:3"))
        #expect(isTaken)
        return configuration
    }

    @Test func eachSettingReachesTheQueuePair() throws {
        var configuration = VerbsConfiguration()
        let lines = [
            ("rdma", "mlx5_1"), ("rdmaAddress", "10.77.0.2"), ("rdmaTimeout", "20"), ("rdmaRetries", "3"),
            ("rdmaTrafficClass", "104"),
        ]
        #expect(lines.map(\.0) == VerbsConfiguration.all.map(\.name))
        for (name, word) in lines {
            let isTaken = try configuration.take(SettingValue(name: name, words: [word], place: "s.yaml:1"))
            #expect(isTaken, "\(name)")
        }
        #expect(configuration.isOn)
        #expect(configuration.place == VerbsPlace(device: "mlx5_1", address: "10.77.0.2"))
        var expected = VerbsSettings.standard
        expected.timeout = 20
        expected.retryCount = 3
        expected.trafficClass = 104
        #expect(configuration.settings == expected)
    }

    /// The documented words are the defaults.
    @Test func whatIsDocumentedIsWhatHolds() throws {
        for setting in VerbsConfiguration.all {
            let word = setting.standard == "\"\"" ? "" : setting.standard
            #expect(try read(setting.name, word) == VerbsConfiguration(), "\(setting.name)")
        }
        #expect(VerbsConfiguration().settings == .standard)
    }

    @Test func autoIsAnyDeviceAndNothingIsNone() throws {
        #expect(try read("rdma", "auto").place == VerbsPlace())
        #expect(try read("rdma", "auto").isOn)
        #expect(try !read("rdma", "").isOn)
        #expect(try read("rdmaAddress", "fe80::1").place.address == "fe80::1")
    }

    @Test func otherSettingsAreLeftToOthers() throws {
        var configuration = VerbsConfiguration()
        let isTaken = try configuration.take(SettingValue(name: "rdmaListen", words: ["x"], place: "s.yaml:1"))
        #expect(!isTaken)
        #expect(configuration == VerbsConfiguration())
    }

    @Test(arguments: [
        ("rdmaTimeout", "0", "`rdmaTimeout` is `0`, not a whole number from 1 to 31"),
        ("rdmaTimeout", "32", "`rdmaTimeout` is `32`, not a whole number from 1 to 31"),
        ("rdmaRetries", "8", "`rdmaRetries` is `8`, not a whole number from 0 to 7"),
        ("rdmaRetries", "-1", "`rdmaRetries` is `-1`, not a whole number from 0 to 7"),
        ("rdmaTrafficClass", "256", "`rdmaTrafficClass` is `256`, not a whole number from 0 to 255"),
        ("rdmaTrafficClass", "EF", "`rdmaTrafficClass` is `EF`, not a whole number from 0 to 255"),
        ("rdmaAddress", "mlx5_0", "`rdmaAddress` is `mlx5_0`, not an IPv4 or IPv6 address"),
        ("rdmaAddress", "10.0.0.256", "`rdmaAddress` is `10.0.0.256`, not an IPv4 or IPv6 address"),
    ])
    func whatDoesNotFitIsRefused(name: String, word: String, sentence: String) {
        let error = #expect(throws: OperatorError.self) { _ = try read(name, word) }
        #expect(error?.what == sentence)
        #expect(error?.place == "s.yaml:3")
    }
}
