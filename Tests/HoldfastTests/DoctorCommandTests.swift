// `doctor` as operators and their scripts meet it: what stops a store is a problem and exit code 1, and nothing is changed.

import Foundation
import Testing

@Suite struct DoctorCommandTests {
    /// Settings under which nothing of the machine is short: little memory, any port, few sessions.
    private func settings(_ scratch: Scratch, _ more: String = "") throws -> String {
        let lines = "dram: 64MiB\nlisten: 127.0.0.1:0\nhttp: 127.0.0.1:0\nsessions: 8\n"
        return try scratch.path("store.yaml", lines + more)
    }

    /// A file that only its owner reads, as keys are kept.
    private func privateFile(_ scratch: Scratch, _ name: String, _ content: String) throws -> String {
        let path = try scratch.path(name, content)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
        return path
    }

    private func verdicts(_ run: CommandRun) throws -> [String: String] {
        let list = try JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [[String: Any]] ?? []
        return Dictionary(
            list.map { ($0["about"] as? String ?? "", $0["verdict"] as? String ?? "") },
            // The worst of what is said about one thing.
            uniquingKeysWith: { $0 == "problem" ? $0 : $1 })
    }

    @Test func aDriveThatDoesNotExistYetNeedsASizeAndRoom() throws {
        let scratch = try Scratch()
        let drive = scratch.folder.appendingPathComponent("new.flash").path
        let config = try settings(scratch)
        let right = try CommandRun.holdfast(["doctor", "--config", config, "--data", drive, "--size", "8MiB", "--json"])
        #expect(try verdicts(right)[drive] == "ok")
        let unsized = try CommandRun.holdfast(["doctor", "--config", config, "--data", drive, "--json"])
        #expect(unsized.exitCode == 1)
        #expect(try verdicts(unsized)[drive] == "problem")
        let huge = try CommandRun.holdfast(["doctor", "--config", config, "--data", drive, "--size", "4000TB"])
        #expect(huge.exitCode == 1)
        #expect(huge.output.contains("make it smaller, or free room"))
        #expect(!FileManager.default.fileExists(atPath: drive))
    }

    @Test func foreignDataIsAProblemAndStaysUntouched() throws {
        let scratch = try Scratch()
        let drive = try scratch.path("other.img", String(repeating: "somebody's words\n", count: 100_000))
        let before = try Data(contentsOf: URL(filePath: drive))
        let run = try CommandRun.holdfast(["doctor", "--config", try settings(scratch), "--data", drive])
        #expect(run.exitCode == 1)
        #expect(run.output.contains("problem  \(drive): it holds "))
        #expect(try Data(contentsOf: URL(filePath: drive)) == before)
    }

    @Test func anUnknownSettingIsNamedWithItsLineAndTheNearestOne() throws {
        let scratch = try Scratch()
        let config = try settings(scratch, "data: store.flash\nlissten: 127.0.0.1:9\n")
        let run = try CommandRun.holdfast(["doctor", "--config", config])
        #expect(run.exitCode == 1)
        #expect(run.output.contains("\(config):6: there is no setting `lissten`; the nearest is `listen`"))
    }

    @Test func whatTheStoreRefusesIsAProblem() throws {
        let scratch = try Scratch()
        let empty = try scratch.path("empty.flash", "")
        func problems(_ more: String, _ data: String, _ options: [String] = []) throws -> [String] {
            let run = try CommandRun.holdfast(
                ["doctor", "--config", try settings(scratch, more), "--data", data, "--json"] + options)
            let found = try verdicts(run).filter { $0.value == "problem" }.keys.sorted()
            #expect((run.exitCode == 1) == !found.isEmpty)
            return found
        }
        #expect(try problems("", empty) == [empty])
        #expect(try problems("", empty, ["--size", "64MiB"]).isEmpty)
        let sized = ["--size", "64MiB"]
        #expect(try problems("tenants: /no/such/folder/tenants\n", empty, sized) == ["tenants"])
        #expect(try problems("catalogue: /no/such/folder/catalogue\n", empty, sized) == ["catalogue"])
        let tls = "tlsListen: 127.0.0.1:0\ntlsCertificate: /no/cert.pem\ntlsKey: /no/key.pem\n"
        #expect(try problems(tls, empty, sized) == ["tlsCertificate", "tlsKey"])
    }

