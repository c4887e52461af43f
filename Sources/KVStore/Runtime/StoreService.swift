// A store as a service of a process: transports, HTTP, and a graceful end on SIGTERM or SIGINT.

import Foundation
import Hummingbird
import KVHTTP
import KVModel
import KVSystem
import KVTransport
import Logging
import ServiceLifecycle

/// Runs a store until the process is asked to end.
public struct StoreService: Service {
    private let store: Store
    private let configuration: StoreConfiguration
    private let logger: Logger

    /// Opens the store and everything it listens on.
    public init(_ configuration: StoreConfiguration, logger: Logger) throws(OperatorError) {
        try configuration.checkFiles()
        try Self.checkMachine(configuration, logger)
        let path = configuration.tenantsPath
        let isFirstStart = !FileManager.default.fileExists(atPath: path)
        let hadDrives = isFirstStart && configuration.hasOldDrives
        if isFirstStart { try Tenants.make(file: path) }
        self.configuration = configuration
        self.logger = logger
        do { store = try Store(configuration, tenants: Tenants(file: path), logger: logger) } catch {
            // A start that failed leaves nothing behind; but drives that it formatted keep their keys.
            if isFirstStart, hadDrives || !configuration.hasOldDrives {
                try? FileManager.default.removeItem(atPath: path)
            }
            throw error
        }
        if isFirstStart {
            // Of drives that were a store's before: whoever has another key is refused from now on.
            logger.log(
                level: hadDrives ? .warning : .info, "a tenant `local` with a new key was made",
                metadata: ["file": "\(path)"])
        }
        do { try listen() } catch {
            store.shutDown()
            throw error
        }
    }

    /// What this machine does not have of it: memory ends the start, files that may be open are told.
    private static func checkMachine(_ configuration: StoreConfiguration, _ logger: Logger) throws(OperatorError) {
        if let limit = MemoryLimit.now, configuration.dram > limit.bytes, configuration.dram > reservedHugeBytes {
            throw OperatorError(
                "`dram` is \(ByteSize.text(configuration.dram)), and this process's control group allows "
                    + "\(ByteSize.text(limit.bytes)) (\(limit.file))", at: "dram",
                remedy: "ask for less, or raise the container's memory limit")
        }
        guard let most = openFilesMax, most < configuration.openFilesWanted else { return }
        logger.warning(
            "\(most) files may be open, \(configuration.openFilesWanted) are wanted for \(configuration.sessions) sessions"
        )
    }

    private func listen() throws(OperatorError) {
        var limits = ServerLimits.standard
        limits.sessionsMax = configuration.sessions
        limits.credits = configuration.credits
        limits.payloadBytesMax = store.payloadBytesMax
        if !configuration.listen.isEmpty {
            let (host, port) = try splitEndpoint(configuration.listen, option: "--listen")
            do {
                let server = try TCPServer(
                    TCPServerConfiguration(
                        address: host, port: port, laneCount: configuration.lanes, socketBufferBytes: 0, limits: limits),
                    transport: 1, host: store)
                store.serve(server, transport: 1)
            } catch {
                throw OperatorError(error.description, at: "--listen", remedy: "choose another address or port")
            }
        }
        if !configuration.tlsListen.isEmpty {
            let (host, port) = try splitEndpoint(configuration.tlsListen, option: "--tls-listen")
            if let trouble = try configuration.certificateTrouble() {
                let file = configuration.tlsCertificate
                logger.warning("the certificate \(trouble.words)", metadata: ["file": "\(file)"])
            }
            let authority = configuration.tlsClientAuthority
            let server = try TLSServer(
                TLSServerConfiguration(
                    address: host, port: port, certificateChain: configuration.tlsCertificate,
                    privateKey: configuration.tlsKey, clientAuthority: authority.isEmpty ? nil : authority,
                    laneCount: configuration.lanes, limits: limits), transport: 2, host: store)
            store.serve(server, transport: 2)
        }
        if configuration.rdma.isOn {
            let (host, port) = try splitEndpoint(configuration.rdmaListen, option: "--rdma-listen")
            let server = try VerbsServer(
                VerbsServerConfiguration(
                    place: configuration.rdma.place, address: host, port: port, settings: configuration.rdma.settings,
                    limits: limits),
                transport: 3, host: store)
            store.serve(server, transport: 3)
        }
    }

    /// Serves until the process is asked to end; then drains.
    public func run() async throws {
        let watch = Task { await watchTenants() }
        defer { watch.cancel() }
        let http: Task<Void, Never>
        do throws(OperatorError) {
            http = try await ServiceHTTP.serveUntilAskedToEnd(at: configuration.http) { try await serveHTTP() }
        } catch {
            store.shutDown()
            throw error
        }
        defer { http.cancel() }
        logger.info("draining")
        let limit = KVModel.Duration(seconds: configuration.drain)
        let wasQuiet = await withCheckedContinuation { continuation in
            // It waits, which no thread of the server may do: on one processor there is one, and probes would wait, too.
            Thread.detachNewThread { continuation.resume(returning: store.drain(within: limit)) }
        }
        logger.info("stopped", metadata: ["drained": "\(wasQuiet)"])
    }

    /// Until the task is cancelled.
    private func serveHTTP() async throws {
        guard !configuration.http.isEmpty else { return }
        let (host, port) = try splitEndpoint(configuration.http, option: "--http")
        let quiet = Logger(label: logger.label) { _ in HTTPLogHandler(logger.handler) }
        try await storeHTTP(store, host: host, port: Int(port), logger: quiet).run()
    }

    /// Reads the file of tenants again whenever it has changed; a file that is not whole leaves everything as it was.
    private func watchTenants() async {
        let path = configuration.tenantsPath
        func changed() -> Date? {
            (try? FileManager.default.attributesOfItem(atPath: path))?[.modificationDate] as? Date
        }
        var seen = changed()
        while (try? await Task.sleep(for: .seconds(1))) != nil {
            let now = changed()
            guard now != seen else { continue }
            seen = now
            do {
                let tenants = try Tenants(file: path)
                store.setTenants(tenants)
                logger.info("tenants were read again", metadata: ["count": "\(tenants.byName.count)"])
            } catch {
                logger.error("tenants stay as they were: \(error)")
            }
        }
    }
}
