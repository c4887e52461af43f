// What an arena is to be, and what became of it.

import KVModel
import KVSystem

/// What an arena is to be. Its bytes are a ceiling: it never has more.
public struct ArenaConfiguration: Sendable, Equatable {
    /// Bytes from one slot to the next, a multiple of 4 KiB.
    public var slotBytes: Int
    /// How many slots.
    public var slotCount: Int
    /// The only node that its pages may come from. Nil: wherever there are some.
    public var node: Int?
    /// Reserved huge pages if there are enough, else transparent ones if the kernel gives them, else ordinary pages.
    public var wantsHugePages = true
    /// Pages are pinned, so that they are never swapped out.
    public var wantsPinning = true
    /// Bytes that become ready at a time, a multiple of 2 MiB.
    public var chunkBytes = 64 << 20
    /// The memory file's name, as the kernel shows it.
    public var name = "holdfast-arena"

    /// An arena of so many slots.
    public init(slotBytes: Int, slotCount: Int) {
        self.slotBytes = slotBytes
        self.slotCount = slotCount
    }
}

/// The pages that memory lies on.
public enum ArenaPages: String, Sendable, Codable {
    /// 2 MiB, from the kernel's pool of huge pages.
    case reservedHuge
    /// 2 MiB where the kernel found room for one.
    case transparentHuge
    /// 4 KiB.
    case ordinary
}

/// How far an arena is. Every byte is usable from the beginning; ready bytes cost no fault any more.
public struct ArenaStatus: Sendable, Equatable, Codable {
    /// The pages it got.
    public var pages: ArenaPages
    /// Bytes whose pages are there, from the start on.
    public var readyBytes = 0
    /// Slots that lie in them as a whole.
    public var readySlots = 0
    /// Bytes that cannot be swapped out.
    public var pinnedBytes = 0
    /// Everything has been done that is going to be done.
    public var isComplete = false
    /// What could not be done, a sentence each: pins beyond the limit, hooks that failed, pages that were not there.
    public var failures: [String] = []
}

/// Somebody who must know the memory before it is fast: a protection domain, a ring, a GPU's driver.
public struct ArenaHook: Sendable {
    /// How much it is told at a time.
    public enum Scope: Sendable {
        /// Each chunk when its pages are there, in ascending order.
        case chunk
        /// Everything, when everything is ready.
        case whole
    }

    let name: String
    let scope: Scope
    let register: @Sendable (MemorySlice, BlockMemory) throws(OperatorError) -> Void

    /// `register` is called on the arena's thread. If it throws it is not called again, and the error stands in the status;
    /// the arena goes on without it.
    public init(
        _ name: String, scope: Scope,
        register: @escaping @Sendable (MemorySlice, BlockMemory) throws(OperatorError) -> Void
    ) {
        self.name = name
        self.scope = scope
        self.register = register
    }
}
