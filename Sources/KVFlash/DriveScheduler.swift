// What a drive does next. A plain value: commands, completions and the time go in, device requests and events come out.
// The drive's thread runs it over a ring; tests run the same code over a modelled device and cut the power after every
// step. It reads no clock and touches no device.

import KVModel
import KVSystem

/// The decisions of one drive, among them the one that all restarts rest on: *a valid header's data is complete and its
/// own, at every instant.*
///
///     write   data → flush → header → flush → written
///     erase   tombstone → flush → erased
///
/// While one flush runs, the commands that come to need one gather, and the next serves all of them. A flush that fails
/// ends writing for good: the kernel reports a lost page once, so a second, successful flush would prove nothing.
package struct DriveScheduler {
    /// How far a command is.
    enum Phase {
        /// The slot is free.
        case free
        /// Data travels, or waits for its turn to.
        case data
        /// The header page travels, or waits for its turn to.
        case header
        /// A flush is needed, or runs, after the data.
        case dataFlush
        /// A flush is needed, or runs, after the header page.
        case headerFlush
    }

    enum Kind { case read, write, volatileWrite, erase }

    /// A command under way. Its number is also that of its header page.
    struct Operation {
        var phase = Phase.free
        var kind = Kind.read
        var tag: UInt64 = 0
        var extents = ExtentList()
        var memory = MemorySlice(offset: 0, count: 0)
        /// Bytes that travel: the payload's, rounded up to 4 KiB.
        var byteCount = 0
        /// Of them, those that were handed to the device.
        var bytesSent = 0
        /// Transfers with the device.
        var transfersOut = 0
        var deadline = Instant.zero
        /// How it will end, once the device has let go of it.
        var failure: FlashOutcome?
        /// Whether the owner has been told that it is overdue.
        var isOverdue = false
    }

    /// A transfer with the device.
    struct Transfer {
        var operation: UInt32 = 0
        var request = DeviceRequest(kind: .read, ticket: 0)
        var attempts = 0
    }

    /// What a drive needs to know of its device.
    package struct Device: Sendable {
        package var geometry: FlashGeometry
        package var drive: FlashUUID
        /// Whether what was written must be flushed to be durable.
        package var hasVolatileCache: Bool
        /// Whether it wants to be told of extents that hold nothing.
        package var canDiscard: Bool

        package init(geometry: FlashGeometry, drive: FlashUUID, hasVolatileCache: Bool, canDiscard: Bool) {
            self.geometry = geometry
            self.drive = drive
            self.hasVolatileCache = hasVolatileCache
            self.canDiscard = canDiscard
        }
    }

    let device: Device
    let configuration: FlashDriveConfiguration
    let memory: TransferMemory

    var operations: [Operation]
    var freeOperations: [UInt32]
    var transfers: [Transfer]
    var freeTickets: [UInt32]
    /// Tickets whose transfer came back short or interrupted.
    var retries: [UInt32] = []
    /// Commands with data to read, with data to write, with a header page to write.
    var reads: SlotQueue
    var writes: SlotQueue
    var headers: SlotQueue
    /// Commands that need a flush which has not begun, and those which the running flush serves.
    var awaitingFlush: [UInt32] = []
    var inFlush: [UInt32] = []
    var flushBegan: Instant?
    /// Whether the time of the running flush is over, so that its end means nothing any more.
    var flushIsOverdue = false
    var discards: DiscardList
    /// Reads sent since the last write while writes were waiting.
    var readRun = 0
    var writeTransfersOut = 0
    /// Bytes of reads with the device.
    var readBytesOut = 0
    /// Whether a flush has failed.
    package private(set) var isReadOnly = false

    /// What has happened, for the owner; whoever runs the scheduler takes them.
    package var events: [FlashEvent] = []
    package var counters = FlashCounters()
    /// Told of each step that a command reaches.
    package var onFaultPoint: (@Sendable (FaultPoint) -> Void)?

    package init(device: Device, configuration: FlashDriveConfiguration, memory: TransferMemory) {
        self.device = device
        self.configuration = configuration
        self.memory = memory
        let count = configuration.commandCountMax
        operations = Array(repeating: Operation(), count: count)
        freeOperations = (0..<UInt32(count)).reversed()
        transfers = Array(repeating: Transfer(), count: configuration.transferCountMax)
        freeTickets = (0..<UInt32(configuration.transferCountMax)).reversed()
        reads = SlotQueue(capacity: count)
        writes = SlotQueue(capacity: count)
        headers = SlotQueue(capacity: count)
        discards = DiscardList(
            extentCount: device.canDiscard ? device.geometry.extentCount : 0, extentBytes: device.geometry.extentBytes)
        retries.reserveCapacity(configuration.transferCountMax)
        awaitingFlush.reserveCapacity(count)
        inFlush.reserveCapacity(count)
        events.reserveCapacity(2 * count + 1)
    }

    /// Commands that have not been answered, and those whose buffers the device still holds.
    package var operationCount: Int { operations.count - freeOperations.count }

    /// Whether the device is to do anything at all.
    package var isIdle: Bool { operationCount == 0 && flushBegan == nil && !discards.isUnderWay }

    /// Whether all that is left has been given up: the device will not answer, perhaps ever.
    package var hasOnlyOverdue: Bool {
        for operation in operations where operation.phase != .free && !operation.isOverdue { return false }
        return (flushBegan == nil || flushIsOverdue) && (!discards.isUnderWay || discards.isOverdue)
    }

    // MARK: Commands

    /// Takes a command on. The caller keeps at most `commandCountMax` unanswered.
    package mutating func accept(_ command: FlashCommand, at now: Instant) {
        switch command {
        case .read(let tag, let extents, let slice):
            begin(.read, tag: tag, extents: extents, memory: slice, at: now)
        case .write(let tag, let object, let slice, let isVolatile):
            precondition(slice.count == object.payloadBytes, "a write of other bytes than its object has")
            guard !isReadOnly else { return events.append(.written(tag: tag, .readOnly)) }
            let number = begin(
                isVolatile ? .volatileWrite : .write, tag: tag, extents: object.extents, memory: slice, at: now)
            let page = unsafe memory[memory.headerPage(number)]
            if !isVolatile { unsafe BlockHeader.encode(object, drive: device.drive, into: page) }
            onFaultPoint?(.writeTaken)
        case .erase(let tag, let extent, let generation):
            precondition(extent < device.geometry.extentCount, "an extent past the end of its drive")
            guard !isReadOnly else { return events.append(.erased(tag: tag, .readOnly)) }
            let none = MemorySlice(offset: 0, count: 0)
            let number = begin(.erase, tag: tag, extents: ExtentList([extent]), memory: none, at: now)
            let page = unsafe memory[memory.headerPage(number)]
            unsafe BlockHeader.encodeTombstone(
                extent: extent, drive: device.drive, generation: generation, into: page)
        case .discard(let extents):
            if !isReadOnly { discards.add(extents) }
        }
    }

    @discardableResult
    private mutating func begin(
        _ kind: Kind, tag: UInt64, extents: ExtentList, memory slice: MemorySlice, at now: Instant
    ) -> UInt32 {
        guard let number = freeOperations.popLast() else { preconditionFailure("more commands than were agreed") }
        var operation = Operation()
        operation.kind = kind
        operation.tag = tag
        operation.extents = extents
        operation.memory = slice
        operation.byteCount = slice.count.roundedUp(toMultipleOf: 4096)
        operation.deadline = now + configuration.timeout
        operation.phase = kind == .erase ? .header : .data
        if kind != .erase {
            precondition(
                slice.count > 0 && slice.offset % 4096 == 0, "a transfer of nothing, or from between two pages")
            precondition(
                operation.byteCount <= extents.count * device.geometry.extentBytes, "more bytes than its extents hold")
        }
        operations[Int(number)] = operation
        switch kind {
        case .read: reads.append(number)
        case .write, .volatileWrite:
            discards.remove(extents)
            writes.append(number)
        case .erase: headers.append(number)
        }
        return number
    }

    // MARK: Ends

    /// Answers a command and frees its number.
    mutating func answer(_ number: UInt32, _ outcome: FlashOutcome) {
        let operation = operations[Int(number)]
        operations[Int(number)].phase = .free
        freeOperations.append(number)
        switch outcome {
        case .done: counters.count(operation.kind, operation.memory.count)
        default: counters.failures += 1
        }
        events.append(event(operation, outcome))
    }

    private func event(_ operation: Operation, _ outcome: FlashOutcome) -> FlashEvent {
        switch operation.kind {
        case .read: .read(tag: operation.tag, outcome)
        case .write, .volatileWrite: .written(tag: operation.tag, outcome)
        case .erase: .erased(tag: operation.tag, outcome)
        }
    }

    /// Fails a command: at once when the device holds nothing of it, else when the last transfer has come back.
    mutating func fail(_ number: UInt32, _ outcome: FlashOutcome) {
        withdraw(number)
        let operation = operations[Int(number)]
        if operation.transfersOut == 0 { return answer(number, operation.failure ?? outcome) }
        if operation.failure == nil { operations[Int(number)].failure = outcome }
    }

    /// Takes a command out of every line it waits in, so that nothing more of it is sent.
    private mutating func withdraw(_ number: UInt32) {
        switch operations[Int(number)].phase {
        case .free: preconditionFailure("ending a command that is not under way")
        case .data: if operations[Int(number)].kind == .read { reads.remove(number) } else { writes.remove(number) }
        case .header: headers.remove(number)
        case .dataFlush, .headerFlush:
            awaitingFlush.removeAll { $0 == number }
            inFlush.removeAll { $0 == number }
        }
    }

    /// No more writes, for good: all writes and erasures under way have failed.
    mutating func becomeReadOnly(_ errorNumber: Int32) {
        guard !isReadOnly else { return }
        isReadOnly = true
        counters.isReadOnly = true
        events.append(.becameReadOnly(errorNumber: errorNumber))
        discards.removeAll()
        for number in operations.indices {
            let operation = operations[number]
            guard operation.phase != .free, operation.kind != .read, !operation.isOverdue else { continue }
            fail(UInt32(number), .readOnly)
        }
    }

    // MARK: Time

    /// Gives up what is overdue at `now`. Costs a walk over all commands; a few times in each timeout are enough.
    package mutating func expire(at now: Instant) {
        if let flushBegan, !flushIsOverdue, flushBegan + configuration.timeout <= now {
            flushIsOverdue = true
            becomeReadOnly(DriveScheduler.timedOut)
        }
        discards.expire(at: now, timeout: configuration.timeout)
        for number in operations.indices {
            let operation = operations[number]
            guard operation.phase != .free, !operation.isOverdue, operation.deadline <= now else { continue }
            if operation.transfersOut == 0 {
                fail(UInt32(number), .failed(Self.timedOut))
            } else {
                withdraw(UInt32(number))
                operations[number].isOverdue = true
                counters.overdue += 1
                events.append(event(operation, .overdue))
            }
        }
    }

    /// `ETIMEDOUT`.
    static let timedOut: Int32 = 110
}
