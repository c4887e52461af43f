// A GPU's memory as the nearest tier: slots, and copies both ways on streams of our own, each after the engine's events. One thread
// a direction asks and waits; the GPU's copy engines do the work.

import CCuda
import KVModel
import KVSystem
import Synchronization

/// Slots in the memory of a GPU.
public final class CudaDevice: DeviceMemory {
    /// The GPU's name.
    public var deviceName: String { memory.driver.name }
    /// It is a GPU, as far as its driver says.
    public let isEmulated = false
    /// Bytes from one slot to the next.
    public let slotBytes: Int
    /// How many slots.
    public let slotCount: Int
    private let memory: CudaMemory
    private let upward: CudaLane
    private let downward: CudaLane

    /// - Parameters:
    ///   - host: Node memory, which copies come from and go to; registered (`CudaDriver.arenaHook`), or copies take a detour.
    ///   - copiesMax: Submissions that one direction may have accepted and not yet done.
    ///   - limit: How long the GPU may take for what was submitted. Then it counts as lost.
    ///   - sink: Gets everything back that was accepted, with its checksums, on one of two threads.
    public init(
        _ driver: CudaDriver, slotBytes: Int, slotCount: Int, source: CudaMemorySource = .made, host: BlockMemory,
        copiesMax: Int = 256, limit: Duration = Duration(seconds: 10),
        sink: @escaping @Sendable (DeviceCopies) -> Void
    ) throws(OperatorError) {
        guard slotBytes > 0, slotCount > 0 else {
            throw OperatorError("\(slotCount) slots of \(slotBytes) bytes", at: driver.name)
        }
        self.slotBytes = slotBytes
        self.slotCount = slotCount
        memory = try CudaMemory(driver, byteCount: slotBytes * slotCount, source)
        upward = try CudaLane(memory, .toDevice, host: host, ordersMax: copiesMax, limit: limit, sink: sink)
        downward = try CudaLane(memory, .toHost, host: host, ordersMax: copiesMax, limit: limit, sink: sink)
    }

    /// What an engine maps the slots by, if they were made here.
    public var descriptor: Int32? { memory.descriptor }

    /// Why the GPU is used no more; nil while it is.
    public var failure: String? { upward.failure ?? downward.failure }

    /// The first `count` bytes of a slot.
    public func slice(_ slot: Int, _ count: Int) -> MemorySlice {
        precondition(slot >= 0 && slot < slotCount && count <= slotBytes, "a slot outside the device")
        return MemorySlice(offset: slot * slotBytes, count: count)
    }

    /// Takes copies on; full also when the GPU was lost.
    public func submit(_ copies: DeviceCopies) -> Acceptance {
        let places = copies.copies.map { copies.direction == .toDevice ? $0.to : $0.from }
        precondition(
            places.allSatisfy { $0.offset >= 0 && $0.offset + $0.count <= slotBytes * slotCount },
            "a copy outside the device")
        return lane(copies.direction).post(.copies(copies))
    }

    /// Makes an engine's event known, by the 64-byte handle of an event that was made for other processes.
    public func event(handle: [UInt8]) throws(OperatorError) -> CudaEvent {
        try CudaEvent(memory.driver, handle: handle)
    }

    /// What is submitted in this direction from now on waits for the event as the engine last recorded it.
    public func wait(for event: CudaEvent, _ direction: DeviceDirection) -> Acceptance {
        lane(direction).post(.wait(event))
    }

    /// Ends after everything accepted has come back. Once.
    public func shutDown() {
        upward.shutDown()
        downward.shutDown()
    }

    private func lane(_ direction: DeviceDirection) -> CudaLane { direction == .toDevice ? upward : downward }
}

/// An event of an engine's stream: what its kernels had written, or read, when it was recorded.
public final class CudaEvent: Sendable {
    let number: UInt64
    private let driver: CudaDriver

    init(_ driver: CudaDriver, handle: [UInt8]) throws(OperatorError) {
        guard handle.count == 64 else {
            throw OperatorError("an event's handle has 64 bytes, not \(handle.count)", at: driver.name)
        }
        try driver.enter()
        var number: UInt64 = 0
        try driver.check(unsafe hf_cuda_event_import(driver.raw, handle, &number), "open an engine's event")
        self.number = number
        self.driver = driver
    }

    deinit {
        if unsafe hf_cuda_enter(driver.raw) == 0 { unsafe hf_cuda_event_release(driver.raw, number) }
    }
}

