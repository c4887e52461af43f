// `holdfast calibrate`: measures this machine's memory, its flash and a store that it reaches, and writes the device profile that `replay` takes.

import ArgumentParser
import Foundation
import KVFlash
import KVModel
import KVSettings
import KVSimulation
import KVStore

struct Calibrate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures memory, flash and a store, and writes a device profile.",
        discussion: """
            Flash is measured through the store's own engine, on a scratch file that is removed at the end: every \
            write is flushed, every read passes the page cache. A store is measured through its client, with objects \
            of a namespace `calibrate` that are deleted at the end; before they are got, others take their place in \
            its memory, so that its drives answer. The rates of the profile are the best that were reached.

            Loads are measured as an engine sees them, one at a time: an agent of its own process keeps blocks, lets \
            them go to where they are to be measured, and gives them back. They say how long a load takes; rates say \
            what many reach.

              holdfast calibrate --data /mnt/nvme -o profile.json
              holdfast calibrate --store 10.0.0.7:9460 --keys store.keys -o profile.json
              holdfast replay trace.jsonl --profile profile.json
            """)

    @Option(
        name: .long,
        help: ArgumentHelp("The folder on the flash to be measured; without it, memory alone is.", valueName: "folder"))
    var data: String?

    @Option(name: .long, help: ArgumentHelp("The address of a store to be measured from here.", valueName: "address"))
    var store: String?

    @Option(name: .long, help: ArgumentHelp("The file with the key of `--tenant` at that store.", valueName: "file"))
    var keys: String?

    @Option(name: .long, help: ArgumentHelp("Whose key proves who asks.", valueName: "name"))
    var tenant = "local"

    @Flag(name: .long, help: "A small file and few sizes: seconds, not minutes.")
    var quick = false

    @Flag(name: .long, help: "Prints the profile, too.")
    var json = false

    @Option(name: .shortAndLong, help: ArgumentHelp("Where the profile is written.", valueName: "file"))
    var output: String

    func validate() throws {
        guard store != nil || keys == nil else { throw ValidationError("--keys goes with --store.") }
    }

    func run() async throws {
        // Before minutes are spent on the rest.
        try NamedFile(output).checkCanWrite()
        if let data {
            try checkFolder(data)
            do { try checkCanMakeRing() } catch { throw error.operatorError }
        }
        let room = try await storeRoom()
        let bar = ProgressBar("calibrating")
        let memory = try MemoryRates.measured(byteCount: quick ? 64 << 20 : 1 << 30)
        var profile = CalibratedProfile(machine: machine, memory: memory)
        let loadPlan = quick ? LoadPlan.quick : .full
        var loads = LoadRates()
        try await loads.measure(.dram, plan: loadPlan)
        if let data {
            try await loads.measure(.nvme(folder: data), plan: loadPlan)
            let plan = quick ? FlashPlan.quick : FlashPlan.full
            let flash = try FlashRates.measured(folder: data, plan: plan) { bar.update($0) }
            profile.nvme = CalibratedProfile.Device(
                readBytesPerSecond: flash.bestRead, writeBytesPerSecond: flash.bestWrite,
                latencySeconds: flash.firstByteSeconds)
            profile.points = flash.points
        }
        if let store, let keys, let room {
            let plan = room.plan
            let connection = try storeOptions(store, keys).connect(
                payloadBytes: plan.blockBytes * (plan.depths.max() ?? 1))
            let memory = StoreMemory(
                connection: connection, handle: try await connection.namespace("calibrate"), objects: room.displacing,
                depth: plan.depths.max() ?? 1)
            let rates = try await StoreRates.measured(connection, memory: memory, plan: plan) { bar.update($0) }
            profile.take(rates)
            let lines = "store: \(store)\nkeys: \"\(keys)\"\ntenant: \(tenant)\nask: 1\n"
            do {
                try await loads.measure(.store(lines: lines, memory: memory), plan: room.loadPlan)
            } catch {
                try await forget(loads.stored, connection)
                throw error
            }
            try await forget(loads.stored, connection)
        }
        profile.take(loads)
        bar.finish()
        if let store, let room, room.displacing == nil {
            note(
                "\(store) has no room for as much as its memory holds, or does not say how much that is: "
                    + "what was got there may have come from its memory, which is faster than its drives")
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        let text = try encoder.encode(profile) + Data("\n".utf8)
        // What is written is what `replay` reads.
        _ = try DeviceProfile(json: text, at: output)
        try NamedFile(output).write(Array(text))
        if json { try print(String(decoding: text, as: UTF8.self), terminator: "") } else { try print(profile.summary) }
    }

    private func checkFolder(_ path: String) throws(OperatorError) {
        var isFolder: ObjCBool = false
        guard unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue,
            FileManager.default.isWritableFile(atPath: path)
        else {
            throw OperatorError(
                "is not a folder that can be written", at: path, remedy: "name one on the flash to be measured")
        }
    }

    private func storeOptions(_ store: String, _ keys: String) throws -> StoreConnectionOptions {
        try StoreConnectionOptions.parse(["--store", store, "--keys", keys, "--tenant", tenant])
    }

    /// What may be stored in the store for the measurement: nothing of others' leaves for it.
    private func storeRoom() async throws -> StoreRoom? {
        guard let store else { return nil }
        guard let keys else {
            throw OperatorError("a store needs a key", at: "--store", remedy: "name the file of keys with --keys")
        }
        let response = try await storeOptions(store, keys).connect().ask(.stat)
        guard case .text(let json) = response.body else { return nil }
        let status = try JSONDecoder().decode(StoreStatus.self, from: Data(json))
        return try StoreRoom(
            status, plan: quick ? StorePlan.quick : .full, loadPlan: quick ? LoadPlan.quick : .full, at: store)
    }

    /// Deletes what was stored.
    private func forget(_ stored: [Range<BlockNumber>], _ connection: StoreConnection) async throws {
        let handle = try await connection.namespace("calibrate")
        for range in stored {
            for first in stride(from: range.lowerBound, to: range.upperBound, by: 128) {
                let names = (first..<min(range.upperBound, first + 128)).map(LiveBlocks.name)
                _ = try await connection.ask(.delete(handle, names))
            }
        }
    }

    /// Processor and how many of it, in words.
    private var machine: String {
        let processors = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = processors.split(separator: "\n").first { $0.hasPrefix("model name") }
        let name = line?.split(separator: ":").last?.trimmingCharacters(in: .whitespaces) ?? "unnamed processor"
        return "\(ProcessInfo.processInfo.activeProcessorCount) × \(name)"
    }
}

