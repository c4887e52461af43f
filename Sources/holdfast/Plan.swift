// Says how much DRAM and flash to buy for a trace, or that it is not worth it.

import ArgumentParser

struct Plan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Says how much DRAM and flash to buy for a trace, or that it is not worth it.")
}
