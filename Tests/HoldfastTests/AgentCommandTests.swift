// `agent` as operators and engines meet it: the built command, a real client in another language, HTTP, signals.

import Foundation
import FoundationNetworking
import Testing

@Suite struct AgentCommandTests {
    /// A running `holdfast agent` in a folder of its own. Ends with its owner.
    private final class AgentProcess {
        let socket: String
        private let service: ServiceProcess

        init(_ scratch: Scratch, _ more: [String] = []) throws {
            socket = scratch.folder.appendingPathComponent("s").path
            service = try ServiceProcess(
                ["agent", "--socket", socket, "--dram", "64MiB", "--http", "127.0.0.1:0"] + more,
                serving: /listening on (127\.0\.0\.1:\d+)/)
        }

        /// Where it answers HTTP.
        var http: String { service.address }

        /// The number of its process.
        var number: Int32 { service.number }

        /// Asks it to end; its exit code and what it logged.
        func end() -> (exitCode: Int32, log: String) { service.end(SIGTERM) }
    }

    private func python(_ arguments: [String]) throws -> (exitCode: Int32, said: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.currentDirectoryURL = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        process.arguments = ["python3"] + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, said)
    }

    /// What `ctl status` says once part of node memory is in: it comes in the background, a minute at most.
    private func statusWithMemory(_ agent: AgentProcess) throws -> [String: Any] {
        let deadline = Date() + 60
        while true {
            let run = try CommandRun.holdfast(["ctl", "status", "--agent", agent.http, "--json"])
            #expect(run.exitCode == 0, "\(run.errors)")
            let status = try run.object
            let memory = status["memory"] as? [String: Any]
            if memory?["readyBytes"] as? Int ?? 0 > 0 || Date() > deadline { return status }
        }
    }

    @Test func anEngineInPythonUsesARealAgent() throws {
        let scratch = try Scratch()
        // Computing costs so much that a load may take seconds: a loaded machine's tests must not find it late.
        let traces = scratch.folder.appendingPathComponent("traces.jsonl")
        let agent = try AgentProcess(
            scratch, ["--set", "prefill=0,0.1,0", "--traces", traces.path, "--log", "json"])
        let run = try python(["Tools/python/tests/conformance.py", agent.socket])
        #expect(run.exitCode == 0 && run.said.split(separator: "\n").count == 8, "\(run.said)")
        let status = try statusWithMemory(agent)
        #expect(status["state"] as? String == "serving")
        let memory = try #require(status["memory"] as? [String: Any])
        #expect((memory["readyBytes"] as? Int ?? 0) > 0 && memory["pages"] is String)
        let counts = try #require(status["counts"] as? [String: Any])
        #expect((counts["blocks_loaded_total"] as? Int ?? 0) >= 36)
        let top = try CommandRun.holdfast(["ctl", "top", "--agent", agent.http, "--count", "2", "--every", "0.1"])
        #expect(top.exitCode == 0 && top.output.contains("look-ups") && top.output.contains("/s)"), "\(top.output)")
        // The eighth key of the suite's first chain: SHA-256 of `comes back/7`.
        let key = "d0e24d3daecc4601976f7a256c7ab068940c5d1469494267f74bcacae25dbed8"
        let why = try CommandRun.holdfast(["ctl", "explain", key, "--agent", agent.http])
        #expect(why.exitCode == 0 && why.output.contains("it is in node memory"), "\(why.output)\(why.errors)")
        #expect(why.output.contains("block 7 of its chain") && why.output.contains("36 were loaded"), "\(why.output)")
        let whyJSON = try CommandRun.holdfast(["ctl", "explain", key, "--agent", agent.http, "--json"]).object
        #expect((whyJSON["block"] as? [String: Any])?["tiers"] as? [String] == ["dram"])
        let session = try CommandRun.holdfast(["ctl", "explain", "7", "--agent", agent.http])
        #expect(
            session.exitCode == 0 && session.output.contains("0 of 40 blocks found, none loaded"), "\(session.output)")
        let nobody = try CommandRun.holdfast(["ctl", "explain", "no key", "--agent", agent.http])
        #expect(nobody.exitCode == 1 && nobody.errors.contains("is neither a key of 64 hexadecimal digits nor"))
        let page = scratch.folder.appendingPathComponent("agent.html").path
        let report = try CommandRun.holdfast(["report", "--agent", agent.http, "--last", "2h"])
        #expect(report.exitCode == 0 && report.output.contains("adds up"), "\(report.output)\(report.errors)")
        #expect(report.output.contains("(2 h 0 min were asked for; it started then)"), "\(report.output)")
        #expect(report.output.contains("no `engineMetrics` is set"), "\(report.output)")
        let program = try CommandRun.holdfast(["report", "--agent", agent.http, "--json", "--html", page])
        let sections = try #require(try program.object["sections"] as? [[String: Any]])
        #expect(sections.contains { $0["title"] as? String == "Where prompt tokens came from" })
        #expect(try String(contentsOfFile: page, encoding: .utf8).contains("<h2>Where prompt tokens came from</h2>"))
        let wrong = try CommandRun.holdfast(["report", "--agent", agent.http, "--last", "yesterday"])
        #expect(wrong.exitCode != 0 && wrong.errors.contains("no time like 2h"), "\(wrong.errors)")
        let (code, log) = agent.end()
        #expect(code == 0 && log.contains("\"drained\":\"true\""), "\(log)")
        for line in log.split(separator: "\n") {
            let fields = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: String]
            #expect(fields?["level"] != nil && fields?["message"] != nil, "\(line)")
        }
        let spans = try String(contentsOf: traces, encoding: .utf8)
        for name in ["request", "lookup", "load", "save"] { #expect(spans.contains("\"name\":\"holdfast.\(name)\"")) }
        #expect(!FileManager.default.fileExists(atPath: agent.socket))
    }

    @Test func aJournalIsGivenToFreshDecisions() throws {
        let scratch = try Scratch()
        let journal = scratch.folder.appendingPathComponent("journal")
        let agent = try AgentProcess(scratch, ["--set", "prefill=0,0.1,0", "--set", "journal=\(journal.path)"])
        let engine = try python(["Tools/python/tests/conformance.py", agent.socket])
        #expect(engine.exitCode == 0, "\(engine.said)")
        #expect(agent.end().exitCode == 0)
        let read = try CommandRun.holdfast(["journal", journal.path])
        #expect(read.exitCode == 0 && read.output.contains("fresh decisions give the same"), "\(read.output)")
        #expect(read.output.contains("policy holdfast, blocks of"), "\(read.output)")
        let told = try CommandRun.holdfast(["journal", journal.path, "--json"]).object
        #expect(told["agrees"] as? Bool == true && told["isCutShort"] as? Bool == false)
        let kinds = try #require(told["commandKinds"] as? [String: Int])
        #expect((kinds["ready"] ?? 0) > 0 && kinds.values.reduce(0, +) == told["commands"] as? Int)
        let tokens = try #require(told["tokens"] as? [String: Int])
        #expect(tokens.values.reduce(0, +) == told["promptTokens"] as? Int)

        let whole = try Data(contentsOf: journal)
        func reading(_ bytes: Data) throws -> CommandRun {
            try CommandRun.holdfast(["journal", try scratch.file("other", bytes).path])
        }
        let cut = try reading(whole.dropLast(7))
        #expect(cut.exitCode == 0 && cut.output.contains("in the middle of something"), "\(cut.output)\(cut.errors)")
        var damaged = whole
        damaged[damaged.count - 100] ^= 1
        for (bytes, words) in [
            (damaged, "is not what was written"), (whole.prefix(40), "cut short in its head"),
            (Data("HFJRNL04".utf8) + whole.dropFirst(8), "of version 04"), (Data("a poem".utf8), "not a journal"),
            (Data(), "not a journal"),
        ] {
            let refused = try reading(bytes)
            #expect(refused.exitCode == 1 && refused.errors.contains(words), "\(refused.errors)")
            #expect(refused.errors.contains("/other: ") && refused.output.isEmpty, "\(refused.errors)")
        }
        let none = try CommandRun.holdfast(["journal", "/nonexistent/journal"])
        #expect(none.exitCode == 1 && none.errors.contains("/nonexistent/journal: it cannot be read"), "\(none.errors)")
    }

    /// Whoever wants to know what a dead agent decided wants to know it of its last seconds.
    @Test func whatAKilledAgentDecidedIsInItsJournalAndStaysThere() throws {
        let scratch = try Scratch()
        let journal = scratch.folder.appendingPathComponent("journal").path
        let settings = ["--set", "prefill=0,0.1,0", "--set", "journal=\(journal)"]
        func work(_ agent: AgentProcess) throws {
            let engine = try python(["Tools/python/tests/conformance.py", agent.socket])
            #expect(engine.exitCode == 0, "\(engine.said)")
        }
        var agent: AgentProcess? = try AgentProcess(scratch, settings)
        try work(#require(agent))
        // It comes to the file within a second, although nothing happens any more.
        let deadline = Date() + 60
        var finished = 0
        while finished < 1, Date() < deadline {
            let read = try CommandRun.holdfast(["journal", journal, "--json"])
            if read.exitCode == 0 { finished = (try read.object["eventKinds"] as? [String: Int])?["ended"] ?? 0 }
        }
        agent = nil
        #expect(finished > 0)
        let killed = try CommandRun.holdfast(["journal", journal])
        #expect(killed.exitCode == 0 && killed.output.contains("fresh decisions give the same"), "\(killed.output)")
        let before = try Data(contentsOf: URL(fileURLWithPath: journal))

        let next = try AgentProcess(scratch, settings)
        try work(next)
        #expect(next.end().exitCode == 0)
        #expect(try Data(contentsOf: URL(fileURLWithPath: journal + ".1")) == before)
    }

    @Test func aJournalOnAFullDiskEndsAndSaysSo() throws {
        let scratch = try Scratch()
        let agent = try AgentProcess(scratch, ["--set", "prefill=0,0.1,0", "--set", "journal=/dev/full"])
        let engine = try python(["Tools/python/tests/conformance.py", agent.socket])
        #expect(engine.exitCode == 0, "\(engine.said)")
        let page = try #require(URL(string: "http://\(agent.http)/status"))
        let status = try JSONSerialization.jsonObject(with: Data(contentsOf: page)) as? [String: Any]
        let totals = (status?["agent"] as? [String: Any])?["totals"] as? [String: Any]
        #expect(totals?["journal_bytes"] as? Int == 0)
        let (code, log) = agent.end()
        #expect(code == 0 && log.contains("the journal ends here: No space left on device"), "\(log)")
    }

    @Test func metricsProbesAndStatusAreServed() throws {
        let scratch = try Scratch()
        let agent = try AgentProcess(scratch)
        func get(_ path: String) throws -> String {
            try String(contentsOf: #require(URL(string: "http://\(agent.http)\(path)")), encoding: .utf8)
        }
        #expect(try get("/healthz") == "ok\n")
        #expect(try get("/readyz") == "ready\n")
        let metrics = try get("/metrics")
        for line in metrics.split(separator: "\n") where !line.hasPrefix("#") {
            #expect(line.wholeMatch(of: /holdfast_\w+(\{[^}]*\})? -?[0-9.e+-]+/) != nil, "\(line)")
        }
        #expect(metrics.contains("holdfast_agent_ready 1\n"))
        #expect(metrics.contains("holdfast_agent_lookup_seconds_bucket{le=\"+Inf\"} 0\n"))
        #expect(metrics.contains("holdfast_agent_refused_total{code=\"layout\"} 0\n"))
        #expect(try get("/status").contains("\"state\":\"waiting\""))
        // Probes that only want to know whether a page is there.
        for path in ["/metrics", "/healthz", "/readyz", "/status"] {
            let script = """
                import http.client, sys
                connection = http.client.HTTPConnection(sys.argv[1])
                connection.request("HEAD", sys.argv[2])
                answer = connection.getresponse()
                print(answer.status, len(answer.read()), int(answer.getheader("Content-Length")) > 0)
                """
            #expect(try python(["-c", script, agent.http, path]).said == "200 0 True\n", "\(path)")
        }
        // A time that is none is said to be none, not taken for six hours.
        let history = """
            import http.client, sys
            for last in ["abc", "0", "60"]:
                connection = http.client.HTTPConnection(sys.argv[1])
                connection.request("GET", "/history?last=" + last)
                print(connection.getresponse().status)
            """
        #expect(try python(["-c", history, agent.http]).said == "400\n400\n200\n")
        let why = try CommandRun.holdfast(["ctl", "explain", "7", "--agent", agent.http])
        #expect(why.exitCode == 1 && why.errors.contains("no engine has come to it yet"), "\(why.errors)")
    }

    /// Nobody proves who he is over HTTP: whoever holds all connections that there may be keeps no probe out.
    @Test func heldConnectionsOfHTTPMakeRoomForAProbe() throws {
        let scratch = try Scratch()
        let agent = try AgentProcess(scratch)
        let script = """
            import http.client, socket, sys
            host, port = sys.argv[1].split(":")
            held = [socket.create_connection((host, int(port))) for _ in range(80)]
            for half in held[::2]:
                try:
                    half.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 9\\r\\n\\r\\n")
                except OSError:  # It made room already.
                    pass
            for _ in range(3):
                probe = http.client.HTTPConnection(sys.argv[1], timeout=30)
                probe.request("GET", "/healthz")
                answer = probe.getresponse()
                print(answer.status)
                answer.read()
                held.append(probe)
            # The last that were answered stay.
            probe.request("GET", "/readyz")
            print(probe.getresponse().read())
            """
        let run = try python(["-c", script, agent.http])
        #expect(run.exitCode == 0 && run.said == "200\n200\n200\nb'ready\\n'\n", "\(run.said)")
    }

    /// Engines are told that the agent ends as soon as it is asked to, whoever has asked for a page and does not read it.
    @Test func aPageThatNobodyReadsHoldsUpNoEnd() throws {
        let scratch = try Scratch()
        let agent = try AgentProcess(scratch)
        let script = """
            import os, signal, socket, sys, time
            host, port = sys.argv[1].split(":")
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((host, int(port)))
            deaf.settimeout(1)
            try:
                while True:  # Until no more is read of it, for its answers are not.
                    deaf.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" * 100)
            except TimeoutError:
                pass
            agent = int(sys.argv[2])
            os.kill(agent, signal.SIGTERM)
            def runs():
                try:
                    return open(f"/proc/{agent}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
                except FileNotFoundError:
                    return False
            limit = time.monotonic() + 30
            while runs() and time.monotonic() < limit:
                time.sleep(0.05)
            print("runs" if runs() else "ended")
            """
        let run = try python(["-c", script, agent.http, String(agent.number)])
        #expect(run.exitCode == 0 && run.said == "ended\n", "\(run.said)")
        let end = agent.end()
        #expect(end.exitCode == 0 && end.log.contains("drained=true"), "\(end.log)")
    }

    /// An agent that is asked for ten thousand tokens a second has met more than 2^32 within five days.
    @Test func manyTokensAreCountedInFull() throws {
        let scratch = try Scratch()
        defer { withExtendedLifetime(scratch) {} }
        let agent = try AgentProcess(scratch)
        let script = """
            import sys
            sys.path.insert(0, "Tools/python")
            from holdfast_kv.client import Client, Settings
            from holdfast_kv.namespace import REQUIRED_FIELDS
            fields = dict.fromkeys(REQUIRED_FIELDS, "1") | {"block_tokens": "16"}
            with Client(sys.argv[1], kind="replay", store_namespace="default", fields=fields, block_bytes=4096,
                        settings=Settings(lookup_deadline=30.0), checks=False) as client:
                assert client.wait_open(30)
                for number in range(3):
                    ticket, found = client.lookup([bytes(32)], prompt_tokens=2**31 - 1)
                    found.result(30)
                    client.finished(ticket)
                assert client.ping().result(30)
            """
        let run = try python(["-c", script, agent.socket])
        #expect(run.exitCode == 0, "\(run.said)")
        // What is shown is up to a tenth of a second old.
        let deadline = Date() + 30
        var said = ""
        repeat {
            said = try CommandRun.holdfast(["ctl", "status", "--agent", agent.http]).output
        } while !said.contains("6442450941 tokens, ") && Date() < deadline
        #expect(said.contains("6442450941 tokens, "), "\(said)")
    }

    @Test func aSecondAgentAtTheSameSocketIsRefused() throws {
        let scratch = try Scratch()
        let agent = try AgentProcess(scratch)
        let second = try CommandRun.holdfast(["agent", "--socket", agent.socket, "--http", ""])
        #expect(second.exitCode == 1)
        #expect(second.errors.contains("another process listens on"))
    }

    @Test func everySettingIsDocumentedAndReadBack() throws {
        let documented = try CommandRun.holdfast(["agent", "--print-config"])
        #expect(documented.exitCode == 0)
        let scratch = try Scratch()
        // Its own folder for the socket, so that the documented file holds on any machine.
        let text = documented.output.replacing("/run/holdfast/agent.sock", with: scratch.folder.path + "/s")
            .replacing("127.0.0.1:9471", with: "127.0.0.1:0").replacing("dram: 8GiB", with: "dram: 16MiB")
        let config = try scratch.path("agent.yaml", text)
        let run = try CommandRun.holdfast(["doctor", "--agent-config", config, "--json"])
        #expect(!run.output.contains("\"about\":\"settings\",\"found\":\"there is no"), "\(run.output)")
        #expect(run.output.contains("all of them are known"), "\(run.output)")
    }

    @Test func aWrongSettingIsNamedWithItsLineAndTheNearestOne() throws {
        let scratch = try Scratch()
        let config = try scratch.path("agent.yaml", "dram: 64MiB\nsoket: /tmp/x\n")
        let run = try CommandRun.holdfast(["agent", "--config", config])
        #expect(run.exitCode == 1)
        #expect(
            run.errors.contains("\(config):2: there is no setting `soket`; the nearest is `socket`"), "\(run.errors)")
        for (arguments, words) in [
            (["--set", "planner=never"], "`planner` is `never`, not always, threshold or split"),
            (["--nvme", "/tmp/blocks"], "has no size"), (["--store", "nowhere"], "is not address:port"),
            (["--store", "127.0.0.1:1"], "the store asks for a key"), (["--keys", "/tmp/k"], "`keys` without a store"),
            (["--dram", "1KiB"], "`dram` is 1 KiB, not from 1 MiB"),
            (["--model", "Llama-3.1-70B"], "`model` and `gpu` go together"),
        ] {
            let run = try CommandRun.holdfast(["agent"] + arguments)
            #expect(run.exitCode == 1 && run.errors.contains(words), "\(arguments): \(run.errors)")
        }
    }

    @Test func doctorWarnsOfMemoryThatOnlyHoldsTheEnginesBlocksAgain() throws {
        let scratch = try Scratch()
        let config = try scratch.path("agent.yaml", "dram: 64MiB\nsocket: \(scratch.folder.path)/s\nhttp: \"\"\n")
        let run = try CommandRun.holdfast(["doctor", "--agent-config", config, "--engine-region", "128MiB"])
        #expect(run.output.contains("warning  double caching"), "\(run.output)")
        let larger = try CommandRun.holdfast(["doctor", "--agent-config", config, "--engine-region", "16MiB"])
        #expect(larger.output.contains("ok       double caching"), "\(larger.output)")
    }

    @Test func noAgentIsSaidInOneSentence() throws {
        let run = try CommandRun.holdfast(["ctl", "status", "--agent", "127.0.0.1:1"])
        #expect(run.exitCode == 1)
        #expect(run.errors.contains("is the agent running"), "\(run.errors)")
    }
}
