// An agent as a service of a process: its door, HTTP, and a graceful end on SIGTERM or SIGINT.

import Foundation
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
    }

    /// Serves until the process is asked to end; then drains.
    public func run() async throws {
        let configuration = sidecar.configuration
        if configuration.http.isEmpty {
            try await gracefulShutdown()
        } else {
            let (host, port) = try splitEndpoint(configuration.http, option: "--http")
            do { try await agentHTTP(sidecar, host: host, port: Int(port), logger: logger).run() } catch {
                _ = sidecar.drain(within: .zero)
                throw OperatorError("HTTP ends: \(error)", at: "--http", remedy: "choose another address or port")
            }
        }
        logger.info("draining")
        let wasQuiet = sidecar.drain(within: KVModel.Duration(seconds: configuration.drain))
        logger.info("stopped", metadata: ["drained": "\(wasQuiet)"])
    }
}

/// The HTTP side of an agent: `/metrics`, `/healthz` (it runs), `/readyz` (engines may come), `/status` (JSON).
func agentHTTP(_ sidecar: AgentSidecar, host: String, port: Int, logger: Logger) -> some ApplicationProtocol {
    let router = Router()
    router.get("metrics") { _, _ in
        Response(
            status: .ok, headers: [.contentType: "text/plain; version=0.0.4"],
            body: .init(byteBuffer: ByteBuffer(string: AgentMetrics.text(sidecar))))
    }
    router.get("healthz") { _, _ in "ok\n" }
    router.get("readyz") { _, _ in
        let isReady = sidecar.isReady
        return Response(
            status: isReady ? .ok : .serviceUnavailable,
            body: .init(byteBuffer: ByteBuffer(string: isReady ? "ready\n" : "not ready\n")))
    }
    router.get("status") { _, _ in
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let json = try encoder.encode(SidecarStatus(sidecar))
        return Response(
            status: .ok, headers: [.contentType: "application/json"],
            body: .init(byteBuffer: ByteBuffer(bytes: json)))
    }
    return Application(
        router: router, configuration: ApplicationConfiguration(address: .hostname(host, port: port)), logger: logger)
}
