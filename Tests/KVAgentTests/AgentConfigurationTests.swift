// An agent's settings: what `--print-config` writes is what holds without it, and what the machine lacks is said before the start.

import Foundation
import KVAgent
import KVModel
import KVSettings
import KVSystem
import KVTiering
import KVTransport
import Testing

@Suite struct AgentConfigurationTests {
    private func settings(_ lines: String...) throws -> AgentConfiguration {
        var settings = AgentConfiguration()
        try settings.read(yaml: lines.joined(separator: "\n"), file: "agent.yaml")
        return settings
    }

    /// What `check` says of settings, as `place: what`.
    private func refusal(_ lines: String...) throws -> String {
        var settings = AgentConfiguration()
        try settings.read(yaml: lines.joined(separator: "\n"), file: "agent.yaml")
        do { try settings.check() } catch { return "\(error.place): \(error.what)" }
        return ""
    }

    @Test func theDocumentedFileHoldsTheDefaults() throws {
        var settings = AgentConfiguration()
        try settings.read(yaml: AgentConfiguration.documented, file: "documented")
        #expect(settings == AgentConfiguration())
    }

    @Test func settingsThatGoTogetherAreRefusedApart() throws {
        #expect(try refusal("model: Llama-3.1-8B").contains("`model` and `gpu` go together"))
        #expect(try refusal("model: Llama-3.1-8B", "gpu: H100").isEmpty)
        #expect(try refusal("loadGraceMin: 3").hasPrefix("loadGraceMin: "))
        let store = ["store: 127.0.0.1:9460", "keys: k"].joined(separator: "\n")
        #expect(try refusal(store, "tlsAuthority: a", "tlsCertificate: c").hasPrefix("tlsKey: "))
        #expect(try refusal(store, "tlsName: flash").contains("without TLS"))
        #expect(try refusal("tlsAuthority: a").contains("without a store"))
        #expect(try refusal(store, "tlsAuthority: a", "tlsName: n", "tlsCertificate: c", "tlsKey: k").isEmpty)
    }

    @Test func settingsOfRDMAAreTheTransportsOwn() throws {
        let given = try settings("rdma: mlx5_0", "rdmaAddress: 10.0.0.1", "rdmaRetries: 2", "rdmaStore: 10.0.0.2:9462")
        #expect(given.rdma.place == VerbsPlace(device: "mlx5_0", address: "10.0.0.1"))
        #expect(given.rdma.settings.retryCount == 2)
        #expect(given.rdmaStore == "10.0.0.2:9462")
        #expect(throws: OperatorError.self) { _ = try settings("rdmaTimeout: 0") }
        let store = ["store: 127.0.0.1:9460", "keys: k"].joined(separator: "\n")
        #expect(try refusal("rdma: auto").contains("`rdma` without a store"))
        #expect(try refusal(store, "rdma: auto").hasPrefix("--rdma-store: "))
        #expect(try refusal(store, "rdma: auto", "rdmaStore: a:1", "tlsAuthority: a").hasPrefix("--rdma: "))
    }

    @Test func theGraceOfALoadIsWhatTheSettingsSay() throws {
        let given = try settings(
            "loadGraceShare: 0.5", "loadGraceMin: 0.1", "loadGraceMax: 3", "prefill: [0, 0.01, 0]")
        let planner = try given.tiering(slotBytes: 1 << 20, blockTokens: 100, ownership: .engine).planner
        #expect(planner.loadGraceShare == 0.5)
        #expect(planner.loadGraceMin == Duration(seconds: 0.1) && planner.loadGraceMax == Duration(seconds: 3))
        // A block saves a second of computing: half a second. Ten would save ten: 3 s are the most.
        #expect(planner.grace(of: 0..<1, blockTokens: 100) == 0.5)
        #expect(planner.grace(of: 0..<10, blockTokens: 100) == 3)
        let always = try settings("planner: always", "loadGraceMax: 7")
        let patient = try always.tiering(slotBytes: 1 << 20, blockTokens: 100, ownership: .engine).planner
        #expect(patient.loadGraceMin == Duration(seconds: 7))
    }

