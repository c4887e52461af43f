// What a node believes of the shared store: answers with an age, kept in the records of the blocks it knows anyway, so
// the directory is bounded as they are. It may be wrong both ways; only a load's result is truth.

import KVModel

/// What is known of the place of a block.
enum Whereabouts {
    case here(Tier)
    case absent
    case unknown
}

/// How the store's answers are read.
struct StoreDirectory {
    private let hasStore: Bool
    private let presentAge: Int64
    private let absentAge: Int64
    private let isSubscribed: Bool

    init(hasStore: Bool, _ configuration: DirectoryConfiguration) {
        self.hasStore = hasStore
        presentAge = configuration.presentAge.nanoseconds / 1_000_000
        absentAge = configuration.absentAge.nanoseconds / 1_000_000
        isSubscribed = configuration.isSubscribed
    }

    /// The nearest tier from which a block could be had, now being `milliseconds`.
    @inline(__always)
    func source(of record: BlockRecord, at milliseconds: UInt32) -> Whereabouts {
        if record.dram == .present { return .here(.dram) }
        if record.nvme == .present { return .here(.nvme) }
        guard hasStore else { return .absent }
        let age = Int64(milliseconds &- record.flashHeard)
        switch record.flash {
        case .present: return isSubscribed || age <= presentAge ? .here(.flash) : .unknown
        case .absent: return isSubscribed || age <= absentAge ? .absent : .unknown
        case .unknown: return .unknown
        }
    }
}
