// The threads that move bytes between engines' memory and slots of node memory, and check what came from local flash.
// The checksum is taken while the bytes are in the cache for the copy.

import KVModel
import KVSystem
import Synchronization

/// The regions of one engine at some moment. Never changed, so that a copy under way keeps what it uses mapped.
final class EngineRegions: Sendable {
    let byNumber: [Int32: EngineRegion]
    init(_ byNumber: [Int32: EngineRegion]) { self.byNumber = byNumber }
}

/// One block of an order, and what became of it.
struct CopyBlock: Sendable {
    var name: ObjectName
    /// Its payload in node memory.
    var slot: MemorySlice
    /// The first of its slices in the engine.
    var firstSlice: Int
    /// What it must be, or, out of an engine, what it is.
    var checksum: UInt64
    var isWhole = true
    /// Whether its bytes were compared with the checksum.
    var wasCompared = false
}

/// A few blocks of one transfer.
struct CopyOrder: Sendable {
    enum Work: Sendable {
        /// Out of the engine into slots; the checksum is taken for the first time.
        case outOfEngine
        /// Out of slots into the engine, the checksum compared.
        case intoEngine
        /// The checksum compared, nothing moved: of what came from local flash.
        case check
        /// The same, of what an engine is to read where it lies.
        case verify
        /// The checksum taken for the first time, nothing moved: an engine wrote where the block lies.
        case adopt
    }

    var work: Work
    var transfer: UInt32
    var firstMove: Int32
    var blocks: [CopyBlock]
    /// The engine's slices and regions; none where nothing moves.
    var places: EnginePlaces?
    var regions: EngineRegions?

    /// How many bytes are to be gone through.
    var byteCount: Int { blocks.reduce(0) { $0 + $1.slot.count } }
}

/// A few threads with a bounded mailbox each.
///
/// Orders are left by one thread and waited for by nobody there, so they are posted first and their workers woken together: a thread
/// that is woken may take the processor of whoever woke it, once for each order if orders are posted one by one.
final class CopyWorkers: Sendable {
    /// Bytes that one worker is given before a second is woken: as long as it takes to wake, the first has copied them.
    private static let packedBytesMax = 256 << 10

    private let memory: BlockMemory
    private let workers: [Worker]
    private let isStopping = Atomic<Bool>(false)

    private final class Worker: Sendable {
        let orders: Mailbox<CopyOrder>
        let signal: WakeSignal
        /// Bytes that it has still to go through.
        let waiting = Atomic<Int>(0)
        /// Whether it has orders that it was not woken for; only of the thread that posts.
        let isOwedWake = Atomic<Bool>(false)
        let thread = Mutex<EngineThread?>(nil)
        init(ordersMax: Int) throws(SystemError) {
            signal = try WakeSignal()
            orders = Mailbox(capacity: ordersMax, waking: signal)
        }
    }

    /// - Parameters:
    ///   - ordersMax: As many as may be under way at once.
    ///   - sink: Gets each order back when it is done, on a worker's thread.
    init(
        memory: BlockMemory, count: Int, ordersMax: Int, sink: @escaping @Sendable (CopyOrder) -> Void
    ) throws(SystemError) {
        self.memory = memory
        var workers: [Worker] = []
        for _ in 0..<count { workers.append(try Worker(ordersMax: ordersMax)) }
        self.workers = workers
        for worker in workers {
            let started = try EngineThread("hf-copy") { [self] in run(worker, sink) }
            worker.thread.withLock { $0 = started }
        }
    }

    /// Leaves an order with a worker that has a little to do already, else with the one that has the least. It is begun when the
    /// caller calls `wake`, or before.
    func post(_ order: CopyOrder) -> Acceptance {
        let byteCount = order.byteCount
        var best = workers[0]
        var least = Int.max
        for worker in workers {
            let waiting = worker.waiting.load(ordering: .relaxed)
            if waiting > 0, waiting + byteCount <= Self.packedBytesMax {
                best = worker
                break
            }
            if waiting < least { (best, least) = (worker, waiting) }
        }
        // Counted first: it may have been done before `leave` returns.
        best.waiting.wrappingAdd(byteCount, ordering: .relaxed)
        let accepted = best.orders.leave(order)
        if accepted == .accepted {
            best.isOwedWake.store(true, ordering: .relaxed)
        } else {
            best.waiting.wrappingSubtract(byteCount, ordering: .relaxed)
        }
        return accepted
    }

