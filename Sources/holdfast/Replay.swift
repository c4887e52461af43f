// Replays a trace through the tiers: cache-only (exact, no time), modelled (virtual time, a whole cluster), or live.

import ArgumentParser

struct Replay: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Replays a trace through the tiers.",
        discussion: """
            It replays the trace on a modelled cluster in virtual time, with all baselines beside it:

              holdfast replay trace.jsonl.gz
              holdfast replay trace.jsonl.gz -o run.hfr \\
                --scenario node8.yaml --set tiers.dram.perNode=2TB

            With --lockstep it takes one request at a time and lets everything come to rest in between, so that the \
            hit tokens of each tier depend on the trace alone:

              holdfast replay trace.jsonl.gz --lockstep --agents 2 -o lockstep.hfr

            With --live real agents and a real store serve it on this machine, every byte compared; in the trace's \
            time, or with --lockstep one request at a time:

              holdfast replay trace.jsonl.gz --live --agents 2 -o live.hfr

            With --cache-only it counts, to the block, what caches of given sizes would have hit; no time passes:

              holdfast replay trace.jsonl.gz --cache-only --policy all --capacity 1%,5%,20%
              holdfast replay trace.jsonl.gz --cache-only --dram 1% --flash 5%
            """)

    @OptionGroup var input: TraceInput

    @OptionGroup(title: "Modelled replay")
    var modelled: ModelledOptions

    @OptionGroup(title: "Lock step and live")
    var live: LiveOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var terminal: TerminalOptions

    @OptionGroup(title: "Cache-only replay")
    var cacheOnly: CacheOnlyOptions

    func validate() throws { try checkModes() }

    func run() async throws {
        guard cacheOnly.isAsked else {
            if live.isLockStep {
                return try live.run(input, modelled, json: json, terminal: terminal)
            }
            if live.isLive {
                return try live.runPaced(input, modelled, json: json, terminal: terminal)
            }
            try await modelled.run(input, json: json, terminal: terminal)
            return
        }
        // The question first: a typing mistake must not cost the reading of a large file.
        let question = try cacheOnly.question()
        try cacheOnly.run(question, try input.read(), json: json, progress: input.progress)
    }
}
