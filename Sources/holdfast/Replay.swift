// Replays a trace through the tiers.

import ArgumentParser

struct Replay: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Replays a trace through the tiers.")
}
