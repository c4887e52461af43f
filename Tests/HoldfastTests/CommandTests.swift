// The command as a person meets it: help that helps, errors that say what, where, and what to do.

import Foundation
import Testing

@Suite struct CommandTests {
    /// Every verb has a help page whose prose fills its lines and whose examples can be copied as they stand.
    @Test func helpIsThereForEveryVerb() throws {
        var verbs: [[String]] = [[]]
        var pages = 0
        while let verb = verbs.popLast() {
            let run = try CommandRun.holdfast(verb + ["--help"])
            #expect(run.exitCode == 0)
            #expect(run.errors.isEmpty)
            let parts = run.output.components(separatedBy: "\nUSAGE: ")
            #expect(parts.count == 2 && parts[0].hasPrefix("OVERVIEW: "), "\(verb)")
            expectWellSet(parts[0].components(separatedBy: "\n"), of: verb)
            let below = run.output.components(separatedBy: "\nSUBCOMMANDS:\n").dropFirst().first ?? ""
            verbs += below.matches(of: #/(?m)^  (\w+) /#).map { verb + [String($0.1)] }.filter { $0.last != "See" }
            pages += 1
        }
        #expect(pages > 30)
    }

    /// Lines of at most 80 columns: prose that is broken only where the next word has no room, examples that are not broken.
    private func expectWellSet(_ lines: [String], of verb: [String]) {
        for (line, next) in zip(lines, lines.dropFirst()) where !line.isEmpty && !next.isEmpty {
            #expect(line.count <= 80, "\(verb): \(line)")
            if line.hasPrefix("  ") {
                #expect(next.hasPrefix("  "), "\(verb): an example is broken: \(line)")
            } else {
                let word = next.prefix { $0 != " " }
                #expect(line.count + 1 + word.count >= 80, "\(verb): `\(word)` has room behind: \(line)")
            }
        }
    }

    /// A result that nobody got is no success.
    @Test(arguments: [
        ["trace", "info", "TRACE"], ["trace", "info", "TRACE", "--json"], ["trace", "check", "TRACE"],
        ["trace", "convert", "TRACE", "-o", "-"], ["trace", "synth", "chat", "--sessions", "2", "-o", "-"],
        ["trace", "synth", "--parameters"], ["replay", "TRACE", "--cache-only"], ["replay", "TRACE", "--only", "A"],
        ["replay", "TRACE", "--only", "A", "--json"], ["plan", "TRACE", "--json"], ["simulate", "--seconds", "1"],
        ["doctor", "--json"], ["agent", "--print-config"], ["store", "--print-config"],
    ])
    func aFullDiskBehindStandardOutputIsAnError(arguments: [String]) throws {
        let scratch = try Scratch()
        let trace = try scratch.path("good.jsonl", BadInputTests.good)
        let run = try CommandRun.holdfast(arguments.map { $0 == "TRACE" ? trace : $0 }, to: "/dev/full")
        #expect(run.exitCode == 1, "\(arguments): \(run.errors)")
        #expect(run.errors.contains("No space left on device"), "\(arguments): \(run.errors)")
        #expect(run.errors.components(separatedBy: "Error: ").count == 2, "\(arguments): \(run.errors)")
    }

    @Test(arguments: ["bash", "zsh", "fish"])
    func completionsAreThereForEveryShell(shell: String) throws {
        let run = try CommandRun.holdfast(["--generate-completion-script", shell])
        #expect(run.exitCode == 0)
        #expect(run.output.contains("cache-only"))
    }

    @Test func versionIsPrinted() throws {
        let run = try CommandRun.holdfast(["--version"])
        #expect(run.exitCode == 0)
        #expect(run.output.wholeMatch(of: /\d+\.\d+\.\d+\n/) != nil)
    }

    @Test(arguments: ["--no-such-option", "nosuchverb"])
    func unknownWordsAreRefused(word: String) throws {
        let run = try CommandRun.holdfast([word])
        #expect(run.exitCode != 0)
        #expect(run.errors.contains(word))
    }
}
