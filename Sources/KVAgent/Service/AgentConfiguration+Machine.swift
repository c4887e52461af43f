// Whether this machine has what an agent's settings name. An agent that could serve nobody does not start; `doctor` says the same
// beforehand, one thing after the other.

import Foundation
import KVFlash
import KVMemory
import KVModel
import KVSystem

extension AgentConfiguration {
    /// Everything that can be known before an engine has come. Looks, and changes nothing.
    ///
    /// - Throws: The first thing that the machine lacks, at its setting's name.
    func checkMachine() throws(OperatorError) {
        try checkMemoryNode()
        try checkMemoryLimit(MemoryLimit.now)
        if !nvme.isEmpty {
            do throws(FlashError) { try checkCanMakeRing() } catch { throw error.operatorError }
        }
        try checkLocalFlash()
        try checkFiles()
        if !store.isEmpty { _ = try routes() }
    }

    /// Node memory fits into what the control group allows. In a container that allows less it would be killed, hours later, when
    /// its slots have filled.
    package func checkMemoryLimit(_ limit: MemoryLimit?) throws(OperatorError) {
        let wanted = dram + (device == "emulated" ? hbm : 0)
        guard let limit, wanted > limit.bytes, !hugePages || wanted > reservedHugeBytes else { return }
        throw OperatorError(
            "`dram` is \(ByteSize.text(dram)), and this process's control group allows \(ByteSize.text(limit.bytes)) "
                + "(\(limit.file))", at: "dram", remedy: "ask for less, or raise the container's memory limit")
    }

    /// The NUMA node of node memory, where a number names it, is there and large enough.
    public func checkMemoryNode() throws(OperatorError) {
        guard let number = Int(numaNode) else { return }
        guard let memory = Numa.memory(ofNode: number) else {
            let known = Numa.nodes.map(String.init).joined(separator: ", ")
            throw OperatorError(
                "there is no NUMA node \(number) with memory", at: "numaNode",
                remedy: known.isEmpty ? "leave it out" : "there are: \(known)")
        }
        guard dram <= memory.total else {
            throw OperatorError(
                "`dram` is \(ByteSize.text(dram)), and NUMA node \(number) has \(ByteSize.text(memory.total)) altogether",
                at: "numaNode", remedy: "ask for less, or say any")
        }
    }

    /// The GPU that the HBM slots lie in, opened; nil where no GPU is named.
    public func openGPU() throws(OperatorError) -> CudaDriver? {
        guard hbm > 0, let gpuNumber else { return nil }
        let driver: CudaDriver
        do { driver = try CudaDriver(gpu: gpuNumber) } catch {
            throw OperatorError(
                "`device` is \(device): \(error.what)", at: "device",
                remedy: "leave out `device` and `hbm` where there is no GPU; engines own its memory then")
        }
        guard hbm < driver.byteCount else {
            throw OperatorError(
                "`hbm` is \(ByteSize.text(hbm)), and \(driver.name) has \(ByteSize.text(driver.byteCount))", at: "hbm",
                remedy: "leave room for the model")
        }
        return driver
    }

    /// Local flash can be formatted: it is empty or an agent's own, and may be written to.
    public func checkLocalFlash() throws(OperatorError) {
        guard !nvme.isEmpty else { return }
        guard FileManager.default.fileExists(atPath: nvme) else {
            guard !nvme.hasPrefix("/dev/") else {
                throw OperatorError("there is no such device", at: nvme, remedy: "`lsblk` names those that are there")
            }
            return try checkWritable(nvme, "nvme")
        }
        try checkWritable(nvme, "nvme")
        do {
            let owner = try FlashDevice.inspect(path: nvme).identity.store
            guard owner == Agent.driveOwner else {
                throw OperatorError(
                    "it is a store's drive, which an agent will not overwrite", at: nvme, remedy: "name another")
            }
        } catch let error as OperatorError { throw error } catch FlashError.notADrive(_, found: "nothing") {
            return
        } catch FlashError.notADrive(_, let found) {
            throw OperatorError(
                "it holds \(found), which an agent will not overwrite", at: nvme, remedy: "name another, or empty it")
        } catch let error as FlashError { throw error.operatorError } catch {
            throw OperatorError("\(error)", at: nvme)
        }
    }

    /// The files that the agent writes can be made.
    public func checkFiles() throws(OperatorError) {
        if !journal.isEmpty { try checkWritable(journal, "journal") }
        if !traces.isEmpty, case .file(let path, _) = try TraceTarget(traces, bytesMax: tracesSize) {
            try checkWritable(path, "traces")
        }
    }

    private func checkWritable(_ path: String, _ setting: String) throws(OperatorError) {
        let files = FileManager.default
        var isFolder: ObjCBool = false
        guard unsafe files.fileExists(atPath: path, isDirectory: &isFolder) else {
            let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
            guard files.fileExists(atPath: folder) else {
                throw OperatorError("there is no folder \(folder)", at: setting, remedy: "make it first")
            }
            guard files.isWritableFile(atPath: folder) else {
                throw OperatorError("this user may not write to \(folder)", at: setting, remedy: "give it the right to")
            }
            return
        }
        guard !isFolder.boolValue else {
            throw OperatorError("\(path) is a folder, not a file", at: setting, remedy: "name a file in it")
        }
        guard files.isWritableFile(atPath: path) else {
            throw OperatorError("this user may not write to \(path)", at: setting, remedy: "give it the right to")
        }
    }
}
