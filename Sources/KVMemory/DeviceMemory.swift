// The nearest tier: slots in the memory of a GPU, or of something that stands in for one where there is none.

import KVModel
import KVSystem

/// Which way blocks go.
public enum DeviceDirection: Sendable {
    /// Out of node memory into the device.
    case toDevice
    /// Out of the device into node memory.
    case toHost
}

/// Blocks to copy between node memory and a device. `from` and `to` of each are slices of the one and the other, as the
/// direction says.
public struct DeviceCopies: Sendable {
    /// Its owner's name for it.
    public var tag: UInt64
    /// Which way.
    public var direction: DeviceDirection
    /// The blocks.
    public var copies: [BlockCopy]
    /// What is done with checksums.
    public var check: CopyCheck
    /// The engine's own work that must be done before a byte is touched: its kernels write what is saved, and read what
    /// is overwritten.
    public var after: (fence: CopyFence, value: UInt64)?
    /// On return from a device that was lost: it may still write into node memory, and those places must not be used
    /// again as long as its driver lives.
    public var mayStillWrite = false

    /// Copies of their parts.
    public init(
        tag: UInt64, direction: DeviceDirection, copies: [BlockCopy], check: CopyCheck,
        after: (fence: CopyFence, value: UInt64)? = nil
    ) {
        self.tag = tag
        self.direction = direction
        self.copies = copies
        self.check = check
        self.after = after
    }
}

/// Slots in a device's memory, and copies to and from them that nobody waits for.
public protocol DeviceMemory: Sendable {
    /// What it is, in words for status and report.
    var deviceName: String { get }
    /// No GPU: its rates say nothing of one.
    var isEmulated: Bool { get }
    /// Bytes from one slot to the next.
    var slotBytes: Int { get }
    /// How many slots.
    var slotCount: Int { get }
    /// What another process needs to map the same slots, if that is a descriptor.
    var descriptor: Int32? { get }
    /// Why it is used no more; nil while it is. A lost device takes no copies, and what it had comes back undone.
    var failure: String? { get }
    /// The first `count` bytes of a slot.
    func slice(_ slot: Int, _ count: Int) -> MemorySlice
    /// Takes copies on; they come back through the sink that the device was made with, on a thread of its own. Those of one
    /// direction are made in the order in which they were accepted; the two directions do not wait for each other.
    func submit(_ copies: DeviceCopies) -> Acceptance
    /// Ends after everything accepted has come back. Once.
    func shutDown()
}

/// A device made of ordinary memory: own mapping, own capacity, one queue a direction as a GPU has copy engines, real
/// copies with real checksums.
public final class EmulatedDevice: DeviceMemory {
    /// Says that it is none.
    public let deviceName = "emulated device (no GPU)"
    /// Always.
    public let isEmulated = true
    /// Ordinary memory is not lost.
    public let failure: String? = nil
    /// Its slots, as the engine beside it sees them.
    public var memory: BlockMemory { arena.memory }
    private let arena: MemoryArena
    private let host: BlockMemory
    private let upward: CopyEngine
    private let downward: CopyEngine

    /// - Parameters:
    ///   - host: Node memory, which copies come from and go to.
    ///   - copiesMax: Submissions that one direction may have accepted and not yet done.
    ///   - sink: Gets everything back that was accepted, with its checksums, on one of two threads.
    public init(
        slotBytes: Int, slotCount: Int, host: BlockMemory, copiesMax: Int = 256,
        sink: @escaping @Sendable (DeviceCopies) -> Void
    ) throws(OperatorError) {
        var configuration = ArenaConfiguration(slotBytes: slotBytes, slotCount: slotCount)
        configuration.name = "holdfast-device"
        configuration.wantsPinning = false
        arena = try MemoryArena(configuration)
        self.host = host
        do throws(SystemError) {
            upward = try CopyEngine(workerCount: 1, batchesMax: copiesMax) { sink(DeviceCopies($0, .toDevice)) }
            downward = try CopyEngine(workerCount: 1, batchesMax: copiesMax) { sink(DeviceCopies($0, .toHost)) }
        } catch {
            throw OperatorError("\(error)", at: "the emulated device")
        }
    }

    /// Bytes from one slot to the next.
    public var slotBytes: Int { arena.slotBytes }
    /// How many slots.
    public var slotCount: Int { arena.slotCount }
    /// Its memory file.
    public var descriptor: Int32? { arena.descriptor }

    /// The first `count` bytes of a slot.
    public func slice(_ slot: Int, _ count: Int) -> MemorySlice { arena.slice(slot, count) }

    /// Takes copies on, or says that the queue of that direction is full.
    public func submit(_ copies: DeviceCopies) -> Acceptance {
        switch copies.direction {
        case .toDevice: upward.post(CopyBatch(copies, source: host, target: arena.memory))
        case .toHost: downward.post(CopyBatch(copies, source: arena.memory, target: host))
        }
    }

    /// Ends after everything accepted has come back; what waits for a fence comes back undone. Once.
    public func shutDown() {
        upward.shutDown()
        downward.shutDown()
    }
}

extension CopyBatch {
    fileprivate init(_ copies: DeviceCopies, source: BlockMemory, target: BlockMemory) {
        self.init(
            tag: copies.tag, source: source, target: target, copies: copies.copies, check: copies.check,
            after: copies.after)
    }
}

extension DeviceCopies {
    fileprivate init(_ batch: CopyBatch, _ direction: DeviceDirection) {
        self.init(
            tag: batch.tag, direction: direction, copies: batch.copies, check: batch.check, after: batch.after)
    }
}
