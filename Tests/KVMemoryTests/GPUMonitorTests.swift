// What GPUs do, by a library that stands in for NVIDIA's: two GPUs at 80 % and 20 %, one of which tells its power.

import Foundation
import KVMemory
import KVModel
import Testing

@Suite struct GPUMonitorTests {
    private static let compiler = ["/usr/bin/cc", "/usr/bin/clang", "/usr/bin/gcc"].first {
        FileManager.default.isExecutableFile(atPath: $0)
    }

    private func withLibrary(_ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("nvml-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appendingPathComponent("libnvidia-ml.so").path
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(Self.compiler))
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("nvml-stand-in.c").path
        process.arguments = ["-shared", "-fPIC", "-o", path, source]
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0)
        try body(path)
    }

    @Test(.enabled(if: compiler != nil, "no C compiler: the stand-in for the GPUs' library cannot be built"))
    func theGPUsMeanIsTold() throws {
        try withLibrary { library in
            let all = try GPUMonitor(library: library)
            #expect(all.names == ["stand-in 0", "stand-in 1"])
            let use = try #require(all.look())
            #expect(use == .init(gpus: 2, busy: 0.5, memoryBusy: 0.2, watts: 400))
            let second = try GPUMonitor(gpu: 1, library: library)
            #expect(second.names == ["stand-in 1"] && second.look()?.busy == 0.2 && second.look()?.watts == 0)
            let error = #expect(throws: OperatorError.self) { _ = try GPUMonitor(gpu: 2, library: library) }
            #expect(error?.what == "there is no such GPU: there are 2")
        }
    }

    @Test func withoutALibraryOneSentenceSaysSo() {
        let error = #expect(throws: OperatorError.self) { _ = try GPUMonitor(library: "/nonexistent/libnvidia-ml.so") }
        #expect(error?.what.hasPrefix("there is no management library of a GPU") == true)
    }
}
