// The live replay as its users run it: a store and two agents as processes of their own, real bytes, each of them
// compared. In lock step the modelled nodes serve the same tokens from the same tiers, and what is killed in the middle costs
// hits but nothing else.

import Foundation
import Testing

@Suite(.serialized) struct LiveReplayTests {
    /// Thirteen conversations over three shared prompts, small enough for seconds.
    private let scratch: Scratch
    private let trace: String

    init() throws {
        scratch = try Scratch()
        let lines = (0..<240).map { index -> String in
            // Each turn goes on where the last ended; 13 is no multiple of the engines, so that turns in order move on.
            let (session, turn) = (index % 13, index / 13)
            let prompt = (0..<6).map { 10_000 + 100 * (session % 3) + $0 }
            let own = (0..<(4 + 2 * turn)).map { 100_000 + 1000 * session + $0 }
            let ids = (prompt + own).map(String.init).joined(separator: ", ")
            let tokens = (prompt.count + own.count) * 512
            return """
                {"timestamp": \(index * 500), "input_length": \(tokens), "output_length": 64, "hash_ids": [\(ids)]}
                """
        }
        trace = try scratch.path("turns.jsonl", lines.joined(separator: "\n") + "\n")
    }

    /// Node memory for a part of the blocks, so that the store has something to give.
    private func replay(_ more: [String]) throws -> CommandRun {
        try .holdfast(
            ["replay", trace, "--lockstep", "--agents", "2", "--set", "tiers.dram.perNode=24GB", "--json"] + more,
            seconds: 120)
    }

    private func ledger(_ run: CommandRun) throws -> [String: Int] {
        #expect(run.exitCode == 0, "\(run.errors)")
        let system = try #require((try run.object["systems"] as? [[String: Any]])?.first)
        return try #require(system["ledger"] as? [String: Int])
    }

    private func served(_ ledger: [String: Int]) -> Int {
        ["hbm", "dram", "nvme", "flash"].reduce(0) { $0 + (ledger[$1] ?? 0) }
    }

    @Test(arguments: [
        ["--route", "migrating", "--set", "tiers.policy=lru"], ["--route", "roundRobin"],
        [
            "--route", "roundRobin", "--set", "tiers.nvme.use=true", "--set", "tiers.nvme.perNode=40GB", "--set",
            "tiers.flash.use=false",
        ],
        // A slow link; blocks 20,000 times smaller than the model's get as much less of it.
        ["--route", "roundRobin", "--set", "tiers.flash.nic=100 MB/s", "--set", "planner.policy=always"],
    ])
    func liveHitsAreTheModelledOnesToTheToken(_ options: [String]) throws {
        let modelled = try ledger(try replay(options))
        let run = try replay(options + ["--live", "--block-bytes", "4KiB"])
        #expect(try ledger(run) == modelled)
        #expect(served(modelled) > 0 && modelled[options.contains("tiers.flash.use=false") ? "nvme" : "flash"] ?? 0 > 0)
        #expect(run.errors.contains("bytes of hits were compared, all right"))
        #expect(try run.object["mode"] as? String == "live")
    }

    /// What becomes too small for agents with small blocks is refused by the scenario's own names.
    @Test(arguments: [
        (["tiers.dram.perNode=6GB"], "tiers.dram.perNode: node memory is "),
        (["tiers.flash.nic=1 MB/s"], "tiers.flash: the path moves 41 B/s"),
        (["links.hostMemory=1 MB/s"], "links.hostMemory: the path moves 41 B/s"),
        (["tiers.nvme.use=true", "tiers.nvme.read=1 MB/s"], "tiers.nvme: the path moves 41 B/s"),
    ])
    func whatIsTooSmallForAgentsIsRefusedByName(_ settings: [String], _ words: String) throws {
        let run = try replay(["--block-bytes", "4KiB"] + settings.flatMap { ["--set", $0] })
        #expect(run.exitCode == 1)
        #expect(run.errors.contains(words), "\(run.errors)")
        #expect(run.errors.contains("give a larger --block-bytes"), "\(run.errors)")
    }

