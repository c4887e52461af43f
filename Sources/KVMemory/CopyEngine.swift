// Threads that copy blocks from one memory to another, the checksum taken on the way. Bounded: a full engine says so.

import KVModel
import KVSystem
import Synchronization

/// One block to copy, and what became of it.
public struct BlockCopy: Sendable, Equatable {
    /// Where it is.
    public var from: MemorySlice
    /// Where it goes: as many bytes.
    public var to: MemorySlice
    /// Whose checksum it is; the name goes into it before the bytes.
    public var name: ObjectName
    /// `BlockChecksum` of name and payload: what it must be, or, with `CopyCheck.take`, what it is.
    public var checksum: UInt64
    /// Whether the copy was made and is right.
    public var isWhole = false

    /// A copy yet to be made.
    public init(from: MemorySlice, to: MemorySlice, name: ObjectName = ObjectName(.none), checksum: UInt64 = 0) {
        precondition(from.count == to.count, "a copy between different lengths")
        self.from = from
        self.to = to
        self.name = name
        self.checksum = checksum
    }
}

/// What is done with checksums.
public enum CopyCheck: Sendable {
    /// The bytes are copied and not looked at.
    case none
    /// The checksum is taken and put into the copy.
    case take
    /// The checksum is taken and compared with the copy's.
    case compare
}

/// Copies that are made one after the other, and come back together.
public struct CopyBatch: Sendable {
    /// Its owner's name for it.
    public var tag: UInt64
    /// Where the blocks are.
    public var source: BlockMemory
    /// Where they go.
    public var target: BlockMemory
    /// The blocks.
    public var copies: [BlockCopy]
    /// What is done with checksums.
    public var check: CopyCheck
    /// Nothing is read before this fence has come so far.
    public var after: (fence: CopyFence, value: UInt64)?

    /// A batch of its parts.
    public init(
        tag: UInt64, source: BlockMemory, target: BlockMemory, copies: [BlockCopy], check: CopyCheck,
        after: (fence: CopyFence, value: UInt64)? = nil
    ) {
        self.tag = tag
        self.source = source
        self.target = target
        self.copies = copies
        self.check = check
        self.after = after
    }

    /// Makes the copies on the calling thread.
    public mutating func perform() {
        for index in copies.indices {
            let (from, to) = (source, target)
            let bytes = unsafe UnsafeRawBufferPointer(from[copies[index].from])
            let room = unsafe to[copies[index].to]
            if check == .none {
                unsafe copyBlock(bytes, to: room)
                copies[index].isWhole = true
                continue
            }
            var checksum = BlockChecksum.begin(copies[index].name, payloadBytes: copies[index].from.count)
            unsafe checksum.copy(bytes, to: room)
            if check == .take { copies[index].checksum = checksum.value }
            copies[index].isWhole = copies[index].checksum == checksum.value
        }
    }

    /// Whether each slice lies inside its memory.
    var isInside: Bool {
        copies.allSatisfy {
            Self.isInside($0.from, source) && Self.isInside($0.to, target) && $0.from.count == $0.to.count
        }
    }

    private static func isInside(_ slice: MemorySlice, _ memory: BlockMemory) -> Bool {
        guard slice.region >= 0, unsafe Int(slice.region) < memory.regions.count else { return false }
        let byteCount = unsafe memory.regions[Int(slice.region)].count
        return slice.offset >= 0 && slice.count >= 0 && slice.count <= byteCount
            && slice.offset <= byteCount - slice.count
    }
}

/// A number that only grows: work that writes signals it, work that reads waits for it. What an event of a stream is to
/// a GPU.
public final class CopyFence: Sendable {
    private struct State {
        var value: UInt64 = 0
        var waiting: [WakeSignal] = []
    }

    private let state = Mutex(State())

    /// A fence at 0.
    public init() {}

    /// How far it has come.
    public var value: UInt64 { state.withLock { $0.value } }

    /// What it says has been done up to `value`; a smaller value than before changes nothing.
    public func signal(_ value: UInt64) {
        let waiting = state.withLock { state -> [WakeSignal] in
            guard value > state.value else { return [] }
            state.value = value
            defer { state.waiting = [] }
            return state.waiting
        }
        for signal in waiting { signal.wake() }
    }

