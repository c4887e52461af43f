// What an agent tells over HTTP: metrics, whether it serves, its state, its last hours, why a block is where it is.

import Foundation
import Hummingbird
import KVHTTP
import KVIdentity
import KVModel
import Logging

/// The HTTP side of an agent: `/metrics`, `/healthz` (it runs), `/readyz` (engines may come, and the last was served), `/status` (JSON),
/// `/history?last=SECONDS` (JSON: what came in that time), `/explain?key=HEX` and `/explain?session=NUMBER` (JSON).
struct AgentHTTP: Sendable {
    let sidecar: AgentSidecar

    /// The server, before it runs.
    func application(host: String, port: Int, logger: Logger) -> some ApplicationProtocol {
        let router = ServiceHTTP.router(
            metrics: { AgentMetrics.text(sidecar) }, unreadiness: { sidecar.unreadiness })
        router.get("status") { _, _ in try Response(json: SidecarStatus(sidecar)) }
        router.get("history") { request, _ in
            let asked = request.uri.queryParameters["last"]
            guard let seconds = asked == nil ? 21_600 : asked.flatMap({ Double($0) }), seconds.isFinite, seconds > 0
            else {
                return Response(
                    .badRequest, "text/plain", ByteBuffer(string: "`last` is a number of seconds above 0\n"))
            }
            return try Response(json: sidecar.record(ofLast: seconds))
        }
        router.get("explain") { request, _ in try explain(request) }
        if sidecar.configuration.clock == .given {
            // Lock step: time passes up to `at`, everything comes to rest, and the state is told.
            router.post("rest") { request, _ in
                guard let text = request.uri.queryParameters["at"], let time = Int64(text),
                    // Some centuries; behind them deadlines would have no room.
                    (0...Int64.max / 2).contains(time)
                else {
                    return Response(status: .badRequest)
                }
                guard let status = await rest(at: Instant(nanoseconds: time)) else {
                    return Response(status: .serviceUnavailable)
                }
                return try Response(json: status)
            }
        }
        // Idle connections end later than a client's pool lets go of them (60 s is common), so that none is closed under a request.
        return ServiceHTTP.application(router, host: host, port: port, idleSeconds: 90, logger: logger)
    }

    /// Why a block, or a conversation, is where it is.
    private func explain(_ request: Request) throws -> Response {
        let asked = request.uri.queryParameters
        var answer: Explanation?
        if let text = asked["session"], let session = UInt64(text) {
            answer = sidecar.agent?.explain(session: session)
        } else if let key = asked["key"].flatMap({ FullKey(hexadecimal: String($0)) }) {
            func number(_ name: String) -> UInt16 { asked[Substring(name)].flatMap { UInt16($0) } ?? 0 }
            answer = sidecar.agent?.explain(
                ObjectName(key, group: number("group"), shard: number("shard"), shardCount: max(1, number("shards"))))
        } else {
            let usage = "ask with ?key=64 hexadecimal digits or ?session=a number\n"
            return Response(.badRequest, "text/plain", ByteBuffer(string: usage))
        }
        guard let answer else {
            return Response(.serviceUnavailable, "text/plain", ByteBuffer(string: "no engine has come yet\n"))
        }
        return try Response(json: answer)
    }

    /// The state once time has passed and everything is at rest; nil without decisions, or when they do not come to rest.
    private func rest(at time: Instant) async -> AgentStatus? {
        guard let agent = sidecar.agent, agent.advance(to: time) == .accepted else { return nil }
        return await withCheckedContinuation { continuation in
            // It waits, which no thread of the server may do.
            Thread.detachNewThread {
                let isQuiet = agent.waitUntilQuiet(within: KVModel.Duration(seconds: 30))
                continuation.resume(returning: isQuiet ? agent.status : nil)
            }
        }
    }
}

extension Response {
    /// A value as JSON, its keys in order.
    fileprivate init(json value: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        self.init(.ok, "application/json", ByteBuffer(bytes: try encoder.encode(value)))
    }
}

extension FullKey {
    /// A key of 64 hexadecimal digits.
    fileprivate init?(hexadecimal text: String) {
        let digits = text.compactMap(\.hexDigitValue)
        guard digits.count == 64, text.count == 64 else { return nil }
        self.init(bytes: (0..<32).map { UInt8(digits[2 * $0] << 4 | digits[2 * $0 + 1]) })
    }
}
