// The box above the sections: what to know before quoting a number. At most five lines, made from the record.

extension Comparison {
    /// The sections, in order.
    public var sections: [Section] {
        [
            tokensSection(), latencySection(), gpuSection(), costSection(), sizeSection(), cliffSection(),
            prefetchSection(),
            linksSection(), trustSection(),
        ]
    }

    /// What to know before quoting these numbers, most important first.
    public var cautions: [Prose] {
        let run = runs[0]
        let setup = run.record.configuration
        var lines: [Prose] = []
        let hasTimes = run.system.hasTimes
        if !hasTimes {
            lines.append("There are no request times in this record, so nothing is said of waiting.")
        } else if let live = run.record.live {
            lines.append("Times are measured on \(live.machine); another machine gives others.")
        } else {
            let error = run.record.modelError
            lines.append(
                """
                Times are modelled. On this class (\(error.kind)) the model was within \(Printed.percent(error.ttftMean).text) of \
                measured mean TTFT and \(Printed.percent(error.tpot).text) of TPOT; on p99 it is not validated.
                """)
        }
        for other in runs.dropFirst() where other.record.mode != run.record.mode && other.system.hasTimes {
            lines.append("Times of record \(other.key) are \(other.times).")
        }
        if hasTimes { lines.append(pace(setup)) }
        if let reference = run.reference {
            let needsNothing = reference.key == "B" || reference.key == "C"
            lines.append(
                """
                The comparison is with \(key: reference.key) \(reference.sentenceName)\
                \(needsNothing || reference.key == "D" ? " with each session kept on one node" : "")\
                \(needsNothing ? ", which needs nothing bought" : ""), not with “no cache”.
                """)
        } else {
            lines.append("There is no reference in this record, so no gain is stated.")
        }
        lines += rareCautions(run)
        return Array(lines.prefix(5))
    }

    /// When requests come, and what that makes of time saved.
    private func pace(_ setup: Configuration) -> Prose {
        setup.arrivals == "sessions"
            ? "Each turn comes a think time after the last one ended, so a faster system is also asked for more."
            : """
            The trace is replayed at its own pace. On a fixed cluster, time saved turns into idle GPUs; question 4 says what \
            that is worth when the cluster may shrink.
            """
    }

    /// What holds for few records. The terminal shows these: of the others its head speaks already.
    func rareCautions(_ run: ComparedRun) -> [Prose] {
        let setup = run.record.configuration
        var lines: [Prose] = []
        if run.record.trace.skippedLines > 0 {
            let count = run.record.trace.skippedLines
            lines.append(
                "\(Printed.count(count).text) unreadable line\(count == 1 ? "" : "s") of the trace \(count == 1 ? "was" : "were") left out."
            )
        }
        if setup.planner == "split" {
            lines.append("The planner splits prefixes; these gains need engine support that vLLM and SGLang lack.")
        }
        if setup.ownership == "engine" {
            lines.append(
                "HBM and host memory belong to the engine and evict by its LRU; Holdfast decides only below them.")
        }
        if setup.linkDiscipline == "fifo" {
            lines.append("Links serve transfers one after another (FIFO), so a short load waits behind a long one.")
        }
        if setup.requestOverheadSeconds > 0 {
            lines.append(
                "Each TTFT includes \(Printed.seconds(setup.requestOverheadSeconds, .given).text) of client overhead.")
        }
        return lines
    }
}
