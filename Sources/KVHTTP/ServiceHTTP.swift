// What every service tells over HTTP, and the limits under which it does: metrics for Prometheus, whether the process runs,
// whether it serves. What else a service tells it adds to the router itself.

import Hummingbird
import Logging
import ServiceLifecycle

import struct KVModel.OperatorError
import class KVTransport.ConnectionRoom

/// The HTTP side of a service. Nobody proves who he is here: connections that stay open must take neither the descriptors that
/// the service's own peers need nor the places of probes. So they are few, idle ones end, and one of least use makes room.
public enum ServiceHTTP {
    /// Connections at once; those beyond wait.
    public static let connectionsMax = 64

    /// A router that answers `/metrics`, `/healthz` (the process runs) and `/readyz` (it serves).
    ///
    /// - Parameters:
    ///   - metrics: Makes the page of metrics, in Prometheus' text format.
    ///   - unreadiness: Why the service does not serve now; nil when it does.
    public static func router(
        metrics: @escaping @Sendable () -> String, unreadiness: @escaping @Sendable () -> String?
    ) -> Router<BasicRequestContext> {
        let router = Router(options: .autoGenerateHeadEndpoints)
        router.get("metrics") { _, _ in
            Response(.ok, "text/plain; version=0.0.4", ByteBuffer(string: metrics()))
        }
        router.get("healthz") { _, _ in "ok\n" }
        router.get("readyz") { _, _ in
            let reason = unreadiness()
            return Response(
                status: reason == nil ? .ok : .serviceUnavailable,
                body: .init(byteBuffer: ByteBuffer(string: reason.map { "not ready: \($0)\n" } ?? "ready\n")))
        }
        return router
    }

    /// The server, before it runs.
    ///
    /// - Parameter idleSeconds: After so many seconds without a request a connection is closed.
    public static func application(
        _ router: Router<BasicRequestContext>, host: String, port: Int, idleSeconds: Int64, logger: Logger
    ) -> some ApplicationProtocol {
        let room = ConnectionRoom(most: connectionsMax - ConnectionRoom.coming)
        return Application(
            router: router,
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [room.makePlace()], idleTimeout: .seconds(idleSeconds))),
            configuration: ApplicationConfiguration(
                address: .hostname(host, port: port),
                availableConnectionsDelegate: .maximum(connectionsMax, logger: logger)),
            logger: logger)
    }

    /// Serves, and returns when the process is asked to end. The server is not, and goes on behind that: probes are answered until
    /// the service has come to rest.
    ///
    /// - Parameters:
    ///   - address: Where, for the error.
    ///   - serve: Runs the server, on a task of its own.
    /// - Returns: That task: whoever calls cancels it when nobody is to be answered any more.
    /// - Throws: Why the server ended before.
    public static func serveUntilAskedToEnd(
        at address: String, _ serve: @escaping @Sendable () async throws -> Void
    ) async throws(OperatorError) -> Task<Void, Never> {
        let (failures, failure) = AsyncStream.makeStream(of: (any Error).self)
        let server = Task.detached {
            do { try await serve() } catch { failure.yield(error) }
        }
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await gracefulShutdown() }
                group.addTask { for await error in failures { throw error } }
                try await group.next()
                group.cancelAll()
            }
        } catch {
            server.cancel()
            throw OperatorError(
                "HTTP on \(address) ends: \(error)", at: "--http", remedy: "choose another address or port")
        }
        return server
    }
}

extension Response {
    /// An answer of one piece, and what kind of text it is.
    public init(_ status: HTTPResponse.Status, _ contentType: String, _ body: ByteBuffer) {
        self.init(status: status, headers: [.contentType: contentType], body: .init(byteBuffer: body))
    }
}
