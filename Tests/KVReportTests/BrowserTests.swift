// The page in a real browser, at every width, light, dark and on paper: Tools/check-page looks for everything a reader
// could stumble over.

import Foundation
import KVReport
import Testing

private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

private func isThere(_ command: String) -> Bool {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").contains {
        FileManager.default.isExecutableFile(atPath: "\($0)/\(command)")
    }
}

@Suite struct BrowserTests {
    @Test(.enabled(if: isThere("python3") && isThere("chromium"), "needs python3 and chromium: Tools/install --tests"))
    func pagesAreFlawlessInABrowser() throws {
        let long = String(repeating: "a-rather-long-name-without-a-space", count: 4)
        let crowded = Sample.record(name: long).changing {
            $0.trace.name = long
            $0.configuration.command = "holdfast replay \(long)"
            $0.loadSweep!.traceRunsAt = 14
            $0.missRatioCurve!.marks[1].bytes = 1.1e12
        }
        let four = (1...4).map { Sample.record(name: "record \($0)") }
        #expect(try faults(in: [[Sample.record()], [crowded]]) == "")
        #expect(try faults(in: [four], pagesMax: 28) == "")
    }

    /// What the browser check says about the pages of some records; empty when it finds nothing.
    private func faults(in pages: [[Record]], pagesMax: Int = 16) throws -> String {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-page-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        var arguments = ["python3", root.appendingPathComponent("Tools/check-page").path, "--pages-max", "\(pagesMax)"]
        for (index, records) in pages.enumerated() {
            let file = folder.appendingPathComponent("\(index).html")
            try Data(try Comparison(records).page.utf8).write(to: file)
            arguments.append(file.path)
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        let output = folder.appendingPathComponent("output")
        try Data().write(to: output)
        process.standardOutput = try FileHandle(forWritingTo: output)
        try process.run()
        process.waitUntilExit()
        let said = try String(contentsOf: output, encoding: .utf8)
        return process.terminationStatus == 0 ? "" : said + " (exit code \(process.terminationStatus))"
    }
}
