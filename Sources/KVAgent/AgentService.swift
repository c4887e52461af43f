// An agent as a service of a process: its door, HTTP, and a graceful end on SIGTERM or SIGINT.

import Foundation
import Hummingbird
import KVIdentity
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
            do { try await agentHTTP(sidecar, host: host, port: Int(port), logger: logger).run() } catch {
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

/// A key of 64 hexadecimal digits.
private func readKey(_ text: String) -> FullKey? {
    let digits = text.compactMap(\.hexDigitValue)
    guard digits.count == 64, text.count == 64 else { return nil }
    return FullKey(bytes: (0..<32).map { UInt8(digits[2 * $0] << 4 | digits[2 * $0 + 1]) })
}

/// The HTTP side of an agent: `/metrics`, `/healthz` (it runs), `/readyz` (engines may come, and the last was served), `/status` (JSON),
/// `/history?last=SECONDS` (JSON: what came in that time),
/// `/explain?key=HEX` and `/explain?session=NUMBER` (JSON).
func agentHTTP(_ sidecar: AgentSidecar, host: String, port: Int, logger: Logger) -> some ApplicationProtocol {
    let router = Router(options: .autoGenerateHeadEndpoints)
    router.get("metrics") { _, _ in
        Response(
            status: .ok, headers: [.contentType: "text/plain; version=0.0.4"],
            body: .init(byteBuffer: ByteBuffer(string: AgentMetrics.text(sidecar))))
    }
    router.get("healthz") { _, _ in "ok\n" }
    router.get("readyz") { _, _ in
        let reason = sidecar.unreadiness
        return Response(
            status: reason == nil ? .ok : .serviceUnavailable,
            body: .init(byteBuffer: ByteBuffer(string: reason.map { "not ready: \($0)\n" } ?? "ready\n")))
    }
    router.get("status") { _, _ in
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let json = try encoder.encode(SidecarStatus(sidecar))
        return Response(
            status: .ok, headers: [.contentType: "application/json"],
            body: .init(byteBuffer: ByteBuffer(bytes: json)))
    }
    router.get("history") { request, _ in
        let seconds = request.uri.queryParameters["last"].flatMap { Double($0) } ?? 21_600
        guard seconds.isFinite, seconds > 0 else { return Response(status: .badRequest) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return Response(
            status: .ok, headers: [.contentType: "application/json"],
            body: .init(byteBuffer: ByteBuffer(bytes: try encoder.encode(sidecar.record(ofLast: seconds)))))
    }
    router.get("explain") { request, _ in
        let asked = request.uri.queryParameters
        var answer: Explanation?
        if let text = asked["session"], let session = UInt64(text) {
            answer = sidecar.agent?.explain(session: session)
        } else if let key = asked["key"].flatMap({ readKey(String($0)) }) {
            func number(_ name: String) -> UInt16 { asked[Substring(name)].flatMap { UInt16($0) } ?? 0 }
            answer = sidecar.agent?.explain(
                ObjectName(key, group: number("group"), shard: number("shard"), shardCount: max(1, number("shards"))))
        } else {
            return Response(
                status: .badRequest, headers: [.contentType: "text/plain"],
                body: .init(
                    byteBuffer: ByteBuffer(string: "ask with ?key=64 hexadecimal digits or ?session=a number\n")))
        }
        guard let answer else {
            return Response(
                status: .serviceUnavailable, headers: [.contentType: "text/plain"],
                body: .init(byteBuffer: ByteBuffer(string: "no engine has come yet\n")))
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return Response(
            status: .ok, headers: [.contentType: "application/json"],
            body: .init(byteBuffer: ByteBuffer(bytes: try encoder.encode(answer))))
    }
    if sidecar.configuration.clock == .given {
        // Lock step: time passes up to `at`, everything comes to rest, and the state is told.
        router.post("rest") { request, _ in
            guard let text = request.uri.queryParameters["at"], let time = Int64(text) else {
                return Response(status: .badRequest)
            }
            guard let status = await rest(sidecar, at: Instant(nanoseconds: time)) else {
                return Response(status: .serviceUnavailable)
            }
            return Response(
                status: .ok, headers: [.contentType: "application/json"],
                body: .init(byteBuffer: ByteBuffer(bytes: try JSONEncoder().encode(status))))
        }
    }
    return Application(
        router: router, configuration: ApplicationConfiguration(address: .hostname(host, port: port)), logger: logger)
}

/// The state once time has passed and everything is at rest; nil without decisions, or when they do not come to rest.
private func rest(_ sidecar: AgentSidecar, at time: Instant) async -> AgentStatus? {
    guard let agent = sidecar.agent, agent.advance(to: time) == .accepted else { return nil }
    return await withCheckedContinuation { continuation in
        // It waits, which no thread of the server may do.
        Thread.detachNewThread {
            let isQuiet = agent.waitUntilQuiet(within: KVModel.Duration(seconds: 30))
            continuation.resume(returning: isQuiet ? agent.status : nil)
        }
    }
}
