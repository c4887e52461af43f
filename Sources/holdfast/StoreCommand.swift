// `holdfast store`: the remote flash server.

import ArgumentParser
import KVModel
import KVSettings
import KVStore
import Logging

struct StoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "store", abstract: "Serves KV blocks from flash.",
        discussion: """
            Takes whole block devices or files, formats them when they are new, and serves until SIGTERM, which \
            drains it. The embedded default is one file:

              holdfast store --data store.flash --size 10GiB

            Beside the file it keeps its catalogue (namespaces and pins, SQLite) and the keys of its tenants; the \
            first start makes a tenant `local` with a new key. A YAML file may hold the same settings under the same \
            names (`tls-listen` is `tlsListen` there) and more; options overrule it. `--print-config` writes all of \
            them with what they mean; `holdfast doctor --config` checks them beforehand.
            """)

    @Option(name: .long, help: ArgumentHelp("A YAML file of settings.", valueName: "file"))
    var config: String?

    @Option(name: .long, help: ArgumentHelp("A block device or file; repeat it for several drives.", valueName: "path"))
    var data: [String] = []

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Bytes of a file that does not exist yet, like 100GiB.", valueName: "size"))
    var size: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Bytes of an extent, fixed at formatting (default: 2MiB).", valueName: "size"))
    var extent: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("The longest payload (default: 16MiB).", valueName: "size"))
    var payloadMax: String?

    @Option(name: .long, help: ArgumentHelp("Where TCP is served (default: 127.0.0.1:9460).", valueName: "address"))
    var listen: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Threads that move bytes of TCP (default: 1).", valueName: "count"))
    var lanes: String?

    @Option(name: .long, help: ArgumentHelp("Where TLS 1.3 is served.", valueName: "address"))
    var tlsListen: String?

    @Option(name: .long, help: ArgumentHelp("PEM file of the certificate chain.", valueName: "file"))
    var tlsCertificate: String?

    @Option(name: .long, help: ArgumentHelp("PEM file of the certificate's key.", valueName: "file"))
    var tlsKey: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "PEM file of who signs clients' certificates; without it clients need none.", valueName: "file"))
    var tlsClientAuthority: String?

    @Option(name: .long, help: ArgumentHelp("RDMA device, or `auto`.", valueName: "device"))
    var rdma: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Where control connections of RDMA are accepted (default: 0.0.0.0:9462).", valueName: "address"))
    var rdmaListen: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Where /metrics, /healthz and /readyz are served (default: 127.0.0.1:9461).", valueName: "address"))
    var http: String?

    @Option(
        name: .long,
        parsing: .unconditional,
        help: ArgumentHelp("Memory for payloads on their way and hot objects (default: 256MiB).", valueName: "size"))
    var dram: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "The SQLite file of namespaces and pins (default: beside the first data file).", valueName: "file"))
    var catalogue: String?

    @Option(
        name: .long,
        help: ArgumentHelp("The file of tenants and keys (default: beside the first data file).", valueName: "file"))
    var tenants: String?

    @Option(
        name: .long,
        parsing: .unconditional,
        help: ArgumentHelp("Bytes that may be written to flash in a day (default: no limit).", valueName: "size"))
    var writePerDay: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Bytes a second that the scrubber reads (default: 20MB).", valueName: "size"))
    var scrub: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "When drives of the store are missing: refuse (default), accept (go on without), or replace (by blank ones).",
            valueName: "rule"))
    var missing: String?

    @OptionGroup(title: "Log")
    var log: LogOptions

    @Flag(name: .long, help: "Format drives although they hold something.")
    var force = false

    @OptionGroup
    var process: ServiceOptions

    func run() async throws {
        if process.printConfig {
            try print(StoreConfiguration.documented, terminator: "")
            return
        }
        process.endWithStarter()
        let settings = try readSettings()
        let logger = log.logger("holdfast.store")
        let service = try StoreService(settings, logger: logger)
        try await process.run(service, logger: logger)
    }

    /// The file's settings, overruled by the options.
    func readSettings() throws(OperatorError) -> StoreConfiguration {
        var settings = StoreConfiguration()
        if let config { try settings.read(file: config) }
        let options: [(name: String, option: String, value: String?)] = [
            ("size", "--size", size), ("extent", "--extent", extent), ("payloadMax", "--payload-max", payloadMax),
            ("listen", "--listen", listen), ("lanes", "--lanes", lanes), ("tlsListen", "--tls-listen", tlsListen),
            ("tlsCertificate", "--tls-certificate", tlsCertificate), ("tlsKey", "--tls-key", tlsKey),
            ("tlsClientAuthority", "--tls-client-authority", tlsClientAuthority), ("rdma", "--rdma", rdma),
            ("rdmaListen", "--rdma-listen", rdmaListen),
            ("http", "--http", http), ("dram", "--dram", dram), ("catalogue", "--catalogue", catalogue),
            ("tenants", "--tenants", tenants), ("writePerDay", "--write-per-day", writePerDay),
            ("scrub", "--scrub", scrub), ("missing", "--missing", missing),
        ]
        if !data.isEmpty { try settings.set("data", data, at: "--data") }
        try settings.set(options)
        settings.force = force
        try settings.check()
        return settings
    }
}
