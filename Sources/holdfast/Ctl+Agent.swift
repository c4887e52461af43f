// What an agent says of itself, for people: once, or again and again.

import ArgumentParser
import Foundation
import KVAgent
import KVMemory
import KVModel
import KVSystem

/// A question to a running agent.
struct AgentQuestion {
    let address: String
    /// Seconds that an answer may take.
    let limit: Double

    /// The agent's answer, as JSON.
    func ask(_ path: String = "/status") throws(OperatorError) -> [UInt8] {
        let (host, port) = try splitEndpoint(address, option: "--agent")
        let response: PlainResponse
        do {
            response = try plainGet(host: host, port: port, path: path, within: Duration(seconds: limit))
        } catch {
            throw OperatorError(
                error.description, at: "--agent", remedy: "is the agent running, and is this its `http`?")
        }
        guard response.status != 503 else {
            throw OperatorError("no engine has come to it yet", at: address)
        }
        guard response.status == 200 else {
            throw OperatorError("the answer is \(response.status), not that of an agent", at: address)
        }
        return response.body
    }

    /// The agent's state.
    func status() throws(OperatorError) -> SidecarStatus {
        let json = try ask()
        do { return try JSONDecoder().decode(SidecarStatus.self, from: Data(json)) } catch {
            throw OperatorError("the answer is not that of an agent of this version", at: address)
        }
    }

    /// What came in the last seconds.
    func record(ofLast seconds: Double) throws(OperatorError) -> AgentRecord {
        let json = try ask("/history?last=\(seconds)")
        do { return try JSONDecoder().decode(AgentRecord.self, from: Data(json)) } catch {
            throw OperatorError("the answer is not that of an agent of this version", at: address)
        }
    }

    /// Prints it.
    func show(json: Bool) throws {
        if json {
            try print(String(decoding: try ask(), as: UTF8.self))
        } else {
            try print(AgentPicture(try status()).text)
        }
    }
}

extension Ctl {
    struct Explain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Why a block is where it is, or how a conversation's last requests were served.",
            discussion: """
                Of a block (64 hexadecimal digits, as `ctl ls` prints them): its tiers, what became of it, and the \
                last loads in which it was found. Of a conversation (the number that its engine gives it): what was \
                found for its last requests, what loading and computing were expected to take, what was loaded, and \
                why no more.
                """)
        @Argument(help: "A key, or the number of a conversation.") var subject: String
        @Option(name: .long, help: ArgumentHelp("The agent's address (its `http`).", valueName: "address")) var agent =
            "127.0.0.1:9471"
        @OptionGroup var object: ObjectOptions
        @Option(
            name: .long, parsing: .unconditional,
            help: ArgumentHelp("Seconds that an answer may take.", valueName: "seconds")) var within =
            10.0
        @Flag(name: .long, help: "Prints JSON.") var json = false

        func run() async throws {
            let part = try object.part()
            let path: String
            if subject.count < 64, let session = UInt64(subject) {
                path = "/explain?session=\(session)"
            } else if (try? readKey(subject)) != nil {
                path = "/explain?key=\(subject)&group=\(object.group)&shard=\(part.shard)&shards=\(part.count)"
            } else {
                throw OperatorError(
                    "`\(subject)` is neither a key of 64 hexadecimal digits nor the number of a conversation",
                    remedy: "`ctl ls` prints keys; engines give numbers to conversations")
            }
            let answer = try AgentQuestion(address: agent, limit: within).ask(path)
            try Ctl.show(answer, as: Explanation.self, raw: json) { $0.sentences.joined(separator: "\n") }
        }
    }

    struct Top: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Shows an agent live: tiers, engines, paths, rates; waits while it starts anew. Ends with Ctrl-C."
        )
        @Option(name: .long, help: ArgumentHelp("The agent's address (its `http`).", valueName: "address")) var agent =
            "127.0.0.1:9471"
        @Option(
            name: .long, parsing: .unconditional, help: ArgumentHelp("Seconds between two looks.", valueName: "seconds")
        ) var every = 1.0
        @Option(
            name: .long, parsing: .unconditional,
            help: ArgumentHelp("So many looks; 0 is for ever.", valueName: "count")) var count = 0

        func validate() throws {
            guard (0.1...3600).contains(every) else { throw ValidationError("--every is from 0.1 to 3600 seconds") }
            guard count >= 0 else { throw ValidationError("--count is 0 or more") }
        }

        func run() async throws {
            let question = AgentQuestion(address: agent, limit: max(2, every))
            var before: SidecarStatus?
            var looks = 0
            while true {
                let text: String
                do throws(OperatorError) {
                    let now = try question.status()
                    text = AgentPicture(now, since: before).text
                    before = now
                } catch {
                    // An address that never answered is a wrong one; an agent that did may start anew.
                    guard looks > 0 else { throw error }
                    text = "no answer: \(error.what)"
                    before = nil
                }
                // Home and clear below: a screen that does not flicker.
                if isatty(STDOUT_FILENO) == 1 { try print("\u{1B}[H\u{1B}[J", terminator: "") }
                try print(text)
                looks += 1
                if looks == count { return }
                try await Task.sleep(for: .seconds(every))
            }
        }
    }
}