    /// A certificate for some days from now on, made with its key in a folder.
    private func makeCertificate(_ scratch: Scratch, _ name: String, days: Int) throws {
        let folder = scratch.folder.path
        func openssl(_ arguments: [String]) throws {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = ["openssl"] + arguments
            process.standardError = FileHandle.nullDevice
            try process.run()
            process.waitUntilExit()
            try #require(process.terminationStatus == 0, "openssl \(arguments) fails")
        }
        let (key, first) = ("\(folder)/\(name).key", "\(folder)/\(name)-first.pem")
        try openssl([
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
            "-out",
            first, "-subj", "/CN=store", "-days", "2",
        ])
        // A request takes no 0 days, which end at once.
        try openssl(["x509", "-in", first, "-signkey", key, "-days", "\(days)", "-out", "\(folder)/\(name).pem"])
    }

    @Test func aCertificateThatClientsRefuseIsTold() throws {
        let scratch = try Scratch()
        for (name, days) in [("over", 0), ("soon", 3), ("good", 100)] {
            try makeCertificate(scratch, name, days: days)
        }
        func found(_ certificate: String, _ key: String) throws -> (verdict: String, said: String) {
            let folder = scratch.folder.path
            let tls =
                "tlsListen: 127.0.0.1:0\ntlsCertificate: \(folder)/\(certificate).pem\ntlsKey: \(folder)/\(key).key\n"
            let run = try CommandRun.holdfast(["doctor", "--config", try settings(scratch, tls), "--json"])
            return (try verdicts(run)["tlsCertificate"] ?? "nothing", try said(run, of: "tlsCertificate"))
        }
        let good = try found("good", "good")
        #expect(good.verdict == "ok", "\(good)")
        let soon = try found("soon", "soon")
        #expect(soon.verdict == "warning" && soon.said.contains("soon.pem expires soon (20"), "\(soon)")
        // Clients may come by TCP, too.
        let over = try found("over", "over")
        #expect(over.verdict == "warning" && over.said.contains("over.pem has expired (20"), "\(over)")
        let mixed = try found("good", "soon")
        #expect(mixed.verdict == "problem" && mixed.said.contains("one of another certificate"), "\(mixed)")
    }

