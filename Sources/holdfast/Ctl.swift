// `holdfast ctl`: asks a running store or agent, and gives orders.

import ArgumentParser
import Foundation
import KVIdentity
import KVModel
import KVStore
import KVTransport

struct Ctl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl", abstract: "Asks a running store or agent, and gives orders.",
        discussion: """
            All orders go over the store's own protocol, with the key of a tenant; those that change more than one's \
            own blocks need an operator's.

              holdfast ctl status --keys store.flash.tenants
              holdfast ctl ls demo --keys store.flash.tenants

            An agent is asked over its HTTP address:

              holdfast ctl status --agent 127.0.0.1:9471
              holdfast ctl top --agent 127.0.0.1:9471
              holdfast ctl explain 4711 --agent 127.0.0.1:9471
            """,
        subcommands: [
            Status.self, Top.self, Explain.self, List.self, Stat.self, Pin.self, Unpin.self, Pins.self, Namespace.self,
            Verify.self, Drain.self, Flush.self, Put.self, Get.self, Check.self,
        ])

    /// Prints JSON as it came, or what `text` makes of it.
    static func show<Shape: Decodable>(_ json: [UInt8], as shape: Shape.Type, raw: Bool, text: (Shape) -> String) throws
    {
        if raw {
            try print(String(decoding: json, as: UTF8.self))
        } else {
            try print(text(try JSONDecoder().decode(shape, from: Data(json))))
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "How the store, or an agent, is doing.")
        @Option(
            name: .long,
            help: ArgumentHelp("An agent's address (its `http`) in place of a store.", valueName: "address")) var agent:
            String?
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            if let agent { return try AgentQuestion(address: agent, limit: to.within).show(json: to.json) }
            let connection = try to.connect()
            let response = try await connection.ask(.stat)
            guard case .text(let json) = response.body else { return }
            try Ctl.show(json, as: StoreStatus.self, raw: to.json) { status in
                var lines = [
                    "state        \(status.state), up \(Int(status.uptimeSeconds)) s, \(status.sessions) sessions",
                    "flash        \(ByteSize.text(status.capacityBytes)), \(ByteSize.text(status.freeBytes)) free, "
                        + "extents of \(ByteSize.text(status.extentBytes))",
                    "objects      \(status.objects), \(status.pins) pins, \(status.danglingPins) of them dangling",
                    "memory       \(ByteSize.text(status.memoryBytes)), \(status.memoryCopies) hot objects, "
                        + "\(ByteSize.text(status.memoryLentBytes)) lent",
                    "requests     \(status.requestsInFlight) under way, \(status.requestsWaiting) waiting",
                ]
                for (number, drive) in status.drives.enumerated() {
                    lines.append(
                        "drive \(number)      \(drive.state), \(drive.freeExtents) of \(drive.extents) extents free")
                }
                for space in status.namespaces {
                    lines.append(
                        "namespace    \(space.name.plainLine): \(space.objects) objects, "
                            + "\(ByteSize.text(space.usedBytes)), "
                            + space.policy.durability.rawValue)
                }
                if status.nextNamespace != 0 {
                    let more = status.namespaceCount - status.namespaces.count
                    lines.append("             and \(more) more: `ctl namespace ls`")
                }
                let asked = status.totals["lookup_keys_total"] ?? 0
                let hit = status.totals["lookup_hits_total"] ?? 0
                lines.append("looked up    \(asked) keys, \(hit) found")
                lines.append(
                    "got          \(status.totals["get_hits_total"] ?? 0) objects, "
                        + ByteSize.text(status.totals["get_bytes_total"] ?? 0))
                lines.append(
                    "put          \(status.totals["puts_stored_total"] ?? 0) objects, "
                        + ByteSize.text(status.totals["put_bytes_total"] ?? 0))
                return lines.joined(separator: "\n")
            }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "ls", abstract: "Lists the objects of a namespace.",
            discussion: """
                One line an object: key, group, shard, bytes, `p` for pinned, `r` for restart-safe. The store \
                remembers the first half of each key; the other half is printed as zeros, and all orders take \
                such keys. How many --limit left out is said on standard error, and as `leftOut` in JSON.
                """)
        @Argument(help: "The namespace.") var namespace: String
        @Option(name: .long, parsing: .unconditional, help: ArgumentHelp("How many at most.", valueName: "count"))
        var limit = 1000
        @OptionGroup var to: StoreConnectionOptions

        mutating func validate() throws {
            guard limit > 0 else { throw ValidationError("--limit is 1 or more") }
        }

        func run() async throws {
            let connection = try to.connect()
            let handle = try await connection.known(namespace)
            let count = try await connection.space(namespace).objects
            var cursor: UInt64 = 0
            var left = limit
            var lines: [[String: Any]] = []
            repeat {
                let wanted = UInt32(min(left, 1000))
                let response = try await connection.ask(.list(handle, cursor: cursor, countMax: wanted))
                guard case .page(let objects, let next) = response.body else { break }
                var page = ""
                for object in objects {
                    let name = object.name
                    if to.json {
                        lines.append([
                            "key": hexText(name.key.bytes), "group": Int(name.group), "shard": Int(name.shard),
                            "shardCount": Int(name.shardCount), "payloadBytes": Int(object.payloadBytes),
                            "isPinned": object.flags & 1 != 0, "isRestartSafe": object.flags & 2 != 0,
                        ])
                    } else {
                        let flags = (object.flags & 1 != 0 ? "p" : "-") + (object.flags & 2 != 0 ? "r" : "-")
                        page +=
                            "\(hexText(name.key.bytes)) \(name.group) \(name.shard)/\(name.shardCount) "
                            + "\(object.payloadBytes) \(flags)\n"
                    }
                }
                try print(page, terminator: "")
                left -= objects.count
                cursor = next
            } while cursor != 0 && left > 0
            // Objects come and go meanwhile: what is left out is as of the begin.
            let leftOut = cursor == 0 ? 0 : max(0, count - limit)
            if to.json {
                let page: [String: Any] = ["objects": lines, "leftOut": leftOut]
                let data = try JSONSerialization.data(withJSONObject: page, options: [.sortedKeys])
                try print(String(decoding: data, as: UTF8.self))
            } else if leftOut > 0 {
                let words = "\(leftOut) of \(count) objects are left out; --limit \(count) lists all\n"
                try FileHandle.standardError.write(contentsOf: Data(words.utf8))
            }
        }
    }

    struct Stat: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "All that is known of one object, as JSON.")
        @Argument(help: "The namespace.") var namespace: String
        @Argument(help: "The key, 64 hexadecimal digits.") var key: String
        @OptionGroup var object: ObjectOptions
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let name = try object.name(key)
            let connection = try to.connect()
            let handle = try await connection.known(namespace)
            let response = try await connection.ask(.describe(handle, name), accepting: [.ok, .absent])
            guard response.status == .ok else { throw object.absence(of: name, in: namespace, at: to.store) }
            guard case .text(let json) = response.body else { return }
            try print(String(decoding: json, as: UTF8.self))
        }
    }
}
