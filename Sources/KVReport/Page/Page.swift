// The page: one file, no script, no network. Works in a mail attachment, on a phone, on paper, and in ten years.

extension Comparison {
    /// The report as one self-contained HTML page, for at most four records.
    public var page: String {
        let title = "Holdfast report: \(runs.map(\.record.name).joined(separator: ", "))"
        let sections = sections
        let parts: [(title: String, numbers: ClosedRange<Int>)] = [
            ("What you got", 1...3), ("What it is worth, and what to change", 4...6),
            ("What moved, and why believe it", 7...9),
        ]
        let body = parts.map { part -> Markup in
            let own = sections.filter { part.numbers.contains($0.number) }
            return "<p class=\"part\">\(part.title)</p>\n\(own.map { $0.markup(isSingle: runs.count == 1) })"
        }
        let contents = parts.map { part -> Markup in
            let links = sections.filter { part.numbers.contains($0.number) }.map { section -> Markup in
                "<li><a href=\"#\(section.id)\">\(section.number). \(section.question)</a></li>"
            }
            return "<div><h2>\(part.title)</h2><ol>\(links)</ol></div>"
        }
        let style = Markup.style(Palette.styleSheet + PageStyle.sheet)
        let page: Markup = """
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta name="color-scheme" content="light dark">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
            <meta name="robots" content="noindex">
            <link rel="icon" href="data:,">
            <title>\(title)</title>
            <style>\(style)</style>
            </head>
            <body>
            <a class="skip" href="#report">Skip to the report</a>
            <header>\(bar)
            \(headline)
            \(differencesBox)\(cautionsBox)
            \(systemsLegend)
            <nav class="contents" aria-label="Questions">\(contents)</nav>
            </header>
            <main id="report">
            \(body)
            </main>
            <footer>Written by Holdfast \(runs[0].record.version). \(strings(of: runs)).</footer>
            </body>
            </html>

            """
        return page.html
    }

    private func strings(of runs: [ComparedRun]) -> String {
        runs.map { "Record \($0.record.name), SHA-256 \($0.record.digest.prefix(16))…" }.joined(separator: ". ")
    }

    // MARK: Head

    private var bar: Markup {
        let notice: Markup = runs.compactMap(\.record.notice).first.map { "<span class=\"notice\">\($0)</span>" } ?? ""
        let themes = ["auto", "light", "dark"].map { name -> Markup in
            let isFirst = name == "auto"
            return """
                <label><input type="radio" name="theme" id="theme-\(name)"\(isFirst ? " checked" : "")>\
                \(name.prefix(1).uppercased() + name.dropFirst())</label>
                """
        }
        return """
            <div class="bar-top"><span class="brand"><i class="hbm"></i><i class="dram"></i><i class="flash"></i>Holdfast report</span>\
            \(notice)<fieldset class="themes"><legend class="unseen">Colour theme</legend>\(themes)</fieldset></div>
            """
    }

    private var headline: Markup {
        let others = comparisons.map { "<p class=\"also\">\($0.sentence)</p>" as Markup }
        return """
            <h1>\(runs[0].verdict.sentence)</h1>
            \(others)<p class="facts">\(facts)</p>
            <div class="figures">\(headlineFigures)</div>
            """
    }

    private var facts: Markup {
        let run = runs[0]
        let (trace, setup) = (run.record.trace, run.record.configuration)
        let tiers = setup.tiers.filter { $0.tier != "hbm" }.map {
            "\(Fill(rawValue: $0.tier)?.tierName ?? $0.tier) \(Printed.bytes($0.bytes, .given))"
        }
        let with = tiers.isEmpty ? "" : ", with \(tiers.joined(separator: " and "))"
        let of = runs.count == 1 ? "Trace" : "Record 1: trace"
        return """
            \(of) <b>\(trace.name)</b>: \(Printed.count(trace.requests)) requests, \(Printed.tokens(trace.inputTokens, .given)) prompt \
            tokens, \(Printed.tokens(trace.outputTokens, .given)) output tokens, \(Printed.seconds(trace.spanSeconds, .given)). \
            Cluster: \(setup.gpus) × \(setup.gpu), \(setup.model) \(setup.weights), \(setup.replicas) × TP \(setup.tensorParallel)\
            \(with). Every result is \(times.markup) unless it says otherwise.
            """
    }

    private var differencesBox: Markup {
        guard runs.count > 1 else { return "" }
        let heads = runs.map { "<th scope=\"col\">\($0.mark.badge) \($0.name)</th>" as Markup }
        let rows = differences.map { difference -> Markup in
            let cells = difference.values.map { "<td>\($0)</td>" as Markup }
            return
                "<tr\(difference.breaksLikeness ? " class=\"breaks\"" : "")><th scope=\"row\">\(difference.key)</th>\(cells)</tr>"
        }
        let title =
            isAlike
            ? (differences.isEmpty
                ? "These records are the same in everything compared" : "What differs between these records")
            : "These records are not alike"
        let note: Markup =
            isAlike ? "" : "<p>Gains between records are not computed; each is compared with its own baselines.</p>"
        let table: Markup =
            differences.isEmpty
            ? ""
            : """
            <div class="scroll" tabindex="0" role="region" aria-label="Differences"><table><thead><tr><th scope="col">Key</th>\(heads)\
            </tr></thead><tbody>\(rows)</tbody></table></div>
            """
        return "<div class=\"differences\(isAlike ? "" : " unlike")\"><h2>\(title)</h2>\(note)\(table)</div>"
    }

    private var cautionsBox: Markup {
        let lines = cautions.map { "<li>\($0)</li>" as Markup }
        return "<div class=\"cautions\"><h2>Before you quote these numbers</h2><ul>\(lines)</ul></div>"
    }

    private var systemsLegend: Markup {
        let systems = rows(ceilings: ["Y", "Z"]).map { row -> Markup in
            let role = row.mark.role == .reference ? " (reference)" : row.mark.role == .ceiling ? " (ceiling)" : ""
            return "<li>\(row.mark.badge)<span>\(row.name)\(role)</span></li>"
        }
        let words: [Provenance] = [.measured, .modelled, .counted, .given]
        let sources = words.map { "<li><span>\($0.markup): \($0.meaning)</span></li>" as Markup }
        return """
            <div class="keys"><div><h2>Systems, the same letter in every chart</h2><ul class="systems">\(systems)</ul></div>\
            <div><h2>Where a number comes from</h2><ul>\(sources)</ul></div></div>
            """
    }
}