    /// `auto` finds the RDMA device's node; the GPU's, which goes first, is found in the tests of the GPU's driver.
    @Test func nodeMemoryIsNearTheFirstNetworkCard() throws {
        let folder = try Folder()
        for (name, node) in [("mlx5_0", 1), ("mlx5_1", 0)] {
            let device = folder.path("class/infiniband/\(name)/device")
            try FileManager.default.createDirectory(atPath: device, withIntermediateDirectories: true)
            try "\(node)\n".write(toFile: device + "/numa_node", atomically: true, encoding: .utf8)
        }
        let root = folder.path("")
        #expect(try settings("rdma: auto").memoryNode(gpu: nil, sysfs: root) == 1)
        #expect(try settings("rdma: mlx5_1").memoryNode(gpu: nil, sysfs: root) == 0)
        #expect(try settings("rdma: \"\"").memoryNode(gpu: nil, sysfs: root) == nil)
        #expect(try settings("numaNode: 3", "rdma: auto").memoryNode(gpu: nil, sysfs: root) == 3)
        #expect(try settings("numaNode: any", "rdma: auto").memoryNode(gpu: nil, sysfs: root) == nil)
    }

    @Test(arguments: [
        "links: [1e9, 0, 1e9, 0]", "links: [1e9, 1e12, 1e9, 0, 1e9, 0]", "links: [1e-9, 0, 1e9, 0, 1e9, 0]",
        "links: [99, 0, 1e9, 0, 1e9, 0]", "links: [1e9, 0, 1e9, 0, 1e16, 0]",
    ])
    func pathsThatNoMachineHasAreRefused(lines: String) {
        let error = #expect(throws: OperatorError.self) { _ = try settings(lines) }
        #expect("\(error.map { "\($0)" } ?? "")".contains("links"))
    }

    /// A container's agent would be killed when its slots have filled, and again after each start.
    @Test func nodeMemoryBeyondTheControlGroupsIsRefused() throws {
        var given = try settings("dram: 64GiB\nhugePages: false")
        let limit = MemoryLimit(bytes: 32 << 30, leftBytes: 31 << 30, file: "/sys/fs/cgroup/memory.max")
        let error = #expect(throws: OperatorError.self) { try given.checkMemoryLimit(limit) }
        #expect(error?.what.contains("allows 32 GiB (/sys/fs/cgroup/memory.max)") == true)
        #expect(error?.place == "dram")
        given.dram = 32 << 30
        try given.checkMemoryLimit(limit)
        try given.checkMemoryLimit(nil)
    }

    /// Each would be refused by the first engine's hello, for ever.
    @Test(arguments: [
        ("numaNode", "numaNode: 1000"), ("device", "device: cuda:1000\nhbm: 64MiB"),
        ("journal", "journal: /nonexistent/journal"), ("traces", "traces: /nonexistent/traces"),
        ("journal", "journal: /tmp"),
        ("/dev/nonexistent", "nvme: /dev/nonexistent"), ("nvme", "nvme: /nonexistent/blocks\nnvmeSize: 64MiB"),
        (
            "/nonexistent/ca.pem",
            "store: 127.0.0.1:9\nkeys: k\ntlsAuthority: /nonexistent/ca.pem"
        ),
    ])
    func anAgentThatCouldServeNobodyDoesNotStart(place: String, lines: String) throws {
        let folder = try Folder()
        var given = try settings(lines)
        given.socket = folder.path("s")
        given.http = ""
        let error = #expect(throws: OperatorError.self) {
            _ = try AgentSidecar(given, in: AgentSurroundings(links: fastLinks), logger: quietLogger())
        }
        #expect(error?.place == place, "\(error.map { "\($0)" } ?? "it started")")
        #expect(!FileManager.default.fileExists(atPath: given.socket))
    }
}