    /// Whether it has come so far; if not, `signal` is woken the next time it moves.
    func hasReached(_ value: UInt64, otherwiseWaking signal: WakeSignal) -> Bool {
        state.withLock { state in
            if state.value >= value { return true }
            if !state.waiting.contains(where: { $0 === signal }) { state.waiting.append(signal) }
            return false
        }
    }
}

/// A few threads with a bounded queue each. Batches of one thread are made in the order in which they were accepted.
public final class CopyEngine: Sendable {
    private let workers: [Worker]
    private let batchesMax: Int
    private let isStopping = Atomic<Bool>(false)

    private final class Worker: Sendable {
        let batches: Mailbox<CopyBatch>
        let signal: WakeSignal
        /// Batches that were accepted and are not yet done.
        let waiting = Atomic<Int>(0)
        let thread = Mutex<EngineThread?>(nil)
        init(batchesMax: Int) throws(SystemError) {
            signal = try WakeSignal()
            batches = Mailbox(capacity: batchesMax, waking: signal)
        }
        var load: Int { waiting.load(ordering: .relaxed) }
    }

    /// - Parameters:
    ///   - batchesMax: Batches that one worker may have accepted and not yet done.
    ///   - sink: Gets each batch back when it is done, on a worker's thread.
    public init(
        workerCount: Int, batchesMax: Int, sink: @escaping @Sendable (CopyBatch) -> Void
    ) throws(SystemError) {
        precondition(workerCount > 0 && batchesMax > 0, "a copy engine that can do nothing")
        var workers: [Worker] = []
        for _ in 0..<workerCount { workers.append(try Worker(batchesMax: batchesMax)) }
        self.workers = workers
        self.batchesMax = batchesMax
        for worker in workers {
            let started = try EngineThread("hf-copy") { [self] in run(worker, sink) }
            worker.thread.withLock { $0 = started }
        }
    }

    /// Hands a batch to the worker with the least to do, from any thread.
    public func post(_ batch: CopyBatch) -> Acceptance {
        precondition(batch.isInside, "a copy outside its memory")
        guard let worker = workers.min(by: { $0.load < $1.load }) else { return .full }
        // The room is taken first: what is accepted and not yet done is what the bound counts, not what lies in the mailbox.
        guard worker.waiting.wrappingAdd(1, ordering: .relaxed).newValue <= batchesMax,
            worker.batches.post(batch) == .accepted
        else {
            worker.waiting.wrappingSubtract(1, ordering: .relaxed)
            return .full
        }
        return .accepted
    }

    /// Ends after what was accepted has come back; what waits for a fence comes back without having been copied. Once.
    public func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        for worker in workers {
            worker.signal.wake()
            worker.thread.withLock { $0.take() }?.join()
        }
    }

    private func run(_ worker: Worker, _ sink: (CopyBatch) -> Void) {
        var batch: [CopyBatch] = []
        while true {
            // Read before looking: what was accepted before the end was asked for is seen.
            let stops = isStopping.load(ordering: .sequentiallyConsistent)
            worker.batches.drain(into: &batch)
            for index in batch.indices {
                if reaches(batch[index].after, worker) { batch[index].perform() }
                worker.waiting.wrappingSubtract(1, ordering: .relaxed)
                sink(batch[index])
            }
            guard batch.isEmpty else { continue }
            if stops { return }
            worker.signal.prepareToSleep()
            if worker.batches.isEmpty, !isStopping.load(ordering: .sequentiallyConsistent) {
                worker.signal.wait(atMost: nil)
            }
            worker.signal.awake()
        }
    }

    /// Waits for a fence. False: the engine stops first.
    private func reaches(_ after: (fence: CopyFence, value: UInt64)?, _ worker: Worker) -> Bool {
        guard let (fence, value) = after else { return true }
        while true {
            worker.signal.prepareToSleep()
            let isReached = fence.hasReached(value, otherwiseWaking: worker.signal)
            let stops = isStopping.load(ordering: .sequentiallyConsistent)
            if !isReached, !stops { worker.signal.wait(atMost: nil) }
            worker.signal.awake()
            if isReached { return true }
            if stops { return false }
        }
    }
}
