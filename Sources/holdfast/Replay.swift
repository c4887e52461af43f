// Replays a trace through the tiers: cache-only (exact, no time) or modelled (virtual time, a whole cluster).

import ArgumentParser

struct Replay: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay",
        abstract: "Replays a trace through the tiers.",
        discussion: """
            It replays the trace on a modelled cluster in virtual time, with all baselines beside it:

              holdfast replay trace.jsonl.gz
              holdfast replay trace.jsonl.gz --scenario node8.yaml --set tiers.dram.perNode=2TB -o run.hfr

            With --cache-only it counts, to the block, what caches of given sizes would have hit; no time passes:

              holdfast replay trace.jsonl.gz --cache-only --policy all --capacity 1%,5%,20%
              holdfast replay trace.jsonl.gz --cache-only --dram 1% --flash 5% --inclusion keep
            """)

    @OptionGroup var input: TraceInput

    @OptionGroup(title: "Modelled replay")
    var modelled: ModelledOptions

    @OptionGroup var terminal: TerminalOptions

    @OptionGroup(title: "Cache-only replay")
    var cacheOnly: CacheOnlyOptions

    func run() async throws {
        guard cacheOnly.isAsked else {
            try await modelled.run(input, json: cacheOnly.json, terminal: terminal)
            return
        }
        // The question first: a typing mistake must not cost the reading of a large file.
        let question = try cacheOnly.question()
        try cacheOnly.run(question, try input.read())
    }
}
