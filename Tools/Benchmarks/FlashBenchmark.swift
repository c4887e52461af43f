// The flash engine against fio: throughput, processor time, latency, and the restart scan. The same file, the same
// flags, run in turn.

import Foundation
import KVFlash
import KVModel
import KVSystem
import Synchronization

struct FlashBenchmark: Benchmark {
    let name = "flash"
    let purpose = "flash engine: reads, writes, latencies and the restart scan against fio on the same file"

    private static let fileBytes = 2 << 30
    private static let bytesPerRun = 512 << 20

    func run(_ setting: BenchmarkSetting) throws -> [BenchmarkRow] {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "holdfast-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appendingPathComponent("drive").path
        let load = try FlashLoad(path: path, byteCount: Self.fileBytes)
        var rows: [BenchmarkRow] = []
        for mebibytes in [2, 16] {
            for depth in [1, 8, 32] where mebibytes * depth <= 256 {
                rows += try readRows(load, mebibytes << 20, depth, setting)
            }
        }
        for (bytes, depth) in [
            (64 << 10, 1), (64 << 10, 16), (2 << 20, 1), (2 << 20, 16), (16 << 20, 1), (16 << 20, 16),
        ] {
            rows += try latencyRows(load, bytes, depth, setting)
        }
        // Writes of fio go where our blocks are: reads come before.
        for mebibytes in [2, 16] {
            for depth in [1, 8, 32] where mebibytes * depth <= 256 {
                rows += try writeRows(load, mebibytes << 20, depth, setting)
            }
        }
        load.drive.shutDown()
        return rows + [try scanRow(folder.appendingPathComponent("headers").path, setting)]
    }

    private func fio(_ load: FlashLoad, _ blockBytes: Int, _ depth: Int, bytes: Int, perFlush: Int? = nil) -> FioRun {
        let geometry = load.device.geometry
        return FioRun(
            path: load.device.path, offset: geometry.extentsOffset,
            size: geometry.extentCount * geometry.extentBytes, blockBytes: blockBytes, depth: depth, byteCount: bytes,
            writesPerFlush: perFlush)
    }

    /// What was measured in turn: ours with checksums, ours without, fio, and the checksum of as many bytes alone.
    private struct Turns {
        var checked: [FlashRun] = []
        var bare: [FlashRun] = []
        var reference: [FlashRun] = []
        var passes: [Double] = []
    }

    /// Runs checked, bare and fio in turn, the first of them another one each time.
    private func turns(
        _ count: Int, pass: () -> Double, _ checked: (Int) throws -> FlashRun, _ bare: (Int) throws -> FlashRun,
        _ reference: () throws -> FlashRun
    ) throws -> Turns {
        var runs = Turns()
        for turn in -1..<count {
            if turn >= 0 { runs.passes.append(pass()) }
            for step in 0..<3 {
                switch (turn + 1 + step) % 3 {
                case 0: let run = try checked(turn); if turn >= 0 { runs.checked.append(run) }
                case 1: let run = try bare(turn); if turn >= 0 { runs.bare.append(run) }
                default: let run = try reference(); if turn >= 0 { runs.reference.append(run) }
                }
            }
        }
        return runs
    }

    /// The product with its checksums, and the bare engine without; seconds on the wall and of processor time.
    private func rows(
        _ what: String, _ runs: Turns,
        _ conditions: String
    ) -> [BenchmarkRow] {
        func row(_ name: String, _ ours: [Double], _ references: [Double], _ referenceName: String) -> BenchmarkRow {
            PairedRuns(ours: ours.map { $0 * 1000 }, references: references.map { $0 * 1000 }).row(
                name: "flash \(what)\(name)", unit: "ms/GB", referenceName: referenceName, conditions: conditions)
        }
        let reference = runs.reference
        return [
            row("", runs.checked.map(\.wall), reference.map(\.wall), "fio"),
            row(" bare", runs.bare.map(\.wall), reference.map(\.wall), "fio"),
            row(
                " CPU", runs.checked.map(\.processor), zip(reference, runs.passes).map { $0.processor + $1 },
                "fio and one checksum pass"),
            row(" bare CPU", runs.bare.map(\.processor), reference.map(\.processor), "fio"),
        ]
    }

