// A section on the page: question and sentence, pictures with their tables, remarks, lists.

extension Section {
    /// The section; with several records each sentence says whose it is.
    func markup(isSingle: Bool) -> Markup {
        let first = conclusions[0].sentence
        let sentence: Markup = isSingle ? "\(first)" : "<span class=\"key run run1\">1</span> \(first)"
        let others = conclusions.dropFirst().enumerated().map { index, conclusion -> Markup in
            "<p class=\"also\"><span class=\"key run run\(index + 2)\">\(conclusion.record)</span> \(conclusion.sentence)</p>"
        }
        let explanation: Markup = explanation.plain.isEmpty ? "" : "<p class=\"how\">\(explanation)</p>"
        let remarks = remarks.map { "<p class=\"remark\">\($0)</p>" as Markup }
        return """
            <section id="\(id)" aria-labelledby="\(id)-title">
            <h2 id="\(id)-title"><span class="question">\(number). \(question)</span>\(sentence)</h2>
            \(others)\(explanation)
            \(figureMarkup)\(remarks)\(checkMarkup)\(listings.map(\.markup))\(tables.map(\.markup))
            </section>

            """
    }

    /// Half-width figures stand two by two.
    private var figureMarkup: Markup {
        var markup: Markup = ""
        var halves: [Markup] = []
        func close() -> Markup {
            defer { halves = [] }
            return halves.isEmpty ? "" : "<div class=\"pair\">\(halves)</div>"
        }
        for figure in figures {
            let table: Markup = figure.table.map(\.markup) ?? ""
            let piece: Markup = """
                <figure><figcaption><b>\(figure.title)</b>\(figure.caption.plain.isEmpty ? "" : ", ")\(figure.caption)</figcaption>\
                \(figure.chart.markup)</figure>
                """
            if figure.isHalfWidth {
                halves.append("<div>\(piece)\(table)</div>")
                if halves.count == 2 { markup += close() }
            } else {
                markup += close()
                markup += "\(piece)\(table)"
            }
        }
        markup += close()
        return markup
    }

    private var checkMarkup: Markup {
        guard !checks.isEmpty else { return "" }
        let lines = checks.map { check -> Markup in
            "<li\(check.passed ? "" : " class=\"failed\"")><b>\(check.passed ? "passed" : "FAILED")</b><span>\(check.text)</span></li>"
        }
        return "<ul class=\"checks\">\(lines)</ul>"
    }
}

extension Table {
    /// The table, folded behind its name.
    var markup: Markup {
        guard !rows.isEmpty else { return "" }
        let heads = columns.map { "<th scope=\"col\">\($0)</th>" as Markup }
        let lines = rows.map { row -> Markup in
            let cells = row.cells.map { "<td>\($0)</td>" as Markup }
            let badge: Markup = row.mark.map { "\($0.badge) " } ?? ""
            return
                "<tr\(row.mark?.isRun == true ? " class=\"own\"" : "")><th scope=\"row\">\(badge)\(row.name)</th>\(cells)</tr>\n"
        }
        let note: Markup = note.isEmpty ? "" : "<p class=\"how\">\(note)</p>"
        return """
            <details><summary>Table: \(title)</summary><div class="scroll" tabindex="0" role="region" aria-label="\(title)"><table>\
            <thead><tr><th scope="col">\(corner)</th>\(heads)</tr></thead><tbody>\(lines)</tbody></table></div>\(note)</details>

            """
    }
}

extension Listing {
    /// The entries, in two columns where there is room.
    var markup: Markup {
        let lines = entries.map { entry -> Markup in
            let value: Markup =
                entry.whole.isEmpty ? "\(entry.value)" : "<span title=\"\(entry.whole)\">\(entry.value)</span>"
            let argument: Markup = entry.argument.isEmpty ? "" : "<code>\(entry.argument)</code>"
            return "<div><dt>\(entry.name)</dt><dd>\(value)\(argument)</dd></div>\n"
        }
        return "<h3 class=\"list\">\(title)</h3><dl>\(lines)</dl>"
    }
}
