// What was measured on a machine: rates and first-byte latencies of its links and tiers. `calibrate` writes one; a
// replay takes it in place of the scenario's figures.
//
// The file is one JSON object. All keys but `schema` may be missing; what is missing stays as the scenario has it. A key that
// is not one of these is refused: a figure that nobody reads would be believed to count. `Traces/README.md` has the same.
// `calibrate` writes down beside them each point that it measured, for people (`notes`).
//
//     {
//       "schema": "holdfast-profile-1",
//       "machine": "2 × EPYC 9454, 8 × H100, 400 GbE",        words, for the record
//       "hostToGPU":  {"bytesPerSecond": 5.3e10},             one GPU, each way, as reached
//       "hostMemory": {"bytesPerSecond": 2.8e11},             copies in and out of DRAM, a node
//       "hostNIC":    {"bytesPerSecond": 4.3e10},             a node, each way
//       "dram":  {"readBytesPerSecond": 6e9, "latencySeconds": 1.2e-5},      into an engine
//       "nvme":  {"readBytesPerSecond": 2.6e10, "writeBytesPerSecond": 1.8e10, "latencySeconds": 9e-5},
//       "flash": {"readBytesPerSecond": 1.5e11, "writeBytesPerSecond": 9e10, "nicBytesPerSecond": 8.7e10,
//                 "latencySeconds": 1.4e-4},                  one server
//       "loads": {"dram":  [{"blockBytes": 65536, "latencySeconds": 9e-5, "blockSeconds": 2e-5}, …],
//                 "nvme":  […], "flash": […]}                 loads as an engine sees them, one at a time
//     }
//
// Rates are what transfers reached, so no efficiency is taken from them again. What many transfers reach together says little of
// how long one load takes that has nothing beside it; `loads` says that.

import Foundation
import KVModel

/// A machine's measured rates and latencies.
public struct DeviceProfile: Codable, Sendable, Equatable {
    /// `holdfast-profile-1`.
    public var schema: String
    /// The machine in words.
    public var machine: String?
    /// Host memory to one GPU.
    public var hostToGPU: Rate?
    /// Copies in and out of a node's memory.
    public var hostMemory: Rate?
    /// A node's network.
    public var hostNIC: Rate?
    /// Node memory as a tier.
    public var dram: Device?
    /// Flash of the node.
    public var nvme: Device?
    /// One server of the shared store.
    public var flash: Device?
    /// What loads cost, one at a time.
    public var loads: LoadCosts?

    /// A link's rate.
    public struct Rate: Codable, Sendable, Equatable {
        /// Each way, as reached.
        public var bytesPerSecond: Double
    }

    /// A tier's rates and latency.
    public struct Device: Codable, Sendable, Equatable {
        /// Reading, as reached.
        public var readBytesPerSecond: Double?
        /// Writing, as reached.
        public var writeBytesPerSecond: Double?
        /// A server's network, each way, as reached.
        public var nicBytesPerSecond: Double?
        /// First byte.
        public var latencySeconds: Double?
    }

    /// The schema that this version reads.
    public static let schemaName = "holdfast-profile-1"

    /// Reads a profile; `place` names it in errors.
    public init(json: Data, at place: String) throws(OperatorError) {
        do {
            self = try JSONDecoder().decode(DeviceProfile.self, from: json)
        } catch let error as DecodingError {
            throw OperatorError("not a device profile: \(Self.reason(error))", at: place)
        } catch {
            throw OperatorError("not a device profile: it is not valid JSON", at: place)
        }
        guard schema == Self.schemaName else {
            throw OperatorError("the profile has schema `\(schema)`, this version reads \(Self.schemaName)", at: place)
        }
        for (name, rate) in rates {
            guard rate.isFinite, rate >= 1e6, rate <= 1e14 else {
                throw OperatorError("`\(name)` is \(rate), outside 1e6 to 1e14 bytes a second", at: place)
            }
        }
        for (name, seconds) in latencies {
            guard seconds.isFinite, seconds >= 0, seconds <= 1 else {
                throw OperatorError("`\(name)` is \(seconds), outside 0 to 1 second", at: place)
            }
        }
        if let unknown = Self.unknownKey(json, self) {
            throw OperatorError("`\(unknown)` is not a key of a device profile", at: place, remedy: "leave it out")
        }
        if let problem = loads?.problem(limit: 1) { throw OperatorError(problem, at: place) }
    }

    /// What `calibrate` writes down beside a profile.
    private static let notes: Set<String> = [
        "checkedCopyBytesPerSecond", "storeRoundTripSeconds", "points", "storePoints", "loadPoints",
    ]