/// A profile in the schema of `DeviceProfile`, and beside it each point that was measured.
struct CalibratedProfile: Encodable {
    struct Rate: Encodable { var bytesPerSecond: Double }
    struct Device: Encodable {
        var readBytesPerSecond, writeBytesPerSecond: Double
        var nicBytesPerSecond: Double?
        var latencySeconds: Double
    }

    /// Node memory as an engine at an agent's door gets it.
    struct Memory: Encodable { var readBytesPerSecond, latencySeconds: Double }

    var schema = DeviceProfile.schemaName
    var machine: String
    var hostMemory: Rate
    /// One thread that copies and takes the checksum on the way.
    var checkedCopyBytesPerSecond: Double
    /// A look-up of one key at the store.
    var storeRoundTripSeconds: Double?
    var dram: Memory?
    var nvme: Device?
    var flash: Device?
    var hostNIC: Rate?
    var points: [FlashPoint] = []
    var storePoints: [StorePoint] = []
    var loads = LoadCosts()
    var loadPoints: [LoadPoint] = []

    /// Of a store: what this machine reached alone bounds server and network alike.
    mutating func take(_ rates: StoreRates) {
        storeRoundTripSeconds = rates.roundTripSeconds
        let best = max(rates.bestGet, rates.bestPut)
        flash = Device(
            readBytesPerSecond: rates.bestGet, writeBytesPerSecond: rates.bestPut, nicBytesPerSecond: best,
            latencySeconds: rates.firstByteSeconds)
        hostNIC = Rate(bytesPerSecond: best)
        storePoints = rates.points
    }

    /// Of loads: of node memory the largest blocks say how fast it is, too.
    mutating func take(_ rates: LoadRates) {
        (loads, loadPoints) = (rates.costs, rates.points)
        guard let largest = rates.costs.dram?.max(by: { $0.blockBytes < $1.blockBytes }) else { return }
        // Beside other work the line through a few loads may say that a block takes no time. None is loaded faster than copied.
        let copied = max(hostMemory.bytesPerSecond, checkedCopyBytesPerSecond)
        dram = Memory(
            readBytesPerSecond: min(copied, Double(largest.blockBytes) / max(1e-9, largest.blockSeconds)),
            latencySeconds: largest.latencySeconds)
    }

    init(machine: String, memory: MemoryRates) {
        self.machine = machine
        hostMemory = Rate(bytesPerSecond: memory.copyBytesPerSecond)
        checkedCopyBytesPerSecond = memory.checkedCopyBytesPerSecond
    }

    /// What was measured, as a table.
    var summary: String {
        func rate(_ value: Double) -> String { String(format: "%7.2f GB/s", value / 1e9) }
        var text = "\(machine)\nmemory, all processors copy   \(rate(hostMemory.bytesPerSecond))\n"
        text += "memory, one copies and sums   \(rate(checkedCopyBytesPerSecond))\n"
        for point in points {
            let block = ByteSize.text(point.blockBytes).padding(toLength: 7, withPad: " ", startingAt: 0)
            let depth = "depth \(point.depth)".padding(toLength: 9, withPad: " ", startingAt: 0)
            text += "flash \(point.isWrite ? "write" : "read ")  \(block) \(depth) \(rate(point.bytesPerSecond))"
            text += String(format: "  median %.2f ms\n", point.medianSeconds * 1e3)
        }
        for point in storePoints {
            let block = ByteSize.text(point.blockBytes).padding(toLength: 7, withPad: " ", startingAt: 0)
            let depth = "depth \(point.depth)".padding(toLength: 9, withPad: " ", startingAt: 0)
            text += "store \(point.isPut ? "put " : "get ")   \(block) \(depth) \(rate(point.bytesPerSecond))\n"
        }
        for (tier, costs) in [("memory", loads.dram), ("flash", loads.nvme), ("store", loads.flash)] {
            for cost in costs ?? [] {
                let block = ByteSize.text(cost.blockBytes).padding(toLength: 7, withPad: " ", startingAt: 0)
                text += "load, \(tier.padding(toLength: 8, withPad: " ", startingAt: 0)) \(block) "
                text += String(
                    format: "%6.0f µs and %.1f µs a block\n", cost.latencySeconds * 1e6, cost.blockSeconds * 1e6)
            }
        }
        if let flash { text += String(format: "store, first byte  %.0f µs\n", flash.latencySeconds * 1e6) }
        if let nvme { text += String(format: "flash, first byte  %.0f µs\n", nvme.latencySeconds * 1e6) }
        return String(text.dropLast())
    }
}