    @Test func aMissingDriveIsWhatTheSettingsSayItIs() throws {
        let scratch = try Scratch()
        let other = scratch.folder.appendingPathComponent("b.flash").path
        _ = try StoreProcess(scratch, ["--data", other]).end(SIGTERM)
        let first = scratch.folder.appendingPathComponent("store.flash").path
        // Numbers are those of the store's log and metrics.
        let whole = try CommandRun.holdfast(
            ["doctor", "--config", try settings(scratch), "--data", first, "--data", other])
        #expect(whole.output.contains("\(first): drive 0 of a store's 2, counted from 0"), "\(whole.output)")
        #expect(whole.output.contains("\(other): drive 1 of a store's 2, counted from 0"), "\(whole.output)")
        try FileManager.default.removeItem(atPath: other)
        for (missing, code, verdict) in [("refuse", 1, "problem"), ("accept", 0, "warning"), ("replace", 0, "warning")]
        {
            let config = try settings(scratch, "missing: \(missing)\nextent: 64KiB\npayloadMax: 1MiB\nsize: 32MiB\n")
            let run = try CommandRun.holdfast(
                ["doctor", "--config", config, "--data", first, "--data", other, "--json"])
            #expect(run.exitCode == Int32(code), "\(missing): \(run.output)")
            #expect(try verdicts(run)["drives"] == verdict, "\(missing): \(run.output)")
            // And the store does what was said.
            let start = Result { try StoreProcess(scratch, ["--data", other, "--missing", missing]) }
            #expect(((try? start.get()) != nil) == (code == 0), "\(missing)")
            _ = try? start.get().end(SIGTERM)
            if missing == "accept" { #expect(!FileManager.default.fileExists(atPath: other)) }
        }
    }

    @Test func anAddressThatIsNotThisMachinesIsAProblem() throws {
        let scratch = try Scratch()
        // 192.0.2.0/24 is set aside for documents: no machine has it.
        let config = try scratch.path("store.yaml", "listen: 192.0.2.1:9460\nhttp: 127.0.0.1:0\n")
        let run = try CommandRun.holdfast(["doctor", "--config", config, "--json"])
        #expect(run.exitCode == 1)
        #expect(try verdicts(run)["listen"] == "problem")
        #expect(try verdicts(run)["http"] == "ok")
    }

    @Test func whatAnAgentCouldNotStartWithIsAProblem() throws {
        let scratch = try Scratch()
        let socket = scratch.folder.appendingPathComponent("s").path
        func doctor(_ more: String) throws -> (code: Int32, verdicts: [String: String], said: String) {
            let lines = "socket: \(socket)\ndram: 64MiB\nhttp: 127.0.0.1:0\n"
            let config = try scratch.path("agent.yaml", lines + more)
            let run = try CommandRun.holdfast(["doctor", "--agent-config", config, "--json"])
            return (run.exitCode, try verdicts(run), run.output + run.errors)
        }
        let plain = try doctor("")
        #expect(plain.code == 0 && plain.verdicts["prefill"] == "warning", "\(plain.said)")
        let named = try doctor("model: Llama-3.1-8B\ngpu: H100\n")
        #expect(named.code == 0 && named.verdicts["prefill"] == "ok", "\(named.said)")
        for (about, lines) in [
            ("NUMA", "numaNode: 1000"), ("journal", "journal: /nonexistent/journal"),
            ("traces", "traces: /nonexistent/traces"), ("prefill", "model: nobodys\ngpu: H100"),
            ("device", "device: cuda:1000\nhbm: 8MiB"),
            ("store", "store: 127.0.0.1:9\nkeys: k\ntlsAuthority: /nonexistent/ca.pem"),
        ] {
            let found = try doctor(lines)
            #expect(found.code == 1 && found.verdicts[about] == "problem", "\(lines): \(found.said)")
        }
        // Nobody listens there: the agent serves without it.
        let keys = try privateFile(scratch, "keys", "local: {key: \(String(repeating: "ab", count: 32))}\n")
        let away = try doctor("store: 127.0.0.1:9\nkeys: \(keys)")
        #expect(away.verdicts["store"] == "warning", "\(away.said)")
    }

    /// What is said of one thing.
    private func said(_ run: CommandRun, of about: String) throws -> String {
        let list = try JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [[String: Any]] ?? []
        return list.first { $0["about"] as? String == about }.map { "\($0)" } ?? "nothing: \(run.errors)"
    }

    @Test func fewerFilesThanSessionsAreAWarning() throws {
        let scratch = try Scratch()
        let few = ["/bin/sh", "-c", "ulimit -n 60 && exec \"$0\" \"$@\""]
        // 8 sessions, twice 64 peers that have still to prove who they are, 64 connections of HTTP, and 64 files beside them.
        let store = try CommandRun.holdfast(["doctor", "--config", settings(scratch), "--json"], launcher: few)
        #expect(try verdicts(store)["open files"] == "warning")
        #expect(try said(store, of: "open files").contains("60 allowed, 264 wanted for 8 sessions"), "\(store.output)")
        let enough = try CommandRun.holdfast(["doctor", "--config", settings(scratch), "--json"])
        #expect(try verdicts(enough)["open files"] == "ok")
    }

    /// Most containers' filters refuse io_uring, as this one does. A store and an agent's local flash need it, an agent without does
    /// not.
    @Test func aRefusedRingIsAProblemForDrivesOnly() throws {
        let scratch = try Scratch()
        let filter = try scratch.path(
            "filtered.py",
            """
            import ctypes, os, struct, sys

            # No further privileges; then io_uring_setup, 425 on every processor, fails with EPERM, and all else is allowed.
            steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
            code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))

            class Filter(ctypes.Structure):
                _fields_ = [("count", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

            libc = ctypes.CDLL(None)
            filter = Filter(len(steps), ctypes.addressof(code))
            if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(filter), 0, 0):
                sys.exit("the kernel takes no filter")
            os.execv(sys.argv[1], sys.argv[1:])
            """)
        let socket = scratch.folder.appendingPathComponent("s").path
        let lines = "socket: \(socket)\ndram: 64MiB\nhttp: 127.0.0.1:0\n"
        func doctor(_ option: String, _ config: String) throws -> CommandRun {
            try .holdfast(["doctor", option, config, "--json"], launcher: ["/usr/bin/env", "python3", filter])
        }
        let store = try doctor("--config", settings(scratch))
        #expect(store.exitCode == 1, "\(store.errors)")
        #expect(try verdicts(store)["io_uring"] == "problem")
        let why = try said(store, of: "io_uring")
        #expect(why.contains("io_uring is refused") && why.contains("seccomp profile"), "\(why)")
        let plain = try doctor("--agent-config", scratch.path("agent.yaml", lines))
        #expect(plain.exitCode == 0, "\(plain.output)\(plain.errors)")
        #expect(try verdicts(plain)["io_uring"] == "ok")
        let drive = scratch.folder.appendingPathComponent("blocks").path
        let local = try doctor(
            "--agent-config", scratch.path("flash.yaml", lines + "nvme: \(drive)\nnvmeSize: 64MiB\n"))
        #expect(local.exitCode == 1, "\(local.output)")
        #expect(try verdicts(local)["io_uring"] == "problem")
    }

    /// What an agent or a store will not take is no advice to lose data, and not `ok` either.
    @Test func aDriveOfAnotherKindIsAProblem() throws {
        let scratch = try Scratch()
        let folder = try CommandRun.holdfast(
            ["doctor", "--config", try settings(scratch), "--data", scratch.folder.path])
        #expect(folder.exitCode == 1 && folder.output.contains("it is a folder"), "\(folder.output)")
        #expect(!folder.output.contains("--force"), "\(folder.output)")

        _ = try StoreProcess(scratch).end(SIGTERM)
        let drive = scratch.folder.appendingPathComponent("store.flash").path
        let socket = scratch.folder.appendingPathComponent("s").path
        let config = try scratch.path(
            "agent.yaml", "socket: \(socket)\ndram: 64MiB\nhttp: 127.0.0.1:0\nnvme: \(drive)\nnvmeSize: 32MiB\n")
        let agent = try CommandRun.holdfast(["doctor", "--agent-config", config])
        #expect(agent.exitCode == 1 && agent.output.contains("it is a store's drive"), "\(agent.output)")
    }

    @Test func aStoreThatIsThereAndRefusesTheKeyIsAProblem() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        let socket = scratch.folder.appendingPathComponent("s").path
        func verdict(keys: String) throws -> (verdict: String?, said: String) {
            let config = try scratch.path(
                "agent.yaml",
                "socket: \(socket)\ndram: 64MiB\nhttp: 127.0.0.1:0\nstore: \(store.address)\nkeys: \(keys)\n")
            let run = try CommandRun.holdfast(["doctor", "--agent-config", config, "--json"])
            return (try verdicts(run)["store"], run.output + run.errors)
        }
        let right = try verdict(keys: store.keys)
        #expect(right.verdict == "ok", "\(right.said)")
        let digits = try String(contentsOfFile: store.keys, encoding: .utf8)
        let wrong = digits.replacing(/[0-9a-f]{64}/, with: String(repeating: "ab", count: 32))
        #expect(wrong != digits)
        let refused = try verdict(keys: try privateFile(scratch, "wrong.keys", wrong))
        #expect(refused.verdict == "problem" && refused.said.contains("says no hello"), "\(refused.said)")
    }