/// One direction: a stream, and the thread that feeds it.
private final class CudaLane: Sendable {
    enum Order: Sendable {
        case copies(DeviceCopies)
        case wait(CudaEvent)
    }

    /// Copies that the GPU has.
    private struct Flight {
        var copies: DeviceCopies
        var event: UInt64
        var since: Instant
    }

    /// How often the GPU is asked whether it is done: a tenth of what 2 MiB take at 40 GB/s would be too often to be worth it.
    private static let pollInterval = Duration(nanoseconds: 20_000)

    private let memory: CudaMemory
    private let direction: DeviceDirection
    private let host: BlockMemory
    private let limit: Duration
    private let ordersMax: Int
    private let sink: @Sendable (DeviceCopies) -> Void
    private let orders: Mailbox<Order>
    private let signal: WakeSignal
    private let waiting = Atomic<Int>(0)
    private let isStopping = Atomic<Bool>(false)
    private let failed = Mutex<String?>(nil)
    private let thread = Mutex<EngineThread?>(nil)

    init(
        _ memory: CudaMemory, _ direction: DeviceDirection, host: BlockMemory, ordersMax: Int, limit: Duration,
        sink: @escaping @Sendable (DeviceCopies) -> Void
    ) throws(OperatorError) {
        self.memory = memory
        self.direction = direction
        self.host = host
        self.limit = limit
        self.ordersMax = ordersMax
        self.sink = sink
        try memory.driver.enter()
        var stream: UInt64 = 0
        try memory.driver.check(unsafe hf_cuda_stream_make(memory.driver.raw, &stream), "make a stream")
        do throws(SystemError) {
            signal = try WakeSignal()
            orders = Mailbox(capacity: ordersMax, waking: signal)
        } catch {
            unsafe hf_cuda_stream_release(memory.driver.raw, stream)
            throw OperatorError("\(error)", at: memory.driver.name)
        }
        do throws(SystemError) {
            let started = try EngineThread(direction == .toDevice ? "hf-gpu-up" : "hf-gpu-down") { [self, stream] in
                run(stream)
            }
            thread.withLock { $0 = started }
        } catch {
            unsafe hf_cuda_stream_release(memory.driver.raw, stream)
            throw OperatorError("\(error)", at: memory.driver.name)
        }
    }

    var failure: String? { failed.withLock { $0 } }

    func post(_ order: Order) -> Acceptance {
        // The room is taken first: what is accepted and not yet done is what the bound counts.
        guard failure == nil else { return .full }
        guard waiting.wrappingAdd(1, ordering: .relaxed).newValue <= ordersMax, orders.post(order) == .accepted else {
            waiting.wrappingSubtract(1, ordering: .relaxed)
            return .full
        }
        return .accepted
    }

