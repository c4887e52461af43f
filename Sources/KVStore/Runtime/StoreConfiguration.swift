// What an operator says about a store, with every setting documented once, in `all`.

import Foundation
import KVFlash
import KVHTTP
import KVModel
import KVSettings
import KVTransport

/// The settings of `holdfast store`, with their defaults.
public struct StoreConfiguration: NamedSettings, Sendable, Equatable {
    /// Block devices or files, one drive each.
    public var data: [String] = []
    /// Bytes of each file that does not exist yet. A block device is taken whole unless this says less.
    public var size: Int?
    /// Bytes of an extent, fixed when a drive is formatted.
    public var extent = 2 << 20
    /// The longest payload.
    public var payloadMax = 16 << 20
    /// Where plain TCP is served, `address:port`; empty for nowhere.
    public var listen = "127.0.0.1:9460"
    /// Threads that move bytes of plain TCP.
    public var lanes = 1
    /// Where TLS is served; empty for nowhere.
    public var tlsListen = ""
    /// PEM file of the certificate chain.
    public var tlsCertificate = ""
    /// PEM file of the certificate's key.
    public var tlsKey = ""
    /// PEM file of who signs clients' certificates; empty: clients need none.
    public var tlsClientAuthority = ""
    /// The device of RDMA sessions, if any, and how it is used.
    public var rdma = VerbsConfiguration()
    /// Where control connections of RDMA sessions are accepted.
    public var rdmaListen = "0.0.0.0:9462"
    /// Where /metrics, /healthz and /readyz are served; empty for nowhere.
    public var http = "127.0.0.1:9461"
    /// Memory for payloads on their way and for hot objects.
    public var dram = 256 << 20
    /// The SQLite file of namespaces and pins; empty: beside the first data file.
    public var catalogue = ""
    /// The file of tenants and their keys; empty: beside the catalogue, made at the first start.
    public var tenants = ""
    /// Files that it may have open at once: a descriptor a session, three over TLS; as many for peers that have still to prove
    /// who they are, and one for those amid a TLS handshake; HTTP's, some a drive, and its own.
    public var openFilesWanted: Int {
        let unknown = ServerLimits.standard.unauthenticatedMax
        let clients = tlsListen.isEmpty ? sessions + 2 * unknown : 3 * sessions + 6 * unknown
        return clients + ServiceHTTP.connectionsMax + data.count * 4 + 64
    }
    /// Seconds that a connection of HTTP may be idle.
    static let httpIdleSeconds: Int64 = 10
    /// Bytes that may be written to flash in a day; 0 is no limit.
    public var writePerDay = 0
    /// Bytes a second that the scrubber reads; 0 turns it off.
    public var scrub = 20_000_000
    /// Sessions at once, over all transports.
    public var sessions = 256
    /// What of `sessions`, of `writePerDay` and of the flash that may be pinned one tenant who is no operator has at most, as a share
    /// of all; 1 is no limit.
    public var tenantShare = 0.75
    /// Requests that each session may have under way.
    public var credits = 32
    /// Commands a drive may have unanswered.
    public var depth = 128
    /// Seconds that a request may wait for room.
    public var wait = 2.0
    /// Seconds that a shutdown waits for requests under way.
    public var drain = 10.0
    /// Whether a tenant that opens an unknown namespace makes it.
    public var makesNamespaces = true
    /// What a start does when drives of the store are missing.
    public var missing = MissingDrives.refuse
    /// Whether data that is not ours may be overwritten by formatting.
    public var force = false

    /// What a start does when drives of the store are missing.
    public enum MissingDrives: String, Sendable, CaseIterable {
        /// It fails.
        case refuse
        /// It goes on without them, and without those that cannot be opened: their blocks are misses.
        case accept
        /// Blank drives named among the others are formatted and take their places.
        case replace
    }

    /// The defaults.
    public init() {}

    /// Every setting, in the order of the documented file.
    public static let all: [Setting] = drivesAndSockets + VerbsConfiguration.all + rest

