// A store as its operators run it: the built command on a file in a folder of its own.

import Foundation

/// A running `holdfast store`. Ends with its owner.
final class StoreProcess {
    /// Its file of tenants.
    let keys: String
    private let service: ServiceProcess

    /// Starts one and waits until it serves; one that does not start is a `ServiceDidNotStart`.
    init(_ scratch: Scratch, _ more: [String] = [], seconds: Int = 60) throws {
        let drive = scratch.folder.appendingPathComponent("store.flash").path
        keys = drive + ".tenants"
        service = try ServiceProcess(
            ["store", "--data", drive, "--size", "32MiB", "--extent", "64KiB", "--payload-max", "1MiB"]
                + ["--dram", "8MiB", "--listen", "127.0.0.1:0", "--http", ""] + more,
            serving: /address=tcp (127\.0\.0\.1:\d+).*\n/, seconds: seconds)
    }

    /// Where it serves TCP.
    var address: String { service.address }

    /// What it logged until it served.
    var start: String { service.start }

    /// Runs `holdfast ctl` on it.
    func ctl(_ arguments: String..., keys other: String? = nil, tenant: String = "local") throws -> CommandRun {
        try order(arguments, keys: other, tenant: tenant)
    }

    /// Runs `holdfast ctl` on it, with words in a list.
    func order(_ arguments: [String], keys other: String? = nil, tenant: String = "local") throws -> CommandRun {
        try CommandRun.holdfast(
            ["ctl"] + arguments + ["--store", address, "--keys", other ?? keys, "--tenant", tenant])
    }

    /// Sends it a signal and waits for its end: its exit code, or minus the signal that ended it, and what it logged meanwhile.
    func end(_ signal: Int32) -> (exitCode: Int32, log: String) { service.end(signal) }
}
