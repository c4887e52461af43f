// `journal`: what an agent's decisions were told, told to fresh decisions: whether they decide the same, and what it came to.

import ArgumentParser
import Foundation
import KVAgent
import KVModel
import KVTiering

struct JournalCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "journal",
        abstract: "Gives an agent's journal to fresh decisions: whether they decide the same, and what it came to.",
        discussion: """
            FILE is what an agent writes with the setting `journal`: every event that its decisions heard, with its \
            time, and for each of their commands a fingerprint and whether there was room for it. The settings are \
            in its head. It needs no agent, no memory of its size and no store.

            The exit code is 1 when the decisions differ: then this program is not of the build that wrote the \
            journal, or something outside the journal decided. A journal of a killed agent, or one that is full, is \
            read up to its end, which is a second at most before the agent's. An agent that starts anew keeps the \
            one before as FILE.1.

              holdfast agent --set journal=/var/log/holdfast/journal …
              holdfast journal /var/log/holdfast/journal --json
            """)

    @Argument(help: ArgumentHelp("The journal.", valueName: "FILE"))
    var file: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let printed: Printed
        do throws(OperatorError) {
            var journal = try Journal(path: file)
            var decisions = TieringManager(try journal.head.tiering())
            let verdict = try journal.replay(into: &decisions)
            printed = Printed(journal.head, verdict, decisions.ledger)
        } catch { throw error.under(file) }
        try print(json ? try printed.json : printed.text)
        if !printed.agrees { throw ExitCode(1) }
    }

    /// What is told, in both forms.
    struct Printed: Encodable {
        /// Whether fresh decisions gave the same commands.
        var agrees: Bool
        /// The first thing that differed.
        var difference: String?
        /// Whether the file ends in the middle of something.
        var isCutShort: Bool
        /// From the first event to the last.
        var seconds: Double
        var events: Int
        var commands: Int
        var commandsRefused: Int
        var eventKinds: [String: Int]
        var commandKinds: [String: Int]
        var prompts: Int
        var promptTokens: Int
        /// Prompt tokens by the ledger's classes.
        var tokens: [String: Int]
        var settings: JournalHead

        init(_ head: JournalHead, _ verdict: Journal.Verdict, _ ledger: PromptLedger) {
            agrees = verdict.difference == nil
            difference = verdict.difference
            isCutShort = verdict.isCutShort
            seconds = verdict.span.seconds
            events = verdict.events
            commands = verdict.commands
            commandsRefused = verdict.refused
            eventKinds = verdict.eventKinds
            commandKinds = verdict.commandKinds
            prompts = ledger.prompts
            promptTokens = ledger.promptTokens
            tokens = Dictionary(uniqueKeysWithValues: TokenClass.allCases.map { ("\($0)", ledger[$0]) })
            settings = head
        }

        var json: String {
            get throws {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
                return String(decoding: try encoder.encode(self), as: UTF8.self)
            }
        }

        var text: String {
            var lines = [
                "settings   " + settingWords,
                "time       " + String(format: "%.1f s", seconds),
                "events     " + counts(events, eventKinds),
                "commands   " + counts(commands, commandKinds)
                    + (commandsRefused > 0 ? "; no room for \(grouped(commandsRefused))" : ""),
                "prompts    \(grouped(prompts)) with \(grouped(promptTokens)) tokens" + tokenWords,
            ]
            if isCutShort {
                lines.append("end        in the middle of something: it was read up to its last whole piece")
            }
            lines.append(
                "verdict    "
                    + (difference.map { "the decisions differ: \($0)" }
                        ?? "fresh decisions give the same \(grouped(commands)) commands"))
            return lines.joined(separator: "\n")
        }

        private var settingWords: String {
            let policy = settings.policy?.rawValue ?? "?"
            let tiering = settings.settings
            var words = ["policy \(policy)", "blocks of \(ByteSize.text(tiering.blockBytes))"]
            if tiering.hbmBytes > 0 { words.append("HBM slots of \(ByteSize.text(tiering.hbmBytes))") }
            if let dram = tiering.dram { words.append("node memory \(ByteSize.text(dram.bytes))") }
            if let nvme = tiering.nvme { words.append("local flash \(ByteSize.text(nvme.bytes))") }
            if tiering.hasStore { words.append("a shared store") }
            return words.joined(separator: ", ")
        }

        private var tokenWords: String {
            let shares = tokens.filter { $0.value > 0 }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            guard !shares.isEmpty else { return "" }
            return ": "
                + shares.map { name, count in
                    String(format: "%@ %.1f %%", name, 100 * Double(count) / Double(max(1, promptTokens)))
                }.joined(separator: ", ")
        }

        private func counts(_ sum: Int, _ kinds: [String: Int]) -> String {
            let parts = kinds.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            return grouped(sum) + (parts.isEmpty ? "" : ": ")
                + parts.map { "\($0.key) \(grouped($0.value))" }.joined(separator: ", ")
        }
    }
}
