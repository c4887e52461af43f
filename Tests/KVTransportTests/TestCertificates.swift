// Keys and certificates of one run of the tests, made with the openssl command into a temporary folder that is removed
// when the process ends.

import Foundation
import Synchronization
import Testing

/// An authority with certificates of stores and a client, and another authority with one that nobody should trust.
struct TestCertificates: Sendable {
    let folder: String

    var authority: String { folder + "/authority.pem" }
    var otherAuthority: String { folder + "/other.pem" }
    /// `store` stands for the name store.test, `address` for 127.0.0.1; `client` is a client's, `stranger` one of the
    /// other authority.
    func chain(_ who: String) -> String { "\(folder)/\(who).pem" }
    func key(_ who: String) -> String { "\(folder)/\(who).key" }

    /// Made once, by the first test that needs them.
    static let shared = Result { try TestCertificates() }

    private init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("holdfast-tls-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        removeAtExit(folder)
        try authority("authority", "Holdfast test authority")
        try authority("other", "Another authority")
        try certificate("store", by: "authority", "subjectAltName=DNS:store.test")
        try certificate("address", by: "authority", "subjectAltName=IP:127.0.0.1")
        try certificate("client", by: "authority", "subjectAltName=DNS:client.test")
        try certificate("stranger", by: "other", "subjectAltName=DNS:stranger.test")
    }

    private static let newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    private func authority(_ name: String, _ subject: String) throws {
        try openssl(
            ["req", "-x509"] + Self.newKey + [
                "-keyout", "\(folder)/\(name).key", "-out", "\(folder)/\(name).pem", "-days", "2", "-subj",
                "/CN=\(subject)",
            ])
    }

    private func certificate(_ name: String, by authority: String, _ names: String) throws {
        let request = "\(folder)/\(name).csr"
        let extensions = "\(folder)/\(name).ext"
        try names.write(toFile: extensions, atomically: true, encoding: .utf8)
        try openssl(
            ["req", "-new"] + Self.newKey + [
                "-keyout", "\(folder)/\(name).key", "-out", request, "-subj", "/CN=\(name)",
            ]
        )
        try openssl([
            "x509", "-req", "-in", request, "-CA", "\(folder)/\(authority).pem", "-CAkey", "\(folder)/\(authority).key",
            "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", "\(folder)/\(name).pem",
        ])
    }

    private func openssl(_ arguments: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["openssl"] + arguments
        let errors = Pipe()
        process.standardOutput = FileHandle.nullDevice
        process.standardError = errors
        try process.run()
        let said = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        try #require(
            process.terminationStatus == 0,
            "openssl \(arguments[0]) failed; Tools/install --tests installs it: \(String(decoding: said, as: UTF8.self))"
        )
    }
}

private let foldersToRemove = Mutex<[String]>([])

/// A test runner ends without giving anything of the process back.
private func removeAtExit(_ folder: String) {
    foldersToRemove.withLock { $0.append(folder) }
    atexit { foldersToRemove.withLock { for folder in $0 { try? FileManager.default.removeItem(atPath: folder) } } }
}
