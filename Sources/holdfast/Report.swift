// Shows what replays found: terminal, JSON or one HTML page.

import ArgumentParser

struct ReportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Shows what replays found: terminal, JSON or one HTML page.")
}