    /// HBM slots of the agents: the engines of a node read and write their blocks there, and node memory and the store stand behind.
    @Test func liveHitsInHBMSlotsAreTheModelledOnesToTheToken() throws {
        let options = ["--route", "migrating", "--hbm", "8GB"]
        let modelled = try ledger(try replay(options))
        let run = try replay(options + ["--live", "--block-bytes", "4KiB"])
        #expect(try ledger(run) == modelled)
        for tier in ["hbm", "dram", "flash"] { #expect(modelled[tier] ?? 0 > 0, "nothing was served from \(tier)") }
        #expect(run.errors.contains("bytes of hits were compared, all right"))
    }

    @Test(arguments: ["agent@80", "engine@80"])
    func whoDiesWithHBMSlotsCostsHitsAndNothingElse(_ victim: String) throws {
        let options = ["--route", "migrating", "--hbm", "8GB"]
        let whole = try ledger(try replay(options))
        let run = try replay(options + ["--live", "--block-bytes", "4KiB", "--kill", victim])
        let live = try ledger(run)
        #expect(live.values.reduce(0, +) == whole.values.reduce(0, +) && live["firstSeen"] == whole["firstSeen"])
        #expect(served(live) > served(whole) / 4 && served(live) <= served(whole))
        #expect(!run.errors.contains("lived on"), "nothing died: \(run.errors)")
    }

    @Test func conversationsThatMigrateLoseNothingThatTheStoreHas() throws {
        // Each request goes to the other agent than the one before it: B never saw what A computed, and hits it.
        let sticky = try ledger(try replay(["--route", "sticky", "--live", "--block-bytes", "4KiB"]))
        let roaming = try ledger(try replay(["--route", "roundRobin", "--live", "--block-bytes", "4KiB"]))
        #expect(roaming["flash"] ?? 0 > sticky["flash"] ?? 0)
        #expect(served(roaming) == served(sticky))
        #expect(roaming["heldElsewhere"] == 0)
    }

    /// Stores for a few of the blocks that are saved. Which of them it lets go is a store's own business: a real one judges by the
    /// seconds of its clock, the deepest block first, and ahead of need, where the modelled one follows the scenario's policy.
    /// All else is the same, and what is gone is a miss by its cause.
    @Test(arguments: ["1GB", "8GB"])
    func aFullStoreServesLessAndTheLedgerSaysWhy(_ size: String) throws {
        let options = ["--route", "roundRobin", "--set", "tiers.policy=lru"]
        let endless = try ledger(try replay(options))
        let small = options + ["--set", "tiers.flash.perServer=\(size)"]
        let modelled = try ledger(try replay(small))
        let run = try replay(small + ["--live", "--block-bytes", "4KiB"])
        let live = try ledger(run)
        #expect(run.errors.contains("bytes of hits were compared, all right"))
        // The engines' own memory, what nobody ever computed, and all together do not hang on what a store keeps.
        for part in ["hbm", "firstSeen", "alwaysComputed", "corrupt", "noTier"] {
            #expect(live[part] == modelled[part], "\(part): \(live) \(modelled)")
        }
        #expect(live.values.reduce(0, +) == modelled.values.reduce(0, +))
        #expect(served(live) <= served(endless) && served(modelled) < served(endless), "\(live) \(modelled)")
        if size == "1GB" {
            // Between a block's put and its first use twice as many come as there is room for: some must be missed.
            #expect(served(live) < served(endless), "\(live)")
            let gone = ["evicted", "heldElsewhere", "lostAfterLookUp"].reduce(0) { $0 + (live[$1] ?? 0) }
            #expect(gone > 0, "\(live)")
        } else {
            // The first use of the first chains comes before it is full.
            #expect(live["flash"] ?? 0 > 0 && modelled["flash"] ?? 0 > 0, "\(live) \(modelled)")
        }
    }

    @Test(arguments: ["store@80", "store@80-120", "agent@80", "engine@80"])
    func whatIsKilledInTheMiddleCostsHitsAndNothingElse(_ victim: String) throws {
        let whole = try ledger(try replay(["--route", "migrating"]))
        let run = try replay(["--route", "migrating", "--live", "--block-bytes", "4KiB", "--kill", victim])
        let live = try ledger(run)
        #expect(served(live) <= served(whole))
        #expect(served(live) > served(whole) / 4)
        #expect(live.values.reduce(0, +) == whole.values.reduce(0, +))
        // What was lost is in the ledger by its cause, never as new.
        #expect(live["firstSeen"] == whole["firstSeen"])
        #expect(!run.errors.contains("lived on"), "nothing died: \(run.errors)")
    }

    @Test func aStoreThatReturnsServesHitsAgain() throws {
        let options = ["--route", "roundRobin", "--live", "--block-bytes", "4KiB", "--kill"]
        let gone = try ledger(try replay(options + ["store@80"]))
        let back = try ledger(try replay(options + ["store@80-120"]))
        #expect(back["flash"] ?? 0 > 2 * (gone["flash"] ?? 0), "\(back) \(gone)")
        #expect(served(back) > served(gone))
    }

    @Test func agentEngineAndStoreMayAllDieInOneRun() throws {
        let whole = try ledger(try replay(["--route", "migrating"]))
        let run = try replay(
            ["--route", "migrating", "--live", "--block-bytes", "4KiB"]
                + ["agent@60", "engine@100", "store@140-180"].flatMap { ["--kill", $0] })
        let live = try ledger(run)
        #expect(live.values.reduce(0, +) == whole.values.reduce(0, +) && live["firstSeen"] == whole["firstSeen"])
        #expect(served(live) > served(whole) / 4 && served(live) <= served(whole))
        #expect(!run.errors.contains("lived on"), "nothing died: \(run.errors)")
    }

    /// In the trace's own time, two minutes of it in some seconds. How many hits there are is the machine's business.
    @Test(arguments: [
        [], ["--kill", "agent@60", "--kill", "engine@90", "--kill", "store@120-150"], ["--hbm", "40GB"],
        ["--hbm", "40GB", "--kill", "agent@60", "--kill", "engine@90", "--kill", "store@120-150"],
    ])
    func inTimeEveryRequestIsServedAndEveryHitCompared(_ more: [String]) throws {
        let whole = try ledger(try replay(["--route", "migrating"]))
        let run = try CommandRun.holdfast(
            [
                "replay", trace, "--live", "--agents", "2", "--route", "migrating", "--compress", "20", "--block-bytes",
                "4KiB", "--set", "tiers.dram.perNode=24GB", "--json",
            ] + more, seconds: 120)
        let live = try ledger(run)
        let system = try #require((try run.object["systems"] as? [[String: Any]])?.first)
        #expect(system["completedRequests"] as? Int == 240)
        #expect((system["ttft"] as? [String: Any])?["count"] as? Int == 240)
        #expect(run.errors.contains("bytes of hits were compared, all right"), "\(run.errors)")
        #expect(!run.errors.contains("lived on"), "nothing died: \(run.errors)")
        #expect(served(live) > served(whole) / 4)
        if !more.contains("--kill") {
            #expect(live["firstSeen"] == whole["firstSeen"] && live.values.reduce(0, +) == whole.values.reduce(0, +))
        }
        // Where HBM slots are the agents', hits in HBM are in their books; engines that own their memory say themselves.
        if more.contains("--hbm") {
            #expect(live["hbm"] ?? 0 > 0 && run.errors.contains("bytes were offered"))
            let tiers = try #require((try run.object["configuration"] as? [String: Any])?["tiers"] as? [[String: Any]])
            let hbm = (tiers.first { $0["tier"] as? String == "hbm" }?["bytes"] as? NSNumber)?.doubleValue ?? 0
            #expect(hbm > 79e9 && hbm <= 80e9)
        }
    }

    @Test func aPaceIsForLiveReplaysInTime() throws {
        for words in [
            ["--compress", "2"], ["--lockstep", "--live", "--compress", "2"], ["--live", "--compress", "0"],
        ] {
            let run = try CommandRun.holdfast(["replay", trace] + words)
            #expect(run.exitCode == 64 && run.errors.contains("--compress"), "\(words): \(run.errors)")
        }
    }

    @Test func hbmSlotsAreForLockStepAndLiveRunsAndHoldSomeBlocks() throws {
        for (words, code, text) in [
            ([], Int32(64), "--lockstep"), (["--lockstep", "--set", "tiers.flash.use=false"], 1, "--hbm"),
            (["--live", "--set", "tiers.flash.use=false"], 1, "--hbm"),
        ] {
            let run = try CommandRun.holdfast(["replay", trace, "--hbm", "1MB"] + words)
            #expect(run.exitCode == code && run.errors.contains(text), "\(words): \(run.errors)")
        }
    }

    @Test func loadsAreReportedBesideWhatAProfileSays() throws {
        let profile = try scratch.path(
            "profile.json",
            """
            {"schema": "holdfast-profile-1", "loads": {
              "dram": [{"blockBytes": 4096, "latencySeconds": 1e-4, "blockSeconds": 1e-6}],
              "flash": [{"blockBytes": 4096, "latencySeconds": 3e-4, "blockSeconds": 2e-6}]}}
            """)
        let run = try replay(
            ["--route", "roundRobin", "--live", "--block-bytes", "4KiB", "--profile", profile])
        #expect(run.exitCode == 0, "\(run.errors)")
        let live = try #require(try run.object["live"] as? [String: Any])
        let loads = try #require(live["loads"] as? [[String: Any]])
        let flash = try #require(loads.first { $0["tier"] as? String == "flash" })
        #expect(flash["count"] as? Int ?? 0 > 0)
        // What the profile says of a load, of each of its blocks, and of the last slice's way on.
        let predicted = flash["predictedSeconds"] as? Double ?? 0
        #expect(predicted > 3e-4 && predicted < 3e-4 + 100 * 3e-6)
        #expect(flash["measuredSeconds"] as? Double ?? 0 > 0 && flash["ratio"] as? Double ?? 0 > 0)
        #expect(run.errors.contains("from flash: "))
        // Loads by their size, too.
        #expect(loads.contains { $0["blocksMin"] as? Int ?? 0 > 1 && $0["count"] as? Int ?? 0 >= 5 })
    }

    /// Whoever started an agent for a replay may be killed: then nobody ends it.
    @Test func whatAReplayStartedEndsWithIt() throws {
        let binary = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appendingPathComponent("holdfast").path
        let shell = Process()
        shell.executableURL = URL(fileURLWithPath: "/bin/sh")
        let agent = "\"$0\" agent --socket \"$1\" --dram 64MiB --http '' --ends-with $$"
        shell.arguments = [
            "-c", "\(agent) & echo agent=$!; wait", binary, scratch.folder.appendingPathComponent("s").path,
        ]
        let output = Pipe()
        shell.standardInput = FileHandle.nullDevice
        shell.standardOutput = output
        shell.standardError = output
        try shell.run()
        var said = ""
        while !said.contains("engines may come") || !said.contains("agent=") {
            let more = output.fileHandleForReading.availableData
            guard !more.isEmpty else { break }
            said += String(decoding: more, as: UTF8.self)
        }
        let number = try #require(said.firstMatch(of: /agent=(\d+)/).flatMap { Int32($0.1) }, "\(said)")
        #expect(said.contains("engines may come"), "\(said)")
        let watch = DispatchWorkItem { kill(number, SIGKILL) }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(30), execute: watch)
        let begun = Date()
        kill(shell.processIdentifier, SIGKILL)
        // The pipe has its end when the agent has.
        _ = output.fileHandleForReading.readDataToEndOfFile()
        #expect(Date().timeIntervalSince(begun) < 30, "it lived on")
        watch.cancel()
        shell.waitUntilExit()
    }