    private static let drivesAndSockets = [
        Setting("data", "Whole block devices, or files; one store takes all of them.", "[]"),
        Setting(
            "size", "Bytes of each file that does not exist yet. A block device is taken whole unless this says less.",
            "\"\""),
        Setting("extent", "Bytes of an extent, fixed when a drive is formatted.", "2MiB"),
        Setting("payloadMax", "The longest payload.", "16MiB"),
        Setting(
            "listen", "Where TCP without encryption is served, address:port. Empty: nowhere.", "127.0.0.1:9460"),
        Setting("lanes", "Threads that move bytes of that.", "1"),
        Setting("tlsListen", "Where TLS 1.3 is served. Empty: nowhere.", "\"\""),
        Setting("tlsCertificate", "PEM file of the certificate chain.", "\"\""),
        Setting("tlsKey", "PEM file of the certificate's key.", "\"\""),
        Setting(
            "tlsClientAuthority", "PEM file of who signs clients' certificates. Empty: clients need none.", "\"\""),
    ]

    private static let rest = [
        Setting("rdmaListen", "Where control connections of RDMA sessions are accepted.", "0.0.0.0:9462"),
        Setting("http", "Where /metrics, /healthz and /readyz are served. Empty: nowhere.", "127.0.0.1:9461"),
        Setting("dram", "Memory for payloads on their way, and for hot objects.", "256MiB"),
        Setting(
            "catalogue", "The SQLite file of namespaces and pins. Empty: beside the first data file.", "\"\""),
        Setting(
            "tenants", "The file of tenants and their keys, made at the first start. Empty: beside the catalogue.",
            "\"\""),
        Setting(
            "writePerDay", "Bytes that may be written to flash in a day: capacity x rated drive writes. 0: no limit.",
            "0"),
        Setting("scrub", "Bytes a second at which blocks are read again now and then. 0: never.", "20MB"),
        Setting("sessions", "Sessions at once, over all transports; a client beyond them is refused.", "256"),
        Setting(
            "tenantShare",
            "What of `sessions`, of `writePerDay` and of the flash to pin one tenant who is no operator has at most, as a "
                + "share of all. 1: no limit.", "0.75"),
        Setting("credits", "Requests that each session may have under way.", "32"),
        Setting("depth", "Commands that a drive may have unanswered.", "128"),
        Setting("wait", "Seconds that a request may wait for room.", "2"),
        Setting("drain", "Seconds that a shutdown waits for requests under way.", "10"),
        Setting(
            "missing",
            "What a start does when drives of the store are missing: refuse, accept (their blocks are misses), or replace "
                + "(blank drives named among the others take their places).", "refuse"),
        Setting("makesNamespaces", "Whether a tenant that opens an unknown namespace makes it.", "true"),
    ]

    /// What the documented file begins with.
    public static let heading = "The settings of `holdfast store`; `holdfast doctor --config` checks them."

    /// Takes one setting.
    public mutating func take(_ value: SettingValue) throws(OperatorError) {
        let (name, words) = (value.name, value.words)
        switch name {
        case "data": data = words
        case "size": size = words == [""] ? nil : try value.bytes((1 << 20)...(1 << 52))
        case "extent": extent = try value.bytes((64 << 10)...(16 << 20))
        case "payloadMax": payloadMax = try value.bytes((64 << 10)...(64 << 20))
        case "listen": listen = try value.word()
        case "lanes": lanes = try value.whole(1...64)
        case "tlsListen": tlsListen = try value.word()
        case "tlsCertificate": tlsCertificate = try value.word()
        case "tlsKey": tlsKey = try value.word()
        case "tlsClientAuthority": tlsClientAuthority = try value.word()
        case "rdmaListen": rdmaListen = try value.word()
        case "http": http = try value.word()
        case "dram": dram = try value.bytes((1 << 20)...(1 << 46))
        case "catalogue": catalogue = try value.word()
        case "tenants": tenants = try value.word()
        case "writePerDay": writePerDay = try value.bytes(0...(1 << 56))
        case "scrub": scrub = try value.bytes(0...(1 << 40))
        case "sessions": sessions = try value.whole(1...65_536)
        case "tenantShare": tenantShare = try value.number(0.01...1)
        case "credits": credits = try value.whole(1...1024)
        case "depth": depth = try value.whole(1...1024)
        case "wait": wait = try value.number(0...3600)
        case "drain": drain = try value.number(0...3600)
        case "missing": missing = try value.choice(MissingDrives.allCases)
        case "makesNamespaces": makesNamespaces = try value.flag()
        default:
            let isOfRDMA = try rdma.take(value)
            precondition(isOfRDMA, "the setting `\(name)` is documented and not read")
        }
    }

