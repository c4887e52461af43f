// libCacheSim's LRU in a process of its own, timed there around its C loop, one run for each line it is sent.

import Foundation
import KVModel
import KVTrace

/// A running libCacheSim with one trace and one cache size.
final class LibCacheSim {
    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()
    private let file: URL

    /// Writes the trace's block references, each request's deepest first, as an oracleGeneral file and starts Python.
    init(trace: Trace, capacity: Int, python: String) throws {
        file = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString).bin")
        try Self.write(trace, to: file)
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "libcachesim_lru.py")
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [python, script.path, file.path, String(capacity)]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
    }

    deinit {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
        try? FileManager.default.removeItem(at: file)
    }

    /// One replay by an empty cache: seconds in the C loop, and the share of references that missed.
    func run() throws -> (seconds: Double, missRatio: Double) {
        try input.fileHandleForWriting.write(contentsOf: Data("run\n".utf8))
        var line = ""
        while !line.hasSuffix("\n") {
            let data = output.fileHandleForReading.availableData
            if data.isEmpty {
                throw OperatorError(
                    "libCacheSim ended before it answered",
                    remedy: "see its message above, or `pip install libcachesim`")
            }
            line += String(decoding: data, as: UTF8.self)
        }
        let fields = line.split(separator: " ").compactMap { Double($0.trimmingCharacters(in: .newlines)) }
        guard fields.count == 2 else { throw OperatorError("libCacheSim answered '\(line)'") }
        return (fields[0], fields[1])
    }

    /// Records of 24 bytes, packed: time (4), object (8), size (4), next access (8, not used by LRU).
    private static func write(_ trace: Trace, to file: URL) throws {
        _ = FileManager.default.createFile(atPath: file.path, contents: nil)
        let handle = try FileHandle(forWritingTo: file)
        var bytes: [UInt8] = []
        for request in trace.requests {
            for block in trace.path(of: request).reversed() {
                let object = UInt64(block) + 1
                bytes += [0, 0, 0, 0]
                for shift in stride(from: 0, to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: object >> shift)) }
                bytes += [1, 0, 0, 0]
                bytes += [255, 255, 255, 255, 255, 255, 255, 255]
            }
            if bytes.count > 16 << 20 {
                try handle.write(contentsOf: Data(bytes))
                bytes.removeAll(keepingCapacity: true)
            }
        }
        try handle.write(contentsOf: Data(bytes))
        try handle.close()
    }
}
