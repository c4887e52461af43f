// What the client's thread shares with those who call the client.

import KVModel
import KVSystem

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