    /// Wakes those who have got orders since the last call.
    func wake() {
        for worker in workers where worker.isOwedWake.load(ordering: .relaxed) {
            worker.isOwedWake.store(false, ordering: .relaxed)
            worker.signal.wake()
        }
    }

    /// Ends after what was accepted has been done. Once.
    func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        for worker in workers {
            worker.signal.wake()
            worker.thread.withLock { $0.take() }?.join()
        }
    }

    private func run(_ worker: Worker, _ sink: (CopyOrder) -> Void) {
        var batch: [CopyOrder] = []
        while true {
            // Read first: what was posted before the end is then in the batch.
            let isLast = isStopping.load(ordering: .sequentiallyConsistent)
            worker.orders.drain(into: &batch)
            for index in batch.indices {
                perform(&batch[index])
                worker.waiting.wrappingSubtract(batch[index].byteCount, ordering: .relaxed)
                sink(batch[index])
            }
            guard batch.isEmpty else { continue }
            if isLast { return }
            worker.signal.prepareToSleep()
            if worker.orders.isEmpty, !isStopping.load(ordering: .sequentiallyConsistent) {
                worker.signal.wait(atMost: nil)
            }
            worker.signal.awake()
        }
    }

    /// Does what an order says, on the calling thread.
    func perform(_ order: inout CopyOrder) {
        for index in order.blocks.indices {
            switch order.work {
            case .outOfEngine: copyOut(&order.blocks[index], order)
            case .intoEngine: copyIn(&order.blocks[index], order)
            case .check, .verify, .adopt:
                let block = order.blocks[index]
                let bytes = unsafe UnsafeRawBufferPointer(memory[block.slot])
                let checksum = unsafe BlockChecksum.of(block.name, bytes)
                if order.work == .adopt {
                    order.blocks[index].checksum = checksum
                } else {
                    order.blocks[index].isWhole = checksum == block.checksum
                    order.blocks[index].wasCompared = true
                }
            }
        }
    }

    private func copyOut(_ block: inout CopyBlock, _ order: CopyOrder) {
        guard let places = order.places, let regions = order.regions?.byNumber else { return block.isWhole = false }
        var checksum = BlockChecksum.begin(block.name, payloadBytes: block.slot.count)
        var offset = block.slot.offset
        for slice in places.slices[block.firstSlice..<block.firstSlice + places.segmentsPerBlock] {
            guard let region = regions[slice.region] else { return block.isWhole = false }
            let part = MemorySlice(region: block.slot.region, offset: offset, count: slice.count)
            let source = MemorySlice(offset: slice.offset, count: slice.count)
            unsafe checksum.copy(UnsafeRawBufferPointer(region.memory[source]), to: memory[part])
            offset += slice.count
            // Pages that went while they were read left zeros with a good checksum.
            if !region.isIntact { block.isWhole = false }
        }
        block.checksum = checksum.value
    }

    private func copyIn(_ block: inout CopyBlock, _ order: CopyOrder) {
        guard let places = order.places, let regions = order.regions?.byNumber else { return block.isWhole = false }
        var checksum = BlockChecksum.begin(block.name, payloadBytes: block.slot.count)
        var offset = block.slot.offset
        for slice in places.slices[block.firstSlice..<block.firstSlice + places.segmentsPerBlock] {
            guard let region = regions[slice.region] else { return block.isWhole = false }
            let part = MemorySlice(region: block.slot.region, offset: offset, count: slice.count)
            let target = MemorySlice(offset: slice.offset, count: slice.count)
            unsafe checksum.copy(UnsafeRawBufferPointer(memory[part]), to: region.memory[target])
            offset += slice.count
        }
        if checksum.value != block.checksum { block.isWhole = false }
    }
}
