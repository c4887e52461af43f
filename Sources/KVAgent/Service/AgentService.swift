// An agent as a service of a process: its door, HTTP, and a graceful end on SIGTERM or SIGINT.

import Foundation
import Hummingbird
import KVHTTP
import KVModel
import Logging
import ServiceLifecycle

/// Runs an agent until the process is asked to end.
public struct AgentService: Service {
    /// How long HTTP is waited for once everything else has ended: a page that is under way takes milliseconds.
    private static let pagesLimit = Swift.Duration.seconds(1)

    private let sidecar: AgentSidecar
    private let logger: Logger

    /// Opens the door.
    public init(
        _ configuration: AgentConfiguration, in surroundings: AgentSurroundings, logger: Logger
    ) throws(OperatorError) {
        self.logger = logger
        sidecar = try AgentSidecar(configuration, in: surroundings, logger: logger)
        try sidecar.startWatching()
    }

    /// Serves until the process is asked to end; then drains.
    public func run() async throws {
        let configuration = sidecar.configuration
        let pages = try pages()
        let (ends, end) = AsyncStream.makeStream(of: Void.self)
        let http: Task<Void, Never>
        do throws(OperatorError) {
            // Who does not read a page that he asked for holds up no engine's farewell.
            http = try await ServiceHTTP.serveUntilAskedToEnd(at: configuration.http) {
                defer { end.finish() }
                try await pages?.run()
            }
        } catch {
            _ = await drain(within: .zero)
            throw error
        }
        defer { http.cancel() }
        logger.info("draining")
        let wasQuiet = await drain(within: KVModel.Duration(seconds: configuration.drain))
        await pages?.triggerGracefulShutdown()
        await withTaskGroup(of: Void.self) { group in
            group.addTask { for await _ in ends {} }
            group.addTask { try? await Task.sleep(for: Self.pagesLimit) }
            await group.next()
            group.cancelAll()
        }
        logger.info("stopped", metadata: ["drained": "\(wasQuiet)"])
    }

    /// The server of HTTP, before it runs; nil where there is none in the settings.
    private func pages() throws(OperatorError) -> ServiceGroup? {
        let address = sidecar.configuration.http
        guard !address.isEmpty else { return nil }
        let (host, port) = try splitEndpoint(address, option: "--http")
        let server = AgentHTTP(sidecar: sidecar).application(host: host, port: Int(port), logger: logger)
        return ServiceGroup(configuration: ServiceGroupConfiguration(services: [server], logger: logger))
    }

    /// Drains on a thread of its own: it waits, which no thread of the server may do.
    private func drain(within limit: KVModel.Duration) async -> Bool {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread { continuation.resume(returning: sidecar.drain(within: limit)) }
        }
    }
}