    /// Doctor opens the namespace as the agent will: one that lets this tenant in, one that is made, one that shuts it out.
    @Test func aNamespaceThatRefusesTheAgentIsAProblem() throws {
        let scratch = try Scratch()
        let keys = try privateFile(
            scratch, "tenants",
            """
            local: {key: \(String(repeating: "ab", count: 32)), operator: true}
            guest: {key: \(String(repeating: "cd", count: 32))}

            """)
        let store = try StoreProcess(scratch, ["--tenants", keys])
        let socket = scratch.folder.appendingPathComponent("s").path
        func verdict(_ namespace: String) throws -> (verdict: String?, said: String) {
            let config = try scratch.path(
                "agent.yaml",
                "socket: \(socket)\ndram: 64MiB\nhttp: 127.0.0.1:0\nstore: \(store.address)\nkeys: \(keys)\n"
                    + "tenant: guest\nnamespace: \(namespace)\n")
            let run = try CommandRun.holdfast(["doctor", "--agent-config", config, "--json"])
            return (try verdicts(run)["store"], run.output + run.errors)
        }
        let open = try verdict("prod")
        #expect(open.verdict == "ok" && open.said.contains("opens namespace `prod`"), "\(open.said)")
        let set = try store.ctl("namespace", "set", "theirs", "--allow", "local", keys: keys)
        #expect(set.exitCode == 0, "\(set.errors)")
        let shut = try verdict("theirs")
        #expect(shut.verdict == "problem", "\(shut.said)")
        #expect(shut.said.contains("refuses namespace `theirs` to `guest`"), "\(shut.said)")
        #expect(shut.said.contains("namespace set theirs --allow guest"), "\(shut.said)")
        let allowed = try store.ctl("namespace", "set", "theirs", "--allow", "local", "--allow", "guest", keys: keys)
        #expect(allowed.exitCode == 0, "\(allowed.errors)")
        #expect(try verdict("theirs").verdict == "ok")
    }

    @Test func memoryThatTheMachineDoesNotHaveIsAProblem() throws {
        let scratch = try Scratch()
        let config = try scratch.path("store.yaml", "dram: 60TiB\nlisten: 127.0.0.1:0\nhttp: 127.0.0.1:0\n")
        let run = try CommandRun.holdfast(["doctor", "--config", config, "--json"])
        #expect(run.exitCode == 1)
        #expect(try verdicts(run)["memory"] == "problem")
    }
}
