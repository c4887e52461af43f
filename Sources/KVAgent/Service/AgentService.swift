// An agent as a service of a process: its door, HTTP, and a graceful end on SIGTERM or SIGINT.

import Hummingbird
import KVModel
import Logging
import ServiceLifecycle

/// Runs an agent until the process is asked to end.
public struct AgentService: Service {
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
        if configuration.http.isEmpty {
            try await gracefulShutdown()
        } else {
            let (host, port) = try splitEndpoint(configuration.http, option: "--http")
            let pages = AgentHTTP(sidecar: sidecar)
            do { try await pages.application(host: host, port: Int(port), logger: logger).run() } catch {
                _ = sidecar.drain(within: .zero)
                throw OperatorError(
                    "HTTP on \(configuration.http) ends: \(error)", at: "--http",
                    remedy: "choose another address or port")
            }
        }
        logger.info("draining")
        let wasQuiet = sidecar.drain(within: KVModel.Duration(seconds: configuration.drain))
        logger.info("stopped", metadata: ["drained": "\(wasQuiet)"])
    }
}
