// What every verb with a terminal report needs to know about where it prints.

import ArgumentParser
import Foundation

/// When to use colour.
enum ColourChoice: String, ExpressibleByArgument, CaseIterable {
    case auto, always, never
}

/// The options of every report in a terminal.
struct TerminalOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Use colour: auto, always or never. Auto looks at the terminal, NO_COLOR and TERM.", valueName: "when"))
    var color = ColourChoice.auto

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Columns to use; by default those of the terminal, at most 100.", valueName: "columns"))
    var width: Int?

    func validate() throws {
        if let width, width < 40 { throw ValidationError("--width \(width): give 40 or more.") }
    }

    /// Whether standard output gets colour.
    var isColoured: Bool {
        switch color {
        case .always: return true
        case .never: return false
        case .auto:
            let environment = ProcessInfo.processInfo.environment
            let refusal = environment["NO_COLOR"] ?? ""
            return refusal.isEmpty && environment["TERM"] != "dumb" && isatty(STDOUT_FILENO) == 1
        }
    }

    /// The columns to use.
    var columns: Int {
        if let width { return width }
        var size = winsize()
        let isKnown = unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        return isKnown ? Int(size.ws_col) : 100
    }
}
