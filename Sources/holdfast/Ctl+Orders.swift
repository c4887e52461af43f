// Orders that change something: pins, namespaces, verification, draining.

import ArgumentParser
import Foundation
import KVModel
import KVStore
import KVTransport

extension Ctl {
    struct Pin: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Keeps objects until they are unpinned or a time is over.",
            discussion: "Refused when the namespace's budget for pins is spent. Pins survive a restart.")
        @Argument(help: "The namespace.") var namespace: String
        @Argument(help: "Keys, 64 hexadecimal digits each.") var keys: [String]
        @Option(name: .long, help: "Who pins.") var owner = "ctl"
        @Option(name: .customLong("for"), help: "Seconds; 0 is until unpinned.") var seconds: UInt32 = 0
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let connection = try to.connect()
            let names = try keys.map { ObjectName(try readKey($0)) }
            let handle = try await connection.namespace(namespace)
            let request = Request.pin(handle, names, owner: owner, lifetimeSeconds: seconds)
            try Ctl.show(try await connection.ask(request), of: keys, json: to.json)
        }
    }

    struct Unpin: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Ends pins.")
        @Argument(help: "The namespace.") var namespace: String
        @Argument(help: "Keys, 64 hexadecimal digits each.") var keys: [String]
        @Option(name: .long, help: "Who pinned.") var owner = "ctl"
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let connection = try to.connect()
            let names = try keys.map { ObjectName(try readKey($0)) }
            let handle = try await connection.namespace(namespace)
            try Ctl.show(try await connection.ask(.unpin(handle, names, owner: owner)), of: keys, json: to.json)
        }
    }

    /// One status a key; a refusal of any makes the command fail.
    static func show(_ response: Response, of keys: [String], json: Bool) throws {
        guard case .statuses(let statuses) = response.body else { return }
        if json {
            let lines = zip(keys, statuses).map { ["key": $0, "status": "\($1)"] }
            let data = try JSONSerialization.data(withJSONObject: lines, options: [.sortedKeys])
            print(String(decoding: data, as: UTF8.self))
        } else {
            for (key, status) in zip(keys, statuses) { print("\(key) \(status)") }
        }
        if statuses.contains(where: { $0 != .ok }) { throw ExitCode(1) }
    }

    struct Pins: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists all pins, those whose block is gone included.")
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let json = try await to.connect().order("pins")
            try Ctl.show(json, as: OrderResult.self, raw: to.json) { result in
                (result.pins ?? []).map { pin in
                    let end =
                        pin.expires == 0
                        ? "until unpinned" : "until \(Date(timeIntervalSince1970: Double(pin.expires)))"
                    return "\(pin.namespace) \(pin.key) \(pin.owner) \(end)" + (pin.isDangling ? " (dangling)" : "")
                }.joined(separator: "\n")
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
                let response = try await to.connect().ask(.stat)
                guard case .text(let json) = response.body else { return }
                let status = try JSONDecoder().decode(StoreStatus.self, from: Data(json))
                if to.json {
                    print(String(decoding: try encodeJSON(status.namespaces), as: UTF8.self))
                    return
                }
                for space in status.namespaces {
                    let policy = space.policy
                    let quota = policy.quotaBytes == 0 ? "no quota" : "quota \(ByteSize.text(policy.quotaBytes))"
                    print(
                        "\(space.name): \(space.objects) objects, \(ByteSize.text(space.usedBytes)), \(quota), "
                            + "\(policy.durability.rawValue), \(policy.evictionClass.rawValue), "
                            + "pins \(ByteSize.text(space.pinnedBytes)) of \(ByteSize.text(policy.pinQuotaBytes))")
                }
            }
        }

        struct Set: AsyncParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Makes a namespace or changes its settings; what is not said stays as it is.")
            @Argument(help: "Its name.") var name: String
            @Option(name: .long, help: "Bytes it may take; 0 is no limit of its own.") var quota: String?
            @Option(name: .long, help: "Bytes that may be pinned.") var pinQuota: String?
            @Option(name: .long, help: "`volatile` or `restart-safe`.") var durability: Durability?
            @Option(name: .long, help: "Seconds after which unused objects go; 0 is never.") var retention: Int?
            @Option(name: .customLong("class"), help: "`mixed`, `per-user` or `shared`.") var evictionClass:
                EvictionClass?
            @Flag(name: .long, inversion: .prefixedNo, help: "Refuse carriers that do not encrypt.")
            var encryption: Bool?
            @Option(name: .long, help: "A tenant that may use it; repeat it for several.") var allow: [String] = []
            @OptionGroup var to: StoreConnectionOptions

            func run() async throws {
                let connection = try to.connect()
                var policy = NamespacePolicy()
                let response = try await connection.ask(.stat)
                if case .text(let json) = response.body,
                    let status = try? JSONDecoder().decode(StoreStatus.self, from: Data(json)),
                    let known = status.namespaces.first(where: { $0.name == name })
                {
                    policy = known.policy
                }
                if let quota { policy.quotaBytes = try ByteSize.read(quota, name: "quota", at: "--quota") }
                if let pinQuota {
                    policy.pinQuotaBytes = try ByteSize.read(pinQuota, name: "pinQuota", at: "--pin-quota")
                }
                if let durability { policy.durability = durability }
                if let retention { policy.retentionSeconds = retention }
                if let evictionClass { policy.evictionClass = evictionClass }
                if let encryption { policy.requiresEncryption = encryption }
                if !allow.isEmpty { policy.tenants = allow }
                let json = try await connection.order("namespace-set", OrderArguments(namespace: name, policy: policy))
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
            abstract: "Reads every object at full speed and compares checksums; damaged ones are quarantined.")
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let connection = try to.connect()
            let started = try JSONDecoder().decode(
                OrderResult.self, from: Data(try await connection.order("verify")))
            var json: [UInt8] = []
            var passes = 0
            while passes < started.scrubPassesWanted ?? 0 {
                try await Task.sleep(for: .milliseconds(100))
                json = try await connection.order("progress")
                passes = try JSONDecoder().decode(OrderResult.self, from: Data(json)).scrubPasses ?? .max
            }
            let before = started.damagedFound ?? 0
            let damaged = try JSONDecoder().decode(OrderResult.self, from: Data(json)).damagedFound ?? before
            if to.json {
                print(String(decoding: json, as: UTF8.self))
            } else {
                print("\(damaged - before) objects damaged")
            }
            if damaged > before { throw ExitCode(1) }
        }
    }

    struct Drain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Takes no new requests; prints when those under way have ended.")
        @Flag(name: .long, help: "Takes requests again.") var resume = false
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let connection = try to.connect()
            var json = try await connection.order(resume ? "resume" : "drain")
            while !resume, try JSONDecoder().decode(OrderResult.self, from: Data(json)).isQuiet != true {
                try await Task.sleep(for: .milliseconds(50))
                json = try await connection.order("progress")
            }
            try Ctl.show(json, as: OrderResult.self, raw: to.json) { _ in resume ? "serving" : "drained" }
        }
    }

    struct Flush: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Forgets all objects that are not pinned, of one namespace or of all.")
        @Option(name: .long, help: "Only of this namespace.") var namespace: String?
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let json = try await to.connect().order("flush", OrderArguments(namespace: namespace))
            try Ctl.show(json, as: OrderResult.self, raw: to.json) { "\($0.removed ?? 0) objects removed" }
        }
    }
}

/// JSON of a value, its keys sorted.
func encodeJSON(_ value: some Encodable) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    return Array(try encoder.encode(value))
}

extension Durability: ExpressibleByArgument {}
extension EvictionClass: ExpressibleByArgument {}
