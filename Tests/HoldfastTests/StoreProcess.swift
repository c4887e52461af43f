// A store as its operators run it: the built command on a file in a folder of its own, on a port that the kernel chose.

import Foundation

/// A running `holdfast store`. Ends with its owner.
final class StoreProcess {
    /// Where it serves TCP.
    let address: String
    /// Its file of tenants.
    let keys: String
    private let process: Process
    private let errors: Pipe
    /// What it logged until it served.
    let start: String

    /// Starts one and waits until it serves; `nil` never: a store that does not start is a `StoreDidNotStart`.
    init(_ scratch: Scratch, _ more: [String] = [], seconds: Int = 60) throws {
        let drive = scratch.folder.appendingPathComponent("store.flash").path
        let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        process = Process()
        process.executableURL = folder.appendingPathComponent("holdfast")
        process.arguments =
            ["store", "--data", drive, "--size", "32MiB", "--extent", "64KiB", "--payload-max", "1MiB"]
            + ["--dram", "8MiB", "--listen", "127.0.0.1:0", "--http", ""] + more
        errors = Pipe()
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = errors
        keys = drive + ".tenants"
        try process.run()
        // A store that says nothing is ended, and then its pipe is, too.
        let watch = DispatchWorkItem { [process] in process.terminate() }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(seconds), execute: watch)
        defer { watch.cancel() }
        var log = ""
        var served: String?
        while served == nil {
            let more = errors.fileHandleForReading.availableData
            guard !more.isEmpty else { break }
            log += String(decoding: more, as: UTF8.self)
            served = log.firstMatch(of: /address=tcp (127\.0\.0\.1:\d+).*\n/).map { String($0.1) }
        }
        start = log
        guard let served else {
            process.waitUntilExit()
            throw StoreDidNotStart(log: log, exitCode: process.terminationStatus)
        }
        address = served
    }

    deinit {
        guard process.isRunning else { return }
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Runs `holdfast ctl` on it.
    func ctl(_ arguments: String..., keys other: String? = nil, tenant: String = "local") throws -> CommandRun {
        try order(arguments, keys: other, tenant: tenant)
    }

    /// Runs `holdfast ctl` on it, with words in a list.
    func order(_ arguments: [String], keys other: String? = nil, tenant: String = "local") throws -> CommandRun {
        try CommandRun.holdfast(
            ["ctl"] + arguments + ["--store", address, "--keys", other ?? keys, "--tenant", tenant])
    }

    /// Sends it a signal and waits for its end: its exit code, or minus the signal that ended it.
    func end(_ signal: Int32) -> (exitCode: Int32, log: String) {
        kill(process.processIdentifier, signal)
        let watch = DispatchWorkItem { [process] in kill(process.processIdentifier, SIGKILL) }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(60), execute: watch)
        let log = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        watch.cancel()
        let code = process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
        return (code, String(decoding: log, as: UTF8.self))
    }
}

/// A store that ended before it served.
struct StoreDidNotStart: Error {
    var log: String
    var exitCode: Int32
}
