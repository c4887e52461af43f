// Takes checksums of payloads away from the store's thread: the scrubber's, and those of first reads after a restart.

import Glibc
import KVModel
import KVSystem
import Synchronization

/// One thread that compares payloads with the checksums they should have.
final class ChecksumWorker: Sendable {
    struct Order: Sendable {
        var tag: UInt64
        var slice: MemorySlice
        var expected: UInt64
    }

    private let memory: BlockMemory
    private let orders: Mailbox<Order>
    private let signal: WakeSignal
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<EngineThread?>(nil)

    /// - Parameter ordersMax: As many as there can be operations.
    init(memory: BlockMemory, ordersMax: Int, sink: @escaping @Sendable (UInt64, Bool) -> Void) throws(SystemError) {
        self.memory = memory
        signal = try WakeSignal()
        orders = Mailbox(capacity: ordersMax, waking: signal)
        let started = try EngineThread("hf-checksum") { [self] in work(sink) }
        thread.withLock { $0 = started }
    }

    func post(_ order: Order) -> Acceptance { orders.post(order) }

    func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        thread.withLock { $0.take() }?.join()
    }

    private func work(_ sink: (UInt64, Bool) -> Void) {
        var batch: [Order] = []
        while !isStopping.load(ordering: .sequentiallyConsistent) {
            orders.drain(into: &batch)
            for order in batch {
                let bytes = unsafe UnsafeRawBufferPointer(memory[order.slice])
                sink(order.tag, unsafe payloadChecksum(bytes) == order.expected)
            }
            guard batch.isEmpty else { continue }
            signal.prepareToSleep()
            if orders.isEmpty, !isStopping.load(ordering: .sequentiallyConsistent) { signal.wait(atMost: nil) }
            signal.awake()
        }
    }
}
