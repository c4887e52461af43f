// The command as a person meets it: help that helps, errors that say what, where, and what to do.

import Foundation
import Testing

@Suite struct CommandTests {
    @Test(arguments: [[], ["replay"], ["report"], ["plan"], ["model"], ["trace"]])
    func helpIsThereForEveryVerb(verb: [String]) throws {
        let run = try CommandRun.holdfast(verb + ["--help"])
        #expect(run.exitCode == 0)
        #expect(run.output.contains("OVERVIEW"))
        #expect(run.errors.isEmpty)
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