/// An agent's state in lines of text; with an earlier one, rates beside the sums.
struct AgentPicture {
    private let now: SidecarStatus
    private let before: SidecarStatus?

    init(_ now: SidecarStatus, since before: SidecarStatus? = nil) {
        self.now = now
        self.before = before
    }

    private func row(_ name: String, _ value: String) -> String {
        name.padding(toLength: 16, withPad: " ", startingAt: 0) + value
    }

    /// A count, and what came a second since the earlier look.
    private func count(_ name: String) -> String {
        let value = now.counts[name] ?? 0
        guard let before, now.uptimeSeconds > before.uptimeSeconds else { return "\(value)" }
        let more = Double(value) - Double(before.counts[name] ?? 0)
        return "\(value) (\(Int((more / (now.uptimeSeconds - before.uptimeSeconds)).rounded()))/s)"
    }

    private func bytes(_ name: String) -> String {
        let value = Int(clamping: now.counts[name] ?? 0)
        guard let before, now.uptimeSeconds > before.uptimeSeconds else { return ByteSize.text(value) }
        let more = Double(value) - Double(before.counts[name] ?? 0)
        return "\(ByteSize.text(value)) (\(ByteSize.text(Int(more / (now.uptimeSeconds - before.uptimeSeconds))))/s)"
    }

    private func time(_ name: String) -> String {
        guard let times = now.times[name], times.count > 0 else { return "" }
        func text(_ seconds: Double) -> String {
            seconds < 1e-3 ? String(format: "%.0f µs", seconds * 1e6) : String(format: "%.1f ms", seconds * 1e3)
        }
        return ", mean \(text(times.meanSeconds)), p50 < \(text(times.p50Seconds)), p99 < \(text(times.p99Seconds))"
    }

