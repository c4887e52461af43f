// The command: one file a verb. Verbs parse options, call the floors below, and print.

import ArgumentParser

@main
struct Holdfast: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "holdfast",
        abstract: "Keeps the KV cache that LLM servers throw away, and shows what that is worth.",
        version: "0.1.0",
        subcommands: [
            Replay.self, ReportCommand.self, PlanCommand.self, ModelCommand.self, TraceCommand.self, AgentCommand.self,
            StoreCommand.self, Ctl.self, JournalCommand.self, Calibrate.self, Doctor.self, Simulate.self,
        ])
}