    private func readRows(
        _ load: FlashLoad, _ blockBytes: Int, _ depth: Int, _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        note("flash: reads of \(blockBytes >> 20) MiB, \(depth) under way")
        try load.learn(blockBytes)
        let count = max(depth, Self.bytesPerRun / blockBytes)
        let runs = try turns(setting.pairCount, pass: { load.checksumPass(blockBytes) }) { turn in
            try load.read(blockBytes, depth: depth, count: count, verifies: true, seed: UInt64(turn + 2))
        } _: { turn in
            try load.read(blockBytes, depth: depth, count: count, verifies: false, seed: UInt64(turn + 1000))
        } _: {
            try fio(load, blockBytes, depth, bytes: count * blockBytes).run()
        }
        return rows(
            "read \(blockBytes >> 20) MiB depth \(depth)", runs, conditions(load))
    }

    private func writeRows(
        _ load: FlashLoad, _ blockBytes: Int, _ depth: Int, _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        note("flash: writes of \(blockBytes >> 20) MiB, \(depth) under way")
        let count = max(depth, Self.bytesPerRun / blockBytes)
        // fio flushes after as many writes, headers counted, as our batches turn out to have.
        let trial = try load.write(blockBytes, depth: depth, count: count, sums: true, seed: 1)
        let perFlush = max(1, Int((Double(2 * count) / Double(max(1, trial.flushCount))).rounded()))
        let bytes = count * (blockBytes + 4096)
        let runs = try turns(setting.pairCount, pass: { load.checksumPass(blockBytes) }) { turn in
            try load.write(blockBytes, depth: depth, count: count, sums: true, seed: UInt64(turn + 2))
        } _: { turn in
            try load.write(blockBytes, depth: depth, count: count, sums: false, seed: UInt64(turn + 1000))
        } _: {
            try fio(load, blockBytes, depth, bytes: bytes, perFlush: perFlush).run()
        }
        return rows(
            "write \(blockBytes >> 20) MiB depth \(depth)", runs,
            conditions(load) + ", a header of 4 KiB after each block, a flush after \(perFlush) writes on both sides")
    }

    private func latencyRows(
        _ load: FlashLoad, _ blockBytes: Int, _ depth: Int, _ setting: BenchmarkSetting
    ) throws -> [BenchmarkRow] {
        note("flash: latencies of \(blockBytes >> 10) KiB, \(depth) under way")
        let count = min(2000, max(64, Self.bytesPerRun / blockBytes))
        var ours: [FlashRun] = []
        var references: [FlashRun] = []
        for turn in 0..<setting.longRunCount {
            let ourTurn = { () throws in
                ours.append(
                    try load.read(blockBytes, depth: depth, count: count, verifies: false, seed: UInt64(turn)))
            }
            if turn % 2 == 0 { try ourTurn() }
            references.append(try fio(load, blockBytes, depth, bytes: count * blockBytes).run())
            if turn % 2 == 1 { try ourTurn() }
        }
        let size = blockBytes >= 1 << 20 ? "\(blockBytes >> 20) MiB" : "\(blockBytes >> 10) KiB"
        return [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")].map { part, label in
            PairedRuns(ours: ours.map { $0.percentile(part) }, references: references.map { $0.percentile(part) }).row(
                name: "flash read \(size) depth \(depth) \(label)", unit: "µs",
                referenceName: "fio's completion latency",
                conditions: "\(count) reads a run, both mailboxes and thread switches in ours; \(conditions(load))")
        }
    }

    private func conditions(_ load: FlashLoad) -> String {
        "file of 2 GiB on \(NSTemporaryDirectory()), random blocks, transfers of 1 MiB, "
            + (load.drive.hasRegisteredBuffers ? "registered" : "unregistered")
            + " buffers on huge pages; \(FioRun.conditions)"
    }

    // MARK: Restart