    /// Checks what one setting cannot know of another.
    public func check() throws(OperatorError) {
        guard !data.isEmpty else {
            throw OperatorError("no drive is named", at: "--data", remedy: "name a block device or a file")
        }
        guard data.count <= DriveIdentity.countMax else {
            throw OperatorError("more than \(DriveIdentity.countMax) drives", at: "--data")
        }
        var named: [String: String] = [:]
        for path in data {
            let real = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
            if let other = named.updateValue(path, forKey: real) {
                throw OperatorError(
                    other == path ? "\(path) is named twice" : "\(other) and \(path) are one drive", at: "--data",
                    remedy: "name each drive once")
            }
        }
        guard extent % (64 << 10) == 0 else {
            throw OperatorError("`extent` is \(extent) bytes, not a multiple of 64 KiB", at: "--extent")
        }
        guard payloadMax <= 64 * extent else {
            throw OperatorError(
                "`payloadMax` is \(ByteSize.text(payloadMax)), more than 64 extents of \(ByteSize.text(extent))",
                at: "--payload-max", remedy: "lower it, or format with a larger `extent`")
        }
        try checkMemory(extentBytes: extent)
        guard !listen.isEmpty || !tlsListen.isEmpty || rdma.isOn else {
            throw OperatorError(
                "the store listens nowhere", at: "--listen", remedy: "give `listen`, `tlsListen` or `rdma`")
        }
        guard tlsListen.isEmpty || !(tlsCertificate.isEmpty || tlsKey.isEmpty) else {
            throw OperatorError("TLS without a certificate and its key", at: "--tls-certificate")
        }
        guard !tlsListen.isEmpty || (tlsCertificate + tlsKey + tlsClientAuthority).isEmpty else {
            throw OperatorError(
                "a certificate, and TLS is served nowhere", at: "--tls-listen", remedy: "say where, or leave both out")
        }
        // Before anything is made on disk.
        let places = [
            (listen, "--listen"), (tlsListen, "--tls-listen"), (rdmaListen, "--rdma-listen"), (http, "--http"),
        ]
        for (place, option) in places where !place.isEmpty { _ = try splitEndpoint(place, option: option) }
    }

    /// Whether memory takes four of the longest payloads, each in whole extents.
    func checkMemory(extentBytes: Int) throws(OperatorError) {
        let longest = min(payloadMax, ExtentList.countMax * extentBytes)
        let rounded = longest.roundedUp(toMultipleOf: extentBytes)
        guard dram >= 4 * rounded else {
            throw OperatorError(
                "`dram` is \(ByteSize.text(dram)), too little for four payloads of \(ByteSize.text(longest)) "
                    + "in extents of \(ByteSize.text(extentBytes)): \(ByteSize.text(4 * rounded))",
                at: "--dram", remedy: "raise it, or lower `payloadMax`")
        }
    }

    /// Where the catalogue is.
    public var cataloguePath: String { catalogue.isEmpty ? beside("catalogue") : catalogue }
    /// Where tenants and their keys are.
    public var tenantsPath: String { tenants.isEmpty ? beside("tenants") : tenants }

    private func beside(_ kind: String) -> String {
        // Beside a file; for a device, where services keep their state.
        let first = data.first ?? "store"
        guard first.hasPrefix("/dev/") else { return "\(first).\(kind)" }
        return "/var/lib/holdfast/\(first.dropFirst(5).replacingOccurrences(of: "/", with: "-")).\(kind)"
    }
}
