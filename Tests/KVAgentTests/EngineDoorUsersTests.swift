// Who may come: the kernel names the user at the other end of the socket, and nobody else is believed. Needs the right to become
// another user, and says so where it is missing.

import Foundation
import Glibc
import KVAgent
import KVModel
import Testing

@Suite(.enabled(if: geteuid() == 0, "only root can connect as another user")) struct EngineDoorUsersTests {
    private static let stranger: UInt32 = 65_534

    /// Connects as the stranger, says something that is no hello, and gives back what it was told.
    private func told(to path: String) throws -> String {
        let program = """
            import os, socket, sys
            os.setgroups([]); os.setgid(\(Self.stranger)); os.setuid(\(Self.stranger))
            door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            door.settimeout(30)
            try:
                door.connect(sys.argv[1])
                try: door.sendall(b"nothing that an engine would say" * 4)
                except BrokenPipeError: pass
                while piece := door.recv(4096): sys.stdout.buffer.write(piece)
            except OSError as error: print(error)
            """
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", "-c", program, path]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let said = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: said, as: UTF8.self)
    }

    private func withDoor(users: [UInt32], _ body: (EngineDoor, String) throws -> Void) throws {
        try Sample.inFolder { folder in
            // The folder lets everybody in; the door does not.
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: folder)
            var configuration = EngineDoorConfiguration(path: folder + "/s")
            configuration.users = users
            let core = ScriptedCore()
            let door = try core.open(configuration)
            defer { door.stop() }
            try body(door, configuration.path)
        }
    }

    @Test func aUserWhoIsNotNamedIsRefusedByName() throws {
        try withDoor(users: [Self.stranger - 1]) { door, path in
            let answer = try told(to: path)
            #expect(answer.contains("user \(Self.stranger) may not use this agent of user 0"), "\(answer)")
            #expect(Sample.wait { door.view.counters.refused[.user] == 1 })
        }
    }

    /// As far as its frame is looked at, which is none.
    @Test func aUserWhoIsNamedIsHeard() throws {
        try withDoor(users: [Self.stranger]) { door, path in
            _ = try told(to: path)
            #expect(Sample.wait { door.view.counters.refused[.frame] == 1 })
            #expect(door.view.counters.refused[.user] == nil)
        }
    }

    /// Where no other user is named, the file itself keeps them out.
    @Test func withoutAnyNamedUserTheSocketIsTheAgentsAlone() throws {
        try withDoor(users: []) { door, path in
            let answer = try told(to: path)
            #expect(answer.contains("Permission denied"), "\(answer)")
            #expect(door.view.counters.connections == 0)
        }
    }
}
