// What `doctor` looks at for an agent: its settings against each other, the machine, the engine's memory and the store.

import Foundation
import KVAgent
import KVMemory
import KVModel
import KVSettings
import KVStore
import KVSystem
import KVTiering
import KVTransport

/// An agent's settings and everything that they name.
struct AgentChecks {
    let file: String
    /// Bytes of the engine's host region, as the operator says them.
    let engineRegion: String?

    /// How long the store may take to say hello.
    private static let helloLimit = Duration(seconds: 3)

    /// One finding for each thing, in the order of a start.
    func findings() async -> [Finding] {
        var settings = AgentConfiguration()
        do throws(OperatorError) {
            try settings.read(file: file)
            try settings.check()
        } catch { return [Finding("settings", error)] }
        // The machine is looked at as for a store of the same size.
        var machine = StoreConfiguration()
        machine.dram = settings.dram + (settings.device == "emulated" ? settings.hbm : 0)
        machine.listen = ""
        machine.http = settings.http
        machine.rdma = settings.rdma
        machine.rdmaListen = ""
        machine.sessions = settings.engines
        machine.data = settings.nvme.isEmpty ? [] : [settings.nvme]
        let checks = MachineChecks(
            settings: machine, owner: "agent", memoryKind: .file, wantsHugePages: settings.hugePages)
        var findings = [Finding("settings", .ok, "all of them are known")]
        findings += checks.findings.filter { $0.about != "rdmaListen" }
        findings += [socket(settings), prefill(&settings)]
        let gpu = device(settings)
        findings += gpu.findings
        findings.append(memoryNode(settings, gpu: gpu.driver))
        findings.append(region(settings))
        if !settings.nvme.isEmpty { findings += localFlash(settings) }
        findings += files(settings)
        if !settings.store.isEmpty { findings += [keys(settings), await store(settings)] }
        if !settings.profile.isEmpty { findings.append(profile(settings)) }
        return findings
    }

    /// What the agent would refuse is a problem in its own words; then what it would meet.
    private func localFlash(_ settings: AgentConfiguration) -> [Finding] {
        do throws(OperatorError) { try settings.checkLocalFlash() } catch { return [Finding(settings.nvme, error)] }
        return DriveChecks(path: settings.nvme, size: settings.nvmeSize, owner: "agent").findings
    }

    /// What the planner weighs loads against.
    private func prefill(_ settings: inout AgentConfiguration) -> Finding {
        do throws(OperatorError) { try settings.priceCatalogueModel() } catch { return Finding("prefill", error) }
        let milliseconds = settings.prefill.seconds(count: 8192, after: 0) * 1e3
        let words = String(format: "computing a prompt of 8,192 tokens is taken to last %.0f ms", milliseconds)
        guard settings.prefill != AgentConfiguration().prefill else {
            return Finding(
                "prefill", .warning, words + ", which is the default of no engine in particular",
                remedy: "name `model` and `gpu` of the catalogue, or give `prefill`; loads are weighed against it")
        }
        return Finding("prefill", .ok, words)
    }

    /// Node memory is near the GPU, or where the settings want it.
    private func memoryNode(_ settings: AgentConfiguration, gpu: CudaDriver?) -> Finding {
        do throws(OperatorError) { try settings.checkMemoryNode() } catch { return Finding("NUMA", error) }
        let count = Numa.nodes.count
        if let node = settings.memoryNode(gpu: gpu) {
            return Finding("NUMA", .ok, "node memory comes from node \(node) of \(max(1, count))")
        }
        guard count > 1 else { return Finding("NUMA", .ok, "one memory node") }
        guard settings.numaNode == "auto" else {
            return Finding("NUMA", .ok, "\(count) memory nodes, and any of them will do")
        }
        return Finding(
            "NUMA", .warning, "\(count) memory nodes, and neither a GPU nor an RDMA device of ours says which is near",
            remedy: "set `numaNode` to the node of the engine's GPU (`nvidia-smi topo -m` shows it)")
    }

    /// What the agent writes down.
    private func files(_ settings: AgentConfiguration) -> [Finding] {
        let named = [("journal", settings.journal), ("traces", settings.traces)].filter { !$0.1.isEmpty }
        guard !named.isEmpty else { return [] }
        do throws(OperatorError) { try settings.checkFiles() } catch { return [Finding(error.place, error)] }
        return named.map { Finding($0.0, .ok, $0.1) }
    }

    private func socket(_ settings: AgentConfiguration) -> Finding {
        let path = settings.socket
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        guard FileManager.default.isWritableFile(atPath: folder) else {
            return Finding(
                "socket", .problem, "\(folder) is not there, or this user may not write to it",
                remedy: "make it, as RuntimeDirectory=holdfast in the unit does")
        }
        if FileManager.default.fileExists(atPath: path), canConnect(toSocket: path) {
            return Finding(
                "socket", .problem, "another process listens on \(path)", remedy: "stop it, or choose another path")
        }
        return Finding("socket", .ok, path)
    }

    /// The device whose slots are the agent's.
    private func device(_ settings: AgentConfiguration) -> (findings: [Finding], driver: CudaDriver?) {
        guard settings.hbm > 0 else { return ([], nil) }
        do throws(OperatorError) {
            guard let driver = try settings.openGPU() else {
                let found = Finding(
                    "device", .warning, "ordinary memory stands in for a GPU's: its rates say nothing of one",
                    remedy: "give cuda:0 where there is a GPU")
                return ([found], nil)
            }
            return ([Finding("device", .ok, "\(driver.name), \(ByteSize.text(driver.byteCount))")], driver)
        } catch { return ([Finding("device", error)], nil) }
    }

