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
    /// Whether the client's thread takes orders no more.
    let hasEnded = Atomic<Bool>(false)

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

    /// Tells of an errand's end.
    func report(_ errand: Errand, _ response: Response, slotIsFree: Bool) {
        switch errand.owner {
        case .tag(let tag):
            if slotIsFree { inFlight.decrement() }
            sink(.completed(tag: tag, response, slotIsFree: slotIsFree))
        case .task(let resume):
            guard slotIsFree else { return }
            inFlight.decrement()
            resume(response)
        case .client: break
        }
    }

    /// Fails what was left behind the end of the client's thread: that calls it once at its end, and whoever leaves something
    /// later calls it then.
    func failLeft() {
        var left: [ClientOrder] = []
        orders.drain(into: &left)
        for case .perform(let errand) in left {
            report(errand, .because(.disconnected, "the client shuts down"), slotIsFree: true)
        }
    }
}
