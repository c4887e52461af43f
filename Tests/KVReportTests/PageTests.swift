// The page as text: what is in it, what must never be in it, and that its drawings add up.

import Foundation
import KVReport
import Testing

@Suite struct PageTests {
    private func page(_ records: [Record]) throws -> String { try Comparison(records).page }

    private func attributes(_ name: String, in page: String) -> [String] {
        page.components(separatedBy: " \(name)=\"").dropFirst().map { String($0.prefix { $0 != "\"" }) }
    }

    @Test func thePageNeedsNoScriptAndNoNetwork() throws {
        let page = try page([Sample.record()])
        #expect(page.contains("default-src 'none'; style-src 'unsafe-inline'"))
        for forbidden in ["<script", "http:", "https:", "@import", "url(", "onload", "onclick", "javascript:"] {
            let isThere = page.contains(forbidden)
            #expect(!isThere, "the page holds \(forbidden)")
        }
    }

    @Test func namesFromStrangersAreText() throws {
        let hostile = "<script>alert(\"x\")</script>&'\u{1}\u{1B}[31m"
        let record = Sample.record().changing {
            $0.name = hostile
            $0.trace.name = hostile
            $0.configuration.command = hostile
            $0.configuration.overrides = [hostile: hostile]
            $0.checks[0].name = hostile
            $0 = $0.changing("1") { $0.links[0].name = hostile }
        }
        let page = try page([record, Sample.record()])
        #expect(!page.contains("<script>"))
        #expect(page.contains("&lt;script&gt;"))
        let terminal = try Comparison([record]).terminalReport(sections: .all)
        #expect(!terminal.contains("\u{1B}"))
        #expect(!terminal.contains("\u{1}"))
        let json = try Comparison([record]).jsonReport
        _ = try JSONSerialization.jsonObject(with: Data(json.utf8))
    }

    @Test func elementsAreClosedInOrder() throws {
        let void: Set = ["meta", "link", "input", "br", "!doctype"]
        var open: [String] = []
        // No text and no attribute holds a bare angle bracket, so each one is a tag's.
        for piece in try page([Sample.record(), Sample.record(name: "two")]).utf8.split(separator: UInt8(ascii: "<")) {
            let tag = String(decoding: piece.prefix { $0 != UInt8(ascii: ">") }, as: UTF8.self)
            let name = tag.prefix { $0 != " " && $0 != "\n" }
            if name.hasPrefix("/") {
                let last = open.popLast() ?? "nothing"
                #expect(last == name.dropFirst(), "<\(name)> closes \(last)")
            } else if !void.contains(String(name)), !tag.hasSuffix("/") {
                open.append(String(name))
            }
        }
        #expect(open.isEmpty)
    }

    @Test func identifiersAreUniqueAndLinksLeadToThem() throws {
        let page = try page([Sample.record()])
        let identifiers = attributes("id", in: page)
        #expect(Set(identifiers).count == identifiers.count)
        for target in attributes("href", in: page) where target.hasPrefix("#") {
            #expect(identifiers.contains(String(target.dropFirst())), "\(target) leads nowhere")
        }
        for label in attributes("aria-labelledby", in: page) { #expect(identifiers.contains(label)) }
    }

    @Test func everyChartSaysItselfInWordsAndHasATable() throws {
        let comparison = try Comparison([Sample.record()])
        for section in comparison.sections {
            for figure in section.figures {
                let words = figure.chart.textAlternative
                #expect(words.count > 40 && words.hasSuffix("."), "\(figure.title): \(words)")
                #expect(words.contains { $0.isNumber })
            }
            if !section.figures.isEmpty {
                #expect(
                    section.figures.contains { $0.table != nil } || !section.tables.isEmpty,
                    "\(section.id) has no table")
            }
            for table in section.figures.compactMap(\.table) + section.tables {
                for row in table.rows { #expect(row.cells.count == table.columns.count, "\(table.title), \(row.name)") }
            }
        }
    }

    @Test func drawnSegmentsAddUpToTheLedger() throws {
        let comparison = try Comparison([Sample.record()])
        let tokens = comparison.sections[0]
        for figure in tokens.figures {
            switch figure.chart {
            case .stacks(let chart):
                for row in chart.rows { #expect(abs(row.total - 1) < 1e-9, "\(row.name)") }
            case .breakdown(let chart):
                #expect(abs(chart.parts.map(\.share).reduce(0, +) - 1) < 1e-9)
                let causes = chart.causes.map(\.share).reduce(0, +)
                #expect(abs(causes - chart.parts[chart.unfolded].share) < 1e-9)
                #expect(chart.causes.count == 9, "a cause of 0 is listed too")
            default: break
            }
        }
        guard case .stacks(let gpu) = comparison.sections[2].figures[0].chart else { throw Missing() }
        for row in gpu.rows {
            let key = row.mark!.key
            let total = Sample.systems.first { $0.key == key }!.gpuSeconds.total
            #expect(abs(row.total - total) < 1e-6 * total)
        }
    }

    private struct Missing: Error {}

    @Test func aMarkAtTheStartOfABarStaysInIt() throws {
        let nothing = Sample.ledger([0, 0, 0, 0, 0, 0, 0, 720])
        let record = Sample.record().changing("C") { $0.ledger = nothing }.changing("Z") { $0.ledger = nothing }
        let page = try Comparison([record]).page
        #expect(page.contains("<u style=\"left:max(0%,2px)\">"))
        #expect(page.contains("<s style=\"left:max(0%,2px)\">"))
        #expect(page.contains("class=\"mark\" style=\"left:max(0%,2px)\""))
    }

    @Test func thePageKeepsItsSize() throws {
        let one = Sample.record().changing("1") { system in
            system.links = (0..<8).map { index in
                LinkResult(
                    name: "link \(index)", lineRate: 25e9, practical: 20e9, mean: 2e9, p99Second: 19e9,
                    timeAtLimit: 0.01, bytes: 1e13,
                    series: (0..<240).map { Double($0) * 1e8 / 3 }, peaks: (0..<240).map { Double($0) * 1e8 / 2.7 })
            }
        }
        #expect(try page([one]).utf8.count <= 150_000)
        let four = (1...4).map { one.changing { [name = "record \($0)"] in $0.name = name } }
        #expect(try page(four).utf8.count <= 400_000)
    }

    @Test func distributionsAreDrawnWithAtMost200PointsAndExactPercentiles() throws {
        let record = Sample.record().changing("1") {
            $0.ttft = Sample.distribution(median: 0.52, spread: 10, points: 5_000)
        }
        guard case .lines(let chart) = try Comparison([record]).sections[1].figures[0].chart else { throw Missing() }
        let own = chart.series.first { $0.mark?.key == "1" }!
        #expect(own.points.count <= 200)
        #expect(own.points.contains { $0.x == 0.52 && abs($0.y - 0.5) < 0.001 })
        #expect(own.points.contains { $0.x == 2 })
        #expect(zip(own.points, own.points.dropFirst()).allSatisfy { $0.x <= $1.x && $0.y <= $1.y })
    }
}