    /// The scan of a million headers against fio reading the same bytes in order.
    private func scanRow(_ path: String, _ setting: BenchmarkSetting) throws -> BenchmarkRow {
        let headerCount = 1_000_000
        note("flash: restart scan of \(headerCount) headers")
        let extentBytes = 64 << 10
        let geometry = try FlashGeometry(
            totalBytes: headerCount * (extentBytes + 4096) + (256 << 10), extentBytes: extentBytes)
        try Self.writeHeaders(path, geometry)
        let device = try FlashDevice(path: path)
        let runs = try PairedRuns(count: setting.longRunCount) {
            try wallSeconds {
                var count = 0
                _ = try device.scan { event in if case .object = event { count += 1 } }
                precondition(count == geometry.extentCount, "the scan has missed headers")
            }
        } reference: {
            try Self.sequentialRead(path, geometry)
        }
        return runs.row(
            name: "flash restart scan, 1 M headers", unit: "s", referenceName: "fio reading the same bytes in order",
            conditions:
                "\(geometry.extentCount) valid headers of 4 KiB, reads of 1 MiB, 8 under way, checked one by one")
    }

    /// Seconds until fio has read the headers of all these drives, of each in order and of all at once.
    static func sequentialRead(_ paths: [String], _ geometry: FlashGeometry) throws -> Double {
        let times = Mutex<[Result<Double, any Error>]>([])
        let threads = try paths.map { path in
            try EngineThread("fio") {
                let time = Result { try sequentialRead(path, geometry) }
                times.withLock { $0.append(time) }
            }
        }
        for thread in threads { thread.join() }
        return try times.withLock { $0 }.map { try $0.get() }.max() ?? 0
    }

    /// Seconds that fio takes to read the headers in order.
    static func sequentialRead(_ path: String, _ geometry: FlashGeometry) throws -> Double {
        let bytes = geometry.extentCount * FlashGeometry.headerBytes
        var run = FioRun(
            path: path, offset: FlashGeometry.headerAreaOffset, size: bytes / (1 << 20) * (1 << 20),
            blockBytes: 1 << 20, depth: 8,
            byteCount: bytes / (1 << 20) * (1 << 20), writesPerFlush: nil)
        run.isSequential = true
        return try run.run().wall * Double(bytes) * 1e-9
    }

    /// A drive of a store whose extents are a hole in the file: only the headers are there.
    static func writeHeaders(
        _ path: String, _ geometry: FlashGeometry, drive number: Int = 0, of count: Int = 1
    ) throws {
        try Data().write(to: URL(fileURLWithPath: path))
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: UInt64(geometry.totalBytes))
        try handle.close()
        let file = try DeviceFile(path: path, access: .exclusive)
        let identity = DriveIdentity(
            drive: FlashUUID(8, UInt64(9 + number)), store: FlashUUID(1, 1), number: number, count: count)
        let pages = try PageMemory(byteCount: 1 << 20)
        let superblock = unsafe UnsafeMutableRawBufferPointer(rebasing: pages.bytes[0..<4096])
        unsafe Superblock(identity: identity, geometry: geometry).encode(into: superblock)
        for offset in FlashGeometry.superblockOffsets {
            unsafe try file.write(UnsafeRawBufferPointer(superblock), at: offset)
        }
        let perPiece = (1 << 20) / 4096
        for first in stride(from: 0, to: geometry.extentCount, by: perPiece) {
            let count = min(perPiece, geometry.extentCount - first)
            for index in 0..<count {
                let extent = UInt32(first + index)
                let object = FlashObject(
                    name: ObjectName(FullKey(mixBits(UInt64(number) << 32 | UInt64(extent)), 0, 0, 1)),
                    metadata: ObjectMetadata(),
                    namespace: 0, payloadBytes: geometry.extentBytes, checksum: 0, generation: UInt64(extent) + 1,
                    extents: ExtentList([extent]))
                let page = unsafe UnsafeMutableRawBufferPointer(
                    rebasing: pages.bytes[(index * 4096)..<((index + 1) * 4096)])
                unsafe BlockHeader.encode(object, drive: identity.drive, into: page)
            }
            unsafe try file.write(
                UnsafeRawBufferPointer(rebasing: pages.bytes[0..<(count * 4096)]),
                at: geometry.headerOffset(ofExtent: UInt32(first)))
        }
        try file.flush()
    }
}
