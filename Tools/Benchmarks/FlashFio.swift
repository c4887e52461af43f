// The reference of the flash benchmark: fio with the same engine, flags, file and buffers.

import Foundation
import KVModel

/// One run of fio over the extents of a drive's file.
struct FioRun {
    var path: String
    var offset: Int
    var size: Int
    var blockBytes: Int
    var depth: Int
    var byteCount: Int
    /// Nil for reads. For writes: each block is followed by a header's 4 KiB, and after so many writes by a flush.
    var writesPerFlush: Int?
    var isSequential = false

    /// What a person needs to know about how it ran.
    static let conditions =
        "fio io_uring, direct, fixed buffers, registered file, transparent huge pages (glibc.malloc.hugetlb=1)"

    func run() throws -> FlashRun {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments =
            [
                "fio", "--name=flash", "--filename=\(path)", "--offset=\(offset)", "--size=\(size)",
                "--iodepth=\(depth)", "--io_size=\(byteCount)", "--direct=1", "--ioengine=io_uring", "--fixedbufs",
                "--registerfiles", "--randrepeat=0", "--norandommap", "--output-format=json",
            ] + kindArguments
        var environment = ProcessInfo.processInfo.environment
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        process.environment = environment
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0,
            let root = try JSONSerialization.jsonObject(with: data) as? [String: Any],
            let job = (root["jobs"] as? [[String: Any]])?.first,
            let side = job[writesPerFlush == nil ? "read" : "write"] as? [String: Any],
            let bandwidth = (side["bw_bytes"] as? NSNumber)?.doubleValue,
            let moved = (side["io_bytes"] as? NSNumber)?.doubleValue,
            let runtime = (job["job_runtime"] as? NSNumber)?.doubleValue,
            let user = (job["usr_cpu"] as? NSNumber)?.doubleValue,
            let system = (job["sys_cpu"] as? NSNumber)?.doubleValue
        else { throw BenchmarkFailure(what: "fio did not run; it is needed as the reference (package fio)") }
        return FlashRun(
            wall: 1e9 / bandwidth, processor: (user + system) / 100 * runtime / 1000 / (moved * 1e-9),
            latencies: percentiles(side))
    }

    private var kindArguments: [String] {
        guard let writesPerFlush else { return ["--rw=\(isSequential ? "read" : "randread")", "--bs=\(blockBytes)"] }
        return [
            "--rw=randwrite", "--bssplit=\(blockBytes)/50:4096/50", "--blockalign=4096",
            "--fdatasync=\(writesPerFlush)",
        ]
    }

    /// A thousand values with fio's percentiles at their places.
    private func percentiles(_ side: [String: Any]) -> [Duration] {
        let latency = side["clat_ns"] as? [String: Any]
        guard let table = latency?["percentile"] as? [String: NSNumber] else { return [] }
        let points = table.compactMap { key, value in Double(key).map { ($0, value.int64Value) } }.sorted {
            $0.0 < $1.0
        }
        return (0..<1000).map { index in
            let part = Double(index) / 10
            return Duration(nanoseconds: points.first { $0.0 >= part }?.1 ?? points.last?.1 ?? 0)
        }
    }
}