    var text: String {
        var lines = [
            row("state", "\(now.state), up \(Int(now.uptimeSeconds)) s, \(now.engines.count) engines at \(now.socket)"),
            row("look-ups", count("lookups_total") + time("lookup")),
            row("found", "\(count("blocks_found_total")) of \(count("keys_looked_up_total")) blocks"),
            row("loads", "\(count("loads_total")), \(bytes("bytes_loaded_total"))" + time("load")),
            row("saves", "\(count("saves_total")), \(bytes("bytes_saved_total"))" + time("save")),
        ]
        if let failure = now.failure { lines.insert(row("not ready", failure), at: 1) }
        let busy = now.counts["busy_total"] ?? 0
        if busy > 0 { lines.append(row("busy", "\(busy) answered with nothing")) }
        if let memory = now.memory { lines.append(row("memory", text(of: memory))) }
        if let agent = now.agent {
            lines += tiers(agent)
        } else if let store = now.store {
            lines.append(row("store", words(of: store)))
        }
        for engine in now.engines {
            lines.append(
                row(
                    "engine \(engine.number)",
                    "\(engine.kind) \(engine.client), process \(engine.process), "
                        + "\(engine.ownership)-owned\(engine.arena == "none" ? "" : ", arena \(engine.arena)"), "
                        + "\(ByteSize.text(engine.regionBytes)) shared, \(engine.requests) requests, \(engine.jobs) jobs"
                ))
        }
        for (code, count) in now.refused.sorted(by: { $0.key < $1.key }) {
            lines.append(row("refused", "\(count) for \(code)"))
        }
        return lines.joined(separator: "\n")
    }

    private func text(of memory: ArenaStatus) -> String {
        let pages = [
            ArenaPages.reservedHuge: "reserved huge pages", .transparentHuge: "transparent huge pages",
            .ordinary: "ordinary pages",
        ]
        var parts = ["\(ByteSize.text(memory.readyBytes)) ready\(memory.isComplete ? "" : " so far")"]
        parts.append("\(ByteSize.text(memory.pinnedBytes)) pinned, on \(pages[memory.pages] ?? "?")")
        return (parts + memory.failures).joined(separator: ", ")
    }

    /// The paths that there are. A rate that no byte has shown yet is what the planner believes, and says so.
    private func links(_ agent: AgentStatus) -> [String] {
        let moved = ["out_of_engine", "into_engine", "flash_read", "flash_write", "store_get", "store_put"]
            .map { agent.totals["bytes_\($0)"] ?? 0 }
        return zip(agent.links, moved).compactMap { link, bytes in
            if link.name.hasPrefix("flash"), agent.nvme.totalBytes == 0 { return nil }
            if link.name.hasPrefix("store"), agent.store == nil { return nil }
            let rate = ByteSize.text(Int(link.bytesPerSecond)) + "/s"
            return row(
                link.name,
                "\(rate)\(bytes == 0 ? " believed, none measured" : ""), \(ByteSize.text(link.waitingBytes)) waiting, "
                    + "\(link.underWay) under way")
        }
    }

    private func words(of store: AgentStatus.Store) -> String {
        store.isUsable ? "reached" : "not used\(store.reason.isEmpty ? "" : ": \(store.reason)")"
    }

    private func tiers(_ agent: AgentStatus) -> [String] {
        func tier(_ tier: AgentStatus.Tier) -> String {
            "\(ByteSize.text(tier.usedBytes)) of \(ByteSize.text(tier.totalBytes)), \(tier.hitTokens) tokens served"
        }
        var lines: [String] = []
        if let hbm = agent.hbm { lines.append(row("hbm", "\(tier(hbm)), on \(agent.device ?? "a device")")) }
        lines.append(row("dram", tier(agent.dram)))
        if agent.nvme.totalBytes > 0 { lines.append(row("nvme", tier(agent.nvme))) }
        if let store = agent.store {
            lines.append(
                row(
                    "store",
                    "\(words(of: store)), namespace \(store.namespace ?? "?"), \(agent.flash.hitTokens) tokens served"))
        }
        let prompt = max(1, agent.promptTokens)
        let own = agent.hbm == nil ? agent.hbmHitTokens : 0
        let hit =
            agent.ledger["hbm", default: 0] - own + agent.dram.hitTokens + agent.nvme.hitTokens + agent.flash.hitTokens
        lines.append(
            row(
                "prompts",
                "\(agent.promptTokens) tokens, "
                    + String(
                        format: "%.1f %% from our tiers, %.1f %% from the engine",
                        100 * Double(hit) / Double(prompt), 100 * Double(own) / Double(prompt))))
        return lines + links(agent)
    }
}
