// Several records side by side.

import Foundation
import KVReport
import Testing

@Suite struct ComparisonTests {
    private func better() -> Record {
        Sample.record(name: "larger").changing("1") { system in
            system.ledger.evicted -= 12_000_000
            system.ledger.flash += 12_000_000
            system.ttft.p50 = 0.45
        }.changing { $0.configuration.tiers[2].bytes = 32e12 }
    }

    @Test func gainsBetweenRecordsThatAreNotAlikeAreNotComputed() throws {
        let other = Sample.record(name: "other").changing {
            $0.trace.sha256 = Sample.hex("another trace")
            $0.prices[0].value = 4
        }
        let comparison = try Comparison([Sample.record(), other])
        #expect(!comparison.isAlike)
        #expect(comparison.comparisons[0].rule == "m.unlike")
        #expect(
            comparison.comparisons[0].sentence
                == "Record 2 is not compared with record 1: they differ in trace, prices.gpuHour.")
        #expect(comparison.page.contains("These records are not alike"))
        #expect(comparison.terminalReport().contains("not alike; gains between them are not computed"))
    }

    @Test func recordsOfOtherPricesOrSLOsAreNotAlikeHoweverLittleDiffers() throws {
        func differences(_ change: (inout Record) -> Void) throws -> [String] {
            let comparison = try Comparison([
                Sample.record(), Sample.record(name: "other").changing(change),
            ])
            return comparison.isAlike ? [] : comparison.differences.map(\.key)
        }
        #expect(try differences { $0.prices[0].value *= 1.0001 } == ["prices.gpuHour"])
        #expect(try differences { $0.configuration.slo.requiredShare = 0.99 } == ["slo"])
        #expect(try differences { $0.configuration.slo.ttftSeconds *= 1.0001 } == ["slo"])
    }

    @Test func whatDiffersBetweenRecordsThatAreAlikeIsTheExperiment() throws {
        let comparison = try Comparison([Sample.record(), better()])
        #expect(comparison.isAlike)
        #expect(comparison.differences.map(\.key) == ["tiers"])
        #expect(comparison.comparisons[0].rule == "m.better")
        let sentence = comparison.comparisons[0].sentence.replacing(thinSpace, with: " ")
        #expect(
            sentence
                == "Record 2 avoids 4 points more and starts half its requests within 0.45 s, not 0.52 s; it is the better one."
        )
    }

    @Test func recordsThatAreTheSameAreSaidToBe() throws {
        let comparison = try Comparison([Sample.record(), Sample.record(name: "again")])
        #expect(comparison.comparisons[0].rule == "m.alike")
        let worse = try Comparison([better(), Sample.record()]).comparisons[0]
        #expect(worse.rule == "m.worse")
        let mixed = try Comparison([
            better(), better().changing("1") { $0.ttft.p50 = 9 }.changing("1") { $0.ledger.hbm += 15_000_000 },
        ])
        #expect(mixed.comparisons[0].rule == "m.mixed")
    }

    @Test func baselinesAreDrawnOnceWhenTheyAreTheSame() throws {
        let same = try Comparison([Sample.record(), better()])
        guard case .stacks(let chart) = same.sections[0].figures.last?.chart else { return }
        #expect(chart.rows.compactMap(\.mark?.key) == ["A", "B", "C", "D", "E", "1", "2", "Y"])
        let other = better().changing("C") { $0.ledger.hbm += 1 }
        let differing = try Comparison([Sample.record(), other])
        guard case .stacks(let chart) = differing.sections[0].figures.last?.chart else { return }
        #expect(chart.rows.compactMap(\.mark?.key) == ["A", "B", "D", "E", "1", "2", "Y"])
        let table = differing.sections[0].figures.last?.table
        #expect(
            table?.rows.filter { $0.mark?.key == "C" }.map(\.name) == [
                "HBM + DRAM (record 1)", "HBM + DRAM (record 2)",
            ])
    }

    @Test func aBaselineThatOneRecordLacksIsStillDrawn() throws {
        let live = Sample.record(name: "live").changing { record in
            record.systems.removeAll { "ABCDE".contains($0.key) }
        }
        for records in [[Sample.record(), live], [live, Sample.record()]] {
            let comparison = try Comparison(records)
            guard case .stacks(let chart) = comparison.sections[0].figures.last?.chart else { return }
            #expect(chart.rows.compactMap(\.mark?.key) == ["A", "B", "C", "D", "E", "1", "2", "Y"])
            let owner = records[0].name == "live" ? 2 : 1
            #expect(chart.rows.first { $0.mark?.key == "C" }?.name == "HBM + DRAM (record \(owner))")
            #expect(chart.rows.last?.name == "Clairvoyant, same size")
        }
    }

    @Test func recordsOfOneNameAreToldApartByTheirFiles() throws {
        let records = [Sample.record(), Sample.record()]
        #expect(try Comparison(records).runs.map(\.name) == ["sample", "sample"])
        let files = try Comparison(records, files: ["out/before.hfr", "after.hfr"])
        #expect(files.runs.map(\.name) == ["before", "after"])
        #expect(try Comparison(records, files: ["a/x.hfr", "b/x.hfr"]).runs.map(\.name) == ["a/x.hfr", "b/x.hfr"])
        let named = [Sample.record(name: "one"), Sample.record(name: "two")]
        #expect(try Comparison(named, files: ["a.hfr", "b.hfr"]).runs.map(\.name) == ["one", "two"])
    }

    @Test func eachRecordSaysWhereItsTimesComeFrom() throws {
        let live = Sample.record(name: "live").changing {
            $0.mode = .live
            $0.live = LiveRun(machine: "two hosts", runs: 1)
        }
        let text = try Comparison([Sample.record(), live]).terminalReport(sections: .all)
            .replacing(thinSpace, with: " ")
        #expect(text.contains("1 modelled, +-11 % on mean TTFT, +-5 % on TPOT; 2 measured on two hosts"))
        #expect(text.contains(" mixed\n"))
        #expect(text.contains("1 modelled, 2 measured; first seen counted"))
        let cautions = try Comparison([Sample.record(), live]).cautions.map(\.plain)
        #expect(cautions.contains("Times of record 2 are measured."))
        let alike = try Comparison([Sample.record(), Sample.record(name: "b")]).terminalReport(sections: .all)
        #expect(!alike.contains("1 modelled") && !alike.contains("mixed"))
    }

    @Test func aRouteWithoutKnowledgeIsNotStale() throws {
        func router(_ staleness: Double) throws -> String? {
            let record = Sample.record().changing {
                $0.configuration.router = "migrating"
                $0.configuration.routerStalenessSeconds = staleness
            }
            return try Comparison([record]).sections[8].listings[0].entries.first { $0.name == "Router" }?.value
        }
        #expect(try router(0) == "migrating")
        #expect(try router(0.1)?.contains("stale") == true)
    }

    @Test func aCeilingThatIsBeatenInTimeSaysWhatItBounds() throws {
        let words = "Z bounds tokens, not times"
        #expect(try !Comparison([Sample.record()]).page.contains(words))
        let record = Sample.record().changing("E") { $0.ttft.p99 = 0.1 }
        #expect(try Comparison([record]).page.contains(words))
    }

    @Test func whatTheHeadingSaysOfPrefetchIsInItsPicture() throws {
        let record = Sample.record().changing("1") { $0.prefetch!.ttftSecondsBySecondRun = -20 }
        let section = try Comparison([record]).sections[6]
        #expect(section.conclusions[0].sentence.replacing(thinSpace, with: " ").contains("20 s less in all"))
        guard case .waterfall(let chart) = section.figures[0].chart else {
            Issue.record("no waterfall")
            return
        }
        let last = try #require(chart.steps.last)
        #expect(last.name == "net of a second run")
        #expect(last.label.replacing(thinSpace, with: " ") == "−20.0 s")
        #expect(last.fill == .again)
        #expect(chart.steps.count(where: \.isNet) == 2)
    }

    @Test func waitsTooShortForTheirDigitsAreNotSpelledOut() throws {
        let record = Sample.record().changing("1") {
            $0.prefetch!.ttftSecondsContention = -0.000_000_122
            $0.prefetch!.ttftSecondsDisplaced = 0
        }
        guard case .waterfall(let chart) = try Comparison([record]).sections[6].figures[0].chart else {
            Issue.record("no waterfall")
            return
        }
        #expect(
            chart.steps.map { $0.label.replacing(thinSpace, with: " ") } == ["+3,940 s", "0 s", "−<0.01 s", "+3,940 s"])
    }

    @Test func measuredPairsNameNoWinnerUnlessTheIntervalDoes() throws {
        func gain(_ low: Double, _ high: Double, pairs: Int = 15) throws -> String {
            let record = Sample.record().changing {
                $0.mode = .live
                $0.live = LiveRun(
                    machine: "two hosts", runs: 15,
                    pairs: [PairedRatio(figure: "ttftP50", pairs: pairs, median: 0.5, low: low, high: high)])
            }
            let summary = try Comparison([record]).runs[0].summary
            #expect(summary.first { $0.key == "ttftP50" }?.provenance == .measured)
            return summary.first { $0.key == "ttftP50" }!.gain
        }
        #expect(try gain(0.4, 0.6) == "× 0.500 [0.400, 0.600]")
        #expect(try gain(0.4, 1.1) == "alike [0.400, 1.10]")
        #expect(try gain(0.4, 0.6, pairs: 3) == "3 pairs: too few")
    }

    @Test func jsonHoldsAllRecordsAndItsKeysInOrder() throws {
        let text = try Comparison([Sample.record(), better()]).jsonReport
        let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as! [String: Any]
        #expect((object["records"] as? [Any])?.count == 2)
        let keys = ["\"schema\"", "\"holdfast\"", "\"alike\"", "\"differences\"", "\"reference\"", "\"records\""]
        let places = keys.map { text.range(of: $0)!.lowerBound }
        #expect(places == places.sorted())
        let summary = text.range(of: "\"summary\"")!.upperBound
        let figures = [
            "tokensAvoided", "ttftP50", "ttftP99", "goodput", "usefulShareOfBusy", "costPerMillionTokensSameSLO",
            "costPerMillionTokensSameGPUs", "energyPerMillionTokens", "breakEvenSessionsPerGPU",
        ]
        let order = figures.map { text.range(of: "\"\($0)\": {", range: summary..<text.endIndex)!.lowerBound }
        #expect(order == order.sorted())
        #expect(!text.contains("null"))
        #expect(!text.contains(thinSpace))
    }

    @Test func sensitivitiesAreArithmeticOnTheRecord() throws {
        let rows = try Comparison([Sample.record()]).sections[3].tables[0].rows
        let cells = Dictionary(uniqueKeysWithValues: rows.map { ($0.name.replacing(thinSpace, with: " "), $0.cells) })
        // 16 GPUs × $3 × 2 h = $96 and $11 for storage and switches, over 306 M tokens.
        #expect(cells["as given"]?[0] == "$0.350")
        #expect(cells["GPU price halved ($1.50)"]?[0] == "$0.193")  // (48 + 11) ÷ 306
        #expect(cells["storage price doubled ($10.00)"]?[0] == "$0.382")  // (96 + 20 + 1) ÷ 306
        #expect(cells["TTFT 11 % worse than modelled"]?[0] == "$0.507")  // 24 GPUs
        #expect(cells["half the reuse: GPUs half-way to no cache"]?[0] == "$0.977")  // (16 + 80) ÷ 2 = 48 GPUs
        var unmet = Sample.record()
        unmet.sloSearch[0].gpus = nil
        unmet.sloSearch[0].cost = nil
        let half = try Comparison([unmet]).sections[3].tables[0].rows.first { $0.name.hasPrefix("half the reuse") }
        // No cluster is enough without a cache, and the largest tried is as large.
        #expect(half?.name == "half the reuse: GPUs half-way to no cache, which needs over 80")
        #expect(half?.cells == ["over $0.977", "over $1.10", ""])
        unmet.sloSearch.removeFirst()
        let none = try Comparison([unmet]).sections[3].tables[0].rows.first { $0.name.hasPrefix("half the reuse") }
        #expect(none?.cells == ["A not tried", "", ""])
        // (0.30 + 0.9 ÷ 12 + 0.0024) ÷ 0.9
        #expect(cells["half the sessions (12 per GPU), same GPUs, within the SLO"]?[0] == "$0.419")
    }
}
