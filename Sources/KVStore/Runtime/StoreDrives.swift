// The drives of a store at its start: formatted when they are new, checked against each other, scanned.

import Foundation
import KVFlash
import KVModel
import KVSystem
import Synchronization

/// Opened drives, not yet at work.
struct StoreDrives {
    var devices: [FlashDevice] = []
    /// The highest generation that any header carries.
    var generationMax: UInt64 = 0
    /// What each scan counted.
    var summaries: [ScanSummary] = []
    /// What a person should know of drives that the store starts without, or that were put in the place of others.
    var notes: [String] = []

    /// Opens the drives of a configuration, in the order of their numbers; formats them all when all are new.
    init(_ configuration: StoreConfiguration) throws(OperatorError) {
        do {
            try Self.formatNew(configuration)
            if configuration.missing == .replace { try replaceMissing(configuration) }
            for path in configuration.data { try open(path, configuration) }
            try check(configuration)
        } catch { throw error.operatorError }
        devices.sort { $0.superblock.identity.number < $1.superblock.identity.number }
        let extents = Set(devices.map(\.geometry.extentBytes))
        guard extents.count == 1 else {
            throw OperatorError(
                "drives of one store have extents of one size", at: configuration.data.joined(separator: ", "))
        }
        noteOtherGeometry(configuration)
    }

    /// What was fixed when the drives were formatted stays as it was, whatever the settings say now.
    private mutating func noteOtherGeometry(_ configuration: StoreConfiguration) {
        for device in devices {
            let geometry = device.geometry
            if geometry.extentBytes != configuration.extent {
                notes.append(
                    "\(device.path) was formatted with extents of \(ByteSize.text(geometry.extentBytes)): "
                        + "`extent` \(ByteSize.text(configuration.extent)) has no effect")
            }
            if let size = configuration.size, size != geometry.totalBytes {
                notes.append(
                    "\(device.path) was formatted with \(ByteSize.text(geometry.totalBytes)): "
                        + "`size` \(ByteSize.text(size)) has no effect")
            }
        }
    }

    /// Opens a drive; where the store may start without it, one that cannot be opened is noted and left out.
    private mutating func open(_ path: String, _ configuration: StoreConfiguration) throws(FlashError) {
        do { devices.append(try FlashDevice(path: path)) } catch {
            guard configuration.missing == .accept else { throw error }
            notes.append("\(path) is left out: \(error)")
        }
    }

    private mutating func check(_ configuration: StoreConfiguration) throws(FlashError) {
        guard !devices.isEmpty else {
            throw .mixedDrives("none of the drives can be opened: \(notes.joined(separator: "; "))")
        }
        let missing = try Superblock.check(
            devices.map { ($0.path, $0.superblock) }, needsAll: configuration.missing != .accept)
        if !missing.isEmpty {
            let numbers = missing.map(String.init).joined(separator: ", ")
            let count = devices[0].superblock.identity.count
            notes.append("drive \(numbers) of the store's \(count) is missing: the blocks it holds are misses")
        }
    }

    /// Formats drives that are none yet with the numbers that the store's other drives leave free.
    private mutating func replaceMissing(_ configuration: StoreConfiguration) throws(FlashError) {
        var known: [(path: String, superblock: Superblock)] = []
        var blank: [String] = []
        for path in configuration.data {
            guard FileManager.default.fileExists(atPath: path) else {
                blank.append(path)
                continue
            }
            do { known.append((path, try FlashDevice.inspect(path: path))) } catch {
                guard case .notADrive = error else { throw error }
                blank.append(path)
            }
        }
        guard let first = known.first, !blank.isEmpty else { return }
        let free = try Superblock.check(known, needsAll: false)
        guard free.count == blank.count else {
            throw .mixedDrives(
                "\(blank.joined(separator: ", ")) cannot replace anything: the store lacks \(free.count) of its drives")
        }
        for (path, number) in zip(blank, free) {
            let identity = DriveIdentity(
                drive: try Self.uuid(), store: first.superblock.identity.store, number: number,
                count: first.superblock.identity.count)
            try FlashDevice.format(
                path: path, byteCount: configuration.size, extentBytes: first.superblock.geometry.extentBytes,
                identity: identity, force: configuration.force)
            notes.append("\(path) takes the place of the store's drive \(number)")
        }
    }

    /// Formats the drives when none of them is one yet. Drives that are half a store are left alone: opening says so.
    private static func formatNew(_ configuration: StoreConfiguration) throws(FlashError) {
        var areNew = true
        for path in configuration.data {
            guard FileManager.default.fileExists(atPath: path) else {
                guard configuration.size != nil || configuration.missing == .accept else {
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
                    if configuration.missing == .accept { areNew = false } else if !configuration.force { throw error }
                }
            }
        }
        guard areNew else { return }
        let made = configuration.data.filter { !FileManager.default.fileExists(atPath: $0) }
        do { try formatAll(configuration) } catch {
            // Half a store would be in the way of the next try.
            for path in made { try? FileManager.default.removeItem(atPath: path) }
            throw error
        }
    }

    private static func formatAll(_ configuration: StoreConfiguration) throws(FlashError) {
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

    /// Reads all headers, of all drives at the same time. `body` is called by one thread at a time.
    mutating func scan(_ body: @escaping @Sendable (_ drive: Int, ScanEvent) -> Void) throws(OperatorError) {
        let turn = ScanTurn(body)
        do {
            summaries = try FlashDevice.scanAll(devices) { turn.take(from: $0, $1) }
        } catch { throw error.operatorError }
        generationMax = summaries.reduce(0) { max($0, $1.generationMax) }
    }
}

/// Lets one of several scans speak at a time.
private final class ScanTurn: Sendable {
    private let body: @Sendable (Int, ScanEvent) -> Void
    private let turn = Mutex(())

    init(_ body: @escaping @Sendable (Int, ScanEvent) -> Void) { self.body = body }

    func take(from drive: Int, _ events: [ScanEvent]) {
        turn.withLock { _ in for event in events { body(drive, event) } }
    }
}
