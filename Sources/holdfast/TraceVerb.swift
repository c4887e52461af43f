// Reads, converts, checks and makes traces.

import ArgumentParser
import KVModel
import KVTrace

struct TraceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace", abstract: "Reads, converts, checks and makes traces.",
        subcommands: [TraceInfo.self])
}

struct TraceInfo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "info", abstract: "Says what is in a trace.")
    @Argument var file: String
    func run() async throws {
        let t = try Trace.read(from: file)
        print(t.name, t.format, t.sha256, t.requests.count, t.blocks.count, t.uniqueBlockCount)
    }
}
