// The thread of one drive. Commands come in by a mailbox, requests go out by a ring, events leave through the sink that
// the owner gave. What is done in which order is `DriveScheduler`'s business.

import Glibc
import KVModel
import KVSystem
import Synchronization

/// One drive at work: a device, a ring, a thread.
///
/// The sink is called on the drive's thread and must return at once: it posts to its owner's mailbox. Nothing allocates or
/// locks per block besides the two mailboxes.
public final class FlashDrive: Drive {
    /// The device it works on.
    public let device: FlashDevice
    /// Whether the block memory is registered with the ring. It is not when the limit of locked memory (`ulimit -l`) is
    /// too low; then each transfer costs more processor time.
    public let hasRegisteredBuffers: Bool

    private let configuration: FlashDriveConfiguration
    private let sink: @Sendable (FlashEvent) -> Void
    private let inbox: Mailbox<FlashCommand>
    private let signal: WakeSignal
    private let isStopping = Atomic<Bool>(false)
    /// Commands accepted and not answered.
    private let unansweredCount = Atomic<Int>(0)
    /// Hints accepted that the thread has not taken. They have room of their own: an end may free many blocks before the
    /// thread looks here again, and a command that its owner counts must never find its room taken by hints.
    private let hintCount = Atomic<Int>(0)
    private let published = Mutex(FlashCounters())
    private let thread = Mutex<EngineThread?>(nil)

    /// Starts the drive's thread.
    ///
    /// - Parameters:
    ///   - memory: All buffers that commands will name. It is registered with the ring, and kept.
    ///   - sink: Told of every event.
    public init(
        _ device: FlashDevice, memory: BlockMemory, configuration: FlashDriveConfiguration,
        sink: @escaping @Sendable (FlashEvent) -> Void
    ) throws(FlashError) {
        self.device = device
        self.configuration = configuration
        self.sink = sink
        let signal = try system(WakeSignal())
        self.signal = signal
        inbox = Mailbox(capacity: 2 * configuration.commandCountMax, waking: signal)
        let transferMemory = try system(TransferMemory(memory, headerCount: configuration.commandCountMax))
        // Room for all requests and the wake-up in one turn.
        let ring = try Ring(
            entryCount: DriveScheduler.requestCountMax(configuration) + 1, descriptor: device.file.descriptor,
            memory: transferMemory)
        hasRegisteredBuffers = ring.hasRegisteredBuffers
        let scheduler = DriveScheduler(
            device: device.schedulerDevice, configuration: configuration, memory: transferMemory)
        let work = DriveWork(ring: ring, scheduler: scheduler)
        let started = try system(EngineThread("flash-\(device.superblock.identity.number)") { [self] in run(work) })
        thread.withLock { $0 = started }
    }

    /// Hands a command over, from any thread. Hints are as many at most as commands; those beyond are `full`, too.
    public func post(_ command: FlashCommand) -> Acceptance {
        guard !isStopping.load(ordering: .relaxed) else { return .full }
        let hasRoom = if case .discard = command { takeRoom(in: hintCount) } else { takeRoom(in: unansweredCount) }
        guard hasRoom else { return .full }
        let posted = inbox.post(command)
        precondition(posted == .accepted, "a mailbox smaller than the commands that may be under way")
        return .accepted
    }

    private func takeRoom(in count: borrowing Atomic<Int>) -> Bool {
        if count.wrappingAdd(1, ordering: .relaxed).oldValue < configuration.commandCountMax { return true }
        count.wrappingSubtract(1, ordering: .relaxed)
        return false
    }

