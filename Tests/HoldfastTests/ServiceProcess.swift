// A service as its operators run it: the built command, on a port that the kernel chose.

import Foundation

/// A running `holdfast store` or `holdfast agent`. Ends with its owner.
final class ServiceProcess {
    /// Where it serves.
    let address: String
    /// What it logged until it served.
    let start: String
    private let process = Process()
    private let log = Pipe()

    /// Starts one and waits until its log says where it serves; one that does not start is a `ServiceDidNotStart`.
    init(_ arguments: [String], serving place: Regex<(Substring, Substring)>, seconds: Int = 60) throws {
        let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        process.executableURL = folder.appendingPathComponent("holdfast")
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = log
        process.standardError = log
        try process.run()
        // A service that says nothing is ended, and then its pipe is, too.
        let watch = DispatchWorkItem { [process] in process.terminate() }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(seconds), execute: watch)
        defer { watch.cancel() }
        var said = ""
        var served: String?
        while served == nil {
            let more = log.fileHandleForReading.availableData
            guard !more.isEmpty else { break }
            said += String(decoding: more, as: UTF8.self)
            served = said.firstMatch(of: place).map { String($0.1) }
        }
        start = said
        guard let served else {
            process.waitUntilExit()
            throw ServiceDidNotStart(log: said, exitCode: process.terminationStatus)
        }
        address = served
    }

    /// The number of its process.
    var number: Int32 { process.processIdentifier }

    deinit {
        guard process.isRunning else { return }
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Sends it a signal and waits for its end: its exit code, or minus the signal that ended it, and what it logged meanwhile.
    func end(_ signal: Int32) -> (exitCode: Int32, log: String) {
        kill(process.processIdentifier, signal)
        let watch = DispatchWorkItem { [process] in kill(process.processIdentifier, SIGKILL) }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(60), execute: watch)
        let rest = log.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        watch.cancel()
        let code = process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
        return (code, String(decoding: rest, as: UTF8.self))
    }
}

/// A service that ended before it served.
struct ServiceDidNotStart: Error {
    var log: String
    var exitCode: Int32
}
