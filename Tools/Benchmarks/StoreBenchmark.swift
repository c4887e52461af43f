// The whole store over TCP: gets and puts against the slower of its two parts, existence and look-ups against bounds,
// the restart against reading the headers in order, and what it takes when nobody asks.

import Foundation
import KVFlash
import KVModel
import KVStore
import KVSystem
import KVTransport
import Synchronization

struct StoreBenchmark: Benchmark {
    let name = "store"
    let purpose = "the whole store over TCP: gets, puts, look-ups, restart and rest"

    private static let bytesPerRun = 256 << 20
    private static let setBytes = 512 << 20

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "holdfast-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        var rows: [BenchmarkRow] = []
        if ServingGroup.all.contains(where: { setting.wants($0.name) }) { rows += try servingRows(folder, setting) }
        if setting.wants("existence") || setting.wants("idle") { rows += try answeringRows(folder, setting) }
        if setting.wants("table") { rows.append(try tableRow(setting)) }
        if setting.wants("restart") { rows += try [1, 2].flatMap { try restartRows(folder, drives: $0, setting) } }
        return rows
    }

    // MARK: Serving

    /// A size, a depth and a direction.
    private struct ServingGroup {
        static let prefix = "serving "
        var blockBytes: Int
        var depth: Int
        var isPut: Bool
        /// By which it is chosen.
        var name: String { "\(Self.prefix)\(isPut ? "put" : "get") \(blockBytes >> 20) MiB depth \(depth)" }

        static let all = [2, 16].flatMap { mebibytes in
            [1, 8, 16].flatMap { depth in
                [false, true].map { ServingGroup(blockBytes: mebibytes << 20, depth: depth, isPut: $0) }
            }
        }
    }

    private func servingRows(_ folder: URL, _ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let pair = try TransportMemory(byteCount: 256 << 20)
        let store = try StoreWorld(
            path: folder.appendingPathComponent("store").path, clientMemory: pair.client
        ) { configuration in
            configuration.size = 3 << 30
            configuration.dram = 288 << 20
        }
        defer { store.shutDown() }
        try fill(store, byteCount: 5 << 29)
        let flash = try FlashLoad(path: folder.appendingPathComponent("drive").path, byteCount: 1 << 30)
        defer { flash.drive.shutDown() }
        var rows: [BenchmarkRow] = []
        for (set, mebibytes) in [(1, 2), (2, 16)] {
            let blockBytes = mebibytes << 20
            let groups = ServingGroup.all.filter { $0.blockBytes == blockBytes && setting.wants($0.name) }
            if groups.isEmpty { continue }
            let total = Self.setBytes / blockBytes
            _ = try store.put(set: set, blockBytes: blockBytes, depth: 8, count: total)
            try flash.learn(blockBytes)
            let raw = try RawSockets(server: pair.server, client: pair.client, blockBytes: blockBytes)
            defer { raw.shutDown() }
            for group in groups {
                rows += try self.rows(group, store, flash, raw, set: set, setting)
            }
            try store.delete(set: set, count: total)
        }
        return rows
    }

    /// Writes nearly every extent of the store once, as has been done on any that was ever full, and as the reference's drive
    /// has done: the first write to a place in a new file makes the file system note it in its journal.
    private func fill(_ store: StoreWorld, byteCount: Int) throws {
        let blockBytes = 16 << 20
        _ = try store.put(set: 90, blockBytes: blockBytes, depth: 8, count: byteCount / blockBytes)
        try store.delete(set: 90, count: byteCount / blockBytes)
    }

    /// What moves no payload.
    private func answeringRows(_ folder: URL, _ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let store = try StoreWorld(
            path: folder.appendingPathComponent("answering").path, clientMemory: BlockMemory(byteCount: 1 << 20)
        ) { configuration in
            configuration.size = 256 << 20
            configuration.extent = 64 << 10
            configuration.payloadMax = 1 << 20
        }
        defer { store.shutDown() }
        var rows: [BenchmarkRow] = []
        if setting.wants("existence") { rows.append(try existenceRow(store, setting)) }
        if setting.wants("idle") { rows.append(try idleRow(setting)) }
        return rows
    }

    /// One size and depth: time against the slower of flash and socket in the same turn, and against both at the same time;
    /// processor time against what both take together.
    private func rows(
        _ group: ServingGroup, _ store: StoreWorld, _ flash: FlashLoad, _ raw: RawSockets, set: Int,
        _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        let (blockBytes, depth) = (group.blockBytes, group.depth)
        let count = max(depth, Self.bytesPerRun / blockBytes)
        let gigabytes = Double(count * blockBytes) * 1e-9
        let pass = flash.checksumPass(blockBytes)
        var wall: (ours: [Double], flash: [Double], socket: [Double], both: [Double]) = ([], [], [], [])
        var processor: (ours: [Double], parts: [Double]) = ([], [])
        var busy: [Double] = []
        for turn in -1..<setting.pairCount {
            let seed = UInt64(turn + 2)
            let socket = try raw.run(isPut: group.isPut, depth: depth, count: count)
            let drive = try self.drive(flash, group, count: count, seed: seed)
            let both = try sideBySide(group, flash, raw, count: count, seed: seed &+ 1000)
            let idle = Processors.idleSeconds
            let whole =
                group.isPut
                ? try store.put(set: 100 + turn, blockBytes: blockBytes, depth: depth, count: count)
                : try store.get(
                    set: set, of: Self.setBytes / blockBytes, blockBytes: blockBytes, depth: depth, count: count,
                    seed: seed)
            let idled = Processors.idleSeconds - idle
            if group.isPut { try store.delete(set: 100 + turn, count: count) }
            guard turn >= 0 else { continue }
            wall.ours.append(whole.wall * 1000 / gigabytes)
            wall.flash.append(drive.wall * 1000)
            wall.socket.append(socket.wall * 1000 / gigabytes)
            wall.both.append(both * 1000 / gigabytes)
            processor.ours.append(whole.processor * 1000 / gigabytes)
            processor.parts.append((drive.processor + socket.processor / gigabytes + pass) * 1000)
            busy.append(1 - idled / (whole.wall * Double(Processors.count)))
        }
        let name = "store " + group.name.dropFirst(ServingGroup.prefix.count)
        let conditions =
            (group.isPut ? "restart-safe" : "512 MiB of blocks, 288 MiB of memory")
            + ", verified, client and store on this machine; \(count) blocks a run"
        let figures = zip(wall.flash, wall.socket)
        return [
            PairedRuns(ours: wall.ours, references: figures.map { max($0, $1) }).row(
                name: name, unit: "ms/GB",
                referenceName: "the slower of flash engine (\(shortNumber(median(wall.flash)))) and raw sockets "
                    + "(\(shortNumber(median(wall.socket))))", conditions: conditions),
            PairedRuns(ours: wall.ours, references: wall.both).row(
                name: name + " both", unit: "ms/GB",
                referenceName: "flash engine and raw sockets at the same time, neither of which waits for the other",
                conditions: conditions),
            PairedRuns(ours: processor.ours, references: processor.parts).row(
                name: name + " CPU", unit: "ms/GB",
                referenceName: "flash engine, raw sockets and one checksum pass (\(shortNumber(pass * 1000))) together",
                conditions: "client and store; while they ran \(Int(max(0, median(busy)) * 100)) % of "
                    + "\(Processors.count) processors was busy, with all else that ran; \(conditions)"),
        ]
    }

    /// The flash engine alone.
    private func drive(_ flash: FlashLoad, _ group: ServingGroup, count: Int, seed: UInt64) throws -> FlashRun {
        group.isPut
            ? try flash.write(group.blockBytes, depth: group.depth, count: count, sums: false, seed: seed)
            : try flash.read(group.blockBytes, depth: group.depth, count: count, verifies: false, seed: seed)
    }

    /// Seconds until flash engine and raw sockets, begun together, have both done: what the machine's processors, memory and
    /// drive give to both at once.
    private func sideBySide(
        _ group: ServingGroup, _ flash: FlashLoad, _ raw: RawSockets, count: Int, seed: UInt64
    ) throws -> Double {
        let failure = Mutex<(any Error)?>(nil)
        let taken = try wallSeconds {
            let socket = try EngineThread("raw-client") {
                do { _ = try raw.run(isPut: group.isPut, depth: group.depth, count: count) } catch {
                    failure.withLock { $0 = error }
                }
            }
            defer { socket.join() }
            _ = try drive(flash, group, count: count, seed: seed)
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
        return taken
    }

    private func existenceRow(_ store: StoreWorld, _ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let blockBytes = 64 << 10
        let blocks = 1024
        _ = try store.put(set: 9, blockBytes: blockBytes, depth: 16, count: blocks)
        // Half of the keys are there.
        let batches = (0..<8).map { batch in
            (0..<256).map { StoreWorld.name($0 % 2 == 0 ? 9 : 8, batch * 128 + $0 / 2) }
        }
        let handle = store.load.handle
        let calls = 2000
        let figures = try (-1..<setting.pairCount).map { _ in
            try store.load.run(depth: 8, count: calls) { position, _ in
                (.lookUp(handle, batches[position % 8]), nil)
            }.wall * 1e6 / Double(calls * 256)
        }
        try store.delete(set: 9, count: blocks)
        return boundRow(
            name: "store existence, 256 keys a call", unit: "µs/key", measured: Array(figures.dropFirst()),
            bound: 1 / 1.6, boundName: "1.6 M keys/s",
            conditions: "8 calls under way over 127.0.0.1, one connection; half of the keys are present")
    }

    /// A store with a client connected that asks nothing. Its two ends are all that this process does.
    private func idleRow(_ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let shares = (0..<6).map { _ in
            var wall = 0.0
            let processor = seconds { wall = wallSeconds { Thread.sleep(forTimeInterval: 1) } }
            return processor / wall * 100
        }
        return boundRow(
            name: "store idle", unit: "% of a core", measured: shares, bound: 1, boundName: "the bound",
            conditions: "store, drive, TCP server and a connected client, a second each")
    }

    // MARK: The table and the restart

    /// A thousand keys in one call over a socket, the table with ten million blocks behind it.
    private func tableRow(_ setting: BenchmarkSetting) throws -> BenchmarkRow {
        note("store: a table of 10 M blocks behind a socket")
        let blockCount = 10_000_000
        var world = try TableWorld(blockCount: blockCount, extentBytes: 64 << 10)
        var source = RandomSource(seed: 5)
        let keys = (0..<64_000).map { _ in source.below(blockCount) }
        var singles: [Double] = []
        for start in stride(from: 0, to: keys.count, by: 1000) {
            singles.append(try world.microseconds(keys[start..<start + 1000], batch: 1))
        }
        let names = stride(from: 0, to: keys.count, by: 1000).map { start in
            keys[start..<start + 1000].map(TableWorld.name)
        }
        let host = try DecisionsHost(world.taken())
        defer { host.shutDown() }
        let memory = try BlockMemory(byteCount: 1 << 20)
        let load = try ClientLoad(
            port: host.port, tenant: "o", secret: StoreWorld.secret, memory: memory, namespace: "n")
        defer { load.shutDown() }
        let handle = load.handle
        // As many bytes each way as a call has: 40 KB there, 200 bytes back.
        let echo = try RawSockets(server: memory, client: memory, blockBytes: 40 << 10)
        defer { echo.shutDown() }
        var ours: [Double] = []
        var references: [Double] = []
        let single = median(singles)
        for turn in -1..<setting.pairCount {
            let trip = try echo.run(isPut: true, depth: 1, count: 1000)
            let run = try load.run(depth: 1, count: 1000) { position, _ in
                (.lookUp(handle, names[position % names.count]), nil)
            }
            guard turn >= 0 else { continue }
            ours.append(run.percentile(0.99))
            references.append(trip.percentile(0.99) + 1.5 * single)
        }
        return PairedRuns(ours: ours, references: references).row(
            name: "store 1,000 keys of 10 M, p99", unit: "µs",
            referenceName: "p99 of a raw socket's round trip + 1.5 × 1,000 single look-ups",
            conditions: "random present keys, one call under way, 1,000 calls a run; a single look-up takes "
                + "\(shortNumber(single)) ns")
    }

    /// A whole store starts on drives that have a million blocks together; of several drives the scans alone, too.
    private func restartRows(_ folder: URL, drives: Int, _ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let headerCount = 1_000_000 / drives
        note("store: restart with \(drives) × \(headerCount) blocks")
        let extentBytes = 64 << 10
        let geometry = try FlashGeometry(
            totalBytes: headerCount * (extentBytes + 4096) + (256 << 10), extentBytes: extentBytes)
        let paths = (0..<drives).map { folder.appendingPathComponent("headers-\(drives)-\($0)").path }
        defer { for path in paths { try? FileManager.default.removeItem(atPath: path) } }
        for (number, path) in paths.enumerated() {
            try FlashBenchmark.writeHeaders(path, geometry, drive: number, of: drives)
        }
        let memory = try BlockMemory(byteCount: 1 << 20)
        let blockCount = drives * geometry.extentCount
        let whole = try PairedRuns(count: setting.longRunCount) {
            var world: StoreWorld?
            let taken = try wallSeconds {
                world = try StoreWorld(path: paths[0], clientMemory: memory) { configuration in
                    configuration.data = paths
                    configuration.dram = 64 << 20
                    configuration.extent = extentBytes
                    configuration.payloadMax = extentBytes
                }
            }
            let found = world?.store.status.namespaces.reduce(0) { $0 + $1.objects } ?? 0
            world?.shutDown()
            guard found == blockCount else {
                throw BenchmarkFailure(what: "the store found \(found) of \(blockCount) blocks")
            }
            return taken
        } reference: {
            try FlashBenchmark.sequentialRead(paths, geometry)
        }
        let row = whole.row(
            name: "store restart, 1 M" + (drives == 1 ? " blocks" : " on \(drives) drives"), unit: "s",
            referenceName: "fio reading the same headers in order" + (drives == 1 ? "" : ", of all drives at once"),
            conditions: "from nothing to a session that has opened its namespace; \(blockCount) headers"
                + (drives == 1 ? "" : " in files of one disk"))
        return drives == 1 ? [row] : [row, try scansRow(paths, geometry, setting)]
    }

    /// The scans of several drives at the same time against one after the other.
    private func scansRow(
        _ paths: [String], _ geometry: FlashGeometry, _ setting: BenchmarkSetting
    ) throws -> BenchmarkRow {
        let devices = try paths.map { try FlashDevice(path: $0) }
        func check(_ summaries: [ScanSummary]) throws {
            guard summaries.allSatisfy({ $0.objectCount == geometry.extentCount }) else {
                throw BenchmarkFailure(what: "a scan has missed headers")
            }
        }
        let runs = try PairedRuns(count: setting.longRunCount) {
            try wallSeconds { try check(try FlashDevice.scanAll(devices) { _, _ in }) }
        } reference: {
            try wallSeconds { for device in devices { try check([try device.scan { _ in }]) } }
        }
        return runs.row(
            name: "flash restart scan, \(paths.count) drives", unit: "s", referenceName: "one scan after the other",
            conditions: "\(paths.count) × \(geometry.extentCount) headers in files of one disk")
    }
}
