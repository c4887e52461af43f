// Checks the serving model against measured points.

import ArgumentParser

struct ModelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model", abstract: "Checks the serving model against measured points.")
}
