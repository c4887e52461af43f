// Records as files: the same bytes every time, and one clear error for everything that is not one.

import Foundation
import KVModel
import KVReport
import Testing

@Suite struct RecordFileTests {
    private func reading(_ text: String) -> String {
        do {
            _ = try Record(decoding: [UInt8](text.utf8), at: "some.hfr")
            return "read"
        } catch {
            return "\(error)"
        }
    }

    private func damaged(_ change: (inout Record) -> Void) throws -> String {
        let bytes = try Sample.record().changing(change).encoded()
        return reading(String(decoding: bytes, as: UTF8.self))
    }

    @Test func aRecordReadsBackAsItWasWritten() throws {
        let record = Sample.record().changing {
            $0.live = LiveRun(
                machine: "two hosts", runs: 15,
                pairs: [PairedRatio(figure: "ttftP50", pairs: 15, median: 0.5, low: 0.4, high: 0.6)])
        }
        let bytes = try record.encoded()
        #expect(try Record(decoding: bytes, at: "a.hfr") == record)
        #expect(try Record(decoding: bytes, at: "a.hfr").encoded() == bytes)
        #expect(record.digest.count == 64)
    }

    @Test func whatIsNotARecordIsRefusedWithItsReason() throws {
        #expect(reading("") == "some.hfr: the file is empty, not a record; make it again with `holdfast replay -o`")
        #expect(reading("{\"schema\"").contains("some.hfr: not a record: it is not valid JSON"))
        #expect(reading("[1, 2]").contains("the top level has the wrong type"))
        #expect(reading("{}").contains("its schema is missing"))
        #expect(reading("{\"schema\": \"vllm-trace\"}").contains("its schema is \"vllm-trace\""))
        let newer = reading("{\"schema\": \"holdfast-record-2\"}")
        #expect(
            newer.contains(
                "schema holdfast-record-2, this version reads holdfast-record-1; use the version of Holdfast"))
        #expect(reading("{\"schema\": \"holdfast-record-1\"}").contains("damaged record: the top level lacks"))
    }

    @Test func aTruncatedRecordIsRefusedAtEveryLength() throws {
        let bytes = try Sample.record().encoded()
        for length in stride(from: 0, to: bytes.count - 2, by: 997) {
            #expect(throws: OperatorError.self) { try Record(decoding: Array(bytes.prefix(length)), at: "cut.hfr") }
        }
    }

    @Test func aRecordWhosePartsContradictIsRefused() throws {
        #expect(try damaged { $0.systems.removeAll { $0.key == "1" } }.contains("systems lacks key \"1\""))
        #expect(try damaged { $0.systems.append($0.systems[0]) }.contains("two systems have the same key"))
        #expect(try damaged { $0 = $0.changing("C") { $0.ledger.evicted = -1 } }.contains("system C: a token count"))
        #expect(
            try damaged { $0 = $0.changing("C") { $0.ttft.cdf = [[2, 0.5], [1, 0.6]] } }.contains("rising pairs"))
        #expect(try damaged { $0 = $0.changing("C") { $0.ttft.cdf = [[2]] } }.contains("rising pairs"))
        #expect(try damaged { $0 = $0.changing("C") { $0.gpuSeconds.idle = -1 } }.contains("GPU time below 0"))
        #expect(try damaged { $0.missRatioCurve!.policies["lru"] = [0.5] }.contains("missRatioCurve"))
        #expect(try damaged { $0.loadSweep!.sessionsPerGPU.reverse() }.contains("loadSweep"))
        #expect(try damaged { $0.configuration.gpus = 0 }.contains("no GPUs"))
    }

    /// One number of the file at a time is replaced by an extreme one: the record is refused, or every form prints.
    @Test func noNumberInARecordCanStopAReport() throws {
        let text = Array(try Sample.record().encoded())
        func isDigit(_ byte: UInt8) -> Bool { (48...57).contains(byte) || byte == 46 }
        // Numbers that are values: they follow a colon, a comma or a bracket.
        let starts = text.indices.dropFirst().filter {
            isDigit(text[$0]) && [58, 44, 91].contains(text[$0 - 1])
        }
        let extremes = ["0", "-1", "1e308", "1e-308", "9007199254740992", "-4.5e15", "4611686018427387904"]
        var random = RandomSource(seed: 20)
        for _ in 0..<120 {
            let start = starts[random.below(starts.count)]
            let end = text[start...].firstIndex { !isDigit($0) && $0 != 101 && $0 != 45 } ?? text.endIndex
            let extreme = extremes[random.below(extremes.count)]
            let changed = Array(text[..<start]) + Array(extreme.utf8) + Array(text[end...])
            guard let record = try? Record(decoding: changed, at: "bent.hfr") else { continue }
            let comparison = try Comparison([record])
            #expect(comparison.page.utf8.count > 50_000)
            #expect(comparison.jsonReport.utf8.count > 10_000)
            #expect(comparison.terminalReport(sections: .all).utf8.count > 2_000)
        }
    }

    /// Figures that no machine has, and that a file may hold all the same: each is shown, and ends nothing.
    @Test(arguments: 0..<5) func absurdFiguresAreShown(which: Int) throws {
        let bent = Sample.record().changing { record in
            switch which {
            // One part of the time is far more than the whole.
            case 0: for key in ["1", "C"] { record = record.changing(key) { $0.gpuSeconds.idle = 1e300 } }
            case 1: record = record.changing("C") { $0.gpuSeconds.total = 1e-300 }
            // More tokens in and out than can be added.
            case 2: (record.trace.inputTokens, record.trace.outputTokens) = (.max, .max)
            // What has no opposite.
            case 3: (record.trace.uniqueBlocks, record.trace.blockReferences) = (.min, .min)
            default: record.trace.sessions = .min
            }
        }
        let record = try Record(decoding: try bent.encoded(), at: "bent.hfr")
        let comparison = try Comparison([record])
        #expect(comparison.page.utf8.count > 50_000)
        #expect(comparison.jsonReport.utf8.count > 10_000)
        for width in [60, 100] {
            let text = comparison.terminalReport(width: width, sections: .all)
            #expect(text.utf8.count > 2_000)
            #expect(text.split(separator: "\n").allSatisfy { $0.count <= width })
            if which > 2 { #expect(text.contains("9,223,372,036,854,775,808")) }
        }
    }

    @Test func theReferenceMustBeABaselineThatTheRecordHas() throws {
        func refusal(_ key: String) -> String {
            do {
                _ = try Comparison([Sample.record()], against: key)
                return "accepted"
            } catch {
                return "\(error)"
            }
        }
        #expect(refusal("A").contains("never the reference"))
        #expect(refusal("Q").contains("choose one of B, C, D, E"))
        #expect(refusal("Z").contains("no baseline Z"))
        #expect(refusal("D") == "accepted")
    }

    @Test func gainsAreStatedAgainstTheReferenceAskedFor() throws {
        let summary = try Comparison([Sample.record()], against: "E").runs[0].summary
        #expect(summary[0].gain == "+8 points")
        #expect(summary[0].reference?.number == 0.52)
    }
}