    /// Memory of ours that is no larger than the engine's own host region holds nothing that is not there already.
    private func region(_ settings: AgentConfiguration) -> Finding {
        var regions = vLLMRegions
        if let engineRegion {
            do throws(OperatorError) {
                regions = [
                    ("the engine's region", try ByteSize.read(engineRegion, name: "region", at: "--engine-region"))
                ]
            } catch { return Finding("double caching", error) }
        }
        guard !regions.isEmpty else {
            return Finding("double caching", .ok, "no region of an engine is there; say its size with --engine-region")
        }
        let bytes = regions.reduce(0) { $0 + $1.bytes }
        let names = regions.map { "\($0.name) of \(ByteSize.text($0.bytes))" }.joined(separator: ", ")
        let words = "`dram` is \(ByteSize.text(settings.dram)) beside \(names)"
        guard settings.dram > bytes else {
            return Finding(
                "double caching", .warning, words + ": every block would lie twice",
                remedy: "make `dram` several times as large, or the engine's region small")
        }
        return Finding("double caching", .ok, words)
    }

    /// vLLM's offloading regions lie in files of a known name.
    private var vLLMRegions: [(name: String, bytes: Int)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/dev/shm")) ?? []
        return names.filter { $0.hasPrefix("vllm_offload_") }.sorted().map { name in
            let attributes = try? FileManager.default.attributesOfItem(atPath: "/dev/shm/\(name)")
            return ("/dev/shm/\(name)", (attributes?[.size] as? NSNumber)?.intValue ?? 0)
        }
    }

    private func keys(_ settings: AgentConfiguration) -> Finding {
        do throws(OperatorError) {
            let tenants = try Tenants(file: settings.keys)
            guard tenants.byName[settings.tenant] != nil else {
                throw OperatorError("there is no tenant `\(settings.tenant)`", at: settings.keys)
            }
            return Finding("keys", .ok, "\(settings.keys) has the key of `\(settings.tenant)`")
        } catch { return Finding("keys", error) }
    }

    /// The store is there and takes the key. One that is away is a warning, since the agent serves without it; one that is there
    /// and refuses would refuse for ever.
    private func store(_ settings: AgentConfiguration) async -> Finding {
        let client: StoreClient
        do {
            let routes = try settings.routes()
            let secret = try AgentSettingsReading.secret(settings)
            client = try StoreClient(
                StoreClientConfiguration(routes: routes, tenant: settings.tenant, secret: secret),
                memory: try BlockMemory(byteCount: 4096), sink: { _ in })
        } catch let error as OperatorError { return Finding("store", error) } catch {
            return Finding("store", .problem, "\(error)")
        }
        defer { client.shutDown() }
        let response = await client.call(.stat, within: Self.helloLimit)
        guard response.status != .ok else {
            let most = client.payloadBytesMax.map { ", and blocks of \(ByteSize.text($0)) at most" } ?? ""
            let keyIsTaken = "\(settings.store) answers, takes the key of `\(settings.tenant)`\(most)"
            if settings.namespace.isEmpty { return Finding("store", .ok, keyIsTaken) }
            let opened = await client.call(.openNamespace(name: settings.namespace), within: Self.helloLimit)
            guard opened.status != .ok else {
                return Finding("store", .ok, "\(keyIsTaken), and opens namespace `\(settings.namespace)`")
            }
            let hindrance = NamespaceStanding.Hindrance(
                opened, namespace: settings.namespace, isSubscribing: false, within: Self.helloLimit)
            guard hindrance.isRefusal else {
                return Finding(
                    "store", .warning, "\(keyIsTaken); but \(hindrance.words)",
                    remedy: "the agent serves without it and asks again; `holdfast ctl status --store "
                        + "\(settings.store)` shows what keeps the store")
            }
            return Finding(
                "store", .problem,
                "\(settings.store) refuses namespace `\(settings.namespace)` to `\(settings.tenant)`: \(words(of: opened))",
                remedy: "an operator lets it in: `holdfast ctl namespace set \(settings.namespace) --allow "
                    + "\(settings.tenant)`, with an --allow for each other tenant that uses it")
        }
        let said = words(of: response)
        do {
            let (host, port) = try splitEndpoint(settings.store, option: "store")
            try checkCanReach(host, port: port, within: Self.helloLimit)
        } catch {
            return Finding(
                "store", .warning, "it does not answer: \(error)",
                remedy: "the agent serves without it and uses it when it comes; is its address right?")
        }
        return Finding(
            "store", .problem, "\(settings.store) is reached, and says no hello to `\(settings.tenant)`: \(said)",
            remedy: "`tenant` and `keys` are those that the store was started with, and TLS is where the store has it")
    }

    /// Why the store did not do what it was asked.
    private func words(of response: Response) -> String {
        if case .text(let text) = response.body, !text.isEmpty { return String(decoding: text, as: UTF8.self) }
        return "`\(response.status)`"
    }

    private func profile(_ settings: AgentConfiguration) -> Finding {
        do throws(OperatorError) {
            _ = try AgentSettingsReading.links(settings)
            return Finding("profile", .ok, settings.profile)
        } catch { return Finding("profile", error) }
    }
}
