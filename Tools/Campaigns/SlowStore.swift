// A store whose drive takes its time: the real one, in a process of its own, over a drive of which each command holds up all
// behind it. The campaign of remote faults starts it on the file of a store that was well.

import ArgumentParser
import Foundation
import KVFlash
import KVModel
import KVStore
import KVTransport
import Logging

struct SlowStore: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "slow-store", abstract: "A store with a slow drive.", shouldDisplay: false)

    @Option var data: String
    @Option var size: String
    @Option var extent: String
    @Option var payloadMax: String
    @Option var dram: String
    @Option var slowMicroseconds: UInt32

    func run() throws {
        var settings = StoreConfiguration()
        for (name, value) in [
            ("data", data), ("size", size), ("extent", extent), ("payloadMax", payloadMax), ("dram", dram),
        ] { try settings.set(name, [value], at: name) }
        let logger = Logger(label: "slow-store") { _ in SwiftLogNoOpLogHandler() }
        let slow = slowMicroseconds
        let store = try Store(settings, tenants: Tenants(file: settings.tenantsPath), logger: logger) {
            (device, memory, drive, sink) throws(FlashError) in
            try FaultyDrive(
                seed: 1, perMille: [.slow: 1000], slowMicroseconds: slow, extentCount: device.geometry.extentCount,
                memory: memory, sink: sink
            ) { (sink) throws(FlashError) in
                try FlashDrive(device, memory: memory, configuration: drive, sink: sink)
            }
        }
        var limits = ServerLimits.standard
        limits.sessionsMax = settings.sessions
        limits.credits = settings.credits
        limits.payloadBytesMax = settings.payloadMax
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: settings.lanes, socketBufferBytes: 0, limits: limits),
            transport: 1, host: store)
        store.serve(server, transport: 1)
        FileHandle.standardError.write(Data("address=\(server.address)\n".utf8))
        // Until it is killed.
        while true { pause() }
    }
}
