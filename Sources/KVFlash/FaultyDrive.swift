// A drive with seeded faults: what a device, its cable or its firmware may do to what it was asked. For tests and
// campaigns; everything above a drive must bear it without serving a wrong byte and without waiting for ever.

import Glibc
import KVModel
import KVSystem
import Synchronization

/// What may go wrong with one command.
public enum DriveFault: String, CaseIterable, Sendable {
    /// A read returns with one bit changed.
    case bitFlip
    /// A read returns half of what is asked, and the other half of what the buffer held before.
    case torn
    /// A read returns with zeros from some sector on.
    case truncated
    /// A read returns with two of its sectors exchanged.
    case swapped
    /// A read returns other extents than were asked for.
    case misdirected
    /// A read returns without having transferred anything: the buffer holds what it held before.
    case stale
    /// A read, a write or an erasure fails with an input/output error.
    case failed
    /// A write fails for lack of space, as a thin device does it.
    case noSpace
    /// The device takes its time, and everything behind waits.
    case slow
    /// The device never answers. The command is overdue at once; `revive` lets go of its buffer.
    case dead
}

/// Decorates a drive with faults, each as often as it is told, which ones decided by a seed.
public final class FaultyDrive: Drive {
    private struct Pending {
        var fault: DriveFault
        var slice: MemorySlice
        var before: [UInt8] = []
    }

    private struct State {
        var source: RandomSource
        var pending: [UInt64: Pending] = [:]
        var swallowed: [UInt64] = []
        var counts: [DriveFault: Int] = [:]
    }

    private let perMille: [DriveFault: Int]
    private let extentCount: Int
    private let memory: BlockMemory
    private let sink: @Sendable (FlashEvent) -> Void
    private let state: Mutex<State>
    private let inner: Mutex<(any Drive)?>
    private let slowMicroseconds: UInt32

    /// A faulty drive around the one that `make` returns for a sink.
    ///
    /// - Parameters:
    ///   - perMille: How many of a thousand commands meet each fault.
    ///   - slowMicroseconds: How long a `slow` command holds up the drive's thread.
    public init(
        seed: UInt64, perMille: [DriveFault: Int], slowMicroseconds: UInt32 = 2000, extentCount: Int,
        memory: BlockMemory, sink: @escaping @Sendable (FlashEvent) -> Void,
        over make: (@escaping @Sendable (FlashEvent) -> Void) throws(FlashError) -> any Drive
    ) throws(FlashError) {
        self.perMille = perMille
        self.slowMicroseconds = slowMicroseconds
        self.extentCount = extentCount
        self.memory = memory
        self.sink = sink
        state = Mutex(State(source: RandomSource(seed: seed)))
        inner = Mutex(nil)
        let drive = try make { [weak self] event in self?.take(event) }
        inner.withLock { $0 = drive }
    }

    /// How often each fault was met.
    public var counts: [DriveFault: Int] { state.withLock { $0.counts } }

    /// Hands a command over, or meets it with a fault.
    public func post(_ command: FlashCommand) -> Acceptance {
        switch command {
        case .read(let tag, let extents, let slice): read(tag, extents, slice)
        case .write(let tag, _, _, _): change(command, tag) { .written(tag: tag, $0) }
        case .erase(let tag, _, _): change(command, tag) { .erased(tag: tag, $0) }
        case .discard: forward(command)
        }
    }

    /// Lets go of what `dead` has swallowed.
    public func revive() {
        let tags = state.withLock { state in
            defer { state.swallowed = [] }
            return state.swallowed
        }
        for tag in tags { sink(.released(tag: tag)) }
    }

    /// Revives what is dead and shuts the drive down.
    public func shutDown() {
        revive()
        inner.withLock { $0 }?.shutDown()
    }

    private func forward(_ command: FlashCommand) -> Acceptance {
        guard let drive = inner.withLock({ $0 }) else { preconditionFailure("a drive used before it was made") }
        return drive.post(command)
    }

