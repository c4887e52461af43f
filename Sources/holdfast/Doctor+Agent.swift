// What `doctor` looks at for an agent: its settings against each other, the machine, the engine's memory and the store.

import Foundation
import KVAgent
import KVMemory
import KVModel
import KVSettings
import KVStore
import KVSystem

/// An agent's settings and everything that they name.
struct AgentChecks {
    let file: String
    /// Bytes of the engine's host region, as the operator says them.
    let engineRegion: String?

    /// One finding for each thing, in the order of a start.
    var findings: [Finding] {
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
        var findings = [Finding("settings", .ok, "all of them are known")]
        findings += MachineChecks(settings: machine, owner: "agent").findings.filter { $0.about != "rdmaListen" }
        findings.append(socket(settings))
        if settings.hbm > 0 { findings.append(device(settings)) }
        findings.append(region(settings))
        if !settings.nvme.isEmpty {
            findings += DriveChecks(path: settings.nvme, size: settings.nvmeSize).findings
        }
        if !settings.store.isEmpty { findings += [keys(settings), store(settings)] }
        if !settings.profile.isEmpty { findings.append(profile(settings)) }
        return findings
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
    private func device(_ settings: AgentConfiguration) -> Finding {
        guard let number = settings.gpuNumber else {
            return Finding(
                "device", .warning, "ordinary memory stands in for a GPU's: its rates say nothing of one",
                remedy: "give cuda:0 where there is a GPU")
        }
        do throws(OperatorError) {
            let driver = try CudaDriver(gpu: number)
            guard settings.hbm < driver.byteCount else {
                return Finding(
                    "device", .problem,
                    "`hbm` is \(ByteSize.text(settings.hbm)), and \(driver.name) has \(ByteSize.text(driver.byteCount))",
                    remedy: "leave room for the model")
            }
            return Finding("device", .ok, "\(driver.name), \(ByteSize.text(driver.byteCount))")
        } catch { return Finding("device", error) }
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

    private func store(_ settings: AgentConfiguration) -> Finding {
        do {
            let (host, port) = try splitEndpoint(settings.store, option: "store")
            try checkCanReach(host, port: port, within: Duration(seconds: 3))
            return Finding("store", .ok, "\(settings.store) answers")
        } catch let error as OperatorError { return Finding("store", error) } catch {
            return Finding(
                "store", .warning, "\(error)",
                remedy: "the agent serves without it and uses it when it comes; is its address right?")
        }
    }

    private func profile(_ settings: AgentConfiguration) -> Finding {
        do throws(OperatorError) {
            _ = try AgentSettingsReading.links(settings)
            return Finding("profile", .ok, settings.profile)
        } catch { return Finding("profile", error) }
    }
}
