// What an operator says about RDMA, in the same words at a store and at an agent. Each service adds where control connections are
// accepted, or made to.

import Glibc
import KVModel
import KVSettings

/// The device, and how its queue pairs are set up, with their defaults.
public struct VerbsConfiguration: Sendable, Equatable {
    /// The device (`mlx5_0`), `auto` for any, or empty for no RDMA.
    public var device: String
    /// The address of its port, where it has several; empty for the best it has.
    public var address = ""
    /// An unacknowledged packet is sent again after 4.096 µs × 2^`timeout`.
    public var timeout = VerbsSettings.standard.timeout
    /// So often, then the connection fails.
    public var retries = VerbsSettings.standard.retryCount
    /// The traffic class of the packets (DSCP × 4).
    public var trafficClass = VerbsSettings.standard.trafficClass

    /// The defaults, with a device or without.
    public init(device: String = "") { self.device = device }

    /// Whether RDMA is asked for.
    public var isOn: Bool { !device.isEmpty }

    /// Whether any device will do.
    public var takesAnyDevice: Bool { device == "auto" }

    /// The device and port.
    public var place: VerbsPlace {
        VerbsPlace(device: takesAnyDevice ? nil : device, address: address.isEmpty ? nil : address)
    }

    /// How queue pairs are set up: as is usual, but for what was said.
    public var settings: VerbsSettings {
        var settings = VerbsSettings.standard
        (settings.timeout, settings.retryCount, settings.trafficClass) = (timeout, retries, trafficClass)
        return settings
    }

    /// Every setting, as people see it.
    public static let all: [Setting] = [
        Setting("rdma", "RDMA device (mlx5_0), auto for any, or empty for none.", "\"\""),
        Setting("rdmaAddress", "The address of its port, where it has several; empty for the best it has.", "\"\""),
        Setting(
            "rdmaTimeout",
            "An unacknowledged packet is sent again after 4.096 µs × 2^this, \(timeouts.lowerBound) to \(timeouts.upperBound).",
            "\(VerbsSettings.standard.timeout)"),
        Setting(
            "rdmaRetries",
            "So often, \(retryCounts.lowerBound) to \(retryCounts.upperBound); then the connection fails and is made anew.",
            "\(VerbsSettings.standard.retryCount)"),
        Setting(
            "rdmaTrafficClass", "Traffic class of RDMA packets (DSCP × 4): what switches classify by.",
            "\(VerbsSettings.standard.trafficClass)"),
    ]

    // 5, 3 and 8 bits of a queue pair's attributes. A timeout of 0 would be none.
    private static let timeouts = 1...31
    private static let retryCounts = 0...7
    private static let trafficClasses = 0...255

    /// Takes a setting; false if it is none of these.
    public mutating func take(_ value: SettingValue) throws(OperatorError) -> Bool {
        switch value.name {
        case "rdma": device = try value.word()
        case "rdmaAddress": address = try Self.address(value)
        case "rdmaTimeout": timeout = try value.whole(Self.timeouts)
        case "rdmaRetries": retries = try value.whole(Self.retryCounts)
        case "rdmaTrafficClass": trafficClass = try value.whole(Self.trafficClasses)
        default: return false
        }
        return true
    }

    /// An address as libibverbs is asked for it, or nothing.
    private static func address(_ value: SettingValue) throws(OperatorError) -> String {
        let word = try value.word()
        var parsed = in6_addr()
        let isAddress = [AF_INET, AF_INET6].contains { unsafe inet_pton($0, word, &parsed) == 1 }
        guard word.isEmpty || isAddress else {
            throw OperatorError(
                "`\(value.name)` is `\(word)`, not an IPv4 or IPv6 address", at: value.place,
                remedy: "`rdma link` and `ip address` show those of a port")
        }
        return word
    }
}