    /// Two things say that a folder is abandoned: no process has its number, and nobody holds its lock.
    @Test func foldersThatKilledRunsLeftAreRemoved() throws {
        let files = FileManager.default
        let place = try Scratch()
        func folder(_ name: String) throws -> String {
            let path = place.folder.appendingPathComponent(name).path
            try files.createDirectory(atPath: path, withIntermediateDirectories: true)
            for file in ["owner", "store.flash"] { try Data().write(to: URL(fileURLWithPath: path + "/" + file)) }
            return path
        }
        // No process has so high a number; this one has its own.
        let abandoned = try folder("holdfast-live-2147483647")
        let locked = try folder("holdfast-live-2147483646")
        let living = try folder("holdfast-live-\(ProcessInfo.processInfo.processIdentifier)")
        let another = try folder("holdfast-live-notes")
        let lock = unsafe open(locked + "/owner", O_RDWR | O_CLOEXEC)
        #expect(flock(lock, LOCK_EX | LOCK_NB) == 0)
        defer { close(lock) }
        let few = try scratch.path(
            "few.jsonl",
            (0..<4).map {
                "{\"timestamp\": \($0), \"input_length\": 1024, \"output_length\": 1, \"hash_ids\": [1, 2]}\n"
            }.joined())
        let run = try CommandRun.holdfast(
            ["replay", few, "--lockstep", "--live", "--agents", "1", "--block-bytes", "4KiB", "--json"]
                + ["--set", "tiers.dram.perNode=24GB"], seconds: 120, environment: ["TMPDIR": place.folder.path])
        #expect(run.exitCode == 0, "\(run.errors)")
        #expect(!files.fileExists(atPath: abandoned))
        for path in [locked, living, another] { #expect(files.fileExists(atPath: path + "/store.flash"), "\(path)") }
        #expect(
            try files.contentsOfDirectory(atPath: place.folder.path).filter { $0.hasPrefix("holdfast-live") }.count == 3
        )
    }

    @Test func aKillingThatMakesNoSenseIsRefused() throws {
        for words in ["agent", "agent@x", "agent@5-9", "store@9-5", "door@5"] {
            let run = try replay(["--live", "--kill", words])
            #expect(run.exitCode == 1 && run.errors.contains("--kill"), "\(words): \(run.errors)")
        }
        // And one that would never come.
        for words in ["agent@240", "store@80-9999"] {
            let run = try replay(["--live", "--kill", words])
            #expect(run.exitCode == 1 && run.errors.contains("the trace has 240 requests"), "\(words): \(run.errors)")
        }
    }
}
