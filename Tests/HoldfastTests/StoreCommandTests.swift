// `store` and `ctl` as operators and their scripts meet them: exit codes, sentences, JSON; and the store's protocol as a client
// meets it that was written from its page alone, in another language.

import Foundation
import Testing

@Suite struct StoreCommandTests {
    /// 300,000 bytes that are not all alike: five blocks of 64 KiB.
    private func file(_ scratch: Scratch) throws -> String {
        var bytes = Data(capacity: 300_000)
        var word: UInt32 = 1
        for _ in 0..<300_000 {
            word = word &* 1_664_525 &+ 1_013_904_223
            bytes.append(UInt8(truncatingIfNeeded: word >> 24))
        }
        return try scratch.file("words", bytes).path
    }

    private func list(_ run: CommandRun) throws -> [[String: Any]] {
        try JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [[String: Any]] ?? []
    }

    private func objects(_ run: CommandRun) throws -> [[String: Any]] {
        try run.object["objects"] as? [[String: Any]] ?? []
    }

    private func counts(_ run: CommandRun) throws -> [String: Int] {
        try run.object.compactMapValues { $0 as? Int }
    }

    @Test func aFileIsPutListedGotAndChecked() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        let file = try file(scratch)
        #expect(try counts(store.ctl("put", "demo", file, "--block", "64KiB", "--json")) == ["blocks": 5, "stored": 5])
        // The first writer wins.
        #expect(try counts(store.ctl("put", "demo", file, "--block", "64KiB", "--json")) == ["blocks": 5, "stored": 0])
        let checked = try store.ctl("check", "demo", file, "--block", "64KiB", "--json")
        #expect(try counts(checked) == ["right": 5, "missing": 0, "wrong": 0])
        #expect(checked.exitCode == 0)

        let listed = try objects(store.ctl("ls", "demo", "--json"))
        #expect(listed.count == 5)
        #expect(listed.compactMap { $0["payloadBytes"] as? Int }.reduce(0, +) == 300_000)
        let some = try store.ctl("ls", "demo", "--json", "--limit", "2")
        #expect(try objects(some).count == 2)
        #expect(try some.object["leftOut"] as? Int == 3)
        let few = try store.ctl("ls", "demo", "--limit", "2")
        #expect(few.output.split(separator: "\n").count == 2)
        #expect(few.errors == "3 of 5 objects are left out; --limit 5 lists all\n")
        #expect(try store.ctl("ls", "demo", "--limit", "5").errors.isEmpty)
        let lines = try store.ctl("ls", "demo").output.split(separator: "\n")
        #expect(lines.count == 5)
        #expect(lines.allSatisfy { $0.hasSuffix(" -r") })

        let key = try #require(listed.first?["key"] as? String)
        let described = try store.ctl("stat", "demo", key)
        #expect(try described.object["payloadBytes"] as? Int == 65536)
        #expect(try described.object["durability"] as? String == "restart-safe")
        #expect(try described.object["key"] as? String == key)
        let copy = scratch.folder.appendingPathComponent("copy")
        #expect(try counts(store.ctl("get", "demo", key, copy.path, "--json")) == ["payloadBytes": 65536])
        #expect(try Data(contentsOf: copy) == Data(contentsOf: URL(filePath: file)).prefix(65536))

        let status = try store.ctl("status", "--json")
        #expect(try status.object["state"] as? String == "serving")
        #expect(try status.object["objects"] as? Int == 5)
        #expect(try store.ctl("status").output.contains("drive 0      healthy, "))

