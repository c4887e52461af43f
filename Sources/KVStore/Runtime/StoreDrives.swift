// The drives of a store at its start: formatted when they are new, checked against each other, scanned.

import Foundation
import KVFlash
import KVModel
import KVSystem

/// Opened drives, not yet at work.
struct StoreDrives {
    var devices: [FlashDevice] = []
    /// The highest generation that any header carries.
    var generationMax: UInt64 = 0
    /// What each scan counted.
    var summaries: [ScanSummary] = []

    /// Opens the drives of a configuration, in the order of their numbers; formats them all when all are new.
    init(_ configuration: StoreConfiguration) throws(OperatorError) {
        do {
            try Self.formatNew(configuration)
            for path in configuration.data { devices.append(try FlashDevice(path: path)) }
            try Superblock.check(devices.map { ($0.path, $0.superblock) })
        } catch { throw error.operatorError }
        devices.sort { $0.superblock.identity.number < $1.superblock.identity.number }
        let extents = Set(devices.map(\.geometry.extentBytes))
        guard extents.count == 1 else {
            throw OperatorError(
                "drives of one store have extents of one size", at: configuration.data.joined(separator: ", "))
        }
    }

    /// Formats the drives when none of them is one yet. Drives that are half a store are left alone: opening says so.
    private static func formatNew(_ configuration: StoreConfiguration) throws(FlashError) {
        var areNew = true
        for path in configuration.data {
            guard FileManager.default.fileExists(atPath: path) else {
                guard configuration.size != nil else {
                    throw .geometry("\(path) does not exist; give --size and it is made")
                }
                continue
            }
            do {
                _ = try FlashDevice.inspect(path: path)
                areNew = false
            } catch {
                switch error {
                case .notADrive: continue
                default:
                    if !configuration.force { throw error }
                }
            }
        }
        guard areNew else { return }
        let store = try uuid()
        for (number, path) in configuration.data.enumerated() {
            let identity = DriveIdentity(
                drive: try uuid(), store: store, number: number, count: configuration.data.count)
            try FlashDevice.format(
                path: path, byteCount: configuration.size, extentBytes: configuration.extent, identity: identity,
                force: configuration.force)
        }
    }

    private static func uuid() throws(FlashError) -> FlashUUID {
        do { return try FlashUUID.random() } catch { throw .system(error) }
    }

    /// Reads all headers, drive by drive.
    mutating func scan(_ body: (_ drive: Int, ScanEvent) -> Void) throws(OperatorError) {
        for (number, device) in devices.enumerated() {
            do {
                let summary = try device.scan { body(number, $0) }
                generationMax = max(generationMax, summary.generationMax)
                summaries.append(summary)
            } catch { throw error.operatorError }
        }
    }
}
