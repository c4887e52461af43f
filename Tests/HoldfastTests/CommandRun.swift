// Runs the built command as its users do: arguments in, exit code and two streams out.

import Foundation

/// What one run of the command gave.
struct CommandRun {
    var exitCode: Int32
    var output: String
    var errors: String

    /// Runs `holdfast` with arguments and standard input. A run that takes longer than `seconds` is ended and fails. With `device`
    /// the output goes there and is not kept. `launcher` is a program that is given the command to run; `environment` adds to
    /// this process' own.
    static func holdfast(
        _ arguments: [String], input: Data = Data(), to device: String? = nil, seconds: Int = 60,
        launcher: [String] = [], environment: [String: String] = [:]
    ) throws -> CommandRun {
        let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let process = Process()
        let command = launcher + [folder.appendingPathComponent("holdfast").path] + arguments
        process.executableURL = URL(fileURLWithPath: command[0])
        process.arguments = Array(command.dropFirst())
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let scratch = try Scratch()
        // Files, not pipes: a full pipe would need a reader of its own.
        let inputFile = try scratch.file("input", input)
        let outputFile = try scratch.file("output", Data())
        let errorFile = try scratch.file("errors", Data())
        let handles = [
            try FileHandle(forReadingFrom: inputFile),
            try FileHandle(forWritingTo: device.map { URL(fileURLWithPath: $0) } ?? outputFile),
            try FileHandle(forWritingTo: errorFile),
        ]
        // A queue keeps even a cancelled watch until its time has come, and with it the process and its files. With some
        // 1,360 open files, as many as fill the buffer of `readdir`, `Process.run` reads beyond that buffer's end.
        defer { for handle in handles { try? handle.close() } }
        process.standardInput = handles[0]
        process.standardOutput = handles[1]
        process.standardError = handles[2]
        try process.run()
        let watch = DispatchWorkItem { process.terminate() }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(seconds), execute: watch)
        process.waitUntilExit()
        watch.cancel()
        return CommandRun(
            exitCode: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
            output: try String(contentsOf: outputFile, encoding: .utf8),
            errors: try String(contentsOf: errorFile, encoding: .utf8))
    }

    /// The output as a JSON object.
    var object: [String: Any] {
        get throws { try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any] ?? [:] }
    }
}

/// A folder that is gone when its owner is.
final class Scratch {
    let folder: URL

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    /// Writes a file into the folder.
    func file(_ name: String, _ content: Data) throws -> URL {
        let url = folder.appendingPathComponent(name)
        try content.write(to: url)
        return url
    }

    /// Writes a text file into the folder and gives its path.
    func path(_ name: String, _ content: String) throws -> String { try file(name, Data(content.utf8)).path }
}
