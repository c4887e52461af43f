// Takes down mappings of engines' memory that nobody uses any more, on a thread of its own: for a region of many gigabytes the
// kernel takes as long as for a hundred thousand look-ups.

import KVSystem
import Synchronization

/// Where the last holder of a region leaves it.
final class RegionUnmapper: Sendable {
    private static let waitingMax = 1_024

    private let regions: Mailbox<SharedRegion>
    private let signal: WakeSignal
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<EngineThread?>(nil)

    init() throws(SystemError) {
        signal = try WakeSignal()
        regions = Mailbox(capacity: Self.waitingMax, waking: signal)
    }

    /// Lets go of regions soon; without room, at once. The thread starts with the first.
    func take(_ left: some Sequence<SharedRegion>) {
        for region in left { _ = regions.post(region) }
        thread.withLock { thread in
            if thread == nil { thread = try? EngineThread("kv-unmap") { [self] in run() } }
        }
    }

    /// Returns when everything that was left is unmapped. Once.
    func finish() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        thread.withLock { $0.take() }?.join()
    }

    private func run() {
        var batch: [SharedRegion] = []
        while true {
            // Read first: what was left before the end is then in the batch.
            let isLast = isStopping.load(ordering: .sequentiallyConsistent)
            regions.drain(into: &batch)
            batch.removeAll(keepingCapacity: true)
            if isLast { return }
            signal.prepareToSleep()
            if regions.isEmpty, !isStopping.load(ordering: .sequentiallyConsistent) { signal.wait(atMost: nil) }
            signal.awake()
        }
    }
}
