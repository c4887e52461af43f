// Reads, converts, checks and makes traces.

import ArgumentParser

struct TraceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace", abstract: "Reads, converts, checks and makes traces.")
}
