// Orders that change something: pins, namespaces, verification, draining.

import ArgumentParser
import Foundation
import KVModel
import KVStore
import KVSystem
import KVTransport

extension Ctl {
    struct Pin: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Keeps objects until they are unpinned or a time is over.",
            discussion: "Refused when the namespace's budget for pins is spent. Pins survive a restart.")
        @Argument(help: "The namespace.") var namespace: String
        @Argument(help: "Keys, 64 hexadecimal digits each.") var keys: [String]
        @OptionGroup var object: ObjectOptions
        @Option(name: .long, help: ArgumentHelp("Who pins.", valueName: "name")) var owner = "ctl"
        @Option(
            name: .customLong("for"), parsing: .unconditional,
            help: ArgumentHelp("Seconds; 0 is until unpinned.", valueName: "seconds"))
        var seconds: UInt32 = 0
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let names = try keys.map { try object.name($0) }
            let connection = try to.connect()
            let handle = try await connection.known(namespace)
            let request = Request.pin(handle, names, owner: owner, lifetimeSeconds: seconds)
            try Ctl.show(try await connection.ask(request), of: keys, json: to.json)
        }
    }

    struct Unpin: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Ends pins.")
        @Argument(help: "The namespace.") var namespace: String
        @Argument(help: "Keys, 64 hexadecimal digits each.") var keys: [String]
        @OptionGroup var object: ObjectOptions
        @Option(name: .long, help: ArgumentHelp("Who pinned.", valueName: "name")) var owner = "ctl"
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let names = try keys.map { try object.name($0) }
            let connection = try to.connect()
            let handle = try await connection.known(namespace)
            try Ctl.show(try await connection.ask(.unpin(handle, names, owner: owner)), of: keys, json: to.json)
        }
    }

    /// One status a key; a refusal of any makes the command fail.
    static func show(_ response: Response, of keys: [String], json: Bool) throws {
        guard case .statuses(let statuses) = response.body else { return }
        if json {
            let lines = zip(keys, statuses).map { ["key": $0, "status": "\($1)"] }
            let data = try JSONSerialization.data(withJSONObject: lines, options: [.sortedKeys])
            try print(String(decoding: data, as: UTF8.self))
        } else {
            for (key, status) in zip(keys, statuses) { try print("\(key) \(status)") }
        }
        if statuses.contains(where: { $0 != .ok }) { throw ExitCode(1) }
    }

    struct Pins: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists all pins, those whose block is gone included.")
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let pins = try await to.connect().pages("pins") { $0.pins }
                .sorted { ($0.namespace, $0.key, $0.shard, $0.owner) < ($1.namespace, $1.key, $1.shard, $1.owner) }
            if to.json {
                var all = OrderResult()
                all.pins = pins
                try print(String(decoding: try encodeJSON(all), as: UTF8.self))
                return
            }
            for pin in pins {
                let end =
                    pin.expires == 0 ? "until unpinned" : "until \(Date(timeIntervalSince1970: Double(pin.expires)))"
                try print(
                    "\(pin.namespace.plainLine) \(pin.key) \(pin.group) \(pin.shard)/\(pin.shardCount) "
                        + "\(pin.owner.plainLine) \(end)"
                        + (pin.isDangling ? " (dangling)" : ""))
            }
        }
    }

    struct Namespace: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes, changes, lists and deletes namespaces.", subcommands: [Ls.self, Set.self, Delete.self])

        struct Ls: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Lists namespaces with their settings.")
            @OptionGroup var to: StoreConnectionOptions

            func run() async throws {
                let spaces = try await to.connect().pages("namespaces") { $0.namespaces }
                if to.json {
                    try print(String(decoding: try encodeJSON(spaces), as: UTF8.self))
                    return
                }
                for space in spaces {
                    let policy = space.policy
                    let quota = policy.quotaBytes == 0 ? "no quota" : "quota \(ByteSize.text(policy.quotaBytes))"
                    try print(
                        "\(space.name.plainLine): \(space.objects) objects, "
                            + "\(ByteSize.text(space.usedBytes)), \(quota), "
                            + "\(policy.durability.rawValue), \(policy.evictionClass.rawValue), "
                            + "pins \(ByteSize.text(space.pinnedBytes)) of \(ByteSize.text(policy.pinQuotaBytes))")
                }
            }
        }

        struct Set: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Makes a namespace or changes its settings; what is not said stays as it is.")
            @Argument(help: "Its name.") var name: String
            @Option(
                name: .long, parsing: .unconditional,
                help: ArgumentHelp("Bytes it may take; 0 is no limit of its own.", valueName: "size"))
            var quota: String?
            @Option(
                name: .long, parsing: .unconditional, help: ArgumentHelp("Bytes that may be pinned.", valueName: "size")
            ) var pinQuota: String?
            @Option(name: .long, help: ArgumentHelp("`volatile` or `restart-safe`.", valueName: "class"))
            var durability: Durability?
            @Option(
                name: .long,
                parsing: .unconditional,
                help: ArgumentHelp("Seconds after which unused objects go; 0 is never.", valueName: "seconds"))
            var retention: Int?
            @Option(
                name: .customLong("class"), help: ArgumentHelp("`mixed`, `per-user` or `shared`.", valueName: "class"))
            var evictionClass: EvictionClass?
            @Flag(name: .long, inversion: .prefixedNo, help: "Refuse carriers that do not encrypt.")
            var encryption: Bool?
            @Option(
                name: .long, help: ArgumentHelp("A tenant that may use it; repeat it for several.", valueName: "tenant")
            ) var allow: [String] = []
            @OptionGroup var to: StoreConnectionOptions

            func run() async throws {
                var change = PolicyChange()
                change.quotaBytes = try quota.map { text throws(OperatorError) in
                    try ByteSize.read(text, name: "quota", at: "--quota")
                }
                change.pinQuotaBytes = try pinQuota.map { text throws(OperatorError) in
                    try ByteSize.read(text, name: "pinQuota", at: "--pin-quota")
                }
                change.durability = durability
                change.retentionSeconds = retention
                change.evictionClass = evictionClass
                change.requiresEncryption = encryption
                change.tenants = allow.isEmpty ? nil : allow
                let json = try await to.connect().order(
                    "namespace-set", OrderArguments(namespace: name, policy: change))
                try Ctl.show(json, as: OrderResult.self, raw: to.json) { _ in "\(name) is set" }
            }
        }

        struct Delete: AsyncParsableCommand {
            static let configuration = CommandConfiguration(abstract: "Deletes a namespace.")
            @Argument(help: "Its name.") var name: String
            @Flag(name: .long, help: "Also when it holds blocks, which go with it.") var force = false
            @OptionGroup var to: StoreConnectionOptions

            func run() async throws {
                let json = try await to.connect().order(
                    "namespace-delete", OrderArguments(namespace: name, force: force))
                try Ctl.show(json, as: OrderResult.self, raw: to.json) { "deleted, \($0.removed ?? 0) objects removed" }
            }
        }
    }

    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Reads every object at full speed and compares checksums; damaged ones are quarantined.",
            discussion: "Fails when the store gets no further for as long as `--within` says.")
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let connection = try to.connect()
            let started = try await connection.result("verify")
            var last = OrderResult()
            var patience = Patience(within: to.within)
            while (last.scrubPasses ?? 0) < started.scrubPassesWanted ?? 0 {
                try await Task.sleep(for: .milliseconds(20))
                let now = try await connection.result("progress")
                if now.scrubPasses != last.scrubPasses || now.scrubbedExtents != last.scrubbedExtents {
                    patience.renew()
                } else if patience.isOver {
                    throw OperatorError(
                        "\(now.scrubbedExtents ?? 0) of \(now.extents ?? 0) extents are behind it, and in \(to.within) s it "
                            + "got no further", at: to.store, remedy: "`ctl status` says how its drives are")
                }
                last = now
            }
            let before = started.damagedFound ?? 0
            let damaged = last.damagedFound ?? before
            if to.json {
                try print(String(decoding: try encodeJSON(last), as: UTF8.self))
            } else {
                try print("\(damaged - before) objects damaged")
            }
            if damaged > before { throw ExitCode(1) }
        }
    }

    struct Drain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Takes no new objects and makes no namespaces; prints when the requests under way have ended.",
            discussion: """
                Objects that are there can still be got. /readyz says 503 from then on, until --resume or a restart. \
                Fails when requests are still under way after as long as `--within` says; the store drains on.
                """)
        @Flag(name: .long, help: "Takes objects again.") var resume = false
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let connection = try to.connect()
            var result = try await connection.result(resume ? "resume" : "drain")
            let patience = Patience(within: to.within)
            while !resume, result.isQuiet != true {
                guard !patience.isOver else {
                    throw OperatorError(
                        "\(result.requestsInFlight ?? 0) requests are still under way after \(to.within) s",
                        at: to.store,
                        remedy: "ask again, or give it longer with --within")
                }
                try await Task.sleep(for: .milliseconds(50))
                result = try await connection.result("progress")
            }
            if to.json {
                try print(String(decoding: try encodeJSON(result), as: UTF8.self))
            } else {
                try print(resume ? "serving" : "drained")
            }
        }
    }

    struct Flush: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Forgets all objects that are not pinned, of one namespace or of all.")
        @Option(name: .long, help: ArgumentHelp("Only of this namespace.", valueName: "name")) var namespace: String?
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let json = try await to.connect().order("flush", OrderArguments(namespace: namespace))
            try Ctl.show(json, as: OrderResult.self, raw: to.json) { "\($0.removed ?? 0) objects removed" }
        }
    }
}

/// How long a command waits for something that may never come.
private struct Patience {
    let limit: KVModel.Duration
    private var since = MonotonicClock.now

    init(within seconds: Double) { limit = KVModel.Duration(seconds: seconds) }

    /// It got further.
    mutating func renew() { since = MonotonicClock.now }
    var isOver: Bool { MonotonicClock.now - since > limit }
}

/// JSON of a value, its keys sorted.
func encodeJSON(_ value: some Encodable) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    return Array(try encoder.encode(value))
}

extension Durability: ExpressibleByArgument {}
extension EvictionClass: ExpressibleByArgument {}