    /// Takes no more commands, and ends the thread after what was accepted has ended or has been given up. Called once.
    public func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        let thread = thread.withLock { thread -> EngineThread? in
            defer { thread = nil }
            return thread
        }
        guard let thread else { preconditionFailure("a drive shut down twice") }
        thread.join()
    }

    /// What it has done so far, from any thread.
    public var counters: FlashCounters { published.withLock { $0 } }

    // MARK: The thread

    private func run(_ work: DriveWork) {
        work.ring.enable()
        work.scheduler.onFaultPoint = configuration.faultTrigger.map(Self.killer)
        var batch: [FlashCommand] = []
        var wakeIsQueued = false
        var nextExpiry = MonotonicClock.now
        while true {
            let now = MonotonicClock.now
            takeCommands(into: &batch, work, at: now)
            if now >= nextExpiry {
                work.scheduler.expire(at: now)
                nextExpiry = now + expiryInterval
            }
            while let request = work.scheduler.nextRequest(at: now) { work.ring.queue(request) }
            deliver(work)
            if isStopping.load(ordering: .sequentiallyConsistent), hasEnded(work) { break }
            if !wakeIsQueued {
                work.ring.queueWake(signal.descriptor)
                wakeIsQueued = true
            }
            signal.prepareToSleep()
            let waits = inbox.isEmpty && !(isStopping.load(ordering: .sequentiallyConsistent) && work.scheduler.isIdle)
            let limit = work.scheduler.isIdle ? nil : nextExpiry - now
            work.ring.submit(waits: waits, limit: limit) { completion in
                if completion.ticket == Ring.wakeTicket {
                    wakeIsQueued = false
                } else {
                    work.scheduler.complete(completion)
                }
            }
            signal.awake(wasSignalled: !wakeIsQueued)
        }
        published.withLock { $0 = work.scheduler.counters }
        // The device may still write to buffers of commands that it never answered: their memory is never given back.
        if !work.scheduler.isIdle { _ = unsafe Unmanaged.passRetained(work) }
    }

    private func takeCommands(into batch: inout [FlashCommand], _ work: DriveWork, at now: Instant) {
        inbox.drain(into: &batch)
        for command in batch {
            work.scheduler.accept(command, at: now)
            if case .discard = command { hintCount.wrappingSubtract(1, ordering: .relaxed) }
        }
    }

    /// Tells the owner what has happened. A command's room is free before its owner hears of the end.
    private func deliver(_ work: DriveWork) {
        guard !work.scheduler.events.isEmpty else { return }
        published.withLock { $0 = work.scheduler.counters }
        for event in work.scheduler.events {
            switch event {
            case .becameReadOnly: sink(event)
            // An overdue command keeps its room until the device lets go of it.
            case .read(_, .overdue), .written(_, .overdue), .erased(_, .overdue): sink(event)
            case .read, .written, .erased, .released:
                unansweredCount.wrappingSubtract(1, ordering: .relaxed)
                sink(event)
            }
            if let reached = work.scheduler.onFaultPoint { Self.reach(event, reached) }
        }
        work.scheduler.events.removeAll(keepingCapacity: true)
    }

    private func hasEnded(_ work: DriveWork) -> Bool {
        inbox.isEmpty && (work.scheduler.isIdle || work.scheduler.hasOnlyOverdue)
    }

    /// How often overdue commands are looked for.
    private var expiryInterval: Duration {
        Duration(nanoseconds: max(1_000_000, configuration.timeout.nanoseconds / 16))
    }

    // MARK: Fault points

    private static func reach(_ event: FlashEvent, _ reached: (FaultPoint) -> Void) {
        switch event {
        case .written(_, .done): reached(.written)
        case .erased(_, .done): reached(.erased)
        default: break
        }
    }

    /// Kills this process at the trigger's point, as `kill -9` would.
    private static func killer(_ trigger: FaultTrigger) -> @Sendable (FaultPoint) -> Void {
        let left = Atomic<Int>(trigger.occurrence)
        let count = AtomicCounter(left)
        return { point in
            if point == trigger.point, count.countDown() { kill(getpid(), SIGKILL) }
        }
    }
}

/// A count shared by the calls of one closure.
private final class AtomicCounter: Sendable {
    private let left: Atomic<Int>
    init(_ start: consuming Atomic<Int>) { left = start }
    /// Whether this was the last.
    func countDown() -> Bool { left.wrappingSubtract(1, ordering: .relaxed).newValue == 0 }
}

/// What only the drive's thread touches. It crosses into the thread once, at its start.
private final class DriveWork: @unchecked Sendable {
    let ring: Ring
    var scheduler: DriveScheduler

    init(ring: consuming Ring, scheduler: DriveScheduler) {
        self.ring = ring
        self.scheduler = scheduler
    }
}
