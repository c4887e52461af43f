// `report --agent --html`: an agent's report as one page that needs nothing else: the tables of the terminal, and each minute drawn.

import Foundation
import KVAgent
import KVReport

extension AgentReport {
    /// The page.
    var page: String {
        let tables = sections.map { section in
            let rows = section.figures.map {
                "<tr><th scope=\"row\">\(escaped($0.name))</th><td class=\"n\">\(escaped(Self.text($0)))</td>"
                    + "<td>\(escaped($0.source))</td></tr>"
            }
            return "<section><h2>\(escaped(section.title))</h2>\(chart(for: section.title))"
                + "<table>\(rows.joined())</table></section>"
        }
        let left = missing.map { "<li>\(escaped($0))</li>" }.joined()
        return """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
            <title>Holdfast agent</title><style>\(Self.style)</style></head><body><main>
            <h1>Holdfast agent</h1>
            <p>\(escaped(status.socket)), \(escaped(status.state)), \(status.engines.count) engines: \(escaped(span)).</p>
            \(tables.joined(separator: "\n"))
            \(left.isEmpty ? "" : "<section><h2>Left out</h2><ul>\(left)</ul></section>")
            </main></body></html>

            """
    }

    private static var style: String {
        func variables(_ colour: (Colour) -> String) -> String {
            let named = [
                ("paper", Palette.paper), ("ink", Palette.ink), ("soft", Palette.soft), ("rule", Palette.rule),
                ("hbm", Palette.paint(.hbm).fill), ("dram", Palette.paint(.dram).fill),
                ("nvme", Palette.paint(.nvme).fill), ("flash", Palette.paint(.flash).fill),
                ("computed", Palette.paint(.context).fill), ("p50", Palette.runs[0]), ("p99", Palette.runs[1]),
            ]
            return named.map { "--\($0.0):\(colour($0.1))" }.joined(separator: ";")
        }
        return """
            :root{\(variables(\.light))}
            @media (prefers-color-scheme:dark){:root{\(variables(\.dark))}}
            body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;
            font-variant-numeric:tabular-nums}
            main{max-width:900px;margin:0 auto;padding:24px}
            table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:4px 12px 4px 0;font-weight:400;
            border-bottom:1px solid var(--rule)}td.n{font-weight:600;white-space:nowrap}td:last-child{color:var(--soft)}
            svg{width:100%;height:auto;display:block;margin:8px 0}figcaption{color:var(--soft);font-size:14px}figure{margin:0}
            i{display:inline-block;width:.7em;height:.7em;margin:0 .3em 0 .8em}
            """
    }

    private func chart(for title: String) -> String {
        guard record.minutes.count > 1 else { return "" }
        switch title {
        case "Where prompt tokens came from": return tokensChart
        case "Time to first token": return firstTokenChart
        default: return ""
        }
    }

    private static let size = (width: 860.0, height: 160.0)

    /// Where a minute lies: the beginning of the span left, its end right.
    private func place(of minute: AgentRecord.Minute) -> (x: Double, width: Double) {
        let scale = Self.size.width / max(1, record.spanSeconds)
        let start = record.spanSeconds - minute.endSecondsAgo - minute.seconds
        return (start * scale, minute.seconds * scale)
    }

    private func number(_ value: Double) -> String { String(format: "%.1f", value) }

    /// Each minute's tokens, stacked by where they came from.
    private var tokensChart: String {
        let served = ["hbm", "dram", "nvme", "flash"]
        func rate(_ minute: AgentRecord.Minute) -> Double {
            Double(minute.tokens.values.reduce(0, +)) / max(1, minute.seconds)
        }
        let most = record.minutes.map(rate).max() ?? 0
        guard most > 0 else { return "" }
        var bars = ""
        for minute in record.minutes {
            let (x, width) = place(of: minute)
            let all = minute.tokens.values.reduce(0, +)
            var parts = served.map { ($0, minute.tokens[$0] ?? 0) }
            parts.append(("computed", all - parts.reduce(0) { $0 + $1.1 }))
            var top = Self.size.height
            for (name, tokens) in parts where tokens > 0 {
                let height = Double(tokens) / max(1, minute.seconds) / most * Self.size.height
                top -= height
                bars +=
                    "<rect x=\"\(number(x))\" y=\"\(number(top))\" width=\"\(number(max(0.5, width - 0.3)))\" "
                    + "height=\"\(number(height))\" fill=\"var(--\(name))\"/>"
            }
        }
        let legend = zip(served + ["computed"], ["HBM", "node memory", "local flash", "the store", "computed"])
            .map { "<i style=\"background:var(--\($0))\"></i>\($1)" }.joined()
        return figure(
            bars, "Prompt tokens a second, minute by minute; the highest is \(Int(most.rounded())).\(legend)",
            "Prompt tokens by where they came from")
    }

    /// Each minute's median and 99th percentile.
    private var firstTokenChart: String {
        let most = record.minutes.compactMap(\.firstTokenP99).max() ?? 0
        guard most > 0 else { return "" }
        func dots(_ name: String, _ value: (AgentRecord.Minute) -> Double?) -> String {
            record.minutes.compactMap { minute in
                guard let seconds = value(minute) else { return nil }
                let (x, width) = place(of: minute)
                let y = Self.size.height - seconds / most * (Self.size.height - 6) - 3
                return "<circle cx=\"\(number(x + width / 2))\" cy=\"\(number(y))\" r=\"2.5\" fill=\"var(--\(name))\"/>"
            }.joined()
        }
        let top = Self.text(Figure(name: "", value: most, unit: "s", share: nil, source: ""))
        return figure(
            dots("p50") { $0.firstTokenP50 } + dots("p99") { $0.firstTokenP99 },
            "Each minute's <i style=\"background:var(--p50)\"></i>p50 and <i style=\"background:var(--p99)\"></i>p99, as engines "
                + "told them; the highest is \(top).", "Time to first token, minute by minute")
    }

    private func figure(_ marks: String, _ caption: String, _ name: String) -> String {
        "<figure><svg viewBox=\"0 0 \(Int(Self.size.width)) \(Int(Self.size.height))\" role=\"img\" aria-label=\"\(name)\">"
            + "<line x1=\"0\" x2=\"\(Int(Self.size.width))\" y1=\"\(Self.size.height)\" y2=\"\(Self.size.height)\" "
            + "stroke=\"var(--rule)\"/>\(marks)</svg><figcaption>\(caption)</figcaption></figure>"
    }

    private func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
    }
}