    private func draw(among faults: [DriveFault]) -> DriveFault? {
        state.withLock { state in
            var roll = state.source.below(1000)
            for fault in faults {
                roll -= perMille[fault, default: 0]
                if roll < 0 {
                    state.counts[fault, default: 0] += 1
                    return fault
                }
            }
            return nil
        }
    }

    private func read(_ tag: UInt64, _ extents: ExtentList, _ slice: MemorySlice) -> Acceptance {
        let faults: [DriveFault] = [
            .bitFlip, .torn, .truncated, .swapped, .misdirected, .stale, .failed, .slow, .dead,
        ]
        var wanted = extents
        switch draw(among: faults) {
        case nil: break
        case .failed: return answer(.read(tag: tag, .failed(EIO)))
        case .dead: return swallow(tag, .read(tag: tag, .overdue))
        case .misdirected:
            wanted = ExtentList((0..<extents.count).map { (extents[$0] + 1) % UInt32(extentCount) })
        case let fault?:
            let before = fault == .torn || fault == .stale ? unsafe [UInt8](memory[slice]) : []
            state.withLock { $0.pending[tag] = Pending(fault: fault, slice: slice, before: before) }
        }
        let accepted = forward(.read(tag: tag, wanted, into: slice))
        if accepted == .full { state.withLock { _ = $0.pending.removeValue(forKey: tag) } }
        return accepted
    }

    private func change(_ command: FlashCommand, _ tag: UInt64, _ event: (FlashOutcome) -> FlashEvent) -> Acceptance {
        switch draw(among: [.failed, .noSpace, .slow, .dead]) {
        case .failed: return answer(event(.failed(EIO)))
        case .noSpace: return answer(event(.failed(ENOSPC)))
        case .dead: return swallow(tag, event(.overdue))
        case .slow:
            let none = MemorySlice(offset: 0, count: 0)
            state.withLock { $0.pending[tag] = Pending(fault: .slow, slice: none) }
        default: break
        }
        return forward(command)
    }

    private func answer(_ event: FlashEvent) -> Acceptance {
        sink(event)
        return .accepted
    }

    private func swallow(_ tag: UInt64, _ event: FlashEvent) -> Acceptance {
        // Told first: whoever revives meanwhile must not let go of what nobody knows to be held.
        let accepted = answer(event)
        state.withLock { $0.swallowed.append(tag) }
        return accepted
    }

    /// Damages what a read has brought, on its way to the owner.
    private func take(_ event: FlashEvent) {
        let tag: UInt64? =
            switch event {
            case .read(let tag, _), .written(let tag, _), .erased(let tag, _): tag
            default: nil
            }
        if let tag, let pending = state.withLock({ $0.pending.removeValue(forKey: tag) }) {
            if pending.fault == .slow { usleep(slowMicroseconds) } else { damage(pending) }
        }
        sink(event)
    }

    private func damage(_ pending: Pending) {
        let bytes = unsafe memory[pending.slice]
        let (first, second) = state.withLock { ($0.source.below(bytes.count), $0.source.below(bytes.count)) }
        switch pending.fault {
        case .bitFlip: unsafe bytes[first] ^= 1 << UInt8(second % 8)
        case .truncated:
            for index in (first & ~511)..<bytes.count { unsafe bytes[index] = 0 }
        case .torn:
            for index in (bytes.count / 2)..<bytes.count { unsafe bytes[index] = pending.before[index] }
        case .stale: unsafe bytes.copyBytes(from: pending.before)
        case .swapped:
            let (left, right) = (first & ~511, second & ~511)
            for index in 0..<512 where left + index < bytes.count && right + index < bytes.count {
                unsafe bytes.swapAt(left + index, right + index)
            }
        case .misdirected, .failed, .noSpace, .slow, .dead: break
        }
    }
}
