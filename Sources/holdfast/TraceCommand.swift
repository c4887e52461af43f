// Reads, converts, checks and makes traces.

import ArgumentParser
import KVModel
import KVTrace

struct TraceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace", abstract: "Reads, converts, checks and makes traces.",
        subcommands: [TraceInfo.self, TraceCheckCommand.self, TraceConvert.self, TraceSynth.self])
}

extension TraceFormat {
    /// The format of that name.
    static func named(_ name: String) throws(OperatorError) -> TraceFormat {
        if let format = TraceFormat(rawValue: name) { return format }
        throw OperatorError(
            "there is no trace format “\(name)”",
            remedy: "known are \(TraceFormat.allCases.map(\.rawValue).joined(separator: ", "))")
    }
}

extension ProgressBar {
    /// Shows how much of a file has been read.
    func show(_ progress: TraceProgress) {
        let share = progress.bytesTotal.map { Double(progress.bytesRead) / Double(max($0, 1)) }
        update(share, detail: "\(progress.bytesRead / 1_000_000) MB")
    }
}

/// How a text can stand out. The numbers are the ECMA-48 codes.
enum Style: Int {
    case bold = 1
    case faint = 2
    case red = 31
    case green = 32
    case cyan = 36

    /// The text in this style, where there is colour.
    func applied(to text: String, _ isColoured: Bool) -> String {
        isColoured ? "\u{1B}[\(rawValue)m\(text)\u{1B}[0m" : text
    }
}