extension Markup {
    /// A style sheet made of constants of this program.
    static func style(_ sheet: String) -> Markup {
        precondition(!sheet.contains("<"), "a style sheet would end its own element")
        return Markup(trusted: sheet)
    }
}

// MARK: Headline figures

extension Comparison {
    /// The six figures everybody asks for, each with a bar that holds the reference and the ceiling.
    private var headlineFigures: [Markup] {
        let titles: [(key: String, title: String)] = [
            ("tokensAvoided", "Prefill tokens avoided"), ("ttftP50", "Time to first token, median"),
            ("goodput", "Goodput at \(runs[0].record.configuration.slo.words)"),
            ("usefulShareOfBusy", "Useful share of busy GPU time"),
            ("costPerMillionTokensSameSLO", "Cost per million tokens, same SLO"),
            ("energyPerMillionTokens", "Energy per million tokens"),
        ]
        return titles.map { figure($0.key, $0.title) }
    }

    private func figure(_ key: String, _ title: String) -> Markup {
        let values = runs.map { run in (run, run.summary.first { $0.key == key }) }
        guard let first = values.compactMap(\.1).first else {
            let reason = runs[0].missing.first { $0.figure == key }?.reason ?? "not in this record"
            return "<div class=\"figure\"><h3>\(title)</h3><p class=\"absent\">Not in this record: \(reason).</p></div>"
        }
        let full = values.compactMap(\.1).map(\.full).max() ?? 1
        func share(_ value: Double) -> Double { full > 0 ? min(max(value / full, 0), 1) : 0 }
        let reference: Markup =
            first.reference.map { "<u style=\"left:\(mark: share($0.number))\"></u>" } ?? ""
        let ceiling: Markup = first.ceiling.map { "<s style=\"left:\(mark: share($0.number))\"></s>" } ?? ""
        let bars = values.map { run, value -> Markup in
            guard let value else { return "" }
            return
                "<div class=\"bullet \(run.mark.style)\"><i style=\"width:\(percent: share(value.own.number))\"></i>\(reference)\(ceiling)</div>"
        }
        let numbers = values.map { run, value -> Markup in
            let sign: Markup = runs.count == 1 ? "" : run.mark.badge
            let printed = value?.own.printed.text ?? "–"
            // Of how many requests a second stands beside it, with the unit.
            let number = key == "goodput" && runs.count == 1 ? printed.replacing("\(thinSpace)/s", with: "") : printed
            return "<span class=\"\(run.mark.style)\">\(sign)\(number)</span>"
        }
        let better = first.lessIsBetter ? "less is better" : "more is better"
        let alternative = values.compactMap { run, value in value.map { "\(run.name) \($0.own.printed)" } }.joined(
            separator: ", ")
        return """
            <div class="figure"><h3>\(title)</h3><div class="number">\(numbers)\(small(key, values[0].0))<em>\(better)</em></div>\
            <div role="img" aria-label="\(alternative)\(beside(first))">\(bars)</div><p>\(compared(first, key))</p></div>
            """
    }

    private func beside(_ figure: SummaryFigure) -> String {
        (figure.reference.map { ", reference \($0.printed)" } ?? "")
            + (figure.ceiling.map { ", infinite cache \($0.printed)" } ?? "")
    }

    /// What stands small beside the number.
    private func small(_ key: String, _ run: ComparedRun) -> Markup {
        guard runs.count == 1 else { return "" }
        switch key {
        case "ttftP50": return "<small>p99 \(Printed.seconds(run.system.ttft.p99))</small>"
        case "goodput": return "<small>of \(Printed.number(run.system.offered)) requests/s</small>"
        case "costPerMillionTokensSameSLO":
            return Economics(run: run).own?.gpus.map { "<small>\($0) GPUs</small>" } ?? ""
        default: return ""
        }
    }

    private func compared(_ figure: SummaryFigure, _ key: String) -> Markup {
        var parts: Markup = ""
        if let reference = figure.reference {
            parts += "<span class=\"with\">\(mark(referenceKey).badge)<b>\(reference.printed)</b></span>"
        }
        if let ceiling = figure.ceiling {
            parts += "<span class=\"with\">\(mark("Z").badge)<b>\(ceiling.printed)</b></span>"
        }
        if !figure.gain.isEmpty, figure.reference != nil { parts += "<span class=\"gain\">\(figure.gain)</span>" }
        if key == "costPerMillionTokensSameSLO", runs.count == 1,
            let same = runs[0].summary.first(where: { $0.key == "costPerMillionTokensSameGPUs" }),
            let other = same.reference
        {
            parts += "<span class=\"extra\">same GPUs \(same.own.printed) against \(other.printed)</span>"
        }
        if figure.provenance == .given, key == "energyPerMillionTokens" {
            parts += "<span class=\"extra\">from \(figure.provenance.markup) watts</span>"
        }
        return parts
    }
}