        #expect(try counts(store.ctl("verify", "--json"))["damagedFound"] == 0)
        #expect(try counts(store.ctl("flush", "--json")) == ["removed": 5])
        let gone = try store.ctl("check", "demo", file, "--block", "64KiB")
        #expect(gone.exitCode == 1)
        #expect(gone.output == "0 blocks right, 5 missing, 0 wrong\n")
        let missed = try store.ctl("stat", "demo", key)
        #expect(missed.exitCode == 1)
        #expect(
            missed.errors == "Error: \(store.address): no object \(key), group 0, shard 0/1, in `demo`; "
                + "`ctl ls` prints keys, groups and shards\n")
    }

    @Test func anObjectIsNamedByItsGroupAndShardToo() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        _ = try store.ctl("put", "demo", try file(scratch), "--block", "64KiB")
        let key = try #require(try objects(store.ctl("ls", "demo", "--json")).first?["key"] as? String)
        #expect(try store.ctl("stat", "demo", key, "--group", "0", "--shard", "0/1").exitCode == 0)
        let other = ["--group", "3", "--shard", "1/2"]
        let words = "no object \(key), group 3, shard 1/2, in `demo`"
        let copy = scratch.folder.appendingPathComponent("copy").path
        for order in [["stat", "demo", key], ["get", "demo", key, copy]] {
            let asked = try store.order(order + other)
            #expect(asked.exitCode == 1)
            #expect(asked.errors.contains(words), "\(asked.errors)")
        }
        #expect(try store.ctl("pin", "demo", key, "--owner", "me").output == "\(key) ok\n")
        #expect(try store.order(["pin", "demo", key] + other).output == "\(key) absent\n")
        #expect(try store.ctl("pins").output == "demo \(key) 0 0/1 me until unpinned\n")
        let none = try store.ctl("stat", "demo", key, "--shard", "2/2")
        #expect(none.errors.contains("`2/2` is no shard like 0/1"), "\(none.errors)")
    }

    @Test func pinsAndNamespacesSurviveAnOrderlyRestart() throws {
        let scratch = try Scratch()
        let file = try file(scratch)
        do {
            let store = try StoreProcess(scratch)
            #expect(store.start.contains("a tenant `local` with a new key was made"))
            _ = try store.ctl("put", "demo", file, "--block", "64KiB")
            let key = try #require(try objects(store.ctl("ls", "demo", "--json")).first?["key"] as? String)
            #expect(try store.ctl("pin", "demo", key, "--owner", "me").output == "\(key) ok\n")
            let absent = String(repeating: "0", count: 64)
            let both = try store.ctl("pin", "demo", key, absent, "--owner", "me", "--json")
            #expect(both.exitCode == 1)
            #expect(try list(both).compactMap { $0["status"] as? String } == ["ok", "absent"])
            let short = try store.ctl("pin", "demo", "00")
            #expect(short.exitCode == 1)
            #expect(short.errors.hasPrefix("Error: `00` is not a key of 64 hexadecimal digits"))

            let made = try store.ctl(
                "namespace", "set", "other", "--quota", "1MiB", "--durability", "volatile", "--json")
            #expect((try made.object["namespace"] as? [String: Any])?["name"] as? String == "other")
            // Quotas hold: five blocks and no more than sixteen extents.
            #expect(try store.ctl("put", "other", file, "--block", "128KiB").exitCode == 0)
            let unknown = try store.ctl("namespace", "set", "other", "--durability", "eternal")
            #expect(unknown.exitCode != 0)
            #expect(unknown.errors.contains("eternal"))
            let full = try store.ctl("namespace", "delete", "demo")
            #expect(full.exitCode == 1)
            #expect(full.errors == "Error: \(store.address): it has 5 blocks; say --force to remove them, too\n")
            let end = store.end(SIGTERM)
            #expect(end.exitCode == 0)
            #expect(end.log.contains("draining"))
            #expect(end.log.contains("drained=true"))
        }
        let store = try StoreProcess(scratch)
        #expect(store.start.contains("objects=5"))
        let pins = try #require(try store.ctl("pins", "--json").object["pins"] as? [[String: Any]])
        #expect(pins.count == 1)
        #expect(pins.first?["owner"] as? String == "me")
        let spaces = try list(store.ctl("namespace", "ls", "--json"))
        #expect(spaces.compactMap { $0["name"] as? String }.sorted() == ["demo", "other"])
        // What was volatile is gone, what was not is there.
        #expect(spaces.compactMap { $0["objects"] as? Int }.sorted() == [0, 5])
        #expect(try store.ctl("check", "demo", file, "--block", "64KiB").exitCode == 0)
        let key = try #require(pins.first?["key"] as? String)
        #expect(try store.ctl("flush").output == "4 objects removed\n")
        #expect(try store.ctl("unpin", "demo", key, "--owner", "me", "--json").exitCode == 0)
        #expect(try store.ctl("namespace", "delete", "demo", "--force").output == "deleted, 1 objects removed\n")
    }

    @Test func aLostCatalogueIsNotMadeAnewInSilence() throws {
        let scratch = try Scratch()
        do {
            let store = try StoreProcess(scratch)
            _ = try store.ctl("put", "demo", try file(scratch), "--block", "64KiB")
            _ = store.end(SIGTERM)
        }
        let lost = scratch.folder.appendingPathComponent("store.flash.catalogue").path
        for path in [lost, lost + "-wal", lost + "-shm"] { try? FileManager.default.removeItem(atPath: path) }
        #expect {
            _ = try StoreProcess(scratch)
        } throws: { error in
            guard let ended = error as? ServiceDidNotStart else { return false }
            return ended.exitCode == 1 && ended.log.contains("\(lost): there is no such file, and the drives are")
                && ended.log.contains("--catalogue")
        }
        #expect(!FileManager.default.fileExists(atPath: lost))
        // Who names it means it, and is told what it does not know.
        let store = try StoreProcess(scratch, ["--catalogue", lost])
        #expect(
            store.start.contains("5 blocks of 1 namespaces that the catalogue does not know"), "\(store.start)")
    }

    @Test func theFilesOfALostFirstDriveMustBeNamed() throws {
        let scratch = try Scratch()
        let other = scratch.folder.appendingPathComponent("b.flash").path
        _ = try StoreProcess(scratch, ["--data", other]).end(SIGTERM)
        let first = scratch.folder.appendingPathComponent("store.flash").path
        try FileManager.default.removeItem(atPath: first)
        let drives = ["--data", other, "--missing", "accept"]
        let refused = try CommandRun.holdfast(["store"] + drives + ["--listen", "127.0.0.1:0", "--http", ""])
        #expect(refused.exitCode == 1)
        #expect(
            refused.errors.contains("\(other).tenants, \(other).catalogue: there is no such file"),
            "\(refused.errors)")
        #expect(refused.errors.contains("name the store's own with --tenants and --catalogue"), "\(refused.errors)")
        #expect(!FileManager.default.fileExists(atPath: other + ".tenants"))
        // And doctor says the same.
        let common = [
            "dram: 64MiB", "listen: 127.0.0.1:0", "http: 127.0.0.1:0", "sessions: 8", "missing: accept",
            "extent: 64KiB", "payloadMax: 1MiB",
        ]
        let named = ["tenants: \(first).tenants", "catalogue: \(first).catalogue"]
        for (lines, problems) in [(common, 2), (common + named, 0)] {
            let config = try scratch.path("store.yaml", lines.joined(separator: "\n") + "\n")
            let run = try CommandRun.holdfast(["doctor", "--config", config, "--data", other])
            let found = run.output.components(separatedBy: "and the drives are a store's already").count - 1
            #expect(found == problems, "\(run.output)")
            #expect(run.exitCode == (problems == 0 ? 0 : 1), "\(run.output)")
        }
    }

    @Test func aDrainingStoreTakesNothingNewAndGivesWhatItHas() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        let file = try file(scratch)
        _ = try store.ctl("put", "demo", file, "--block", "64KiB")
        #expect(try store.ctl("drain").output == "drained\n")
        let refused = try store.ctl("put", "demo", file, "--block", "32KiB")
        #expect(refused.exitCode == 1)
        #expect(refused.errors == "Error: \(store.address): the store is draining: it takes no new objects\n")
        #expect(try store.ctl("check", "demo", file, "--block", "64KiB").exitCode == 0)
        #expect(try store.ctl("drain", "--resume", "--json").object["isQuiet"] as? Bool == true)
        #expect(try store.ctl("put", "demo", file, "--block", "32KiB").exitCode == 0)
    }

    @Test func whoDoesNotKnowTheKeyIsToldSoInOneSentence() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        let wrong = try scratch.path("wrong", "local: {key: 00112233445566778899aabbccddeeff, operator: true}\n")
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: wrong)
        let refused = try store.ctl("status", keys: wrong)
        #expect(refused.exitCode == 1)
        #expect(refused.output.isEmpty)
        #expect(
            refused.errors == "Error: \(store.address): the store refuses this tenant, or its key is wrong; "
                + "--keys must name the file of tenants that this store was started with\n")
        let nobody = try store.ctl("status", tenant: "nobody")
        #expect(nobody.exitCode == 1)
        #expect(nobody.errors == "Error: \(store.keys): there is no tenant `nobody`\n")
        // Keys that others can read are no keys.
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: wrong)
        #expect(try store.ctl("status", keys: wrong).errors.contains("chmod 600"))
        let file = try scratch.path("none", "")
        let nowhere = try CommandRun.holdfast(["ctl", "status", "--store", "127.0.0.1:1", "--keys", store.keys])
        #expect(nowhere.exitCode == 1)
        #expect(nowhere.errors.hasPrefix("Error: 127.0.0.1:1: no store answers ("))
        #expect(try store.ctl("put", "demo", file).errors.contains("\(file): is empty"))
        // And the store serves on.
        #expect(try store.ctl("status").exitCode == 0)
        let log = store.end(SIGTERM).log
        #expect(log.contains("a client could not prove its key"), "\(log)")
        #expect(log.contains("tenant=local"), "\(log)")
        #expect(log.contains("peer=tcp 127.0.0.1:"), "\(log)")
    }

    @Test func foreignDataIsRefusedAndStaysUntouched() throws {
        let scratch = try Scratch()
        let words = Data(String(repeating: "somebody's words\n", count: 200_000).utf8)
        let drive = try scratch.file("store.flash", words)
        #expect {
            _ = try StoreProcess(scratch)
        } throws: { error in
            guard let ended = error as? ServiceDidNotStart else { return false }
            return ended.exitCode == 1 && ended.log.contains("--force")
        }
        #expect(try Data(contentsOf: drive) == words)
        let store = try StoreProcess(scratch, ["--force"])
        #expect(try store.ctl("status").exitCode == 0)
    }

    @Test(arguments: [
        (["--dram", "1MiB"], "too little for four payloads"),
        (
            ["--extent", "16MiB", "--payload-max", "1MiB", "--dram", "4MiB", "--size", "256MiB"],
            "too little for four payloads of 1 MiB in extents of 16 MiB: 64 MiB"
        ),
        (["--tls-certificate", "here.pem"], "a certificate, and TLS is served nowhere"),
        (["--extent", "100KiB"], "not a multiple of 64 KiB"),
        (["--payload-max", "1GiB"], "--payload-max: `payloadMax` is 1 GiB, not from 64 KiB to 64 MiB"),
        (["--listen", "nowhere"], "--listen: `nowhere` is not address:port"),
        (["--listen", "192.0.2.1:0"], "--listen: "), (["--listen", ""], "the store listens nowhere"),
        (["--tls-listen", "127.0.0.1:0"], "TLS without a certificate"), (["--scrub", "fast"], "`scrub`"),
        (
            ["--tls-listen", "127.0.0.1:0", "--tls-certificate", "/no/cert.pem", "--tls-key", "/no/key.pem"],
            "/no/cert.pem: there is no such file"
        ),
        (["--missing", "perhaps"], "not refuse, accept or replace"), (["--no-such-option"], "--no-such-option"),
        (["--config", "/no/such/file"], "/no/such/file: there is no such file"),
        (["--tenants", "/no/such/keys"], "/no/such/keys: the folder is not there; make it"),
        (["--catalogue", "/no/such/catalogue"], "/no/such/catalogue: the folder is not there; make it"),
    ])
    func settingsThatMakeNoSenseAreRefusedInOneSentence(options: [String], sentence: String) throws {
        let scratch = try Scratch()
        let drive = scratch.folder.appendingPathComponent("store.flash").path
        let run = try CommandRun.holdfast(
            ["store", "--data", drive, "--size", "32MiB", "--listen", "127.0.0.1:0", "--http", ""] + options)
        #expect(run.exitCode != 0)
        #expect(run.errors.contains(sentence), "\(run.errors)")
        #expect(!run.errors.contains("Fatal error"))
        // What was made before an address proved to be none stays: the next start goes on with it.
        let left = try FileManager.default.contentsOfDirectory(atPath: scratch.folder.path)
        let isLate = options.contains("192.0.2.1:0") || options.contains("--tls-key")
        #expect(left.isEmpty || isLate, "\(left) is left behind")
    }

    @Test func aTakenAddressOfHTTPIsNamed() throws {
        let scratch = try Scratch()
        let other = try StoreProcess(scratch)
        let drive = scratch.folder.appendingPathComponent("second.flash").path
        let run = try CommandRun.holdfast([
            "store", "--data", drive, "--size", "32MiB", "--listen", "127.0.0.1:0", "--http", other.address,
        ])
        #expect(run.exitCode == 1)
        #expect(run.errors.contains("--http: HTTP on \(other.address) ends: "), "\(run.errors)")
    }

    @Test func anOrderlyStopIsNoErrorInTheLog() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch, ["--http", "127.0.0.1:0"])
        #expect(try store.ctl("status").exitCode == 0)
        let end = store.end(SIGTERM)
        #expect(end.exitCode == 0)
        #expect(end.log.contains("Server started and listening"), "\(end.log)")
        #expect(!end.log.contains(" error "), "\(end.log)")
        #expect(!end.log.contains("CancellationError"), "\(end.log)")
    }

    @Test func memoryIsHeldAgainstTheExtentsThatADriveHas() throws {
        let scratch = try Scratch()
        _ = try StoreProcess(scratch, ["--extent", "4MiB", "--size", "64MiB", "--dram", "16MiB"]).end(SIGTERM)
        #expect {
            _ = try StoreProcess(scratch)  // Its settings say 64 KiB, its 8 MiB are too little for the drive's 4 MiB.
        } throws: { error in
            guard let ended = error as? ServiceDidNotStart else { return false }
            return ended.exitCode == 1 && ended.log.contains("in extents of 4 MiB: 16 MiB")
        }
        let store = try StoreProcess(scratch, ["--dram", "32MiB"])
        #expect(store.start.contains("was formatted with extents of 4 MiB: `extent` 64 KiB has no effect"))
        #expect(store.start.contains("was formatted with 64 MiB: `size` 32 MiB has no effect"))
    }

    @Test(arguments: [
        (["status", "--within", "nan"], "--within is a number of seconds"),
        (["status", "--within", "1e11"], "--within is a number of seconds"),
        (["status", "--within=-1"], "--within is a number of seconds"),
        (["ls", "demo", "--limit=-5"], "--limit is 1 or more"),
        (["status", "--tls-certificate", "a.pem"], "go with --tls-authority"),
        (
            ["status", "--tls-authority", "a.pem", "--tls-certificate", "b.pem"],
            "--tls-certificate and --tls-key go together"
        ),
    ])
    func ordersThatMakeNoSenseAreRefusedInOneSentence(order: [String], sentence: String) throws {
        let run = try CommandRun.holdfast(["ctl"] + order + ["--keys", "/no/such/file"])
        #expect(run.exitCode != 0)
        #expect(run.errors.contains(sentence), "\(run.errors)")
        #expect(!run.errors.contains("Fatal error"))
    }

    @Test func questionsMakeNoNamespaceAndLongNamesAreRefused() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        let file = try file(scratch)
        let key = String(repeating: "0", count: 64)
        let nowhere = scratch.folder.appendingPathComponent("copy").path
        let questions = [
            ["ls", "nope"], ["stat", "nope", key], ["pin", "nope", key], ["unpin", "nope", key],
            ["get", "nope", key, nowhere], ["check", "nope", file],
        ]
        for question in questions {
            let asked = try CommandRun.holdfast(
                ["ctl"] + question + ["--store", store.address, "--keys", store.keys])
            #expect(asked.exitCode == 1)
            #expect(asked.errors.contains("there is no namespace `nope`"), "\(question): \(asked.errors)")
        }
        #expect(try store.ctl("namespace", "ls").output.isEmpty)
        #expect(try store.ctl("pins").output.isEmpty)
        let long = String(repeating: "n", count: 300)
        let refused = try store.ctl("put", long, file)
        #expect(refused.exitCode == 1)
        #expect(refused.errors.contains("a name of 300 bytes: more than the protocol carries"), "\(refused.errors)")
        _ = try store.ctl("put", "demo", file, "--block", "64KiB")
        #expect(try store.ctl("pin", "demo", key, "--owner", long).errors.contains("a name of 300 bytes"))
    }

    @Test func settingsStayAsTheyAreAlsoAmongThousandsOfNamespaces() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        _ = try store.ctl("namespace", "set", "big", "--quota", "16MiB", "--retention", "900", "--allow", "team")
        // What a crowd of names makes of `stat` is seen by the rules of pages; here, that nothing is read to be written back.
        let set = try store.ctl("namespace", "set", "big", "--pin-quota", "1MiB", "--json")
        let policy = (try set.object["namespace"] as? [String: Any])?["policy"] as? [String: Any]
        #expect(policy?["quotaBytes"] as? Int == 16 << 20)
        #expect(policy?["pinQuotaBytes"] as? Int == 1 << 20)
        #expect(policy?["retentionSeconds"] as? Int == 900)
        #expect(policy?["tenants"] as? [String] == ["team"])
    }

    @Test func whatWasFlushedIsGoneAlsoAfterAKill() throws {
        let scratch = try Scratch()
        let file = try file(scratch)
        do {
            let store = try StoreProcess(scratch)
            #expect(try counts(store.ctl("put", "demo", file, "--block", "1KiB", "--json"))["stored"] == 293)
            #expect(try store.ctl("flush").output == "293 objects removed\n")
            _ = store.end(SIGKILL)
        }
        let store = try StoreProcess(scratch)
        #expect(store.start.contains("objects=0"), "\(store.start)")
    }

    @Test func aDrainingStoreIsVerified() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        _ = try store.ctl("put", "demo", try file(scratch), "--block", "64KiB")
        _ = try store.ctl("drain")
        let verified = try store.ctl("verify", "--within", "30")
        #expect(verified.output == "0 objects damaged\n", "\(verified.errors)")
    }

    @Test func aDriveThatDoesNotExistYetNeedsASize() throws {
        let scratch = try Scratch()
        let drive = scratch.folder.appendingPathComponent("new.flash").path
        let run = try CommandRun.holdfast(["store", "--data", drive, "--listen", "127.0.0.1:0", "--http", ""])
        #expect(run.exitCode == 1)
        #expect(run.errors.contains("--size"))
        #expect(try CommandRun.holdfast(["store"]).errors.contains("no drive is named"))
        // What is wrong is said before anything is made on disk.
        let untouched = scratch.folder.appendingPathComponent("untouched").path
        let nowhere = try CommandRun.holdfast([
            "store", "--data", untouched, "--size", "64MiB", "--listen", "here:99999",
        ])
        #expect(nowhere.exitCode == 1 && nowhere.errors.contains("--listen: `here:99999` is not address:port"))
        #expect(!FileManager.default.fileExists(atPath: untouched))
        #expect(try CommandRun.holdfast(["ctl", "status"]).errors.contains("--keys"))
    }

    @Test func aClientWrittenFromThePageAloneWorks() throws {
        let scratch = try Scratch()
        let store = try StoreProcess(scratch)
        let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.currentDirectoryURL = top
        process.arguments = ["python3", "Tools/python/tests/check_store_client.py", store.address, store.keys]
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(said)")
        #expect(said.hasSuffix(" checks hold\n"), "\(said)")
        // Nothing that it sent did the store any harm.
        #expect(store.end(SIGTERM).exitCode == 0)
    }
}
