// Pages of records that the command itself made, in a real browser: invented records are tidier than replayed ones.

import Foundation
import Testing

private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

private func isThere(_ command: String) -> Bool {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").contains {
        FileManager.default.isExecutableFile(atPath: "\($0)/\(command)")
    }
}

@Suite struct ReplayedPageTests {
    @Test(.enabled(if: isThere("python3") && isThere("chromium"), "needs python3 and chromium: Tools/install --tests"))
    func replayedRecordsMakeFlawlessPages() throws {
        let scratch = try Scratch()
        let trace = root.appendingPathComponent("Traces/templates.jsonl.gz").path
        var records: [String] = []
        let changes: [(String, [String])] = [("roomy", []), ("small", ["--set", "tiers.dram.perNode=50GB"])]
        for (name, more) in changes {
            let record = scratch.folder.appendingPathComponent("\(name).hfr").path
            let run = try CommandRun.holdfast(["replay", trace, "-o", record] + more, seconds: 300)
            try #require(run.exitCode == 0, "\(run.errors)")
            records.append(record)
        }
        let pages = ["one", "two"].map { scratch.folder.appendingPathComponent("\($0).html").path }
        for (page, shown) in zip(pages, [[records[0]], records]) {
            let run = try CommandRun.holdfast(["report"] + shown + ["--html", page])
            try #require(run.exitCode == 0, "\(run.errors)")
        }
        // Both records are of the scenario `default`: their files tell them apart.
        let both = try String(contentsOfFile: pages[1], encoding: .utf8)
        #expect(both.contains("roomy") && both.contains("small"))
        let check = Process()
        check.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        check.arguments =
            ["python3", root.appendingPathComponent("Tools/check-page").path, "--pages-max", "20"] + pages
        let output = try scratch.file("output", Data())
        check.standardOutput = try FileHandle(forWritingTo: output)
        try check.run()
        check.waitUntilExit()
        let said = try String(contentsOf: output, encoding: .utf8)
        #expect(check.terminationStatus == 0, "\(said)")
    }
}
