// What the client's thread shares with those who call the client.

import KVModel
import KVSystem
import Synchronization

/// What other threads hand to the client's.
enum ClientOrder: Sendable {
    case perform(Errand)
    case cancel(tag: UInt64)
    case stop
}

/// What the client's thread shares with its callers.
final class ClientShared: Sendable {
    let configuration: StoreClientConfiguration
    let memory: BlockMemory
    let sink: @Sendable (StoreEvent) -> Void
    let signal: WakeSignal
    let orders: Mailbox<ClientOrder>
    let inFlight = SharedCount()
    /// The longest payload that the store takes, as it said last; 0: it has not said yet.
    let payloadBytesMax = Atomic<Int>(0)

    init(
        _ configuration: StoreClientConfiguration, _ memory: BlockMemory,
        _ sink: @escaping @Sendable (StoreEvent) -> Void
    ) throws(SystemError) {
        self.configuration = configuration
        self.memory = memory
        self.sink = sink
        signal = try WakeSignal()
        orders = Mailbox(capacity: 2 * configuration.inFlightMax + 2, waking: signal)
    }
}