    func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        thread.withLock { $0.take() }?.join()
    }

    private func run(_ stream: UInt64) {
        let driver = memory.driver
        var events: [UInt64] = []
        var flights: [Flight] = []
        var pending: [Order] = []
        var batch: [Order] = []
        if unsafe hf_cuda_enter(driver.raw) != 0 { fail("its context cannot be entered") }
        while true {
            let stops = isStopping.load(ordering: .sequentiallyConsistent)
            orders.drain(into: &batch)
            pending += batch
            var begun = 0
            while begun < pending.count, begin(pending[begun], stream, &events, &flights, stops: stops) { begun += 1 }
            pending.removeFirst(begun)
            settle(&flights, &events)
            if stops, pending.isEmpty, flights.isEmpty, orders.isEmpty { break }
            let isBusy = !flights.isEmpty || !pending.isEmpty
            signal.prepareToSleep()
            if orders.isEmpty, isBusy || !isStopping.load(ordering: .sequentiallyConsistent) {
                signal.wait(atMost: isBusy ? Self.pollInterval : nil)
            }
            signal.awake()
        }
        for event in events { unsafe hf_cuda_event_release(driver.raw, event) }
        unsafe hf_cuda_stream_release(driver.raw, stream)
    }

    /// Gives an order to the GPU. False: its fence has not come so far, and it and all behind it wait.
    private func begin(
        _ order: Order, _ stream: UInt64, _ events: inout [UInt64], _ flights: inout [Flight], stops: Bool
    ) -> Bool {
        switch order {
        case .wait(let event):
            if failure == nil {
                take(unsafe hf_cuda_stream_wait(memory.driver.raw, stream, event.number), "wait for an event")
            }
            waiting.wrappingSubtract(1, ordering: .relaxed)
            return true
        case .copies(var copies):
            if let (fence, value) = copies.after, failure == nil,
                !fence.hasReached(value, otherwiseWaking: signal)
            {
                guard stops else { return false }
                end(&copies)
                return true
            }
            guard failure == nil, let event = nextEvent(&events) else {
                end(&copies)
                return true
            }
            for index in copies.copies.indices { ask(&copies.copies[index], copies.check, stream) }
            take(unsafe hf_cuda_event_record(memory.driver.raw, event, stream), "record an event")
            flights.append(Flight(copies: copies, event: event, since: MonotonicClock.now))
            return true
        }
    }

    private func nextEvent(_ events: inout [UInt64]) -> UInt64? {
        if let event = events.popLast() { return event }
        var made: UInt64 = 0
        take(unsafe hf_cuda_event_make(memory.driver.raw, &made), "make an event")
        return failure == nil ? made : nil
    }

    /// Asks for one copy. Bytes on their way up are checked before the GPU gets them; `isWhole` says until the end whether it was asked for.
    private func ask(_ copy: inout BlockCopy, _ check: CopyCheck, _ stream: UInt64) {
        let driver = memory.driver
        copy.isWhole = false
        switch direction {
        case .toDevice:
            guard isRight(&copy, check, at: copy.from) else { return }
            let bytes = unsafe UnsafeRawBufferPointer(host[copy.from])
            let error = unsafe hf_cuda_copy_to_device(
                driver.raw, stream, memory.address + UInt64(copy.to.offset), bytes.baseAddress!, bytes.count)
            take(error, "copy to the GPU")
            copy.isWhole = error == 0
        case .toHost:
            let bytes = unsafe host[copy.to]
            let error = unsafe hf_cuda_copy_to_host(
                driver.raw, stream, bytes.baseAddress!, memory.address + UInt64(copy.from.offset), bytes.count)
            take(error, "copy from the GPU")
            copy.isWhole = error == 0
        }
    }

    /// Whether a block in node memory is what it should be; takes its checksum if that is asked for.
    private func isRight(_ copy: inout BlockCopy, _ check: CopyCheck, at slice: MemorySlice) -> Bool {
        guard check != .none else { return true }
        let sum = unsafe BlockChecksum.of(copy.name, UnsafeRawBufferPointer(host[slice]))
        if check == .take { copy.checksum = sum }
        return copy.checksum == sum
    }

    /// Gives back what the GPU has done, in order.
    private func settle(_ flights: inout [Flight], _ events: inout [UInt64]) {
        var done = 0
        for index in flights.indices {
            let isLost = failure != nil
            if !isLost {
                let answer = unsafe hf_cuda_event_query(memory.driver.raw, flights[index].event)
                if answer == HF_CUDA_NOT_READY {
                    guard MonotonicClock.now - flights[index].since > limit else { break }
                    fail("what was submitted has not ended in \(limit.seconds) s")
                } else {
                    take(answer, "end a copy")
                }
            }
            done += 1
            if failure == nil {
                events.append(flights[index].event)
                if direction == .toHost {
                    for copy in flights[index].copies.copies.indices where flights[index].copies.copies[copy].isWhole {
                        let to = flights[index].copies.copies[copy].to
                        flights[index].copies.copies[copy].isWhole = isRight(
                            &flights[index].copies.copies[copy], flights[index].copies.check, at: to)
                    }
                }
                waiting.wrappingSubtract(1, ordering: .relaxed)
                sink(flights[index].copies)
            } else {
                // What a lost GPU was asked to write into node memory, it may still write.
                flights[index].copies.mayStillWrite = direction == .toHost
                end(&flights[index].copies)
            }
        }
        flights.removeFirst(done)
    }

    /// Gives copies back as not made.
    private func end(_ copies: inout DeviceCopies) {
        for index in copies.copies.indices { copies.copies[index].isWhole = false }
        waiting.wrappingSubtract(1, ordering: .relaxed)
        sink(copies)
    }

    private func take(_ error: Int32, _ doing: @autoclosure () -> String) {
        if error != 0 { fail("it cannot \(doing()): \(memory.driver.text(error))") }
    }

    private func fail(_ reason: String) { failed.withLock { $0 = $0 ?? reason } }
}
