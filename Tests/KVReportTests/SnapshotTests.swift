// What people read, kept as files in Tests/Snapshots. An update is a reviewed diff: run the tests with
// HOLDFAST_UPDATE_SNAPSHOTS=1 and look at what changed.

import Foundation
import KVReport
import Testing

@Suite struct SnapshotTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Snapshots")

    private func expect(_ text: String, toBe name: String) throws {
        let file = SnapshotTests.folder.appendingPathComponent(name)
        if ProcessInfo.processInfo.environment["HOLDFAST_UPDATE_SNAPSHOTS"] != nil {
            try Data(text.utf8).write(to: file)
            return
        }
        let kept = try String(contentsOf: file, encoding: .utf8)
        guard kept != text else { return }
        let (old, new) = (
            kept.split(separator: "\n", omittingEmptySubsequences: false),
            text.split(separator: "\n", omittingEmptySubsequences: false)
        )
        let line =
            zip(old, new).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? min(old.count, new.count)
        let (was, now) = (line < old.count ? old[line] : "", line < new.count ? new[line] : "")
        Issue.record("\(name) differs at line \(line + 1):\nwas \(was.prefix(300))\nnow \(now.prefix(300))")
    }

    private func comparison() throws -> Comparison { try Comparison([Sample.record()]) }

    @Test func terminalAt100Columns() throws {
        try expect(comparison().terminalReport(sections: .all, file: "sample.hfr"), toBe: "report-100.txt")
    }

    @Test func terminalAt100ColumnsInColour() throws {
        try expect(comparison().terminalReport(colour: true, file: "sample.hfr"), toBe: "report-100-colour.txt")
    }

    @Test func terminalAt60Columns() throws {
        try expect(comparison().terminalReport(width: 60, file: "sample.hfr"), toBe: "report-60.txt")
    }

    @Test func terminalAt60ColumnsInColour() throws {
        try expect(
            comparison().terminalReport(width: 60, colour: true, file: "sample.hfr"), toBe: "report-60-colour.txt")
    }

    @Test func json() throws { try expect(comparison().jsonReport, toBe: "report.json") }

    @Test func page() throws { try expect(comparison().page, toBe: "report.html") }

    @Test func noLineIsWiderThanTheTerminalOrBeyondASCII() throws {
        for records in [[Sample.record()], [Sample.record(), Sample.record(name: "a record with quite a long name")]] {
            let comparison = try Comparison(records)
            for width in [20, 40, 59, 60, 61, 72, 80, 99, 100, 200] {
                for sections in [SectionChoice.standard, .all] {
                    let text = comparison.terminalReport(width: width, sections: sections)
                    for line in text.split(separator: "\n") {
                        #expect(line.count <= min(width, 100), "\(width): \(line)")
                        #expect(line.allSatisfy { $0.isASCII })
                        #expect(!line.hasSuffix(" "))
                    }
                }
            }
        }
    }

    @Test func colourOnlyRepeatsWhatTheCharactersSay() throws {
        let comparison = try comparison()
        let coloured = comparison.terminalReport(colour: true, sections: .all)
        #expect(coloured.replacing(/\u{1B}\[[0-9]+m/, with: "") == comparison.terminalReport(sections: .all))
    }

    @Test func narrowTerminalsGetVerdictAndFigures() throws {
        let text = try comparison().terminalReport(width: 59)
        #expect(text.contains("Holdfast avoids 60 %"))
        #expect(text.contains("TTFT p50"))
        #expect(!text.contains("Where did each prompt token"))
    }

    @Test func oneQuestionCanBeAskedAlone() throws {
        let text = try comparison().terminalReport(sections: .only([7]))
        #expect(text.hasPrefix("7  Did prefetch pay?"))
        #expect(!text.contains("8  Were the links"))
    }
}