    /// The first key of a file that its profile does not have. What a profile holds is what it would write.
    private static func unknownKey(_ json: Data, _ profile: DeviceProfile) -> String? {
        func unknown(_ given: Any, _ known: Any?, at path: String) -> String? {
            if let given = given as? [String: Any] {
                let known = known as? [String: Any] ?? [:]
                for (key, value) in given.sorted(by: { $0.key < $1.key }) where !(value is NSNull) {
                    if path.isEmpty, notes.contains(key) { continue }
                    let place = path.isEmpty ? key : "\(path).\(key)"
                    guard let same = known[key] else { return place }
                    if let found = unknown(value, same, at: place) { return found }
                }
            } else if let given = given as? [Any], let known = known as? [Any], given.count == known.count {
                for (index, pair) in zip(given, known).enumerated() {
                    if let found = unknown(pair.0, pair.1, at: "\(path)[\(index)]") { return found }
                }
            }
            return nil
        }
        guard let given = try? JSONSerialization.jsonObject(with: json),
            let written = try? JSONEncoder().encode(profile)
        else { return nil }
        return unknown(given, try? JSONSerialization.jsonObject(with: written), at: "")
    }

    private static func reason(_ error: DecodingError) -> String {
        switch error {
        case .keyNotFound(let key, _): "the key `\(key.stringValue)` is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            context.codingPath.isEmpty
                ? "it is no JSON object"
                : "`\(context.codingPath.map(\.stringValue).joined(separator: "."))` has the wrong type"
        default: "it is not valid JSON"
        }
    }

    private var rates: [(String, Double)] {
        let named: [(String, Double?)] = [
            ("hostToGPU.bytesPerSecond", hostToGPU?.bytesPerSecond),
            ("hostMemory.bytesPerSecond", hostMemory?.bytesPerSecond),
            ("hostNIC.bytesPerSecond", hostNIC?.bytesPerSecond),
            ("dram.readBytesPerSecond", dram?.readBytesPerSecond),
            ("nvme.readBytesPerSecond", nvme?.readBytesPerSecond),
            ("nvme.writeBytesPerSecond", nvme?.writeBytesPerSecond),
            ("flash.readBytesPerSecond", flash?.readBytesPerSecond),
            ("flash.writeBytesPerSecond", flash?.writeBytesPerSecond),
            ("flash.nicBytesPerSecond", flash?.nicBytesPerSecond),
        ]
        return named.compactMap { name, rate in rate.map { (name, $0) } }
    }

    private var latencies: [(String, Double)] {
        [("dram", dram), ("nvme", nvme), ("flash", flash)].compactMap { name, device in
            device?.latencySeconds.map { ("\(name).latencySeconds", $0) }
        }
    }
}

extension Scenario {
    /// Takes a profile's figures in place of the scenario's. The scenario's text says so, and so a record made with it.
    public mutating func apply(_ profile: DeviceProfile) {
        // The links divide by what they multiply with: a measured rate already holds the efficiency.
        func line(_ rate: Double) -> Double { rate / links.efficiency }
        var said = "# device profile\(profile.machine.map { " of \($0)" } ?? ""):\n"
        func take(_ value: Double?, _ name: String, _ change: (Double) -> Void) {
            guard let value else { return }
            change(value)
            said += "#   \(name) \(value)\n"
        }
        var changed = self
        take(profile.hostToGPU?.bytesPerSecond, "hostToGPU.bytesPerSecond") { changed.links.hostToGPU = $0 }
        take(profile.hostMemory?.bytesPerSecond, "hostMemory.bytesPerSecond") { changed.links.hostMemory = line($0) }
        take(profile.hostNIC?.bytesPerSecond, "hostNIC.bytesPerSecond") { changed.links.hostNIC = line($0) }
        take(profile.dram?.latencySeconds, "dram.latencySeconds") { changed.tiers.dram.latency = $0 }
        take(profile.nvme?.readBytesPerSecond, "nvme.readBytesPerSecond") { changed.tiers.nvme.read = line($0) }
        take(profile.nvme?.writeBytesPerSecond, "nvme.writeBytesPerSecond") { changed.tiers.nvme.write = line($0) }
        take(profile.nvme?.latencySeconds, "nvme.latencySeconds") { changed.tiers.nvme.latency = $0 }
        take(profile.flash?.readBytesPerSecond, "flash.readBytesPerSecond") { changed.tiers.flash.read = line($0) }
        take(profile.flash?.writeBytesPerSecond, "flash.writeBytesPerSecond") { changed.tiers.flash.write = line($0) }
        take(profile.flash?.nicBytesPerSecond, "flash.nicBytesPerSecond") { changed.tiers.flash.nic = line($0) }
        take(profile.flash?.latencySeconds, "flash.latencySeconds") { changed.tiers.flash.latency = $0 }
        changed.text += said
        self = changed
    }
}
