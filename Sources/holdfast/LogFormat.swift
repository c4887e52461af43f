// How the long-running verbs write their log: text for people, or one JSON object a line for machines. Standard error.

import ArgumentParser
import Foundation
import KVModel
import Logging

/// Options of every verb that runs until it is told to end.
struct LogOptions: ParsableArguments {
    @Option(
        name: .customLong("log"),
        help: ArgumentHelp("How the log is written: text, or json (one object a line).", valueName: "format"))
    var format = LogFormat.text

    @Option(
        name: .long,
        help: ArgumentHelp(
            "What is logged: trace, debug, info, notice, warning, error or critical, and all above it.",
            valueName: "level"))
    var logLevel = Logger.Level.info

    /// A logger as the options say.
    func logger(_ label: String) -> Logger {
        var logger =
            switch format {
            case .text: Logger(label: label, factory: { StreamLogHandler.standardError(label: $0) })
            case .json: Logger(label: label, factory: { JSONLogHandler(label: $0) })
            }
        logger.logLevel = logLevel
        return logger
    }
}

/// How a log is written.
enum LogFormat: String, ExpressibleByArgument, CaseIterable {
    case text, json
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// Writes one JSON object a line: `time` (UTC, milliseconds), `level`, `label`, `message`, and the metadata under its own names.
struct JSONLogHandler: LogHandler {
    var metadata = Logger.Metadata()
    var logLevel = Logger.Level.info
    private let label: String

    init(label: String) { self.label = label }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
        let line = Self.line(
            level: event.level, label: label, message: "\(event.message)", metadata: all, at: Date())
        try? FileHandle.standardError.write(contentsOf: line)
    }

    /// One line. Metadata whose name is one of the fixed ones gets a `_` before it.
    static func line(
        level: Logger.Level, label: String, message: String, metadata: Logger.Metadata, at time: Date
    ) -> Data {
        let fixed = [
            "time": time.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true)), "level": level.rawValue,
            "label": label, "message": message,
        ]
        var fields = fixed
        for (name, value) in metadata { fields[fixed[name] == nil ? name : "_" + name] = "\(value)" }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Text only: there is nothing in it that cannot be encoded.
        return ((try? encoder.encode(fields)) ?? Data()) + [UInt8(ascii: "\n")]
    }
}
