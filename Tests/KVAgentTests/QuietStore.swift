// A store that takes its clients in and then has no answer to one kind of request, whatever is done: its own thread hangs, or a
// disk under it does.

import KVModel
import KVSystem
import KVTransport
import Synchronization

/// A store without blocks, over TCP.
final class QuietStore: SessionHost {
    let memory: BlockMemory
    private let ignored: Operation
    private let unanswered = Mutex<Set<RequestID>>([])
    private let server = Mutex<TCPServer?>(nil)
    private let secret = [UInt8](repeating: 9, count: 32)

    init(ignoring ignored: Operation) throws {
        self.ignored = ignored
        memory = try BlockMemory(byteCount: 1 << 20, wantsHugePages: false)
        let server = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: self)
        self.server.withLock { $0 = server }
    }

    /// A client that it takes in.
    var client: StoreClientConfiguration {
        let port = server.withLock { $0?.port ?? 0 }
        return StoreClientConfiguration(routes: [.tcp(host: "127.0.0.1", port: port)], tenant: "guest", secret: secret)
    }

    func shutDown() { server.withLock { $0.take() }?.shutDown() }

    func secret(ofTenant tenant: String) -> [UInt8]? { secret }

    func deliver(_ event: SessionEvent) -> Acceptance {
        guard case .request(let id, let request) = event else { return .accepted }
        switch request {
        case .cancel(let number):
            let cancelled = RequestID(session: id.session, number: number)
            reply(id, Response(.ok))
            if unanswered.withLock({ $0.remove(cancelled) }) != nil { reply(cancelled, Response(.cancelled)) }
        case _ where request.operation == ignored: unanswered.withLock { _ = $0.insert(id) }
        case .openNamespace: reply(id, Response(.ok, .namespace(1)))
        case .lookUp(_, let names):
            reply(id, Response(.ok, .presence([UInt64](repeating: 0, count: (names.count + 63) / 64))))
        case .put: reply(id, Response(.busy))
        default: reply(id, Response(.ok))
        }
        return .accepted
    }

    private func reply(_ id: RequestID, _ response: Response) {
        _ = server.withLock { $0 }?.post(.reply(id, response))
    }
}
