// A store's settings: what `--print-config` writes is what holds without it.

import Foundation
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

    /// A file that was formatted as two drives would be neither.
    @Test func aDriveThatIsNamedTwiceIsRefused() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hf-twice-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let one = folder.appendingPathComponent("one").path
        let link = folder.appendingPathComponent("link").path
        #expect(FileManager.default.createFile(atPath: one, contents: nil))
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: one)
        var settings = StoreConfiguration()
        let others = [(one, "is named twice"), (folder.path + "/./one", "are one drive"), (link, "are one drive")]
        for (other, words) in others {
            settings.data = [one, folder.path + "/two", other]
            let error = #expect(throws: OperatorError.self) { try settings.check() }
            #expect(error?.what.hasSuffix(words) == true, "\(error?.description ?? "accepted")")
        }
        settings.data = [one, folder.path + "/two"]
        try settings.check()
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

    @Test(arguments: [
        ("# c\nlanes: 2\nhttp: secret\nlanes: 3\n", "s.yaml:2:1: `lanes` stands there twice, here first"),
        (
            "lanes: 2\nhttp: \"secret\n",
            "s.yaml:3:1: is not YAML: found unexpected end of stream (in what begins in line 2)"
        ),
    ])
    func aFileThatIsNotYAMLIsNamedByItsPlaceAndNeverQuoted(text: String, sentence: String) {
        var settings = StoreConfiguration()
        let error = #expect(throws: OperatorError.self) { try settings.read(yaml: text, file: "s.yaml") }
        #expect(error?.description == sentence)
    }

    @Test(arguments: [
        "local: {key: 00112233445566778899aabbccddeeff}\nlocal: {key: ffeeddccbbaa99887766554433221100}\n",
        "local: {key: \"00112233445566778899aabbccddeeff}\n",
        "local: {key: 00112233445566778899aabbccddeeff\n",
        "local: {key: 00112233445566778899aabbccddeeff, operator: *ffeeddccbbaa}\n",
    ])
    func noKeyOfATenantIsInAnError(text: String) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hf-tenants-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appendingPathComponent("tenants").path
        let attributes: [FileAttributeKey: Any] = [.posixPermissions: 0o600]
        #expect(FileManager.default.createFile(atPath: file, contents: Data(text.utf8), attributes: attributes))
        let error = #expect(throws: OperatorError.self) { _ = try Tenants(file: file) }
        let said = try #require(error?.description)
        #expect(said.hasPrefix("\(file):"), "\(said)")
        #expect(!said.contains("00112233"), "\(said)")
        #expect(!said.contains("ffeedd"), "\(said)")
        #expect(!said.contains("\n"), "\(said)")
    }

    /// The keys of tenants: a group may read them where they are root's or this user's; nobody else may touch them.
    @Test(
        arguments: [
            (0o600, 1000, 1000, true), (0o400, 0, 0, true), (0o600, 1234, 5, true), (0o440, 0, 2000, true),
            (0o640, 1000, 1000, true), (0o440, 0, 0, false), (0o440, 1234, 2000, false), (0o660, 0, 2000, false),
            (0o450, 0, 2000, false), (0o644, 1000, 1000, false), (0o404, 0, 2000, false), (0o602, 1000, 1000, false),
        ] as [(UInt32, UInt32, UInt32, Bool)])
    func keysAreKept(mode: UInt32, owner: UInt32, group: UInt32, kept: Bool) {
        let areKept = Tenants.areKept(
            mode: 0o100000 | mode, owner: owner, group: group, user: 1000, groups: [1000, 2000])
        #expect(areKept == kept)
    }
}
