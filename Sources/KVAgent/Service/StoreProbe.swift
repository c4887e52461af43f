// The store before the first engine has come: a wrong address or key is seen when the agent starts, not when the first request
// finds nothing.

import KVModel
import KVSystem
import KVTransport
import Logging
import Synchronization

/// A client that asks nothing: it says hello, again and again while it is not taken, until the decisions have a client of their own.
final class StoreProbe: Sendable {
    private let client: StoreClient
    private let sight: Sight
    private let namespace: String?

    /// Begins to reach the store; what comes of it is in the log and in `store`.
    ///
    /// - Parameters:
    ///   - access: The client that the decisions will have.
    ///   - namespace: Of the settings, if they name one.
    init(_ access: StoreClientConfiguration, namespace: String?, logger: Logger) throws(SystemError) {
        let sight = Sight(logger)
        self.sight = sight
        self.namespace = namespace
        client = try StoreClient(access, memory: try BlockMemory(byteCount: 4096)) { sight.take($0) }
    }

    /// The store as it was seen last: usable is what answers and takes the key.
    var store: AgentStatus.Store {
        let (isReached, reason) = sight.state
        return AgentStatus.Store(namespace: namespace, isUsable: isReached, reason: reason)
    }

    /// Leaves. Once.
    func shutDown() { client.shutDown() }

    /// What the client's thread saw.
    private final class Sight: Sendable {
        private let seen = Mutex((isReached: false, reason: AgentInbox.notConnectedYet))
        private let logger: Logger

        init(_ logger: Logger) { self.logger = logger }

        var state: (isReached: Bool, reason: String) { seen.withLock { $0 } }

        func take(_ event: StoreEvent) {
            switch event {
            case .connected:
                seen.withLock { $0.isReached = true }
                logger.info("the store answers and takes the key")
            case .lost(let reason):
                let isNews = seen.withLock { seen in
                    defer { seen = (isReached: false, reason: reason) }
                    return seen.isReached || seen.reason != reason
                }
                if isNews { logger.warning("the store is not used: \(reason)") }
            case .completed, .slotReturned, .notified: break
            }
        }
    }
}
