// Node memory for blocks: one memory file that engines map by a passed descriptor, whole and usable at once, its pages
// brought in, pinned and registered in the background. It does not know what lies in its slots.

import KVModel
import KVSystem
import Synchronization

/// Slots of one size in one mapping.
///
/// It outlives engines: each maps the file anew by `SharedRegion(descriptor:byteCount:)`, which touches no page. The
/// mapping lives until the arena and everybody who holds its `memory` have let go.
public final class MemoryArena: Sendable {
    /// The slots, side by side from the start of its one region.
    public let memory: BlockMemory
    /// The memory file, for passing to engines. Its size can never change.
    public var descriptor: Int32 { filler.mapping.descriptor }
    /// Bytes of the file: the slots, rounded up to whole pages.
    public let byteCount: Int
    /// Bytes from one slot to the next.
    public let slotBytes: Int
    /// How many slots.
    public let slotCount: Int
    private let filler: ArenaFiller
    private let thread: EngineThread

    /// Maps the memory and starts to make it ready.
    ///
    /// - Parameter progress: Told each time something has become ready, on the arena's thread.
    /// - Throws: One error when there is not enough memory, or none on that node: before any of it was taken.
    public init(
        _ configuration: ArenaConfiguration, hooks: [ArenaHook] = [],
        progress: @escaping @Sendable (ArenaStatus) -> Void = { _ in }
    ) throws(OperatorError) {
        let (product, overflows) = configuration.slotBytes.multipliedReportingOverflow(by: configuration.slotCount)
        guard configuration.slotBytes > 0, configuration.slotBytes % 4096 == 0, configuration.slotCount > 0,
            !overflows, product < 1 << 56
        else {
            throw OperatorError(
                "\(configuration.slotCount) slots of \(configuration.slotBytes) bytes", at: "memory",
                remedy: "a slot has a multiple of 4096 bytes, and there is at least one")
        }
        precondition(
            configuration.chunkBytes > 0 && configuration.chunkBytes % SharedMapping.hugePageBytes == 0,
            "chunks of no whole huge pages")
        let unit = configuration.wantsHugePages ? SharedMapping.hugePageBytes : 4096
        byteCount = (product + unit - 1) / unit * unit
        slotBytes = configuration.slotBytes
        slotCount = configuration.slotCount
        let mapping = try SharedMapping(configuration, byteCount: byteCount)
        memory = unsafe BlockMemory(regions: [mapping.bytes], release: { _ = mapping })
        let filler = ArenaFiller(configuration, mapping, memory, hooks, progress)
        self.filler = filler
        do throws(SystemError) { thread = try EngineThread("hf-arena") { filler.run() } } catch {
            throw OperatorError("\(error)", at: "memory")
        }
    }

    deinit {
        filler.stop()
        thread.join()
    }

    /// How far it is, at any time from any thread.
    public var status: ArenaStatus { filler.status.withLock { $0 } }

    /// The first `count` bytes of a slot.
    public func slice(_ slot: Int, _ count: Int) -> MemorySlice {
        precondition(slot >= 0 && slot < slotCount && count <= slotBytes, "a slice outside its slot")
        return MemorySlice(offset: slot * slotBytes, count: count)
    }
}

/// What the arena's thread does: chunk by chunk pages, pins, hooks. A separate object, so that the thread does not
/// keep the arena.
final class ArenaFiller: Sendable {
    let mapping: SharedMapping
    let status: Mutex<ArenaStatus>
    private let configuration: ArenaConfiguration
    private let memory: BlockMemory
    private let hooks: [ArenaHook]
    private let progress: @Sendable (ArenaStatus) -> Void
    private let isStopping = Atomic<Bool>(false)

    init(
        _ configuration: ArenaConfiguration, _ mapping: SharedMapping, _ memory: BlockMemory, _ hooks: [ArenaHook],
        _ progress: @escaping @Sendable (ArenaStatus) -> Void
    ) {
        self.configuration = configuration
        self.mapping = mapping
        self.memory = memory
        self.hooks = hooks
        self.progress = progress
        status = Mutex(ArenaStatus(pages: mapping.pages))
    }

    /// Ends after the piece that is being brought in.
    func stop() { isStopping.store(true, ordering: .relaxed) }

    func run() {
        let byteCount = unsafe mapping.bytes.count
        var failed = Set<Int>()
        var isPinning = configuration.wantsPinning
        var pace = PopulationPace()
        for offset in stride(from: 0, to: byteCount, by: configuration.chunkBytes) {
            let chunk = MemorySlice(offset: offset, count: min(configuration.chunkBytes, byteCount - offset))
            // First, while there are no pages that the kernel would have to walk through.
            if isPinning {
                do throws(SystemError) { try mapping.pin(chunk) } catch {
                    isPinning = false
                    update { $0.failures.append("\(error)") }
                }
            }
            do throws(SystemError) {
                guard try memory.populate(chunk, at: &pace, while: { !isStopping.load(ordering: .relaxed) }) else {
                    return
                }
            } catch {
                // Whoever touches what is not there would be ended by a signal: readiness stops here for good.
                update { $0.failures.append("\(error)") }
                return
            }
            tell(.chunk, chunk, &failed)
            update { status in
                status.readyBytes = chunk.offset + chunk.count
                status.readySlots = min(configuration.slotCount, status.readyBytes / configuration.slotBytes)
                if isPinning { status.pinnedBytes = status.readyBytes }
            }
        }
        tell(.whole, MemorySlice(offset: 0, count: byteCount), &failed)
        update { $0.isComplete = true }
    }

    private func tell(_ scope: ArenaHook.Scope, _ slice: MemorySlice, _ failed: inout Set<Int>) {
        for (number, hook) in hooks.enumerated() where hook.scope == scope && !failed.contains(number) {
            do throws(OperatorError) { try hook.register(slice, memory) } catch {
                failed.insert(number)
                update { $0.failures.append(error.under(hook.name).description) }
            }
        }
    }

    private func update(_ change: (inout ArenaStatus) -> Void) {
        let now = status.withLock { status in
            change(&status)
            return status
        }
        progress(now)
    }
}
